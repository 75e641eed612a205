import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.errors import HubError, InputError
from tests.trainers.conftest import TinyFiles
from tests.trainers.tiny_models import tiny_models, tiny_tokenizer
from trainers.layers import find_text_encoder_layers, find_unet_layers
from trainers.models import Models, inspect_base, load_models, save_diffusers, save_single_file
from trainers.sd1_shapes import CONFIG_KEY, TOKENIZER_KEY

made = cache(tiny_models)  # only looked at


def same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def outputs(models: Models) -> list[Tensor]:
    """What all three networks make of fixed inputs: so heads, groups and activations count."""
    ids = models.tokenizer(["girl, cat"])[:, 0]
    with torch.no_grad():
        states = models.text_encoder(ids).last_hidden_state
        pixels = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)
        latents = models.vae.encode(pixels).latent_dist.mean
        return [states, latents, models.unet(latents, 7, states).sample, models.vae.decode(latents).sample]


def rewrite(
    source: Path, target: Path, change: Callable[[dict[str, Tensor]], Any], *, keep_metadata: bool = True
) -> Path:
    tensors = load_file(source)
    change(tensors)
    with safe_open(source, "pt") as file:
        metadata = file.metadata() if keep_metadata else None
    save_file(tensors, target, metadata)
    return target


@pytest.mark.parametrize("kind", ["diffusers", "single_file"])
def test_a_saved_model_comes_back_whole(tiny_files: Any, kind: str) -> None:
    expected_models, read = made(), load_models(str(getattr(tiny_files, kind)))
    assert same(read.unet, expected_models.unet)
    assert same(read.vae, expected_models.vae)
    assert same(read.text_encoder, expected_models.text_encoder)
    for ours, expected in zip(outputs(read), outputs(expected_models), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)
    assert read.diffusion == expected_models.diffusion
    facts = (
        read.latent_factor,
        read.latent_channels,
        read.scaling_factor,
        read.max_text_tokens,
        read.sample_size_px,
    )
    assert facts == (4, 4, 0.25, 16, 32)
    assert not any(module.training for module in (read.unet, read.text_encoder, read.vae))
    parameters = [one for module in (read.unet, read.text_encoder, read.vae) for one in module.parameters()]
    assert {(one.dtype, one.device.type, one.requires_grad) for one in parameters} == {
        (torch.float32, "cpu", True)
    }


def test_loading_draws_no_random_numbers(tiny_files: Any) -> None:
    before = torch.get_rng_state()
    load_models(str(tiny_files.single_file))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_vae_has_one_identity_whatever_file_it_came_in(tiny_files: Any, tmp_path: Path) -> None:
    folder, file = (load_models(str(one)).source for one in (tiny_files.diffusers, tiny_files.single_file))
    assert folder.vae_sha256 == file.vae_sha256
    assert folder.sha256 != file.sha256
    assert (folder.name, file.name) == ("tiny", "tiny.safetensors")

    def brighter(tensors: dict[str, Tensor]) -> None:
        tensors["first_stage_model.decoder.conv_out.bias"] += 1

    other = load_models(str(rewrite(tiny_files.single_file, tmp_path / "b.safetensors", brighter))).source
    assert other.vae_sha256 != file.vae_sha256


def test_a_single_file_has_the_same_bytes_each_time(tiny_files: Any, tmp_path: Path) -> None:
    again = load_models(str(tiny_files.diffusers))
    hashes = save_single_file(again, tmp_path / "again.safetensors", torch.float32, {})
    assert (tmp_path / "again.safetensors").read_bytes() == tiny_files.single_file.read_bytes()
    assert hashes.sha256 == load_models(str(tiny_files.single_file)).source.sha256


