"""Group and layer norms in the numbers of their input, where autocast would widen them.

On a GPU autocast computes norms in fp32: it widens their input, keeps that for the backward pass, and what
follows a norm up to the next convolution or product is of twice the size, and narrowed again there. The
kernels sum in fp32 whatever they are given, so in 16 bits only their output is rounded, which the layer that
follows would do anyway. Measured in benchmarks/RESULTS.md: gradients are as near to those of fp32 as before.
"""

import torch
from torch import Tensor, nn


class NarrowGroupNorm(nn.GroupNorm):
    """A group norm whose output has the dtype of its input."""

    def forward(self, input: Tensor) -> Tensor:
        """[batch, channels, ...], as it comes."""
        weight, bias = _as(self.weight, input), _as(self.bias, input)
        batch, channels = input.shape[:2]
        pixels = input[0, 0].numel()
        # by its inner name, which autocast leaves alone
        found: Tensor = torch.native_group_norm(
            input.contiguous(), weight, bias, batch, channels, pixels, self.num_groups, self.eps
        )[0]
        return found


class NarrowLayerNorm(nn.LayerNorm):
    """A layer norm whose output has the dtype of its input."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., width], as it comes."""
        weight, bias = _as(self.weight, input), _as(self.bias, input)
        found: Tensor = torch.native_layer_norm(input, self.normalized_shape, weight, bias, self.eps)[0]
        return found


def _as(values: Tensor | None, other: Tensor) -> Tensor | None:
    return None if values is None else values.to(other.dtype)


def keep_norms_narrow(*modules: nn.Module) -> None:
    """Let all norms of models leave 16 bits in 16 bits. Weights, names and what is saved stay as they are."""
    for module in modules:
        for one in module.modules():
            if type(one) is nn.GroupNorm:
                one.__class__ = NarrowGroupNorm
            elif type(one) is nn.LayerNorm:
                one.__class__ = NarrowLayerNorm


def widens_norms(device_type: str, dtype: torch.dtype) -> bool:
    """Whether autocast of this dtype would compute norms in fp32 there."""
    return device_type == "cuda" and dtype != torch.float32
