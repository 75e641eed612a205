"""Which file names are pictures and which are videos; decided without opening them and without loading a
decoder.
"""

from typing import Literal

Kind = Literal["image", "video"]

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"}
)
VIDEO_SUFFIXES = frozenset(
    {".mkv", ".mp4", ".m4v", ".webm", ".avi", ".ts", ".m2ts", ".mov", ".wmv", ".flv", ".mpg", ".mpeg"}
)

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(IMAGE_SUFFIXES, "image"),
    **dict.fromkeys(VIDEO_SUFFIXES, "video"),
}


def kind_of(name: str) -> Kind | None:
    """Say "image", "video" or None, by the suffix in any letter case."""
    stem, dot, ending = name.rpartition(".")
    kind = _KINDS.get(dot + ending.lower())
    return kind if kind and stem.rpartition("/")[2].strip(".") else None  # `.png` has no suffix
