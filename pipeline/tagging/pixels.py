"""From a picture to what a tagger was trained on: padded, resized, in its channel order and range.

Pictures are RGB, uint8, [height, width, 3]. Padding a 1080p frame to a square before it is shrunk moves twice
the pixels; here rows and columns that stay white are never resized, with the very same result: Pillow
resizes across, then down, rounding in between, so only what is resized across needs its full width, and
OpenCV's area filter repeats itself wherever input and output have a common divisor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.images import Pixels

Resampling = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "area"]
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Fit:
    """One step that changes the size of a picture.

    Attributes:
        how: `pad` to a square, centred, then resize; `letterbox`: resize until it fits inside, then pad;
            `stretch` without keeping the shape; `short_side`: resize until the short side is `size_px`;
            `crop` the middle.
        size_px: of the square that comes out; 0 takes the model's own.
        rounding: of the sides of a letterbox: `floor` or `round`.
    """

    how: Literal["pad", "letterbox", "stretch", "short_side", "crop"]
    size_px: int = 0
    resampling: Resampling = "bicubic"
    colour: Colour = WHITE
    rounding: Literal["floor", "round"] = "floor"


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that is done to a picture.

    Attributes:
        value_range: what white is before mean and std: 255 or 1.
        mean, std: of the three channels, in the order that the model takes.
    """

    fits: tuple[Fit, ...]
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    channels: Literal["RGB", "BGR"] = "BGR"
    value_range: Literal[1, 255] = 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


def prepare_picture(pixels: Pixels, recipe: Recipe, size_px: int) -> NDArray[np.float32]:
    """One picture as a model takes it.

    Args:
        pixels: RGB, uint8, [height, width, 3].
        size_px: side of the model's square input.
    Returns: [size_px, size_px, 3] or [3, size_px, size_px], by the recipe's layout.
    """
    for fit in recipe.fits:
        pixels = _fitted(pixels, fit, fit.size_px or size_px)
    ordered = _as_bgr(pixels) if recipe.channels == "BGR" else pixels
    if recipe.layout == "NCHW":
        ordered = ordered.transpose(2, 0, 1)
    return _scaled(np.ascontiguousarray(ordered), recipe)


def _as_bgr(pixels: Pixels) -> Pixels:
    import cv2  # ten times faster than a reversed view made contiguous

    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR), np.uint8)


def _scaled(pixels: Pixels, recipe: Recipe) -> NDArray[np.float32]:
    """(value / 255 - mean) / std by a table of the 256 values: each is rounded as in plain float32."""
    if recipe.value_range == 255 and not any(recipe.mean) and set(recipe.std) == {1.0}:
        return pixels.astype(np.float32)
    values = np.arange(256, dtype=np.float32)
    if recipe.value_range == 1:
        values = values / np.float32(255)
    table = (values[None] - np.array(recipe.mean, np.float32)[:, None]) / np.array(recipe.std, np.float32)[
        :, None
    ]
    axis = 0 if recipe.layout == "NCHW" else 2
    planes = [table[channel][np.take(pixels, channel, axis)] for channel in range(3)]
    return np.stack(planes, axis)


def _fitted(pixels: Pixels, fit: Fit, size: int) -> Pixels:
    height, width = pixels.shape[:2]
    match fit.how:
        case "pad":
            return _pad_then_resize(pixels, size, fit)
        case "letterbox":
            ratio = min(size / width, size / height)
            sides = [width * ratio, height * ratio]
            whole = [round(side) if fit.rounding == "round" else int(side + 1e-6) for side in sides]
            inside = resize(pixels, max(1, whole[0]), max(1, whole[1]), fit.resampling)
            return _on_canvas(inside, size, size, fit.colour)
        case "stretch":
            return resize(pixels, size, size, fit.resampling)
        case "short_side":
            short = min(width, height)
            return resize(pixels, int(size * width / short), int(size * height / short), fit.resampling)
        case "crop":
            padded = _on_canvas(pixels, max(width, size), max(height, size), (0, 0, 0))
            left, top = (padded.shape[1] - size) // 2, (padded.shape[0] - size) // 2
            return padded[top : top + size, left : left + size]


def resize(pixels: Pixels, width: int, height: int, resampling: Resampling) -> Pixels:
    """Pixels at another size; `area` shrinks by OpenCV's and enlarges by Pillow's Lanczos, as in kohya."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if resampling == "area":
        if width <= pixels.shape[1] and height <= pixels.shape[0]:
            import cv2

            return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        resampling = "lanczos"
    return np.asarray(Image.fromarray(pixels).resize((width, height), FILTERS[resampling]))


def _pad_then_resize(pixels: Pixels, size: int, fit: Fit) -> Pixels:
    """The pixels of a picture padded to a square, centred, and then resized."""
    height, width = pixels.shape[:2]
    side = max(width, height)
    if width == height:
        return resize(pixels, size, size, fit.resampling)
    if fit.resampling == "area" and size < side:
        return _shrink_by_area(pixels, side, size, fit)
    if height < width:  # across first, on the picture's own rows: the others are of one colour and stay so
        across = resize(pixels, size, height, fit.resampling)
        return resize(_on_canvas(across, size, side, fit.colour), size, size, fit.resampling)
    return resize(_on_canvas(pixels, side, height, fit.colour), size, size, fit.resampling)


def _shrink_by_area(pixels: Pixels, side: int, size: int, fit: Fit) -> Pixels:
    """Resize the band that holds the picture, out to where an input row and an output row begin together."""
    height, width = pixels.shape[:2]
    common = math.gcd(side, size)
    step_in, step_out = side // common, size // common  # step_in rows become step_out rows
    before = (side - min(width, height)) // 2
    first = before // step_in
    last = -(-(before + min(width, height)) // step_in)
    lead, num_in = before - first * step_in, (last - first) * step_in
    place_out = slice(first * step_out, last * step_out)
    square = _canvas(size, size, fit.colour)
    if height < width:
        band = _placed(pixels, width, num_in, 0, lead, fit.colour)
        square[place_out] = resize(band, size, (last - first) * step_out, "area")
    else:
        band = _placed(pixels, num_in, height, lead, 0, fit.colour)
        square[:, place_out] = resize(band, (last - first) * step_out, size, "area")
    return square


def _on_canvas(pixels: Pixels, width: int, height: int, colour: Colour) -> Pixels:
    """A picture in the middle of a larger one; the smaller half of an odd margin is left and above."""
    left, top = (width - pixels.shape[1]) // 2, (height - pixels.shape[0]) // 2
    return _placed(pixels, width, height, left, top, colour)


def _placed(pixels: Pixels, width: int, height: int, left: int, top: int, colour: Colour) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    canvas = _canvas(width, height, colour)
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas


def _canvas(width: int, height: int, colour: Colour) -> Pixels:
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[0] = colour
    canvas[1:] = canvas[0]  # row by row: ten times faster than pixel by pixel
    return canvas


def fits_as_json(fits: Sequence[Fit]) -> list[str]:
    """The steps as text, for the key of cached results."""
    return [f"{fit.how} {fit.size_px} {fit.resampling} {fit.colour} {fit.rounding}" for fit in fits]
