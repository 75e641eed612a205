"""Which size of a batch each picture would be trained at: kohya's sizes, and how many pictures each gets."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STEP_PX = 64

Size = tuple[int, int]  # width, height, pixels


@dataclass(frozen=True, slots=True)
class BucketUse:
    """How a data set falls into buckets."""

    counts: Mapping[Size, int]  # buckets that get pictures, the fullest first
    num_enlarged: int  # pictures with fewer pixels than their bucket needs


def bucket_sizes(resolution_px: int) -> list[Size]:
    """Sides by steps of 64 px, from half to about twice the resolution, at most the area of its square.

    kohya-ss/sd-scripts, `make_bucket_resolutions`, but for its longest side of 1024 whatever the resolution.

    Raises:
        ValueError: the resolution is less than two steps.
    """
    if resolution_px < 2 * STEP_PX:
        raise ValueError(f"a resolution must be at least {2 * STEP_PX}, got {resolution_px}")
    area = resolution_px * resolution_px
    square = resolution_px // STEP_PX * STEP_PX
    shortest = math.ceil(resolution_px / (2 * STEP_PX)) * STEP_PX
    longest = area // shortest // STEP_PX * STEP_PX
    found = {(square, square)}
    for width in range(shortest, longest + 1, STEP_PX):
        height = min(longest, area // width // STEP_PX * STEP_PX)
        if height >= shortest:
            found |= {(width, height), (height, width)}
    return sorted(found)


def nearest(width_px: int, height_px: int, sizes: Sequence[Size]) -> Size:
    """The bucket nearest by the logarithm of the aspect ratio; of two as near the larger one."""
    aspect = math.log(width_px / height_px)
    return min(sizes, key=lambda size: (abs(math.log(size[0] / size[1]) - aspect), -size[0] * size[1], size))


def bucket_use(pictures: Mapping[Size, int], resolution_px: int) -> BucketUse:
    """Count the pictures of each bucket.

    Args:
        pictures: (width, height) in pixels -> number of pictures.
    """
    sizes = bucket_sizes(resolution_px)
    counts: Counter[Size] = Counter()
    num_enlarged = 0
    for (width, height), number in pictures.items():
        bucket = nearest(width, height, sizes)
        counts[bucket] += number
        if max(bucket[0] / width, bucket[1] / height) > 1:
            num_enlarged += number
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return BucketUse(dict(ordered), num_enlarged)
