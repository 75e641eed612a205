"""Expected exposures as a picture: bars of pictures there are and of pictures seen in an epoch, as SVG.

One file for light and dark: colours follow the reader's system. Nothing is loaded from outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

MAX_ROWS = 40  # of one chart; what is left is one more row
WIDTH_PX = 960
LABEL_PX, VALUE_PX = 300, 150
ROW_PX, BAR_PX, HEAD_PX, GAP_PX, MARGIN_PX = 26, 8, 46, 26, 24
LABEL_LETTERS = 42

_STYLE = """
svg { --page: #ffffff; --ink: #1f2328; --soft: #656d76; --line: #d8dee4; --have: #afb8c1; --seen: #0969da; }
@media (prefers-color-scheme: dark) {
  svg { --page: #0d1117; --ink: #e6edf3; --soft: #8d96a0; --line: #30363d; --have: #57606a; --seen: #4493f8; }
}
text { font: 13px system-ui, "Segoe UI", "Noto Sans", "Noto Sans CJK JP", sans-serif; fill: var(--ink); }
.title { font-size: 18px; font-weight: 600; }
.head { font-weight: 600; }
.soft { fill: var(--soft); font-size: 12px; }
.number { text-anchor: end; font-variant-numeric: tabular-nums; }
.page { fill: var(--page); }
.have { fill: var(--have); }
.seen { fill: var(--seen); }
.line { stroke: var(--line); }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a chart."""

    label: str
    num_images: int
    exposures: float  # pictures of it seen in one epoch
    note: str = ""  # what stands beside the number


def chart_svg(title: str, subtitle: str, charts: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """A drawing of one or more charts below each other; each is sorted by exposures and scaled by itself.

    Args:
        charts: (heading, rows).
    """
    parts: list[str] = []
    top = MARGIN_PX + 20.0
    parts.append(_text(MARGIN_PX, top, title, "title"))
    top += 22
    parts.append(_text(MARGIN_PX, top, subtitle, "soft"))
    parts += _legend(top)
    top += GAP_PX
    for heading, bars in charts:
        drawn, top = _chart(heading, _shortened(bars), top)
        parts += drawn
    height = round(top + MARGIN_PX - GAP_PX)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height}" '
        f'width="{WIDTH_PX}" height="{height}" role="img">'
    )
    page = f'<rect class="page" width="{WIDTH_PX}" height="{height}"/>'
    return "\n".join(
        [head, f"<title>{escape(title)}</title>", f"<style>{_STYLE}</style>", page, *parts, "</svg>\n"]
    )


def _shortened(bars: Sequence[Bar]) -> list[Bar]:
    ordered = sorted(bars, key=lambda bar: (-bar.exposures, bar.label))
    if len(ordered) <= MAX_ROWS:
        return ordered
    rest = ordered[MAX_ROWS - 1 :]
    most = max(rest, key=lambda bar: bar.exposures)
    label = f"and {len(rest):,} more, on average"
    mean = sum(bar.exposures for bar in rest) / len(rest)
    images = round(sum(bar.num_images for bar in rest) / len(rest))
    return [*ordered[: MAX_ROWS - 1], Bar(label, images, mean, f"at most {most.exposures:,.0f}")]


def _legend(top: float) -> list[str]:
    x = WIDTH_PX - MARGIN_PX - 270
    return [
        f'<rect class="have" x="{x}" y="{top - 9}" width="12" height="{BAR_PX}" rx="2"/>',
        _text(x + 18, top, "pictures there are", "soft"),
        f'<rect class="seen" x="{x + 136}" y="{top - 9}" width="12" height="{BAR_PX}" rx="2"/>',
        _text(x + 154, top, "seen in an epoch", "soft"),
    ]


def _chart(heading: str, bars: Sequence[Bar], top: float) -> tuple[list[str], float]:
    parts = [_text(MARGIN_PX, top + 20, heading, "head")]
    parts.append(
        f'<line class="line" x1="{MARGIN_PX}" x2="{WIDTH_PX - MARGIN_PX}" y1="{top + 30}" y2="{top + 30}"/>'
    )
    left = MARGIN_PX + LABEL_PX
    room = WIDTH_PX - MARGIN_PX - VALUE_PX - left
    most = max((max(bar.exposures, bar.num_images) for bar in bars), default=1) or 1
    top += HEAD_PX - 8
    for bar in bars:
        middle = top + ROW_PX / 2
        parts.append(_text(MARGIN_PX, middle + 4, _short(bar.label), "", bar.label))
        for value, kind, y in (
            (bar.num_images, "have", middle - BAR_PX - 0.5),
            (bar.exposures, "seen", middle + 0.5),
        ):
            width = max(1.0, room * value / most) if value else 0
            parts.append(
                f'<rect class="{kind}" x="{left}" y="{y:g}" width="{width:.1f}" height="{BAR_PX}" rx="2"/>'
            )
        numbers = f"{bar.num_images:,} \N{RIGHTWARDS ARROW} {bar.exposures:,.0f}"
        parts.append(_text(WIDTH_PX - MARGIN_PX - 62, middle + 4, numbers, "number"))
        parts.append(_text(WIDTH_PX - MARGIN_PX, middle + 4, bar.note, "soft number"))
        top += ROW_PX
    return parts, top + GAP_PX


def _short(label: str) -> str:
    return label if len(label) <= LABEL_LETTERS else f"…{label[-LABEL_LETTERS + 1 :]}"


def _text(x: float, y: float, text: str, kind: str, whole: str | None = None) -> str:
    tip = f"<title>{escape(whole)}</title>" if whole and whole != text else ""
    name = f' class="{kind}"' if kind else ""
    return f'<text{name} x="{x:g}" y="{y:g}">{tip}{escape(text)}</text>'
