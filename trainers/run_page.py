"""The page of a run: curves, samples, models, data, settings and what is odd, as one HTML file, no script.

Everything is read from the run's folder, so the page can be written at any time and is the same for the same
files. It has the look of the report (pipeline/report_page), light and dark as the screen is set.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from pipeline import charts
from pipeline.charts import Bar
from pipeline.curves import Curve, curves, value_text
from pipeline.files import format_bytes, write_atomic
from pipeline.report_page.markup import Section, address, attribute, card, table, text
from pipeline.training_runs import (
    TrainingRun,
    concept_charts,
    concept_points,
    concepts_of,
    loss_chart,
    loss_svg,
    validation_chart,
)
from trainers.prompts import Prompt
from trainers.run_folder import RunFolder
from trainers.run_notes import notes_of
from trainers.samples import SAMPLE_KEY

State = Literal["running", "done", "stopped"]
REFRESH_S = 60  # of a page whose run goes on
POLICY = "default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'; base-uri 'none'"
MOST_FOLDERS, MOST_FAILURES = 24, 50
_STYLE = Path(__file__).with_name("run_page.css")


def write_page(folder: RunFolder, state: State, *, ended: str = "") -> None:
    """Write loss.svg and index.html, each whole or not at all; nothing before the first measurement.

    Args:
        ended: why it stopped, where it did not come to its end.
    """
    run = TrainingRun.read(folder.path)
    if run is None:
        return
    write_atomic(folder.loss_path, loss_svg(run), sync=False)
    write_atomic(folder.page_path, page(run, folder, state, ended=ended), sync=False)


def page(run: TrainingRun, folder: RunFolder, state: State, *, ended: str = "") -> str:
    """The page as HTML."""
    sections = [one for one in _sections(run, folder, ended) if one.body]
    style = files("pipeline.report_page").joinpath("page.css").read_text(encoding="utf-8")
    refresh = f'<meta http-equiv="refresh" content="{REFRESH_S}">\n' if state == "running" else ""
    nav = "".join(f'<li><a href="#{one.anchor}">{one.heading}{one.badge}</a></li>' for one in sections)
    body = "\n".join(one.html() for one in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{attribute(POLICY)}">\n{refresh}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="generator" content="celforge train">\n'
        f"<title>{text(run.name)} · training</title>\n"
        f"<style>\n{style}{charts.STYLE}\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#main">Skip to the run</a>\n{_header(run, state)}'
        f'<nav aria-label="Parts of the page"><ul>{nav}</ul></nav>\n<main id="main">\n{body}\n</main>\n'
        "<footer>Made by celforge train from settings.json, metrics.jsonl and the files beside this page."
        "</footer>\n</body>\n</html>\n"
    )


def _sections(run: TrainingRun, folder: RunFolder, ended: str) -> Iterator[Section]:
    said = [ended] if ended else []
    said += [note.text for note in notes_of(run.lines)]
    problems = list(run.facts.get("problems", []))
    yield Section("notes", "What to know", len(said) or None, _notes(said, problems), is_bad=bool(said))
    yield Section("curves", "Curves", None, _curves(run))
    yield Section("validation", "Validation", None, _validation(run))
    yield Section("samples", "Samples", None, _samples(folder))
    yield Section("models", "Models", None, _models(run, folder))
    yield Section("data", "Data", None, _data(run))
    yield Section("settings", "Settings", None, _settings(run))
    yield Section("environment", "Environment", None, _pairs(run.facts.get("environment", {})))


def _header(run: TrainingRun, state: State) -> str:
    settings = run.facts.get("settings", {})
    words = {"running": "running", "done": "done", "stopped": "stopped"}[state]
    tiles = [("state", words), ("steps done", f"{run.step:,} of {run.total_steps:,}")]
    for name, label in (("smoothed_loss", "loss, smoothed"), ("validation_loss", "validation loss")):
        value = run.last(name)
        tiles += [(label, value_text(value))] if value is not None else []
    if run.best is not None:
        tiles.append(("best step", f"{run.best['step']:,}"))
    speed = run.last("images_per_s")
    tiles += [("images a second", value_text(speed))] if speed is not None else []
    cells = "".join(f"<div><dt>{name}</dt><dd>{text(value)}</dd></div>" for name, value in tiles)
    base = Path(str(settings.get("base", ""))).name
    line = f"{settings.get('kind', '')}, trained on {base}"
    return (
        f'<header>\n<h1>{text(run.name)}</h1>\n<p class="muted">{text(line)}</p>'
        f'<dl class="tiles">{cells}</dl>\n</header>\n'
    )


def _notes(said: Sequence[str], problems: Sequence[str]) -> str:
    items = "".join(f'<li class="failed">{text(_sentence(one))}</li>' for one in said)
    items += "".join(f"<li>{text(_sentence(one))}</li>" for one in problems)
    return f'<div class="card"><ul class="notes">{items}</ul></div>' if items else ""


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def _curves(run: TrainingRun) -> str:
    if not run.points("loss"):
        return '<div class="card"><p class="muted">Nothing was measured yet.</p></div>'
    single = [
        ("Learning rate", "learning_rate", "of the first part that learns"),
        ("Norm of the gradients", "grad_norm", "before they are shortened"),
        ("Images a second", "images_per_s", ""),
        ("Memory, GB", "memory_bytes", "the most that was allocated so far"),
        ("Loss scale of fp16", "loss_scale", ""),
    ]
    cards = [card("Loss", loss_chart(run), "Smoothed over about ten lines of the log.")]
    for heading, name, note in single:
        points = run.points(name)
        if points:
            if name == "memory_bytes":
                points = [(step, value / 1e9) for step, value in points]
            curve = Curve("", points)
            drawn = curves([curve], title=heading, from_zero=name in ("learning_rate", "images_per_s"))
            cards.append(card(heading, drawn, note))
    return f'<div class="cards">{"".join(cards)}</div>'


def _validation(run: TrainingRun) -> str:
    """The curves of held-out pictures, and each concept's numbers."""
    if not run.validations:
        return ""
    told = run.facts.get("validation", {})
    counts = told.get("concepts", {})
    note = (
        f"{told.get('measured', '')} pictures that no step learns from, at the same timesteps with the same "
        "noise each time; dashed, as many training pictures measured alike."
    )
    cards = [card("Held-out pictures", validation_chart(run), note)]
    cards += [card("By concept", one) for one in concept_charts(run)]
    rows = []
    for name in concepts_of(run):
        points = concept_points(run, name)
        best = min(points, key=lambda point: point[1])
        rows.append(
            (
                text(name),
                f"{counts.get(name, 0):,}",
                value_text(points[0][1]),
                value_text(points[-1][1]),
                value_text(best[1]),
                f"{best[0]:,.0f}",
            )
        )
    found = table(("concept", "pictures", "at first", "now", "lowest", "at step"), rows)
    return f'<div class="cards">{"".join(cards)}</div><div class="card">{found}</div>'


