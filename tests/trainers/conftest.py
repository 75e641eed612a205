import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainers.tiny_models import write_tiny_models
from trainers.forecast import Forecast

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other


@dataclass(frozen=True)
class TinyFiles:
    """One tiny model, written both ways; read only."""

    diffusers: Path
    single_file: Path


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> TinyFiles:
    return TinyFiles(*write_tiny_models(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(autouse=True)
def _forecast_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forecast has tests of its own, and takes longer than a run of the tiny model."""
    monkeypatch.setattr("trainers.sizes.forecast_step", lambda *_, **__: Forecast(1, 1, 1, 1, 1))


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Send SIGTERM to this process when a step of a training run has been measured."""
    from trainers.train_run import _Training

    measured, stops = _Training.measured, list[int]()

    def measured_and_stopped(self: _Training, step: int, values: dict[str, Any]) -> None:
        measured(self, step, values)
        if step in stops:
            stops.remove(step)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(_Training, "measured", measured_and_stopped)
    return stops.append


def assert_same(one: Any, other: Any) -> None:
    """Bit for bit, tensors at any depth."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    else:
        assert one == other
