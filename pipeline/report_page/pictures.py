"""The small pictures of a report: which are shown, and how they are made."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipeline.catalog import MediaFile
from pipeline.settings import Json

VERSION = 1  # of the way small pictures are made
QUALITY = 78  # of WebP

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """Makes the small picture of a file; what `Job.map` calls."""

    side_px: int

    @property
    def key(self) -> dict[str, Json]:
        """What the bytes depend on."""
        return {"side_px": self.side_px, "quality": QUALITY, "version": VERSION}

    def __call__(self, file: MediaFile) -> bytes:
        """A WebP whose longer side has at most `side_px`.

        Raises:
            UnreadableImageError: the picture cannot be decoded.
        """
        from PIL import Image

        from pipeline.images import read_image

        image = Image.fromarray(read_image(file.path).pixels)
        image.thumbnail((self.side_px, self.side_px), Image.Resampling.LANCZOS, reducing_gap=3.0)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=QUALITY, method=4)
        return buffer.getvalue()


def read_size(file: MediaFile) -> dict[str, Json]:
    """Width and height of a picture, from its header.

    Raises:
        UnreadableImageError: empty, not a picture, too many pixels.
    """
    from pipeline.images import probe_image

    header = probe_image(file.path)
    return {"width_px": header.width_px, "height_px": header.height_px}


def quotas(sizes: Mapping[T, int], most: int) -> dict[T, int]:
    """Share out how many of each folder are shown: small ones whole, large ones equally many.

    Args:
        most: of all folders together; 0 shows everything.
    """
    if most == 0 or sum(sizes.values()) <= most:
        return dict(sizes)
    found: dict[T, int] = {}
    left = most
    for place, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        found[name] = min(size, left // (len(sizes) - place))
        left -= found[name]
    return found


def spread(items: Sequence[T], number: int) -> list[T]:
    """So many items, evenly spread over a sequence, in its order."""
    return [items[(2 * index + 1) * len(items) // (2 * number)] for index in range(number)]
