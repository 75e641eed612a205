"""The folder of a run: which file is which, as kohya's scripts name them, and which of them are kept.

models/<name>/
  <name>-step00002000.safetensors   step models            <name>.safetensors   the last one
  ...-ema.safetensors               the average of the weights beside them, where one is kept
  embeddings/, bundles/             embeddings that learn too, by themselves and in one file with the adapter
  state/step-00002000.pt            to resume from         settings.json        every setting in force
  metrics.jsonl   samples/   samples.png   train.log      index.html, loss.svg   the page of the run
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.files import remove_tree, write_atomic
from pipeline.training_runs import LOSS_NAME, METRICS_NAME, PAGE_NAME, SETTINGS_NAME, SHEET_NAME

AVERAGE = "-ema"  # behind the names of averages of the weights
STATE = re.compile(r"step-(\d{8,})\.pt")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one run.

    Args:
        name: of its files.
        suffix: at the end of the names of its models.
    """

    path: Path
    name: str
    suffix: str = ""

    @property
    def metrics_path(self) -> Path:
        """One JSON object a line: what was measured."""
        return self.path / METRICS_NAME

    @property
    def samples_folder(self) -> Path:
        """Single pictures drawn on the way."""
        return self.path / "samples"

    @property
    def sheet_path(self) -> Path:
        """All of them, steps across and prompts down."""
        return self.path / SHEET_NAME

    @property
    def page_path(self) -> Path:
        """The run in one page."""
        return self.path / PAGE_NAME

    @property
    def loss_path(self) -> Path:
        """Its loss as a picture."""
        return self.path / LOSS_NAME

    @property
    def state_folder(self) -> Path:
        """States to resume from."""
        return self.path / "state"

    @property
    def log_path(self) -> Path:
        """The run's log."""
        return self.path / "train.log"

    def model_path(self, step: int | None = None) -> Path:
        """A saved model; the last one without a step."""
        stem = self.name if step is None else f"{self.name}-step{step:08d}"
        return self.path / f"{stem}{self.suffix}.safetensors"

    def diffusers_folder(self, step: int | None = None) -> Path:
        """A full checkpoint as a diffusers folder."""
        return self.model_path(step).with_suffix("")

    def embeddings_folder(self, step: int | None = None) -> Path:
        """Where embeddings lie, each in a file by its name; those of a step, and averages, apart."""
        folder = self.path / "embeddings"
        is_last = step is None and not self.suffix
        return folder if is_last else folder / self.model_path(step).stem

    def bundle_path(self, step: int | None = None) -> Path:
        """An adapter with its embeddings in it."""
        return bundle_of(self.model_path(step))

    def sample_path(self, step: int, number: int) -> Path:
        """A picture drawn after a step, of the prompt with this number."""
        return self.samples_folder / f"{self.name}_{step:08d}_{number:02d}.png"

    def state_path(self, step: int) -> Path:
        """The state after a step."""
        return self.state_folder / f"step-{step:08d}.pt"

    def states(self) -> list[tuple[int, Path]]:
        """(step, path) of every whole state, oldest first."""
        found = ((STATE.fullmatch(path.name), path) for path in self.state_folder.glob("step-*.pt"))
        return sorted((int(match[1]), path) for match, path in found if match)

    def step_models(self) -> list[tuple[int, Path]]:
        """(step, path) of every saved step model, oldest first."""
        grammar = re.compile(re.escape(self.name) + rf"-step(\d{{8,}})({AVERAGE})?(\.safetensors)?")
        found = ((grammar.fullmatch(path.name), path) for path in self.path.glob("*-step*"))
        return sorted((int(match[1]), path) for match, path in found if match)

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            InputError: it is a file, or may not be written.
        """
        try:
            self.state_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be made: {error.strerror}", hint="give another folder: --out FOLDER"
            ) from error

    def write_settings(self, values: Mapping[str, Any]) -> None:
        """Keep every setting in force beside the result."""
        write_atomic(self.path / SETTINGS_NAME, json.dumps(values, indent=2, ensure_ascii=False) + "\n")

    def forget_old_states(self) -> None:
        """Keep the newest state only; called once a newer one is whole."""
        for _, path in self.states()[:-1]:
            with suppress(FileNotFoundError):
                path.unlink()

    def forget_old_models(self, keep_last: int, step: int, spared: int | None = None) -> None:
        """Keep the newest step models only, of those that this run has written up to a step.

        Args:
            keep_last: how many; 0 keeps all.
            spared: step of one that stays besides.
        """
        mine = [(number, path) for number, path in self.step_models() if number <= step and number != spared]
        for number, path in mine:
            is_new = number in sorted({number for number, _ in mine})[-keep_last:]
            if not keep_last or is_new:
                continue
            if path.is_file():
                path.unlink(missing_ok=True)
            else:
                remove_tree(path)
            self._forget_embeddings(path.name.removesuffix(".safetensors"))

    def _forget_embeddings(self, stem: str) -> None:
        """Those that were saved with a model."""
        bundle_of(self.path / f"{stem}.safetensors").unlink(missing_ok=True)
        folder = self.path / "embeddings" / stem
        if folder.is_dir():
            remove_tree(folder)


def bundle_of(model_path: Path) -> Path:
    """Where an adapter lies once more, with its embeddings in it."""
    return model_path.parent / "bundles" / f"{model_path.stem}-bundle.safetensors"
