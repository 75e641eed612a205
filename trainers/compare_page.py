"""The page of a comparison: static HTML and CSS, light and dark, that works from disk without a network."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from pipeline.report_page.markup import address, attribute, text
from trainers.compare_grid import SMALLEST_CELL_PX
from trainers.compare_plan import Plan

_STYLE = Path(__file__).with_name("compare_page.css")


def page(plan: Plan, pictures: Mapping[str, str], made: Mapping[str, str]) -> str:
    """The page as HTML.

    Args:
        pictures: {key: path relative to the page}; one that is missing leaves its cell empty.
        made: {what it is called: relative path} of the files beside it.
    """
    labels = plan.labels()
    links = " · ".join(f'<a href="{address(path)}">{text(name)}</a>' for name, path in made.items())
    body = "".join(_row(plan, down, labels, pictures) for down in range(len(plan.rows)))
    count = f"{len(plan.columns):,} models, {len(plan.rows):,} rows"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Comparison</title>\n'
        f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style></head><body>\n"
        f"<header><h1>Comparison</h1><p>{count}, the same noise along each row. {text(_shared(plan))}</p>"
        f"<p>{links}</p></header>\n"
        f'<div class="grid" tabindex="0"><table><thead>{_head(labels)}</thead>\n<tbody>{body}</tbody></table>'
        "</div>\n</body></html>\n"
    )


def _shared(plan: Plan) -> str:
    return f"Clip skip {plan.clip_skip}, {plan.precision}."


def _head(labels: Sequence[tuple[str, str, str]]) -> str:
    levels = [level for level in range(3) if any(one[level] for one in labels)]
    corner = f'<td rowspan="{len(levels)}" class="corner"></td>'
    lines = []
    for level in levels:
        cells = "".join(_head_cells(labels, level))
        lines.append(f"<tr>{corner if level == levels[0] else ''}{cells}</tr>")
    return "".join(lines)


def _head_cells(labels: Sequence[tuple[str, str, str]], level: int) -> Iterator[str]:
    for _, same in groupby(enumerate(labels), key=lambda pair: pair if level == 2 else pair[1][: level + 1]):
        ones = list(same)
        span = f' colspan="{len(ones)}"' if len(ones) > 1 else ""
        yield f'<th scope="col"{span}>{text(ones[0][1][level])}</th>'


def _row(plan: Plan, down: int, labels: Sequence[tuple[str, str, str]], pictures: Mapping[str, str]) -> str:
    prompt = plan.rows[down]
    about = f"seed {prompt.seed}, guidance {prompt.guidance:g}, {prompt.sampler}, {prompt.steps} steps"
    negative = f'<span class="faint">not: {text(prompt.negative)}</span>' if prompt.negative else ""
    head = (
        f'<th scope="row"><span>{text(prompt.text)}</span>{negative}<span class="faint">{about}</span></th>'
    )
    cells = []
    for across, label in enumerate(labels):
        cell = plan.cells[down, across]
        path = pictures.get(cell.key)
        if path is None:
            cells.append('<td class="none">not drawn</td>')
            continue
        width, height = cell.prompt.width_px, cell.prompt.height_px
        factor = max(1, -(-SMALLEST_CELL_PX // max(width, height)))
        alternative = attribute(f"{', '.join(part for part in label if part)}: {prompt.text}")
        cells.append(
            f'<td><a href="{address(path)}"><img src="{address(path)}" width="{width * factor}" '
            f'height="{height * factor}" loading="lazy" alt="{alternative}"></a></td>'
        )
    return f"<tr>{head}{''.join(cells)}</tr>\n"
