"""What a step will need, before anything is computed: the real model is built and run without its numbers.

Tensors on torch's meta device know their sizes and nothing else. So a whole step, forward and backward, is
done on them for the model, the batch and the precision of this run, in a few seconds and without a GPU: its
operations are counted, and how much memory was alive at the worst moment. Attention counts as the fused
kernels of GPUs do it, which never write its matrix down.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from trainers.losses import squared_error

CONTEXT_BYTES = 700 << 20  # what CUDA and its libraries take for themselves
OVERHEAD = 0.1  # of what a step takes, once more on a GPU: scratch space of convolutions, blocks rounded up
WIDE_BYTES = 4  # of a number in fp32
_ROUNDED_NUMBERS = 5  # in fp32, while a weight in bf16 is stepped: copies of both, and rounding
_LOWERED = frozenset({"linear", "conv2d", "matmul", "bmm", "baddbmm", "scaled_dot_product_attention"})
_RAISED = frozenset({"group_norm", "layer_norm", "softmax"})  # on GPUs; a CPU leaves them in 16 bits


@dataclass(frozen=True, slots=True)
class Forecast:
    """One step of one batch.

    Args:
        weight_bytes: of the model as it lies on the device.
        trainable_bytes: held between the steps for what learns: the optimizer's memory, averages, and
            gradients that are never given back.
        step_bytes: what a step takes on top of that at its worst moment: activations, gradients, weights once
            more in the numbers of the arithmetic.
        forward_flop, step_flop: multiply and add are two; without and with the backward pass.
        beside_bytes: of the autoencoder, where the run's memory is that of the machine.
    """

    weight_bytes: int
    trainable_bytes: int
    step_bytes: int
    forward_flop: int
    step_flop: int
    beside_bytes: int = 0

    @property
    def allocated_bytes(self) -> int:
        """Of the whole run."""
        return self.weight_bytes + self.trainable_bytes + self.step_bytes + self.beside_bytes


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
        trainable: what the optimizer steps; gradients that are there are never given back.
        checkpoint: makes the model compute its activations twice instead of keeping them; None to keep them.
    """

    unet: nn.Module
    text_encoder: nn.Module
    encode: Callable[[Tensor], Tensor]
    trainable: Sequence[Tensor]
    checkpoint: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Stepping:
    """How weights are stepped, as far as memory is concerned.

    Args:
        held_bytes: of the optimizer's memory, and of averages on the device.
        scratch_numbers: that a step of a weight takes for a while, in fp32, for each of the weight's numbers.
        is_fused: each weight is stepped in the backward pass, and its gradient forgotten.
        adds_gradients: those of several parts are added up, so that all are there while the next is computed.
    """

    held_bytes: int = 0
    scratch_numbers: float = 0.0
    is_fused: bool = False
    adds_gradients: bool = False


def forecast_step(
    model: MetaModel,
    sizes: StepSizes,
    *,
    dtype: torch.dtype,
    stepping: Stepping,
    device_type: str = "cuda",
) -> Forecast:
    """Count one step.

    Args:
        dtype: of the arithmetic.
        device_type: of torch; autocast raises other operations on a CPU than on a GPU.
    """
    weights = [*model.unet.parameters(), *model.text_encoder.parameters()]
    if stepping.adds_gradients:
        for one in model.trainable:
            one.grad = torch.empty_like(one) if one.grad is None else one.grad
    held = [one.grad for one in model.trainable if one.grad is not None]
    arithmetic, counter = _Arithmetic(dtype, device_type), FlopCounterMode(display=False)
    alive = _Alive(weights, held)
    with counter:
        loss = _forward(model, sizes, arithmetic, alive)
        forward_flop = int(counter.get_total_flops()) + arithmetic.attention_flop
        _backward(loss, model, stepping, alive)
    step_flop = int(counter.get_total_flops()) + arithmetic.attention_flop + arithmetic.backward_flop
    if model.checkpoint is not None:
        model.checkpoint()
        _compute_again_alike(model, dtype, device_type)
        step_flop += forward_flop  # once more in the backward pass
        _forget_new_gradients(model.trainable, held)
        arithmetic, alive = _Arithmetic(dtype, device_type), _Alive(weights, held)
        loss = _forward(model, sizes, arithmetic, alive)
        _backward(loss, model, stepping, alive)
    del loss
    with alive:
        _step_of_optimizer(model.trainable, stepping)
    return Forecast(
        weight_bytes=sum(one.numel() * one.element_size() for one in weights),
        trainable_bytes=stepping.held_bytes + sum(one.numel() * one.element_size() for one in held),
        step_bytes=alive.most_bytes,
        forward_flop=forward_flop,
        step_flop=step_flop,
    )


def _forward(model: MetaModel, sizes: StepSizes, arithmetic: "_Arithmetic", alive: "_Alive") -> Tensor:
    """The loss of a batch."""
    with arithmetic, alive:
        latents = torch.empty(sizes.latents, device="meta")
        hidden = model.encode(torch.empty(sizes.token_ids, device="meta", dtype=torch.int64))
        timesteps = torch.empty(sizes.latents[0], device="meta", dtype=torch.int64)
        noise_pred = model.unet(latents, timesteps, hidden, return_dict=False)[0]
        loss = squared_error(noise_pred, latents).mean()
    arithmetic.forget_casts()
    return loss


