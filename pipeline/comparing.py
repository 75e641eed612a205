"""Compares pictures of a set in two steps: their stored thumbnails tell the clearly different apart, then the
files themselves are read at 640 px. What was found is remembered by content.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.images import Pixels, read_image
from pipeline.picture_signature import Signature, read_small, reduced
from pipeline.same_picture import CLEARLY_DIFFERENT, Comparison, Raster, compare
from pipeline.settings import Json

FINE_PX = 640  # longer side: a mouth of 1 % of the width has six cells
VERSION = 2  # of how pictures are compared
KEY: dict[str, Json] = {"version": VERSION, "px": FINE_PX}
_RASTERS, _THUMBS = 160, 4_096  # kept in memory: about 110 MB and 200 MB
_LIGHT_SHAPE = (9, 16)

Pair = tuple[int, int, bool]  # content ids, the smaller first; whether one is mirrored


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture of the set."""

    id: int  # of its content
    path: Path
    signature: Signature


@dataclass(slots=True)
class Comparer:
    """Compares pictures by their places in `entries`; any number of threads may ask at once.

    Args:
        entries: the set.
        known: what earlier runs found, by pair.
        is_exact: only pictures that agree in every sample are the same.
    """

    entries: Sequence[Entry]
    known: Mapping[Pair, Comparison]
    is_exact: bool = False
    found: dict[Pair, Comparison] = field(default_factory=dict)
    num_compared: int = 0

    def __post_init__(self) -> None:
        self._thumb = lru_cache(_THUMBS)(self._read_thumb)
        self._pixels = lru_cache(_RASTERS)(self._read_pixels)

    _thumb: Any = field(init=False, repr=False)
    _pixels: Any = field(init=False, repr=False)

    def compare(self, first: int, second: int, *, is_mirrored: bool = False) -> Comparison:
        """What the second is to the first."""
        a, b = self.entries[first].id, self.entries[second].id
        pair = (min(a, b), max(a, b), is_mirrored)
        found = self.known.get(pair) or self.found.get(pair)
        if found is None:
            self.num_compared += 1
            places = (first, second) if a < b else (second, first)
            found = self._compare(*places, is_mirrored=is_mirrored)
        return found if a < b else found.turned()

    def _compare(self, first: int, second: int, *, is_mirrored: bool) -> Comparison:
        if self.is_exact:
            return self._compare_exactly(first, second)
        coarse = compare(self._thumb(first, False), self._thumb(second, is_mirrored), limit=CLEARLY_DIFFERENT)
        if not coarse.is_same:
            return coarse
        fine = compare(self._raster(first, False), self._raster(second, is_mirrored))
        a, b = self.entries[first].id, self.entries[second].id
        self.found[a, b, is_mirrored] = fine
        return fine

    def _compare_exactly(self, first: int, second: int) -> Comparison:
        a, b = self.entries[first], self.entries[second]
        sizes = [(one.signature.width_px, one.signature.height_px) for one in (a, b)]
        if sizes[0] != sizes[1]:
            return Comparison(False, float("inf"))
        is_same = bool((read_image(a.path).pixels == read_image(b.path).pixels).all())
        return Comparison(is_same, 0.0 if is_same else float("inf"))

    def _raster(self, place: int, is_mirrored: bool) -> Raster:
        signature = self.entries[place].signature
        longest_px = max(signature.width_px, signature.height_px)
        raster = Raster(self._pixels(place), longest_px)
        return raster.mirrored() if is_mirrored else raster

    def _read_thumb(self, place: int, is_mirrored: bool) -> Raster:
        raster = Raster(decode_thumb(self.entries[place].signature.thumb))
        return raster.mirrored() if is_mirrored else raster

    def _read_pixels(self, place: int) -> Pixels:
        small, _, _ = read_small(self.entries[place].path, round(FINE_PX * 1.5))
        return reduced(small, FINE_PX)

    def light(self, place: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Means of the grey thumbnail over 9 x 16 parts, less their mean, [144]: quick to compare."""
        import cv2

        grey = self._thumb(place, False).rgb.mean(axis=2)
        cells = cv2.resize(grey, _LIGHT_SHAPE[::-1], interpolation=cv2.INTER_AREA).ravel()
        return np.asarray(cells - cells.mean(), np.float32)


def decode_thumb(data: bytes) -> Pixels:
    """RGB of a signature's thumbnail."""
    import cv2

    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def pack(found: Mapping[Pair, Comparison]) -> dict[int, dict[str, Json]]:
    """What was found, by the first content of each pair, as JSON."""
    packed: dict[int, dict[str, Json]] = {}
    for (first, second, is_mirrored), one in found.items():
        values = list(astuple(one))
        values[1] = round(min(one.excess, 1e6), 3)  # JSON knows no infinity
        packed.setdefault(first, {})[f"{second}{'m' if is_mirrored else ''}"] = values
    return packed


def unpack(first: int, packed: Mapping[str, Sequence[Any]]) -> dict[Pair, Comparison]:
    """From what `pack` gave for one content."""
    return {
        (first, int(name.rstrip("m")), name.endswith("m")): Comparison(*values)
        for name, values in packed.items()
    }
