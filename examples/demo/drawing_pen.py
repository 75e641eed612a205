"""A pen for cel drawings: smooth outlines, flat fills, clipped shadows and even ink, on one RGB array.

Outlines are arrays of points, [n, 2], in the pen's units. Those of still shapes are worked out once and kept,
so that a drawing is little more than a matrix product and a fill for each patch of colour.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Outline = NDArray[np.float64]
Spot = tuple[float, float]
_BITS = 4  # bits of a pixel's fraction that cv2 is given
_GRAIN = 200  # pixels for a unit where silhouettes are joined or cut
_STEPS = 6  # points of a curve between two of its control points


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """`share` of the other colour in the one."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


@lru_cache(maxsize=4096)
def curve(text: str, *, closed: bool = True) -> Outline:
    """A Catmull-Rom curve through points written "x,y x,y"; "x,y!" is a corner."""
    words = text.split()
    points = np.array([[float(part) for part in word.rstrip("!").split(",")] for word in words])
    return smooth(points, [i for i, word in enumerate(words) if word.endswith("!")], closed=closed)


@lru_cache(maxsize=4096)
def even(text: str) -> Outline:
    """A symmetrical outline from its right half, from top to bottom, written as for `curve`."""
    right = text.split()
    left = [word if word[0] == "-" else "-" + word for word in reversed(right) if not _is_middle(word)]
    return curve(" ".join([*right, *left]))


def _is_middle(word: str) -> bool:
    return float(word.split(",")[0]) == 0


def flip(outline: Outline) -> Outline:
    """The mirror image."""
    return outline * (-1, 1)


def shift(outline: Outline, x: float, y: float) -> Outline:
    """An outline moved."""
    return outline + np.array((x, y))


def box(left: float, top: float, right: float, bottom: float) -> Outline:
    """A rectangle."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)


@lru_cache(maxsize=4096)
def oval(x: float, y: float, rx: float, ry: float) -> Outline:
    """An ellipse about a point."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([np.cos(angles) * rx + x, np.sin(angles) * ry + y], 1)


def smooth(points: Outline, corners: Sequence[int] = (), *, closed: bool = True) -> Outline:
    """A Catmull-Rom curve through points, [n, 2]; it breaks at the corners, which are indices."""
    if closed and not corners:
        return _spline(np.concatenate([points[-1:], points, points[:2]]))
    if closed:
        first = corners[0]
        marks = [corner - first for corner in corners] + [len(points)]
        points = np.concatenate([points[first:], points[: first + 1]])
    else:
        marks = sorted({0, len(points) - 1, *corners})
    pieces = [_piece(points[start : stop + 1]) for start, stop in pairwise(marks)]
    return np.concatenate([*pieces, points[-1:]])


def _piece(part: Outline) -> Outline:
    if len(part) == 2:
        return part[:1]
    return _spline(np.concatenate([2 * part[:1] - part[1:2], part, 2 * part[-1:] - part[-2:-1]]))


def _spline(padded: Outline) -> Outline:
    t = np.arange(_STEPS)[:, None] / _STEPS
    p0, p1, p2, p3 = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    second, third = 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * p1 - p0 - 3 * p2 + p3
    return np.asarray(((2 * p1 + (p2 - p0) * t + second * t**2 + third * t**3) / 2).reshape(-1, 2))


@lru_cache(maxsize=4096)
def limb(
    spots: tuple[Spot, ...],
    widths: tuple[float, ...],
    share: tuple[float, float] = (0.0, 1.0),
    *,
    flat: str = "",
) -> Outline:
    """The silhouette of a limb bent through spots.

    Args:
        widths: half widths, spread evenly along the part that is drawn.
        share: the part that is drawn, from and to, in shares of the limb.
        flat: "end" or "both": which ends are cut straight, as cloth ends, rather than round.
    """
    path = along(spots, share)
    radius = np.interp(np.linspace(0, 1, len(path)), np.linspace(0, 1, len(widths)), widths)
    low = path.min(0) - max(widths) - 0.1
    size = path.max(0) - path.min(0) + 2 * max(widths) + 0.2
    mask = np.zeros(np.ceil(size[::-1] * _GRAIN).astype(int), np.uint8)
    grain = _GRAIN * (1 << _BITS)
    for (x, y), r in zip((path - low) * grain, radius * grain, strict=True):
        cv2.circle(mask, (round(x), round(y)), round(r), 255, -1, cv2.LINE_8, _BITS)
    if flat:
        for end, before in ((path[-1], path[-6]), (path[0], path[5]))[: 1 + (flat == "both")]:
            out = (end - before) / np.hypot(*(end - before)) * max(widths) * 1.5
            side = np.array([-out[1], out[0]])
            beyond = np.array([end + side, end + side + out, end - side + out, end - side])
            cv2.fillPoly(mask, [np.rint((beyond - low) * _GRAIN).astype(np.int32)], 0)
    return _contours(mask, low)[0]


@lru_cache(maxsize=4096)
def along(spots: tuple[Spot, ...], share: tuple[float, float] = (0.0, 1.0)) -> Outline:
    """60 points of the curve through spots, between two shares of it."""
    path = smooth(np.array(spots, float), closed=False)
    at, own = np.linspace(*share, 60), np.linspace(0, 1, len(path))
    return np.stack([np.interp(at, own, path[:, 0]), np.interp(at, own, path[:, 1])], 1)


