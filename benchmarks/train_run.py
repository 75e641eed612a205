"""Whole runs of `celforge train` at the shapes of Stable Diffusion 1.5, with random weights.

    python benchmarks/train_run.py [--kinds loha locon full] [--steps 60] [--batch 8] [-- FLAGS]

Each run is a process as a user starts it: loading, encoding of the pictures, the plan, the steps, the file.
What follows `--` is given to `celforge train` too, such as `--compile`. Printed: pictures a second by the
run's own metrics.jsonl, the median of its stretches without the first two; the share of what the GPU's
arithmetic allows; the most memory that torch gave out beside what the plan said; and the seconds of the whole
process. The pictures are one square each, of 512 px, so that a step is that of benchmarks/train_step.py.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from trainers.conditioning import Tokenizer  # noqa: E402 - found by the path above
from trainers.models import Diffusion, Models, ModelSource, save_single_file  # noqa: E402 - as above
from trainers.sd1_shapes import sd1_configs  # noqa: E402 - as above

GOALS = {"locon": 230.0, "full": 165.0}  # pictures a second on an H200, batch 8, bf16
CELFORGE = [
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pipeline.cli import main; main()",
]
SIDE_PX, NUM_PICTURES, LOG_EVERY, WARM = 512, 64, 5, 2  # WARM: stretches that are left out


def write_base(path: Path, device: str) -> None:
    """A whole model as one file in fp16: 2.1 GB."""
    configs = sd1_configs()
    torch.manual_seed(0)
    with torch.device(device):
        models = Models(
            family="sd1",
            unet=UNet2DConditionModel(**_arguments(configs["unet"])).half(),
            text_encoder=CLIPTextModel(CLIPTextConfig(**_arguments(configs["text_encoder"]))).half(),
            vae=AutoencoderKL(**_arguments(configs["vae"])).half(),
            tokenizer=Tokenizer.bundled(77),
            diffusion=Diffusion(),
            source=ModelSource(given="random", name="random", sha256="", vae_sha256=""),
        )
    save_single_file(models, path, torch.float16, {})


def _arguments(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if not name.startswith("_")}


def write_pictures(folder: Path) -> None:
    """Soft noise as JPEG, with captions."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(NUM_PICTURES):
        small = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        small.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.jpg")
        words = random.choice(["pink hair", "smile", "school uniform", "blue sky", "sitting", "hat"], 4)
        (folder / f"{number:03d}.txt").write_text(", ".join([f"name{number % 5}", "1girl", *words]))


def run(kind: str, project: Path, given: argparse.Namespace) -> dict[str, Any]:
    """One run; what its files say."""
    name = f"{kind}-{time.monotonic_ns()}"
    command = [*CELFORGE, "train", kind, "--name", name]
    command += ["--data", str(project / "data"), "--base", str(project / "base.safetensors")]
    command += ["--steps", str(given.steps), "--batch-size", str(given.batch), "--log-every", str(LOG_EVERY)]
    command += ["--save-every", "0", "--device", given.device, *given.flags]
    started = time.perf_counter()
    answer = subprocess.run(command, capture_output=True, text=True, cwd=project)
    seconds = time.perf_counter() - started
    if answer.returncode:
        sys.exit(f"{kind}: {answer.stderr.strip()[-2000:]}")
    (folder,) = project.rglob(f"{name}/metrics.jsonl")
    lines = [json.loads(line) for line in folder.read_text().splitlines()]
    lines = [line for line in lines if "images_per_s" in line]
    plan = json.loads((folder.parent / "settings.json").read_text())
    return {
        "img/s": statistics.median(line["images_per_s"] for line in lines[WARM:]),
        "first": lines[0]["images_per_s"],
        "share": statistics.median(line.get("share_of_bound", 0.0) for line in lines[WARM:]),
        "memory": max(line.get("memory_bytes", 0) for line in lines),
        "planned": plan["memory_bytes"],
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", default=["loha", "locon", "full"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--project", type=Path, help="kept for another run; a temporary folder without it")
    parser.add_argument("flags", nargs="*", help="of celforge train, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        project = given.project or Path(temporary)
        project.mkdir(parents=True, exist_ok=True)
        if not (project / "base.safetensors").exists():
            write_base(project / "base.safetensors", given.device)
            write_pictures(project / "data")
            (project / "celforge.toml").write_text("")
        name = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
        print(
            f"{name}, torch {torch.__version__}, batch {given.batch}, {' '.join(given.flags) or 'presets'}\n"
        )
        print("| kind | img/s | goal | of the bound | GPU memory MiB | planned MiB | whole process s |")
        print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
        for kind in given.kinds:
            row = run(kind, project, given)
            print(
                f"| {kind} | {row['img/s']:.1f} | {GOALS.get(kind, '')} | {row['share']:.0%} "
                f"| {row['memory'] / 2**20:.0f} | {row['planned'] / 2**20:.0f} | {row['seconds']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
