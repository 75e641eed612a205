"""Which part of a scaled picture is kept, and its pixels as the VAE wants them.

A picture is scaled until it covers its bucket; on one axis it then sticks out. The middle is kept, as kohya
keeps it, unless a face would be cut: then the window moves, no further than it must.

Pixels are RGB, uint8, [height, width, 3]; boxes are left, top, right, bottom in 0 to 1 of the picture.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pipeline.images import Pixels
from pipeline.layouts.buckets import Bucket, fit

Box = tuple[float, float, float, float]

RECIPE = 1  # raised by every change of what `cut` gives: cached latents of an older one are not used
FACE_MARGIN = 0.25  # of a face's size, kept on each side: hair and chin. Our choice


def crop_corner(width_px: int, height_px: int, bucket: Bucket, faces: Sequence[Box] = ()) -> tuple[int, int]:
    """Left and top of the window, in pixels after scaling.

    Args:
        faces: boxes; empty keeps the middle.
    """
    scaled = fit(width_px, height_px, bucket)
    left = _offset(
        scaled.width_px, bucket.width_px, scaled.left_px, [(f[0], f[2], f[3] - f[1]) for f in faces]
    )
    top = _offset(
        scaled.height_px, bucket.height_px, scaled.top_px, [(f[1], f[3], f[2] - f[0]) for f in faces]
    )
    return left, top


def _offset(length: int, window: int, middle: int, faces: Sequence[tuple[float, float, float]]) -> int:
    """Where a window begins so that it covers most area of the faces; of all such places the most central.

    The covered area is piecewise linear in the place, so that its maxima begin and end where an edge of the
    window meets an edge of a face.

    Args:
        faces: start and end along the axis, and size across it, each in 0 to 1.
    """
    slack = length - window
    if slack <= 0 or not faces:
        return middle
    spans = []
    for start, end, across in faces:
        margin = FACE_MARGIN * (end - start)
        spans.append(
            (round(max(0.0, start - margin) * length), round(min(1.0, end + margin) * length), across)
        )
    places = {
        middle,
        *(min(max(0, edge), slack) for a, b, _ in spans for edge in (a, b - window, b, a - window)),
    }

    def covered(place: int) -> float:
        return sum(max(0, min(b, place + window) - max(a, place)) * across for a, b, across in spans)

    return max(sorted(places), key=lambda place: (round(covered(place), 6), -abs(place - middle)))


def cut(
    pixels: Pixels,
    bucket: Bucket,
    corner: tuple[int, int],
    resample: Image.Resampling = Image.Resampling.LANCZOS,
) -> Pixels:
    """Scale a picture and keep the window: [bucket height, bucket width, 3]; a mask without the last.

    Lanczos both ways, with antialiasing, in one step: only the window is computed.

    Args:
        corner: left and top in pixels after scaling, from `crop_corner`.
    """
    height_px, width_px = pixels.shape[:2]
    scaled = fit(width_px, height_px, bucket)
    across, down = width_px / scaled.width_px, height_px / scaled.height_px
    left, top = corner
    box = (
        left * across,
        top * down,
        min(width_px, (left + bucket.width_px) * across),
        min(height_px, (top + bucket.height_px) * down),
    )
    size = (bucket.width_px, bucket.height_px)
    if size == (width_px, height_px):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, resample, box=box))
