"""Measures on small grey copies of frames, by which frames are told apart; numpy and OpenCV, no video.

A grid is the luma of a frame reduced to about 320 cells across: uint8, [height, width], 0 black to 255 white.
Differences are in the same levels; what is said of boxes is summed over their 25 cells, as uint16, which is
several times faster than means in floats. A cell is 6 px of a 1080p frame, a box of `BOX_CELLS` about 30 px:
smaller than a mouth in a close-up.
"""

from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Grid: TypeAlias = NDArray[np.uint8]
BoxSums: TypeAlias = NDArray[np.uint16]
FloatGrid: TypeAlias = NDArray[np.float32]

BOX_CELLS = 5
BOX_AREA = BOX_CELLS**2
BASE_LEVELS = 2.0  # a box that changes less is the same to the eye
EDGE_SHARE = 0.04  # codecs leave noise in proportion to the detail of a box
FLAT_VARIANCE = 9.0  # levels squared, of one even tone under noise
NOISE_SHARE = 1.3  # of the noise measured in the scene, tolerated beside: its largest box of thousands

_VARIANCE_FLOOR = 4.0  # levels squared: noise on a flat picture is no structure
_MEAN_FLOOR = 60.0  # the same for brightness
_MOVE_WIDTH = 160  # cells; camera moves are sought on a grid this wide
_MOVED_LEVELS = 6.0  # of change that resampling explains
_MOVED_EDGE_SHARE = 0.5  # half a cell of misplacement is half a gradient
_LEFT_OVER_SHARE = 0.04


def box_sums(values: Grid) -> BoxSums:
    """Sum over the `BOX_CELLS` square around each cell, same shape."""
    import cv2

    return cv2.boxFilter(values, cv2.CV_16U, (BOX_CELLS, BOX_CELLS), normalize=False)  # type: ignore[return-value]


def box_change(a: Grid, b: Grid) -> BoxSums:
    """Summed absolute difference over the box around each cell, [height, width]."""
    import cv2

    return box_sums(cv2.absdiff(a, b))  # type: ignore[arg-type]


def detail(grid: Grid) -> BoxSums:
    """Summed absolute gradient over the box around each cell, in levels a cell, [height, width]."""
    import cv2

    gradient = np.zeros_like(grid)
    cv2.absdiff(grid[1:], grid[:-1], gradient[1:])
    cv2.add(gradient[:, 1:], cv2.absdiff(grid[:, 1:], grid[:, :-1]), gradient[:, 1:])
    return box_sums(gradient)


def tolerance(grid: Grid, noise_levels: float, base_levels: float = BASE_LEVELS) -> BoxSums:
    """Change of each box that noise explains, summed over the box, [height, width].

    Args:
        grid: the picture that others are compared with.
        noise_levels: median box change between frames of one held picture.
        base_levels: tolerated everywhere.
    """
    import cv2

    sums, anywhere = detail(grid), (base_levels + NOISE_SHARE * noise_levels) * BOX_AREA
    return cv2.addWeighted(sums, EDGE_SHARE, sums, 0.0, anywhere)  # type: ignore[return-value]


def changes_less(a: Grid, b: Grid, tolerated: BoxSums, times: Fraction) -> bool:
    """Say whether every box changes by less than so many times what is tolerated there.

    Args:
        times: with terms up to 5, as integers of 16 bits are compared.
    """
    change = box_change(a, b)
    return bool((change * np.uint16(times.denominator) < tolerated * np.uint16(times.numerator)).all())


def is_same(a: Grid, b: Grid, tolerated: BoxSums) -> bool:
    """Say whether no box changes by more than is tolerated there."""
    import cv2

    change = cv2.absdiff(a, b)
    least_tolerated, _, _, _ = cv2.minMaxLoc(tolerated)
    _, most_of_a_cell, _, _ = cv2.minMaxLoc(change)
    if most_of_a_cell * BOX_AREA <= least_tolerated:  # a held picture: no sum can be more
        return True
    return not cv2.countNonZero(cv2.subtract(box_sums(change), tolerated))  # type: ignore[arg-type]


def mean_change(a: Grid, b: Grid) -> float:
    """Mean absolute difference of two grids, in levels."""
    import cv2

    return float(cv2.norm(a, b, cv2.NORM_L1)) / a.size