def test_files_of_half_precision_are_loaded_in_fp32(tmp_path: Path) -> None:
    models = tiny_models()
    save_single_file(models, tmp_path / "half.safetensors", torch.float16, {"modelspec.title": "one"})
    save_diffusers(models, tmp_path / "half", torch.float16, {})
    for place in ("half.safetensors", "half"):
        assert inspect_base(str(tmp_path / place)).dtype == torch.float16
        read = load_models(str(tmp_path / place))
        expected = models.unet.conv_in.weight.half().float()
        assert torch.equal(read.unet.conv_in.weight, expected)
    with safe_open(tmp_path / "half.safetensors", "pt") as file:
        assert file.metadata()["modelspec.title"] == "one"
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118


def test_a_folder_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models()
    monkeypatch.setattr(type(models.tokenizer), "files", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_diffusers(models, tmp_path / "a", torch.float32, {})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="is there already"):
        save_diffusers(models, tmp_path / "a", torch.float32, {})


# diffusers as the judge


@pytest.mark.filterwarnings("ignore")
def test_diffusers_reads_our_folder(tiny_files: Any) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_files.diffusers)
    assert same(pipeline.unet, made().unet)
    assert same(pipeline.vae, made().vae)
    assert same(pipeline.text_encoder, made().text_encoder)
    assert pipeline.scheduler.config["beta_end"] == 0.02
    ids = pipeline.tokenizer(["girl"], padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(ids, made().tokenizer(["girl"])[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", ["unet", "vae"])
def test_diffusers_reads_our_single_file(tiny_files: Any, part: str) -> None:
    kind = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part]
    read = kind.from_single_file(tiny_files.single_file, config=str(tiny_files.diffusers), subfolder=part)
    assert same(read, getattr(made(), part))


@pytest.mark.filterwarnings("ignore")
def test_diffusers_reads_the_text_encoder_of_our_single_file(tiny_files: Any) -> None:
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
    from transformers import CLIPTextModel

    read = create_diffusers_clip_model_from_ldm(
        CLIPTextModel,
        load_file(tiny_files.single_file),
        config=str(tiny_files.diffusers),
        subfolder="text_encoder",
    )
    assert same(read, made().text_encoder)


def test_the_sizes_of_sd15_are_told_from_its_file_alone(tmp_path: Path) -> None:
    """On the meta device: nothing of ours is left to be said in the metadata."""
    from trainers import ldm_keys, sd1
    from trainers.sd1_shapes import sd1_configs, text_encoder_config, unet_config, vae_config

    configs = sd1_configs()
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(configs["unet"])
        vae = AutoencoderKL.from_config(configs["vae"])
        text_encoder = sd1.CLIPTextModel(sd1.CLIPTextConfig.from_dict(configs["text_encoder"]))
    tensors = sd1.single_file_tensors(unet, text_encoder, vae)
    assert len(tensors) == 1130  # of the file of Stability's release, less schedules and positions
    assert unet_config(ldm_keys.under(tensors, ldm_keys.UNET)) == (configs["unet"], [])
    assert vae_config(ldm_keys.under(tensors, ldm_keys.VAE)) == (configs["vae"], [])
    texts = ldm_keys.canonical_text_encoder(text_encoder.state_dict())
    assert text_encoder_config(texts) == (configs["text_encoder"], [])
    real = {
        "unet": unet.config,
        "vae": vae.config,
        "text_encoder": text_encoder.config.to_dict(),
        "scheduler": configs["scheduler"],
    }
    assert sd1.single_file_metadata(tensors, real, sd1.Tokenizer.bundled(77)) == {}


# What people have


def test_a_ckpt_is_read_without_running_anything(tiny_files: Any, tmp_path: Path) -> None:
    tensors = load_file(tiny_files.single_file)
    del tensors["first_stage_model.quant_conv.bias"]
    torch.save({"state_dict": tensors, "global_step": 7}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="vocabulary of 64 tokens"):  # a pickle has no metadata
        load_models(str(tmp_path / "a.ckpt"))

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"state_dict": tensors.keys().__len__(), "x": Code()}))
    torch.save({"state_dict": {}, "x": Code()}, tmp_path / "evil2.ckpt")
    for name in ("evil.ckpt", "evil2.ckpt"):
        with pytest.raises(InputError, match="never runs what a file brings") as caught:
            load_models(str(tmp_path / name))
        assert "safetensors" in caught.value.hint
    assert not (tmp_path / "ran").exists()


