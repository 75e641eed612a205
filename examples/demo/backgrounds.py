"""Painted backgrounds, soft and without ink, so that the inked characters stand out.

Units: the picture is 1 high and `wide` wide, y down; the pen of `paint` has these units.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from drawing_pen import Colour, Pen, box, oval, smooth
from numpy.typing import NDArray

_SMALL, _KEPT = 256, 16  # pixels of height up to which paintings are kept, and how many of each
PLAIN: tuple[Colour, ...] = (
    (240, 240, 244),
    (255, 226, 190),
    (206, 230, 250),
    (226, 214, 244),
    (250, 214, 220),
    (216, 238, 210),
)


def _grade(image: NDArray[np.uint8], stops: list[tuple[float, Colour]]) -> None:
    rows = np.linspace(0, 1, len(image))
    places = [stop[0] for stop in stops]
    colours = np.array([stop[1] for stop in stops], float)
    column = np.stack([np.interp(rows, places, colours[:, c]) for c in range(3)], 1)
    image[:] = np.round(column).astype(np.uint8)[:, None]


def _cloud(pen: Pen, x: float, y: float, size: float, colour: Colour, shade: Colour) -> None:
    for dx, dy, r in ((-0.9, 0.05, 0.5), (-0.3, -0.3, 0.7), (0.5, -0.15, 0.6), (1.1, 0.1, 0.4)):
        pen.fill(oval(x + dx * size, y + dy * size, r * size, r * size * 0.8), colour)
    pen.fill(oval(x, y + 0.3 * size, 1.6 * size, 0.22 * size), shade)


def _blue_sky(pen: Pen, image: NDArray[np.uint8], rng: np.random.Generator, wide: float) -> None:
    _grade(image, [(0, (60, 146, 236)), (1, (190, 230, 255))])
    for x in np.arange(-0.1, wide + 0.2, 0.4):
        _cloud(
            pen,
            x + rng.uniform(-0.1, 0.1),
            rng.uniform(0.12, 0.85),
            rng.uniform(0.08, 0.15),
            (255, 255, 255),
            (220, 238, 252),
        )


def _night(pen: Pen, image: NDArray[np.uint8], rng: np.random.Generator, wide: float) -> None:
    _grade(image, [(0, (12, 16, 60)), (0.7, (46, 44, 116)), (1, (88, 70, 150))])
    for _ in range(int(30 * wide)):
        r = rng.uniform(0.005, 0.012)
        pen.fill(oval(rng.uniform(0, wide), rng.uniform(0, 0.95), r, r), (255, 250, 214))
    x, y = rng.choice([0.14, wide - 0.14]), rng.uniform(0.12, 0.25)
    pen.fill(oval(x, y, 0.1, 0.1), (255, 246, 190))
    pen.fill(oval(x + 0.045, y - 0.02, 0.085, 0.085), (20, 22, 72))


def _sunset(pen: Pen, image: NDArray[np.uint8], rng: np.random.Generator, wide: float) -> None:
    _grade(image, [(0, (196, 76, 110)), (0.5, (255, 140, 70)), (0.85, (255, 214, 110)), (1, (255, 226, 150))])
    pen.fill(oval(wide * rng.uniform(0.15, 0.85), 0.7, 0.16, 0.16), (255, 246, 200))
    for _ in range(4):
        pen.fill(
            oval(rng.uniform(0, wide), rng.uniform(0.1, 0.6), rng.uniform(0.15, 0.3), 0.022), (250, 110, 96)
        )
    hills = (
        [(-0.1, 1.1), (-0.1, 0.86)]
        + [(x, 0.86 + rng.uniform(-0.05, 0.05)) for x in np.arange(0.15, wide, 0.3)]
        + [(wide + 0.1, 0.86), (wide + 0.1, 1.1)]
    )
    pen.fill(smooth(np.array(hills)), (128, 50, 84))


def _classroom(pen: Pen, image: NDArray[np.uint8], rng: np.random.Generator, wide: float) -> None:
    image[:] = (246, 232, 200)
    pen.fill(box(0, 0.78, wide, 1), (196, 142, 92))
    pen.fill(box(0, 0.75, wide, 0.78), (150, 104, 70))
    pen.fill(box(0.03, 0.1, wide - 0.03, 0.58), (160, 112, 70))
    pen.fill(box(0.06, 0.13, wide - 0.06, 0.55), (44, 106, 82))
    for _ in range(5):
        x, y = rng.uniform(0.08, wide - 0.2), rng.uniform(0.18, 0.48)
        pen.ink(np.array([(x, y), (x + rng.uniform(0.04, 0.12), y)]), (214, 232, 220), width=0.8)
    for x in np.arange(-0.05, wide, 0.36):
        pen.fill(box(x + 0.04, 0.84, x + 0.3, 0.89), (224, 176, 120))
        pen.fill(box(x + 0.07, 0.89, x + 0.09, 1), (120, 124, 136))
        pen.fill(box(x + 0.25, 0.89, x + 0.27, 1), (120, 124, 136))


def _city(pen: Pen, image: NDArray[np.uint8], rng: np.random.Generator, wide: float) -> None:
    _grade(image, [(0, (170, 206, 234)), (1, (232, 238, 240))])
    x = -0.05
    while x < wide:
        w, top = rng.uniform(0.16, 0.26), rng.uniform(0.05, 0.35)
        wall = ((150, 154, 168), (178, 164, 158), (132, 142, 166))[int(rng.integers(3))]
        pen.fill(box(x, top, x + w, 0.9), wall)
        for wy in np.arange(top + 0.04, 0.82, 0.085):
            for wx in np.arange(x + 0.025, x + w - 0.04, 0.06):
                pen.fill(
                    box(wx, wy, wx + 0.035, wy + 0.045),
                    (250, 226, 140) if rng.random() < 0.3 else (88, 106, 138),
                )
        x += w + rng.uniform(0, 0.02)
    pen.fill(box(0, 0.88, wide, 1), (96, 98, 110))
    for lx in np.arange(0.02, wide, 0.2):
        pen.fill(box(lx, 0.94, lx + 0.1, 0.96), (236, 236, 226))


def _forest(pen: Pen, image: NDArray[np.uint8], rng: np.random.Generator, wide: float) -> None:
    _grade(image, [(0, (150, 206, 110)), (0.6, (214, 240, 160)), (1, (120, 180, 80))])
    for x in np.arange(0.05, wide, 0.22):
        at = x + rng.uniform(-0.06, 0.06)
        w = rng.uniform(0.025, 0.05)
        trunk = [
            (at - w, -0.1),
            (at + w, -0.1),
            (at + w, 0.6),
            (at + w * 1.8, 0.9),
            (at - w * 1.8, 0.9),
            (at - w, 0.6),
        ]
        pen.fill(smooth(np.array(trunk), [0, 1, 3, 4]), (108, 76, 56))
    for x in np.arange(-0.05, wide + 0.1, 0.13):
        r = rng.uniform(0.11, 0.18)
        pen.fill(
            oval(x, rng.uniform(-0.02, 0.12), r, r), (48, 128, 62) if rng.random() < 0.5 else (70, 156, 70)
        )
    for x in np.arange(-0.05, wide + 0.1, 0.16):
        r = rng.uniform(0.08, 0.14)
        pen.fill(oval(x, rng.uniform(0.84, 0.92), r, r * 0.8), (40, 110, 58))
    pen.fill(box(0, 0.92, wide, 1), (64, 140, 62))


def _beach(pen: Pen, image: NDArray[np.uint8], rng: np.random.Generator, wide: float) -> None:
    _grade(image, [(0, (120, 200, 250)), (0.42, (214, 242, 255)), (1, (214, 242, 255))])
    _cloud(pen, rng.uniform(0, wide), 0.15, 0.12, (255, 255, 255), (232, 246, 255))
    pen.fill(box(0, 0.4, wide, 0.8), (24, 160, 190))
    pen.fill(box(0, 0.56, wide, 0.8), (64, 200, 206))
    for _ in range(8):
        x, y = rng.uniform(0, wide), rng.uniform(0.43, 0.68)
        pen.fill(oval(x, y, 0.05, 0.006), (214, 250, 250))
    shore = (
        [(-0.1, 1.1), (-0.1, 0.74)]
        + [(x, 0.74 + rng.uniform(-0.02, 0.03)) for x in np.arange(0.1, wide, 0.25)]
        + [(wide + 0.1, 0.74), (wide + 0.1, 1.1)]
    )
    pen.fill(smooth(np.array(shore)) - (0, 0.02), (250, 255, 255))
    pen.fill(smooth(np.array(shore)), (250, 222, 160))


def _simple(pen: Pen, image: NDArray[np.uint8], rng: np.random.Generator, wide: float) -> None:
    image[:] = PLAIN[int(rng.integers(len(PLAIN)))]


PAINTERS: dict[str, Callable[[Pen, NDArray[np.uint8], np.random.Generator, float], None]] = {
    "blue sky": _blue_sky,
    "night sky": _night,
    "sunset": _sunset,
    "classroom": _classroom,
    "city": _city,
    "forest": _forest,
    "beach": _beach,
    "simple background": _simple,
}


def paint(image: NDArray[np.uint8], name: str, variant: int) -> None:
    """Paint a background over an image, [height, width, 3], from a seed.

    Small pictures are cut from a few wide paintings that are kept.
    """
    height, width = image.shape[:2]
    if height > _SMALL:
        _paint(image, name, variant)
        return
    wide = _painting(name, variant % _KEPT, height, width * 3 // 2)
    start = variant // _KEPT % (wide.shape[1] - width)
    image[:] = wide[:, start : start + width]


@cache
def _painting(name: str, variant: int, height: int, width: int) -> NDArray[np.uint8]:
    image = np.empty((height, width, 3), np.uint8)
    _paint(image, name, variant)
    return image


def _paint(image: NDArray[np.uint8], name: str, variant: int) -> None:
    height, width = image.shape[:2]
    matrix = np.array([(height, 0, 0), (0, height, 0), (0, 0, 1)], float)
    rng = np.random.default_rng(variant)
    PAINTERS[name](Pen(image, matrix, max(1, height / 200)), image, rng, width / height)
