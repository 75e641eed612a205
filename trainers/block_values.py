"""What settings say of single blocks: sizes and learning rates, their table, and kohya's words for them."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from pipeline.errors import SettingsError
from trainers.adapters.network import AdapterNetwork, BlockSize
from trainers.blocks import BASE, MIDDLE, Blocks, kohya_list
from trainers.train_settings import Settings


def block_rates(settings: Settings, unet_config: Mapping[str, Any]) -> dict[str, float]:
    """What the learning rate is multiplied by, of the blocks that are named.

    Raises:
        SettingsError: it cannot be read, or nothing would learn.
    """
    if not settings.block_learning_rates:
        return {}
    blocks = Blocks.of(unet_config)
    rates = blocks.parse(settings.block_learning_rates, "block_learning_rates")
    learning = [name for name in blocks.names if _learns(settings, name)]
    if all(rates.get(name, 1.0) == 0 for name in learning):
        raise SettingsError(
            "every block that is trained has a learning rate of 0", hint="give one of them another: M00=1"
        )
    return rates


def _learns(settings: Settings, block: str) -> bool:
    return settings.trains_text_encoder if block == BASE else settings.trains_unet


def block_sizes(settings: Settings, unet_config: Mapping[str, Any]) -> dict[str, BlockSize]:
    """Ranks and alphas of every block, where some differ.

    Raises:
        SettingsError: it cannot be read, or a rank is no whole number.
    """
    blocks = Blocks.of(unet_config)
    dims, alphas, conv_dims, conv_alphas = (
        blocks.parse(getattr(settings, name), name)
        for name in ("block_dims", "block_alphas", "block_conv_dims", "block_conv_alphas")
    )
    for what, values in (("block_dims", dims), ("block_conv_dims", conv_dims)):
        odd = [value for value in values.values() if value != int(value)]
        if odd:
            raise SettingsError(f"{what} must be whole numbers, found {odd[0]:g}", hint="mend that rank")
    if not (dims or alphas or conv_dims or conv_alphas):
        return {}
    return {
        name: BlockSize(
            int(dims.get(name, settings.linear_dim)),
            alphas.get(name, settings.linear_alpha),
            int(conv_dims.get(name, settings.conv_dim)),
            conv_alphas.get(name, settings.conv_alpha),
        )
        for name in blocks.names
    }


def block_args(settings: Settings, unet_config: Mapping[str, Any]) -> dict[str, str]:
    """Arguments of kohya's networks.lora that say the same."""
    blocks = Blocks.of(unet_config)
    unet = blocks.names[1:]
    middle = unet.index(MIDDLE)
    found = {}
    for theirs, ours, default in (
        ("block_dims", "block_dims", settings.linear_dim),
        ("block_alphas", "block_alphas", settings.linear_alpha),
        ("conv_block_dims", "block_conv_dims", settings.conv_dim),
        ("conv_block_alphas", "block_conv_alphas", settings.conv_alpha),
    ):
        values = blocks.parse(getattr(settings, ours), ours)
        if values:
            found[theirs] = kohya_list(values, unet, default)
    rates = block_rates(settings, unet_config)
    if rates:
        found["down_lr_weight"] = kohya_list(rates, unet[:middle], 1.0)
        found["mid_lr_weight"] = kohya_list(rates, (MIDDLE,), 1.0)
        found["up_lr_weight"] = kohya_list(rates, unet[middle + 1 :], 1.0)
    return found


def adapter_rows(
    settings: Settings, network: AdapterNetwork, unet_config: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A row for each block of an adapter; none where all are alike."""
    return list(_adapter_rows(settings, network, unet_config)) if settings.has_blocks else []


def _adapter_rows(
    settings: Settings, network: AdapterNetwork, unet_config: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    rates = block_rates(settings, unet_config)
    for name in Blocks.of(unet_config).names:
        layers = [one for one in network.layers.values() if one.block == name]
        kernels: dict[bool, set[str]] = {False: set(), True: set()}
        for one in layers:
            kernels[one.shape.kernel != (1, 1)].add(f"{one.rank} / {one.alpha:g}")
        yield {
            "block": name,
            "layers": len(layers),
            "rank / alpha": ", ".join(sorted(kernels[False])),
            "convolutions": ", ".join(sorted(kernels[True])),
            "learning rate": rates.get(name, 1.0) if layers else "",
            "numbers": sum(factor.numel() for one in layers for factor in one.factors.values()),
        }


def full_rows(settings: Settings, unet: nn.Module, text_encoder: nn.Module) -> list[dict[str, Any]]:
    """A row for each block of whole models; none where all are alike."""
    if not settings.has_blocks:
        return []
    config: Mapping[str, Any] = unet.config  # type: ignore[assignment]
    blocks, rates = Blocks.of(config), block_rates(settings, config)
    numbers = dict.fromkeys(blocks.names, 0)
    for name, one in unet.named_parameters():
        numbers[blocks.of_path(name)] += one.numel()
    numbers[BASE] = sum(one.numel() for one in text_encoder.parameters())
    return [
        {
            "block": name,
            "learning rate": rates.get(name, 1.0) if _learns(settings, name) else 0.0,
            "numbers": count,
        }
        for name, count in numbers.items()
    ]
