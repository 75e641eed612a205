"""Averages, optimizers, regularisation and blocks in whole runs of `celforge train`, on the tiny model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.conftest import Answer, Celforge
from tests.trainers.conftest import TinyFiles, assert_same

SIZES = ("--resolution-px", 64, "--no-buckets")
FAST = (*SIZES, "--batch-size", 2, "--log-every", 1, "--save-every", 2, "--train", "unet")
AVERAGE = ("--ema", 0.9, "--ema-every", 2, "--ema-save", "instead")

Train = Callable[..., Answer]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three small pictures of one folder."""
    root = tmp_path / "anime" / "dataset"
    root.mkdir(parents=True)
    (root.parent / "celforge.toml").write_text("", encoding="utf-8")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        (root / f"{number}.txt").write_text(f"girl, cat, {'ab' * number}", encoding="utf-8")
    return root


@pytest.fixture
def train(celforge: Celforge, pictures: Path, tiny_files: TinyFiles) -> Train:
    def call(kind: str, name: str, *options: object) -> Answer:
        base = ("--data", pictures, "--base", tiny_files.diffusers, "--out", pictures.parent / name)
        return celforge("train", kind, "--name", "a", *base, *FAST, *options)

    return call


def trained(train: Train, *arguments: object) -> Answer:
    answer = train(*arguments)
    assert answer.exit_code == 0, answer.stderr
    return answer


def state(folder: Path, step: int) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / f"state/step-{step:08d}.pt")
    return found


def expect_the_same_when_broken_off(
    train: Train, pictures: Path, stop_after: Callable[[int], None], kind: str, *options: object
) -> None:
    """Four steps at once, and with a stop after an odd one."""
    trained(train, kind, "whole", "--steps", 4, *options)
    stop_after(3)
    assert train(kind, "broken", "--steps", 4, *options).exit_code == 130
    again = trained(train, kind, "broken", "--steps", 4, *options)
    assert "going on from step 3 of 4" in again.stderr
    whole, broken = pictures.parent / "whole", pictures.parent / "broken"
    assert_same(state(whole, 4), state(broken, 4))
    names = sorted(path.name for path in whole.glob("*.safetensors"))
    assert names
    for name in names:
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


# Averages


def test_the_average_is_saved_beside_the_weights_of_every_step(train: Train, pictures: Path) -> None:
    """Worked out again from the files of the weights; every second step counts."""
    exact = ("--save-precision", "fp32", "--save-every", 1)
    trained(train, "locon", "start", "--steps", 1, "--learning-rate", 0, *exact)
    expected = load_file(pictures.parent / "start" / "a.safetensors")
    rarely = ("--ema", 0.25, "--ema-every", 2)
    trained(train, "locon", "run", "--steps", 4, "--learning-rate", 1e-2, *rarely, *exact)
    folder = pictures.parent / "run"
    for step, name in enumerate((*(f"a-step0000000{number}" for number in (1, 2, 3)), "a"), start=1):
        weights, average = (load_file(folder / f"{name}{end}.safetensors") for end in ("", "-ema"))
        decay = 1 if step % 2 else min(0.25, (1 + step) / (10 + step)) ** 2
        expected = {key: decay * expected[key] + (1 - decay) * one for key, one in weights.items()}
        assert average.keys() == expected.keys()
        for key, one in expected.items():
            torch.testing.assert_close(average[key], one, rtol=1e-5, atol=1e-7)
    with safe_open(folder / "a-ema.safetensors", "pt") as file:
        assert file.metadata()["celforge.average"] == "ema 0.25"