# Samples


def read_samples(folder: RunFolder) -> dict[Prompt, dict[int, Path]]:
    """{prompt: {step: its picture}}, prompts in their order; whatever is not ours is passed over."""
    found: dict[Prompt, dict[int, Path]] = {}
    for path in sorted(folder.samples_folder.glob("*.png")):
        try:
            with Image.open(path) as image:
                words = json.loads(image.info[SAMPLE_KEY])
            found.setdefault(Prompt(**words["prompt"]), {})[int(words["step"])] = path
        except (OSError, KeyError, ValueError, TypeError, SyntaxError):
            continue
    return dict(sorted(found.items(), key=lambda pair: pair[0].number))


def _samples(folder: RunFolder) -> str:
    found = read_samples(folder)
    if not found:
        return ""
    steps = sorted({step for by_step in found.values() for step in by_step})
    head = "".join(f'<th scope="col">step {step:,}</th>' for step in steps)
    rows = "".join(_sample_row(prompt, by_step, steps) for prompt, by_step in found.items())
    sheet = f'<p><a href="{address(folder.sheet_path.name)}">All of them on one sheet</a></p>'
    return (
        f'<div class="card">{sheet}<div class="scroll" tabindex="0"><table class="samples"><thead><tr>'
        f'<th scope="col">prompt</th>{head}</tr></thead><tbody>{rows}</tbody></table></div></div>'
    )


