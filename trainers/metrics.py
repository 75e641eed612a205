"""What a run measures: JSON lines always, TensorBoard where it is installed and asked for."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import MissingPackageError
from pipeline.files import write_atomic
from pipeline.training_runs import read_lines

SMOOTHING = 0.9  # of the shown loss, per line of the log


class Metrics:
    """Lines of metrics.jsonl, each with its step; lines after a resumed step are taken away first.

    `kept` are those that were there before and hold.
    """

    def __init__(self, path: Path, *, resumed_step: int, tensorboard_folder: Path | None) -> None:
        self._path = path
        kept = [line for line in read_lines(path) if line["step"] <= resumed_step]
        self.kept = kept
        if path.exists():
            write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._board = _open_tensorboard(tensorboard_folder) if tensorboard_folder else None
        self._file = path.open("a", encoding="utf-8")
        self.smoothed_loss: float | None = next(
            (line["smoothed_loss"] for line in reversed(kept) if "smoothed_loss" in line), None
        )

    def write(self, step: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """One line, which is returned; a `loss` among the values is smoothed as well."""
        line = {"step": step, **values}
        if "loss" in values:
            before = values["loss"] if self.smoothed_loss is None else self.smoothed_loss
            self.smoothed_loss = SMOOTHING * before + (1 - SMOOTHING) * values["loss"]
            line["smoothed_loss"] = self.smoothed_loss
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in _scalars(line):
                self._board.add_scalar(f"train/{name}", value, step)
        return line

    def close(self) -> None:
        """End both."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _scalars(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers by name; those of a group, such as validation, as group/name."""
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{inner}", one) for inner, one in value.items())
        elif isinstance(value, int | float) and name != "step":
            yield name, value


def _open_tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingPackageError(
            "TensorBoard is not installed",
            hint="pip install 'celforge[tensorboard]', or leave --tensorboard out",
        ) from error
    return SummaryWriter(log_dir=str(folder))
