import copy
import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from pipeline.errors import InputError, SettingsError
from tests.trainers.tiny_models import tiny_text_encoder, tiny_unet
from trainers.adapters import loha
from trainers.adapters.foreign_names import kohya_key
from trainers.adapters.network import AdapterNetwork, AdapterSpec, attach, file_metadata
from trainers.adapters.paths import Shape
from trainers.compiling import BLOCKS, compiled
from trainers.export import write_safetensors
from trainers.layers import find_text_encoder_layers, find_unet_layers, text_encoder_paths, unet_paths
from trainers.learning_rates import adapter_groups

LOHA = AdapterSpec("loha", linear_dim=3, linear_alpha=1, conv_dim=2, conv_alpha=1, init="lycoris-0.1")
LOCON = AdapterSpec("locon", linear_dim=4, linear_alpha=1, conv_dim=2, conv_alpha=2)
LORA = AdapterSpec("lora", linear_dim=4, linear_alpha=1, conv_dim=0, conv_alpha=0, targets="attention")
SPECS = pytest.mark.parametrize("spec", [LOHA, LOCON, LORA], ids=["loha", "locon", "lora"])


def stir(network: AdapterNetwork, seed: int = 5) -> None:
    """Factors that change something."""
    generator = torch.Generator().manual_seed(seed)
    for one in network.factors.values():
        one.flat.data.copy_(torch.randn(one.flat.shape, generator=generator) * 0.1)


def run_unet(unet: Callable[..., Any]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    states = torch.randn(2, 5, 16, generator=generator)
    return unet(latents, torch.tensor([3, 700]), encoder_hidden_states=states).sample  # type: ignore[no-any-return]


# The model card that started this: both adapters of SD1.5 are 15,115,614 numbers


@pytest.mark.parametrize(
    "spec",
    [
        AdapterSpec("loha", linear_dim=8, linear_alpha=1, conv_dim=4, conv_alpha=1),
        AdapterSpec("locon", linear_dim=16, linear_alpha=1, conv_dim=8, conv_alpha=1),
    ],
    ids=["loha", "locon"],
)
def test_the_adapters_of_sd15_have_the_size_of_the_model_card(spec: AdapterSpec) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
            )
        )
    network = attach(spec, unet, text_encoder)
    assert len([key for key in network.layers if key.startswith("lora_unet_")]) == 278
    assert len([key for key in network.layers if key.startswith("lora_te_")]) == 72
    assert network.num_trainable + len(network.layers) == 15_115_614  # with an alpha for each layer


def test_names_are_those_that_uis_know() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    keys = {layer.key for layer in find_unet_layers(unet, "full+")}
    assert {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj",
        "lora_unet_down_blocks_0_attentions_0_proj_in",
        "lora_unet_mid_block_resnets_1_conv1",
        "lora_unet_mid_block_resnets_1_time_emb_proj",
        "lora_unet_up_blocks_1_resnets_0_conv_shortcut",
        "lora_unet_down_blocks_0_downsamplers_0_conv",
        "lora_unet_up_blocks_2_upsamplers_0_conv",
        "lora_unet_conv_in",
        "lora_unet_time_embedding_linear_1",
    } <= keys
    counts = {targets: len(unet_paths(unet.config, targets)) for targets in ("attention", "full", "full+")}
    assert counts == {"attention": 192, "full": 278, "full+": 282}
    assert len(text_encoder_paths(12)) == 72


def test_the_text_encoder_has_the_same_names_nested_or_flat() -> None:
    """transformers 5.6 took `text_model.` out of the paths of its modules."""
    one = tiny_text_encoder()
    nested = nn.Module()
    nested.config = one.config  # type: ignore[assignment]
    nested.text_model = one.text_model if hasattr(one, "text_model") else one
    flat = one.text_model if hasattr(one, "text_model") else one
    flat.config = one.config
    assert [layer.key for layer in find_text_encoder_layers(nested)] == [
        layer.key for layer in find_text_encoder_layers(flat)
    ]
    assert find_text_encoder_layers(flat)[0].key == "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


@pytest.mark.parametrize("channels", [(16, 32, 32), (16, 16), (16, 32, 16, 16)])
def test_names_cover_unets_of_other_sizes(channels: tuple[int, ...]) -> None:
    unet = tiny_unet(channels=channels)
    found = {layer.path for layer in find_unet_layers(unet, "full+")}
    assert found == {name for name, one in unet.named_modules() if isinstance(one, nn.Linear | nn.Conv2d)}


def test_another_family_is_refused() -> None:
    unet = tiny_unet()
    unet.add_embedding = nn.Linear(2, 2)
    with pytest.raises(InputError, match="add_embedding"):
        find_unet_layers(unet)


