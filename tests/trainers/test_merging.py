"""Adapter files added to weights, against lycoris-lora."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import InputError
from tests.trainers.test_compare import write_adapter
from tests.trainers.tiny_models import tiny_models
from trainers.adapters.merging import AdapterFile
from trainers.layers import find_unet_layers

CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
LINEAR = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def weights(models: object) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": one.clone()
        for part in ("unet", "text_encoder")
        for name, one in getattr(models, part).state_dict().items()
    }


@pytest.mark.parametrize("algorithm", ["loha", "locon"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_merged_weights_are_those_of_lycoris_and_leave_no_trace(
    tmp_path: Path, algorithm: str, dtype: torch.dtype
) -> None:
    from lycoris.functional import locon, loha

    path = tmp_path / "a.safetensors"
    write_adapter(path, algorithm)
    models = tiny_models()
    models.unet.to(dtype)
    before = weights(models)
    adapter = AdapterFile.read(path)
    assert adapter.kind == algorithm
    with adapter.merged(models.unet, models.text_encoder, 0.5):
        merged = weights(models)
        pairs = adapter.pairs(models.unet, models.text_encoder)
    assert len(pairs) == len(adapter.changes) > 50
    after = weights(models)
    assert all(torch.equal(before[name], after[name]) for name in before)
    changed = {name for name in before if not torch.equal(before[name], merged[name])}
    assert len(changed) == len(pairs)
    inside = {id(module): f"unet.{name}" for name, module in models.unet.named_modules()}
    inside |= {id(module): f"text_encoder.{name}" for name, module in models.text_encoder.named_modules()}
    for layer, change in pairs:
        name = f"{inside[id(layer.module)]}.weight"
        factors, shape = change.factors, layer.module.weight.shape
        gamma = 1.0 / (4 if layer.kernel_area == 1 else 2)  # alpha over the ranks of `write_adapter`
        if algorithm == "loha":
            names = ("w1_b", "w1_a", "w2_b", "w2_a")  # of lycoris: down before up
            delta = loha.diff_weight(*(factors[one] for one in names), None, None, gamma=gamma)
        else:
            delta = locon.diff_weight(factors["down"], factors["up"], None, gamma=gamma)
        expected = (before[name].float() + 0.5 * delta.view(shape)).to(before[name].dtype)
        torch.testing.assert_close(merged[name], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", [CONV, LINEAR])
@pytest.mark.parametrize("options", [{"use_tucker": True}, {"use_scalar": True}, {"rs_lora": True}], ids=str)
@pytest.mark.parametrize("kind", ["loha", "locon"])
def test_what_lycoris_computes_of_its_other_forms(
    tmp_path: Path, kind: str, options: dict[str, bool], key: str
) -> None:
    """Its forward pass, which is what was trained: get_diff_weight of its LoHa (4.1) takes the scale twice."""
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule

    torch.manual_seed(1)
    models = tiny_models()
    module = next(one.module for one in find_unet_layers(models.unet) if one.key == key)
    theirs = {"loha": LohaModule, "locon": LoConModule}[kind](key, module, 1.0, 3, 2.0, **options)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
    tensors = {f"{key}.{name}": one.contiguous() for name, one in theirs.state_dict().items()}
    save_file(tensors, tmp_path / "a.safetensors")
    theirs.apply_to()
    inputs = torch.randn(1, 16, 8, 8) if key == CONV else torch.randn(1, 5, 32)
    with torch.no_grad():
        plain = theirs.org_forward(inputs)
        expected = theirs(inputs) - plain
    theirs.restore()
    assert expected.abs().max() > 0.01
    before = module.weight.detach().clone()
    adapter = AdapterFile.read(tmp_path / "a.safetensors")
    with adapter.merged(models.unet, models.text_encoder, 0.5), torch.no_grad():
        found = module(inputs) - plain
    largest = float(expected.abs().max())
    torch.testing.assert_close(found / largest, 0.5 * expected / largest, rtol=1e-4, atol=1e-5)
    assert torch.equal(module.weight, before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("alpha", [4, 2])
def test_the_alpha_of_a_lora_that_diffusers_saved(tmp_path: Path, alpha: int) -> None:
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    theirs, models = tiny_models().unet, tiny_models()
    theirs.add_adapter(LoraConfig(r=4, lora_alpha=alpha, target_modules=["to_q", "to_out.0"]))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(theirs),
        unet_lora_adapter_metadata=theirs.peft_config["default"].to_dict(),
    )
    inputs = (
        torch.randn(1, 4, 8, 8),
        torch.tensor(5),
        torch.randn(1, 5, models.unet.config.cross_attention_dim),
    )
    with torch.no_grad():
        expected, plain = theirs(*inputs).sample, models.unet(*inputs).sample
        adapter = AdapterFile.read(tmp_path / "pytorch_lora_weights.safetensors")
        with adapter.merged(models.unet, models.text_encoder, 1.0):
            torch.testing.assert_close(models.unet(*inputs).sample, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(expected, plain, atol=1e-3)


@pytest.mark.parametrize(
    ("suffix", "said"),
    [
        ("dora_scale", "a DoRA"),
        ("lokr_w1", "a LoKr"),
        ("diff", "full difference"),
        ("surprise", "not read"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, suffix: str, said: str) -> None:
    key = "lora_unet_mid_block_attentions_0_proj_in"
    save_file(
        {
            f"{key}.lora_up.weight": torch.zeros(32, 2, 1, 1),
            f"{key}.lora_down.weight": torch.zeros(2, 32, 1, 1),
            f"{key}.{suffix}": torch.zeros(2),
        },
        tmp_path / "a.safetensors",
    )
    with pytest.raises(InputError, match=said):
        AdapterFile.read(tmp_path / "a.safetensors")


def test_peft_names_are_read_and_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    key = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    up, down = torch.randn(32, 2), torch.randn(2, 32)
    save_file({f"{key}.lora_B.weight": up, f"{key}.lora_A.weight": down}, path)
    models = tiny_models()
    module = models.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q
    before = module.weight.clone()
    with AdapterFile.read(path).merged(models.unet, models.text_encoder, 2.0):
        torch.testing.assert_close(module.weight, before + 2 * up @ down)  # without alpha: scale 1
    save_file({f"{key}.lora_B.weight": up[:16], f"{key}.lora_A.weight": down}, path)
    with pytest.raises(InputError, match="for another model"):
        AdapterFile.read(path).pairs(models.unet, models.text_encoder)