def test_other_weights_in_a_file_are_passed_over_and_ema_is_named(
    tiny_files: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def old_fashioned(tensors: dict[str, Tensor]) -> None:
        tensors["model_ema.decay"] = torch.tensor(0.99)
        tensors["model_ema.diffusion_modelinput_blocks00weight"] = torch.zeros(1)
        tensors["betas"] = torch.linspace(0.001**0.5, 0.03**0.5, 50).square()
        tensors["first_stage_model.loss.logvar"] = torch.zeros(1)
        tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(16)[None]
        for name in [one for one in tensors if one.startswith("cond_stage_model.transformer.text_model.")]:
            tensors[name.replace("text_model.", "")] = tensors.pop(name)  # flat, as some mergers write

    path = rewrite(tiny_files.single_file, tmp_path / "old.safetensors", old_fashioned)
    models = load_models(str(path))
    assert same(models.unet, made().unet)
    assert same(models.text_encoder, made().text_encoder)
    assert "EMA" in caplog.text


def test_the_schedule_is_read_from_the_file_that_has_it(tiny_files: Any, tmp_path: Path) -> None:
    def with_betas(tensors: dict[str, Tensor]) -> None:
        tensors["betas"] = torch.linspace(0.001**0.5, 0.03**0.5, 50).square()

    path = rewrite(tiny_files.single_file, tmp_path / "a.safetensors", with_betas)
    with safe_open(path, "pt") as file:
        metadata = {**file.metadata(), CONFIG_KEY: file.metadata()[CONFIG_KEY].replace('"scheduler"', '"_"')}
    save_file(load_file(path), path, metadata)
    for read in (load_models, inspect_base):
        diffusion = getattr(read(str(path)), "models", read(str(path))).diffusion
        assert (diffusion.num_train_timesteps, diffusion.beta_start, diffusion.beta_end) == (50, 0.001, 0.03)
        assert diffusion.prediction_type == "epsilon"
    (tmp_path / "a.yaml").write_text("model: {params: {parameterization: v, linear_end: 0.02}}")
    diffusion = load_models(str(path)).diffusion
    assert (diffusion.prediction_type, diffusion.beta_end) == ("v_prediction", 0.02)


def test_v_prediction_is_kept_in_either_form(tmp_path: Path) -> None:
    models = tiny_models()
    models.diffusion = replace(models.diffusion, prediction_type="v_prediction", is_zero_terminal_snr=True)
    save_single_file(models, tmp_path / "v.safetensors", torch.float32, {})
    save_diffusers(models, tmp_path / "v", torch.float32, {})
    assert load_file(tmp_path / "v.safetensors")["v_pred"].numel() == 0  # what ComfyUI and Forge look for
    for name in ("v", "v.safetensors"):
        assert load_models(str(tmp_path / name)).diffusion == models.diffusion


def test_what_shapes_do_not_tell_is_said_aloud(
    tiny_files: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of another trainer: no word of ours in its metadata."""
    with safe_open(tiny_files.single_file, "pt") as file:
        vocabulary = {TOKENIZER_KEY: file.metadata()[TOKENIZER_KEY]}
    save_file(load_file(tiny_files.single_file), tmp_path / "a.safetensors", vocabulary)
    models = load_models(str(tmp_path / "a.safetensors"))
    assert same(models.unet, made().unet)
    assert models.unet.config["attention_head_dim"] == 8
    assert "attention heads its UNet has: 8" in caplog.text
    assert models.scaling_factor == 0.18215


def test_another_vae_is_taken_from_a_file_or_a_folder(tiny_files: Any, tmp_path: Path) -> None:
    other = tiny_models(seed=50)
    save_single_file(other, tmp_path / "other.safetensors", torch.float32, {})
    save_diffusers(other, tmp_path / "other", torch.float32, {})
    bare = {
        name.removeprefix("first_stage_model."): one
        for name, one in load_file(tmp_path / "other.safetensors").items()
        if name.startswith("first_stage_model.")
    }
    save_file(bare, tmp_path / "vae.safetensors")
    shutil.copytree(tmp_path / "other" / "vae", tmp_path / "vae")
    inside = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    for place in (tmp_path / "other", tmp_path / "vae", inside, tmp_path / "vae.safetensors"):
        models = load_models(str(tiny_files.single_file), vae=str(place))
        assert same(models.vae, other.vae)
        assert same(models.unet, made().unet)


def test_parts_that_are_missing_are_named(tiny_files: Any, tmp_path: Path) -> None:
    def without(beginning: str) -> Callable[[dict[str, Tensor]], None]:
        def change(tensors: dict[str, Tensor]) -> None:
            for name in [one for one in tensors if one.startswith(beginning)]:
                del tensors[name]

        return change

    no_vae = rewrite(tiny_files.single_file, tmp_path / "a.safetensors", without("first_stage_model."))
    with pytest.raises(InputError, match="has no VAE") as caught:
        load_models(str(no_vae))
    assert "--vae" in caught.value.hint
    assert same(load_models(str(no_vae), vae=str(tiny_files.diffusers)).vae, made().vae)
    no_text = rewrite(tiny_files.single_file, tmp_path / "b.safetensors", without("cond_stage_model."))
    with pytest.raises(InputError, match="has no text encoder"):
        load_models(str(no_text))
    no_norm = without("model.diffusion_model.out.0.bias")
    with pytest.raises(InputError, match=r"lacks conv_norm_out\.bias"):
        load_models(str(rewrite(tiny_files.single_file, tmp_path / "c.safetensors", no_norm)))
    folder = shutil.copytree(tiny_files.diffusers, tmp_path / "folder")
    (folder / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="text_encoder has no weights"):
        inspect_base(str(folder))


WRONG: list[tuple[str, dict[str, tuple[int, ...]]]] = [
    ("Stable Diffusion XL", {"conditioner.embedders.0.transformer.x": (1,)}),
    ("Stable Diffusion 2.x", {"cond_stage_model.model.ln_final.weight": (1,)}),
    ("adapter", {"lora_unet_conv_in.lora_up.weight": (1, 1)}),
    ("adapter", {"lora_unet_conv_in.hada_w1_a": (1, 1)}),
    (
        "inpainting model",
        {
            "model.diffusion_model.input_blocks.0.0.weight": (8, 9, 3, 3),
            "model.diffusion_model.out.2.weight": (4, 8, 3, 3),
        },
    ),
    ("VAE alone", {"encoder.conv_in.weight": (1,)}),
    ("one part of a diffusers model", {"conv_in.weight": (1,), "down_blocks.0.x": (1,)}),
    ("text encoder alone", {"text_model.final_layer_norm.weight": (1,)}),
    ("SD3, Flux or later", {"model.diffusion_model.joint_blocks.0.x": (1,)}),
    ("it has no UNet", {"x": (1,)}),
]


@pytest.mark.parametrize(("word", "shapes"), WRONG, ids=[one[0] for one in WRONG])
def test_the_wrong_kind_of_file_is_named(
    word: str, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "a.safetensors")
    for read in (load_models, inspect_base):
        with pytest.raises(InputError, match=word) as caught:
            read(str(tmp_path / "a.safetensors"))
        assert caught.value.hint


@pytest.mark.parametrize(
    ("word", "file", "change"),
    [
        ("Stable Diffusion XL", "model_index.json", {"_class_name": "StableDiffusionXLPipeline"}),
        ("Stable Diffusion 2.x", "unet/config.json", {"use_linear_projection": True}),
        ("inpainting", "unet/config.json", {"in_channels": 9}),
        ("predicts 'sample'", "scheduler/scheduler_config.json", {"prediction_type": "sample"}),
        ("wants 24 numbers a token", "unet/config.json", {"cross_attention_dim": 24}),
        ("should be", "vae/config.json", {"in_channels": 1}),
    ],
)
def test_the_wrong_kind_of_folder_is_named(
    word: str, file: str, change: dict[str, Any], tiny_files: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_files.diffusers, tmp_path / "a")
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError, match=word):
        inspect_base(str(folder))


def test_bad_paths_say_what_to_give(tiny_files: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no model"):
        load_models(str(tmp_path / "none.safetensors"))
    (tmp_path / "short.safetensors").write_bytes(tiny_files.single_file.read_bytes()[:5000])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_models(str(tmp_path / "short.safetensors"))
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(InputError, match=r"text\.ckpt"):
        load_models(str(tmp_path / "text.ckpt"))
    with pytest.raises(InputError, match="not a diffusers model") as caught:
        load_models(str(tmp_path))
    assert "short.safetensors" in caught.value.hint


def test_a_model_of_the_hub_is_found_without_a_network(
    tiny_files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files as huggingface_hub keeps them; the network would fail."""
    from trainers import model_files

    asked: list[str] = []

    def fetch(file: Any, ledger: Any) -> Path:
        asked.append(f"{file.repo}@{file.revision}/{file.path}")
        assert file.instead == "give a .safetensors file or a diffusers folder on this disk"
        path = tiny_files.diffusers / file.path
        if not path.is_file():
            raise HubError("missing")
        return Path(path)

    monkeypatch.setattr(model_files, "fetch", fetch)
    models = load_models("somebody/tiny@abc", state_folder=tmp_path)
    assert same(models.unet, made().unet)
    assert models.source.name == "somebody/tiny@abc"
    assert "somebody/tiny@abc/unet/diffusion_pytorch_model.safetensors" in asked
    monkeypatch.setattr(model_files, "fetch", lambda file, _: fetch_vae(file))

    def fetch_vae(file: Any) -> Path:
        path = tiny_files.diffusers / "vae" / file.path
        if not path.is_file():
            raise HubError(f"no {file.path}")
        return Path(path)

    alone = load_models(str(tiny_files.diffusers), vae="somebody/vae", state_folder=tmp_path)
    assert same(alone.vae, made().vae)
    with pytest.raises(HubError, match=r"no unet/config\.json"):
        load_models("somebody/vae", state_folder=tmp_path)
    with pytest.raises(HubError):
        monkeypatch.setattr(model_files, "fetch", lambda *_: (_ for _ in ()).throw(HubError("no network")))
        load_models("somebody/other", state_folder=tmp_path)


def test_a_base_is_inspected_without_its_weights(tiny_files: Any) -> None:
    for place in (tiny_files.diffusers, tiny_files.single_file):
        facts = inspect_base(str(place))
        assert {one.device.type for one in facts.models.unet.parameters()} == {"meta"}
        assert facts.num_parameters["unet"] == sum(one.numel() for one in made().unet.parameters())
        assert facts.size_bytes == sum(path.stat().st_size for path, _ in facts.files)
        assert (facts.models.latent_factor, facts.models.max_text_tokens) == (4, 16)
        assert find_unet_layers(facts.models.unet)
        assert len(find_text_encoder_layers(facts.models.text_encoder)) == 18


def test_more_tokens_than_the_text_encoder_knows_are_refused(tiny_files: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_files.diffusers, tmp_path / "a")
    vocabulary = json.loads(tiny_tokenizer().files()["vocab.json"])
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({**vocabulary, "xx</w>": 64}))
    with pytest.raises(InputError, match="has 65 tokens"):
        inspect_base(str(folder))


def test_no_file_says_where_its_parts_were_read(tmp_path: Path, tiny_files: TinyFiles) -> None:
    models = load_models(str(tiny_files.diffusers))
    models.vae = AutoencoderKL.from_pretrained(tiny_files.diffusers / "vae")  # remembers the folder
    assert models.vae.config["_name_or_path"]
    save_diffusers(models, tmp_path / "folder", torch.float16, {})
    save_single_file(models, tmp_path / "one.safetensors", torch.float16, {})
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path.name for path in written if str(tiny_files.diffusers).encode() in path.read_bytes()]
