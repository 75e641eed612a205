"""`celforge` as a process that trains slowly enough to be killed between two steps."""

import sys
import time
from typing import Any

import torch

from pipeline.cli import main
from trainers import sizes, train_run
from trainers.forecast import Forecast

torch.set_num_threads(1)
sizes.forecast_step = lambda *_, **__: Forecast(1, 1, 1, 1, 1)  # type: ignore[assignment]  # it has tests of its own
measured = train_run._Training.measured


def measured_slowly(self: train_run._Training, step: int, values: dict[str, Any]) -> None:
    measured(self, step, values)
    time.sleep(60 if step > 2 else 0)  # it is killed long before


train_run._Training.measured = measured_slowly  # type: ignore[method-assign]
main(sys.argv[1:])