def _backward(loss: Tensor, model: MetaModel, stepping: Stepping, alive: "_Alive") -> None:
    """Its gradients."""
    with alive, _stepped(model.trainable, stepping):
        loss.backward()  # type: ignore[no-untyped-call]


def _compute_again_alike(model: MetaModel, dtype: torch.dtype, device_type: str) -> None:
    """Have activations computed again as they were: modes are off in a backward pass."""

    def contexts() -> tuple[AbstractContextManager[None], "_Arithmetic"]:
        arithmetic = _Arithmetic(dtype, device_type)
        arithmetic.forget_casts()
        return contextlib.nullcontext(), arithmetic

    again = partial(checkpoint, use_reentrant=False, context_fn=contexts)
    modules: list[Any] = [*model.unet.modules(), *model.text_encoder.modules()]
    for module in modules:
        if hasattr(module, "_gradient_checkpointing_func"):  # of diffusers and transformers alike
            module._gradient_checkpointing_func = again


@contextlib.contextmanager
def _stepped(trainable: Sequence[Tensor], stepping: Stepping) -> Iterator[None]:
    """Step each weight with its gradient, where that is asked for."""
    hooks = []
    if stepping.is_fused:
        for one in trainable:
            hooks.append(one.register_post_accumulate_grad_hook(_forget_after(stepping)))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _forget_after(stepping: Stepping) -> Callable[[Tensor], None]:
    def step(weight: Tensor) -> None:
        _scratch_of(weight, stepping)
        weight.grad = None

    return step


def _scratch_of(weight: Tensor, stepping: Stepping) -> None:
    """What a step of one weight takes for a while: made, seen, and gone."""
    numbers = stepping.scratch_numbers + (0 if weight.dtype == torch.float32 else _ROUNDED_NUMBERS)
    torch.empty(int(numbers * weight.numel()), device="meta")


def _step_of_optimizer(trainable: Sequence[Tensor], stepping: Stepping) -> None:
    """After the backward pass, with the gradients that are there; the largest weight takes most."""
    if trainable and not stepping.is_fused:
        _scratch_of(max(trainable, key=lambda one: one.numel() * one.element_size()), stepping)


def _forget_new_gradients(trainable: Sequence[Tensor], held: Sequence[Tensor]) -> None:
    kept = {id(one) for one in held}
    for one in trainable:
        if id(one.grad) not in kept:
            one.grad = None


class _Alive(TorchDispatchMode):
    """Follows how much memory is alive, each stretch of it once, and the most there was at one time.

    Args:
        weights, held: what is there before, and does not count.
    """

    def __init__(self, weights: Iterable[Tensor], held: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._before = [*weights, *held]  # so that no address is given out twice
        self._known = {one.untyped_storage()._cdata for one in self._before}
        self._bytes = 0
        self.most_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in tree_leaves(found):
            if isinstance(one, Tensor):
                self._note(one)
        return found

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._bytes += size
        self.most_bytes = max(self.most_bytes, self._bytes)
        weakref.finalize(storage, self._gone, key, size).atexit = False

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._bytes -= size


class _Arithmetic(TorchFunctionMode):
    """The casts of autocast, which the meta device does not know, and attention in one piece.

    As autocast does, weights that learn are cast once for a whole forward pass.
    """

    def __init__(self, dtype: torch.dtype, device_type: str) -> None:
        self._dtype = dtype
        self._raised = _RAISED if device_type != "cpu" else frozenset()
        self._casts: dict[int, Tensor] | None = {}
        self._stack = contextlib.ExitStack()
        self.attention_flop = 0
        self.backward_flop = 0

    def forget_casts(self) -> None:
        """The forward pass has ended."""
        self._casts = None

    def __enter__(self) -> "_Arithmetic":
        # adapters ask which numbers are computed in; tensors of the meta device are not cast by it
        wide = self._dtype == torch.float32
        self._stack.enter_context(torch.autocast("cpu", None if wide else self._dtype, enabled=not wide))
        return super().__enter__()  # type: ignore[no-any-return,no-untyped-call]

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._stack.close()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _LOWERED or name in self._raised:
            dtype = self._dtype if name in _LOWERED else torch.float32
            args = tuple(self._cast(one, dtype) for one in args)
            kwargs = {key: self._cast(value, dtype) for key, value in (kwargs or {}).items()}
        given = kwargs or {}
        if name != "scaled_dot_product_attention":
            return func(*args, **given)
        query, key, value = (*args, *(given[key] for key in ("query", "key", "value")[len(args) :]))[:3]
        flop = 4 * query.shape[:-1].numel() * key.shape[-2] * query.shape[-1]  # two products
        self.attention_flop += flop
        if query.requires_grad or key.requires_grad or value.requires_grad:
            self.backward_flop += flop * 5 // 2  # four products and the first one again
        return _FusedAttention.apply(query, key, value)  # type: ignore[no-untyped-call]

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == dtype:
            return value
        if self._casts is None or not (value.is_leaf and value.requires_grad):
            return value.to(dtype)
        if id(value) not in self._casts:
            self._casts[id(value)] = value.to(dtype)
        return self._casts[id(value)]


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
