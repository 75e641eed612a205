"""Is a difference of two pictures something laid over one of them: a subtitle, or a broadcaster's mark?

Writing has a look: many thin, bright strokes beside dark ones, in lines that are wider than high, above the
lower edge or below the upper one, where the other picture has less to see. A mouth or a hand has not.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Bools = NDArray[np.bool_]

_LOWER_FROM, _UPPER_TO = 0.62, 0.26  # shares of the height between which nobody writes
_MOST_LINES = 0.30  # of the height, in one place
_LEAST_CONTRAST = 80.0  # levels between strokes and their outline
_LEAST_FILL = 140.0  # level of the strokes
_LEAST_STROKES = 5  # in the row that has most of them
_MOST_THICK = 0.25  # share of strokes thicker than a letter's
_MORE_DETAIL = 1.25
_CORNER = 0.17  # of width and height
_MOST_MARK = 0.025  # of the area


@dataclass(frozen=True, slots=True)
class Overlay:
    """What was laid over one of two pictures."""

    kind: Literal["subtitle", "logo"]
    is_in_second: bool
    cells: Bools  # [height, width]: what it covers


def explain(is_changed: Bools, first: Float, second: Float) -> Overlay | None:
    """Say what was laid over one of two pictures, if that is all that differs; None where it is not.

    Args:
        is_changed: cells that differ by more than is tolerated, [height, width].
        first, second: luma, in levels.
    """
    import cv2

    height, width = is_changed.shape
    if float(is_changed.mean()) > 0.2:
        return None
    reach = np.ones((max(3, height // 36), max(5, width // 16)), np.uint8)
    joined = cv2.morphologyEx(is_changed.astype(np.uint8), cv2.MORPH_CLOSE, reach)
    joined = cv2.dilate(joined, np.ones((5, 5), np.uint8))
    number, labels, boxes, _ = cv2.connectedComponentsWithStats(joined)
    kinds: set[str] = set()
    sides: set[bool] = set()
    for index in range(1, number):
        left, top, wide, high = (int(value) for value in boxes[index][:4])
        part = (slice(top, top + high), slice(left, left + wide))
        cells = labels[part] == index
        is_in_second = _detail(second[part], cells) > _detail(first[part], cells)
        written, plain = (second, first) if is_in_second else (first, second)
        if _is_text(written, plain, cells, (left, top, wide, high)):
            kinds.add("subtitle")
        elif _is_mark(written, plain, cells, (left, top, wide, high)):
            kinds.add("logo")
        else:
            return None
        sides.add(is_in_second)
    if len(sides) != 1:
        return None
    return Overlay("subtitle" if "subtitle" in kinds else "logo", sides.pop(), joined.astype(bool))


def may_be_written(is_changed: Bools) -> bool:
    """Whether all that differs lies where subtitles and marks are put: in the lower or the upper part."""
    height = is_changed.shape[0]
    return not is_changed[round(_UPPER_TO * height) : round(_LOWER_FROM * height)].any()


def _detail(luma: Float, cells: Bools) -> float:
    across = np.abs(np.diff(luma, axis=1, prepend=luma[:, :1]))
    down = np.abs(np.diff(luma, axis=0, prepend=luma[:1]))
    return float((across + down)[cells].mean())


def _is_text(written: Float, plain: Float, cells: Bools, box: tuple[int, int, int, int]) -> bool:
    import cv2

    height, width = written.shape
    left, top, wide, high = box
    is_placed = top >= _LOWER_FROM * height or top + high <= _UPPER_TO * height
    if not is_placed or high > _MOST_LINES * height or wide < 1.5 * high or wide < 0.1 * width:
        return False
    part = (slice(top, top + high), slice(left, left + wide))
    luma, other = written[part], plain[part]
    dark, fill = np.quantile(luma[cells], (0.04, 0.96))
    if fill - dark < _LEAST_CONTRAST or fill < _LEAST_FILL:
        return False
    if _detail(luma, cells) < _MORE_DETAIL * _detail(other, cells):
        return False
    strokes = (
        (luma > (dark + fill) / 2 + 0.15 * (fill - dark)) & cells & (np.abs(luma - other) > 12)
    ).astype(np.uint8)
    if not strokes.any():
        return False
    starts = (np.diff(strokes, axis=1, prepend=np.uint8(0)) == 1).sum(axis=1)
    thick = cv2.erode(strokes, np.ones((max(5, height // 60), max(5, height // 60)), np.uint8))
    return int(starts.max()) >= _LEAST_STROKES and float(thick.sum()) < _MOST_THICK * float(strokes.sum())


def _is_mark(written: Float, plain: Float, cells: Bools, box: tuple[int, int, int, int]) -> bool:
    height, width = written.shape
    left, top, wide, high = box
    in_x = left + wide <= _CORNER * width or left >= (1 - _CORNER) * width
    in_y = top + high <= _CORNER * height or top >= (1 - _CORNER) * height
    return bool(in_x and in_y and float(cells.sum()) <= _MOST_MARK * height * width)
