"""The compiled UNet: torch.compile, with one sentence where its compiler cannot do it on this machine."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipeline.errors import DeviceError

_OF_THE_COMPILER = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")


def compiled(module: nn.Module) -> Callable[..., Any]:
    """The module as one graph for each shape of its inputs; compiled when it is first called.

    Raises:
        DeviceError: at that call, where a compiler or its headers are missing.
    """
    inner = torch.compile(module, dynamic=False)

    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return inner(*arguments, **named)
        except Exception as error:
            if not type(error).__module__.startswith(_OF_THE_COMPILER):
                raise
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise DeviceError(
                f"torch.compile does not work on this machine: {said[0]}",
                hint="train without --compile, or install a C++ compiler and the headers of Python "
                "(Debian: g++ and python3-dev)",
            ) from error

    return call