# The mathematics, in fp64


def test_a_loha_is_a_lora_of_its_rank_squared() -> None:
    shape = Shape(7, 5, (3, 3), is_conv=True)
    torch.manual_seed(0)
    factors = {
        name: torch.randn(size, dtype=torch.float64) for name, size in loha.factor_shapes(shape, 3).items()
    }
    up, down = loha.low_rank(factors, 0.25)
    assert up.shape == (7, 9)
    assert down.shape == (9, 45)
    w1_a, w1_b, w2_a, w2_b = factors.values()
    torch.testing.assert_close(up @ down, (w1_a @ w1_b) * (w2_a @ w2_b) * 0.25)


# Over a whole model


@SPECS
def test_a_new_adapter_changes_nothing_and_restore_gives_the_model_back(spec: AdapterSpec) -> None:
    unet, text_encoder = tiny_unet(), tiny_text_encoder()
    before, modules = run_unet(unet), dict(unet.named_modules())
    network = attach(spec, unet, text_encoder)
    torch.testing.assert_close(run_unet(unet), before, rtol=0, atol=0)
    stir(network)
    assert not torch.allclose(run_unet(unet), before)
    network.set_multiplier(0.0)
    torch.testing.assert_close(run_unet(unet), before)
    network.restore()
    assert dict(unet.named_modules()) == modules


@SPECS
def test_adding_every_delta_to_the_weights_gives_the_same_model(spec: AdapterSpec) -> None:
    unet, text_encoder = tiny_unet(), tiny_text_encoder()
    merged = copy.deepcopy(unet)
    network = attach(spec, unet, text_encoder)
    stir(network)
    for layer in find_unet_layers(merged, spec.targets):
        if layer.key in network.layers:
            layer.module.weight.data += network.layers[layer.key].delta()
    torch.testing.assert_close(run_unet(unet), run_unet(merged), rtol=1e-4, atol=1e-5)


def test_gradients_of_all_layers_lie_in_one_tensor_and_an_optimizer_moves_all_of_them() -> None:
    unet = tiny_unet()
    network = attach(LOHA, unet, tiny_text_encoder())
    stir(network)
    run_unet(unet).square().mean().backward()
    flat = network.factors["unet"].flat
    assert flat.grad is not None
    parts = [
        factor.grad for key, one in network.layers.items() if "unet" in key for factor in one.factors.values()
    ]
    parts.sort(key=lambda part: part.storage_offset())  # layers of equal sizes lie side by side
    assert torch.equal(flat.grad, torch.cat([part.flatten() for part in parts]))
    assert (flat.grad != 0).float().mean() > 0.99
    before = [layer.delta() for layer in network.layers.values() if "unet" in layer.layer_key]
    torch.optim.AdamW(adapter_groups(network, {"unet": 1e-2, "text_encoder": 1e-2}, by_matrix=False)).step()
    after = [layer.delta() for layer in network.layers.values() if "unet" in layer.layer_key]
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    network.zero_grad()
    assert not flat.grad.any()


def test_factors_begin_as_a_function_of_seed_and_key() -> None:
    def begin(spec: AdapterSpec, seed: int) -> dict[str, Tensor]:
        return attach(spec, tiny_unet(), tiny_text_encoder(), seed=seed).file_tensors(torch.float32)

    one, again, other = begin(LOCON, 1), begin(LOCON, 1), begin(LOCON, 2)
    key = "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"
    assert torch.equal(one[key], again[key])
    assert not torch.equal(one[key], other[key])
    assert torch.equal(one[key], begin(LORA, 1)[key])  # whatever else is adapted


def test_lohas_of_2023_begin_ten_times_quieter() -> None:
    """First step of Adam: w2_a moves by the learning rate, so the delta is in proportion to the other three."""
    generator = torch.Generator().manual_seed(0)
    shape = Shape(64, 64, (1, 1), is_conv=False)
    sizes = {}
    for init in loha.INITS:
        factors = {name: torch.empty(size) for name, size in loha.factor_shapes(shape, 8).items()}
        loha.initialise(factors, init, generator)
        assert not factors["w2_a"].any()
        factors["w2_a"] += 2e-4
        sizes[init] = float(loha.delta(factors, 1 / 8).std())
    assert sizes["lycoris"] / sizes["lycoris-0.1"] == pytest.approx(10, rel=0.3)


def test_an_unknown_init_names_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        attach(AdapterSpec("loha", 2, 1, 2, 1, init="lycoris0.1"), tiny_unet(), tiny_text_encoder())
    assert "lycoris-0.1" in caught.value.hint


