"""Curves over steps as inline SVG, in the look of charts.py: measured values faint, smoothed ones above them.

Points lie in a coordinate system of their own that is stretched to the plot, so that a chart fills the width
it is given and lines keep their thickness. Long courses are thinned to what a screen can show: of every
stretch the first, the lowest, the highest and the last value stay, so that no spike is lost.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.charts import (
    AXIS_PX,
    PLOT_HEIGHT_PX,
    PLOT_LEFT,
    PLOT_TOP_PX,
    PLOT_WIDTH,
    axis_name,
    drawing,
    nice_ticks,
    nothing,
    percent,
    pixels,
    safe,
)

Point = tuple[float, float]

COLOURS = 8  # variables --c-1 to --c-8 of charts.STYLE
MOST_POINTS = 1200  # of one curve
INNER = 1000  # units of the stretched plot
LEGEND_PX = 18
SHORT_LETTERS = 16  # of a name: three of them stand side by side on a telephone
KEPT_SHARE = 0.98  # of measured values, that lie inside the plot whatever the others do


@dataclass(frozen=True, slots=True)
class Curve:
    """A course of values.

    Args:
        points: (step, value), steps rising.
        colour: number of its colour, from 1.
        is_faint: what was measured, beneath a smoothed curve; its rarest extremes may lie outside the plot.
        note: shown in the legend behind the label.
    """

    label: str
    points: Sequence[Point]
    colour: int = 1
    is_faint: bool = False
    is_dashed: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A step worth a line down through the plot."""

    x: float
    label: str


