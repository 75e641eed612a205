"""What learns: an adapter over a frozen model, or the model itself. The loop knows no other difference."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipeline.errors import InputError, SettingsError
from trainers.adapters.dropping import AdapterDropping
from trainers.adapters.network import AdapterNetwork, AdapterSpec, attach, file_metadata
from trainers.adapters.norms import Norms, limit_norms
from trainers.block_values import block_args, block_rates, block_sizes
from trainers.craft import network_args
from trainers.export import FileHashes, write_safetensors
from trainers.layers import Part
from trainers.learning_rates import adapter_groups, freeze_blocks, full_groups
from trainers.models import Models, save_diffusers, save_single_file
from trainers.narrow_norms import keep_norms_narrow, widens_norms
from trainers.precision import DTYPES, Precision
from trainers.run_folder import RunFolder
from trainers.train_settings import Settings


class Method(Protocol):
    """One way of learning."""

    @property
    def num_trainable(self) -> int:
        """Trainable numbers."""

    def parameters(self) -> list[Tensor]:
        """What the optimizer steps, with its gradients in `.grad`."""

    def parameter_groups(
        self, learning_rates: Mapping[Part, float], *, by_matrix: bool
    ) -> list[dict[str, Any]]:
        """What an optimizer takes, a group for each learning rate.

        Args:
            by_matrix: give every matrix by itself, with its own rows and columns.
        """

    def zero_grad(self) -> None:
        """Forget the gradients."""

    def begin_batch(self, number: int) -> None:
        """Draw what is dropped of the batch with this number."""

    def end_step(self) -> None:
        """After a step of the optimizer: keep what has limits within them, and drop nothing any more."""

    def measurements(self) -> dict[str, float]:
        """What the last step measured, for the log."""

    def freeze_text_encoder(self) -> None:
        """Let the text encoder be as it is: no gradients, and no steps of the optimizer."""

    def tensors(self) -> dict[str, Tensor]:
        """What a state holds, by name, as it is."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors of a state back, bit for bit."""

    def replaced(self, tensors: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Let the model have other values, such as an average of them, for a while; afterwards its own again,
        bit for bit.

        Args:
            tensors: by the names of `tensors`, fp32, on any device.
        """

    def named_trainable(self) -> Iterator[tuple[str, Tensor]]:
        """(layer, trainable tensor), to name the one that went wrong."""

    def save(
        self, folder: RunFolder, step: int | None, metadata: Mapping[str, str]
    ) -> list[tuple[Path, FileHashes | None]]:
        """Write the model files of a step, the last ones without one; hashes of single files."""


def make_method(settings: Settings, models: Models, device: torch.device, precision: Precision) -> Method:
    """Move a model to its device and make ready what learns.

    Raises:
        InputError, SettingsError: the model is of another family, or the settings do not go together.
    """
    models.vae.requires_grad_(False)
    if settings.kind == "full":
        method: Method = FullMethod(settings, models, device)
    else:
        method = AdapterMethod(settings, models, device, precision)
    if widens_norms(device.type, DTYPES[precision]):
        keep_norms_narrow(models.unet, models.text_encoder)
    return method


def adapter_spec(settings: Settings, unet_config: Mapping[str, Any]) -> AdapterSpec:
    """The adapter that settings ask for.

    Raises:
        SettingsError: a text encoder alone, which has no layer of a UNet.
    """
    assert settings.kind != "full"
    if not settings.trains_unet:
        raise SettingsError(
            "an adapter of the text encoder alone is not one that UIs know",
            hint='train = "both" or "unet"; a full checkpoint can train the text encoder alone',
        )
    return AdapterSpec(
        algorithm=settings.kind,
        linear_dim=settings.linear_dim,
        linear_alpha=settings.linear_alpha,
        conv_dim=settings.conv_dim,
        conv_alpha=settings.conv_alpha,
        init=settings.init if settings.kind == "loha" else "lycoris",
        targets=settings.targets,
        trains_text_encoder=settings.trains_text_encoder,
        block_sizes=block_sizes(settings, unet_config),
        network_args={**network_args(settings), **block_args(settings, unet_config)},
    )


class AdapterMethod:
    """LoRA, LoCon, LoHa: the model is frozen, in the numbers of the arithmetic; factors are fp32."""

    def __init__(
        self, settings: Settings, models: Models, device: torch.device, precision: Precision
    ) -> None:
        self.spec = adapter_spec(settings, models.unet.config)
        self._block_rates = block_rates(settings, models.unet.config)
        self._save_dtype = DTYPES[settings.save_precision]
        for module in (models.unet, models.text_encoder):
            move(module, device, DTYPES[precision])
        self.network: AdapterNetwork = attach(self.spec, models.unet, models.text_encoder, seed=settings.seed)
        self._settings = settings
        self._norms: Norms | None = None
        self._dropping: AdapterDropping | None = None
        if settings.dropout or settings.rank_dropout or settings.module_dropout:
            self._dropping = AdapterDropping(
                self.network.factors,
                dropout=settings.dropout,
                rank_dropout=settings.rank_dropout,
                module_dropout=settings.module_dropout,
                seed=settings.seed,
            )
        if settings.gradient_checkpointing:
            learns = settings.asks_text_encoder
            checkpoint_activations(models.unet, models.text_encoder if learns else None)

    @property
    def num_trainable(self) -> int:
        """Trainable numbers."""
        return self.network.num_trainable

    def parameters(self) -> list[Tensor]:
        """One flat tensor a part."""
        return [one.flat for one in self.network.factors.values()]

    def parameter_groups(
        self, learning_rates: Mapping[Part, float], *, by_matrix: bool
    ) -> list[dict[str, Any]]:
        """The flat tensor of a part, or its factors."""
        unet, text = self._settings.lora_plus_ratios
        ratios: dict[Part, float] = {"unet": unet, "text_encoder": text}
        return adapter_groups(
            self.network, learning_rates, up_ratios=ratios, block_rates=self._block_rates, by_matrix=by_matrix
        )

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place."""
        self.network.zero_grad()

    def begin_batch(self, number: int) -> None:
        """Draw its dropout. What was made of the factors for the batch before goes, and with it what autograd
        knows of that batch: a step that is being recorded must not meet it.
        """
        for one in self.network.factors.values():
            one.forget()
        if self._dropping is not None:
            self._dropping.draw(number)

    def end_step(self) -> None:
        """Limit the norms of changes."""
        if self._dropping is not None:
            self._dropping.rest()
        if self._settings.scale_weight_norms:
            self._norms = limit_norms(self.network.factors.values(), self._settings.scale_weight_norms)

    def measurements(self) -> dict[str, float]:
        """Norms of changes, where they are limited."""
        if self._norms is None:
            return {}
        norms = self._norms.of_layers
        return {
            "scaled_layers": float(self._norms.num_scaled),
            "mean_norm": float(norms.mean()),
            "largest_norm": float(norms.max()),
        }

    def freeze_text_encoder(self) -> None:
        """Freeze its factors."""
        self.network.factors["text_encoder"].freeze()

    def tensors(self) -> dict[str, Tensor]:
        """The flat tensors."""
        return {part: one.flat.data for part, one in self.network.factors.items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take them back."""
        _copy(tensors, self.tensors())

    @contextmanager
    def replaced(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Copied into the flat tensors, and out of them again."""
        before = {name: one.clone() for name, one in self.tensors().items()}
        self.load(tensors)
        try:
            yield
        finally:
            self.load(before)

    def named_trainable(self) -> Iterator[tuple[str, Tensor]]:
        """Factors by the key of their layer."""
        for key, layer in self.network.layers.items():
            for name, factor in layer.factors.items():
                yield f"{key}.{name}", factor

    def save(
        self, folder: RunFolder, step: int | None, metadata: Mapping[str, str]
    ) -> list[tuple[Path, FileHashes | None]]:
        """One file in the grammar of A1111, ComfyUI and kohya's scripts."""
        path = folder.model_path(step)
        return [(path, write_safetensors(path, self.file_tensors(), self.file_metadata(metadata)))]

    def file_tensors(self) -> dict[str, Tensor]:
        """What the file holds."""
        return self.network.file_tensors(self._save_dtype)

    def file_metadata(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """Metadata, with what an adapter's file says of itself."""
        return {**metadata, **dict(file_metadata(self.spec))}


class FullMethod:
    """The UNet, the text encoder, or both, in fp32 or bf16."""

    def __init__(self, settings: Settings, models: Models, device: torch.device) -> None:
        self._settings = settings
        self._models = models
        self._parts: dict[Part, nn.Module] = {}
        for part, module, learns in (
            ("unet", models.unet, settings.trains_unet),
            ("text_encoder", models.text_encoder, settings.trains_text_encoder),
        ):
            move(module, device, DTYPES[settings.weight_precision])
            module.requires_grad_(learns)
            if learns:
                self._parts[part] = module  # type: ignore[index]
        freeze_blocks(self._parts, block_rates(settings, models.unet.config), models.unet.config)
        if settings.gradient_checkpointing:
            learns = settings.asks_text_encoder
            checkpoint_activations(models.unet, models.text_encoder if learns else None)

    @property
    def num_trainable(self) -> int:
        """Trainable numbers."""
        return sum(one.numel() for one in self.parameters())

    def parameters(self) -> list[Tensor]:
        """Every parameter that learns."""
        return [one for module in self._parts.values() for one in module.parameters() if one.requires_grad]

    def parameter_groups(
        self, learning_rates: Mapping[Part, float], *, by_matrix: bool
    ) -> list[dict[str, Any]]:
        """Parameters of each part; tables of embeddings by themselves where matrices are asked for."""
        config = self._models.unet.config
        rates = block_rates(self._settings, config)
        return full_groups(self._parts, learning_rates, config, block_rates=rates, by_matrix=by_matrix)

    def zero_grad(self) -> None:
        """Free the gradients; those that a recorded step writes keep their places."""
        gradients = [one.grad for one in self.parameters() if one.grad is not None]
        if gradients and self._settings.cuda_graphs:
            torch._foreach_zero_(gradients)
            return
        for one in self.parameters():
            one.grad = None

    def begin_batch(self, number: int) -> None:
        """Nothing is dropped: SD1.x has no dropout."""

    def end_step(self) -> None:
        """Nothing has a limit."""

    def measurements(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def freeze_text_encoder(self) -> None:
        """Freeze its parameters."""
        module = self._parts["text_encoder"]
        module.requires_grad_(False)
        for one in module.parameters():
            one.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Parameters by part and name."""
        return {f"{part}.{name}": one.data for part, name, one in self._named()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take them back."""
        _copy(tensors, self.tensors())

    @contextmanager
    def replaced(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """The parameters' memory is exchanged: where the tensors lie on the device nothing is copied."""
        before = self.tensors()
        try:
            for part, name, one in self._named():
                one.data = tensors[f"{part}.{name}"].to(one.device)
            yield
        finally:
            for part, name, one in self._named():
                one.data = before[f"{part}.{name}"]

    def named_trainable(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters by part and name."""
        for part, name, one in self._named():
            yield f"{part}.{name}", one

    def _named(self) -> Iterator[tuple[Part, str, Tensor]]:
        for part, module in self._parts.items():
            for name, one in module.named_parameters():
                yield part, name, one

    def save(
        self, folder: RunFolder, step: int | None, metadata: Mapping[str, str]
    ) -> list[tuple[Path, FileHashes | None]]:
        """A single file as UIs load it, a diffusers folder, or both."""
        dtype = DTYPES[self._settings.save_precision]
        made: list[tuple[Path, FileHashes | None]] = []
        if self._settings.save_as in ("single-file", "both"):
            path = folder.model_path(step)
            made.append((path, save_single_file(self._models, path, dtype, metadata)))
        if self._settings.save_as in ("diffusers", "both"):
            place = folder.diffusers_folder(step)
            save_diffusers(self._models, place, dtype, metadata)
            made.append((place, None))
        return made


def move(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move and cast a model without the remark of diffusers that it should have been loaded so."""
    nn.Module.to(module, device=device, dtype=dtype)


def checkpoint_activations(unet: Any, text_encoder: Any | None) -> None:
    """Compute activations again in the backward pass instead of keeping them."""
    unet.enable_gradient_checkpointing()
    unet.train()  # the libraries keep activations in evaluation mode; SD1.x has no dropout
    if text_encoder is not None:
        options = {"use_reentrant": False}
        if hasattr(text_encoder, "activation_checkpointing_enable"):  # its name since transformers 5.20 or so
            text_encoder.activation_checkpointing_enable(options)
        else:
            text_encoder.gradient_checkpointing_enable(options)
        text_encoder.train()


def _copy(tensors: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> None:
    if tensors.keys() != places.keys() or any(
        tensors[name].shape != one.shape for name, one in places.items()
    ):
        raise InputError(
            "the state holds other layers than this run trains",
            hint="start another run: give another --name or --out",
        )
    for name, place in places.items():
        place.copy_(tensors[name])
