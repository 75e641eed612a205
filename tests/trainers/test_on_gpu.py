"""What only a GPU can show: `CELFORGE_TEST_GPU=1 pytest tests/trainers/test_on_gpu.py`; the other tests leave it alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Answer, Celforge
from tests.trainers.conftest import TinyFiles
from tests.trainers.trainer_pictures import write_pictures

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here, or no CELFORGE_TEST_GPU")

Train = Callable[..., Answer]
STEPS = 8


@pytest.fixture
def train(celforge: Celforge, tmp_path: Path, tiny_files: TinyFiles) -> Train:
    write_pictures(tmp_path / "data")

    def call(kind: str, name: str, *options: object) -> list[dict[str, Any]]:
        answer = celforge(
            "train", kind, "--data", tmp_path / "data", "--base", tiny_files.diffusers, "--out", tmp_path / name,
            "--resolution-px", 64, "--bucket-step-px", 16, "--batch-size", 2, "--log-every", 1, "--optimizer",
            "adamw", "--steps", STEPS, "--save-every", 0, *options,
        )  # fmt: skip
        assert answer.exit_code == 0, answer.stderr
        assert "cannot be recorded" not in answer.stderr
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, lines) if "loss" in line]

    return call  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["loha", "locon", "full"])
def test_in_fp32_a_gpu_trains_as_a_cpu_does(train: Train, tmp_path: Path, kind: str) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        lines = train(kind, device, "--device", device, "--precision", "fp32")
        (file,) = (tmp_path / device).glob("*.safetensors")
        found[device] = load_file(file), [line["loss"] for line in lines]
    (_, on_cpu), (_, on_gpu) = found["cpu"], found["cuda"]
    assert on_gpu == pytest.approx(on_cpu, rel=2e-3)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("loha", ()),
        ("loha", ("--precision", "fp16")),
        ("locon", ("--accumulation", 2, "--train", "unet")),
        ("locon", ("--micro-batch-size", 1, "--text-encoder-until", 5)),
        ("full", ()),
        ("full", ("--ema", 0.9, "--min-snr-gamma", 5)),
    ],
)
def test_recorded_steps_train_as_computed_ones(train: Train, kind: str, options: tuple[object, ...]) -> None:
    computed = train(kind, "computed", *options)
    recorded = train(kind, "recorded", "--cuda-graphs", *options)
    for name in ("loss", "grad_norm"):
        assert [one[name] for one in recorded] == pytest.approx([one[name] for one in computed], rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_learn_as_32_do(train: Train, precision: str) -> None:
    wide = train("locon", "wide", "--precision", "fp32")
    narrow = train("locon", "narrow", "--precision", precision)
    assert [one["loss"] for one in narrow] == pytest.approx([one["loss"] for one in wide], rel=2e-2)
