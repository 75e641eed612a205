"""Learning-rate schedules: pure functions of the step, so that a resumed run needs nothing but its step."""

import math
from dataclasses import dataclass
from typing import Literal

Shape = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True, slots=True)
class LrSchedule:
    """What the learning rate is multiplied by.

    Args:
        shape: after the warmup: "constant" stays at 1, "linear" and "cosine" fall to 0 at `decay_steps`.
        warmup_steps: rise from 0 in equal parts; the first step has 1 / warmup_steps.
        decay_steps: where the fall ends, counted from the first step. Longer than the run, it is cut off on
            the way: EveryDream2 takes 1.5 times the run, and so ends at about a quarter.
    """

    shape: Shape
    warmup_steps: int
    decay_steps: int

    def multiplier(self, step: int) -> float:
        """Of the step with this number, from 0; 0 to 1.

        The cosine is (1 + cos(pi * t)) / 2 with t from 0 to 1 between warmup and end, as in Loshchilov and
        Hutter 2017, arXiv:1608.03983, eq. 5 without restarts.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.shape == "constant":
            return 1.0
        done = (step - self.warmup_steps) / max(1, self.decay_steps - self.warmup_steps)
        left = 1 - min(1.0, done)
        return left if self.shape == "linear" else (1 - math.cos(math.pi * left)) / 2


def lr_schedule(shape: Shape, total_steps: int, *, warmup: float, decay_ratio: float) -> LrSchedule:
    """A schedule for a run of so many steps.

    Args:
        warmup: steps, or below 1 a share of the run.
        decay_ratio: length of the fall over that of the run.
    """
    warmup_steps = round(warmup * total_steps) if warmup < 1 else round(warmup)
    return LrSchedule(shape, warmup_steps, max(1, round(total_steps * decay_ratio)))
