"""The weights that are saved and drawn with: those that learn, or an average of them.

Training goes on from the weights it had, to the bit: what is looked at in between changes nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from trainers.ema import Ema
from trainers.methods import Method


@contextmanager
def shown_weights(method: Method, optimizer: torch.optim.Optimizer, average: Ema | None) -> Iterator[None]:
    """Put what shall be seen into the model for a while.

    Args:
        optimizer: a schedule-free one learns at another point than the one it has found, and is asked for
            that one (Defazio et al. 2024, arXiv:2405.15682, eq. 3 to 5: it learns at y, the result is x).
        average: the average, where that shall be seen; None for the weights.
    """
    if average is not None:
        with method.replaced(average.tensors):
            yield
    elif is_schedule_free(optimizer):
        with _evaluated(optimizer):
            yield
    else:
        yield


def is_schedule_free(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it has the two modes of schedule-free optimizers."""
    return hasattr(optimizer, "train") and hasattr(optimizer, "eval")


@contextmanager
def _evaluated(optimizer: Any) -> Iterator[None]:
    """Its way back is a second rounding, so the weights are kept and copied."""
    weights = [one for group in optimizer.param_groups for one in group["params"]]
    with torch.no_grad():
        before = [one.detach().clone() for one in weights]
        optimizer.eval()
        try:
            yield
        finally:
            optimizer.train()
            for one, kept in zip(weights, before, strict=True):
                one.copy_(kept)
