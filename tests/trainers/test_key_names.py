import gzip
import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from tests.trainers.tiny_models import tiny_text_encoder, tiny_unet, tiny_vae
from trainers import ldm_keys
from trainers.sd1_shapes import sd1_configs, unet_config, vae_config


def test_names_are_those_of_an_independent_table(shared_testdata: Path) -> None:
    """Every tensor of SD1.5, as another project wrote it down (keymaps/stable_diffusion_sd1.json.gz)."""
    path = shared_testdata / "keymaps" / "stable_diffusion_sd1.json.gz"
    table: dict[str, str] = json.loads(gzip.decompress(path.read_bytes()))["ldm_diffusers_keymap"]
    configs = sd1_configs()
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(configs["unet"]).state_dict()
        vae = AutoencoderKL.from_config(configs["vae"]).state_dict()
    numbered = {"vae_" + name: name for name in vae} | {"unet_" + name: name for name in unet}
    ours = {
        **dict(zip(ldm_keys.unet_to_ldm(unet, configs["unet"]), unet, strict=True)),
        **dict(zip(ldm_keys.vae_to_ldm(vae, configs["vae"]), vae, strict=True)),
    }
    assert ours == {ldm: numbered[name] for ldm, name in table.items() if not name.startswith("te_")}
    texts = {name.removeprefix("te_"): torch.empty(0) for name in table.values() if name.startswith("te_")}
    assert set(ldm_keys.text_encoder_to_ldm(texts)) == {one for one in table if one.startswith("cond_stage")}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("channels", [(16, 32, 32), (16, 16), (8, 16, 32, 16)])
def test_a_unet_comes_back_bit_for_bit_with_its_architecture(channels: tuple[int, ...]) -> None:
    unet = tiny_unet(channels=channels)
    ldm = ldm_keys.unet_to_ldm(unet.state_dict(), unet.config)
    assert len(ldm) == len(unet.state_dict())
    told, _ = unet_config(ldm_keys.under(ldm, ldm_keys.UNET))
    for key in ("block_out_channels", "down_block_types", "up_block_types"):
        assert list(told[key]) == list(unet.config[key])
    for key in ("layers_per_block", "cross_attention_dim", "in_channels", "out_channels"):
        assert told[key] == unet.config[key]
    assert equal(ldm_keys.unet_from_ldm(ldm, told), unet.state_dict())


def test_layers_and_depths_may_differ_from_level_to_level() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(8, 16, 16),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=(2, 1, 3),
            transformer_layers_per_block=(1, 2, 1),
            cross_attention_dim=4,
            attention_head_dim=2,
            norm_num_groups=4,
        )
    ldm = ldm_keys.unet_to_ldm(unet.state_dict(), unet.config)
    told, _ = unet_config(ldm_keys.under(ldm, ldm_keys.UNET))
    assert told["layers_per_block"] == [2, 1, 3]
    assert told["transformer_layers_per_block"] == [1, 2, 1]
    assert list(ldm_keys.unet_from_ldm(ldm, told)) == list(unet.state_dict())


def test_a_vae_comes_back_bit_for_bit_and_its_attention_is_of_convolutions_in_between() -> None:
    vae = tiny_vae()
    ldm = ldm_keys.vae_to_ldm(vae.state_dict(), vae.config)
    assert ldm["first_stage_model.decoder.mid.attn_1.proj_out.weight"].shape == (16, 16, 1, 1)
    named = ldm_keys.under(ldm, ldm_keys.VAE)
    told, _ = vae_config(named)
    assert (told["block_out_channels"], told["layers_per_block"], told["latent_channels"]) == (
        [8, 8, 16],
        1,
        4,
    )
    assert equal(ldm_keys.vae_from_ldm(named, told), vae.state_dict())


def test_vaes_of_older_diffusers_are_read() -> None:
    new = {f"encoder.mid_block.attentions.0.{one}.weight": torch.ones(2, 2) for one in ("to_q", "to_out.0")}
    old = {
        f"encoder.mid_block.attentions.0.{one}.weight": torch.ones(2, 2, 1, 1)
        for one in ("query", "proj_attn")
    }
    assert equal(ldm_keys.canonical_vae(old), new)
    assert equal(ldm_keys.canonical_vae(new), new)


def test_text_encoders_have_one_spelling_nested_or_flat() -> None:
    tensors = {
        name.removeprefix("text_model."): one for name, one in tiny_text_encoder().state_dict().items()
    }
    nested = {f"text_model.{name}": one for name, one in tensors.items()}
    with_positions = {**nested, "text_model.embeddings.position_ids": torch.arange(16)[None]}
    assert equal(ldm_keys.canonical_text_encoder(tensors), nested)
    assert equal(ldm_keys.canonical_text_encoder(with_positions), nested)
    assert "cond_stage_model.transformer.text_model.final_layer_norm.bias" in ldm_keys.text_encoder_to_ldm(
        tensors
    )
