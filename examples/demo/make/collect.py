"""Put what was trained where the demo finds it: fp16 weights in examples/demo/models, with their cards.

    python examples/demo/make/collect.py

Takes the last round of scratch/models with the autoencoder of scratch/vae, whose decoder sharpen_vae.py trained further on, the
tagger of scratch/tagger and the judge. scratch/base.json is written by measure_base.py --card.
"""

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from drawn import WORK

from trainers.models import load_models, save_diffusers

MODELS = Path(__file__).parents[1] / "models"
MOST_BYTES = 35_000_000


def main() -> None:
    """Convert, copy, weigh."""
    shutil.rmtree(MODELS, ignore_errors=True)
    MODELS.mkdir()
    last = max((WORK / "models").glob("base*"), key=lambda path: int(path.name.removeprefix("base")))
    models = load_models(str(last / last.name))
    models.vae = AutoencoderKL.from_pretrained(WORK / "vae")
    save_diffusers(models, MODELS / "base", torch.float16, {})
    shutil.copytree(WORK / "tagger", MODELS / "tagger")
    for name in ("judge.safetensors", "judge.json", "base.json"):
        shutil.copyfile(WORK / name, MODELS / name)
    size = sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file())
    print(f"{MODELS}: {size / 1e6:.1f} MB of at most {MOST_BYTES / 1e6:.0f}")


if __name__ == "__main__":
    main()
