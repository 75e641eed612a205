"""Measures on small grey copies of frames, by which frames are told apart; numpy and OpenCV, no video.

A grid is the luma of a frame reduced to about 320 cells across: uint8, or float32 for a mean of several
frames, [height, width], 0 black to 255 white. Differences are in the same levels. A cell is 6 px of a 1080p
frame, a box of `BOX_CELLS` about 30 px: smaller than a mouth in a close-up.
"""

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Grid: TypeAlias = NDArray[np.uint8]
FloatGrid: TypeAlias = NDArray[np.float32]
Kind = Literal["black", "white", "title"]

BOX_CELLS = 5
BASE_LEVELS = 2.0  # a box that changes less is the same to the eye
EDGE_SHARE = 0.04  # codecs leave noise in proportion to the detail of a box
NOISE_SHARE = 1.3  # of the noise measured in the scene, tolerated beside: its largest box of thousands

_VARIANCE_FLOOR = 4.0  # levels squared: noise on a flat picture is no structure
_MEAN_FLOOR = 60.0  # the same for brightness
_FLAT_VARIANCE = 9.0
_MOVE_WIDTH = 160  # cells; camera moves are sought on a grid this wide
_MOVED_LEVELS = 6.0  # of change that resampling explains
_MOVED_EDGE_SHARE = 0.5  # half a cell of misplacement is half a gradient
_LEFT_OVER_SHARE = 0.04


def box_mean(values: FloatGrid) -> FloatGrid:
    """Mean over the `BOX_CELLS` square around each cell, same shape."""
    import cv2

    return cv2.boxFilter(values, cv2.CV_32F, (BOX_CELLS, BOX_CELLS))  # type: ignore[return-value]


def box_change(a: FloatGrid, b: FloatGrid) -> FloatGrid:
    """Mean absolute difference over the box around each cell, in levels, [height, width]."""
    import cv2

    return box_mean(cv2.absdiff(a, b))  # type: ignore[arg-type]


def detail(grid: FloatGrid) -> FloatGrid:
    """Mean absolute gradient over the box around each cell, in levels a cell, [height, width]."""
    import cv2

    return box_mean(cv2.absdiff(grid, np.roll(grid, 1, 0)) + cv2.absdiff(grid, np.roll(grid, 1, 1)))


def tolerance(grid: FloatGrid, noise_levels: float, base_levels: float = BASE_LEVELS) -> FloatGrid:
    """Change of each box that noise explains, in levels, [height, width].

    Args:
        grid: the picture that others are compared with.
        noise_levels: median box change between frames of one held picture.
        base_levels: tolerated everywhere.
    """
    return base_levels + NOISE_SHARE * noise_levels + EDGE_SHARE * detail(grid)


def excess(a: FloatGrid, b: FloatGrid, tolerated: FloatGrid) -> float:
    """Largest box change as a multiple of what is tolerated there; up to 1 the pictures are the same."""
    return float((box_change(a, b) / tolerated).max())


def is_same(a: FloatGrid, b: FloatGrid, tolerated: FloatGrid) -> bool:
    """Say whether no box changes by more than is tolerated there."""
    import cv2

    _, most, _, _ = cv2.minMaxLoc(cv2.subtract(box_change(a, b), tolerated))
    return most <= 0


