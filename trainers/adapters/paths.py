"""Two ways of computing a changed layer, and which one costs less.

low_rank
    y = base(x) + up(down(x)), beside the frozen layer. It costs 6 T R (o + n) operations more than the frozen
    layer, of T output positions, thin width R and a weight of [o, n], and never makes a matrix of [o, n].

dense
    The change as a matrix. Its gradient is that of a whole weight, 2 T o n operations. In fp32 and wider it
    is added to the weight, so that one operation gives y. In 16 bits it is not: most of a change of 1e-5
    would be rounded away beside weights of 0.03 (92 % of its numbers in bf16), and training would begin
    blind. There it is an operation beside the base, which costs the forward pass and the input's gradient
    twice: 6 T o n.

So the low-rank way wins where 3 R (o + n) < o n in fp32, and where R (o + n) < o n in 16 bits, not counting
memory: a LoHa of ranks 8 and 4 (R = 64 and 16) takes it in every layer of SD1.5 in 16 bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry, register_flop_formula

from trainers.layers import AdaptableModule

Path = Literal["low_rank", "dense"]
Factors: TypeAlias = Mapping[str, Tensor]
Scale: TypeAlias = float | Tensor

_HAVE_AUTOCAST = frozenset(  # asked once: torch.compile cannot follow the question before torch 2.13
    device for device in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(device)
)

# How many operations take as long as moving one number through memory: about what a 2-core CPU showed in
# fp32; graphics cards have 50 to 200. It only decides near the crossover.
FLOP_OF_A_MOVE = 32
REBUILD = 16  # times rank * o * n: both products of a LoHa, forward and again backward, and their gradients
DENSE_MOVES = 20  # times o * n: passes over matrices of the weight's size


@dataclass(frozen=True, slots=True)
class Shape:
    """The weight of one layer: [out_features, in_features * kernel_area] once it is flattened."""

    out_features: int
    in_features: int
    kernel: tuple[int, int]  # (1, 1) of a linear layer
    is_conv: bool

    @property
    def flat_in(self) -> int:
        """Columns of the flattened weight."""
        return self.in_features * self.kernel[0] * self.kernel[1]

    @classmethod
    def of(cls, module: AdaptableModule) -> "Shape":
        """Read it off a layer."""
        weight = module.weight
        is_conv = isinstance(module, nn.Conv2d)
        kernel = (int(weight.shape[2]), int(weight.shape[3])) if is_conv else (1, 1)
        return cls(int(weight.shape[0]), int(weight.shape[1]), kernel, is_conv)


class Algorithm(Protocol):
    """One kind of adapter: a module of this package, as functions of its factors.

    `delta` and `low_rank` take factors with any batch dimensions before their own two. `UP_FACTORS` are the
    factors with a row for each output, [out_features, rank].
    """

    UP_FACTORS: tuple[str, ...]

    def factor_shapes(self, shape: Shape, rank: int) -> dict[str, tuple[int, ...]]:
        """Sizes of its factors, two-dimensional, in the order of files."""

    def width(self, rank: int) -> int:
        """Columns of the thin `up`."""

    def initialise(self, factors: Factors, init: str, generator: torch.Generator) -> None:
        """Fill new factors in place, so that they change nothing yet."""

    def delta(self, factors: Factors, scale: Scale) -> Tensor:
        """The change of the weight, [out_features, flat_in], in the dtype of the factors: the reference."""

    def delta_gradients(self, factors: Factors, scale: Scale, gradient: Tensor) -> dict[str, Tensor]:
        """Gradients of the factors from that of `delta`, [out_features, flat_in]."""

    def low_rank(self, factors: Factors, scale: Scale) -> tuple[Tensor, Tensor]:
        """(up, down) with up @ down = delta: [out_features, width], [width, flat_in]."""

    def to_file(self, factors: Factors, shape: Shape) -> dict[str, Tensor]:
        """Tensors of one layer as files hold them, by the suffix of their key, without `alpha`."""

    def from_file(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Factors, two-dimensional, out of the tensors of one layer."""


def extra_cost(
    path: Path, shape: Shape, *, rank: int, width: int, num_tokens: int, dtype: torch.dtype
) -> int:
    """Operations of a step, forward and backward, on top of the frozen layer's own; moves of memory included.

    Args:
        rank: of the factors.
        width: of the thin product, the R of above.
        num_tokens: output positions, of the whole batch.
        dtype: of the arithmetic.
    """
    rows, columns, inputs = shape.out_features, shape.flat_in, shape.in_features
    if path == "low_rank":
        flop = 6 * num_tokens * width * (rows + columns)
        return flop + FLOP_OF_A_MOVE * num_tokens * (4 * rows + 5 * inputs + 4 * width)
    is_added = dtype.itemsize >= 4
    flop = (2 if is_added else 6) * num_tokens * rows * columns + REBUILD * rank * rows * columns
    moves = num_tokens * (rows + inputs) * (1 if is_added else 5) + DENSE_MOVES * rows * columns
    return flop + FLOP_OF_A_MOVE * moves


def choose_path(shape: Shape, *, rank: int, width: int, num_tokens: int, dtype: torch.dtype) -> Path:
    """The way that costs less; the low-rank one where they cost the same."""
    low_rank = extra_cost("low_rank", shape, rank=rank, width=width, num_tokens=num_tokens, dtype=dtype)
    dense = extra_cost("dense", shape, rank=rank, width=width, num_tokens=num_tokens, dtype=dtype)
    return "dense" if dense < low_rank else "low_rank"


