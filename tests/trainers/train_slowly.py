"""`celforge` in a process that trains slowly enough to be killed between two steps."""

import contextlib
import os
import time
from collections.abc import Sequence
from typing import Any

import torch

from pipeline.cli import cli, run
from trainers import sizes, train_run
from trainers.forecast import Forecast


def train_slowly(arguments: Sequence[str]) -> None:
    """What a child process does."""
    measured = train_run._Training.measured

    def measured_slowly(self: train_run._Training, step: int, values: dict[str, Any]) -> None:
        measured(self, step, values)
        time.sleep(60 if step > 2 else 0)  # it is killed long before

    torch.set_num_threads(1)
    train_run._Training.measured = measured_slowly  # type: ignore[method-assign]
    sizes.forecast_step = lambda *_, **__: Forecast(1, 1, 1, 1, 1)
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        run(cli, list(arguments))
