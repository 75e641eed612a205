"""What all adapters share: their factors in one flat parameter, and a layer with a low-rank change beside it.

Every adapter here changes a layer's weight by a matrix that is exactly a product of two thin ones,
`up @ down`. The change is applied beside the frozen layer, y = base(x) + up(down(x)): less work than building
the weight again, and more exact, as a change of 1e-5 added to a 16-bit weight is rounded away.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.layers import AdaptableModule, Layer

Factors: TypeAlias = Mapping[str, Tensor]


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
    """One kind of adapter: a module of this package, as functions of its factors."""

    def factor_shapes(self, shape: Shape, rank: int) -> dict[str, tuple[int, ...]]:
        """Sizes of its factors, two-dimensional, in the order of files."""

    def initialise(self, factors: Factors, init: str, generator: torch.Generator) -> None:
        """Fill new factors in place, so that they change nothing yet."""

    def delta(self, factors: Factors, scale: float) -> Tensor:
        """The change of the weight, [out_features, flat_in], in the dtype of the factors: the reference."""

    def low_rank(self, factors: Factors, scale: float) -> tuple[Tensor, Tensor]:
        """(up, down) with up @ down = delta: [out_features, R], [R, flat_in]."""

    def to_file(self, factors: Factors, shape: Shape) -> dict[str, Tensor]:
        """Tensors of one layer as files hold them, by the suffix of their key, without `alpha`."""

    def from_file(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Factors, two-dimensional, out of the tensors of one layer."""


class FlatFactors:
    """Factors of many layers in one stretch of memory: one tensor for the optimizer, the norm and the checks.

    Each factor is a parameter of its own whose values and gradients are views into `flat` and `flat.grad`;
    autograd adds into them. Clear gradients by `zero_grad()` here, never by setting them to None.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], device: torch.device | str = "cpu") -> None:
        sizes = [int(torch.Size(shape).numel()) for shape in shapes]
        self.flat = nn.Parameter(torch.zeros(sum(sizes), device=device), requires_grad=False)
        self.flat.grad = torch.zeros_like(self.flat)
        self.views = [
            _view(values, gradients, shape)
            for values, gradients, shape in zip(
                torch.split(self.flat.data, sizes), torch.split(self.flat.grad, sizes), shapes, strict=True
            )
        ]

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place."""
        assert self.flat.grad is not None
        self.flat.grad.zero_()


def _view(values: Tensor, gradients: Tensor, shape: tuple[int, ...]) -> nn.Parameter:
    factor = nn.Parameter(values.view(shape))
    factor.grad = gradients.view(shape)
    return factor


class AdaptedLayer(nn.Module):
    """A frozen layer and its change. Takes the layer's place in its model, and gives it back on `restore`."""

    def __init__(
        self,
        layer: Layer,
        algorithm: Algorithm,
        factors: Mapping[str, nn.Parameter],
        *,
        rank: int,
        alpha: float,
    ) -> None:
        super().__init__()
        self.layer_key = layer.key
        self.base = layer.module
        self.factors = nn.ParameterDict(factors)
        self.rank = rank
        self.alpha = alpha
        self.multiplier = 1.0
        self.shape = Shape.of(layer.module)
        self._algorithm = algorithm
        self._layer = layer

    @property
    def scale(self) -> float:
        """Alpha / rank, times what a person turned it up or down by."""
        return self.alpha / self.rank * self.multiplier

    def forward(self, x: Tensor) -> Tensor:
        """The changed layer's output: [..., out_features], or [batch, out_features, height, width]."""
        up, down = self._algorithm.low_rank(dict(self.factors), self.scale)
        if not isinstance(self.base, nn.Conv2d):
            return self.base(x) + F.linear(F.linear(x, down), up)  # type: ignore[no-any-return]
        kernel = down.view(-1, self.shape.in_features, *self.shape.kernel)
        base = self.base
        hidden = F.conv2d(x, kernel, None, base.stride, base.padding, base.dilation)
        return base(x) + F.conv2d(hidden, up[:, :, None, None])  # type: ignore[no-any-return]

    @torch.no_grad()
    def delta(self) -> Tensor:
        """The change of the weight in the weight's own shape, fp32."""
        factors = {name: factor.float() for name, factor in self.factors.items()}
        return self._algorithm.delta(factors, self.scale).view(self.base.weight.shape)

    @torch.no_grad()
    def file_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(key, tensor) as files hold them, alpha included."""
        tensors = self._algorithm.to_file(
            {name: factor.detach() for name, factor in self.factors.items()}, self.shape
        )
        for suffix, tensor in tensors.items():
            yield f"{self.layer_key}.{suffix}", tensor
        yield f"{self.layer_key}.alpha", torch.tensor(self.alpha)

    def put_in_place(self) -> None:
        """Let the model use this instead of its own layer."""
        setattr(self._layer.parent, self._layer.attribute, self)

    def restore(self) -> None:
        """Give the model its own layer back."""
        setattr(self._layer.parent, self._layer.attribute, self._layer.module)