def mean_and_median_change(a: Grid, b: Grid) -> tuple[float, float]:
    """Mean absolute difference of two grids, and the median of its means over boxes, in levels.

    Where less than half of a picture moves, the median is the noise.
    """
    apart = 2 * BOX_CELLS  # every fourth box tells as much
    boxes = box_change(a, b)[BOX_CELLS // 2 :: apart, BOX_CELLS // 2 :: apart].ravel()
    middle = boxes.size // 2
    median = float(np.partition(boxes, middle)[middle]) / BOX_AREA if boxes.size else 0.0
    return mean_change(a, b), median


def halved(grid: Grid) -> Grid:
    """Means over 2 x 2 cells, [height / 2, width / 2]."""
    import cv2

    height, width = grid.shape
    size = (max(1, width // 2), max(1, height // 2))
    return cv2.resize(grid[: size[1] * 2, : size[0] * 2], size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


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


def distance(a: Grid, b: Grid) -> float:
    """`structure_distance` of two grids."""
    mean_a, var_a = mean_and_variance(a)
    mean_b, var_b = mean_and_variance(b)
    return structure_distance(mean_a, var_a, mean_b, var_b, variance_of_difference(a, b, mean_a - mean_b))


def mean_and_variance(grid: Grid) -> tuple[float, float]:
    """Mean in levels, variance in levels squared."""
    import cv2

    mean, deviation = cv2.meanStdDev(grid)
    return float(mean[0, 0]), float(deviation[0, 0]) ** 2


def variance_of_difference(a: Grid, b: Grid, mean_difference: float) -> float:
    """Variance of a - b, in levels squared."""
    import cv2

    return max(0.0, float(cv2.norm(a, b, cv2.NORM_L2SQR)) / a.size - mean_difference**2)


def thumb(grid: Grid) -> FloatGrid:
    """Means over 9 x 16 equal parts, [144], in levels: a lower bound of change that is quick to compare."""
    import cv2

    parts = cv2.resize(grid, (16, 9), interpolation=cv2.INTER_AREA)
    return parts.astype(np.float32).ravel()


def is_flat(grid: Grid) -> bool:
    """Say whether a picture is one even tone."""
    return mean_and_variance(grid)[1] < FLAT_VARIANCE


def shift_between(a: Grid, b: Grid) -> tuple[float, float, float]:
    """Cells that the content went right and down from `a` to `b`, and how clear that is, 0 to 1.

    Phase correlation under a Hanning window (OpenCV).
    """
    import cv2

    height, width = a.shape
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    # copies, as OpenCV multiplies its arguments by the window in place
    (right, down), response = cv2.phaseCorrelate(a.astype(np.float32), b.astype(np.float32), window)
    return right, down, response


def motion_extent(a: Grid, b: Grid) -> float | None:
    """How far things went from `a` to `b`, as a share of the width, or None when movement is not all of it.

    Explains pans, zooms, and layers that slide over each other, as a background behind a character: each box
    may stand still or go with the one shift between the pictures, found by phase correlation or by trial;
    else each may go its own way (dense inverse search optical flow, Kroeger et al. 2016, in OpenCV). Fewer
    than 4 % of the boxes may be left; what came into sight at the edges, or from behind a figure that stands
    still, is not counted.
    """
    import cv2

    height, width = a.shape
    size = (_MOVE_WIDTH, max(16, round(height * _MOVE_WIDTH / width)))
    a = cv2.resize(a, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    b = cv2.resize(b, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    sums = detail(b)
    tolerated: BoxSums = cv2.addWeighted(sums, _MOVED_EDGE_SHARE, sums, 0.0, _MOVED_LEVELS * BOX_AREA)  # type: ignore[assignment]
    is_left = box_change(a, b) > tolerated
    most_left = _LEFT_OVER_SHARE * is_left.size
    if is_left.sum() < most_left:
        return 0.0
    for right, down in (shift_between(a, b)[:2], _layer_shift(a, b, is_left)):
        is_left_shifted = _left_of_layers(a, b, is_left, tolerated, (right, down))
        if is_left_shifted[_revealed(b.shape, right, down)].sum() < most_left:
            return max(abs(right), abs(down)) / _MOVE_WIDTH
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(b, a, None)  # type: ignore[call-overload]
    columns, rows = np.meshgrid(np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32))
    moved: Grid = cv2.remap(a, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR)  # type: ignore[assignment]
    if (box_change(moved, b) > tolerated).sum() >= most_left:
        return None
    lengths = np.hypot(flow[..., 0], flow[..., 1])
    return float(np.quantile(lengths, 0.95)) / _MOVE_WIDTH


def _shifted(a: Grid, right: float, down: float) -> Grid:
    """A picture moved right and down, black where nothing came from."""
    import cv2

    matrix = np.array([[1, 0, right], [0, 1, down]], np.float32)
    return cv2.warpAffine(a, matrix, a.shape[::-1])  # type: ignore[return-value]


def _left_of_layers(
    a: Grid, b: Grid, is_left: NDArray[np.bool_], tolerated: BoxSums, shift: tuple[float, float]
) -> NDArray[np.bool_]:
    """Boxes that differ though each cell may stand still or go with the shift.

    Where more of what goes than of what stands lies at the edges, it is the ground behind a figure: the strip
    of `b` that the figure hid in `a` is explained too. The ground that a moving figure leaves is not.
    """
    import cv2

    gone = _shifted(a, *shift)
    unexplained = cv2.min(cv2.absdiff(a, b), cv2.absdiff(gone, b))
    is_not_gone = box_change(gone, b) > tolerated
    is_figure = ~is_left & is_not_gone  # a plain ground seems to stand and to go
    seen = _revealed(b.shape, *shift)
    if _num_at_edges((is_left & ~is_not_gone)[seen]) > _num_at_edges(is_figure[seen]):
        unexplained[_hidden_before(~is_left, is_figure, shift)] = 0
    return is_left & (box_sums(unexplained) > tolerated)  # type: ignore[arg-type]


def _num_at_edges(cells: NDArray[np.bool_]) -> int:
    inner = cells[BOX_CELLS:-BOX_CELLS, BOX_CELLS:-BOX_CELLS]
    return int(np.count_nonzero(cells)) - int(np.count_nonzero(inner))


def _hidden_before(
    is_still: NDArray[np.bool_], is_figure: NDArray[np.bool_], shift: tuple[float, float]
) -> NDArray[np.bool_]:
    """Cells that came from where all stands still, with the edge of a figure on their way."""
    import cv2

    box = np.ones((BOX_CELLS, BOX_CELLS), np.uint8)  # a box that stands still does so with all its cells
    still, figure = (cv2.dilate(boxes.view(np.uint8), box) for boxes in (is_still, is_figure))
    x, y = round(shift[0]), round(shift[1])
    way = np.zeros((2 * abs(y) + 1, 2 * abs(x) + 1), np.uint8)
    cv2.line(way, (abs(x), abs(y)), (abs(x) - x, abs(y) - y), 1)
    was_hidden = cv2.bitwise_and(_shifted(still, x, y), cv2.dilate(figure, way))  # type: ignore[arg-type]
    return was_hidden.view(np.bool_)


def _layer_shift(a: Grid, b: Grid, is_moved: NDArray[np.bool_]) -> tuple[int, int]:
    """Cells right and down, one of them 0, that bring most of the moved cells of `a` to their like in `b`."""
    import cv2

    height, width = a.shape
    mask, like = is_moved.view(np.uint8), np.array(_MOVED_LEVELS)
    best, found = 0, (0, 0)
    for is_down, length in ((False, width), (True, height)):
        for shift in range(-length // 6, length // 6 + 1):
            right, down = (0, shift) if is_down else (shift, 0)
            rows, columns = _revealed(a.shape, right, down)
            before = a[_span(rows, -down), _span(columns, -right)]
            is_like = cv2.compare(cv2.absdiff(before, b[rows, columns]), like, cv2.CMP_LE)
            matched = cv2.countNonZero(cv2.bitwise_and(is_like, mask[rows, columns]))
            if matched > best:
                best, found = matched, (right, down)
    return found


def _span(places: slice, shift: int) -> slice:
    return slice(places.start + shift, places.stop + shift)


def _revealed(shape: tuple[int, ...], right: float, down: float) -> tuple[slice, slice]:
    """The part of a picture that was in sight before it shifted."""
    height, width = shape
    x, y = round(right), round(down)
    return slice(max(0, y), height + min(0, y)), slice(max(0, x), width + min(0, x))
