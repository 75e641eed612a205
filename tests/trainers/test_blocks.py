"""Blocks by their names, and what differs from one to the next."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from pipeline.errors import SettingsError
from tests.trainers.tiny_models import tiny_text_encoder, tiny_unet
from trainers.adapters.network import AdapterNetwork, attach
from trainers.block_values import adapter_rows, block_args, block_rates
from trainers.blocks import Blocks
from trainers.layers import unet_paths
from trainers.learning_rates import adapter_groups, freeze_blocks, full_groups
from trainers.methods import adapter_spec
from trainers.train_settings import Settings

SD1: Mapping[str, Any] = {
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
A1111_17 = "BASE IN01 IN02 IN04 IN05 IN07 IN08 M00 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11"


def test_blocks_are_numbered_as_a1111_numbers_them() -> None:
    blocks = Blocks.of(SD1)
    assert len(blocks.names) == 26
    assert blocks.with_attention == tuple(A1111_17.split())
    expected = {
        "down_blocks.0.resnets.0.conv1": "IN01",
        "down_blocks.0.attentions.1.proj_in": "IN02",
        "down_blocks.0.downsamplers.0.conv": "IN03",
        "down_blocks.1.resnets.0.conv_shortcut": "IN04",
        "down_blocks.2.downsamplers.0.conv": "IN09",
        "down_blocks.3.resnets.1.conv2": "IN11",
        "mid_block.attentions.0.proj_out": "M00",
        "up_blocks.0.resnets.0.conv1": "OUT00",
        "up_blocks.0.upsamplers.0.conv": "OUT02",
        "up_blocks.1.attentions.0.proj_in": "OUT03",
        "up_blocks.2.upsamplers.0.conv": "OUT08",
        "up_blocks.3.attentions.2.proj_in": "OUT11",
        "conv_in.weight": "IN00",
        "conv_out.weight": "OUT11",
        "conv_norm_out.bias": "OUT11",
        "time_embedding.linear_1": "IN00",
    }
    assert {path: blocks.of_path(path) for path in expected} == expected
    attentive = {blocks.of_path(path) for path in unet_paths(SD1, "attention")}
    assert attentive == set(A1111_17.split()) - {"BASE"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("M00=2", {"M00": 2}),
        ("in10 - in11 = 0.5; base=0", {"IN10": 0.5, "IN11": 0.5, "BASE": 0}),
        ("OUT=1, OUT03=3", {**{f"OUT{number:02d}": 1 for number in range(12)}, "OUT03": 3}),
        (
            "IN=" + ",".join(map(str, range(12))) + ",M00=1e-1",
            {**{f"IN{n:02d}": n for n in range(12)}, "M00": 0.1},
        ),
        (",".join(map(str, range(17))), dict(zip(A1111_17.split(), range(17), strict=True))),
        (",".join(map(str, range(26))), dict(zip(Blocks.of(SD1).names, range(26), strict=True))),
        (",".join(map(str, range(25))), dict(zip(Blocks.of(SD1).names[1:], range(25), strict=True))),
    ],
)
def test_one_grammar_says_values_for_blocks(text: str, expected: dict[str, float]) -> None:
    assert Blocks.of(SD1).parse(text, "block_dims") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2,3", "3 values; lists have 17, 25, 26"),
        ("IN12=1", 'a block "IN12" that this model does not have'),
        ("MID=1", 'a block "MID"'),
        ("IN=1,2", "2 values for the 12 blocks IN"),
        ("IN05-IN03=1", "backwards"),
        ("M00=x", "must be numbers"),
        ("M00=-1", "0 or more"),
        ("high", "must be numbers"),
    ],
)
def test_what_is_not_in_the_grammar_gets_a_sentence(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        Blocks.of(SD1).parse(text, "block_dims")
    assert "block_dims" in str(caught.value)


def adapted(settings: Settings) -> tuple[AdapterNetwork, Any]:
    unet = tiny_unet()
    return attach(adapter_spec(settings, unet.config), unet, tiny_text_encoder()), unet


def test_each_layer_has_the_rank_and_alpha_of_its_block_and_so_has_the_file() -> None:
    settings = Settings(
        kind="locon",
        linear_dim=4,
        conv_dim=2,
        block_dims="IN03=7, OUT=0, BASE=3",
        block_alphas="IN03=3.5",
        block_conv_dims="M00=5",
        block_conv_alphas="M00=10",
    )
    network, unet = adapted(settings)
    tensors = network.file_tensors(torch.float32)
    seen = set()
    for key, layer in network.layers.items():
        is_conv = layer.shape.kernel != (1, 1)
        rank = {"IN03": 7, "BASE": 3}.get(layer.block, 4)
        alpha = 3.5 if layer.block == "IN03" else 1.0
        if is_conv:
            rank, alpha = (5, 10.0) if layer.block == "M00" else (2, 1.0)
        assert tensors[f"{key}.lora_down.weight"].shape[0] == rank
        assert float(tensors[f"{key}.alpha"]) == alpha
        seen.add((layer.block, is_conv))
    assert ("OUT02", True) in seen
    assert not any(block.startswith("OUT") and not is_conv for block, is_conv in seen)
    rows = {row["block"]: row for row in adapter_rows(settings, network, unet.config)}
    assert rows["IN03"]["rank / alpha"] == "7 / 3.5"
    assert rows["M00"]["convolutions"] == "5 / 10"
    assert sum(row["numbers"] for row in rows.values()) == network.num_trainable
    args = block_args(settings, unet.config)
    assert args["block_dims"] == "4,4,4,7,4,4,4,0,0,0,0,0,0"
    assert args["conv_block_alphas"].split(",")[6] == "10"


def test_layers_learn_at_the_rate_of_their_block() -> None:
    settings = Settings(kind="loha", block_learning_rates="IN03=0.5, BASE=0")
    network, unet = adapted(settings)
    rates = block_rates(settings, unet.config)
    groups = adapter_groups(network, {"unet": 0.1, "text_encoder": 0.2}, block_rates=rates, by_matrix=False)
    of_tensor = {one.data_ptr(): group["lr"] for group in groups for one in group["params"]}
    for layer in network.layers.values():
        if layer.part == "unet":
            for factor in layer.factors.values():
                assert of_tensor[factor.data_ptr()] == pytest.approx(0.05 if layer.block == "IN03" else 0.1)
    flat = network.factors["text_encoder"].flat
    assert of_tensor[flat.data_ptr()] == 0
    assert block_args(settings, unet.config)["down_lr_weight"].startswith("1,1,1,0.5")


def test_a_frozen_block_of_a_whole_model_gets_no_gradient() -> None:
    unet = tiny_unet()
    rates = Blocks.of(unet.config).parse("IN=0, OUT=0.25", "block_learning_rates")
    freeze_blocks({"unet": unet}, rates, unet.config)
    groups = full_groups({"unet": unet}, {"unet": 1.0}, unet.config, block_rates=rates, by_matrix=False)
    assert {group["lr"] for group in groups} == {1.0, 0.25}
    of_tensor = {id(one): group["lr"] for group in groups for one in group["params"]}
    for name, one in unet.named_parameters():
        side = name.split(".")[0]
        expected = {"mid_block": 1.0, "up_blocks": 0.25, "conv_out": 0.25, "conv_norm_out": 0.25}.get(side)
        assert of_tensor.get(id(one)) == expected
        assert one.requires_grad == (expected is not None)


def test_nothing_that_learns_is_refused() -> None:
    settings = Settings(kind="full", train="unet", block_learning_rates="IN=0, M00=0, OUT=0, BASE=1")
    with pytest.raises(SettingsError, match="every block that is trained has a learning rate of 0"):
        block_rates(settings, tiny_unet().config)
    with pytest.raises(SettingsError, match="block_dims must be whole numbers, found"):
        adapter_spec(Settings(kind="locon", block_dims="M00=2.5"), tiny_unet().config)
