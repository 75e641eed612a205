"""Recorded steps, on the CPU: a stand-in records a function instead of its kernels, and replays it on the places
it was recorded with. On a GPU, test_on_gpu.py.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import Answer, Celforge
from tests.trainers.conftest import TinyFiles
from tests.trainers.test_memory import batch
from tests.trainers.trainer_pictures import write_pictures
from trainers.batches import Batch
from trainers.step_graphs import MOST, WARM, StepGraphs, graphs_note
from trainers.train_settings import resolve_train

CPU = torch.device("cpu")


class Replayed:
    """What was recorded, computed again at every replay; nothing is computed while it is recorded."""

    def __init__(self, compute: Callable[[], Tensor]) -> None:
        self._compute = compute
        self.loss = torch.full((), float("nan"))

    def replay(self) -> None:
        self.loss.copy_(self._compute())


def record(compute: Callable[[], Tensor]) -> tuple[Any, Tensor]:
    graph = Replayed(compute)
    return graph, graph.loss


class Steps:
    """Sums what it is given, and remembers which batches it was asked for."""

    def __init__(self) -> None:
        self.computed: list[Batch] = []

    def __call__(self, one: Batch, weight: float) -> Tensor:
        self.computed.append(one)
        return one.latents.sum() * weight


def numbered(size: int, value: float) -> Batch:
    one = batch(size)
    one.latents.fill_(value)
    return one


def test_a_shape_is_computed_a_few_times_then_recorded_and_replayed_with_new_values() -> None:
    steps, recorded = Steps(), []

    def watched(compute: Callable[[], Tensor]) -> tuple[Any, Tensor]:
        recorded.append(len(steps.computed))
        return record(compute)

    graphs = StepGraphs(steps, CPU, record=watched)
    losses = [graphs(numbered(2, value), 0.5).item() for value in range(6)]
    assert losses == [0, 1, 2, 3, 4, 5]
    assert recorded == [WARM]
    assert len({id(one) for one in steps.computed[WARM:]}) == 1  # the places it was recorded with


def test_every_shape_and_weight_is_recorded_by_itself() -> None:
    steps = Steps()
    graphs = StepGraphs(steps, CPU, record=record)
    asked = [(size, weight) for _ in range(WARM + 2) for size in (1, 2) for weight in (1.0, 0.5)]
    found = [graphs(numbered(size, 3.0), weight).item() for size, weight in asked]
    assert found == [3 * size * weight for size, weight in asked]
    assert len({id(one) for one in steps.computed}) == 4 * (WARM + 1)


def test_a_loss_stays_when_the_next_step_is_replayed() -> None:
    graphs = StepGraphs(Steps(), CPU, record=record)
    losses = [graphs(numbered(1, value), 1.0) for value in range(5)]
    assert [one.item() for one in losses] == [0, 1, 2, 3, 4]


def test_what_cannot_be_recorded_is_computed_as_ever_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(_: Callable[[], Tensor]) -> tuple[Any, Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    graphs = StepGraphs(Steps(), CPU, record=fails)
    with caplog.at_level("WARNING", "celforge"):
        losses = [graphs(numbered(1, value), 1.0).item() for value in range(6)]
    assert losses == [0, 1, 2, 3, 4, 5]
    assert [record.message.count("not permitted when stream") for record in caplog.records] == [1]


def test_when_something_else_learns_everything_is_recorded_anew() -> None:
    recorded = []

    def watched(compute: Callable[[], Tensor]) -> tuple[Any, Tensor]:
        recorded.append(1)
        return record(compute)

    graphs = StepGraphs(Steps(), CPU, record=watched)
    for _ in range(2):
        for value in range(WARM + 2):
            graphs(numbered(1, value), 1.0)
        graphs.forget()
    assert len(recorded) == 2


def test_of_very_many_shapes_the_later_ones_are_computed() -> None:
    steps = Steps()
    graphs = StepGraphs(steps, CPU, record=record)
    for size in range(1, MOST + 3):
        for value in range(WARM + 2):
            assert graphs(numbered(size, value), 1.0).item() == value * size
    assert len({id(one) for one in steps.computed}) == MOST * (WARM + 1) + 2 * (WARM + 2)


def test_remembered_captions_are_given_to_the_step_and_not_recorded_in_it() -> None:
    asked: list[Batch] = []

    def known(one: Batch) -> Tensor:
        asked.append(one)
        return torch.full((2, 1, 1), float(len(asked)))

    def compute(one: Batch, _: float) -> Tensor:
        assert one.states is not None
        return one.states.sum()

    graphs = StepGraphs(compute, CPU, known_states=known, record=record)
    assert [graphs(numbered(2, 0), 1.0).item() for _ in range(5)] == [2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    ("flags", "gpu_step_s", "is_said"),
    [
        ({}, 0.07, True),
        ({}, 0.3, False),
        ({}, None, False),
        ({"cuda_graphs": True}, 0.07, False),
        ({"rank_dropout": 0.1}, 0.07, False),  # it could not be helped
    ],
)
def test_a_gpu_that_would_wait_for_python_is_told_before(
    flags: dict[str, Any], gpu_step_s: float | None, is_said: bool
) -> None:
    settings = resolve_train({}, None, {"kind": "loha", **flags})[0].settings
    note = graphs_note(settings, gpu_step_s)
    assert (note is not None and "about 70 ms" in note and "--cuda-graphs" in note) == is_said


# Whole runs


Train = Callable[..., Answer]


@pytest.fixture
def train(celforge: Celforge, tmp_path: Path, tiny_files: TinyFiles) -> Train:
    write_pictures(tmp_path / "data")

    def call(kind: str, *options: object) -> Answer:
        return celforge(
            "train", kind, "--data", tmp_path / "data", "--base", tiny_files.diffusers, "--out", tmp_path / kind,
            "--resolution-px", 64, "--bucket-step-px", 16, "--batch-size", 2, "--log-every", 1, "--optimizer",
            "adamw", "--max-grad-norm", 0, *options,
        )  # fmt: skip

    return call


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("loha", ("--accumulation", 2)),
        ("locon", ("--train", "unet")),
        ("full", ("--text-encoder-until", 5)),
    ],
)
def test_a_run_of_recorded_steps_ends_where_the_same_run_computed_ends(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, options: tuple[object, ...]
) -> None:
    monkeypatch.setattr("trainers.preflight.refuse_graphs", lambda *_: None)
    monkeypatch.setattr("trainers.step_graphs._Recorder", lambda: record)
    found = []
    for is_recorded in (False, True):
        folder = tmp_path / f"{kind}-{is_recorded}"
        more = ("--device", "cpu", *(("--cuda-graphs",) if is_recorded else ()))
        answer = train(kind, "--steps", 10, "--save-every", 0, *options, *more, "--out", folder)
        assert answer.exit_code == 0, answer.stderr
        (file,) = folder.glob("*.safetensors")
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found.append((load_file(file), [line["loss"] for line in lines]))
    (computed, losses), (recorded, again) = found
    assert again == losses
    assert all(torch.equal(recorded[name], tensor) for name, tensor in computed.items())


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("loha", ("--device", "cpu"), "needs an NVIDIA GPU, and this run is on cpu"),
        ("loha", ("--gradient-checkpointing",), "cannot have --gradient-checkpointing"),
        ("locon", ("--rank-dropout", "0.1"), "cannot have dropout of an adapter"),
        ("full", ("--fused-backward", "--precision", "fp32"), "cannot have --fused-backward"),
        (
            "full",
            ("--weight-precision", "bf16", "--precision", "bf16"),
            "cannot have --weight-precision bf16",
        ),
    ],
)
def test_what_a_recorded_step_cannot_have_is_refused(
    train: Train, monkeypatch: pytest.MonkeyPatch, kind: str, options: tuple[str, ...], said: str
) -> None:
    if "--device" not in options:  # a GPU, as far as the plan asks
        monkeypatch.setattr("trainers.preflight.choose_device", lambda _: torch.device("cuda"))
    answer = train(kind, "--steps", 1, "--cuda-graphs", *options)
    assert answer.exit_code == 2
    assert said in answer.stderr
