"""An adapter over a whole model: which layers it changes, its factors, its file."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pipeline.errors import InputError, SettingsError
from pipeline.settings import nearest
from trainers.adapters import locon, loha
from trainers.adapters.base import AdaptedLayer, FlatFactors
from trainers.adapters.foreign_names import kohya_tensors
from trainers.adapters.paths import Algorithm, Shape, compute_dtype
from trainers.export import file_bytes
from trainers.layers import Layer, Part, Targets, find_text_encoder_layers, find_unet_layers

AlgorithmName = Literal["lora", "locon", "loha"]
ALGORITHMS: Mapping[AlgorithmName, ModuleType] = {"lora": locon, "locon": locon, "loha": loha}
SHOWN_KEYS = 3


@dataclass(frozen=True, slots=True)
class BlockSize:
    """Ranks and alphas of the layers of one block."""

    linear_dim: int
    linear_alpha: float
    conv_dim: int
    conv_alpha: float


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """What an adapter is made of.

    Args:
        algorithm: "lora" is that of kohya's networks.lora, attention blocks without convolutions of larger
            kernels; "locon" the same of all layers.
        linear_dim, linear_alpha: rank and alpha of linear layers and of 1 x 1 convolutions.
        conv_dim, conv_alpha: of larger kernels; a rank of 0 leaves them out.
        init: one of the algorithm's `INITS`.
        block_sizes: ranks and alphas of single blocks, in place of those above.
        network_args: more of what kohya's scripts would have been told, for the file's metadata.
    """

    algorithm: AlgorithmName
    linear_dim: int
    linear_alpha: float
    conv_dim: int
    conv_alpha: float
    init: str = "lycoris"
    targets: Targets = "full"
    trains_text_encoder: bool = True
    block_sizes: Mapping[str, BlockSize] = field(default_factory=dict)
    network_args: Mapping[str, str] = field(default_factory=dict)

    def rank_and_alpha(self, layer: Layer) -> tuple[int, float]:
        """Those of one layer; rank 0 leaves it as it is."""
        own = BlockSize(self.linear_dim, self.linear_alpha, self.conv_dim, self.conv_alpha)
        size = self.block_sizes.get(layer.block, own)
        if layer.kernel_area > 1:
            return size.conv_dim, size.conv_alpha
        return size.linear_dim, size.linear_alpha


def _prepare(factors: FlatFactors, multiplier: Tensor, part: nn.Module, _inputs: object) -> None:
    """Make the thin factors of one part's layers before its forward pass, in the dtype it will compute in.

    They serve until the next one, or until gradients are cleared: blocks that are computed again in the
    backward pass (gradient checkpointing) must find the same.
    """
    weight = next(part.parameters())
    factors.prepare(multiplier, compute_dtype(weight))


class AdapterNetwork:
    """Adapted layers in their places, with their factors in one flat tensor for each part of the model.

    Args:
        parts: the models; before each of their forward passes the factors of their layers are prepared.
    """

    def __init__(
        self,
        layers: Sequence[AdaptedLayer],
        factors: Mapping[Part, FlatFactors],
        parts: Mapping[Part, nn.Module],
        multiplier: Tensor,
    ) -> None:
        self.layers = {layer.layer_key: layer for layer in layers}
        self.factors = dict(factors)
        self._multiplier = multiplier
        self._hooks: list[RemovableHandle] = []
        for part, one in factors.items():
            self._hooks.append(parts[part].register_forward_pre_hook(partial(_prepare, one, multiplier)))

    @property
    def num_trainable(self) -> int:
        """Trainable numbers."""
        return sum(one.flat.numel() for one in self.factors.values())

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place."""
        for one in self.factors.values():
            one.zero_grad()

    def set_multiplier(self, multiplier: float) -> None:
        """Turn the whole adapter up or down; 0 is the model without it."""
        self._multiplier.fill_(multiplier)

    def restore(self) -> None:
        """Give the models their own layers back."""
        for layer in self.layers.values():
            layer.restore()
        for hook in self._hooks:
            hook.remove()

    def file_tensors(self, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
        """Every tensor of the file, by its key, in the order of the layers."""
        return {
            key: tensor.to(dtype) for layer in self.layers.values() for key, tensor in layer.file_tensors()
        }

    def file_bytes(self, dtype: torch.dtype, metadata: Mapping[str, str]) -> int:
        """Exact size of the file that `file_tensors` and these metadata make, also on the meta device."""
        return file_bytes(self.file_tensors(dtype), metadata)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take factors and alphas from a file's tensors, in kohya's names or those of foreign_names.py.

        Raises:
            InputError: the file's layers, or their sizes, are not exactly those of this adapter.
        """
        found = tensors_by_layer(kohya_tensors(tensors))
        _raise_unmatched("are missing in the file", self.layers.keys() - found.keys())
        _raise_unmatched("of the file have no place in the model", found.keys() - self.layers.keys())
        for key, layer in self.layers.items():
            _load_layer(layer, found[key])
        for part, one in self.factors.items():
            one.adopt([layer for layer in self.layers.values() if layer.part == part])


@torch.no_grad()
def _load_layer(layer: AdaptedLayer, tensors: Mapping[str, Tensor]) -> None:
    algorithm = cast(Algorithm, ALGORITHMS[algorithm_of(tensors)])
    for name, values in algorithm.from_file(tensors).items():
        factor = layer.factors.get(name)
        if factor is None or factor.shape != values.shape:
            size = "none" if factor is None else list(factor.shape)
            raise InputError(
                f"{layer.layer_key}: {name} is {list(values.shape)} in the file and {size} here",
                hint="load it with the kind and ranks it was made with: celforge inspect FILE",
            )
        factor.copy_(values)
    layer.alpha = float(tensors["alpha"]) if "alpha" in tensors else float(layer.rank)


def algorithm_of(tensors: Iterable[str]) -> AlgorithmName:
    """Tell the kind of a layer's change from the suffixes of its tensors.

    Raises:
        InputError: a kind that this release does not know.
    """
    suffixes = set(tensors)
    if {"lora_up.weight", "lora_down.weight"} <= suffixes and "lora_mid.weight" not in suffixes:
        return "locon"
    if {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} <= suffixes and "hada_t1" not in suffixes:
        return "loha"
    raise InputError(
        f"a layer with {', '.join(sorted(suffixes))} is neither a LoRA, a LoCon nor a LoHa",
        hint="Tucker decompositions and other kinds are not read",
    )


def tensors_by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """{layer key: {suffix: tensor}}; a key is cut at its first dot."""
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        layer, _, suffix = key.partition(".")
        found[layer][suffix] = tensor
    return dict(found)


def _raise_unmatched(what: str, keys: Iterable[str]) -> None:
    unmatched = sorted(keys)
    if unmatched:
        shown = ", ".join(unmatched[:SHOWN_KEYS]) + (", ..." if len(unmatched) > SHOWN_KEYS else "")
        raise InputError(
            f"{len(unmatched)} layers {what}: {shown}",
            hint="a file in part is never loaded; see what it holds: celforge inspect FILE",
        )


def attach(
    spec: AdapterSpec, unet: nn.Module, text_encoder: nn.Module | None, *, seed: int = 0
) -> AdapterNetwork:
    """Put an adapter that changes nothing yet over a model; all else in the model is frozen.

    Args:
        text_encoder: needed where the spec trains it.
        seed: factors begin as a function of the seed and their key, whatever else is adapted.

    Raises:
        SettingsError: an init that the algorithm does not have; a lora of more than attention blocks.
        InputError: the model is not one of Stable Diffusion 1.x.
    """
    algorithm = cast(Algorithm, ALGORITHMS[spec.algorithm])
    _check_init(spec)
    _check_lora(spec)
    unet.requires_grad_(False)
    layers = find_unet_layers(unet, spec.targets)
    if text_encoder is not None:
        text_encoder.requires_grad_(False)
    if spec.trains_text_encoder:
        assert text_encoder is not None
        layers += find_text_encoder_layers(text_encoder)
    multiplier = torch.ones((), device=layers[0].module.weight.device)
    adapted: list[AdaptedLayer] = []
    factors: dict[Part, FlatFactors] = {}
    for part in ("unet", "text_encoder"):
        of_part = [layer for layer in layers if layer.part == part and spec.rank_and_alpha(layer)[0]]
        if of_part:
            factors[part], new = _adapt(spec, algorithm, of_part, seed, multiplier)
            adapted += new
    for layer in adapted:
        layer.put_in_place()
    parts: dict[Part, nn.Module] = {"unet": unet}
    if text_encoder is not None:
        parts["text_encoder"] = text_encoder
    return AdapterNetwork(adapted, factors, parts, multiplier)


def _adapt(
    spec: AdapterSpec, algorithm: Algorithm, layers: Sequence[Layer], seed: int, multiplier: Tensor
) -> tuple[FlatFactors, list[AdaptedLayer]]:
    sizes = [algorithm.factor_shapes(Shape.of(one.module), spec.rank_and_alpha(one)[0]) for one in layers]
    flat = FlatFactors(sizes, algorithm, layers[0].module.weight.device)
    adapted = []
    for layer, factors in zip(layers, flat.views, strict=True):
        rank, alpha = spec.rank_and_alpha(layer)
        one = AdaptedLayer(layer, algorithm, factors, rank=rank, alpha=alpha, multiplier=multiplier)
        _initialise(one, algorithm, spec.init, seed)
        adapted.append(one)
    flat.adopt(adapted)
    return flat, adapted


def _initialise(layer: AdaptedLayer, algorithm: Algorithm, init: str, seed: int) -> None:
    """Drawn on the CPU, so that a seed means the same on every device."""
    if layer.base.weight.is_meta:
        return
    digest = hashlib.sha256(f"{seed}:{layer.layer_key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    drawn = {name: torch.empty(factor.shape) for name, factor in layer.factors.items()}
    algorithm.initialise(drawn, init, generator)
    with torch.no_grad():
        for name, values in drawn.items():
            layer.factors[name].copy_(values)


def _check_init(spec: AdapterSpec) -> None:
    inits: Sequence[str] = ALGORITHMS[spec.algorithm].INITS
    if spec.init not in inits:
        near = nearest(spec.init, inits)
        raise SettingsError(
            f'{spec.algorithm} has no init "{spec.init}": it has {", ".join(inits)}',
            hint=f'did you mean "{near}"?' if near else "",
        )


def _check_lora(spec: AdapterSpec) -> None:
    has_convs = spec.conv_dim or any(size.conv_dim for size in spec.block_sizes.values())
    if spec.algorithm == "lora" and (has_convs or spec.targets != "attention"):
        raise SettingsError(
            f'a lora changes attention blocks only, found conv_dim {spec.conv_dim}, targets "{spec.targets}"',
            hint='conv_dim = 0 and targets = "attention", or kind = "locon" for the others',
        )


def file_metadata(spec: AdapterSpec) -> Iterator[tuple[str, str]]:
    """What UIs must know of a file to load it, as kohya's scripts and LyCORIS write it."""
    yield "ss_v2", "False"
    yield "ss_base_model_version", "sd_v1"
    yield "ss_network_dim", str(spec.linear_dim)
    yield "ss_network_alpha", f"{spec.linear_alpha:g}"
    args = {"conv_dim": str(spec.conv_dim), "conv_alpha": f"{spec.conv_alpha:g}"} if spec.conv_dim else {}
    is_kohya = spec.algorithm == "lora" or (
        spec.algorithm == "locon" and spec.targets == "full" and bool(args)
    )
    args |= spec.network_args
    yield "ss_network_module", "networks.lora" if is_kohya else "lycoris.kohya"
    yield (
        "ss_network_args",
        json.dumps(args if is_kohya else {"algo": spec.algorithm, **args}, sort_keys=True),
    )
