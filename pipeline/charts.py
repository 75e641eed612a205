"""Charts as inline SVG: bars, columns, a scatter of sizes; drawn by plain text, for light and dark.

Positions across are percents and positions down are pixels, so a chart fills the width it is given while its
text keeps its size, on a telephone as on a wide screen. Colours are CSS variables with a default of their
own: a page sets them, or takes `STYLE` as it is. Every chart has a name and its numbers as text for screen
readers. The same values always give the same bytes. Curves over steps are in
curves.py.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

# Ink on surface is at least 7:1, muted ink at least 4.5:1, in both schemes.
STYLE = """
.chart { --c-ink: #1c2330; --c-muted: #5a6475; --c-grid: #e0e4ea; --c-fill: #2f6fde; --c-soft: #2f6fde55;
  --c-before: #8792a4; --c-1: #2f6fde; --c-2: #c8451b; --c-3: #1f8a4c; --c-4: #8b3fc7;
  --c-5: #0b7f8f; --c-6: #8a6100; --c-7: #c72c7d; --c-8: #56657a; }
@media (prefers-color-scheme: dark) {
  .chart { --c-ink: #e8ebf1; --c-muted: #a3adbd; --c-grid: #333b49; --c-fill: #7aa7ff; --c-soft: #7aa7ff55;
    --c-before: #76839a; --c-1: #7aa7ff; --c-2: #ff9a6b; --c-3: #63d391; --c-4: #c79bff;
    --c-5: #4fd0e0; --c-6: #e0b84a; --c-7: #ff8cc6; --c-8: #a9b6c9; }
}
.chart { display: block; width: 100%; overflow: visible; }
.chart text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
.chart text { fill: var(--c-ink); font-variant-numeric: tabular-nums; }
.chart .muted { fill: var(--c-muted); font-size: 11px; }
.chart .fill { fill: var(--c-fill); }
.chart .before { fill: var(--c-before); }
.chart .dot { fill: var(--c-soft); stroke: var(--c-fill); }
.chart .grid { stroke: var(--c-grid); }
.chart .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
.chart .faint { stroke-width: 1; opacity: .45; }
.chart .dashed { stroke-dasharray: 6 4; }
.chart .guide { stroke: var(--c-muted); stroke-dasharray: 3 4; }
""".strip()

# Of a file of its own: its ground, and what is written above.
_DOCUMENT_STYLE = """
.chart { width: auto; }
.chart .chart { width: 100%; }
.chart .page { fill: #ffffff; }
.chart .title { font-size: 18px; font-weight: 600; }
.chart .heading { font-size: 14px; font-weight: 600; }
@media (prefers-color-scheme: dark) { .chart .page { fill: #12161d; } }
"""
_HEIGHT = re.compile(r'^<svg[^>]* height="(\d+)"')
MARGIN_PX = 20

ROW_PX, BAR_PX, HALF_BAR_PX = 26, 14, 8  # of a bar chart
LABEL_PERCENT, BARS_PERCENT = 36.0, 48.0  # what is left holds the value
PLOT_LEFT, PLOT_WIDTH = 10.0, 87.0  # percent of the width: the plot of columns and scatters
PLOT_TOP_PX, PLOT_HEIGHT_PX = 28, 180
AXIS_PX = 40  # below a plot: labels of the axis, and its name
MOST_LABELS = 8  # below columns: more would touch on a telephone
TIMES = "\N{MULTIPLICATION SIGN}"
MOST_SPOKEN = 12  # values that a screen reader is told
SMALLEST_DOT_PX, LARGEST_DOT_PX = 3.0, 16.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar or column.

    Args:
        text: how the value is written; as a number when empty.
        note: more, shown when the pointer rests on it.
        before: another value of the same unit to compare with, drawn as a grey bar above; of lying bars only.
    """

    label: str
    value: float
    text: str = ""
    note: str = ""
    before: float | None = None

    @property
    def shown(self) -> str:
        """The value as text."""
        return self.text or number_text(self.value)


@dataclass(frozen=True, slots=True)
class Dot:
    """So many things of one size."""

    x: float
    y: float
    count: int


@dataclass(frozen=True, slots=True)
class Ray:
    """A line from the origin through all sizes of one ratio, x over y."""

    label: str
    ratio: float


def bars(
    items: Sequence[Bar], *, title: str, most: float | None = None, legend: tuple[str, str] | None = None
) -> str:
    """Lying bars, one a row, in the order given; labels that are too long are cut, never wrapped.

    Args:
        title: names the chart for those who cannot see it; the page has its own heading.
        most: value of the longest bar possible, for several charts of one scale; else the largest value.
        legend: what `before` and the value are, where the bars have both: a row above them says so.
    """
    head = ROW_PX if legend and items else 0
    height = max(ROW_PX, head + ROW_PX * len(items))
    most = most or max((max(item.value, item.before or 0) for item in items), default=0) or 1
    rows = [_bar(item, head + index * ROW_PX, most) for index, item in enumerate(items)]
    rows = [*(_legend(legend) if legend and items else ()), *rows]
    return drawing(height, title, _spoken(items), rows or [nothing()])


def _bar(item: Bar, top_px: int, most: float) -> str:
    width = BARS_PERCENT * max(0.0, item.value) / most
    end, middle = width, top_px + ROW_PX / 2 + 4
    label = f'<text x="0" y="{pixels(ROW_PX / 2 + 4)}">{safe(item.label)}</text>'
    if item.before is None:
        drawn = _rect("fill", width, top_px + (ROW_PX - BAR_PX) / 2, BAR_PX)
    else:
        width_before = BARS_PERCENT * max(0.0, item.before) / most
        end = max(width, width_before)
        drawn = _rect("before", width_before, middle - 4 - HALF_BAR_PX, HALF_BAR_PX)
        drawn += _rect("fill", width, middle - 4, HALF_BAR_PX)
    return (
        f"<g><title>{safe(_tip(item))}</title>"
        f'<svg x="0" y="{top_px}" width="{percent(LABEL_PERCENT)}" height="{ROW_PX}">{label}</svg>{drawn}'
        f'<text x="{percent(LABEL_PERCENT + 1 + end)}" dx="6" y="{pixels(middle)}">'
        f"{safe(item.shown)}</text></g>"
    )


def _rect(kind: str, width: float, top_px: float, height_px: int) -> str:
    where = f'x="{percent(LABEL_PERCENT + 1)}" y="{pixels(top_px)}" rx="{2 if height_px < BAR_PX else 3}"'
    return f'<rect class="{kind}" {where} width="{percent(width)}" height="{height_px}"/>'


def _legend(names: tuple[str, str]) -> list[str]:
    """A patch of colour and its name, for each of the two bars of a row."""
    parts = []
    for index, (kind, name) in enumerate(zip(("before", "fill"), names, strict=True)):
        x = percent(LABEL_PERCENT + 1 + 30 * index)
        parts.append(f'<rect class="{kind}" x="{x}" y="6" rx="2" width="12" height="{HALF_BAR_PX}"/>')
        parts.append(f'<text class="muted" x="{x}" dx="18" y="14">{safe(name)}</text>')
    return parts


def longest(items: Iterable[Bar], most_rows: int) -> list[Bar]:
    """The largest bars, the largest first; what is left over is one bar more, of their mean."""
    ordered = sorted(items, key=lambda item: (-item.value, item.label))
    if len(ordered) <= most_rows:
        return ordered
    rest = ordered[most_rows - 1 :]
    mean = sum(item.value for item in rest) / len(rest)
    before = [item.before for item in rest if item.before is not None]
    summed = Bar(
        f"and {len(rest):,} more, on average",
        mean,
        note=f"at most {number_text(rest[0].value)}",
        before=sum(before) / len(before) if before else None,
    )
    return [*ordered[: most_rows - 1], summed]


def columns(items: Sequence[Bar], *, title: str, axis: str) -> str:
    """Standing columns beside each other, such as a histogram; each label stands below its column.

    Args:
        axis: what the labels count, with its unit: `shorter side, px`.
    """
    if not items:
        return drawing(ROW_PX, title, "", [nothing()])
    ticks = nice_ticks(max(item.value for item in items))
    parts = [_grid_line(tick, ticks[-1]) for tick in ticks]
    step = PLOT_WIDTH / len(items)
    every = math.ceil(len(items) / MOST_LABELS)
    for index, item in enumerate(items):
        parts.append(_column(item, PLOT_LEFT + index * step, step, ticks[-1], has_label=index % every == 0))
    parts.append(axis_name(axis))
    return drawing(PLOT_TOP_PX + PLOT_HEIGHT_PX + AXIS_PX, title, _spoken(items), parts)


def _column(item: Bar, left: float, step: float, most: float, *, has_label: bool) -> str:
    height = PLOT_HEIGHT_PX * item.value / most
    top, middle = PLOT_TOP_PX + PLOT_HEIGHT_PX - height, percent(left + step / 2)
    label = ""
    if has_label:
        below = PLOT_TOP_PX + PLOT_HEIGHT_PX + 16
        label = f'<text class="muted" x="{middle}" y="{below}" text-anchor="middle">{safe(item.label)}</text>'
    value = ""
    if item.value and step >= PLOT_WIDTH / 12:
        value = f'<text x="{middle}" y="{pixels(top - 5)}" text-anchor="middle">{safe(item.shown)}</text>'
    return (
        f"<g><title>{safe(_tip(item))}</title>"
        f'<rect class="fill" x="{percent(left + step * 0.1)}" y="{pixels(top)}" rx="2" '
        f'width="{percent(step * 0.8)}" height="{pixels(height)}"/>{value}{label}</g>'
    )


def scatter(dots: Sequence[Dot], *, title: str, x_axis: str, y_axis: str, rays: Sequence[Ray] = ()) -> str:
    """Sizes as circles whose area is their number; the commonest are labelled with theirs.

    Args:
        x_axis, y_axis: what is counted, with its unit; both axes begin at 0 and have one scale's ticks each.
        rays: ratios to draw as lines, for orientation.
    """
    if not dots:
        return drawing(ROW_PX, title, "", [nothing()])
    height = PLOT_HEIGHT_PX + 100
    xs, ys = nice_ticks(max(dot.x for dot in dots)), nice_ticks(max(dot.y for dot in dots))
    parts = [_grid_line(tick, ys[-1], height=height) for tick in ys]
    parts += [_x_tick(tick, xs[-1], height) for tick in xs]
    parts += [_ray(ray, xs[-1], ys[-1], height) for ray in rays]
    by_count = sorted(dots, key=lambda dot: (-dot.count, dot.x, dot.y))
    parts += [_dot(dot, by_count[0].count, xs[-1], ys[-1], height) for dot in by_count]
    parts += _dot_labels(by_count, xs[-1], ys[-1], height)
    parts += [axis_name(x_axis, height=height), f'<text class="muted" x="0" y="10">{safe(y_axis)}</text>']
    spoken = ", ".join(_dot_text(dot) for dot in by_count[:MOST_SPOKEN])
    return drawing(PLOT_TOP_PX + height + AXIS_PX, title, spoken, parts)


def _dot(dot: Dot, most: int, x_most: float, y_most: float, height: int) -> str:
    radius = max(SMALLEST_DOT_PX, LARGEST_DOT_PX * math.sqrt(dot.count / most))
    x, y = _place(dot.x, dot.y, x_most, y_most, height)
    circle = f'<circle class="dot" cx="{percent(x)}" cy="{pixels(y)}" r="{pixels(radius)}"/>'
    return f"<g><title>{safe(_dot_text(dot))}</title>{circle}</g>"


def _dot_labels(by_count: Sequence[Dot], x_most: float, y_most: float, height: int) -> list[str]:
    """Labels of the commonest sizes, none over another."""
    parts: list[str] = []
    taken: list[tuple[float, float]] = []
    for dot in by_count[:8]:
        x, y = _place(dot.x, dot.y, x_most, y_most, height)
        if any(abs(y - other_y) < 16 and abs(x - other_x) < 36 for other_x, other_y in taken):
            continue
        taken.append((x, y))
        is_right = x > 50
        anchor = "end" if is_right else "start"
        radius = max(SMALLEST_DOT_PX, LARGEST_DOT_PX * math.sqrt(dot.count / by_count[0].count))
        away = radius + 5
        where = f'x="{percent(x)}" dx="{pixels(-away if is_right else away)}" y="{pixels(y + 4)}"'
        parts.append(f'<text {where} text-anchor="{anchor}">{safe(_dot_text(dot))}</text>')
    return parts


def _ray(ray: Ray, x_most: float, y_most: float, height: int) -> str:
    end_x = min(x_most, y_most * ray.ratio)
    end_y = end_x / ray.ratio
    x, y = _place(end_x, end_y, x_most, y_most, height)
    start_x, start_y = _place(0, 0, x_most, y_most, height)
    line = f'x1="{percent(start_x)}" y1="{pixels(start_y)}" x2="{percent(x)}" y2="{pixels(y)}"'
    text = (
        f'<text class="muted" x="{percent(x)}" y="{pixels(y - 4)}" text-anchor="end">{safe(ray.label)}</text>'
    )
    return f'<line class="guide" {line}/>{text}'


def _place(x: float, y: float, x_most: float, y_most: float, height: int) -> tuple[float, float]:
    """Percent across and pixels down."""
    return PLOT_LEFT + PLOT_WIDTH * x / x_most, PLOT_TOP_PX + height * (1 - y / y_most)


def _grid_line(tick: float, most: float, *, height: int = PLOT_HEIGHT_PX) -> str:
    y = PLOT_TOP_PX + height * (1 - tick / most)
    line = f'<line class="grid" x1="{percent(PLOT_LEFT)}" x2="{percent(PLOT_LEFT + PLOT_WIDTH)}"'
    text = f'<text class="muted" x="{percent(PLOT_LEFT)}" dx="-5" y="{pixels(y + 4)}" text-anchor="end">'
    return f'{line} y1="{pixels(y)}" y2="{pixels(y)}"/>{text}{number_text(tick)}</text>'


def _x_tick(tick: float, most: float, height: int) -> str:
    x = percent(PLOT_LEFT + PLOT_WIDTH * tick / most)
    line = f'<line class="grid" x1="{x}" x2="{x}" y1="{PLOT_TOP_PX}" y2="{PLOT_TOP_PX + height}"/>'
    y = PLOT_TOP_PX + height + 16
    return f'{line}<text class="muted" x="{x}" y="{y}" text-anchor="middle">{number_text(tick)}</text>'


def axis_name(text: str, *, height: int = PLOT_HEIGHT_PX) -> str:
    """What the axis below a plot counts."""
    y = PLOT_TOP_PX + height + 34
    x = percent(PLOT_LEFT + PLOT_WIDTH)
    return f'<text class="muted" x="{x}" y="{y}" text-anchor="end">{safe(text)}</text>'


def nothing() -> str:
    """What stands in a chart without values."""
    return '<text class="muted" x="0" y="17">nothing to show</text>'


def drawing(height_px: int, title: str, spoken: str, parts: Iterable[str]) -> str:
    """A chart of its parts, with its name and its numbers as text for screen readers."""
    label = escape(clean(f"{title}: {spoken}" if spoken else title), quote=True)
    head = f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" width="100%" height="{height_px}"'
    return f'{head} role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _spoken(items: Sequence[Bar]) -> str:
    text = ", ".join(f"{item.label} {item.shown}" for item in items[:MOST_SPOKEN])
    more = len(items) - MOST_SPOKEN
    return f"{text}, and {more:,} more" if more > 0 else text


def _tip(item: Bar) -> str:
    return f"{item.label}: {item.shown}" + (f", {item.note}" if item.note else "")


def _dot_text(dot: Dot) -> str:
    return f"{dot.x:g}{TIMES}{dot.y:g}: {dot.count:,}"


def nice_ticks(most: float, about: int = 4) -> list[float]:
    """Round numbers from 0 to at least `most`, in steps of 1, 2 or 5 times a power of ten.

    Counts have no halves: the smallest step is 1.
    """
    if most <= 0:
        return [0.0, 1.0]
    raw = most / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = max(1.0, next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999))
    return [step * index for index in range(math.ceil(most / step - 1e-9) + 1)]


def number_text(value: float) -> str:
    """A number as people read it: 12,345, and 2.5 with as many decimals as it needs, two at most."""
    text = f"{value:,.2f}"
    return text.rstrip("0").rstrip(".")


def document(
    chart: str | Sequence[tuple[str, str]], *, title: str = "", subtitle: str = "", width_px: int = 720
) -> str:
    """A chart as an SVG file of its own, on white or near-black as the reader's screen is set.

    Args:
        chart: one chart, or several as (heading, chart), drawn below each other.
        title, subtitle: written above.
    """
    parts, top = [], MARGIN_PX
    for words, kind, height in ((title, "title", 26), (subtitle, "muted", 24)):
        if words:
            parts.append(f'<text class="{kind}" x="{MARGIN_PX}" y="{top + 14}">{safe(words)}</text>')
            top += height
    for heading, one in [("", chart)] if isinstance(chart, str) else chart:
        if heading:
            parts.append(f'<text class="heading" x="{MARGIN_PX}" y="{top + 18}">{safe(heading)}</text>')
            top += 32
        height = int(_HEIGHT.findall(one)[0])
        place = f'x="{MARGIN_PX}" y="{top}" width="{width_px - 2 * MARGIN_PX}" height="{height}"'
        parts.append(f"<svg {place}>{one}</svg>")
        top += height + MARGIN_PX
    label = f' role="img" aria-label="{escape(clean(title), quote=True)}"' if title else ""
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" width="{width_px}" height="{top}"{label}>'
        f'<style>{STYLE}{_DOCUMENT_STYLE}</style><rect class="page" width="100%" height="100%"/>'
        f"{''.join(parts)}</svg>\n"
    )


def safe(text: str) -> str:
    """Text between tags, escaped."""
    return escape(clean(text), quote=False)


def clean(text: str) -> str:
    """Text without what no HTML and no XML may hold: control characters and lone surrogates become �."""
    if text.isprintable():
        return text
    return "".join("�" if _is_forbidden(char) else char for char in text)


def _is_forbidden(char: str) -> bool:
    return (ord(char) < 32 and char != "\n") or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000


def percent(value: float) -> str:
    """A place across."""
    return f"{round(value, 2):g}%"


def pixels(value: float) -> str:
    """A place down."""
    return f"{round(value, 1):g}"
