"""What a run says of itself while it goes: metrics.jsonl, notes on the console, loss.svg and the page."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.console import LOG
from pipeline.curves import value_text
from pipeline.training_runs import TrainingRun
from trainers.metrics import Metrics
from trainers.run_folder import RunFolder
from trainers.run_notes import Watch
from trainers.run_page import State, write_page

PAGE_EVERY_S = 60.0  # between two pages while nothing is saved


@dataclass(frozen=True, slots=True)
class Best:
    """Where held-out pictures were known best.

    Args:
        file: the saved model with the lowest loss of those that are there, its step and its loss.
    """

    step: int
    loss: float
    file: tuple[Path, int, float] | None

    @property
    def text(self) -> str:
        """In words."""
        words = f"lowest validation loss: {value_text(self.loss)} at step {self.step:,}"
        if self.step == 0:
            words += ", before the first step: held-out pictures were never known better than by the base"
        if self.file is None:
            return words
        path, step, loss = self.file
        if step == self.step:
            return f"{words}, {path.name}"
        return f"{words}; of the saved models {path.name} (step {step:,}) has the lowest, {value_text(loss)}"

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        found: dict[str, Any] = {"step": self.step, "validation_loss": self.loss, "text": self.text}
        if self.file is not None:
            found |= {"file": str(self.file[0]), "file_step": self.file[1], "file_loss": self.file[2]}
        return found


def best_of(folder: RunFolder) -> Best | None:
    """The best step of a run and the best of its models; None without validation."""
    run = TrainingRun.read(folder.path)
    if run is None or run.best is None:
        return None
    losses = {line["step"]: line["validation_loss"] for line in run.validations}
    saved = folder.step_models()
    if folder.model_path().exists():
        saved = [*saved, (run.total_steps, folder.model_path())]
    known = [(losses[step], step, path) for step, path in saved if step in losses]
    best = min(known, key=lambda one: one[:2], default=None)
    file = None if best is None else (best[2], best[1], best[0])
    return Best(run.best["step"], run.best["validation_loss"], file)


def best_saved(folder: RunFolder) -> int | None:
    """Step of the best of the saved models."""
    best = best_of(folder)
    return None if best is None or best.file is None else best.file[1]


class Record:
    """Takes what is measured and keeps the page of the run up to date.

    Args:
        resumed_step: steps that are done; lines after it are taken away.
    """

    def __init__(self, folder: RunFolder, *, resumed_step: int, tensorboard: bool) -> None:
        self._folder = folder
        self._metrics = Metrics(
            folder.metrics_path,
            resumed_step=resumed_step,
            tensorboard_folder=folder.path / "tensorboard" if tensorboard else None,
        )
        self._watch = Watch()
        for line in self._metrics.kept:
            self._watch.look(line)  # was said then
        self._page_at = time.monotonic()

    @property
    def kept(self) -> Sequence[Mapping[str, Any]]:
        """Lines of before that hold."""
        return self._metrics.kept

    @property
    def smoothed_loss(self) -> float | None:
        """The loss, smoothed; None before the first line."""
        return self._metrics.smoothed_loss

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One line; what it is the first to show is said once, and stays on the page."""
        line = self._metrics.write(step, {**values, "time_s": round(time.time(), 3)})
        for note in self._watch.look(line):
            LOG.warning("%s", note.text)
        if time.monotonic() - self._page_at > PAGE_EVERY_S:
            self.write_page("running")

    def write_page(self, state: State, *, ended: str = "") -> None:
        """Bring loss.svg and the page up to date."""
        write_page(self._folder, state, ended=ended)
        self._page_at = time.monotonic()

    def close(self) -> None:
        """End the metrics."""
        self._metrics.close()