def cuff(spots: tuple[Spot, ...], share: tuple[float, float], width: float) -> Outline:
    """A band around a limb, straight at both sides."""
    return limb(spots, (width, width), share, flat="both")


def clip(outline: Outline, patch: Outline) -> list[Outline]:
    """What two outlines have in common, as outlines."""
    return _clip(outline.tobytes(), patch.tobytes())


@lru_cache(maxsize=8192)
def _clip(outline: bytes, patch: bytes) -> list[Outline]:
    both = [np.frombuffer(data, float).reshape(-1, 2) for data in (outline, patch)]
    low = np.maximum(both[0].min(0), both[1].min(0)) - 0.02
    high = np.minimum(both[0].max(0), both[1].max(0)) + 0.02
    if (high <= low).any():
        return []
    masks = np.zeros((2, *np.ceil((high - low)[::-1] * _GRAIN).astype(int)), np.uint8)
    for mask, points in zip(masks, both, strict=True):
        cv2.fillPoly(mask, [np.rint((points - low) * _GRAIN).astype(np.int32)], 255)
    return _contours(cv2.bitwise_and(masks[0], masks[1]), low)


def _contours(mask: NDArray[np.uint8], low: NDArray[np.float64]) -> list[Outline]:
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    kept = sorted((c[:, 0] for c in found if len(c) > 8), key=len, reverse=True)
    return [_without_steps(contour) / _GRAIN + low for contour in kept]


def _without_steps(contour: NDArray[np.int32]) -> Outline:
    """A contour of pixels as a smooth one: the mean of each eleven neighbours, then as few points as will do."""
    ring = np.concatenate([contour[-5:], contour, contour[:5]]).astype(np.float32)
    mean = np.mean([ring[i : i + len(contour)] for i in range(11)], axis=0, dtype=np.float32)
    return np.asarray(cv2.approxPolyDP(mean, 0.35, True)[:, 0], float)


class Pen:
    """Draws in units of its own on an image, [height, width, 3] uint8.

    Attributes:
        matrix: units to pixels, [3, 3].
        line: width of the ink, pixels.
        soft: whether edges are anti-aliased: not needed where the picture is reduced four times.
    """

    def __init__(
        self, image: NDArray[np.uint8], matrix: NDArray[np.float64], line: float, *, soft: bool = True
    ) -> None:
        self.image, self.matrix, self.line, self.soft = image, matrix, line, soft
        self._kind = cv2.LINE_AA if soft else cv2.LINE_8
        self._linear = matrix[:2, :2].T * (1 << _BITS)
        self._move = matrix[:2, 2] * (1 << _BITS) + 0.5

    @property
    def fine(self) -> bool:
        """Whether a unit has pixels enough for the finest lines to be seen."""
        return self.soft or float(self.matrix[1, 1]) > 40

    @property
    def bottom(self) -> float:
        """The picture's lower edge in units, where the pen is upright."""
        return float((self.image.shape[0] - self.matrix[1, 2]) / self.matrix[1, 1])

    def moved(
        self, x: float, y: float, degrees: float = 0.0, *, about: Spot = (0.0, 0.0), wide: float = 1.0
    ) -> "Pen":
        """A pen whose units are stretched to `wide`, turned about a point, then moved."""
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        middle_x, middle_y = about
        x += middle_x - cos * wide * middle_x + sin * middle_y
        y += middle_y - sin * wide * middle_x - cos * middle_y
        full = np.array(((cos * wide, -sin, x), (sin * wide, cos, y), (0.0, 0.0, 1.0)))
        return Pen(self.image, self.matrix.dot(full), self.line, soft=self.soft)

    def _place(self, points: Outline) -> NDArray[np.int32]:
        return (points.dot(self._linear) + self._move).astype(np.int32)

    def fill(self, outline: Outline, colour: Colour) -> None:
        """Fill an outline, without ink."""
        cv2.fillPoly(self.image, [self._place(outline)], colour, self._kind, _BITS)

    def ink(self, outline: Outline, colour: Colour, *, width: float = 1.0, closed: bool = False) -> None:
        """A line along points; `width` in widths of the pen's line."""
        self._stroke(self._place(outline), colour, width, closed=closed)

    def _stroke(self, placed: NDArray[np.int32], colour: Colour, width: float, *, closed: bool) -> None:
        thick = max(1, round(self.line * width))
        cv2.polylines(self.image, [placed], closed, colour, thick, self._kind, _BITS)

    def shape(
        self,
        outline: Outline,
        colour: Colour,
        ink: Colour,
        *shadows: tuple[Outline, Colour],
        width: float = 1.0,
    ) -> None:
        """An inked cel: fill, shadows clipped by the outline, ink around."""
        placed = self._place(outline)
        cv2.fillPoly(self.image, [placed], colour, self._kind, _BITS)
        for shadow, tone in shadows:
            self.clipped(outline, shadow, tone)
        self._stroke(placed, ink, width, closed=True)

    def clipped(self, outline: Outline, patch: Outline, colour: Colour) -> None:
        """Fill what a patch and an outline have in common."""
        for part in clip(outline, patch):
            self.fill(part, colour)
