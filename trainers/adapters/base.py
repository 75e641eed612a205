"""What all adapters share: their factors in one flat parameter, and a layer that takes a frozen one's place.

Every adapter here changes a layer's weight by a matrix that is exactly a product of two thin ones,
`up @ down`. How a changed layer is computed is chosen in paths.py.

Factors are fp32. Layers of equal sizes lie side by side in the flat parameter, so the thin products of all of
them are made by a few operations on views, [layers, rows, columns], and cast once to the dtype of the
arithmetic: `FlatFactors.prepare`, before each forward pass of the part of the model they belong to. A layer
that is called by itself makes its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from trainers.adapters.paths import (
    Algorithm,
    Shape,
    apply_dense,
    apply_low_rank,
    choose_path,
    compute_dtype,
    count_tokens,
    is_thin,
)
from trainers.layers import Layer

Sizes = Mapping[str, tuple[int, ...]]


class Dropping(Protocol):
    """What a layer asks while it is trained."""

    @property
    def active_dropout(self) -> float:
        """Share of the thin activations to drop now."""


class AdaptedLayer(nn.Module):
    """A frozen layer and its change. Takes the layer's place in its model, and gives it back on `restore`.

    Args:
        factors: fp32; `.to()` moves and casts the base alone, as factors belong to their flat tensor.
        multiplier: of the whole adapter, a tensor without dimensions that all layers share: turning it
            compiles nothing again.
    """

    def __init__(
        self,
        layer: Layer,
        algorithm: Algorithm,
        factors: Mapping[str, nn.Parameter],
        *,
        rank: int,
        alpha: float,
        multiplier: Tensor,
    ) -> None:
        super().__init__()
        self.layer_key = layer.key
        self.part = layer.part
        self.block = layer.block
        self.base = layer.module
        self.factors = nn.ParameterDict(factors)
        self.rank = rank
        self.alpha = alpha
        self.multiplier = multiplier
        self.shape = Shape.of(layer.module)
        self.prepared: tuple[Tensor, Tensor] | None = None  # (up, down) in the dtype of the arithmetic
        self.dropping: Dropping | None = None
        self.masks: dict[str, Tensor] = {}  # of factors, [1, rank]
        self.keep: Tensor | None = None  # no dimensions: 0 leaves the layer as it is
        self.algorithm = algorithm
        self._layer = layer

    @property
    def scale(self) -> float:
        """Alpha / rank: what is in a file."""
        return self.alpha / self.rank

    def forward(self, x: Tensor) -> Tensor:
        """The changed layer's output: [..., out_features], or [batch, out_features, height, width]."""
        dtype = compute_dtype(x)
        x = x.to(dtype)  # once, for the base and the change
        dropout = self.dropping.active_dropout if self.dropping is not None else 0.0
        path = choose_path(
            self.shape,
            rank=self.rank,
            width=self.algorithm.width(self.rank),
            num_tokens=count_tokens(self.base, x),
            dtype=dtype,
        )
        if path == "dense" and not dropout:  # which drops what only the low-rank way has
            return apply_dense(self.base, x, self.algorithm, self._kept_factors(), self._kept_scale())
        up, down = self._thin(dtype)
        return apply_low_rank(self.base, x, up, down, dropout=dropout)

    def _thin(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if self.prepared is not None and self.prepared[0].dtype == dtype:
            return self.prepared
        up, down = self.algorithm.low_rank(self._kept_factors(), self._kept_scale())
        return up.to(dtype), down.to(dtype)

    def _kept_factors(self) -> dict[str, Tensor]:
        """Without the ranks that are dropped."""
        return masked(dict(self.factors.items()), self.masks)

    def _kept_scale(self) -> Tensor:
        """Zero where the layer is dropped."""
        scale = self.multiplier * self.scale
        return scale if self.keep is None else scale * self.keep

    @torch.no_grad()
    def delta(self) -> Tensor:
        """The change of the weight in the weight's own shape, fp32."""
        factors = {name: factor.float() for name, factor in self.factors.items()}
        return self.algorithm.delta(factors, self.multiplier * self.scale).view(self.base.weight.shape)

    @torch.no_grad()
    def file_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(key, tensor) as files hold them, alpha included."""
        tensors = self.algorithm.to_file(
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

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        self.base._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


@dataclass(slots=True)
class Group:
    """Layers of equal sizes.

    Args:
        factors: by name, [layers, rows, columns].
        layers, scales: filled by `FlatFactors.adopt`; scales are alpha / rank, [layers, 1, 1].
        masks, keep: of dropping.py, where anything is dropped: by factor, [layers, 1, rank]; [layers, 1, 1].
    """

    factors: dict[str, nn.Parameter]
    layers: list[AdaptedLayer]
    scales: Tensor
    masks: dict[str, Tensor] = field(default_factory=dict)
    keep: Tensor | None = None


class FlatFactors:
    """Factors of many layers in one stretch of memory: one tensor for the optimizer, the norm and the checks.

    Each factor, and each factor of a whole group, is a parameter whose values and gradients are views into
    `flat` and `flat.grad`; autograd adds into them. Clear gradients by `zero_grad()` here, never by setting
    them to None.

    Args:
        sizes: of the factors of each layer.
        device: of the layers.
    """

    def __init__(
        self, sizes: Sequence[Sizes], algorithm: Algorithm, device: torch.device | str = "cpu"
    ) -> None:
        places: dict[tuple[tuple[str, tuple[int, ...]], ...], list[int]] = {}
        for place, one in enumerate(sizes):
            places.setdefault(tuple(one.items()), []).append(place)
        shapes = [(len(of_group), *size) for key, of_group in places.items() for _, size in key]
        lengths = [torch.Size(shape).numel() for shape in shapes]
        self.flat = nn.Parameter(torch.zeros(sum(lengths), device=device), requires_grad=False)
        self.flat.grad = torch.zeros_like(self.flat)
        self.views: list[dict[str, nn.Parameter]] = [{} for _ in sizes]  # of each layer
        self._algorithm = algorithm
        self.groups: list[Group] = []
        self._group_of: list[Group] = []
        wholes = iter(
            _view(values.view(shape), gradients.view(shape))
            for values, gradients, shape in zip(
                torch.split(self.flat.data, lengths),
                torch.split(self.flat.grad, lengths),
                shapes,
                strict=True,
            )
        )
        for key, of_group in places.items():
            group = Group({name: next(wholes) for name, _ in key}, [], torch.empty(0))
            self.groups.append(group)
            for name, whole in group.factors.items():
                assert whole.grad is not None
                for place, values, gradients in zip(of_group, whole.data, whole.grad, strict=True):
                    self.views[place][name] = _view(values, gradients)
        self._order = [place for of_group in places.values() for place in of_group]

    def adopt(self, layers: Sequence[AdaptedLayer]) -> None:
        """Know the layers, in the order of `sizes`; again whenever an alpha of theirs has changed."""
        ordered = iter(self._order)
        for group in self.groups:
            count = len(next(iter(group.factors.values())))
            group.layers = [layers[next(ordered)] for _ in range(count)]
            scales = [layer.scale for layer in group.layers]
            group.scales = torch.tensor(scales, device=self.flat.device).view(-1, 1, 1)

    def prepare(self, multiplier: Tensor, dtype: torch.dtype) -> None:
        """Make the thin factors of all layers, in fp32, cast once; good for one forward and backward pass."""
        for group in self.groups:
            first = group.layers[0]
            if not is_thin(first.shape, self._algorithm.width(first.rank)):
                continue  # large for all layers at once, and hardly ever asked for
            scales = group.scales * multiplier
            scales = scales if group.keep is None else scales * group.keep
            up, down = self._algorithm.low_rank(masked(group.factors, group.masks), scales)
            thin = zip(up.to(dtype).unbind(0), down.to(dtype).unbind(0), strict=True)
            for layer, prepared in zip(group.layers, thin, strict=True):
                layer.prepared = prepared

    def forget(self) -> None:
        """Let every layer make its own."""
        for group in self.groups:
            for layer in group.layers:
                layer.prepared = None

    def freeze(self) -> None:
        """Have no gradients any more: an optimizer passes over what has none."""
        wholes = [whole for group in self.groups for whole in group.factors.values()]
        for one in (self.flat, *wholes, *(view for views in self.views for view in views.values())):
            one.requires_grad_(False)
            one.grad = None

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place."""
        if self.flat.grad is not None:
            self.flat.grad.zero_()
        self.forget()


def masked(factors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Factors times their masks, where they have one."""
    return {name: one * masks[name] if name in masks else one for name, one in factors.items()}


def _view(values: Tensor, gradients: Tensor) -> nn.Parameter:
    factor = nn.Parameter(values)
    factor.grad = gradients
    return factor
