"""What a step will need, before anything is computed: the real model is built and run without its numbers.

Tensors on torch's meta device know their sizes and nothing else. So the activations that the backward pass
keeps, and the operations, are counted for the model, the batch and the precision of this run, in a second or
two and without a GPU. Attention counts as the fused kernels of GPUs do it, which never write its matrix down.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from trainers.losses import squared_error

CONTEXT_BYTES = 700 << 20  # what CUDA and its libraries take for themselves
OVERHEAD = 1.08  # of what is allocated: blocks rounded up, scratch space of convolutions
_LOWERED = frozenset({"linear", "conv2d", "matmul", "bmm", "baddbmm", "scaled_dot_product_attention"})
_RAISED = frozenset({"group_norm", "layer_norm", "softmax"})


@dataclass(frozen=True, slots=True)
class Forecast:
    """One step of one batch.

    Args:
        weight_bytes: of the model as it lies on the device.
        trainable_bytes: of gradients, of the optimizer's memory, and of weights once more in the arithmetic's
            numbers where they are kept in others.
        activation_bytes: kept for the backward pass.
        forward_flop, step_flop: multiply and add are two; without and with the backward pass.
    """

    weight_bytes: int
    trainable_bytes: int
    activation_bytes: int
    forward_flop: int
    step_flop: int

    @property
    def allocated_bytes(self) -> int:
        """Of the whole run."""
        return int((self.weight_bytes + self.trainable_bytes + self.activation_bytes) * OVERHEAD)


@dataclass(frozen=True, slots=True)
class StepSizes:
    """The sizes of a batch."""

    latents: tuple[int, int, int, int]  # batch, channels, height, width
    token_ids: tuple[int, int, int]  # batch, chunks, tokens of a chunk


@dataclass(frozen=True, slots=True)
class MetaModel:
    """A model without numbers, with its method attached.

    Args:
        encode: token ids to hidden states.
        trainable: what the optimizer steps.
        checkpoint: makes the model compute its activations twice instead of keeping them; None to keep them.
    """

    unet: nn.Module
    text_encoder: nn.Module
    encode: Callable[[Tensor], Tensor]
    trainable: Sequence[Tensor]
    checkpoint: Callable[[], None] | None = None


def forecast_step(
    model: MetaModel,
    sizes: StepSizes,
    *,
    dtype: torch.dtype,
    optimizer_bytes: int,
    gradient_bytes: int = 4,
) -> Forecast:
    """Count one step.

    Args:
        dtype: of the arithmetic.
        optimizer_bytes: of one trainable number in the optimizer's memory.
        gradient_bytes: of one; 0 where gradients are forgotten as soon as they are there.
    """
    weights = [*model.unet.parameters(), *model.text_encoder.parameters()]
    numbers = sum(one.numel() for one in model.trainable)
    arithmetic, counter = _Arithmetic(dtype), FlopCounterMode(display=False)
    with counter:
        loss, activation_bytes = _forward(model, sizes, arithmetic, weights)
        forward_flop = int(counter.get_total_flops()) + arithmetic.attention_flop
        loss.backward()  # type: ignore[no-untyped-call]
    step_flop = int(counter.get_total_flops()) + arithmetic.attention_flop + arithmetic.backward_flop
    if model.checkpoint is not None:
        model.checkpoint()
        _, activation_bytes = _forward(model, sizes, arithmetic, weights)
        step_flop += forward_flop  # once more in the backward pass
    wide = sum(one.numel() for one in weights if one.dtype != dtype)
    return Forecast(
        weight_bytes=sum(one.numel() * one.element_size() for one in weights),
        trainable_bytes=numbers * (gradient_bytes + optimizer_bytes) + wide * dtype.itemsize,
        activation_bytes=activation_bytes,
        forward_flop=forward_flop,
        step_flop=step_flop,
    )


def _forward(
    model: MetaModel, sizes: StepSizes, arithmetic: "_Arithmetic", weights: Sequence[Tensor]
) -> tuple[Tensor, int]:
    """The loss of a batch, and the bytes that are kept for its backward pass."""
    kept = _Kept(weights)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor), arithmetic:
        latents = torch.empty(sizes.latents, device="meta")
        hidden = model.encode(torch.empty(sizes.token_ids, device="meta", dtype=torch.int64))
        timesteps = torch.empty(sizes.latents[0], device="meta", dtype=torch.int64)
        noise_pred = model.unet(latents, timesteps, hidden, return_dict=False)[0]
        return squared_error(noise_pred, latents).mean(), kept.num_bytes


class _Kept:
    """Counts the memory behind tensors that autograd keeps, each stretch of it once, weights left out."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._weights = {one.untyped_storage()._cdata for one in weights}
        self._alive: dict[int, Tensor] = {}  # held, so that no address is given out twice

    def pack(self, tensor: Tensor) -> Tensor:
        """Note a tensor."""
        storage = tensor.untyped_storage()._cdata
        if storage not in self._weights:
            self._alive.setdefault(storage, tensor)
        return tensor

    @property
    def num_bytes(self) -> int:
        """Of all of them."""
        return sum(one.untyped_storage().nbytes() for one in self._alive.values())


class _Arithmetic(TorchFunctionMode):
    """The casts of autocast, which the meta device does not know, and attention in one piece."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self.attention_flop = 0
        self.backward_flop = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _LOWERED or name in _RAISED:
            dtype = self._dtype if name in _LOWERED else torch.float32
            args = tuple(_cast(one, dtype) for one in args)
            kwargs = {key: _cast(value, dtype) for key, value in (kwargs or {}).items()}
        given = kwargs or {}
        if name != "scaled_dot_product_attention":
            return func(*args, **given)
        query, key, value = (*args, *(given[key] for key in ("query", "key", "value")[len(args) :]))[:3]
        flop = 4 * query.shape[:-1].numel() * key.shape[-2] * query.shape[-1]  # two products
        self.attention_flop += flop
        if query.requires_grad or key.requires_grad or value.requires_grad:
            self.backward_flop += flop * 5 // 2  # four products and the first one again
        return _FusedAttention.apply(query, key, value)  # type: ignore[no-untyped-call]


def _cast(value: Any, dtype: torch.dtype) -> Any:
    is_other = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != dtype
    return value.to(dtype) if is_other else value


class _FusedAttention(torch.autograd.Function):
    """Keeps what FlashAttention keeps: its inputs, its output, a number for each row.

    Dao 2023, arXiv:2307.08691.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty((*query.shape[:-1], value.shape[-1]), dtype=query.dtype, device="meta")
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