def test_samples_show_the_average_and_leave_no_trace(train: Train, pictures: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("girl, cat --w 32 --h 32 --s 2 --d 5\n", encoding="utf-8")
    rate = ("--learning-rate", 3e-3, "--optimizer", "adamw", "--steps", 2, "--save-every", 0)
    given = ("full", *rate, "--ema", 0.9, "--sample-every", 2, "--no-sample-at-start")
    drawn = []
    folders = [pictures.parent / name for name in ("average", "weights", "undrawn")]
    trained(train, given[0], "average", *given[1:], "--prompts", prompts)
    trained(train, given[0], "weights", *given[1:], "--prompts", prompts, "--no-ema-samples")
    trained(train, given[0], "undrawn", *given[1:])
    for folder in folders[:2]:
        with Image.open(folder / "samples" / "a_00000002_00.png") as image:
            drawn.append(image.tobytes())
    assert drawn[0] != drawn[1]
    assert_same(state(folders[0], 2), state(folders[1], 2))
    assert_same(state(folders[0], 2), state(folders[2], 2))
    assert (folders[0] / "a-ema.safetensors").read_bytes() == (folders[2] / "a-ema.safetensors").read_bytes()


def test_an_average_begun_late_and_one_that_hardly_moves_are_told(train: Train, pictures: Path) -> None:
    plan = trained(train, "locon", "run", "--steps", 4, "--ema", 0.999, "--dry-run", "--json").json["plan"]
    assert plan["plan"]["average"].startswith("moving average, decay 0.999 a step; saved beside")
    assert any("looks back over about 1,000 steps, and the run has 4" in one for one in plan["problems"])
    plan = trained(train, "locon", "run", "--steps", 4, "--ema-every", 2, "--dry-run", "--json").json["plan"]
    assert any("ema_every has no effect without an average" in one for one in plan["problems"])


# Optimizers


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("locon", ("--optimizer", "schedule-free-adamw", "--learning-rate", 1e-2)),
        ("full", ("--optimizer", "muon", "--learning-rate", 1e-3, "--lr-schedule", "constant", *AVERAGE)),
    ],
)
def test_other_optimizers_and_their_averages_go_on_after_a_stop_too(
    train: Train, pictures: Path, stop_after: Callable[[int], None], kind: str, options: tuple[object, ...]
) -> None:
    """The stop saves a model in between, which the schedule-free one does at another point than it learns at."""
    expect_the_same_when_broken_off(train, pictures, stop_after, kind, *options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--optimizer", "prodigy"), "finds the learning rate by itself; multiplied by 0.0002"),
        (
            ("--optimizer", "prodigy", "--learning-rate", 1, "--unet-learning-rate", 0.5, "--train", "both"),
            "prodigy steps everything alike",
        ),
        (("--optimizer", "schedule-free-adamw", "--ema", 0.9), "keeps an average of the weights already"),
    ],
)
def test_what_does_not_go_together_is_refused(
    train: Train, pictures: Path, options: tuple[object, ...], said: str
) -> None:
    answer = train("locon", "run", "--steps", 2, *options)
    assert answer.exit_code == 2, answer.stderr
    assert said in answer.stderr
    assert not (pictures.parent / "run").exists()


# Regularisation


def test_dropout_and_the_average_go_on_bit_for_bit_and_are_told(
    train: Train, pictures: Path, stop_after: Callable[[int], None]
) -> None:
    """Activations computed again in the backward pass are dropped as they were, or the two runs would differ."""
    shares = ("--dropout", 0.2, "--rank-dropout", 0.3, "--module-dropout", 0.25)
    limits = ("--scale-weight-norms", 0.02, "--lora-plus-ratio", 4, "--learning-rate", 1e-2)
    given = (*shares, *limits, "--accumulation", 2, "--ema", 0.9, "--ema-device", "cpu")
    expect_the_same_when_broken_off(train, pictures, stop_after, "loha", *given)
    lines = (pictures.parent / "whole" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1])
    assert last["scaled_layers"] > 0
    assert last["largest_norm"] == pytest.approx(0.02, rel=1e-3)
    with safe_open(pictures.parent / "whole" / "a.safetensors", "pt") as file:
        metadata = file.metadata()
    assert (metadata["ss_network_dropout"], metadata["ss_scale_weight_norms"]) == ("0.2", "0.02")
    args = json.loads(metadata["ss_network_args"])
    assert (args["rank_dropout"], args["module_dropout"], args["loraplus_lr_ratio"]) == ("0.3", "0.25", "4")
    answer = trained(train, "loha", "plan", "--steps", 4, *given, "--dry-run", "--json")
    plan = answer.json["plan"]["plan"]
    assert plan["dropout"] == "0.2 of the activations, 0.3 of the ranks, 0.25 of the layers"
    assert "0.02 or less" in plan["norms"]
    assert "4 times the rate" in plan["LoRA+"]


# Full checkpoints in less memory


def test_a_full_checkpoint_in_bf16_with_a_fused_backward_goes_on_bit_for_bit(
    train: Train, pictures: Path, stop_after: Callable[[int], None]
) -> None:
    """With an average in fp32, whose numbers take the place of the weights' while it is saved."""
    kept = ("--fused-backward", "--weight-precision", "bf16", "--precision", "bf16", "--max-grad-norm", 0)
    given = ("--optimizer", "adamw", "--learning-rate", 1e-4, "--ema", 0.9, "--save-precision", "fp32")
    expect_the_same_when_broken_off(train, pictures, stop_after, "full", *kept, *given)
    weights = state(pictures.parent / "whole", 4)
    assert {one.dtype for one in weights["tensors"].values()} == {torch.bfloat16}
    assert {one.dtype for one in weights["averages"].values()} == {torch.float32}
    saved = load_file(pictures.parent / "whole" / "a-ema.safetensors")
    name = "model.diffusion_model.out.2.weight"
    assert torch.equal(saved[name], weights["averages"]["unet.conv_out.weight"])
    lines = (pictures.parent / "whole" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line)["grad_norm"] > 0 for line in lines)
