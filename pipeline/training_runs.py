"""What a training run left on the disk: its settings and its measurements, for its page and for the report.

models/<name>/ holds settings.json (every setting, where it came from, the plan) and metrics.jsonl, a JSON
object a line with its `step`. Lines of training have `loss` and `smoothed_loss`; lines of validation have
`validation_loss`, `validation_train_loss` (training pictures, measured the same way) and `validation`,
{concept: loss}.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.charts import document
from pipeline.curves import COLOURS, Curve, Mark, curves, value_text
from pipeline.made_folders import MARK

MODELS = "models"
METRICS_NAME, SETTINGS_NAME = "metrics.jsonl", "settings.json"
PAGE_NAME, LOSS_NAME, SHEET_NAME = "index.html", "loss.svg", "samples.png"

Line = Mapping[str, Any]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of metrics.jsonl, in their order; the last may have been cut off by a kill."""
    found = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            found.append(line)
    return found


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A run as its folder tells it.

    Args:
        facts: of settings.json.
        lines: of metrics.jsonl.
    """

    folder: Path
    facts: Mapping[str, Any]
    lines: Sequence[Line]

    @classmethod
    def read(cls, folder: Path) -> "TrainingRun | None":
        """The run in a folder; None where there is none."""
        try:
            facts = json.loads((folder / SETTINGS_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(facts, dict) or "total_steps" not in facts:
            return None
        return cls(folder, facts, read_lines(folder / METRICS_NAME))

    @property
    def name(self) -> str:
        """Of the run and of its files."""
        settings = self.facts.get("settings", {})
        return str(settings.get("name") or settings.get("kind") or self.folder.name)

    @property
    def total_steps(self) -> int:
        """Steps that it shall take."""
        return int(self.facts["total_steps"])

    @property
    def step(self) -> int:
        """The last one that was measured."""
        return max((line["step"] for line in self.lines), default=0)

    @property
    def validations(self) -> list[Line]:
        """Lines of validation, in their order."""
        return [line for line in self.lines if "validation_loss" in line]

    @property
    def best(self) -> Line | None:
        """The validation with the lowest loss, the first of equals."""
        return min(self.validations, key=lambda line: line["validation_loss"], default=None)

    def last(self, name: str) -> float | None:
        """The newest value of a measurement."""
        return next((line[name] for line in reversed(self.lines) if name in line), None)

    def points(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of a measurement."""
        return [(line["step"], line[name]) for line in self.lines if name in line]


def find_runs(root: Path) -> list[TrainingRun]:
    """The runs in models/ of a project, by the names of their folders."""
    folders = sorted(path.parent for path in (root / MODELS).glob(f"*/{MARK}"))
    return [run for folder in folders if (run := TrainingRun.read(folder)) is not None and run.lines]


def _marks(run: TrainingRun) -> list[Mark]:
    return [Mark(best["step"], "best")] if (best := run.best) else []


def _validation_curves(run: TrainingRun) -> list[Curve]:
    return [
        Curve("held out", run.points("validation_loss"), 2, note=_last(run, "validation_loss")),
        Curve(
            "trained on",
            run.points("validation_train_loss"),
            3,
            is_dashed=True,
            note=_last(run, "validation_train_loss"),
        ),
    ]


def loss_chart(run: TrainingRun) -> str:
    """Loss while training, measured and smoothed, and that of validation where it was measured."""
    return curves(
        [
            Curve("measured", run.points("loss"), 1, is_faint=True),
            Curve("smoothed", run.points("smoothed_loss"), 1, note=_last(run, "smoothed_loss")),
            *_validation_curves(run),
        ],
        title="Loss",
        marks=_marks(run),
    )


def validation_chart(run: TrainingRun) -> str:
    """Loss of held-out pictures beside that of training pictures that were measured the same way."""
    return curves(_validation_curves(run), title="Validation", marks=_marks(run))


def concepts_of(run: TrainingRun) -> list[str]:
    """Concepts that were validated, in the order of their first line."""
    return list(dict.fromkeys(name for line in run.validations for name in line.get("validation", {})))


def concept_points(run: TrainingRun, concept: str) -> list[tuple[float, float]]:
    """(step, loss) of the held-out pictures of a concept."""
    return [
        (line["step"], line["validation"][concept])
        for line in run.validations
        if concept in line.get("validation", {})
    ]


def concept_charts(run: TrainingRun) -> list[str]:
    """Validation of every concept, a curve each; further charts where there are more than colours."""
    names = concepts_of(run)
    return [
        curves(
            [
                Curve(name, points := concept_points(run, name), number + 1, note=value_text(points[-1][1]))
                for number, name in enumerate(names[start : start + COLOURS])
            ],
            title="Validation by concept",
        )
        for start in range(0, len(names), COLOURS)
    ]


def loss_svg(run: TrainingRun) -> str:
    """The loss as an SVG file of its own, light or dark as the reader's screen is set."""
    parts = [("Loss", loss_chart(run))]
    parts += [("Held-out pictures by concept", one) for one in concept_charts(run)[:1]]
    done = f"step {run.step:,} of {run.total_steps:,}"
    return document(parts, title=run.name, subtitle=done)


def _last(run: TrainingRun, name: str) -> str:
    value = run.last(name)
    return "" if value is None else value_text(value)
