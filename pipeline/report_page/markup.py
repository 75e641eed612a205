"""Pieces of HTML: escaped text, cards, tables, sections. Everything that comes from names is escaped here."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from pipeline.charts import clean

PATH_CELL = ' class="path"'


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with a heading, reached from the bar at its top."""

    anchor: str
    heading: str
    count: int | None
    body: str
    is_bad: bool = False

    @property
    def badge(self) -> str:
        """How much is in it."""
        kind = "count bad" if self.is_bad else "count"
        return "" if self.count is None else f'<span class="{kind}">{self.count:,}</span>'

    def html(self) -> str:
        """The section."""
        name = f'id="{self.anchor}" aria-labelledby="{self.anchor}-h"'
        return (
            f'<section {name}>\n<h2 id="{self.anchor}-h">{self.heading}{self.badge}</h2>\n'
            f"{self.body}\n</section>"
        )


def card(heading: str, body: str, note: str = "") -> str:
    """A box with a heading.

    Args:
        body: HTML.
        note: text above it.
    """
    above = f'<p class="muted">{text(note.strip())}</p>' if note.strip() else ""
    return f'<div class="card"><h3>{text(heading)}</h3>{above}{body}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; columns of numbers stand right, the first names the row."""
    numbers = [
        bool(rows) and index > 0 and all(_is_number(row[index]) for row in rows) for index in range(len(head))
    ]
    kinds = [' class="n"' if is_number else "" for is_number in numbers]
    top = "".join(f'<th scope="col"{kind}>{text(name)}</th>' for name, kind in zip(head, kinds, strict=True))
    lines = []
    for row in rows:
        cells = [f'<th scope="row">{row[0]}</th>']
        cells += [
            f"<td{kind or PATH_CELL}>{cell}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "".join(lines)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() and all(char in "0123456789.,% e+-" for char in cell)


def address(relative: str) -> str:
    """A relative path as it stands in a link."""
    return quote(relative, safe="/")


def text(shown: str) -> str:
    """Text between tags."""
    return escape(clean(shown), quote=False)


def attribute(shown: str) -> str:
    """Text between the quotes of an attribute."""
    return escape(clean(shown), quote=True)
