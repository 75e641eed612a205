"""The plan's forecast of memory beside what training really takes, whole runs of `celforge train` in small.

    python benchmarks/memory.py [--cases NAME ...] [--device cuda] [--one NAME]

Each case is a process of its own: a base model of Stable Diffusion's shape with fewer channels and random
weights, eight drawn pictures, two steps (the second one has the optimizer's memory). What is measured begins
where the loop begins, when model, adapter and optimizer are there: all tensors that are alive then, plus the
most that torch's allocator gave out beyond them, by its own profiler (on a GPU: max_memory_allocated). So
what the libraries take for themselves is left out on both sides, and a forecast is the plan's number without
its share for that. Printed: both in MiB, and how far off the forecast is, of the whole and of the step alone.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.project import find_project  # noqa: E402 - found by the path above
from tests.trainers.peak_memory import peak_bytes  # noqa: E402 - found by the path above
from tests.trainers.tiny_models import tiny_models  # noqa: E402 - found by the path above
from trainers import train_run  # noqa: E402 - found by the path above
from trainers.models import save_diffusers  # noqa: E402 - found by the path above
from trainers.preflight import prepare  # noqa: E402 - found by the path above
from trainers.train_settings import resolve_train  # noqa: E402 - found by the path above

SMALL, MIDDLE, QUARTER = 32, 48, 80  # channels of the first level; SD1.5 has 320
CPU_SIDE_PX, LATENT_PX = 128, 4  # of a picture; of a latent of these models
Case = tuple[int, dict[str, Any]]  # channels, settings

CASES: dict[str, Case] = {
    "loha": (SMALL, {"kind": "loha"}),
    "loha, batch 4": (SMALL, {"kind": "loha", "batch_size": 4}),
    "loha, checkpointing": (SMALL, {"kind": "loha", "batch_size": 4, "gradient_checkpointing": True}),
    "loha, bf16": (SMALL, {"kind": "loha", "batch_size": 4, "precision": "bf16"}),
    "loha, UNet only": (SMALL, {"kind": "loha", "batch_size": 4, "train": "unet"}),
    "loha, Adafactor": (SMALL, {"kind": "loha", "optimizer": "adafactor"}),
    "locon": (SMALL, {"kind": "locon"}),
    "locon, batch 4": (SMALL, {"kind": "locon", "batch_size": 4}),
    "locon, checkpointing, bf16": (
        SMALL,
        {"kind": "locon", "batch_size": 4, "gradient_checkpointing": True, "precision": "bf16"},
    ),
    "full": (SMALL, {"kind": "full"}),
    "full, batch 4": (SMALL, {"kind": "full", "batch_size": 4}),
    "full, checkpointing": (SMALL, {"kind": "full", "batch_size": 4, "gradient_checkpointing": True}),
    "full, bf16": (SMALL, {"kind": "full", "batch_size": 4, "precision": "bf16"}),
    "full, bf16 weights": (
        SMALL,
        {"kind": "full", "batch_size": 4, "precision": "bf16", "weight_precision": "bf16"},
    ),
    "full, fused backward": (
        SMALL,
        {"kind": "full", "batch_size": 4, "fused_backward": True, "max_grad_norm": 0.0},
    ),
    "full, Adafactor": (SMALL, {"kind": "full", "optimizer": "adafactor"}),
    "full, average": (SMALL, {"kind": "full", "ema": 0.99}),
    "full, accumulation 2": (SMALL, {"kind": "full", "accumulation": 2}),
    "loha, wider": (MIDDLE, {"kind": "loha", "batch_size": 4}),
    "full, wider": (MIDDLE, {"kind": "full", "batch_size": 4}),
    "loha, quarter of SD1.5": (QUARTER, {"kind": "loha", "batch_size": 2}),
    "locon, quarter of SD1.5": (QUARTER, {"kind": "locon", "batch_size": 2}),
    "full, quarter of SD1.5": (QUARTER, {"kind": "full", "batch_size": 2}),
}


# One case, in a process of its own


def write_base(folder: Path, channels: int) -> None:
    """A model of SD1.x's shape: four levels, two layers each, attention in three of them."""
    torch.manual_seed(0)
    width = channels * 12 // 5
    models = tiny_models()
    models.unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(channels, 2 * channels, 4 * channels, 4 * channels),
        cross_attention_dim=width // 8 * 8,
        attention_head_dim=8,
        norm_num_groups=16,
    ).eval()
    models.text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=64,
            hidden_size=width // 8 * 8,
            intermediate_size=width // 8 * 32,
            num_hidden_layers=6,
            num_attention_heads=8,
            max_position_embeddings=16,
            projection_dim=16,
            bos_token_id=62,
            eos_token_id=63,
            pad_token_id=63,
        )
    ).eval()
    assert isinstance(models.vae, AutoencoderKL)
    save_diffusers(models, folder, torch.float32, {})


