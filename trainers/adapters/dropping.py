"""Dropout of adapters: of activations, of ranks, of whole layers. Drawn for each batch, and only in training.

Masks of ranks and layers are drawn by (seed, part, batch) on the CPU, a few thousand numbers, and copied into
buffers that the factors are multiplied by: a resumed run draws the same, on every device, and a compiled
graph meets tensors where others ask the host. Activations are dropped by the device's own generator, which
each batch seeds from the same key.

dropout         each number of the thin activations `down(x)`, as kohya's networks.lora does; of a LoHa
                those of its exact low-rank form, which LyCORIS leaves out.
rank_dropout    each rank of each layer, for the whole batch, the others raised by 1 / (1 - p); of a LoHa the
                ranks of both products, drawn apart, so that its change stays the same on average.
module_dropout  each layer for the whole batch, as both of them do: what is left is not raised.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainers import draws
from trainers.adapters.base import FlatFactors, Group
from trainers.layers import Part


class AdapterDropping:
    """Draws for the layers of an adapter; between batches nothing is dropped.

    Args:
        parts: factors by the part of the model they belong to.
        dropout, rank_dropout, module_dropout: shares, 0 to below 1.
    """

    def __init__(
        self,
        parts: Mapping[Part, FlatFactors],
        *,
        dropout: float,
        rank_dropout: float,
        module_dropout: float,
        seed: int,
    ) -> None:
        self._dropout = dropout
        self._shares = (rank_dropout, module_dropout)
        self._seed = seed
        self._is_on = False
        self._masks: dict[str, tuple[Tensor, Tensor]] = {}  # of ranks, of layers
        for part, factors in parts.items():
            self._masks[part] = self._make_masks(factors)

    @property
    def active_dropout(self) -> float:
        """Share of the thin activations to drop now."""
        return self._dropout if self._is_on else 0.0

    @torch.no_grad()
    def draw(self, batch: int) -> None:
        """Drop for a batch with this number."""
        self._is_on = True
        draws.reseed("dropout", self._seed, batch)
        for part, masks in self._masks.items():
            for kind, share, mask in zip(("ranks", "layers"), self._shares, masks, strict=True):
                if share:
                    kept = draws.uniform((len(mask),), f"dropout of {kind}", self._seed, part, batch) >= share
                    values = kept.float() / (1 - share if kind == "ranks" else 1)
                    mask.copy_(values, non_blocking=True)

    @torch.no_grad()
    def rest(self) -> None:
        """Drop nothing."""
        self._is_on = False
        for masks in self._masks.values():
            for mask in masks:
                mask.fill_(1)

    def _make_masks(self, factors: FlatFactors) -> tuple[Tensor, Tensor]:
        """One buffer of each kind for all layers of a part; layers and groups get views of it."""
        has_ranks, has_layers = (bool(share) for share in self._shares)
        sizes = [_num_ranks(group) if has_ranks else 0 for group in factors.groups]
        counts = [len(group.layers) if has_layers else 0 for group in factors.groups]
        ranks, layers = (torch.ones(sum(one), device=factors.flat.device) for one in (sizes, counts))
        of_groups = zip(factors.groups, torch.split(ranks, sizes), torch.split(layers, counts), strict=True)
        for group, of_ranks, of_layers in of_groups:
            if has_ranks:
                _give_ranks(group, of_ranks)
            if has_layers:
                group.keep = of_layers.view(-1, 1, 1)
                for layer, keep in zip(group.layers, of_layers, strict=True):
                    layer.keep = keep
            for layer in group.layers:
                layer.dropping = self
        return ranks, layers


def _num_ranks(group: Group) -> int:
    names = group.layers[0].algorithm.UP_FACTORS
    return sum(group.factors[name].shape[0] * group.factors[name].shape[2] for name in names)


def _give_ranks(group: Group, values: Tensor) -> None:
    names = group.layers[0].algorithm.UP_FACTORS
    shapes = [(group.factors[name].shape[0], 1, group.factors[name].shape[2]) for name in names]
    parts = torch.split(values, [count * rank for count, _, rank in shapes])
    for name, part, shape in zip(names, parts, shapes, strict=True):
        group.masks[name] = part.view(shape)
        for layer, mask in zip(group.layers, group.masks[name], strict=True):
            layer.masks[name] = mask
