"""A bar chart of counts as SVG: one file that is light on a light page and dark on a dark one."""

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from pipeline.errors import InputError
from pipeline.files import write_atomic

WIDTH_PX = 860
ROW_PX = 24
TOP_PX = 68
NAMES_PX = 250  # room for names, left of the bars
NUMBERS_PX = 110
LETTERS = 34  # of a name before it is cut
MARK = "<!-- made by celforge tags -->"
_STYLE = """
  svg { color-scheme: light dark; font: 13px system-ui, "Segoe UI", "Noto Sans", sans-serif; }
  .page { fill: #fcfcfb; } .ink { fill: #1b1c1e; } .pale { fill: #6b6f76; }
  .bar { fill: #3b6fb6; } .rail { stroke: #dfe1e4; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #17181b; } .ink { fill: #eceef1; } .pale { fill: #9aa0a8; }
    .bar { fill: #6ea3e8; } .rail { stroke: #34373c; }
  }
"""


def bar_chart(title: str, subtitle: str, counts: Sequence[tuple[str, int]], total: int) -> str:
    """The SVG's text.

    Args:
        counts: (name, number of pictures), the largest first.
        total: pictures in all, for the shares.
    """
    height = TOP_PX + ROW_PX * len(counts) + 20
    room = WIDTH_PX - NAMES_PX - NUMBERS_PX - 20
    most = max((count for _, count in counts), default=1) or 1
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{height}" '
        f'viewBox="0 0 {WIDTH_PX} {height}" role="img" aria-label="{_attribute(title)}">',
        MARK,
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{WIDTH_PX}" height="{height}" rx="6"/>',
        f'<text class="ink" x="20" y="30" font-size="17" font-weight="600">{_text(title)}</text>',
        f'<text class="pale" x="20" y="50">{_text(subtitle)}</text>',
        f'<path class="rail" d="M{NAMES_PX} {TOP_PX - 4}V{height - 16}"/>',
    ]
    for row, (name, count) in enumerate(counts):
        y = TOP_PX + ROW_PX * row
        width, baseline = max(1.0, room * count / most), y + 15
        share = f"{100 * count / total:.1f} %" if total else ""
        lines += [
            f"<g><title>{_text(name)}: {count:,}</title>",
            f'<text class="ink" x="{NAMES_PX - 10}" y="{baseline}" text-anchor="end">',
            f"{_text(_cut(name))}</text>",
            f'<rect class="bar" x="{NAMES_PX}" y="{y + 3}" width="{width:.1f}" ',
            f'height="{ROW_PX - 8}" rx="2"/>',
            f'<text class="ink" x="{NAMES_PX + width + 8:.1f}" y="{baseline}">{count:,} '
            f'<tspan class="pale">{share}</tspan></text></g>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def write_chart(path: Path, svg: str) -> None:
    """Write a chart; only an older chart of ours is replaced.

    Raises:
        InputError: something else is there, or there is no such folder.
    """
    if path.suffix.lower() != ".svg":
        raise InputError(f"a chart is an SVG, not {path.name}", hint=f"write {path.with_suffix('.svg')}")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}", hint="make it first")
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace")[:1000]:
        raise InputError(f"{path} exists and is no chart of ours", hint="take another name")
    write_atomic(path, svg)


def _cut(name: str) -> str:
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _text(text: str) -> str:
    return escape("".join(letter if letter.isprintable() else " " for letter in text))


def _attribute(text: str) -> str:
    return _text(text).replace('"', "&quot;")