def curves(
    items: Sequence[Curve],
    *,
    title: str,
    x_axis: str = "step",
    marks: Sequence[Mark] = (),
    from_zero: bool = False,
) -> str:
    """Curves of one scale, with a legend where there is more than one name.

    Args:
        title: names the chart for those who cannot see it; the page has its own heading.
        from_zero: the scale begins at 0, not at the least value.
    """
    drawn = [one for one in items if one.points]
    if not drawn:
        return drawing(26, title, "", [nothing()])
    named = [one for one in drawn if one.label]
    legend = _legend(named) if len(named) > 1 else []
    top = PLOT_TOP_PX - 10 + (-(-len(named) // _columns(named)) * LEGEND_PX if legend else 0)
    xs = nice_ticks(max(point[0] for one in drawn for point in one.points))
    x_most = max(1.0, max(point[0] for one in drawn for point in one.points))
    ys = value_ticks(*_range(drawn, from_zero=from_zero))
    parts = [*legend]
    parts += [_y_line(tick, ys, top) for tick in ys]
    parts += [_x_line(tick, x_most, top) for tick in xs if tick <= x_most]
    parts.append(_plot(drawn, x_most, ys, top))
    parts += [_mark(one, x_most, top) for one in marks if one.x <= x_most]
    parts.append(axis_name(x_axis, height=top - PLOT_TOP_PX + PLOT_HEIGHT_PX))
    spoken = ", ".join(f"{one.label or title} {value_text(one.points[-1][1])} at the end" for one in drawn)
    return drawing(top + PLOT_HEIGHT_PX + AXIS_PX, title, spoken, parts)


def value_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from at most `low` to at least `high`, in steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        spread = abs(high) * 0.1 or 1.0
        low, high = low - spread, high + spread
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def value_text(value: float) -> str:
    """A measured value as people read it: four digits that count, 12,345 above."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most about so many points: of each stretch the first, lowest, highest and last."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) * 4 / most)
    kept: list[Point] = []
    for start in range(0, len(points), size):
        part = range(start, min(start + size, len(points)))
        least, largest = (
            min(part, key=lambda at: points[at][1]),
            max(part, key=lambda at: points[at][1]),
        )
        kept += [points[at] for at in sorted({part[0], least, largest, part[-1]})]
    return kept


def _range(items: Sequence[Curve], *, from_zero: bool) -> tuple[float, float]:
    """What the plot must show: all smoothed values, and nearly all measured ones."""
    values: list[float] = []
    for one in items:
        ordered = sorted(value for _, value in one.points)
        cut = int(len(ordered) * (1 - KEPT_SHARE) / 2) if one.is_faint else 0
        values += [ordered[cut], ordered[-1 - cut]]
    return min(0.0, *values) if from_zero else min(values), max(values)


def _plot(items: Sequence[Curve], x_most: float, ys: Sequence[float], top: int) -> str:
    low, span = ys[0], ys[-1] - ys[0]
    lines = []
    for one in sorted(items, key=lambda curve: not curve.is_faint):
        points = " ".join(
            f"{x / x_most * INNER:.1f},{(1 - (y - low) / span) * INNER:.1f}" for x, y in thinned(one.points)
        )
        kind = "line" + " faint" * one.is_faint + " dashed" * one.is_dashed
        stroke = _stroke(one)
        if len(one.points) == 1:  # a line of no length is drawn as its round end
            points, stroke = f"{points} {points}", f"{stroke}; stroke-linecap: round; stroke-width: 6"
        tip = f"<title>{safe(one.label)}</title>" if one.label else ""
        lines.append(f'<polyline class="{kind}" style="{stroke}" points="{points}">{tip}</polyline>')
    place = f'x="{percent(PLOT_LEFT)}" y="{top}" width="{percent(PLOT_WIDTH)}" height="{PLOT_HEIGHT_PX}"'
    box = f'viewBox="0 0 {INNER} {INNER}" preserveAspectRatio="none"'
    return f"<svg {place} {box}>{''.join(lines)}</svg>"


def _legend(items: Sequence[Curve]) -> list[str]:
    parts, columns = [], _columns(items)
    for number, one in enumerate(items):
        row, column = divmod(number, columns)
        kind = "line" + " faint" * one.is_faint + " dashed" * one.is_dashed
        text = safe(f"{one.label} {one.note}".strip())
        width = percent(100 / columns - 1)
        left, top = percent(column * 100 / columns), row * LEGEND_PX
        line = f'<line class="{kind}" style="{_stroke(one)}" x1="0" x2="18" y1="9" y2="9"/>'
        name = f'<text class="muted" x="24" y="13">{text}</text>'
        parts.append(f'<svg x="{left}" y="{top}" width="{width}" height="{LEGEND_PX}">{line}{name}</svg>')
    return parts


def _columns(items: Sequence[Curve]) -> int:
    return 3 if all(len(one.label) <= SHORT_LETTERS for one in items) else 2


def _stroke(one: Curve) -> str:
    return f"stroke: var(--c-{(one.colour - 1) % COLOURS + 1})"


def _y_line(tick: float, ys: Sequence[float], top: int) -> str:
    y = top + PLOT_HEIGHT_PX * (1 - (tick - ys[0]) / (ys[-1] - ys[0]))
    line = f'<line class="grid" x1="{percent(PLOT_LEFT)}" x2="{percent(PLOT_LEFT + PLOT_WIDTH)}"'
    text = f'<text class="muted" x="{percent(PLOT_LEFT)}" dx="-5" y="{pixels(y + 4)}" text-anchor="end">'
    return f'{line} y1="{pixels(y)}" y2="{pixels(y)}"/>{text}{value_text(round(tick, 12))}</text>'


def _x_line(tick: float, x_most: float, top: int) -> str:
    x, bottom = percent(PLOT_LEFT + PLOT_WIDTH * tick / x_most), top + PLOT_HEIGHT_PX
    line = f'<line class="grid" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>'
    return f'{line}<text class="muted" x="{x}" y="{bottom + 16}" text-anchor="middle">{tick:,.0f}</text>'


def _mark(mark: Mark, x_most: float, top: int) -> str:
    place = PLOT_LEFT + PLOT_WIDTH * mark.x / x_most
    x, is_right = percent(place), place > 70
    line = f'<line class="guide" x1="{x}" x2="{x}" y1="{top}" y2="{top + PLOT_HEIGHT_PX}"/>'
    anchor, away = ("end", -5) if is_right else ("start", 5)
    where = f'x="{x}" dx="{away}" y="{top + 12}" text-anchor="{anchor}"'
    return f'{line}<text class="muted" {where}>{safe(mark.label)}</text>'
