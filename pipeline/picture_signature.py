"""What is kept of one picture so that near-duplicates can be found: perceptual hashes and a small thumbnail.

Every picture goes the same way whatever its file: decoded as everywhere, reduced by whole halves to no less
than `_LEAST_PX` on the longer side (a JPEG by its decoder, all else by means of 2 x 2 pixels), then to the
thumbnail. Hashes of pictures that went another way differ by up to 23 of 64 bits, so the way has a name and a
version, RECIPE, which is part of the key under which signatures are cached: two recipes never meet.
"""

import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.images import Pixels, read_image

if TYPE_CHECKING:
    from pipeline.settings import Json

THUMB_PX = 192  # longer side
THUMB_QUALITY = 80
_LEAST_PX = 192
RECIPE: "dict[str, Json]" = {
    "decoder": "libjpeg-turbo, DCT scaling of JPEG",
    "reduction": f"halves to {_LEAST_PX} px, area to {THUMB_PX} px",
    "hash": "sign of 8 x 8 DCT of 32 x 32, dead zone",
    "version": 2,
}

# shares of the picture cut off at left, top, right and bottom before hashing: a crop, hashed whole, is near
# to one of these views of the picture it was cut from
VIEWS = (
    (0.0, 0.0, 0.0, 0.0),
    (0.025, 0.025, 0.025, 0.025),
    (0.05, 0.05, 0.05, 0.05),
    (0.05, 0.0, 0.0, 0.0),
    (0.0, 0.05, 0.0, 0.0),
    (0.0, 0.0, 0.05, 0.0),
    (0.0, 0.0, 0.0, 0.05),
)
_DCT_SIZE, _HASH_SIZE = 32, 8
_DEAD_ZONE = 24.0  # coefficients up to this are noise of codecs: 0.75 levels of mean amplitude
_HEAD = struct.Struct(f"<IIf{2 * len(VIEWS)}Q")

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Signature:
    """One picture, reduced to what finds its near-duplicates."""

    width_px: int
    height_px: int
    contrast: float  # standard deviation of the 32 x 32 grey cells, in levels; near 0 for black frames
    hashes: tuple[int, ...]  # 64 bits each, one for each of VIEWS
    mirrored: tuple[int, ...]  # the same of the mirror image
    thumb: bytes  # JPEG, RGB, THUMB_PX on the longer side

    def pack(self) -> bytes:
        """As bytes, for the catalogue."""
        head = _HEAD.pack(self.width_px, self.height_px, self.contrast, *self.hashes, *self.mirrored)
        return head + self.thumb

    @classmethod
    def unpack(cls, data: bytes) -> "Signature":
        """From what `pack` gave."""
        width, height, contrast, *hashes = _HEAD.unpack_from(data)
        half = len(hashes) // 2
        return cls(width, height, contrast, tuple(hashes[:half]), tuple(hashes[half:]), data[_HEAD.size :])


def sign(source: Path | bytes) -> Signature:
    """Read a picture and reduce it.

    Raises:
        UnreadableImageError: as `read_image`.
    """
    import cv2

    small, width, height = read_small(source, _LEAST_PX)
    thumb = reduced(small, THUMB_PX)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    cells = [_cells(np.asarray(grey, np.uint8), view) for view in VIEWS]
    coefficients = [_low_frequencies(one) for one in cells]
    is_encoded, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(thumb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, THUMB_QUALITY]
    )
    assert is_encoded
    return Signature(
        width,
        height,
        float(cells[0].std()),
        tuple(_bits(one) for one in coefficients),
        tuple(_bits(one * _MIRROR) for one in coefficients),
        encoded.tobytes(),
    )


def read_small(source: Path | bytes, least_px: int) -> tuple[Pixels, int, int]:
    """A picture halved until its longer side would be less than `least_px`, and its full width and height.

    A JPEG that is halved by its decoder and a PNG that is halved here come out nearly the same.

    Raises:
        UnreadableImageError: as `read_image`.
    """
    import cv2

    picture = read_image(source, reduce_to_px=least_px)
    width, height = picture.header.width_px, picture.header.height_px
    factor = 1
    while factor < 8 and max(width, height) >= 2 * factor * least_px:
        factor *= 2
    small = picture.pixels
    wanted = (-(-width // factor), -(-height // factor))
    if (small.shape[1], small.shape[0]) != wanted:
        small = cv2.resize(small, wanted, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return small, width, height


def reduced(pixels: Pixels, longest_px: int) -> Pixels:
    """Pixels scaled down so that the longer side has `longest_px`; smaller ones stay as they are."""
    import cv2

    height, width = pixels.shape[:2]
    scale = longest_px / max(width, height)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _cells(grey: NDArray[np.uint8], view: tuple[float, float, float, float]) -> NDArray[np.float32]:
    """Means over 32 x 32 equal parts of one of VIEWS."""
    import cv2

    height, width = grey.shape
    left, top = round(width * view[0]), round(height * view[1])
    right, bottom = width - round(width * view[2]), height - round(height * view[3])
    inner = grey[top : max(top + 1, bottom), left : max(left + 1, right)]
    cells = cv2.resize(inner, (_DCT_SIZE, _DCT_SIZE), interpolation=cv2.INTER_AREA)
    return cells.astype(np.float32)


def _low_frequencies(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """The 8 x 8 lowest coefficients of the orthonormal DCT-II, the mean among them, [8, 8]."""
    basis = _basis()
    return np.asarray(basis @ cells @ basis.T, np.float32)


@cache
def _basis() -> NDArray[np.float32]:
    places = (2 * np.arange(_DCT_SIZE) + 1) * np.pi / (2 * _DCT_SIZE)
    rows = np.cos(np.outer(np.arange(_HASH_SIZE), places)) * np.sqrt(2 / _DCT_SIZE)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, np.float32)


def _bits(coefficients: NDArray[np.float32]) -> int:
    """One bit a coefficient: whether it is clearly above nothing. The mean is left out: brightness varies."""
    is_set = coefficients.ravel() > _DEAD_ZONE
    is_set[0] = False
    return int.from_bytes(np.packbits(is_set).tobytes(), "big")


_MIRROR = np.where(np.arange(_HASH_SIZE) % 2, -1, 1).astype(np.float32)[None, :]
