"""Do two files show the same picture? Aligned, brought to one brightness and one sharpness, and then compared
box by box: a mouth is under 1 % of a picture, so it is the largest local difference that counts.

What may differ: size, compression, a crop of up to 8 % at each side, brightness, writing laid over the
lower or upper part in one of them, a mark in a corner. Everything else is another picture;
where in doubt, two pictures.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.overlays import explain, may_be_written

Float = NDArray[np.float32]
Bools = NDArray[np.bool_]

CLEARLY_DIFFERENT = 4.0  # times the tolerance: no thumbnail of one picture was ever that far from another

_BLUR_CELLS = 0.8
_BASE_LEVELS = 4.5  # what changes less is the same to the eye
_MOVED_BASE_LEVELS = 7.5
_DETAIL_SHARE = 0.16  # of the local gradient: compression leaves noise in proportion to detail
_MOVED_BLUR_CELLS = 0.9
_MOVED_DETAIL_SHARE = 0.85  # where one was scaled or moved: edges come to lie a fraction of a cell off
_RELIT_DETAIL_SHARE = 0.45  # means of what was relit are not what becomes of means
_NOISE_SHARE = 3.0  # of the median change: grain and compression
_CUT_OFF_LEVELS = 8.0  # where brightening cut levels off at white
_NEAR_WHITE = 232.0
_MOVED_CHROMA = 1.4  # times as much of colour is tolerated there: it is stored at half the size
_CHROMA_BASE = 5.0
_CHROMA_SHARE = 1.25
_SOFTENINGS = (0.6, 0.8, 1.0, 1.2, 1.45, 1.75, 2.1, 2.6)  # cells, standard deviation
_MOST_CUT = 0.085  # of a side
_CONTAINED = 0.01  # of a side by which a crop may reach over what it was cut from
_LEAST_COMMON = 0.8  # of the area
_ALIKE_LEVELS = 2.5  # median difference up to which two pictures lie on each other as they are
_SAME_ASPECT = 0.012
_GAINS = (0.55, 1.8)
_MOST_OFFSET = 56.0  # levels
_BIN_LEVELS = 8
_SAMPLED_EVERY = 17  # cells by which the light is told
_OFF_CURVE_LEVELS = 8.0
_ECC_STEPS = 40
_ECC_EPSILON = 1e-4


@dataclass(frozen=True, slots=True)
class Raster:
    """A picture to be compared: RGB, float32, [height, width, 3], in levels of 0 to 255."""

    rgb: Float
    longest_px: int = 0  # of the file it was read from: files of one size are compared most strictly

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], longest_px: int = 0) -> "Raster":
        """From RGB, uint8, [height, width, 3]."""
        return cls(pixels.astype(np.float32), longest_px)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.rgb.shape[0], self.rgb.shape[1]

    def scaled(self, shape: tuple[int, int]) -> "Raster":
        """At another, smaller height and width."""
        import cv2

        if self.shape == shape:
            return self
        return Raster(cv2.resize(self.rgb, shape[::-1], interpolation=cv2.INTER_AREA), self.longest_px)  # type: ignore[arg-type]

    def mirrored(self) -> "Raster":
        """Left and right changed."""
        return Raster(np.ascontiguousarray(self.rgb[:, ::-1]), self.longest_px)

    def planes(self) -> tuple[Float, Float]:
        """Luma, [height, width], and chroma, [height, width, 2], in levels."""
        import cv2

        luma, *chroma = cv2.split(cv2.cvtColor(self.rgb, cv2.COLOR_RGB2YCrCb))
        return luma, cv2.merge(chroma)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found. `b` is always the one that is laid upon `a`."""

    is_same: bool
    excess: float  # largest local difference as a multiple of what is tolerated; up to 1 is the same
    is_aligned: bool = False  # one had to be moved and scaled onto the other: a crop
    is_relit: bool = False  # brightness had to be changed
    is_strict: bool = False  # they lay on each other as they are: every small difference shows
    overlay_in: Literal["", "a", "b"] = ""  # which one has writing or a mark laid over it
    overlay: Literal["", "subtitle", "logo"] = ""
    fuller: Literal["", "a", "b"] = ""  # which one shows more, where one is a crop of the other

    def turned(self) -> "Comparison":
        """The same, with `a` and `b` changed."""
        other: dict[str, Literal["", "a", "b"]] = {"": "", "a": "b", "b": "a"}
        return replace(self, overlay_in=other[self.overlay_in], fuller=other[self.fuller])