# Files


@SPECS
def test_a_file_read_back_gives_the_same_model(spec: AdapterSpec, tmp_path: Path) -> None:
    unet = tiny_unet()
    network = attach(spec, unet, tiny_text_encoder())
    stir(network)
    path = tmp_path / "a.safetensors"
    write_safetensors(path, network.file_tensors(torch.float32), dict(file_metadata(spec)))
    other = tiny_unet()
    attach(spec, other, tiny_text_encoder(), seed=9).load(load_file(path))
    torch.testing.assert_close(run_unet(other), run_unet(unet), rtol=0, atol=0)


def test_a_file_is_loaded_whole_or_not_at_all(tmp_path: Path) -> None:
    network = attach(LOCON, tiny_unet(), tiny_text_encoder())
    whole = network.file_tensors()
    part = {key: tensor for key, tensor in whole.items() if "mid_block" not in key}
    with pytest.raises(InputError, match="missing in the file"):
        network.load(part)
    with pytest.raises(InputError, match="have no place"):
        network.load({**whole, "lora_unet_strange.alpha": torch.tensor(1.0)})
    other_rank = attach(AdapterSpec("locon", 5, 1, 2, 2), tiny_unet(), tiny_text_encoder()).file_tensors()
    with pytest.raises(InputError, match="in the file and"):
        network.load(other_rank)


# Independent truth


def saved_unet(spec: AdapterSpec, path: Path) -> Tensor:
    """Write the UNet's part of a stirred adapter, and give what the adapted UNet says."""
    unet = tiny_unet()
    network = attach(spec, unet, tiny_text_encoder())
    stir(network)
    tensors = {k: v for k, v in network.file_tensors(torch.float32).items() if k.startswith("lora_unet")}
    write_safetensors(path, tensors, dict(file_metadata(spec)))
    return run_unet(unet)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spec", [LOHA, LOCON], ids=["loha", "locon"])
