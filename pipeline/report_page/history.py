"""What was done to the data set: failures, outcomes of the stages, and the runs, as tables."""

from collections.abc import Sequence
from datetime import datetime

from pipeline.report_page.markup import attribute, table, text
from pipeline.report_page.survey import Problem, Run
from pipeline.settings import canonical_json

MOST_RUNS = 200


def problems_table(problems: Sequence[Problem]) -> str:
    """Failures by kind, each with the files that it befell."""
    parts = []
    for problem in problems:
        rows = [(text(path), text(detail)) for path, detail in problem.examples]
        more = problem.count - len(rows)
        rest = f'<p class="muted">and {more:,} more</p>' if more > 0 else ""
        parts.append(
            f'<details class="folder"><summary><strong class="failed">{problem.count:,}</strong> '
            f'{text(problem.reason)} <span class="muted">{text(problem.stage)}</span></summary>'
            f'<div class="more">{table(("file", "what happened"), rows)}{rest}</div></details>'
        )
    return "".join(parts)


def outcomes_table(outcomes: Sequence[tuple[str, str, str, int]]) -> str:
    """How every stage ended for how many files."""
    if not outcomes:
        return ""
    rows = [
        (text(stage), f'<span class="{outcome}">{outcome}</span>', text(reason), f"{count:,}")
        for stage, outcome, reason, count in outcomes
    ]
    found = table(("stage", "outcome", "reason", "files"), rows)
    return f'<div class="card">{found}</div>'


def runs_table(runs: Sequence[Run]) -> str:
    """What was run when, the newest first."""
    if not runs:
        return ""
    rows = [
        (
            f"{run.number}",
            f"<strong>{text(run.stage)}</strong>{_settings(run)}",
            text(run.folder),
            _time(run.started_at),
            text(_duration(run)),
            _ending(run),
        )
        for run in reversed(runs[-MOST_RUNS:])
    ]
    more = len(runs) - len(rows)
    rest = f'<p class="muted">and {more:,} earlier runs</p>' if more > 0 else ""
    found = table(("run", "stage", "folder", "started", "took", "ended"), rows)
    return f'<div class="card">{found}{rest}</div>'


def _settings(run: Run) -> str:
    lines = [
        f"[{section}] {name} = {canonical_json(value)}"
        for section, values in sorted(run.settings.items())
        for name, value in sorted(values.items())
    ]
    shown = text("\n".join([f"celforge {run.version}", *lines]))
    return f"<details><summary>settings</summary><pre>{shown}</pre></details>"


def _time(moment: str) -> str:
    return f'<time datetime="{attribute(moment)}">{text(moment[:16].replace("T", " "))} UTC</time>'


def _duration(run: Run) -> str:
    if run.ended_at is None:
        return ""
    seconds = (datetime.fromisoformat(run.ended_at) - datetime.fromisoformat(run.started_at)).seconds
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    )


def _ending(run: Run) -> str:
    if run.exit_code is None:
        return '<span class="failed">cut off</span>'
    words = {0: ("kept", "done"), 3: ("dropped", "some files failed"), 130: ("dropped", "stopped")}
    kind, shown = words.get(run.exit_code, ("failed", "failed"))
    return f'<span class="{kind}">{shown}</span>'