def compare(a: Raster, b: Raster, *, limit: float = 1.0) -> Comparison:
    """Compare two pictures: as they lie, and if they do not lie on each other, moved and scaled.

    Args:
        limit: multiple of the tolerance up to which they count as the same; above 1 for thumbnails, on which
            only the clearly different are told apart.
    """
    found = Comparison(False, float("inf"))
    if _have_one_aspect(a.shape, b.shape):
        shape = min(a.shape, b.shape)
        laid_a, laid_b = a.scaled(shape), b.scaled(shape)
        found = _compare_laid(laid_a, laid_b, None, limit)
        if found.is_same or _lie_on_each_other(laid_a, laid_b):
            return found
    aligned = _compare_aligned(a, b, limit)
    return found if aligned is None or (found.excess <= aligned.excess and not aligned.is_same) else aligned


def _have_one_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    ratio = (a[1] / a[0]) / (b[1] / b[0])
    return abs(ratio - 1) < _SAME_ASPECT + 0.5 / min(*a, *b)


def _lie_on_each_other(a: Raster, b: Raster) -> bool:
    """Whether most of two pictures agrees as they are, so that moving one cannot help."""
    luma = _soft(a.planes()[0])
    difference, edges = np.abs(luma - _soft(b.planes()[0])), _detail(luma)
    is_drawn = edges >= np.quantile(edges, 0.5)
    return float(np.median(difference[is_drawn])) < _ALIKE_LEVELS and float(edges[is_drawn].mean()) > 4.0


def _soft(values: Float, sigma: float = _BLUR_CELLS) -> Float:
    import cv2

    return cv2.GaussianBlur(values, (0, 0), sigma)  # type: ignore[return-value]


def _box(values: Float, side: int) -> Float:
    import cv2

    return cv2.boxFilter(values, cv2.CV_32F, (side, side))  # type: ignore[return-value]


def _detail(luma: Float) -> Float:
    """Mean gradient around each cell, in levels a cell."""
    import cv2

    across = cv2.absdiff(luma, np.roll(luma, 1, 1))
    down = cv2.absdiff(luma, np.roll(luma, 1, 0))
    return _box(across + down, 5)


# Pictures that lie on each other


def _compare_laid(a: Raster, b: Raster, is_valid: Bools | None, limit: float) -> Comparison:
    """Compare cell by cell, over the cells that both have."""
    inside = np.ones(a.shape, bool) if is_valid is None else is_valid.copy()
    inside[:2], inside[-2:], inside[:, :2], inside[:, -2:] = False, False, False, False
    relit = _relight(a.rgb, b.rgb, inside) if inside.any() else None
    if relit is None:
        return Comparison(False, float("inf"))
    lit, is_relit = relit
    luma_a, chroma_a = Raster(lit).planes()
    luma_b, chroma_b = b.planes()
    luma_a, luma_b, is_softened = _one_sharpness(_soft(luma_a), _soft(luma_b), inside)
    share = _DETAIL_SHARE
    if is_softened or is_relit or is_valid is not None or a.longest_px != b.longest_px:
        share = _RELIT_DETAIL_SHARE if is_relit else _MOVED_DETAIL_SHARE
        luma_a, luma_b = _soft(luma_a, _MOVED_BLUR_CELLS), _soft(luma_b, _MOVED_BLUR_CELLS)
    cut_off = _cut_off(lit, b.rgb) if is_relit else np.float32(0)
    luma_excess = _luma_excess(luma_a, luma_b, inside, share, cut_off)
    excess = np.maximum(
        luma_excess,
        _chroma_excess(chroma_a, chroma_b, cut_off) / (1.0 if share == _DETAIL_SHARE else _MOVED_CHROMA),
    )
    excess[~inside] = 0
    most = float(excess.max())
    is_strict = share == _DETAIL_SHARE
    if most <= limit:
        return Comparison(True, most, is_relit=is_relit, is_strict=is_strict)
    if limit > 1 and may_be_written(excess > limit):  # letters are too small to be told on a thumbnail
        return Comparison(True, most, is_relit=is_relit, is_strict=is_strict)
    overlay = explain(excess > limit, luma_a, luma_b)
    if overlay is None:
        return Comparison(False, most, is_relit=is_relit, is_strict=is_strict)
    excess[overlay.cells] = 0
    return Comparison(
        True,
        float(excess.max()),
        is_relit=is_relit,
        overlay_in="b" if overlay.is_in_second else "a",
        overlay=overlay.kind,
    )


