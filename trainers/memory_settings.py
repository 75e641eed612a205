"""Settings that make a full checkpoint fit into less memory."""

from dataclasses import dataclass
from typing import Literal

from pipeline.settings import option


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """What a full checkpoint is kept in, and when it is stepped."""

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

    @property
    def steps_singly(self) -> bool:
        """Whether each weight is stepped by itself."""
        return self.fused_backward or self.weight_precision != "fp32"
