"""How large a run is, worked out on models without numbers: what learns, its file, a forecast of a step."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from trainers.adapters.network import attach
from trainers.block_values import adapter_rows, block_rates, full_rows
from trainers.conditioning import encode, num_chunks
from trainers.dataset import Example
from trainers.embedding_plan import EmbeddingPlan
from trainers.embeddings import extend_table
from trainers.export import file_bytes
from trainers.forecast import WIDE_BYTES, Forecast, MetaModel, Stepping, StepSizes, forecast_step
from trainers.learning_rates import freeze_blocks
from trainers.methods import adapter_spec, checkpoint_activations, move
from trainers.models import BaseFacts
from trainers.narrow_norms import keep_norms_narrow, widens_norms
from trainers.optimizers import traits_of
from trainers.precision import DTYPES, Precision
from trainers.sd1 import single_file_tensors
from trainers.train_settings import Settings

NAMES = {"unet": "UNet", "text_encoder": "text encoder"}


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """What a run trains and writes.

    Args:
        optimizer_bytes: of the optimizer's memory.
        num_layers: {part in words: layers that learn}.
        block_rows: what each block has, where blocks differ.
        file_bytes: of one saved model, but for its metadata.
    """

    num_trainable: int
    optimizer_bytes: int
    num_layers: Mapping[str, int]
    block_rows: list[dict[str, Any]]
    file_bytes: int
    forecast: Forecast


def model_sizes(
    settings: Settings,
    facts: BaseFacts,
    examples: Sequence[Example],
    precision: Precision,
    device_type: str = "cpu",
    embeddings: EmbeddingPlan | None = None,
) -> ModelSizes:
    """Sizes of a run on a base model; nothing of the model's size is allocated.

    Args:
        embeddings: that learn too.

    Raises:
        InputError, SettingsError: the model is not of this family, or the settings do not go together.
    """
    found: dict[str, Any] = {}
    with torch.device("meta"):
        model = _meta_model(settings, facts, precision, embeddings, found)
    if widens_norms(device_type, DTYPES[precision]):
        keep_norms_narrow(model.unet, model.text_encoder)
    forecast = forecast_step(
        model,
        _step_sizes(settings, facts, examples),
        dtype=DTYPES[precision],
        stepping=_stepping(settings, found["stepped"]),
        device_type=device_type,
    )
    parts = settings.batch_size / at_once(settings)
    forecast = replace(
        forecast,
        forward_flop=int(forecast.forward_flop * parts),
        step_flop=int(forecast.step_flop * parts),
        beside_bytes=_beside_bytes(facts, device_type),
    )
    return ModelSizes(
        num_trainable=found["num_trainable"],
        optimizer_bytes=traits_of(settings.optimizer).memory_bytes(one.shape for one in found["stepped"]),
        num_layers=found["num_layers"],
        block_rows=found["block_rows"],
        file_bytes=found["file_bytes"],
        forecast=forecast,
    )


def _meta_model(
    settings: Settings,
    facts: BaseFacts,
    precision: Precision,
    embeddings: EmbeddingPlan | None,
    found: dict[str, Any],
) -> MetaModel:
    """The model with its method attached; what is counted on the way goes into `found`."""
    unet, text_encoder = copy.deepcopy(facts.models.unet), copy.deepcopy(facts.models.text_encoder)
    kept_in = DTYPES[precision if settings.kind != "full" else settings.weight_precision]
    for module in (unet, text_encoder):
        move(module, torch.device("meta"), kept_in)
    if settings.kind == "full":
        trainable = _full(settings, unet, text_encoder, found)
        tensors = single_file_tensors(unet, text_encoder, facts.models.vae)
        dtype = DTYPES[settings.save_precision]
        found["block_rows"] = full_rows(settings, unet, text_encoder)
        found["file_bytes"] = file_bytes({name: one.to(dtype) for name, one in tensors.items()}, {})
    else:
        network = attach(adapter_spec(settings, unet.config), unet, text_encoder, seed=settings.seed)
        trainable = [one.flat for one in network.factors.values()]
        if traits_of(settings.optimizer).sees_matrices:
            found["stepped"] = [one for layer in network.layers.values() for one in layer.factors.values()]
        found["num_layers"] = dict(
            Counter(
                NAMES["unet" if key.startswith("lora_unet") else "text_encoder"] for key in network.layers
            )
        )
        found["block_rows"] = adapter_rows(settings, network, unet.config)
        found["file_bytes"] = network.file_bytes(DTYPES[settings.save_precision], {})
    found["stepped"] = [*found.get("stepped", trainable)]
    if embeddings is not None:
        table = extend_table(text_encoder, embeddings.num_vectors)
        trainable.append(table)
        found["stepped"].append(table)
    found["num_trainable"] = sum(one.numel() for one in trainable)

    def encoded(token_ids: Tensor) -> Tensor:
        with torch.set_grad_enabled(settings.asks_text_encoder):
            return encode(text_encoder, token_ids, clip_skip=settings.clip_skip)

    def checkpoint() -> None:
        checkpoint_activations(unet, text_encoder if settings.asks_text_encoder else None)

    is_asked = settings.gradient_checkpointing
    return MetaModel(unet, text_encoder, encoded, trainable, checkpoint if is_asked else None)


def _stepping(settings: Settings, stepped: Sequence[Tensor]) -> Stepping:
    traits = traits_of(settings.optimizer)
    held = traits.memory_bytes(one.shape for one in stepped)
    if settings.ema and settings.ema_device == "device":
        held += WIDE_BYTES * sum(one.numel() for one in stepped)
    return Stepping(
        held_bytes=held,
        scratch_numbers=traits.scratch_numbers,
        is_fused=settings.kind == "full" and settings.fused_backward,
        adds_gradients=settings.accumulation > 1
        or at_once(settings) < settings.batch_size
        or settings.cuda_graphs,  # which write gradients into places that stay
    )


def _beside_bytes(facts: BaseFacts, device_type: str) -> int:
    """A CPU's memory holds the autoencoder too, in fp32; from a GPU it is taken once latents are made."""
    if device_type != "cpu":
        return 0
    return WIDE_BYTES * sum(int(one.numel()) for one in facts.models.vae.parameters())


