"""Gradients of a step's batches, a part of a batch at a time where memory asks for it.

Which pictures, noise and timesteps a batch has is decided by its number alone. Cut into parts, the same
batch gives the same gradient but for rounding: the mean over a batch is the sum of its parts' means, each
weighed by its share of the pictures.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.console import LOG
from pipeline.errors import DeviceError
from trainers.batches import Batch
from trainers.train_settings import Settings

_CPU_WORDS = ("DefaultCPUAllocator", "not enough memory")  # of the RuntimeError that torch raises on a CPU


@dataclass(slots=True)
class Parts:
    """How many pictures are computed at once.

    Args:
        size: of a part; 0 for a whole batch.
        is_fixed: each weight is stepped with its gradient, so that a batch cannot be begun again.
    """

    size: int = 0
    is_fixed: bool = False

    def of(self, batch: Batch) -> list[Batch]:
        """A batch in parts, the batch itself when it is one."""
        total = len(batch.captions)
        size = self.size or total
        if size >= total:
            return [batch]
        return [cut(batch, start, min(start + size, total)) for start in range(0, total, size)]

    def lower(self, batch_size: int, step: int) -> None:
        """Halve the size after memory ran out, and say so.

        Raises:
            DeviceError: it is one picture already, or must not be changed.
        """
        before = min(self.size or batch_size, batch_size)
        if self.is_fixed:
            raise DeviceError(
                f"memory ran out at step {step:,}, and with --fused-backward a batch cannot be begun again",
                hint="give a smaller --batch-size; the run goes on from its last state",
            )
        if before == 1:
            raise DeviceError(
                f"one picture alone takes more memory than there is, at step {step:,}",
                hint="give --gradient-checkpointing, --precision bf16 or a lower --resolution-px",
            )
        self.size = (before + 1) // 2
        LOG.warning(
            "memory ran out at step %s: batches of %s are computed in parts of %s from here on, with the "
            "same pictures and the same gradient. To begin so: --micro-batch-size %s; "
            "--gradient-checkpointing needs less memory too",
            f"{step:,}",
            batch_size,
            self.size,
            self.size,
        )


def cut(batch: Batch, start: int, stop: int) -> Batch:
    """Some pictures of a batch."""
    total = len(batch.captions)
    values: dict[str, Any] = {one.name: getattr(batch, one.name) for one in fields(batch)}
    parts: dict[str, Any] = {
        name: value[start:stop]
        for name, value in values.items()
        if isinstance(value, Tensor | tuple) and len(value) == total
    }
    return replace(batch, **parts)


def add_gradients(
    batches: Sequence[Batch],
    parts: Parts,
    gradients: Callable[[Batch, float], Tensor],
    zero_grad: Callable[[], None],
    *,
    step: int,
) -> list[Tensor]:
    """Gradients of a step, begun again with smaller parts where memory runs out.

    Args:
        batches: of one step; their mean loss counts.
        gradients: adds those of a batch, or of a part, times a weight, and gives its mean loss.
        step: for messages.
    Returns: the loss of each batch, on its device.

    Raises:
        DeviceError: not even one picture can be computed.
    """
    while True:
        zero_grad()
        try:
            return [_one(batch, parts, gradients, len(batches)) for batch in batches]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler, whose traceback would keep the activations alive.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        parts.lower(len(batches[0].captions), step)


def _one(
    batch: Batch,
    parts: Parts,
    gradients: Callable[[Batch, float], Tensor],
    num_batches: int,
) -> Tensor:
    losses = []
    for part in parts.of(batch):
        share = len(part.captions) / len(batch.captions)
        losses.append(gradients(part, share / num_batches) * share)
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _CPU_WORDS)


@contextmanager
def memory_said(device: torch.device, settings: Settings) -> Iterator[None]:
    """Say in a sentence that memory ran out where smaller parts of a batch do not help: for the model itself,
    for its average, or for what the optimizer remembers, which is there from its first step on.

    Raises:
        DeviceError: it ran out.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        ways = ["close what else uses it"]
        ways += ["--gradient-checkpointing"] * (not settings.gradient_checkpointing)
        ways += ["--ema-device cpu"] * bool(settings.ema and settings.ema_device != "cpu")
        if settings.kind == "full":
            ways += ["--optimizer adafactor", "--fused-backward", "or train an adapter"]
        raise DeviceError(
            f"the memory of {device} ran out; what was saved is whole",
            hint=f"{', '.join(ways)}; --dry-run says what a run takes, and the same command goes on from the "
            "last state",
        ) from error