def write_pictures(folder: Path) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(8):
        pixels = random.integers(0, 256, (CPU_SIDE_PX, CPU_SIDE_PX, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"girl, cat, {'ab' * number}")


def measure(name: str, device: str) -> dict[str, float]:
    """Forecast and peak of one case, bytes."""
    channels, settings = CASES[name]
    measured: dict[str, float] = {}
    train_loop = train_run.train_loop

    def watched(*arguments: Any) -> None:
        gc.collect()
        before = float(sum(_alive()))
        peak = _peak_on_gpu if device == "cuda" else _peak_on_cpu
        measured["before"] = before
        measured["peak"] = peak(before, lambda: train_loop(*arguments))

    train_run.train_loop = watched
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_base(folder / "base", channels)
        write_pictures(folder / "data")
        (folder / "celforge.toml").write_text("")
        flags = {
            "base": str(folder / "base"),
            "data": folder / "data",
            "name": "run",
            "steps": 2,
            "batch_size": 1,
            "resolution_px": CPU_SIDE_PX,
            "device": device,
            "flip_p": 0.0,
            "tensorboard": False,
            **settings,
        }
        resolved, preset = resolve_train({}, None, flags)
        prepared = prepare(resolved, preset, find_project(folder))
        train_run.run_training(prepared)
    forecast = prepared.forecast
    return {
        "forecast": float(forecast.allocated_bytes),
        "step": float(forecast.step_bytes),
        "trainable": float(forecast.trainable_bytes),
        **measured,
    }


def _alive() -> Iterator[int]:
    """Bytes of everything that tensors hold, each stretch once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated attributes that isinstance looks at
        tensors = [one for one in gc.get_objects() if isinstance(one, torch.Tensor)]
    seen = set()
    for one in tensors:
        for tensor in (one, one.grad if one.is_leaf else None):
            if tensor is None or tensor.is_meta:
                continue
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                yield storage.nbytes()


def _peak_on_gpu(_before: float, run: Any) -> float:
    torch.cuda.reset_peak_memory_stats()
    run()
    return float(torch.cuda.max_memory_allocated())


def _peak_on_cpu(before: float, run: Any) -> float:
    return before + peak_bytes(run)


# All of them


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        warnings.filterwarnings("ignore")
        print(json.dumps(measure(given.one, given.device)))
        return
    print("| case | channels | forecast MiB | measured MiB | off by | the step alone |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in given.cases:
        command = [sys.executable, __file__, "--device", given.device, "--one", name]
        answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if answer.returncode:
            print(f"{name}: failed: {answer.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        row = json.loads(answer.stdout.splitlines()[-1])
        held = row["forecast"] - row["step"]
        step = row["step"] / (row["peak"] - held) - 1
        print(
            f"| {name} | {CASES[name][0]} | {row['forecast'] / 2**20:.1f} | {row['peak'] / 2**20:.1f} "
            f"| {row['forecast'] / row['peak'] - 1:+.1%} | {step:+.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
