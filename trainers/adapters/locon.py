"""LoRA, and LoCon where convolutions take part: dW = scale * up @ down.

Hu et al. 2021, arXiv:2106.09685, eq. 3. Files: `lora_up.weight`, `lora_down.weight`, and `alpha`; the down
of a convolution has the kernel of the layer, its up is 1 x 1.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trainers.adapters.paths import Factors, Scale, Shape

UP_FACTORS = ("up",)  # those with a row for each output
INITS = ("lycoris",)  # LyCORIS of all ages, and kohya's scripts, begin alike


def factor_shapes(shape: Shape, rank: int) -> dict[str, tuple[int, ...]]:
    """Up [out_features, rank], down [rank, flat_in]."""
    return {"up": (shape.out_features, rank), "down": (rank, shape.flat_in)}


def width(rank: int) -> int:
    """The rank itself."""
    return rank


@torch.no_grad()
def initialise(factors: Factors, init: str, generator: torch.Generator) -> None:
    """Down uniform in +-1 / sqrt(flat_in) (Kaiming with a = sqrt(5)), up zero."""
    assert init in INITS
    bound = 1 / math.sqrt(factors["down"].shape[1])
    factors["down"].uniform_(-bound, bound, generator=generator)
    factors["up"].zero_()


def delta(factors: Factors, scale: Scale) -> Tensor:
    """Scale * up @ down, [out_features, flat_in]."""
    return factors["up"] @ factors["down"] * scale


def delta_gradients(factors: Factors, scale: Scale, gradient: Tensor) -> dict[str, Tensor]:
    """Of up = scale * G @ down^T, of down = scale * up^T @ G."""
    scaled = gradient * scale
    return {"up": scaled @ factors["down"].mT, "down": factors["up"].mT @ scaled}


def low_rank(factors: Factors, scale: Scale) -> tuple[Tensor, Tensor]:
    """The factors themselves. The scale goes with the down: it begins larger than the up, which a scale of
    1/16 would push among the subnormal numbers of fp16.
    """
    return factors["up"], factors["down"] * scale


def to_file(factors: Factors, shape: Shape) -> dict[str, Tensor]:
    """lora_up.weight [out, rank], lora_down.weight [rank, in]; [out, rank, 1, 1], [rank, in, kh, kw] of a
    convolution.
    """
    up, down = factors["up"], factors["down"]
    if shape.is_conv:
        up, down = up[:, :, None, None], down.view(-1, shape.in_features, *shape.kernel)
    return {"lora_down.weight": down, "lora_up.weight": up}


def from_file(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Both flattened to two dimensions."""
    return {name: tensors[f"lora_{name}.weight"].flatten(1) for name in ("up", "down")}
