"""Embeddings of pictures by any ONNX image model, and every pair of them above a cosine, in blocks.

The model's first input is float32 (or float16), [pictures, 3, height, width] or [pictures, height, width, 3],
RGB; its first output is one vector a picture, or maps that are averaged over their places. Pictures are
scaled to the input, without regard to their shape, as near-duplicates have one shape.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.images import Pixels
    from pipeline.onnx import Session

Scale = Literal["imagenet", "zero-to-one", "minus-one-to-one", "levels"]

FREE_SIDE_PX = 224  # where the model takes any size
_BLOCK = 2_048
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB, 0 to 1


@dataclass(frozen=True, slots=True)
class Embedder:
    """A model with its way of taking pictures in."""

    session: "Session"
    scale: Scale

    @property
    def has_channels_first(self) -> bool:
        """[pictures, 3, height, width] rather than [pictures, height, width, 3]."""
        return self.session.input_shape[1] == 3

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the input, px."""
        shape = self.session.input_shape
        height, width = shape[2:] if self.has_channels_first else shape[1:3]
        return width or FREE_SIDE_PX, height or FREE_SIDE_PX

    def check(self, path: Path) -> None:
        """Refuse a model that takes no RGB pictures.

        Raises:
            InputError: another number of axes or channels, or another type.
        """
        shape, dtype = self.session.input_shape, self.session.input_dtype
        is_picture = len(shape) == 4 and (shape[1] == 3 or shape[3] == 3)
        if not is_picture or dtype not in ("float32", "float16"):
            raise InputError(
                f"{path} takes {dtype} {list(shape)}, not RGB pictures",
                hint="give a model with an input [pictures, 3, height, width] of float32",
            )

    def prepare(self, pixels: "Pixels") -> NDArray[np.float32]:
        """A picture as the model takes it, without the first axis."""
        import cv2

        small = cv2.resize(pixels, self.size, interpolation=cv2.INTER_AREA)
        if self.scale == "imagenet":
            small = np.asarray((small / 255 - np.array(_MEAN)) / np.array(_DEVIATION), np.float32)
        elif self.scale == "zero-to-one":
            small = small / 255
        elif self.scale == "minus-one-to-one":
            small = np.asarray(small / 127.5 - 1, np.float32)
        values = np.asarray(small, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1)) if self.has_channels_first else values

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float16]:
        """Vectors of length 1, [pictures, values], for pictures stacked as `prepare` gives them."""
        output = np.asarray(self.session.run(batch.astype(self.session.input_dtype))[0], np.float32)
        if output.ndim > 2:
            has_channels_first = self.has_channels_first and output.ndim == 4
            axes = tuple(range(2, output.ndim)) if has_channels_first else tuple(range(1, output.ndim - 1))
            output = output.mean(axis=axes)
        lengths = np.linalg.norm(output, axis=1, keepdims=True)
        unit: NDArray[np.float16] = (output / np.maximum(lengths, 1e-12)).astype(np.float16)
        return unit


def alike(vectors: NDArray[np.float16], least_cosine: float) -> Iterator[tuple[int, int, float]]:
    """Every pair (first < second, cosine) of at least a cosine; memory grows with the number of vectors only.

    Args:
        vectors: of length 1, [pictures, values].
    """
    for start in range(0, len(vectors), _BLOCK):
        rows = vectors[start : start + _BLOCK].astype(np.float32)
        for other in range(start, len(vectors), _BLOCK):
            cosines = rows @ vectors[other : other + _BLOCK].astype(np.float32).T
            for row, column in zip(*np.nonzero(cosines >= least_cosine), strict=True):
                first, second = start + int(row), other + int(column)
                if first < second:
                    yield first, second, float(cosines[row, column])
