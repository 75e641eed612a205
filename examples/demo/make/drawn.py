"""Drawings to train on: made once by all cores, kept in `scratch/`, and read from there as one array."""

import multiprocessing
from pathlib import Path

import numpy as np
from characters import Scene, random_scene
from drawing import draw_scene
from numpy.typing import NDArray

WORK = Path(__file__).parent / "scratch"
Pixels = NDArray[np.uint8]


def scene_of(seed: int, number: int) -> Scene:
    """The scene of a place in a set: a function of the two alone."""
    return random_scene(np.random.default_rng((seed, number)))


def drawings(seed: int, count: int, size_px: int) -> tuple[Pixels, list[Scene]]:
    """A set of drawings, and what they show.

    Returns:
        uint8 RGB [count, size, size, 3], mapped from a file; the scenes in its order.
    """
    WORK.mkdir(exist_ok=True)
    path = WORK / f"drawings-{seed}-{count}-{size_px}.npy"
    if not path.is_file():
        with multiprocessing.Pool() as pool:
            rows = pool.imap(_draw, ((seed, number, size_px) for number in range(count)), chunksize=64)
            pixels = np.lib.format.open_memmap(
                path.with_suffix(".partial"), "w+", np.uint8, (count, size_px, size_px, 3)
            )
            for number, row in enumerate(rows):
                pixels[number] = row
            pixels.flush()
        path.with_suffix(".partial").rename(path)
    return np.load(path, mmap_mode="r"), [scene_of(seed, number) for number in range(count)]


def _draw(task: tuple[int, int, int]) -> Pixels:
    seed, number, size_px = task
    return np.asarray(draw_scene(scene_of(seed, number), size_px))
