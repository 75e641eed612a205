"""Groups of pictures as HTML pages that work from disk: thumbnails inside, no script, light and dark."""

import base64
import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.files import write_atomic

GROUPS_PER_PAGE = 200

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; --kept: #2a7d3f; --dropped: #b3432b; }
@media (prefers-color-scheme: dark) { :root { --kept: #6fcf8a; --dropped: #f0907a; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 78rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; } p { margin: .3rem 0; }
nav { margin: .8rem 0; display: flex; flex-wrap: wrap; gap: .3rem .7rem; }
section { border-top: 1px solid var(--line); padding: .8rem 0; content-visibility: auto;
  contain-intrinsic-size: auto 15rem; }
h2 { font-size: .95rem; font-weight: 600; margin: 0 0 .5rem; }
.row { display: flex; flex-wrap: wrap; gap: .8rem; align-items: flex-start; }
figure { margin: 0; width: 13.5rem; }
figure img { display: block; max-width: 100%; max-height: 12rem; border: 3px solid var(--dropped);
  border-radius: 4px; background: var(--soft); }
figure.kept img { border-color: var(--kept); }
figcaption { font-size: .8rem; overflow-wrap: anywhere; margin-top: .25rem; }
b { color: var(--dropped); } .kept b { color: var(--kept); } small { opacity: .75; }
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture of a group."""

    name: str  # as the person knows it: its path in the project
    thumb: bytes  # JPEG
    word: str  # "kept", or why it is dropped
    note: str  # size and the like
    is_kept: bool


@dataclass(frozen=True, slots=True)
class Group:
    """One group, the kept pictures first."""

    title: str
    cells: Sequence[Cell]


def write_sheet(path: Path, title: str, summary: str, groups: Sequence[Group]) -> list[Path]:
    """Write the groups in their order, `GROUPS_PER_PAGE` a page: sheet.html, sheet-2.html and so on.

    Raises:
        DiskFullError: no room.
    """
    num_pages = max(1, -(-len(groups) // GROUPS_PER_PAGE))
    paths = [path if page == 0 else path.with_stem(f"{path.stem}-{page + 1}") for page in range(num_pages)]
    path.parent.mkdir(parents=True, exist_ok=True)
    for page, page_path in enumerate(paths):
        part = groups[page * GROUPS_PER_PAGE : (page + 1) * GROUPS_PER_PAGE]
        text = _page(title, summary, part, page, [one.name for one in paths])
        write_atomic(page_path, text, sync=False)
    return paths


def _page(title: str, summary: str, groups: Sequence[Group], page: int, names: Sequence[str]) -> str:
    first = page * GROUPS_PER_PAGE + 1
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1><p>{html.escape(summary)}</p>",
        _links(page, names),
        *(_section(first + place, group) for place, group in enumerate(groups)),
        _links(page, names),
        "</body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _links(page: int, names: Sequence[str]) -> str:
    if len(names) == 1:
        return ""
    links = [
        f"<strong>{place + 1}</strong>" if place == page else f'<a href="{html.escape(name)}">{place + 1}</a>'
        for place, name in enumerate(names)
    ]
    return f"<nav>Page {' '.join(links)}</nav>"


def _section(number: int, group: Group) -> str:
    cells = "\n".join(_figure(cell) for cell in group.cells)
    title = html.escape(_shown(group.title))
    return (
        f'<section id="g{number}"><h2>{number:,}. {title}</h2>\n<div class="row">\n{cells}\n</div></section>'
    )


def _figure(cell: Cell) -> str:
    data = base64.b64encode(cell.thumb).decode("ascii")
    name = html.escape(_shown(cell.name))
    kind = ' class="kept"' if cell.is_kept else ""
    return (
        f'<figure{kind}><img loading="lazy" alt="{name}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption><b>{html.escape(cell.word)}</b><br>{name}<br>"
        f"<small>{html.escape(cell.note)}</small></figcaption></figure>"
    )


def _shown(text: str) -> str:
    return os.fsencode(text).decode("utf-8", "replace")