def _sample_row(prompt: Prompt, by_step: Mapping[int, Path], steps: Sequence[int]) -> str:
    about = f"seed {prompt.seed}, guidance {prompt.guidance:g}, {prompt.steps} steps"
    cells = []
    for step in steps:
        path = by_step.get(step)
        if path is None:
            cells.append('<td class="muted">not drawn</td>')
            continue
        place = address(f"{path.parent.name}/{path.name}")
        words = attribute(f"step {step:,}: {prompt.text}")
        cells.append(
            f'<td><a href="{place}"><img src="{place}" width="{prompt.width_px}" height="{prompt.height_px}" '
            f'loading="lazy" decoding="async" alt="{words}"></a></td>'
        )
    return (
        f'<tr><th scope="row">{text(prompt.text)}<br><span class="muted">{text(about)}</span></th>'
        f"{''.join(cells)}</tr>"
    )


# Files, data, settings


def _models(run: TrainingRun, folder: RunFolder) -> str:
    losses = {line["step"]: line["validation_loss"] for line in run.validations}
    found = folder.step_models()
    if folder.model_path().exists():
        found = [*found, (run.total_steps, folder.model_path())]
    if not found:
        return ""
    known = [losses[step] for step, _ in found if step in losses]
    rows = []
    for step, path in found:
        loss = losses.get(step)
        size = format_bytes(path.stat().st_size) if path.is_file() else "folder"
        is_best = loss is not None and len(known) > 1 and loss == min(known)
        best = ' <strong class="kept">best of those saved</strong>' if is_best else ""
        shown = "" if loss is None else value_text(loss)
        name = f'<a href="{address(path.name)}">{text(path.name)}</a>{best}'
        rows.append((name, f"{step:,}", *((shown,) if losses else ()), size))
    head = ("file", "step", *(("validation loss",) if losses else ()), "size")
    return f'<div class="card">{table(head, rows)}</div>'


def _data(run: TrainingRun) -> str:
    facts = run.facts
    folders = [Bar(one["folder"], one["seen a pass"]) for one in facts.get("folders", [])]
    buckets = [
        Bar(one["bucket"], one["pictures"], note=f"seen {one['seen a pass']:g} times a pass")
        for one in facts.get("buckets", [])
    ]
    failures = facts.get("failures", [])
    cards = []
    if folders:
        shown = charts.bars(
            charts.longest(folders, MOST_FOLDERS), title="Pictures seen in one pass, by folder"
        )
        cards.append(card("Pictures seen in one pass, by folder", shown))
    if buckets:
        shown = charts.bars(charts.longest(buckets, MOST_FOLDERS), title="Pictures by bucket")
        cards.append(card("Pictures by bucket", shown))
    plan = _pairs({name: words for name, words in facts.get("plan", {}).items() if name != "disk"})
    left_out = ""
    if failures:
        rows = [(text(one["path"]), text(one["detail"])) for one in failures[:MOST_FAILURES]]
        left_out = f'<div class="card"><h3>Left out</h3>{table(("picture", "why"), rows)}</div>'
    return f'<div class="cards">{"".join(cards)}</div>{plan}{left_out}'


def _settings(run: TrainingRun) -> str:
    settings, sources = run.facts.get("settings", {}), run.facts.get("sources", {})
    others = run.facts.get("other_than_the_preset", {})
    rows = []
    for name, value in settings.items():
        preset = _shown(others[name]["preset"]) if name in others else ""
        mark = f"<strong>{text(name)}</strong>" if name in others else text(name)
        rows.append((mark, text(_shown(value)), text(str(sources.get(name, ""))), text(preset)))
    given = [row for row, name in zip(rows, settings, strict=True) if sources.get(name) != "default"]
    head = ("setting", "value", "from", "of the preset, where it differs")
    return (
        f'<div class="card"><h3>Set by the preset, celforge.toml or a flag</h3>{table(head, given)}</div>'
        f'<details class="card"><summary>All settings</summary>{table(head, rows)}</details>'
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _pairs(values: Mapping[str, Any]) -> str:
    rows = [(text(name), text(str(value))) for name, value in values.items()]
    return f'<div class="card">{table(("what", "value"), rows)}</div>' if rows else ""
