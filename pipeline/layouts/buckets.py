"""Aspect-ratio buckets: the few sizes that pictures are scaled and cut to, so that a batch has one shape.

Sizes are width before height, in pixels. A picture is scaled until it covers its bucket, and the middle is
kept: what sticks out on the two longer sides is cut away.

Sources: kohya-ss/sd-scripts, `make_bucket_resolutions` and `select_bucket`, for the sizes, the choice by
ratio and the rounding; EveryDream2trainer's tables for 512 and 1024, as sizes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

STEP_PX = 64
KOHYA_MIN_PX, KOHYA_MAX_PX = 256, 1024  # kohya's defaults, whatever the resolution is

# One half of each table, wide; the other half is its mirror image.
_EVERYDREAM = {
    512: ((512, 512), (576, 448), (640, 384), (768, 320), (896, 256), (1024, 256)),
    1024: (
        (1024, 1024),
        (1152, 896),
        (1216, 832),
        (1344, 768),
        (1472, 704),
        (1600, 640),
        (1792, 576),
        (2048, 512),
    ),
}


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
    """EveryDream2's sizes, hand-picked by its author; None for a resolution whose table is not known here."""
    half = _EVERYDREAM.get(resolution_px)
    if half is None:
        return None
    return tuple(
        sorted({Bucket(*size) for width, height in half for size in ((width, height), (height, width))})
    )


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