def _full(
    settings: Settings, unet: nn.Module, text_encoder: nn.Module, found: dict[str, Any]
) -> list[Tensor]:
    learning = {
        "unet": (unet, settings.trains_unet),
        "text_encoder": (text_encoder, settings.trains_text_encoder),
    }
    rates = block_rates(settings, unet.config)  # type: ignore[arg-type]
    trainable: list[Tensor] = []
    found["num_layers"] = {}
    for part, (module, learns) in learning.items():
        module.requires_grad_(learns)
        if learns:
            freeze_blocks({part: module}, rates, unet.config)  # type: ignore[dict-item,arg-type]
            trainable += [one for one in module.parameters() if one.requires_grad]
            layers = sum(1 for one in module.modules() if isinstance(one, nn.Linear | nn.Conv2d))
            found["num_layers"][NAMES[part]] = layers
    return trainable


def at_once(settings: Settings) -> int:
    """Pictures computed at once."""
    return min(settings.micro_batch_size or settings.batch_size, settings.batch_size)


def _step_sizes(settings: Settings, facts: BaseFacts, examples: Sequence[Example]) -> StepSizes:
    """Of a batch of the largest bucket, or of the part of it that is computed at once."""
    largest = max((example.bucket for example in examples), key=lambda bucket: bucket.area_px)
    models = facts.models
    return StepSizes(
        latents=(
            at_once(settings),
            models.latent_channels,
            largest.height_px // models.latent_factor,
            largest.width_px // models.latent_factor,
        ),
        token_ids=(at_once(settings), num_chunks(settings.max_tokens), models.max_text_tokens),
    )