def _luma_excess(
    a: Float, b: Float, inside: Bools, detail_share: float, cut_off: "Float | np.float32"
) -> Float:
    """Change of luma as a multiple of what is tolerated."""
    change = np.abs(a - b)
    detail = np.minimum(_detail(a), _detail(b))
    is_drawn = inside & (detail >= np.median(detail[inside]))  # a white ground has no noise
    noise = float(np.median(_box(change, 5)[is_drawn]))
    base = _BASE_LEVELS if detail_share == _DETAIL_SHARE else _MOVED_BASE_LEVELS
    excess: Float = change / (base + _NOISE_SHARE * noise + detail_share * detail + cut_off)
    return excess


def _cut_off(lit: Float, b: Float) -> Float:
    """Levels to tolerate beside what brightening cut off at white, [height, width]."""
    import cv2

    is_bright = (np.maximum(lit, b) > _NEAR_WHITE).any(axis=2)
    near = cv2.dilate(np.asarray(is_bright, np.uint8), np.ones((5, 5), np.uint8))
    return near.astype(np.float32) * np.float32(_CUT_OFF_LEVELS)


def _chroma_excess(a: Float, b: Float, cut_off: "Float | np.float32") -> Float:
    """Larger change of the two chroma planes as a multiple of what is tolerated."""
    import cv2

    soft_a, soft_b = _soft(a, 2.0), _soft(b, 2.0)
    gradient = cv2.absdiff(soft_a, np.roll(soft_a, 1, 1)) + cv2.absdiff(soft_a, np.roll(soft_a, 1, 0))
    tolerated = _CHROMA_BASE + _CHROMA_SHARE * _box(gradient, 5)
    change = cv2.absdiff(soft_a, soft_b)
    first, second = cv2.split(change / tolerated)
    worst = np.maximum(first, second) / (1 + cut_off / np.float32(_CHROMA_BASE))
    return np.asarray(worst, np.float32)


def _relight(a: Float, b: Float, inside: Bools) -> tuple[Float, bool] | None:
    """`a` in the light of `b`, and whether that changed it; None where no modest change of light leads there.

    One curve for the three channels, as brightness, contrast and gamma are: fitted again and again without
    what is far from it, so that a change of a small part has no say.
    """
    places = np.flatnonzero(inside)[::_SAMPLED_EVERY]
    x, y = a.reshape(-1, 3)[places].ravel(), b.reshape(-1, 3)[places].ravel()
    is_used = (y > 4) & (y < 250) & (x > 4) & (x < 250)
    told = (y - x)[is_used] if is_used.sum() >= 200 else y - x
    offset = float(np.median(told))
    is_low = x <= np.median(x[is_used]) if is_used.any() else np.ones(len(x), bool)
    halves = [(y - x)[is_used & part] for part in (is_low, ~is_low)]
    if abs(offset) < 1.5 and all(abs(float(np.median(half))) < 2.0 for half in halves if len(half)):
        return a, False
    low, high = (float(value) for value in np.quantile(x[is_used] if is_used.any() else x, (0.1, 0.9)))
    if high - low < 8.0 or is_used.sum() < 200:
        return (np.clip(a + np.float32(offset), 0, 255), True) if abs(offset) <= _MOST_OFFSET else None
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


