"""Where one picture lies in another that it was cut from: the scale and shift that lay them on each other."""

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.uint8]
Place = tuple[tuple[float, float], tuple[float, float]]  # (width, height), (left, top) in shares of the sides

_MOST_CUT = 0.085  # of a side
_CONTAINED = 0.01  # of a side by which a crop may reach over what it was cut from
_ECC_STEPS = 40
_ECC_EPSILON = 1e-4


def find_place(a: Levels, b: Levels) -> Place | None:
    """The part of `a` that `b` shows: ((width, height), (left, top)) in shares of a's sides, perhaps over 1.

    Enhanced correlation coefficient (Evangelidis and Psarakis 2008, in OpenCV), which brightness and contrast
    do not disturb, from coarse to fine; anything that turns or shears is refused.
    """
    import cv2

    warp = None
    for longest in (48, 96, 192, 400):
        if warp is not None and longest > 2 * max(b.shape):
            break
        template, image = _shrunk(b, longest), _shrunk(a, longest)
        to_cells = np.diag([image.shape[1], image.shape[0], 1.0])
        from_cells = np.diag([1.0 / template.shape[1], 1.0 / template.shape[0], 1.0])
        starts = [warp] if warp is not None else _starts()
        best, best_share = None, 0.2
        for start in starts:
            matrix = (to_cells @ start @ from_cells)[:2].astype(np.float32)
            try:
                share, matrix = cv2.findTransformECC(  # type: ignore[call-overload]
                    template,
                    image,
                    matrix,
                    cv2.MOTION_AFFINE,
                    (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ECC_STEPS, _ECC_EPSILON),
                    None,
                    3,
                )
            except cv2.error:
                continue
            if share > best_share:
                full = np.vstack([matrix, [0, 0, 1]])
                best, best_share = np.linalg.inv(to_cells) @ full @ np.linalg.inv(from_cells), share
        if best is None or not _is_crop(best):
            return None
        warp = best
    assert warp is not None
    return (float(warp[0, 0]), float(warp[1, 1])), (float(warp[0, 2]), float(warp[1, 2]))


def _shrunk(luma: Levels, longest: int) -> Levels:
    import cv2

    scale = longest / max(luma.shape)
    if scale >= 1:
        return luma
    size = (max(8, round(luma.shape[1] * scale)), max(8, round(luma.shape[0] * scale)))
    return cv2.resize(luma, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _starts() -> list[NDArray[np.float64]]:
    """First guesses: the whole, and a crop of 4 % all round in either."""
    return [
        np.array([[scale, 0, (1 - scale) / 2], [0, scale, (1 - scale) / 2], [0, 0, 1.0]])
        for scale in (1.0, 0.92, 1 / 0.92)
    ]


def _is_crop(warp: NDArray[np.float64]) -> bool:
    turned = max(abs(float(warp[0, 1])), abs(float(warp[1, 0])))
    corners = (warp @ np.array([[0, 1, 0.0], [0, 1, 0.0], [1, 1, 1.0]]))[:2, :2].ravel()
    cut = float(np.abs(corners - np.array([0, 1, 0, 1])).max())
    return turned < 0.02 and cut <= _MOST_CUT


def is_crop_of_other(place: Place) -> bool:
    """Whether one of two pictures shows all of the other: two places of a pan do not."""
    scales, starts = place
    ends = [start + scale for start, scale in zip(starts, scales, strict=True)]
    is_b_inside = min(starts) > -_CONTAINED and max(ends) < 1 + _CONTAINED
    return is_b_inside or (max(starts) < _CONTAINED and min(ends) > 1 - _CONTAINED)


def inverse(place: Place) -> Place:
    """Where the second picture lies in the first's stead: the same laying, told of the other."""
    (wide, high), (left, top) = place
    return (1 / wide, 1 / high), (-left / wide, -top / high)
