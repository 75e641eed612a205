"""Which of several files of one picture is the best: how much they resolve, and how well they keep it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.images import hash_pixels, read_image

Grey = NDArray[np.float32]

VERSION = 1  # of how files are judged

_HALVINGS = 3
_LEFT_BY_HALVING = 0.72  # of what is fine in a picture, when it was scaled up; else a third to two thirds
_LOSSLESS_BITS = 1e6
# bits that a format spends for what JPEG does with one, roughly
_THRIFT = {"JPEG": 1.0, "WEBP": 1.35, "AVIF": 2.0}
_AS_LARGE = 0.85
_AS_SHARP = 0.75


@dataclass(frozen=True, slots=True)
class Quality:
    """One file of a picture."""

    pixels_sha256: str
    num_px: int
    resolved_px: float  # pixels that a file as good would need: less than num_px where it was scaled up
    sharpness: float  # mean absolute Laplacian at one common size, for contrast
    bits_per_px: float  # as JPEG would need; very many where nothing was lost

    def rank(self, largest_px: float, sharpest: float) -> tuple[float, ...]:
        """Better files of one picture have larger ranks: size, then sharpness, then compression.

        Args:
            largest_px: most `resolved_px` among them; what is nearly as large is as large.
            sharpest: most `sharpness` among them; compression alone makes a picture a little sharper.
        """
        return (
            float(self.resolved_px >= _AS_LARGE * largest_px),
            float(self.sharpness >= _AS_SHARP * sharpest),
            self.resolved_px if self.resolved_px < _AS_LARGE * largest_px else 0.0,
            round(self.bits_per_px, 1),
            float(self.num_px),
        )


def measure(data: bytes) -> Quality:
    """Decode a file and judge it.

    Raises:
        UnreadableImageError: as `read_image`.
    """
    import cv2

    picture = read_image(data)
    pixels = picture.pixels
    height, width = pixels.shape[:2]
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    is_lossless = picture.header.format not in _THRIFT or _is_lossless_webp(data)
    bits = (
        _LOSSLESS_BITS if is_lossless else 8 * len(data) / (width * height) * _THRIFT[picture.header.format]
    )
    return Quality(hash_pixels(pixels), width * height, _resolved_px(grey), _sharpness(grey), bits)


def _is_lossless_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP" and b"VP8L" in data[12:64]


def _resolved_px(grey: Grey) -> float:
    """Pixels left when a picture is halved as long as that takes hardly anything away."""
    import cv2

    area = float(grey.size)
    for _ in range(_HALVINGS):
        height, width = grey.shape[:2]
        if min(height, width) < 64:
            break
        half = cv2.resize(grey, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        again = cv2.resize(half, (width, height), interpolation=cv2.INTER_CUBIC)
        if _fineness(np.asarray(again, np.float32)) < _LEFT_BY_HALVING * _fineness(grey):
            break
        area /= 4
        grey = half  # type: ignore[assignment]
    return area


def _fineness(grey: Grey) -> float:
    import cv2

    return float(np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean())


def _sharpness(grey: Grey) -> float:
    """At 1,024 px on the longer side, so that files of several sizes can be compared."""
    import cv2

    height, width = grey.shape[:2]
    scale = 1024 / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    same = cv2.resize(grey, size, interpolation=way)
    return 50 * _fineness(np.asarray(same, np.float32)) / (float(same.std()) + 4)  # brightness aside
