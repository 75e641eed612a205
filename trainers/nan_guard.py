"""Name the layer that a number stopped being finite in."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError


class NotFiniteError(PipelineError):
    """Training met NaN or infinity, and stopped before it reached the weights."""


@contextmanager
def watching(modules: dict[str, nn.Module]) -> Iterator[list[str]]:
    """Collect the names of leaf layers whose output is not finite while a batch is computed, in their order.

    Args:
        modules: {name of the part: module}.
    """
    found: list[str] = []
    handles = []
    for part, module in modules.items():
        for name, layer in module.named_modules():
            if not any(True for _ in layer.children()):
                handles.append(layer.register_forward_hook(_noting(found, f"{part}.{name}")))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _noting(found: list[str], name: str) -> Callable[[nn.Module, Any, Any], None]:
    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if (
            isinstance(output, Tensor)
            and output.is_floating_point()
            and not bool(torch.isfinite(output).all())
        ):
            found.append(name)

    return note


def first_gradient(named: Iterator[tuple[str, Tensor]]) -> str | None:
    """The first trainable tensor whose gradient is not finite."""
    for name, one in named:
        if one.grad is not None and not bool(torch.isfinite(one.grad).all()):
            return name
    return None
