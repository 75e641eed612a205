"""Memory of kept pictures: has this one come before, in this episode or in another?"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.grids import BASE_LEVELS, BOX_AREA, BoxSums, Grid, is_same, motion_extent, thumb, tolerance

SIGNATURE_SIZE = (96, 54)  # cells across and down
_SAME_BASE = 1.2 * BASE_LEVELS  # two showings of a picture are compressed differently
_LIKE_SHARE = 0.6  # correlation of thumbs above which movement is sought


class PictureMemory:
    """Kept pictures of one episode."""

    def __init__(self) -> None:
        self._grids: list[Grid] = []
        self._thumbs = np.empty((64, 144), np.float32)

    def __len__(self) -> int:
        return len(self._grids)

    def add(self, grid: Grid) -> None:
        """Remember a picture, [height, width]."""
        if len(self._grids) == len(self._thumbs):
            self._thumbs = np.concatenate([self._thumbs, np.empty_like(self._thumbs)])
        self._thumbs[len(self._grids)] = thumb(grid)
        self._grids.append(grid)

    def holds(self, grid: Grid, noise_levels: float) -> bool:
        """Say whether a picture came before: no box of it differs by more than noise."""
        mine = thumb(grid)
        tolerated = tolerance(grid, noise_levels, _SAME_BASE)
        nearest = np.abs(self._thumbs[: len(self._grids)] - mine).max(axis=1)
        # a part of a thumb, a whole number, cannot differ by more than the worst box in it
        candidates = np.flatnonzero(nearest <= float(tolerated.max()) / BOX_AREA + 1)
        return any(
            self._is_same(int(index), grid, tolerated)
            for index in candidates[np.argsort(nearest[candidates])][:32]
        )

    def _is_same(self, index: int, grid: Grid, tolerated: BoxSums) -> bool:
        other = self._grids[index]
        return other.shape == grid.shape and is_same(other, grid, tolerated)

    def holds_moved(self, grid: Grid, least_extent: float) -> bool:
        """Say whether movement of less than `least_extent` of the width leads here from a picture kept."""
        if not self._grids:
            return False
        mine = _standard(thumb(grid))
        likeness = _standard(self._thumbs[: len(self._grids)]) @ mine / mine.size
        for index in np.argsort(-likeness)[:4]:
            if likeness[index] < _LIKE_SHARE:
                return False
            other = self._grids[index]
            if other.shape != grid.shape:
                continue
            extent = motion_extent(other, grid)
            if extent is not None and extent < least_extent:
                return True
        return False


def _standard(thumbs: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = thumbs - thumbs.mean(axis=-1, keepdims=True)
    standard: NDArray[np.float32] = centred / (centred.std(axis=-1, keepdims=True) + np.float32(1))
    return standard


def signature(grid: Grid) -> bytes:
    """A picture as 54 x 96 grey cells, one byte each, row by row: what other episodes are compared with."""
    import cv2

    small = cv2.resize(grid, SIGNATURE_SIZE, interpolation=cv2.INTER_AREA)
    return small.tobytes()


class SignatureIndex:
    """Pictures kept from other episodes, by their signatures."""

    def __init__(self, signatures: Iterable[bytes] = ()) -> None:
        self._cells = np.empty((0, SIGNATURE_SIZE[1] * SIGNATURE_SIZE[0]), np.uint8)
        self._thumbs = np.empty((0, 144), np.float32)
        self.extend(list(signatures))

    def __len__(self) -> int:
        return len(self._cells)

    def extend(self, signatures: Sequence[bytes]) -> None:
        """Add the pictures of one more episode."""
        if not signatures:
            return
        cells = np.frombuffer(b"".join(signatures), np.uint8).reshape(len(signatures), -1)
        grids = cells.reshape(-1, SIGNATURE_SIZE[1], SIGNATURE_SIZE[0])
        self._cells = np.concatenate([self._cells, cells])
        self._thumbs = np.concatenate([self._thumbs, np.stack([thumb(grid) for grid in grids])])

    def holds(self, one: bytes) -> bool:
        """Say whether a picture of this signature was kept: no cell differs by more than a codec explains."""
        grid = np.frombuffer(one, np.uint8).reshape(SIGNATURE_SIZE[1], SIGNATURE_SIZE[0])
        tolerated = _cell_tolerance(grid)
        nearest = np.abs(self._thumbs - thumb(grid)).max(axis=1) if len(self) else np.empty(0)
        candidates = np.flatnonzero(nearest <= float(tolerated.max()) + 1)
        others = self._cells[candidates].reshape(-1, *grid.shape).astype(np.float32)
        return bool((np.abs(others - grid) <= tolerated).all(axis=(1, 2)).any())


def _cell_tolerance(grid: Grid) -> NDArray[np.float32]:
    cells = grid.astype(np.float32)
    across = np.abs(np.diff(cells, axis=1, prepend=cells[:, :1]))
    down = np.abs(np.diff(cells, axis=0, prepend=cells[:1]))
    return np.float32(_SAME_BASE) + np.float32(0.06) * (across + down)
