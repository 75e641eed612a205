"""Which learning rate each trainable tensor has: the groups that an optimizer takes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from trainers.adapters.network import AdapterNetwork
from trainers.layers import Part
from trainers.muon import TABLE


def adapter_groups(
    network: AdapterNetwork,
    learning_rates: Mapping[Part, float],
    *,
    up_ratios: Mapping[Part, float] | None = None,
    by_matrix: bool,
) -> list[dict[str, Any]]:
    """Of an adapter: the one flat tensor of a part where all of it has one rate, else its factors.

    Args:
        up_ratios: rate of the factors on the output's side over that of the others, by part. LoRA+ (Hayou et
            al. 2024, arXiv:2402.12354, section 4): in wide networks one rate for both learns too little on
            that side. Of a LoHa those are `w1_a` and `w2_a`, the up factors of its exact low-rank form.
        by_matrix: give factors in any case.
    """
    groups: list[dict[str, Any]] = []
    for part, factors in network.factors.items():
        rate, ratio = learning_rates[part], (up_ratios or {}).get(part, 1.0)
        rates = list(_factor_rates(network, part, rate, ratio))
        if not by_matrix and len({rate for rate, _ in rates}) == 1:
            rates = [(rates[0][0], factors.flat)]
        groups += _grouped(rates)
    return groups


def _factor_rates(
    network: AdapterNetwork, part: Part, rate: float, ratio: float
) -> Iterator[tuple[float, Tensor]]:
    for layer in network.layers.values():
        if layer.part == part:
            for name, factor in layer.factors.items():
                yield rate * (ratio if name in layer.algorithm.UP_FACTORS else 1), factor


def full_groups(
    parts: Mapping[Part, nn.Module], learning_rates: Mapping[Part, float], *, by_matrix: bool
) -> list[dict[str, Any]]:
    """Of whole models.

    Args:
        by_matrix: mark tables of embeddings, which are no matrices although they have rows and columns.
    """
    groups: list[dict[str, Any]] = []
    for part, module in parts.items():
        tables = {id(one.weight) for one in module.modules() if isinstance(one, nn.Embedding)}
        rates = [(learning_rates[part], one) for one in module.parameters()]
        if by_matrix and tables:
            groups += _grouped([(rate, one) for rate, one in rates if id(one) not in tables])
            groups += [
                {**group, TABLE: True}
                for group in _grouped([(rate, one) for rate, one in rates if id(one) in tables])
            ]
        else:
            groups += _grouped(rates)
    return groups


def _grouped(rates: Sequence[tuple[float, Tensor]]) -> list[dict[str, Any]]:
    """A group for each rate, in the order in which they come."""
    found: dict[float, list[Tensor]] = {}
    for rate, one in rates:
        found.setdefault(rate, []).append(one)
    return [{"params": ones, "lr": rate} for rate, ones in found.items()]