def mean_and_median_change(a: Grid, b: Grid) -> tuple[float, float]:
    """Mean absolute difference of two grids, and the median of its means over `BOX_CELLS` squares, in levels.

    Where less than half of a picture moves, the median is the noise.
    """
    import cv2

    height, width = a.shape
    size = (max(1, width // BOX_CELLS), max(1, height // BOX_CELLS))
    boxes = cv2.resize(cv2.absdiff(a, b).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    middle = boxes.size // 2
    return float(boxes.mean()), float(np.partition(boxes, middle, axis=None)[middle])


def halved(grid: Grid) -> FloatGrid:
    """Means over 2 x 2 cells, float32, [height / 2, width / 2]."""
    import cv2

    height, width = grid.shape
    size = (max(1, width // 2), max(1, height // 2))
    return cv2.resize(grid[: size[1] * 2, : size[0] * 2], size, interpolation=cv2.INTER_AREA).astype(
        np.float32
    )


def structure_distance(
    mean_a: float, var_a: float, mean_b: float, var_b: float, var_difference: float
) -> float:
    """How little two pictures have in common: 0 the same, about 1 unrelated, more for a negative.

    One minus the structural similarity of the whole picture (Wang et al. 2004, eq. 13, one window), from
    means and variances alone: 2 cov(a, b) = var a + var b - var (a - b).
    """
    both = var_a + var_b
    structure = (both - var_difference + _VARIANCE_FLOOR) / (both + _VARIANCE_FLOOR)
    brightness = (2 * mean_a * mean_b + _MEAN_FLOOR) / (mean_a**2 + mean_b**2 + _MEAN_FLOOR)
    return 1.0 - structure * brightness


def distance(a: FloatGrid, b: FloatGrid) -> float:
    """`structure_distance` of two grids."""
    mean_a, var_a = mean_and_variance(a)
    mean_b, var_b = mean_and_variance(b)
    return structure_distance(mean_a, var_a, mean_b, var_b, mean_and_variance(a - b)[1])


def mean_and_variance(grid: FloatGrid) -> tuple[float, float]:
    """Mean in levels, variance in levels squared."""
    import cv2

    mean, deviation = cv2.meanStdDev(grid)
    return float(mean[0, 0]), float(deviation[0, 0]) ** 2


def thumb(grid: FloatGrid) -> NDArray[np.float32]:
    """Means over 9 x 16 equal parts, [144], in levels: a lower bound of change that is quick to compare."""
    height, width = grid.shape
    rows = np.linspace(0, height, 10).astype(int)
    columns = np.linspace(0, width, 17).astype(int)
    sums = np.add.reduceat(np.add.reduceat(grid, rows[:-1], 0), columns[:-1], 1)
    means: NDArray[np.float32] = (sums / np.outer(np.diff(rows), np.diff(columns))).astype(np.float32)
    return means.ravel()


def is_flat(grid: FloatGrid) -> bool:
    """Say whether a picture is one even tone."""
    return mean_and_variance(grid)[1] < _FLAT_VARIANCE


def kind_of_picture(grid: FloatGrid) -> Kind | None:
    """Say whether a picture is all black, all white, or writing on a plain ground; None is a picture.

    A title or a page of credits has one even ground over at least 85 % of its cells, and the rest of it, the
    letters, is thin: few of its cells lie in the middle of something.
    """
    mean, variance = mean_and_variance(grid)
    if variance < _FLAT_VARIANCE:
        return "black" if mean < 25 else "white" if mean > 225 else None
    histogram = np.bincount(grid.astype(np.uint8).ravel() >> 2, minlength=64)
    ground = (int(histogram.argmax()) << 2) + 2
    is_drawn = np.abs(grid - ground) > 12
    share = float(is_drawn.mean())
    if not 0.0005 < share < 0.15:
        return None
    is_inside = box_mean(is_drawn.astype(np.float32)) > 0.99
    return "title" if float(is_inside.mean()) < 0.1 * share else None


def shift_between(a: FloatGrid, b: FloatGrid) -> tuple[float, float, float]:
    """Cells that the content went right and down from `a` to `b`, and how clear that is, 0 to 1.

    Phase correlation under a Hanning window (OpenCV).
    """
    import cv2

    height, width = a.shape
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    # OpenCV multiplies its arguments by the window in place
    (right, down), response = cv2.phaseCorrelate(a.copy(), b.copy(), window)
    return right, down, response


def motion_extent(a: FloatGrid, b: FloatGrid) -> float | None:
    """How far things went from `a` to `b`, as a share of the width, or None when movement is not all of it.

    Explains pans, zooms, and layers that slide over each other, as a background behind a character: first
    each box may stand still or go with the one shift between the pictures, then each may go its own way
    (dense inverse search optical flow, Kroeger et al. 2016, in OpenCV). Fewer than 4 % of the boxes may be
    left.
    """
    import cv2

    height, width = a.shape
    size = (_MOVE_WIDTH, max(16, round(height * _MOVE_WIDTH / width)))
    a = cv2.resize(a, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    b = cv2.resize(b, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    tolerated = _MOVED_LEVELS + _MOVED_EDGE_SHARE * detail(b)
    is_left = box_change(a, b) > tolerated
    if float(is_left.mean()) < _LEFT_OVER_SHARE:
        return 0.0
    right, down, _ = shift_between(a, b)
    shift = np.array([[1, 0, right], [0, 1, down]], np.float32)
    is_left_shifted = is_left & (box_change(cv2.warpAffine(a, shift, size), b) > tolerated)  # type: ignore[arg-type]
    edge = _revealed(b.shape, right, down)
    if float(is_left_shifted[edge].sum()) < _LEFT_OVER_SHARE * is_left.size:
        return max(abs(right), abs(down)) / _MOVE_WIDTH
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(
        np.rint(b).astype(np.uint8),
        np.rint(a).astype(np.uint8),
        None,  # type: ignore[call-overload]
    )
    columns, rows = np.meshgrid(np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32))
    moved = cv2.remap(a, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR)
    if float((box_change(moved, b) > tolerated).mean()) >= _LEFT_OVER_SHARE:  # type: ignore[arg-type]
        return None
    lengths = np.hypot(flow[..., 0], flow[..., 1])
    return float(np.quantile(lengths, 0.95)) / _MOVE_WIDTH


def _revealed(shape: tuple[int, ...], right: float, down: float) -> tuple[slice, slice]:
    """The part of a picture that was in sight before it shifted."""
    height, width = shape
    x, y = round(right), round(down)
    return slice(max(0, y), height + min(0, y)), slice(max(0, x), width + min(0, x))
