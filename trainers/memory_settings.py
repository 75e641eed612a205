"""Settings of how much memory a step takes."""

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import SettingsError
from pipeline.settings import option


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """How much of a batch is computed at once; what a full checkpoint is kept in, and when it is stepped."""

    fused_backward: bool = option(
        False,
        "Step each weight as soon as its gradient is there and forget that: all are never in memory at once. "
        "Wants accumulation 1 and max_grad_norm 0.",
        only_if={"kind": ("full",)},
    )
    weight_precision: Literal["fp32", "bf16"] = option(
        "fp32",
        "Numbers the weights are kept in; bf16 takes half the memory, and rounds by chance so that small "
        "steps count.",
        only_if={"kind": ("full",)},
    )

    micro_batch_size: int = option(
        0,
        "Pictures of a batch computed at once; gradients are added up to those of the whole batch. 0 takes "
        "the whole batch, and smaller parts from the moment on when memory runs out.",
        min=0,
        max=4096,
        affects_result=False,
    )
    auto_batch: bool = option(
        False,
        "Try before the first step how many pictures of a batch the device computes at once, instead of "
        "--micro-batch-size, and say how large a batch it would take.",
        affects_result=False,
    )

    @property
    def steps_singly(self) -> bool:
        """Whether each weight is stepped by itself."""
        return self.fused_backward or self.weight_precision != "fp32"

    def check_memory(self) -> None:
        """See that they go together.

        Raises:
            SettingsError: the size of a part is both given and to be tried.
        """
        if self.auto_batch and self.micro_batch_size:
            raise SettingsError(
                f"auto_batch finds a size, and micro_batch_size = {self.micro_batch_size} gives it",
                hint="leave one of them out",
            )
