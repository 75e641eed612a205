"""A pen for cel drawings: smooth outlines, flat fills, clipped shadows and even ink, on one RGB array."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Points = Sequence[Sequence[float]]
_BITS = 4  # fractions of a pixel that cv2 is given


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """`share` of the other colour in the one."""
    a, b = one, other
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


@lru_cache(maxsize=4096)
def _smooth(points: tuple[tuple[float, ...], ...], closed: bool, steps: int) -> NDArray[np.float64]:
    plain = np.array([p[:2] for p in points], float)
    corners = [i for i, p in enumerate(points) if len(p) > 2]
    count = len(plain)
    if closed and not corners:
        padded = np.concatenate([plain[-1:], plain, plain[:2]])
        return _spline(padded, steps)
    if closed:
        plain = np.roll(plain, -corners[0], axis=0)
        marks = [(c - corners[0]) % count for c in corners] + [count]
        plain = np.concatenate([plain, plain[:1]])
    else:
        marks = sorted({0, count - 1, *corners})
    pieces = []
    for start, stop in zip(marks, marks[1:], strict=False):
        part = plain[start : stop + 1]
        padded = np.concatenate([2 * part[:1] - part[1:2], part, 2 * part[-1:] - part[-2:-1]])
        pieces.append(_spline(padded, steps if len(part) > 2 else 1))
    pieces.append(plain[marks[-1]][None])
    return np.concatenate(pieces)


def _spline(padded: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    t = np.arange(steps)[:, None] / steps
    p0, p1, p2, p3 = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    curve = (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    ) / 2
    return np.asarray(curve.reshape(-1, 2))


def smooth(points: Points, *, closed: bool = True, steps: int = 6) -> NDArray[np.float64]:
    """A Catmull-Rom curve through points, [n, 2]; a point of three numbers is a corner."""
    return _smooth(tuple(tuple(p) for p in points), closed, steps)


def both(points: Points) -> list[tuple[float, ...]]:
    """The right half of an outline, top to bottom, and its mirror image: a closed symmetrical one."""
    right = [tuple(p) for p in points]
    left = [(-p[0], *p[1:]) for p in reversed(right) if p[0] != 0]
    return [*right, *left]


def flip(points: Points) -> list[tuple[float, ...]]:
    """The mirror image of points."""
    return [(-p[0], *p[1:]) for p in points]


def oval(x: float, y: float, rx: float, ry: float) -> NDArray[np.float64]:
    """An ellipse as an outline of 20 points."""
    return _CIRCLE * (rx, ry) + (x, y)


_ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)


class Pen:
    """Draws in units of its own on an image, [height, width, 3] uint8.

    Attributes:
        matrix: units to pixels, [3, 3].
        line: width of the ink, pixels.
    """

    def __init__(self, image: NDArray[np.uint8], matrix: NDArray[np.float64], line: float) -> None:
        self.image, self.matrix, self.line = image, matrix, line

    def moved(
        self,
        x: float,
        y: float,
        degrees: float = 0.0,
        scale: float = 1.0,
        *,
        about: tuple[float, float] = (0, 0),
    ) -> "Pen":
        """A pen whose units are turned about a point, grown, then moved."""
        turn = np.deg2rad(degrees)
        cos, sin = np.cos(turn) * scale, np.sin(turn) * scale
        linear = np.array([[cos, -sin], [sin, cos]])
        move = np.array(about) - linear @ np.array(about) + (x, y)
        full = np.eye(3)
        full[:2, :2], full[:2, 2] = linear, move
        return Pen(self.image, self.matrix @ full, self.line)

    def place(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        """Points in units as cv2 takes them: fixed point pixels."""
        pixels = points @ self.matrix[:2, :2].T + self.matrix[:2, 2]
        return np.asarray(np.round(pixels * (1 << _BITS)).astype(np.int32))

    def fill(self, outline: NDArray[np.float64], colour: Colour) -> None:
        """Fill an outline, without ink."""
        cv2.fillPoly(self.image, [self.place(outline)], colour, cv2.LINE_AA, _BITS)

    def ink(
        self, outline: NDArray[np.float64], colour: Colour, *, width: float = 1.0, closed: bool = False
    ) -> None:
        """A line along points; `width` in widths of the pen's line."""
        thick = max(1, round(self.line * width))
        cv2.polylines(self.image, [self.place(outline)], closed, colour, thick, cv2.LINE_AA, _BITS)

    def shape(
        self,
        outline: NDArray[np.float64],
        colour: Colour,
        ink: Colour,
        *shadows: tuple[NDArray[np.float64], Colour],
        width: float = 1.0,
    ) -> None:
        """An inked cel: fill, shadows clipped by the outline, ink around."""
        self.fill(outline, colour)
        for shadow, tone in shadows:
            self.clipped(outline, shadow, tone)
        self.ink(outline, ink, width=width, closed=True)

    def clipped(self, outline: NDArray[np.float64], patch: NDArray[np.float64], colour: Colour) -> None:
        """Fill what a patch and an outline have in common."""
        first, second = self.place(outline), self.place(patch)
        low = np.maximum(np.maximum(first.min(0), second.min(0)) >> _BITS, 0)
        high = np.minimum((np.minimum(first.max(0), second.max(0)) >> _BITS) + 2, self.image.shape[1::-1])
        if (high <= low).any():
            return
        size = (high[1] - low[1], high[0] - low[0])
        masks = np.zeros((2, *size), np.uint8)
        for mask, points in zip(masks, (first, second), strict=True):
            cv2.fillPoly(mask, [points - (low << _BITS)], 255, cv2.LINE_8, _BITS)
        region = self.image[low[1] : high[1], low[0] : high[0]]
        region[cv2.bitwise_and(masks[0], masks[1]) > 0] = colour
