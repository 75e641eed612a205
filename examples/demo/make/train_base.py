"""Train the demo's base model: `celforge train full` from random weights on drawings of random characters.

    python examples/demo/make/train_base.py [--steps 4000] [--pictures 24000] [--round 2 --learning-rate 7e-4]

Needs scratch/vae and scratch/text (train_vae.py, train_text_encoder.py). Writes scratch/set (drawings with captions of all their tags),
scratch/start (the model with a random UNet, as a folder of diffusers) and scratch/models/base1. Each further round goes on from
the one before, with a schedule of its own. Other options are those of `celforge train full`.
"""

import argparse
import random
import subprocess
import sys
from pathlib import Path

import torch
from characters import tags_of
from diffusers import AutoencoderKL, UNet2DConditionModel
from drawn import WORK, drawings
from PIL import Image
from transformers import CLIPTextModel
from words import MAX_TEXT_TOKENS

from trainers.conditioning import Tokenizer
from trainers.models import Diffusion, Models, ModelSource, save_diffusers

SEED = 4


def new_unet() -> UNet2DConditionModel:
    """10.9 million numbers; the outermost level has no attention, which would take a third of a step."""
    torch.manual_seed(SEED)
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def write_start(folder: Path) -> None:
    """The model before its training."""
    models = Models(
        family="sd1",
        unet=new_unet(),
        text_encoder=CLIPTextModel.from_pretrained(WORK / "text" / "text_encoder"),
        vae=AutoencoderKL.from_pretrained(WORK / "vae"),
        tokenizer=Tokenizer.read(WORK / "text", MAX_TEXT_TOKENS),
        diffusion=Diffusion(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012),
        source=ModelSource(given="", name="", sha256="", vae_sha256=""),
    )
    save_diffusers(models, folder, torch.float32, {})


def write_set(folder: Path, count: int) -> None:
    """Drawings as PNG, each with its tags in a caption file; what is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels, scenes = drawings(SEED, count, 64)
    for number, scene in enumerate(scenes):
        path = folder / f"{number:06}.png"
        if not path.is_file():
            tags = list(tags_of(scene))
            random.Random(number).shuffle(tags)
            path.with_suffix(".txt").write_text(", ".join(tags) + "\n", encoding="utf-8")
            Image.fromarray(pixels[number]).save(path, compress_level=1)


def main() -> int:
    """Draw, put together, train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--pictures", type=int, default=24_000)
    parser.add_argument("--round", type=int, default=1)
    arguments, others = parser.parse_known_args()
    (WORK / "celforge.toml").touch()
    write_set(WORK / "set", arguments.pictures)
    if not (WORK / "start").is_dir():
        write_start(WORK / "start")
    name, before = f"base{arguments.round}", f"base{arguments.round - 1}"
    base = WORK / "start" if arguments.round == 1 else WORK / "models" / before / before
    celforge = Path(sys.executable).with_name("celforge")
    preset = Path(__file__).with_name("base.toml")
    command = [
        celforge,
        "train",
        "full",
        "--name",
        name,
        "--preset",
        preset,
        "--steps",
        str(arguments.steps),
    ]
    command += ["--data", WORK / "set", "--base", base, *others]
    return subprocess.run(command, cwd=WORK, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
