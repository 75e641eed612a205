"""LoHa: the elementwise product of two low-rank products, dW = scale * (w1_a @ w1_b) * (w2_a @ w2_b).

Hyeon-Woo et al. 2021 (FedPara), arXiv:2108.06098, eq. 2. A LoHa of rank r is exactly a LoRA of rank r * r, by
the face-splitting product of its factors (Slyusar 1999; the transposed Khatri-Rao product):

    (w1_a @ w1_b) * (w2_a @ w2_b) = (w1_a . w2_a) @ (w1_b . w2_b)

with `.` the products of all pairs of ranks: columns of the first, rows of the second. So training needs no
matrix of the size of the weight, and a LoHa can be turned into a LoRA without loss.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainers.adapters.paths import Factors, Scale, Shape

NAMES = ("w1_a", "w1_b", "w2_a", "w2_b")
UP_FACTORS = ("w1_a", "w2_a")  # those with a row for each output

# Standard deviations at the start. LyCORIS 0.1 (March 2023) began ten times more quietly than it does today.
STANDARD_DEVIATIONS = {
    "lycoris": {"w1_a": 0.1, "w1_b": 1.0, "w2_a": 0.0, "w2_b": 1.0},
    "lycoris-0.1": {"w1_a": 1.0, "w1_b": 1.0, "w2_a": 0.0, "w2_b": 0.01},
}
INITS = tuple(STANDARD_DEVIATIONS)


def factor_shapes(shape: Shape, rank: int) -> dict[str, tuple[int, ...]]:
    """The a of each pair [out_features, rank], the b [rank, flat_in]."""
    of_a, of_b = (shape.out_features, rank), (rank, shape.flat_in)
    return {"w1_a": of_a, "w1_b": of_b, "w2_a": of_a, "w2_b": of_b}


def width(rank: int) -> int:
    """All pairs of ranks."""
    return rank * rank


@torch.no_grad()
def initialise(factors: Factors, init: str, generator: torch.Generator) -> None:
    """Normal draws; w2_a zero, so that nothing changes yet."""
    for name, deviation in STANDARD_DEVIATIONS[init].items():
        factors[name].normal_(generator=generator).mul_(deviation)


def delta(factors: Factors, scale: Scale) -> Tensor:
    """Hadamard product of two low-rank products, [out_features, flat_in]."""
    w1_a, w1_b, w2_a, w2_b = (factors[name] for name in NAMES)
    return (w1_a @ w1_b) * (w2_a @ w2_b) * scale


def delta_gradients(factors: Factors, scale: Scale, gradient: Tensor) -> dict[str, Tensor]:
    """With P = scale * G * (w2_a @ w2_b): of w1_a = P @ w1_b^T, of w1_b = w1_a^T @ P; likewise the others."""
    w1_a, w1_b, w2_a, w2_b = (factors[name] for name in NAMES)
    scaled = gradient * scale
    of_first, of_second = scaled * (w2_a @ w2_b), scaled * (w1_a @ w1_b)  # [out, flat_in]
    return {
        "w1_a": of_first @ w1_b.mT,
        "w1_b": w1_a.mT @ of_first,
        "w2_a": of_second @ w2_b.mT,
        "w2_b": w2_a.mT @ of_second,
    }


def low_rank(factors: Factors, scale: Scale) -> tuple[Tensor, Tensor]:
    """Up [out_features, rank * rank], down [rank * rank, flat_in]; the scale is taken before the products, so
    that they do not grow over what fp16 holds.
    """
    w1_a, w1_b, w2_a, w2_b = (factors[name] for name in NAMES)
    up = (w1_a[..., :, None] * w2_a[..., None, :]).flatten(-2)  # [..., out, r * r]
    down = ((w1_b * scale)[..., :, None, :] * w2_b[..., None, :, :]).flatten(-3, -2)  # [..., r * r, flat_in]
    return up, down


def to_file(factors: Factors, shape: Shape) -> dict[str, Tensor]:
    """hada_w1_a, hada_w1_b, hada_w2_a, hada_w2_b; flat also for convolutions."""
    return {f"hada_{name}": factors[name] for name in NAMES}


def from_file(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors by our names."""
    return {name: tensors[f"hada_{name}"] for name in NAMES}
