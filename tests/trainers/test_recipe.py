"""Recipes of kohya's scripts and EveryDream2, in and out."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.settings import options_of
from tests.conftest import Celforge
from trainers.recipe_everydream import OFF_AT_ZERO, import_everydream
from trainers.recipe_everydream import SAME as EVERYDREAM_SAME
from trainers.recipe_everydream_export import export_everydream
from trainers.recipe_kohya import import_kohya
from trainers.recipe_kohya_export import as_command, as_config, export_kohya
from trainers.recipe_kohya_options import (
    ADAPTER_DEFAULTS,
    DEFAULTS,
    NOT_NEEDED,
    SAME,
    SAME_ARGS,
    WITHOUT_EQUAL,
)
from trainers.recipe_notes import Recipe
from trainers.recipe_text import CommandLine, read_command, read_config
from trainers.train_settings import Settings, resolve_train

SHELL = r"""#!/bin/bash
# accelerate launch old.py --not-this
export DATA="/anime/kohya set"
BASE=/models/anime.safetensors

accelerate launch --mixed_precision fp16 --num_processes=1 train_network.py \
  --pretrained_model_name_or_path="$BASE" --train_data_dir "${DATA}" --resolution 512 --enable_bucket \
  --caption_extension .txt --shuffle_caption --keep_tokens 1 --train_batch_size 8 --max_train_steps 20000 \
  --learning_rate 2e-4 --text_encoder_lr 1e-4 --lr_scheduler cosine --lr_warmup_steps 0.05 \
  --optimizer_type AdamW8bit --optimizer_args weight_decay=0.1 "betas=(0.9, 0.99)" \
  --network_module lycoris.kohya --network_dim 8 --network_alpha 1 \
  --network_args algo=loha conv_dim=4 conv_alpha=2 --clip_skip 2 --save_precision fp16 --seed 42 \
  --save_every_n_steps 1000 --save_last_n_steps 3000 --flip_aug --output_name sabine