def test_lycoris_reads_our_file_and_computes_the_same(
    spec: AdapterSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lycoris import kohya

    classes = kohya.LycorisNetworkKohya.UNET_TARGET_REPLACE_MODULE
    # release 4.1.3 names two layers twice, and refuses itself
    monkeypatch.setattr(
        kohya.LycorisNetworkKohya,
        "UNET_TARGET_REPLACE_MODULE",
        [one for one in classes if one != "TimestepEmbedding"],
    )
    expected = saved_unet(spec, tmp_path / "a.safetensors")
    theirs = tiny_unet()
    loaded, _ = kohya.create_network_from_weights(1.0, str(tmp_path / "a.safetensors"), None, [], theirs)
    loaded.apply_to(None, theirs, False, True)
    assert len(loaded.unet_loras) == len(find_unet_layers(tiny_unet()))
    torch.testing.assert_close(run_unet(theirs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spec", [LOCON, LORA], ids=["locon", "lora"])
def test_diffusers_reads_our_file_and_computes_the_same(spec: AdapterSpec, tmp_path: Path) -> None:
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader

    expected = saved_unet(spec, tmp_path / "a.safetensors")
    theirs = tiny_unet()
    state, alphas = Loader.lora_state_dict(str(tmp_path / "a.safetensors"), unet_config=theirs.config)
    Loader.load_lora_into_unet(state, network_alphas=alphas, unet=theirs)
    torch.testing.assert_close(run_unet(theirs), expected, rtol=1e-4, atol=1e-5)


# Kinds, sizes, names of others


def test_a_lora_is_that_of_networks_lora() -> None:
    unet = tiny_unet()
    network = attach(LORA, unet, tiny_text_encoder())
    of_unet = [key for key in network.layers if key.startswith("lora_unet")]
    assert of_unet
    assert all("_attentions_" in key for key in of_unet)
    with pytest.raises(SettingsError, match="attention blocks only"):
        attach(AdapterSpec("lora", 4, 1, 2, 1, targets="attention"), tiny_unet(), tiny_text_encoder())
    with pytest.raises(SettingsError, match="attention blocks only"):
        attach(AdapterSpec("lora", 4, 1, 0, 0, targets="full"), tiny_unet(), tiny_text_encoder())


@pytest.mark.parametrize(
    ("spec", "module", "args"),
    [
        (LORA, "networks.lora", {}),
        (LOCON, "networks.lora", {"conv_dim": "2", "conv_alpha": "2"}),
        (
            AdapterSpec("locon", 4, 1, 2, 2, targets="full+"),
            "lycoris.kohya",
            {"algo": "locon", "conv_dim": "2", "conv_alpha": "2"},
        ),
        (AdapterSpec("locon", 4, 1, 0, 0), "lycoris.kohya", {"algo": "locon"}),
        (LOHA, "lycoris.kohya", {"algo": "loha", "conv_dim": "2", "conv_alpha": "1"}),
    ],
)
def test_metadata_name_the_tool_that_knows_these_layers(
    spec: AdapterSpec, module: str, args: dict[str, str]
) -> None:
    found = dict(file_metadata(spec))
    assert found["ss_network_module"] == module
    assert json.loads(found["ss_network_args"]) == args


@SPECS
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_size_of_a_file_is_known_before_training(
    spec: AdapterSpec, dtype: torch.dtype, tmp_path: Path
) -> None:
    with torch.device("meta"):
        unet, text_encoder = tiny_unet(), tiny_text_encoder()
    predicted = attach(spec, unet, text_encoder).file_bytes(dtype, {"é": "猫", **dict(file_metadata(spec))})
    network = attach(spec, tiny_unet(), tiny_text_encoder())
    path = tmp_path / "a.safetensors"
    write_safetensors(path, network.file_tensors(dtype), {"é": "猫", **dict(file_metadata(spec))})
    assert path.stat().st_size == predicted


def test_names_of_other_tools_are_understood() -> None:
    attention = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    kohya = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1"
    query = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    cases = {
        f"{kohya}_to_q.lora_down.weight": f"{kohya}_to_q.lora_down.weight",
        f"unet.{attention}.to_q.lora_A.weight": f"{kohya}_to_q.lora_down.weight",
        f"base_model.model.unet.{attention}.to_out.0.lora_B.default.weight": f"{kohya}_to_out_0.lora_up.weight",
        f"unet.{attention}.to_q.lora.up.weight": f"{kohya}_to_q.lora_up.weight",
        f"unet.{attention}.to_q.alpha": f"{kohya}_to_q.alpha",
        f"unet.{attention}.processor.to_out_lora.down.weight": f"{kohya}_to_out_0.lora_down.weight",
        "lora_te_encoder_layers_0_self_attn_q_proj.hada_w1_a": f"{query}.hada_w1_a",
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight": f"{query}.lora_up.weight",
        "text_encoder.encoder.layers.0.self_attn.q_proj.lora_A.weight": f"{query}.lora_down.weight",
        "unet.strange": "unet.strange",
    }
    assert {theirs: kohya_key(theirs) for theirs in cases} == cases


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_diffusers_wrote_is_loaded_whole(tmp_path: Path) -> None:
    """A LoRA of PEFT's layers, saved by diffusers: a rank for all, alpha the rank, no `alpha` in the file."""
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    theirs, encoder = tiny_unet(), tiny_text_encoder()
    paths = unet_paths(theirs.config, "attention")
    theirs.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=paths, init_lora_weights=False))
    names = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    encoder.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=names, init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, get_peft_model_state_dict(theirs), get_peft_model_state_dict(encoder)
    )
    (path,) = tmp_path.glob("*.safetensors")
    ours = tiny_unet()
    attach(LORA, ours, tiny_text_encoder(), seed=3).load(load_file(path))
    torch.testing.assert_close(run_unet(ours), run_unet(theirs), rtol=1e-4, atol=1e-5)


# Compiled


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
def test_compiled_blocks_of_a_shape_share_a_graph_for_all_steps_and_multipliers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "handlers", [])  # it writes a log of each guard
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend, fullgraph=True))
    unet, other = tiny_unet(channels=(8,)), tiny_unet(channels=(8,))
    other.load_state_dict(unet.state_dict())
    networks = [attach(AdapterSpec("loha", 1, 1, 1, 1), one, tiny_text_encoder()) for one in (unet, other)]
    compiled_unet = compiled(unet)
    assert set(unet.state_dict()) == set(other.state_dict())
    num_graphs = []
    for seed, multiplier in enumerate((1.0, 1.0, 0.5)):
        outcomes = []
        for model, network in ((compiled_unet, networks[0]), (other, networks[1])):
            stir(network, seed)
            network.set_multiplier(multiplier)
            network.zero_grad()
            output = run_unet(model)
            output.square().mean().backward()  # type: ignore[no-untyped-call]
            outcomes.append((output, network.factors["unet"].flat.grad))
        torch.testing.assert_close(*outcomes)
        num_graphs.append(len(graphs))
    num_blocks = sum(type(one).__name__ in BLOCKS for one in unet.modules())
    assert num_graphs[0] < num_blocks
    assert num_graphs == [num_graphs[0]] * 3
    torch._dynamo.reset()
