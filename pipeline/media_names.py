"""Which file names are pictures and which are videos; decided without opening them and without loading a
decoder.
"""

import os.path
from typing import Literal

Kind = Literal["image", "video"]

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"}
)
VIDEO_SUFFIXES = frozenset(
    {".mkv", ".mp4", ".m4v", ".webm", ".avi", ".ts", ".m2ts", ".mov", ".wmv", ".flv", ".mpg", ".mpeg"}
)


def kind_of(name: str) -> Kind | None:
    """Say "image", "video" or None, by the suffix in any letter case."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix in VIDEO_SUFFIXES else None
