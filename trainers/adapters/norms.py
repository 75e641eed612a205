"""Max norm regularisation of adapters: a change that has grown too long is shortened (`scale_weight_norms`).

The norm of a layer's change is worked out from its thin factors, |up @ down|^2 = sum((up^T up) * (down
down^T)), so that no matrix of the weight's size is built. A change above the limit is brought down to it,
each of its n factors by the same share, ratio^(1/n): the square root of a LoRA, as kohya's networks.lora
does, the fourth root of a LoHa. Srivastava et al. 2014, JMLR 15, section 5.1, for the rule itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.adapters.base import FlatFactors, Group
from trainers.adapters.paths import is_thin


@dataclass(frozen=True, slots=True)
class Norms:
    """Of one step, on the device.

    Args:
        num_scaled: layers that were shortened.
        of_layers: norm of the change of each layer, after it.
    """

    num_scaled: Tensor
    of_layers: Tensor


@torch.no_grad()
def limit_norms(parts: Iterable[FlatFactors], limit: float) -> Norms:
    """Shorten every change to a norm of at most `limit`; nothing waits for the device."""
    counts: list[Tensor] = []
    after: list[Tensor] = []
    for factors in parts:
        for group in factors.groups:
            norms = change_norms(group)  # [layers]
            ratios = (limit / norms.clamp(min=1e-12)).clamp(max=1.0)
            root = ratios ** (1 / len(group.factors))
            for factor in group.factors.values():
                factor.mul_(root.view(-1, 1, 1))
            counts.append((ratios < 1).sum())
            after.append(norms * ratios)
    return Norms(torch.stack(counts).sum(), torch.cat(after))


def change_norms(group: Group) -> Tensor:
    """Frobenius norm of the change of each layer of a group: [layers], fp32."""
    first = group.layers[0]
    algorithm = first.algorithm
    if is_thin(first.shape, algorithm.width(first.rank)):
        up, down = algorithm.low_rank(group.factors, group.scales)
        squares = ((up.mT @ up) * (down @ down.mT)).sum((-2, -1))
        return squares.clamp(min=0).sqrt()
    deltas = (
        algorithm.delta({name: one[place] for name, one in group.factors.items()}, group.scales[place])
        for place in range(len(group.layers))
    )
    return torch.stack([delta.norm() for delta in deltas])