def _looked_up(values: Float, table: NDArray[np.float64]) -> Float:
    """Values through a curve given at whole levels; a quarter of a level is fine enough."""
    fine = np.interp(np.arange(1021) / 4, np.arange(256), table).astype(np.float32)
    return fine[np.rint(values * 4).astype(np.int16)]


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


def _one_sharpness(a: Float, b: Float, inside: Bools) -> tuple[Float, Float, bool]:
    """Both as soft as the softer one, and whether that changed one: scaling takes what is fine away."""
    import cv2

    def sharpness(values: Float) -> float:
        return float(np.abs(cv2.Laplacian(values, cv2.CV_32F))[inside].mean())

    sharp_a, sharp_b = sharpness(a), sharpness(b)
    if max(sharp_a, sharp_b) < 1.06 * min(sharp_a, sharp_b):
        return a, b, False
    sharper, softer = (a, b) if sharp_a > sharp_b else (b, a)
    best, least = sharper, float(np.abs(sharper - softer)[inside].mean())
    for sigma in _SOFTENINGS:
        tried = _soft(sharper, sigma)
        left = float(np.abs(tried - softer)[inside].mean())
        if left >= least:
            break
        best, least = tried, left
    is_softened = best is not sharper
    return (best, softer, is_softened) if sharp_a > sharp_b else (softer, best, is_softened)


# Crops


def _compare_aligned(a: Raster, b: Raster, limit: float) -> Comparison | None:
    """Lay one upon the other by scale and shift, and compare what both show; None where none fits."""
    place = _find_place(a.planes()[0], b.planes()[0])
    if place is None or not _contains(place):
        return None
    import cv2

    (scale_x, scale_y), (left, top) = place  # of a, in shares of its sides, that b shows
    (high, wide), (height, width) = a.shape, b.shape
    step_x, step_y = scale_x * wide / width, scale_y * high / height  # cells of a for one of b
    matrix = np.array(
        [
            [step_x, 0, left * wide + 0.5 * step_x - 0.5],
            [0, step_y, top * high + 0.5 * step_y - 0.5],
        ]
    )
    rgb = _soft(a.rgb, 0.4 * step_x) if step_x > 1.2 else a.rgb  # cells that fall together are averaged
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(rgb, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    u = left + scale_x * (np.arange(width) + 0.5) / width
    v = top + scale_y * (np.arange(height) + 0.5) / height
    is_valid = ((v > 0.004) & (v < 0.996))[:, None] & ((u > 0.004) & (u < 0.996))[None, :]
    if is_valid.mean() < _LEAST_COMMON:
        return None
    found = _compare_laid(Raster(np.clip(laid, 0, 255)), b, is_valid, limit)
    share = scale_x * scale_y
    return replace(found, is_aligned=True, fuller="a" if share < 0.995 else "b" if share > 1.005 else "")


def _find_place(a: Float, b: Float) -> tuple[tuple[float, float], tuple[float, float]] | None:
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


def _shrunk(luma: Float, longest: int) -> Float:
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


def _contains(place: tuple[tuple[float, float], tuple[float, float]]) -> bool:
    """Whether one of two pictures shows all of the other: two places of a pan do not."""
    scales, starts = place
    ends = [start + scale for start, scale in zip(starts, scales, strict=True)]
    is_b_inside = min(starts) > -_CONTAINED and max(ends) < 1 + _CONTAINED
    return is_b_inside or (max(starts) < _CONTAINED and min(ends) > 1 - _CONTAINED)
