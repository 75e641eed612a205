"""Which learning rate each trainable tensor has: the groups that an optimizer takes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from trainers.adapters.network import AdapterNetwork
from trainers.blocks import BASE, Blocks
from trainers.layers import Part
from trainers.muon import TABLE


def adapter_groups(
    network: AdapterNetwork,
    learning_rates: Mapping[Part, float],
    *,
    up_ratios: Mapping[Part, float] | None = None,
    block_rates: Mapping[str, float] | None = None,
    by_matrix: bool,
) -> list[dict[str, Any]]:
    """Of an adapter: the one flat tensor of a part where all of it has one rate, else its factors.

    Args:
        up_ratios: rate of the factors on the output's side over that of the others, by part. LoRA+ (Hayou et
            al. 2024, arXiv:2402.12354, section 4): in wide networks one rate for both learns too little on
            that side. Of a LoHa those are `w1_a` and `w2_a`, the up factors of its exact low-rank form.
        block_rates: what the rate is multiplied by, by block; 1 where it is not named.
        by_matrix: give factors in any case.
    """
    groups: list[dict[str, Any]] = []
    for part, factors in network.factors.items():
        rate, ratio = learning_rates[part], (up_ratios or {}).get(part, 1.0)
        of_layers = {
            key: rate * (block_rates or {}).get(layer.block, 1.0)
            for key, layer in network.layers.items()
            if layer.part == part
        }
        if not by_matrix and ratio == 1 and len(set(of_layers.values())) == 1:
            rates: list[tuple[float, Tensor]] = [(next(iter(of_layers.values())), factors.flat)]
        else:
            rates = list(_factor_rates(network, of_layers, ratio))
        groups += _grouped(rates)
    return groups


def _factor_rates(
    network: AdapterNetwork, of_layers: Mapping[str, float], ratio: float
) -> Iterator[tuple[float, Tensor]]:
    for key, rate in of_layers.items():
        layer = network.layers[key]
        for name, factor in layer.factors.items():
            yield rate * (ratio if name in layer.algorithm.UP_FACTORS else 1), factor


def full_groups(
    parts: Mapping[Part, nn.Module],
    learning_rates: Mapping[Part, float],
    unet_config: Mapping[str, Any],
    *,
    block_rates: Mapping[str, float],
    by_matrix: bool,
) -> list[dict[str, Any]]:
    """Of whole models, without what is frozen.

    Args:
        block_rates: what the rate is multiplied by, by block; 1 where it is not named.
        by_matrix: mark tables of embeddings, which are no matrices although they have rows and columns.
    """
    groups: list[dict[str, Any]] = []
    for part, module in parts.items():
        tables = {id(one.weight) for one in module.modules() if isinstance(one, nn.Embedding)}
        rates = [
            (learning_rates[part] * block_rates.get(block, 1.0), one)
            for block, one in _by_block(part, module, unet_config)
            if one.requires_grad
        ]
        if by_matrix and tables:
            groups += _grouped([(rate, one) for rate, one in rates if id(one) not in tables])
            groups += [
                {**group, TABLE: True}
                for group in _grouped([(rate, one) for rate, one in rates if id(one) in tables])
            ]
        else:
            groups += _grouped(rates)
    return groups


def freeze_blocks(
    parts: Mapping[Part, nn.Module], block_rates: Mapping[str, float], unet_config: Mapping[str, Any]
) -> None:
    """Let blocks with a rate of 0 be as they are: no gradient is worked out for them."""
    for part, module in parts.items():
        for block, one in _by_block(part, module, unet_config):
            if block_rates.get(block, 1.0) == 0:
                one.requires_grad_(False)


def _by_block(
    part: Part, module: nn.Module, unet_config: Mapping[str, Any]
) -> Iterator[tuple[str, nn.Parameter]]:
    blocks = Blocks.of(unet_config)
    for name, one in module.named_parameters():
        yield (blocks.of_path(name) if part == "unet" else BASE), one


def _grouped(rates: Sequence[tuple[float, Tensor]]) -> list[dict[str, Any]]:
    """A group for each rate, in the order in which they come."""
    found: dict[float, list[Tensor]] = {}
    for rate, one in rates:
        found.setdefault(rate, []).append(one)
    return [{"params": ones, "lr": rate} for rate, ones in found.items()]
