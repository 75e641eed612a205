"""The light of one picture brought to that of another: brightness, contrast, gamma as one curve of levels."""

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Float = NDArray[np.float32]

_GAINS = (0.55, 1.8)
_MOST_OFFSET = 56.0  # levels
_BIN_LEVELS = 8
_SAMPLED_CELLS = 4_000  # of a picture, by which the light is told
_OFF_CURVE_LEVELS = 8.0


def in_light_of(a: Levels, b: Levels, inside: Bools) -> tuple[Levels, bool] | None:
    """`a` in the light of `b`, and whether that changed it; None where no modest change of light leads there.

    One curve for the three channels, as brightness, contrast and gamma are: fitted again and again without
    what is far from it, so that a change of a small part has no say.

    Args:
        a, b: RGB, [height, width, 3], laid on each other.
        inside: cells that both have, [height, width]; at least one.
    """
    places = np.flatnonzero(inside)
    places = places[:: max(1, len(places) // _SAMPLED_CELLS) | 1]
    x, y = (one.reshape(-1, 3)[places].ravel().astype(np.float32) for one in (a, b))
    is_used = (y > 4) & (y < 250) & (x > 4) & (x < 250)
    told = (y - x)[is_used] if is_used.sum() >= 200 else y - x
    offset = float(np.median(told))
    is_low = x <= np.median(x[is_used]) if is_used.any() else np.ones(len(x), bool)
    halves = [(y - x)[is_used & part] for part in (is_low, ~is_low)]
    if abs(offset) < 1.5 and all(abs(float(np.median(half))) < 2.0 for half in halves if len(half)):
        return a, False
    low, high = (float(value) for value in np.quantile(x[is_used] if is_used.any() else x, (0.1, 0.9)))
    if high - low < 8.0 or is_used.sum() < 200:
        return (
            (_looked_up(a, np.arange(256, dtype=np.float64) + offset), True)
            if abs(offset) <= _MOST_OFFSET
            else None
        )
    curve = np.polynomial.Polynomial.fit(x[is_used], y[is_used], 1)
    for degree in (1, 2, 3, 3):
        distance = np.abs(curve(x) - y)
        near = is_used & (distance <= max(2.0, 2.0 * float(np.median(distance[is_used]))))
        curve = np.polynomial.Polynomial.fit(x[near], y[near], degree if high - low > 40 else 1)
    lowest, highest = (float(value) for value in np.quantile(x[is_used], (0.02, 0.98)))
    levels = np.arange(256, dtype=np.float64)
    table = _continued(curve, levels, lowest, highest)
    table = np.maximum.accumulate(_corrected(table, x[near], y[near])).clip(0, 255)
    gain = float(table[round(high)] - table[round(low)]) / max(1.0, round(high) - round(low))
    if (
        not _GAINS[0] <= gain <= _GAINS[1]
        or abs(float(np.median((table[x.astype(int)] - x)[is_used]))) > _MOST_OFFSET
    ):
        return None
    return _looked_up(a, table), True


def _looked_up(pixels: Levels, table: NDArray[np.float64]) -> Levels:
    """Levels through a curve, which is given at each of the 256."""
    import cv2

    return cv2.LUT(pixels, np.rint(table.clip(0, 255)).astype(np.uint8))  # type: ignore[return-value]


def _corrected(table: NDArray[np.float64], x: Float, y: Float) -> NDArray[np.float64]:
    """A curve with what is left between it and the medians of bins of levels, a few levels at most."""
    bins = np.minimum(x.astype(int), 255) // _BIN_LEVELS
    left = y - table[np.minimum(x.astype(int), 255)]
    centres, medians = [], []
    for one in range(256 // _BIN_LEVELS):
        of_bin = left[bins == one]
        if len(of_bin) >= 40:
            centres.append((one + 0.5) * _BIN_LEVELS)
            medians.append(float(np.median(of_bin)))
    if not centres:
        return table
    correction = np.interp(np.arange(256), centres, medians)
    corrected: NDArray[np.float64] = table + np.clip(correction, -_OFF_CURVE_LEVELS, _OFF_CURVE_LEVELS)
    return corrected


def _continued(
    curve: "np.polynomial.Polynomial", levels: NDArray[np.float64], lowest: float, highest: float
) -> NDArray[np.float64]:
    """A curve over all levels, straight on from where it was fitted."""
    slope = curve.deriv()
    inner = np.clip(levels, lowest, highest)
    values: NDArray[np.float64] = curve(inner) + slope(inner) * (levels - inner)
    return values
