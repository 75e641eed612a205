"""The part of a report about training runs: each with its loss, its samples and the way to its own page."""

import hashlib
import io
from collections.abc import Mapping, Sequence

from pipeline.console import LOG
from pipeline.curves import value_text
from pipeline.report_page.markup import address, attribute, text
from pipeline.training_runs import MODELS, PAGE_NAME, SHEET_NAME, TrainingRun, concept_charts, loss_chart

SHEET_WIDTH_PX, QUALITY = 1600, 80  # of the small copy of a sheet, a WebP


def small_sheets(runs: Sequence[TrainingRun]) -> dict[str, tuple[str, bytes]]:
    """{folder of the run: (name, bytes)} of a copy of its sheet of samples, small enough for a page.

    A sheet that cannot be read is said and passed over.
    """
    found = {}
    for run in runs:
        path = run.folder / SHEET_NAME
        if not path.is_file():
            continue
        try:
            data = _small(path.read_bytes())
        except (OSError, ValueError, SyntaxError) as error:
            LOG.warning("%s cannot be read: %s", path, error)
            continue
        name = hashlib.sha256(data).hexdigest()
        found[run.folder.name] = (f"{name[:2]}/{name[2:20]}_sheet.webp", data)
    return found


def _small(sheet: bytes) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(sheet)) as image:
        small = image.convert("RGB")
    if small.width > SHEET_WIDTH_PX:
        small = small.resize((SHEET_WIDTH_PX, max(1, small.height * SHEET_WIDTH_PX // small.width)))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()


def trainings_part(runs: Sequence[TrainingRun], root: str, sheets: Mapping[str, str]) -> str:
    """A box for each run.

    Args:
        root: address of the project's folder, relative to the page, with a slash at its end.
        sheets: {folder of the run: address of its small sheet}.
    """
    return "".join(_run(run, root, sheets.get(run.folder.name)) for run in runs)


def _run(run: TrainingRun, root: str, sheet: str | None) -> str:
    settings = run.facts.get("settings", {})
    place = f"{root}{address(f'{MODELS}/{run.folder.name}')}"
    words = [f"{settings.get('kind', '')}, step {run.step:,} of {run.total_steps:,}"]
    for name, label in (("smoothed_loss", "loss"), ("validation_loss", "held out")):
        value = run.last(name)
        words += [f"{label} {value_text(value)}"] if value is not None else []
    if run.best is not None:
        words.append(f"lowest at step {run.best['step']:,}")
    shown = ""
    if sheet is not None:
        image = f'<img src="{attribute(sheet)}" alt="Samples of {attribute(run.name)}" loading="lazy">'
        shown = f'<a class="sheet" href="{place}/{SHEET_NAME}">{image}</a>'
    charts = "".join(f'<div class="card">{one}</div>' for one in (loss_chart(run), *concept_charts(run)[:1]))
    return (
        f'<div class="card training"><h3><a href="{place}/{PAGE_NAME}">{text(run.name)}</a> '
        f'<span class="muted">{text("; ".join(words))}</span></h3>'
        f'<div class="cards">{charts}</div>{shown}</div>'
    )
