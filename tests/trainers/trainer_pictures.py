"""A few drawn pictures with captions, to train the tiny model on."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_pictures(folder: Path, count: int = 6) -> None:
    """Pictures of two shapes, so that there are two buckets."""
    folder.mkdir(parents=True)
    for number in range(count):
        small = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        size = (40 if number % 3 else 64, 40)
        Image.fromarray(small).resize(size, Image.Resampling.NEAREST).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"sabine, girl, cat, c{'ab' * number}", encoding="utf-8")
