"""What a frame shows when it shows no scene: black, white, or writing on a plain ground."""

from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.grids import BOX_AREA, FLAT_VARIANCE, Grid, box_sums, mean_and_variance

Kind = Literal["black", "white", "title"]
_Mask: TypeAlias = NDArray[np.uint8]  # 0 or 1 a cell

_DRAWN_LEVELS = 12  # from the ground
_LEAST_DRAWN, _MOST_DRAWN = 0.0005, 0.15  # of the picture
_BOLD_SHARE = 0.1  # of what is drawn lies in the middle of something
_LEAST_OF_ONE_TONE = 0.7  # of the middle of bold letters; a figure has skin, hair and clothes
_TONE_LEVELS = 16
_TALLEST_LINE = 0.27  # of the picture
_STROKES_A_ROW = 3.4  # cut by a row of cells through a line of letters; a figure has two legs
_MOST_OF_BOUNDS = 0.85  # letters leave parts of their bounding boxes free, lit windows do not
_LEAST_WRITTEN = 0.8  # of what is drawn


def kind_of_picture(grid: Grid) -> Kind | None:
    """Say whether a picture is all black, all white, or writing on a plain ground; None is a picture.

    A title or a page of credits has one even ground over at least 85 % of its cells, and nearly all the rest
    are lines of letters, across or down.
    """
    mean, variance = mean_and_variance(grid)
    if variance < FLAT_VARIANCE:
        return "black" if mean < 25 else "white" if mean > 225 else None
    histogram = np.bincount(grid.ravel() >> 2, minlength=64)
    ground = (int(histogram.argmax()) << 2) + 2
    drawn = (np.abs(grid.astype(np.int16) - ground) > _DRAWN_LEVELS).view(np.uint8)
    share = float(drawn.mean())
    if not _LEAST_DRAWN < share < _MOST_DRAWN:
        return None
    is_title = _is_inked(grid, drawn) and _is_shaped(drawn) and _is_in_lines(drawn)
    return "title" if is_title else None


def _is_inked(grid: Grid, drawn: _Mask) -> bool:
    """Thin, or in the middle of one tone."""
    import cv2

    num_inside = np.count_nonzero(box_sums(drawn) == BOX_AREA)
    if num_inside < _BOLD_SHARE * np.count_nonzero(drawn):
        return True
    tones = grid[cv2.erode(drawn, np.ones((3, 3), np.uint8)) > 0].astype(np.int16)
    return float((np.abs(tones - np.median(tones)) <= _TONE_LEVELS).mean()) >= _LEAST_OF_ONE_TONE


def _is_shaped(drawn: _Mask) -> bool:
    """Whether what hangs together does not fill its bounding boxes."""
    import cv2

    found = cv2.connectedComponentsWithStats(drawn, connectivity=8)[2][1:].astype(np.float64)
    areas, bounds = found[:, cv2.CC_STAT_AREA], found[:, cv2.CC_STAT_WIDTH] * found[:, cv2.CC_STAT_HEIGHT]
    return float((areas * areas / bounds).sum()) <= _MOST_OF_BOUNDS * float(areas.sum())


def _is_in_lines(drawn: _Mask) -> bool:
    """Whether nearly all of it is lines of writing, all of them across or all of them down."""
    wanted = _LEAST_WRITTEN * np.count_nonzero(drawn)
    return any(_num_written(cells) >= wanted for cells in (drawn, drawn.T))


def _num_written(drawn: _Mask) -> int:
    """Drawn cells in lines of letters: low, and cut into many strokes by every row."""
    written = 0
    for top, bottom in _occupied(drawn.max(axis=1), 1):
        height = bottom - top
        if height > _TALLEST_LINE * len(drawn):
            continue
        for left, right in _occupied(drawn[top:bottom].max(axis=0), height):  # letters stand close together
            line = drawn[top:bottom, left:right]
            lengths = line.sum(axis=1)
            strokes = (np.diff(line.astype(np.int8), axis=1, prepend=0) == 1).sum(axis=1)
            if float((strokes * lengths).sum()) >= _STROKES_A_ROW * float(lengths.sum()):
                written += int(lengths.sum())
    return written


def _occupied(is_drawn: _Mask, widest_gap: int) -> Iterator[tuple[int, int]]:
    """Stretches, first and one past the last, parted by gaps that are wider."""
    places = np.flatnonzero(is_drawn)
    parts = np.split(places, np.flatnonzero(np.diff(places) > widest_gap) + 1)
    return ((int(part[0]), int(part[-1]) + 1) for part in parts)
