"""What a run says of itself while it goes: metrics.jsonl, notes on the console, loss.svg and the page."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.console import LOG
from pipeline.training_runs import TrainingRun
from trainers.metrics import Metrics
from trainers.run_folder import RunFolder
from trainers.run_notes import Watch
from trainers.run_page import State, write_page

PAGE_EVERY_S = 60.0  # between two pages while nothing is saved


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

    def read(self) -> TrainingRun | None:
        """The run as its files tell it."""
        return TrainingRun.read(self._folder.path)

    def close(self) -> None:
        """End the metrics."""
        self._metrics.close()
