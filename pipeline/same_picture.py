"""Do two files show the same picture? Laid on each other, brought to one light and one sharpness, and then
compared box by box: a mouth is under 1 % of a picture, so it is the largest local difference that counts.

What may differ: size, compression, a crop of up to 8 % at each side, brightness, writing laid over the
lower or upper part in one of them, a mark in a corner. Everything else is another picture;
where in doubt, two pictures.

Scaling, sharpening and the fraction of a cell by which a crop lies off are all one small filter for the whole
picture. That filter is found by least squares, so that what is left is compression and what was drawn anew: a
drawn line need not be forgiven for having been scaled.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.light_curve import in_light_of
from pipeline.overlays import explain, may_be_written
from pipeline.picture_alignment import Place, find_place, inverse, is_crop_of_other

Levels = NDArray[np.uint8]
Float = NDArray[np.float32]
Bools = NDArray[np.bool_]

CLEARLY_DIFFERENT = 4.0  # times the tolerance: no thumbnail of one picture was ever that far from another

_BLUR_CELLS = 1.2
_LETTER_BLUR_CELLS = 0.8
_BASE_LEVELS = 4.0  # what changes less is the same to the eye
_DETAIL_SHARE = 0.16  # of the local gradient: compression leaves noise in proportion to detail
_NOISE_SHARE = 3.0  # of the median change: grain and compression
_RELIT_SHARE = 1.5  # times as much is tolerated: means of what was relit are not what becomes of means
_MOVED_SHARE = 1.2  # the same of a crop laid upon what it was cut from: its cells fall between the others
_CUT_OFF_LEVELS = 8.0  # where brightening cut levels off at white
_NEAR_WHITE = 232
_CHROMA_BASE = 5.0
_CHROMA_SHARE = 1.25
_MOVED_CHROMA = 1.4  # times as much of colour is tolerated there: it is stored at half the size
_FILTER_CELLS = 5  # across, of what takes one sharpness to another
_FILTER_STEP = 4  # cells between those that the filter is fitted to, each way
_FILTER_RIDGE = 0.01  # levels squared: keeps it small where a picture has nothing to fit
_ONE_SHARPNESS = 1.06  # ratio up to which files of one size need no filter
_MARGIN = 3  # cells at the edge that are left out
_LEAST_COMMON = 0.8  # of the area
_ALIKE_LEVELS = 2.5  # median difference up to which two pictures lie on each other as they are
_SAME_ASPECT = 0.012


@dataclass(frozen=True, slots=True)
class Raster:
    """A picture to be compared: RGB, uint8, [height, width, 3]."""

    rgb: Levels
    longest_px: int = 0  # of the file it was read from: files of one size need no filter

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

    def luma(self) -> Levels:
        """Luma, [height, width]."""
        import cv2

        return cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY)  # type: ignore[return-value]

    def halved_chroma(self) -> list[Levels]:
        """The two colour differences at half the size, as files store them, [height / 2, width / 2] each."""
        import cv2

        height, width = self.shape
        half = cv2.resize(self.rgb, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
        return list(cv2.split(cv2.cvtColor(half, cv2.COLOR_RGB2YCrCb))[1:])  # type: ignore[arg-type]


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
    luma_a, luma_b = _soft(a.luma(), 0.8), _soft(b.luma(), 0.8)
    difference, edges = np.abs(luma_a - luma_b)[::2, ::2], _detail(luma_a)[::2, ::2]
    is_drawn = edges >= np.median(edges)
    return float(np.median(difference[is_drawn])) < _ALIKE_LEVELS and float(edges[is_drawn].mean()) > 4.0


def _soft(values: "Levels | Float", sigma: float = _BLUR_CELLS) -> Float:
    import cv2

    return cv2.GaussianBlur(values.astype(np.float32, copy=False), (0, 0), sigma)  # type: ignore[return-value]


def _box(values: Float, side: int) -> Float:
    import cv2

    return cv2.boxFilter(values, cv2.CV_32F, (side, side))  # type: ignore[return-value]


def _detail(luma: Float, side: int = 5) -> Float:
    """Mean gradient around each cell, in levels a cell; summed over channels for a picture of several."""
    import cv2

    gradient = np.zeros_like(luma)
    cv2.absdiff(luma[1:], luma[:-1], gradient[1:])
    cv2.add(gradient[:, 1:], cv2.absdiff(luma[:, 1:], luma[:, :-1]), gradient[:, 1:])
    return _box(gradient, side)


# Pictures that lie on each other


def _compare_laid(a: Raster, b: Raster, is_valid: Bools | None, limit: float) -> Comparison:
    """Compare cell by cell, over the cells that both have."""
    inside = _away_from_edges(np.ones(a.shape, bool) if is_valid is None else is_valid)
    relit = in_light_of(a.rgb, b.rgb, inside) if inside.any() else None
    if relit is None:
        return Comparison(False, float("inf"))
    lit, is_relit = Raster(relit[0]), relit[1]
    cut_off = _cut_off(lit.rgb, b.rgb) if is_relit else np.float32(0)
    share = _RELIT_SHARE if is_relit else 1.0 if is_valid is None else _MOVED_SHARE
    pair = (lit.luma(), b.luma())
    if is_valid is None and a.longest_px == b.longest_px:  # of one size: mostly as sharp as each other
        chroma = _chroma_excess(lit, b, cut_off, _MOVED_CHROMA if is_relit else 1.0)
        found = _judged(pair, chroma, inside, cut_off, limit, is_relit=is_relit, share=share)
        if found.is_same or _are_as_sharp(*pair):
            return replace(found, is_strict=not is_relit)
    chroma = _chroma_excess(lit, b, cut_off, _MOVED_CHROMA)
    return _judged(
        _one_sharpness(*pair, inside), chroma, inside, cut_off, limit, is_relit=is_relit, share=share
    )


def _away_from_edges(is_valid: Bools) -> Bools:
    """Cells whose surroundings both pictures have too."""
    import cv2

    side = 2 * _MARGIN + 1
    reach = np.ones((side, side), np.uint8)
    eroded = cv2.erode(is_valid.view(np.uint8), reach, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(eroded, np.uint8).view(np.bool_)


def _judged(
    lumas: "tuple[Levels | Float, Levels | Float]",
    chroma_excess: Float,
    inside: Bools,
    cut_off: "Float | np.float32",
    limit: float,
    *,
    is_relit: bool,
    share: float,
) -> Comparison:
    """What two lumas of one light and sharpness say; `share` times as much is tolerated as otherwise."""
    excess = _luma_excess(_soft(lumas[0]), _soft(lumas[1]), inside, cut_off, share)
    excess = np.maximum(excess, chroma_excess)
    excess[~inside] = 0
    found = Comparison(False, float(excess.max()), is_relit=is_relit)
    is_changed = excess > limit
    # letters are too small to be told on a thumbnail
    if found.excess <= limit or (limit > 1 and may_be_written(is_changed)):
        return replace(found, is_same=True)
    overlay = explain(is_changed, *(_soft(one, _LETTER_BLUR_CELLS) for one in lumas))
    if overlay is None:
        return found
    excess[overlay.cells] = 0
    return Comparison(
        True,
        float(excess.max()),
        is_relit=is_relit,
        overlay_in="b" if overlay.is_in_second else "a",
        overlay=overlay.kind,
    )


def _luma_excess(a: Float, b: Float, inside: Bools, cut_off: "Float | np.float32", share: float) -> Float:
    """Change of softened luma as a multiple of what is tolerated, `share` times which is tolerated."""
    import cv2

    change: Float = cv2.absdiff(a, b)  # type: ignore[assignment]
    detail: Float = cv2.min(_detail(a), _detail(b))  # type: ignore[assignment]
    few = (slice(1, None, 3), slice(1, None, 3))
    is_drawn = inside[few] & (
        detail[few] >= np.median(detail[few][inside[few]])
    )  # a white ground has no noise
    noise = float(np.median(_box(change, 5)[few][is_drawn]))
    tolerated = (
        np.float32(share * (_BASE_LEVELS + _NOISE_SHARE * noise)) + np.float32(share * _DETAIL_SHARE) * detail
    )
    return np.asarray(change / (tolerated + cut_off), np.float32)


def _cut_off(lit: Levels, b: Levels) -> Float:
    """Levels to tolerate beside what brightening cut off at white, [height, width]."""
    import cv2

    red, green, blue = cv2.split(cv2.max(lit, b))
    is_bright = cv2.max(cv2.max(red, green), blue) > _NEAR_WHITE
    near = cv2.dilate(np.asarray(is_bright, np.uint8), np.ones((5, 5), np.uint8))
    return near.astype(np.float32) * np.float32(_CUT_OFF_LEVELS)


def _chroma_excess(a: Raster, b: Raster, cut_off: "Float | np.float32", share: float) -> Float:
    """Larger change of the two colour differences as a multiple of what is tolerated, [height, width]."""
    import cv2

    planes = []
    for of_a, of_b in zip(a.halved_chroma(), b.halved_chroma(), strict=True):
        soft = _soft(of_a, 1.0)
        tolerated = np.float32(share * _CHROMA_BASE) + np.float32(share * _CHROMA_SHARE / 2) * _detail(
            soft, 3
        )
        planes.append(cv2.absdiff(soft, _soft(of_b, 1.0)) / tolerated)
    worst = cv2.resize(cv2.max(*planes), a.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(worst / (1 + cut_off / np.float32(_CHROMA_BASE)), np.float32)


def _are_as_sharp(a: Levels, b: Levels) -> bool:
    sharp_a, sharp_b = _sharpness(a), _sharpness(b)
    return max(sharp_a, sharp_b) < _ONE_SHARPNESS * min(sharp_a, sharp_b)


def _one_sharpness(a: Levels, b: Levels, inside: Bools) -> "tuple[Levels | Float, Levels | Float]":
    """Both, the sharper one through the filter that leads to the other."""
    return (_filtered(a, b, inside), b) if _sharpness(a) > _sharpness(b) else (a, _filtered(b, a, inside))


def _sharpness(luma: Levels) -> float:
    """Mean second difference once noise is smoothed, in levels."""
    import cv2

    soft = cv2.GaussianBlur(luma, (0, 0), 0.8)
    return float(cv2.norm(cv2.Laplacian(soft, cv2.CV_16S), cv2.NORM_L1)) / luma.size + 1e-6


def _filtered(sharper: Levels, softer: Levels, inside: Bools) -> Float:
    """The sharper one through the small filter that comes nearest to the softer one, by least squares.

    Fitted again without what it explains worst for the detail there: what was drawn anew has no say.
    """
    import cv2

    reach = _FILTER_CELLS // 2
    height, width = sharper.shape
    step = _FILTER_STEP if height * width > 40_000 else 1
    rows, columns = (
        [slice(start, size - 2 * reach + start, step) for start in range(_FILTER_CELLS)]
        for size in (height, width)
    )
    middle = (rows[reach], columns[reach])
    is_used = inside[middle].ravel()
    wanted = softer[middle].ravel()[is_used].astype(np.float32)
    around = np.ones((_FILTER_CELLS**2 + 1, len(wanted)), np.float32)
    for number, (row, column) in enumerate((row, column) for row in rows for column in columns):
        around[number] = sharper[row, column].ravel()[is_used]
    detail = _detail(softer.astype(np.float32))[middle].ravel()[is_used]
    forgiven = _BASE_LEVELS + 2 * _DETAIL_SHARE * detail
    weights = _least_squares(around, wanted)
    for _ in range(2):
        left = np.abs(weights @ around - wanted) / forgiven
        few = np.sort(left[::7])
        most = max(1.0, float(few[int(0.8 * len(few))]))
        if left.max() <= most:
            break
        is_near = left <= most
        weights = _least_squares(around * is_near, wanted * is_near)
    kernel = weights[:-1].reshape(_FILTER_CELLS, _FILTER_CELLS)
    return np.asarray(cv2.filter2D(sharper.astype(np.float32), -1, kernel) + weights[-1], np.float32)


def _least_squares(around: Float, wanted: Float) -> Float:
    """Weights of the rows of `around`, [rows, cells], whose sum is nearest to `wanted`, [cells]."""
    products = (around @ around.T).astype(np.float64)
    ridge = np.eye(len(around)) * _FILTER_RIDGE * around.shape[1]
    weights: Float = np.linalg.solve(products + ridge, (around @ wanted).astype(np.float64)).astype(
        np.float32
    )
    return weights


# Crops


def _compare_aligned(a: Raster, b: Raster, limit: float) -> Comparison | None:
    """Lay one upon the other by scale and shift, and compare what both show; None where none fits."""
    place = find_place(a.luma(), b.luma())
    if place is None or not is_crop_of_other(place):
        return None
    if place[0][0] * place[0][1] > 1:  # the fuller one is laid upon its crop, whichever was named first
        found = _laid_by_place(b, a, inverse(place), limit)
        return None if found is None else found.turned()
    return _laid_by_place(a, b, place, limit)


def _laid_by_place(a: Raster, b: Raster, place: Place, limit: float) -> Comparison | None:
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
    rgb = (
        cv2.GaussianBlur(a.rgb, (0, 0), 0.4 * step_x) if step_x > 1.2 else a.rgb
    )  # cells that fall together are averaged
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(rgb, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    u = left + scale_x * (np.arange(width) + 0.5) / width
    v = top + scale_y * (np.arange(height) + 0.5) / height
    is_valid = ((v > 0.004) & (v < 0.996))[:, None] & ((u > 0.004) & (u < 0.996))[None, :]
    if is_valid.mean() < _LEAST_COMMON:
        return None
    found = _compare_laid(Raster(laid.astype(np.uint8, copy=False)), b, is_valid, limit)
    share = scale_x * scale_y
    return replace(found, is_aligned=True, fuller="a" if share < 0.995 else "")
