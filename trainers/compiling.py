"""The compiled UNet: torch.compile of its blocks, with one sentence where its compiler cannot do it here.

A UNet repeats a few kinds of blocks. Compiled one by one, blocks of equal shapes share what was compiled: 20
graphs of 60 to 210 operations for Stable Diffusion 1 with a LoCon, where the whole is one of thousands.
Tracing takes a third of the time (benchmarks/RESULTS.md). Between blocks are single convolutions and joins.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipeline.errors import DeviceError

BLOCKS = ("ResnetBlock2D", "Transformer2DModel")  # of diffusers
MOST_SHAPES = 4096  # of one kind of block, of all buckets; torch computes what is beyond as ever
_OF_THE_COMPILER = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")


def compiled(unet: nn.Module) -> Callable[..., Any]:
    """The UNet with its blocks compiled: each when it is first called with inputs of a shape.

    Names and weights stay as they are, and so does what `torch.compiler.set_stance("force_eager")` computes.

    Raises:
        DeviceError: at a call, where a compiler or its headers are missing.
    """
    torch._dynamo.config.recompile_limit = MOST_SHAPES
    torch._dynamo.config.accumulated_recompile_limit = MOST_SHAPES
    for module in unet.modules():
        if type(module).__name__ in BLOCKS:
            module.compile(dynamic=False)

    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return unet(*arguments, **named)
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
