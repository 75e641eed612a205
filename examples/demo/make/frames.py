"""Wide frames of random characters, as an episode shows them: alone, up to five together, or nobody at all."""

import io
import multiprocessing
from dataclasses import replace

import numpy as np
from backgrounds import paint
from characters import FRAMINGS, Scene, random_scene, tags_of
from drawing import draw_character
from drawn import WORK, Pixels
from PIL import Image

SIZE = (320, 180)
COUNTS = {0: "no humans", 1: "1girl", 2: "2girls", 3: "3girls", 4: "4girls", 5: "5girls"}
CHANCES = (0.04, 0.62, 0.2, 0.08, 0.03, 0.03)
PLACES = {
    1: (0.0,),
    2: (-0.4, 0.4),
    3: (-0.58, 0.0, 0.58),
    4: (-0.63, -0.21, 0.21, 0.63),
    5: (-0.66, -0.33, 0.0, 0.33, 0.66),
}


def frame_scenes(rng: np.random.Generator) -> list[Scene]:
    """Who is in a frame: all framed the same way, side by side."""
    count = int(rng.choice(len(CHANCES), p=CHANCES))
    first = random_scene(rng)
    closest = {0: 0, 1: 0, 2: 1, 3: 1}.get(count, 2)  # nobody else fits beside a close-up
    framing = FRAMINGS[int(rng.integers(closest, len(FRAMINGS)))]
    scenes = []
    for place in PLACES.get(count, ()):
        scene = random_scene(rng) if scenes else first
        spread = 0.25 if count == 1 else 0.08
        shift = (place + float(rng.uniform(-spread, spread)), scene.shift[1])
        scenes.append(replace(scene, framing=framing, background=first.background, shift=shift))
    return scenes


def tags_of_frame(scenes: list[Scene]) -> set[str]:
    """All that is seen in it."""
    tags = {tag for scene in scenes for tag in tags_of(scene)} - {"1girl", "solo"}
    if len(scenes) == 1:
        tags.add("solo")
    if len(scenes) > 1:
        tags.add("multiple girls")
    return tags | {COUNTS[len(scenes)]}


def draw_frame(rng: np.random.Generator) -> tuple[Pixels, set[str]]:
    """A frame of SIZE, RGB uint8 [180, 320, 3], with the marks that a video leaves: brightness, compression."""
    scenes = frame_scenes(rng)
    background = scenes[0] if scenes else random_scene(rng)
    large = np.empty((2 * SIZE[1], 2 * SIZE[0], 3), np.uint8)
    paint(large, background.background, background.variant)
    for scene in scenes:
        draw_character(large, scene)
    image = Image.fromarray(large).reduce(2)
    if rng.random() < 0.3:
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=int(rng.integers(40, 90)))
        image = Image.open(packed).convert("RGB")
    pixels = np.asarray(image).astype(np.float32) * rng.uniform(0.8, 1.1) + rng.uniform(-8, 8)
    tags = tags_of_frame(scenes) | {background.background}
    return pixels.clip(0, 255).astype(np.uint8), tags


def frames(seed: int, count: int) -> tuple[Pixels, list[set[str]]]:
    """A set of frames, uint8 RGB [count, 180, 320, 3] mapped from a file, and their tags."""
    WORK.mkdir(exist_ok=True)
    path = WORK / f"frames-{seed}-{count}.npy"
    tags_path = path.with_suffix(".txt")
    if not tags_path.is_file():
        pixels = np.lib.format.open_memmap(path, "w+", np.uint8, (count, SIZE[1], SIZE[0], 3))
        lines = []
        with multiprocessing.Pool() as pool:
            rows = pool.imap(_draw, ((seed, number) for number in range(count)), chunksize=16)
            for number, (row, tags) in enumerate(rows):
                pixels[number] = row
                lines.append(", ".join(sorted(tags)))
        pixels.flush()
        tags_path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = tags_path.read_text(encoding="utf-8").splitlines()
    return np.load(path, mmap_mode="r"), [set(line.split(", ")) for line in lines]


def _draw(task: tuple[int, int]) -> tuple[Pixels, set[str]]:
    return draw_frame(np.random.default_rng(task))