"""
ENTRY = {
    "kind": "loha",
    "name": "sabine",
    "data": "/anime/kohya set",
    "base": "/models/anime.safetensors",
    "seed": 42,
    "batch_size": 8,
    "clip_skip": 2,
    "layout": "kohya",
    "resolution_px": 512,
    "flip_p": 0.5,
    "caption_extension": ".txt",
    "keep_tokens": 1,
    "shuffle": True,
    "linear_dim": 8,
    "linear_alpha": 1.0,
    "conv_dim": 4,
    "conv_alpha": 2.0,
    "targets": "full+",
    "optimizer": "adamw8bit",
    "optimizer_arg": ["betas=(0.9, 0.99)"],
    "learning_rate": 2e-4,
    "text_encoder_learning_rate": 1e-4,
    "weight_decay": 0.1,
    "lr_schedule": "cosine",
    "warmup": 0.05,
    "precision": "fp16",
    "save_every": 1000,
    "keep_last": 3,
    "save_precision": "fp16",
    "steps": 20000,
    "crop": "centre",
}


def imported(text: str) -> Recipe:
    return import_kohya(read_command(text, "train.sh"), Path())


def notes(recipe: Recipe, weight: str) -> set[str]:
    return {one.option for one in recipe.notes if one.weight == weight}


def plain(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in entry.items()}


def test_a_command_of_a_shell_becomes_an_entry() -> None:
    recipe = imported(SHELL)
    entry = plain(recipe.entry())
    assert entry.items() >= ENTRY.items()
    assert entry["buckets"] is True
    assert notes(recipe, "no equal") == set()
    assert notes(recipe, "not needed") == {"num_processes"}


def test_names_of_settings_in_the_tables_are_settings() -> None:
    known = {one.name for one in options_of(Settings)}
    tables = (SAME, SAME_ARGS, EVERYDREAM_SAME, OFF_AT_ZERO)
    assert {ours for table in tables for ours in table.values()} <= known
    assert {*DEFAULTS, *ADAPTER_DEFAULTS} <= known


def test_a_recipe_of_presets_exports_nothing_that_kohya_would_do_anyway() -> None:
    settings = resolve_train({"kind": "loha", "base": "a.safetensors"}, None, {})[0].settings
    _, options, _ = export_kohya(settings)
    assert not {name for name in options if name.startswith(("huber", "multires", "zero", "loss", "prior"))}
    assert all("loraplus" not in one for one in options["network_args"])


def test_cmd_and_powershell_say_the_same() -> None:
    body = SHELL.split("\n", 5)[5]
    batch = 'set DATA=/anime/kohya set\nset "BASE=/models/anime.safetensors"\n' + (
        body.replace("\\\n", "^\r\n").replace("$BASE", "%BASE%").replace("${DATA}", "%DATA%")
    )
    power = '$DATA = "/anime/kohya set"\n$BASE = "/models/anime.safetensors"\n' + body.replace("\\\n", "`\n")
    assert imported(batch).entry() == imported(power).entry() == imported(SHELL).entry()


def test_paths_of_windows_keep_their_backslashes() -> None:
    recipe = imported(
        r'python train_network.py --vae "C:\my models\new.safetensors" --train_data_dir C:\data'
    )
    assert recipe.values["vae"] == r"C:\my models\new.safetensors"
    assert recipe.values["data"] == r"C:\data"


def test_a_config_file_counts_below_the_command(tmp_path: Path) -> None:
    config = '[any]\nnetwork_dim = 32\nseed = 7\n[other]\nnetwork_args = ["algo=locon", "conv_dim=16"]\n'
    (tmp_path / "config.toml").write_text(config)
    line = "train_network.py --config_file config --seed 8 --network_module lycoris.kohya"
    recipe = import_kohya(read_command(line, "x"), tmp_path)
    assert recipe.entry().items() >= {"kind": "locon", "linear_dim": 32, "conv_dim": 16, "seed": 8}.items()
    with pytest.raises(InputError, match="which is not here"):
        import_kohya(read_command(line, "x"), tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--network_module networks.lora --network_dim 16", {"kind": "lora", "targets": "attention"}),
        (
            "--network_module networks.lora --network_dim 16 --network_args conv_dim=8",
            {"kind": "locon", "targets": "full", "conv_dim": 8, "linear_dim": 16},
        ),
        # LyCORIS takes the linear rank and alpha where none is given for convolutions
        (
            "--network_module lycoris.kohya --network_dim 6 --network_alpha 3 --network_args algo=loha",
            {"kind": "loha", "conv_dim": 6, "conv_alpha": 3.0, "targets": "full+"},
        ),
        ("--network_module networks.lora --text_encoder_lr 0", {"train": "unet"}),
        ("--pretrained_model_name_or_path a", {"kind": "full", "train": "both"}),
        ("train_db.py --stop_text_encoder_training -1", {"kind": "full", "train": "unet"}),
        ("fine_tune.py --learning_rate 1e-6", {"kind": "full", "train": "unet"}),
        ("fine_tune.py --train_text_encoder --learning_rate_te 2e-6", {"text_encoder_learning_rate": 2e-6}),
        ("train_db.py --max_train_epochs 3 --max_train_steps 9", {"epochs": 3.0}),
        (
            "train_db.py --zero_terminal_snr --v_parameterization",
            {"zero_terminal_snr": "on", "prediction": "v"},
        ),
        ("train_db.py --loss_type smooth_l1 --huber_c 0.2", {"loss": "smooth-l1", "huber_c": 0.2}),
        ("train_db.py --masked_loss --alpha_mask", {"masked_loss": "alpha"}),
        ("train_db.py --multires_noise_iterations 6", {"pyramid_noise": 6}),
        (
            "train_db.py --ip_noise_gamma 0.1 --ip_noise_gamma_random_strength",
            {"ip_noise_gamma": 0.1, "ip_noise_random": True},
        ),
        ("train_db.py --optimizer_type Prodigy --learning_rate 1", {"optimizer": "prodigy"}),
        # what kohya's scripts do where nothing is said
        (
            "--network_module networks.lora",
            {"batch_size": 1, "steps": 1600, "buckets": False, "linear_dim": 4, "precision": "fp32"},
        ),
    ],
)
def test_meanings_of_single_options(line: str, expected: dict[str, Any]) -> None:
    settings = resolve_train(imported(line).entry(), None, {})[0].settings
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("sdxl_train_network.py --seed 1", "sdxl_train_network.py trains something else"),
        ("--network_module lycoris.kohya --network_args algo=lokr", "lokr is not trained here"),
        ("echo hello", "holds no training command"),
        ("train_db.py --seed 1\ntrain_db.py --seed 2", "holds 2 commands"),
        ('train_db.py --vae "a', "cannot be read"),
    ],
)
def test_what_is_no_recipe_is_refused(line: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        imported(line)


@given(st.sets(st.sampled_from(sorted({*SAME, *NOT_NEEDED, *WITHOUT_EQUAL, "colour_aug", "new_thing"}))))
def test_no_option_is_dropped_in_silence(options: set[str]) -> None:
    """Each is a setting, or is named in a note."""
    told = dict.fromkeys(sorted(options - {"config_file", "network_module"}), "3")
    recipe = import_kohya(CommandLine("train_network.py", {}, dict(told)), Path())
    named = {one.option for one in recipe.notes}
    for name in told:
        setting = SAME.get(name, "")
        is_combined = name in ("lr_scheduler_num_cycles", "max_train_steps", "save_last_n_steps")
        assert name in named or setting in recipe.values or is_combined, name


# There and back

POSSIBLE: dict[str, st.SearchStrategy[Any]] = {
    "steps": st.integers(1, 10**6),
    "epochs": st.sampled_from([0.0, 2.0, 2.5]),
    "batch_size": st.integers(1, 64),
    "accumulation": st.integers(1, 4),
    "train": st.sampled_from(["both", "unet"]),
    "clip_skip": st.integers(1, 3),
    "learning_rate": st.floats(1e-7, 1),
    "unet_learning_rate": st.none() | st.floats(1e-7, 1),
    "text_encoder_learning_rate": st.none() | st.floats(1e-7, 1),
    "weight_decay": st.sampled_from([0.0, 0.01, 0.5]),
    "lr_schedule": st.sampled_from(["constant", "linear", "cosine"]),
    "warmup": st.sampled_from([0.0, 0.1, 50.0]),
    "decay_ratio": st.sampled_from([1.0, 1.5]),
    "max_grad_norm": st.sampled_from([0.0, 1.0, 2.0]),
    "optimizer": st.sampled_from(["adamw", "adamw8bit", "torch.optim.NAdam"]),
    "linear_dim": st.integers(1, 64),
    "linear_alpha": st.floats(0.5, 64),
    "conv_dim": st.integers(1, 16),
    "conv_alpha": st.sampled_from([1.0, 4.0]),
    "targets": st.sampled_from(["full", "full+"]),
    "seed": st.integers(0, 2**31),
    "resolution_px": st.integers(64, 1024),
    "buckets": st.booleans(),
    "crop": st.sampled_from(["face", "centre"]),
    "flip_p": st.sampled_from([0.0, 0.25, 0.5]),
    "shuffle": st.booleans(),
    "keep_tokens": st.integers(0, 3),
    "tag_dropout": st.sampled_from([0.0, 0.25]),
    "conditional_dropout": st.sampled_from([0.0, 0.08]),
    "caption_extension": st.sampled_from(["", ".txt"]),
    "caption_prefix": st.text("ab c'\"\\$", max_size=6).map(str.strip),
    "max_tokens": st.sampled_from([75, 150]),
    "precision": st.sampled_from(["auto", "fp32", "bf16", "fp16"]),
    "save_precision": st.sampled_from(["fp16", "bf16", "fp32"]),
    "save_every": st.sampled_from([0, 500]),
    "keep_last": st.sampled_from([0, 2]),
    "gradient_checkpointing": st.booleans(),
    "author": st.text("ab c", max_size=4).map(str.strip),
    "trigger_words": st.sampled_from([(), ("sabine",)]),
    "compile": st.booleans(),
}
KEPT = {
    "data",
    "base",
    "layout",
    "preset",
    "out",
    "sample_every",
    "sample_at_start",
    "vae_batch_size",
}  # paths


@st.composite
def recipes(draw: st.DrawFn, kinds: tuple[str, ...]) -> Settings:
    table = draw(st.fixed_dictionaries({}, optional=POSSIBLE))
    return resolve_train(table, None, {"kind": draw(st.sampled_from(kinds)), "base": "b"})[0].settings


def effective(settings: Settings) -> dict[str, Any]:
    """Values, with learning rates as they count and without those that do not."""
    values = {one.name: getattr(settings, one.name) for one in options_of(Settings) if one.name not in KEPT}
    both = values.pop("learning_rate")
    values["unet_learning_rate"] = (
        both if settings.unet_learning_rate is None else settings.unet_learning_rate
    )
    text = settings.text_encoder_learning_rate
    values["text_encoder_learning_rate"] = (both if text is None else text) if settings.train == "both" else 0
    unused = {
        "lora": ["conv_alpha", "conv_dim"],
        "full": ["linear_dim", "linear_alpha", "conv_dim", "conv_alpha"],
    }
    unused["full"] += ["targets", "init"]
    for name in [*unused.get(settings.kind, []), *(["init"] if settings.kind != "loha" else [])]:
        values.pop(name, None)
    if settings.lr_schedule == "constant":
        values.pop("decay_ratio")
    if settings.kind != "full":
        values.pop("save_as")
    if not settings.save_every:
        values.pop("keep_last")
    if settings.epochs:
        values.pop("steps")
    values["name"] = settings.run_name
    values["caption_extension"] = settings.caption_extension or ".txt"
    return values


def assert_told(before: Settings, after: Settings, told: set[str]) -> None:
    then, now = effective(before), effective(after)
    changed = {name for name in then if then[name] != now.get(name)}
    assert changed <= told, {name: (then[name], now.get(name)) for name in changed - told}


@hypothesis_settings(max_examples=20)
@given(recipes(("lora", "locon", "loha", "full")), st.sampled_from(["sh", "bat", "toml"]))
def test_kohya_and_back_changes_only_what_was_named(settings: Settings, form: str) -> None:
    script, options, exported = export_kohya(settings)
    if form == "toml":
        line = CommandLine(script, {}, read_config(as_config(options), "x"))
    elif form == "bat" and any(sign in settings.caption_prefix for sign in "\"'\\$"):
        return  # cmd has no quotes within quotes
    else:
        line = read_command(as_command(script, options, is_windows=form == "bat"), "x")
    entry = import_kohya(line, Path()).entry()
    after = resolve_train(entry, None, {})[0].settings
    assert_told(settings, after, {one.option for one in exported})


@hypothesis_settings(max_examples=20)
@given(recipes(("full",)))
def test_everydream_and_back_changes_only_what_was_named(settings: Settings) -> None:
    train, optimizer, exported = export_everydream(settings, None)
    recipe = import_everydream(train, Path("nowhere"))
    assert recipe.values["kind"] == "full"
    after = _with_optimizer(train, optimizer)
    told = {one.option for one in exported}
    if settings.lr_schedule != "constant" and not settings.warmup:
        told |= {"warmup"}  # null gives 2 % there
    told |= {"epochs"} if "steps" in told else set()
    assert_told(replace(settings, keep_tokens=max(1, settings.keep_tokens)), after, told)


def _with_optimizer(train: dict[str, Any], optimizer: dict[str, Any]) -> Settings:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "optimizer.json").write_text(json.dumps(optimizer))
        entry = import_everydream(train, Path(folder)).entry()
    return resolve_train(entry, None, {})[0].settings


# EveryDream2

TRAIN_JSON = {
    "resume_ckpt": "sd_v1-5",
    "data_root": "/anime/tree",
    "project_name": "anime",
    "batch_size": 8,
    "grad_accum": 1,
    "clip_skip": 0,
    "cond_dropout": 0.08,
    "lr": 2.5e-6,
    "lr_scheduler": "constant",
    "max_epochs": 53,
    "resolution": 512,
    "sample_steps": 2000,
    "seed": -1,
    "shuffle_tags": True,
    "save_every_n_epochs": 20,
    "flip_p": 0.5,
    "disable_textenc_training": False,
    "gradient_checkpointing": True,
    "wandb": False,
    "amp": True,
    "rated_dataset": False,
    "clip_grad_norm": None,
    "loss_type": "mse_huber",
    "new_key": 3,
}


def test_a_train_json_with_its_optimizer_json(tmp_path: Path) -> None:
    optimizer = {
        "base": {"optimizer": "adamw8bit", "lr": 1e-6, "lr_scheduler": "cosine", "betas": [0.9, 0.99]},
        "text_encoder_overrides": {"weight_decay": 0.1},
        "text_encoder_freezing": {"freeze_front_n_layers": -2},
    }
    (tmp_path / "optimizer.json").write_text(json.dumps(optimizer))
    recipe = import_everydream(TRAIN_JSON, tmp_path)
    expected = {
        "kind": "full",
        "name": "anime",
        "base": "sd_v1-5",
        "learning_rate": 2.5e-6,  # that of train.json counts before
        "lr_schedule": "cosine",  # that of optimizer.json counts before
        "decay_ratio": 1.5,
        "conditional_dropout": 0.08,
        "epochs": 53.0,
        "seed": 0,
        "max_grad_norm": 0.0,
        "optimizer_arg": ("betas=(0.9, 0.99)",),
        "precision": "fp16",
        "gradient_checkpointing": True,
    }
    assert recipe.entry().items() >= expected.items()
    named = notes(recipe, "no equal")
    assert {"save_every_n_epochs", "flip_p", "loss_type", "new_key"} <= named
    assert {
        "optimizer.json text_encoder_overrides weight_decay",
        "optimizer.json freeze_front_n_layers",
    } <= named
    assert {"seed"} <= notes(recipe, "differs")


def test_adapters_have_no_train_json() -> None:
    with pytest.raises(InputError, match="EveryDream2 trains no loha"):
        export_everydream(resolve_train({}, None, {"kind": "loha"})[0].settings, None)


# The command


def test_import_adds_an_entry_and_changes_nothing_else(celforge: Celforge, tmp_path: Path) -> None:
    script, config = tmp_path / "train.sh", tmp_path / "celforge.toml"
    script.write_text(SHELL)
    config.write_bytes(b"# mine\r\n[dedupe]\r\nthreshold_bits = 5\r\n")
    dry = celforge("recipe", "import", script, tmp_path, "--dry-run")
    assert dry.exit_code == 0, dry.stderr
    assert config.read_bytes().count(b"train") == 0
    answer = celforge("recipe", "import", script, tmp_path)
    assert answer.exit_code == 0, answer.stderr
    text = config.read_bytes()
    assert text.startswith(b"# mine\r\n[dedupe]\r\nthreshold_bits = 5\r\n")
    assert text.count(b"\n") == text.count(b"\r\n")
    data = tomllib.loads(text.decode())
    assert data["dedupe"] == {"threshold_bits": 5}
    assert data["train"][0].items() >= ENTRY.items()
    again = celforge("recipe", "import", script, tmp_path)
    assert again.exit_code == 2
    assert "already" in again.stderr
    assert config.read_bytes() == text
    assert celforge("recipe", "import", script, tmp_path, "--name", "two").exit_code == 0
    assert [one["name"] for one in tomllib.loads(config.read_text())["train"]] == ["sabine", "two"]


def test_a_table_that_is_no_list_is_left_alone(celforge: Celforge, tmp_path: Path) -> None:
    config = tmp_path / "celforge.toml"
    config.write_text('[train]\nname = "one"\n')
    (tmp_path / "train.json").write_text(json.dumps(TRAIN_JSON))
    answer = celforge("recipe", "import", tmp_path / "train.json", tmp_path)
    assert answer.exit_code == 2
    assert "write [[train]] instead of [train]" in answer.stderr
    assert config.read_text() == '[train]\nname = "one"\n'


def test_files_are_found_beside_the_recipe(
    celforge: Celforge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes" / "data").mkdir(parents=True)
    (tmp_path / "recipes" / "a.txt").write_text("train_db.py --train_data_dir data --vae gone.pt")
    monkeypatch.chdir(tmp_path)
    answer = celforge("recipe", "import", "recipes/a.txt", "--dry-run", "--json")
    assert answer.json["entry"]["data"] == str(tmp_path / "recipes" / "data")
    assert any(one["option"] == "vae" and "is not here" in one["text"] for one in answer.json["notes"])


def test_a_dataset_toml_is_told_apart(celforge: Celforge, tmp_path: Path) -> None:
    (tmp_path / "set.toml").write_text('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"\n')
    answer = celforge("recipe", "import", tmp_path / "set.toml", tmp_path)
    assert answer.exit_code == 2
    assert "--data" in answer.stderr


def test_export_never_writes_over_a_file(
    celforge: Celforge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = celforge("recipe", "export", "kohya", "loha", "-o", "loha.toml")
    assert first.exit_code == 0, first.stderr
    written = (tmp_path / "loha.toml").read_bytes()
    assert celforge("recipe", "export", "kohya", "locon", "-o", "loha.toml").exit_code == 2
    assert (tmp_path / "loha.toml").read_bytes() == written
    (tmp_path / "optimizer.json").write_text("mine")
    assert celforge("recipe", "export", "everydream", "full", "-o", "train.json").exit_code == 2
    assert not (tmp_path / "train.json").exists()
    assert (tmp_path / "optimizer.json").read_text() == "mine"


def test_epochs_of_everydream_are_counted_from_the_data(
    celforge: Celforge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    folder = tmp_path / "dataset" / "sabine"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
    (folder / "multiply.txt").write_text("2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "celforge.toml").write_text('[[train]]\nkind = "full"\nsteps = 10\nbatch_size = 4\n')
    answer = celforge("recipe", "export", "everydream", "--json")
    assert json.loads(answer.json["files"]["train.json"])["max_epochs"] == 7  # 40 of 6
