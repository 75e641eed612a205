"""Aspect-ratio buckets: the few sizes that pictures are scaled and cut to, so that a batch has one shape.

Sizes are width before height, in pixels. A picture is scaled until it covers its bucket, and the middle is
kept: what sticks out on the two longer sides is cut away.

Sources: kohya-ss/sd-scripts, `make_bucket_resolutions` and `select_bucket`, for the sizes, the choice by
ratio and the rounding; victorchall/EveryDream2trainer 5098db8 for the sizes of its tables.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

STEP_PX = 64
KOHYA_MIN_PX, KOHYA_MAX_PX = 256, 1024  # kohya's defaults, whatever the resolution is

# EveryDream2's sizes by resolution: the square, these and their mirror images, but for two that have another.
_EVERYDREAM = {
    256: "384x192 512x128",
    320: "384x256 448x192 576x128",
    384: "448x320 512x256 704x192",
    448: "512x384 640x320 768x256",
    512: "576x448 640x384 768x320 896x256 1024x256",
    576: "640x512 704x448 832x384 960x320 1152x256",
    640: "704x576 768x512 832x448 896x448 1024x384 1152x320 1280x320",
    704: "768x640 832x576 960x512 1088x448 1152x384 1280x384 1280x320",
    768: "832x704 896x640 960x576 1024x576 1152x512 1280x448 1408x384 1472x320",
    832: "896x768 960x704 1024x640 1152x576 1216x512 1344x512 1536x448 1600x384",
    896: "1024x768 1088x704 1216x640 1344x576 1536x512 1792x448",
    960: "1088x832 1152x768 1280x704 1408x640 1680x576 1792x512 2048x448",
    1024: "1152x896 1216x832 1344x768 1472x704 1600x640 1792x576 2048x512",
    1088: "1152x1024 1216x896 1408x832 1536x768 1664x704 1792x640 2048x576 2304x512",
    1152: "1280x1024 1344x960 1472x896 1536x832 1728x768 1856x704 2048x640 2304x576",
    1280: "1408x1152 1600x1024 1792x896 1920x832 2112x768 2304x704 2560x640",
    1536: "1728x1344 1792x1280 2048x1152 2304x1024 2432x960 2624x896 2816x832 3072x768",
}
_NOT_MIRRORED = {(320, "576x128"): "576x640", (1280, "1408x1152"): "1408x1344"}


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """One size of a batch."""

    width_px: int
    height_px: int

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width_px / self.height_px

    @property
    def area_px(self) -> int:
        """Pixels in it."""
        return self.width_px * self.height_px

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px}"


@dataclass(frozen=True, slots=True)
class Fit:
    """How a picture gets into its bucket."""

    bucket: Bucket
    scale: float  # above 1: the picture is enlarged
    width_px: int  # after scaling; covers the bucket
    height_px: int

    @property
    def left_px(self) -> int:
        """Columns cut away on the left; the right side loses as many, or one more."""
        return (self.width_px - self.bucket.width_px) // 2

    @property
    def top_px(self) -> int:
        """Rows cut away at the top; the bottom loses as many, or one more."""
        return (self.height_px - self.bucket.height_px) // 2

    @property
    def cut_share(self) -> float:
        """Share of the picture that is cut away, 0 to 1."""
        return 1 - self.bucket.area_px / (self.width_px * self.height_px)


def kohya_buckets(
    resolution_px: int, *, min_px: int = KOHYA_MIN_PX, max_px: int = KOHYA_MAX_PX, step_px: int = STEP_PX
) -> tuple[Bucket, ...]:
    """The sizes that kohya makes: at most the area of a square of `resolution_px`, sides by steps.

    Args:
        min_px, max_px: shortest and longest side; at the default of 1024 a resolution of 1024 gives wide
            pictures little more than half its area.
    """
    area = resolution_px * resolution_px
    square = resolution_px // step_px * step_px
    found = {Bucket(square, square)} if square else set()
    for width in range(min_px, max_px + 1, step_px):
        height = min(max_px, area // width // step_px * step_px)
        if height >= min_px:
            found |= {Bucket(width, height), Bucket(height, width)}
    return tuple(sorted(found))


def buckets(resolution_px: int, *, step_px: int = STEP_PX) -> tuple[Bucket, ...]:
    """Sizes as kohya makes them, but with sides from half to about twice the resolution, whatever it is.

    So every bucket has the whole area, but for one step. At 512 they are kohya's own 17.

    Raises:
        ValueError: the resolution is less than two steps.
    """
    if resolution_px < 2 * step_px:
        raise ValueError(f"a resolution must be at least {2 * step_px}, got {resolution_px}")
    shortest = -(-resolution_px // (2 * step_px)) * step_px
    longest = resolution_px * resolution_px // shortest // step_px * step_px
    return kohya_buckets(resolution_px, min_px=shortest, max_px=longest, step_px=step_px)


def everydream_buckets(resolution_px: int) -> tuple[Bucket, ...] | None:
    """EveryDream2's sizes, hand-picked by its author, for a resolution rounded down to a step.

    None where it has none, and stops: below 256, from 1216 to 1279, from 1344 to 1535, and from 1600 on.
    """
    square = resolution_px // STEP_PX * STEP_PX
    if square not in _EVERYDREAM:
        return None
    found = {Bucket(square, square)}
    for wide in _EVERYDREAM[square].split():
        width, height = map(int, wide.split("x"))
        other = _NOT_MIRRORED.get((square, wide))
        beside = (height, width) if other is None else map(int, other.split("x"))
        found |= {Bucket(width, height), Bucket(*beside)}
    return tuple(sorted(found))


def everydream_resolutions() -> tuple[int, ...]:
    """Resolutions that EveryDream2 has sizes for; one between two is rounded down to the next step."""
    return tuple(_EVERYDREAM)


def nearest_bucket(width_px: int, height_px: int, sizes: Sequence[Bucket]) -> Bucket:
    """The bucket that a picture loses least to: nearest by the logarithm of the aspect ratio.

    A wide picture and its mirror image in height get mirrored buckets, which kohya's and EveryDream2's choice
    (`nearest_by_ratio`) does not promise. Of two as near the larger is taken, then the narrower.
    """
    aspect = math.log(width_px / height_px)
    return min(sizes, key=lambda size: (abs(math.log(size.aspect) - aspect), -size.area_px, size))


def nearest_by_ratio(width_px: int, height_px: int, sizes: Sequence[Bucket]) -> Bucket:
    """The bucket that kohya and EveryDream2 choose: of exactly this size, else nearest by plain ratio.

    Of two as near the first in the order of `sizes` is taken.
    """
    exact = Bucket(width_px, height_px)
    if exact in sizes:
        return exact
    aspect = width_px / height_px
    return min(sizes, key=lambda size: abs(size.aspect - aspect))


def fit(width_px: int, height_px: int, bucket: Bucket) -> Fit:
    """Scale a picture until it covers a bucket, sides rounded half up."""
    is_wider = width_px / height_px > bucket.aspect
    scale = bucket.height_px / height_px if is_wider else bucket.width_px / width_px
    width, height = (max(1, int(side * scale + 0.5)) for side in (width_px, height_px))
    return Fit(bucket, scale, max(width, bucket.width_px), max(height, bucket.height_px))
