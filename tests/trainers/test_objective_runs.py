"""Objectives by the command: bit-exact going on, the plan, metadata, refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tests.conftest import Answer, Celforge
from tests.trainers.conftest import TinyFiles

Train = Callable[..., Answer]
EVERYTHING = (
    *("--min-snr-gamma", 5, "--loss", "huber", "--huber-schedule", "exponential"),
    *("--noise-offset", 0.1, "--noise-offset-random", "--adaptive-noise-scale", 0.1),
    *("--pyramid-noise", 4, "--ip-noise-gamma", 0.1, "--min-timestep", 10, "--max-timestep", 90),
    *("--timestep-distribution", "logit-normal", "--stratified-timesteps"),
)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "anime" / "dataset"
    root.mkdir(parents=True)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        (root / f"{number}.txt").write_text("girl", encoding="utf-8")
    (root.parent / "celforge.toml").write_text("", encoding="utf-8")
    return root


@pytest.fixture
def train(celforge: Celforge, dataset: Path, tiny_files: TinyFiles) -> Train:
    def call(*options: object) -> Answer:
        where = ("--data", dataset, "--base", tiny_files.diffusers, "--name", "a", "--batch-size", 2)
        sizes = ("--resolution-px", 64, "--bucket-step-px", 16, "--log-every", 1, "--save-every", 2)
        return celforge("train", "locon", *where, *sizes, *options)

    return call


def test_all_of_it_goes_on_bit_for_bit(train: Train, dataset: Path, tmp_path: Path) -> None:
    whole = train("--out", tmp_path / "whole", "--steps", 4, *EVERYTHING)
    assert whole.exit_code == 0, whole.stderr
    assert train("--steps", 2, *EVERYTHING).exit_code == 0
    half = train("--steps", 4, *EVERYTHING)
    assert half.exit_code == 0, half.stderr
    assert "going on from step 2 of 4" in half.stderr
    folders = (tmp_path / "whole", dataset.parent / "models/a")
    states = [torch.load(folder / "state/step-00000004.pt")["tensors"] for folder in folders]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name])
    chart = (folders[1] / "timesteps.svg").read_text(encoding="utf-8")
    assert "from little noise to much" in chart
    with safe_open(folders[1] / "a.safetensors", "pt") as file:
        told = file.metadata()
    assert (told["ss_min_snr_gamma"], told["ss_loss_type"], told["ss_huber_c"]) == ("5.0", "huber", "0.1")
    assert (told["ss_noise_offset"], told["ss_multires_noise_iterations"]) == ("0.1", "4")
    assert told["modelspec.timestep_range"] == "10,89"
    refused = train("--steps", 5)
    assert "begun otherwise" in refused.stderr
    assert "ip_noise_gamma was 0.1 and is 0.0" in refused.stderr


def test_the_plan_tells_the_objective_and_draws_the_timesteps(train: Train) -> None:
    answer = train("--steps", 1, *EVERYTHING, "--dry-run")
    line = "objective: epsilon, min-SNR 5, loss huber, bound 0.1 (exponential), noise offset up to 0.1"
    assert line in answer.stdout, answer.stderr
    assert "timesteps from 10 to below 90, logit-normal timesteps, stratified timesteps" in answer.stdout
    assert "drawn x weighs" in answer.stdout
    assert "###" in answer.stdout
    plain = train("--steps", 1, "--dry-run", "--json")
    assert plain.json["plan"]["plan"]["objective"] == "epsilon"
    assert plain.json["plan"]["timesteps"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--min-snr-gamma", 5, "--debiased-estimation"), "each in its own way"),
        (("--max-timestep", 101), "; the model has 100"),
        (("--zero-terminal-snr", "on"), "--prediction v"),
    ],
)
def test_senseless_objectives_get_one_sentence(
    train: Train, dataset: Path, options: tuple[object, ...], said: str
) -> None:
    answer = train("--steps", 1, *options)
    assert answer.exit_code == 2
    assert said in answer.stderr
    assert not (dataset.parent / "models").exists()


def test_the_loss_of_a_folder_is_scaled(train: Train, dataset: Path) -> None:
    first = train("--steps", 1)
    assert first.exit_code == 0, first.stderr
    (dataset / "loss_scale.txt").write_text("0.25", encoding="utf-8")
    assert train("--steps", 1, "--out", dataset.parent / "scaled").exit_code == 0
    folders = (dataset.parent / "models/a", dataset.parent / "scaled")
    losses = [json.loads((one / "metrics.jsonl").read_text().splitlines()[0])["loss"] for one in folders]
    assert losses[1] == pytest.approx(0.25 * losses[0], rel=1e-5)


def test_masked_training_goes_on_and_knows_its_masks(train: Train, dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    for name in ("0", "1"):
        mask = np.zeros((64, 64), np.uint8)
        mask[:, :32] = 255
        Image.fromarray(mask).save(folder / f"{name}.png")
    options = ("--masked-loss", "files", "--masks", folder)
    begun = train("--steps", 2, *options)
    assert begun.exit_code == 0, begun.stderr
    assert "loss masked by files" in begun.stdout
    assert "1 of 3 pictures have no mask" in begun.stdout
    run = dataset.parent / "models/a"
    with safe_open(run / "a.safetensors", "pt") as file:
        told = file.metadata()
    assert told["ss_masked_loss"] == "True"
    assert str(tmp_path) not in "".join(told.values())
    went_on = train("--steps", 3, *options)
    assert "going on from step 2 of 3" in went_on.stderr
    Image.new("L", (64, 64), 255).save(folder / "0.png")
    refused = train("--steps", 4, *options)
    assert refused.exit_code == 2
    assert "the masks are not those of before" in refused.stderr