def is_thin(shape: Shape, width: int) -> bool:
    """Whether both thin factors together are smaller than the weight."""
    return width * (shape.out_features + shape.flat_in) < shape.out_features * shape.flat_in


def count_tokens(base: AdaptableModule, x: Tensor) -> int:
    """Output positions of a layer for an input, of the whole batch."""
    if not isinstance(base, nn.Conv2d):
        return x.numel() // int(x.shape[-1])
    height, width = (
        (
            int(x.shape[2 + axis])
            + 2 * int(base.padding[axis])
            - base.dilation[axis] * (base.kernel_size[axis] - 1)
            - 1
        )
        // base.stride[axis]
        + 1
        for axis in (0, 1)
    )
    return int(x.shape[0]) * height * width


def compute_dtype(x: Tensor) -> torch.dtype:
    """What autocast would compute a layer in, or the dtype of its input; without numbers, as on a CPU."""
    device = "cpu" if x.is_meta else x.device.type
    if x.dtype == torch.float64 or device not in _HAVE_AUTOCAST:
        return x.dtype
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def apply_low_rank(
    base: AdaptableModule, x: Tensor, up: Tensor, down: Tensor, *, dropout: float = 0.0
) -> Tensor:
    """base(x) + up(dropout(down(x))), all in the dtype of x.

    Of linear layers the second product adds into the first's result, which spares two passes over it; linear
    layers keep their inputs, never their results, so autograd allows it.
    """
    if not isinstance(base, nn.Conv2d):
        rows = x.reshape(-1, x.shape[-1])  # [tokens, in]
        thin = F.linear(rows, down)  # [tokens, width]
        thin = F.dropout(thin, dropout) if dropout else thin
        changed = base(rows).addmm_(thin, up.t())  # [tokens, out]
        return changed.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]
    kernel = down.view(-1, base.in_channels, *base.kernel_size)
    hidden = F.conv2d(x, kernel, None, base.stride, base.padding, base.dilation)
    hidden = F.dropout(hidden, dropout) if dropout else hidden
    return base(x) + F.conv2d(hidden, up[:, :, None, None])  # type: ignore[no-any-return]


def apply_dense(
    base: AdaptableModule, x: Tensor, algorithm: Algorithm, factors: Factors, scale: Tensor
) -> Tensor:
    """The layer with its change as a matrix: added to the weight in fp32 and wider, beside it in 16 bits."""
    tensors = tuple(factors.values())
    names = tuple(factors)
    if x.dtype.itemsize >= 4:
        return _Dense.apply(x, base.weight, base.bias, scale, base, algorithm, names, *tensors)  # type: ignore[no-any-return, no-untyped-call]
    change = _Dense.apply(x, None, None, scale, base, algorithm, names, *tensors)  # type: ignore[no-untyped-call]
    return base(x) + change  # type: ignore[no-any-return]


class _Dense(torch.autograd.Function):
    """op(x, weight + delta), or op(x, delta). Keeps x and factors, and makes delta again for gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        scale: Tensor,
        base: AdaptableModule,
        algorithm: Algorithm,
        names: tuple[str, ...],
        *factors: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, scale, *factors)
        ctx.base, ctx.algorithm, ctx.names = base, algorithm, names
        changed = _changed(base, weight, algorithm, dict(zip(names, factors, strict=True)), scale, x.dtype)
        if isinstance(base, nn.Conv2d):
            return F.conv2d(x, changed, bias, base.stride, base.padding, base.dilation)
        return F.linear(x, changed, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, *tensors = ctx.saved_tensors
        base: AdaptableModule = ctx.base
        algorithm: Algorithm = ctx.algorithm
        factors = dict(zip(ctx.names, tensors, strict=True))
        changed = _changed(base, weight, algorithm, factors, scale, x.dtype)
        of_x, of_weight = _gradients(base, gradients[0], x, changed, bool(ctx.needs_input_grad[0]))
        of_factors = algorithm.delta_gradients(factors, scale, of_weight.flatten(1).to(tensors[0].dtype))
        return of_x, None, None, None, None, None, None, *(of_factors[name] for name in ctx.names)


def _changed(
    base: AdaptableModule,
    weight: Tensor | None,
    algorithm: Algorithm,
    factors: Factors,
    scale: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """Delta in the shape of the weight, plus the weight where there is one; summed in fp32 or wider."""
    with exact_products(scale.device.type):
        delta = algorithm.delta(factors, scale).view(base.weight.shape)
        return (delta if weight is None else weight + delta).to(dtype)


def exact_products(device: str) -> torch.autocast:
    """Products in the dtype of their factors, whatever autocast is on."""
    return torch.autocast(device if device in _HAVE_AUTOCAST else "cpu", enabled=False)


def _gradients(
    base: AdaptableModule, gradient: Tensor, x: Tensor, weight: Tensor, needs_x: bool
) -> tuple[Tensor | None, Tensor]:
    """Of a layer's input and weight."""
    if not isinstance(base, nn.Conv2d):
        of_weight = gradient.flatten(0, -2).t() @ x.flatten(0, -2)  # [out, in]
        return (gradient @ weight if needs_x else None), of_weight
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        base.stride,
        base.padding,
        base.dilation,
        False,
        [0, 0],
        1,
        [needs_x, True, False],
    )
    return of_x, of_weight


if torch.ops.aten.addmm_ not in flop_registry:  # counted like addmm, which torch's own table holds

    @register_flop_formula(torch.ops.aten.addmm_)
    def _addmm_flop(_self: Any, one: Any, other: Any, *_: Any, **__: Any) -> int:
        return int(2 * one[0] * one[1] * other[1])
