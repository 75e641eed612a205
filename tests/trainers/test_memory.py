"""Batches in parts, sizes that are tried, and steps that become slow."""

from pathlib import Path

import pytest
import torch

from pipeline.errors import DeviceError, ExitCode, SettingsError
from tests.trainers.test_train import (  # noqa: F401 - fixtures
    Train,
    dataset,
    metrics,
    run_folder,
    train,
)
from trainers.batches import Batch
from trainers.memory_probe import MARGIN, probe
from trainers.parts import Parts, add_gradients
from trainers.slow_steps import FIRST, SlowSteps
from trainers.train_settings import resolve_train


def batch(size: int) -> Batch:
    values = torch.arange(1.0, size + 1)
    captions = tuple(map(str, range(size)))
    tokens = torch.zeros(size, 1, 4, dtype=torch.int64)
    return Batch(0, values.view(-1, 1), values, tokens[:, 0, 0], tokens, torch.ones(size), captions)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 9])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(size: int) -> None:
    weight = torch.zeros((), requires_grad=True)

    def forget() -> None:
        weight.grad = None

    def gradients(part: Batch, share: float) -> torch.Tensor:
        loss = (weight * part.latents + part.latents).mean()
        (loss * share).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    losses = add_gradients([batch(5), batch(5)], Parts(size), gradients, forget, step=1)
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(3)
    assert [loss.item() for loss in losses] == pytest.approx([3, 3])


def test_a_step_begins_again_with_smaller_parts_until_it_fits(caplog: pytest.LogCaptureFixture) -> None:
    weight = torch.zeros((), requires_grad=True)
    parts, computed = Parts(), []

    def gradients(part: Batch, share: float) -> torch.Tensor:
        computed.append(len(part.captions))
        if len(part.captions) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        loss = (weight * part.latents).mean()
        (loss * share).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def forget() -> None:
        weight.grad = None

    with caplog.at_level("WARNING", "celforge"):
        add_gradients([batch(7)], parts, gradients, forget, step=4)
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(4)
    assert parts.size == 2
    assert computed == [7, 4, 2, 2, 2, 1]
    assert "--micro-batch-size 2" in caplog.text


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), DeviceError),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), DeviceError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError),
    ],
)
def test_only_memory_is_met_by_smaller_parts(error: Exception, raised: type[Exception]) -> None:
    def gradients(_: Batch, _share: float) -> torch.Tensor:
        raise error

    with pytest.raises(raised, match=r"one picture alone|shapes cannot"):
        add_gradients([batch(4)], Parts(), gradients, lambda: None, step=1)


# Sizes that are tried


@pytest.mark.parametrize(
    ("limit", "most", "size", "tried"),
    [
        (1000, 8, 8, [1, 2, 4, 8]),  # 100 + 10 a picture: room for all
        (1000, 6, 6, [1, 2, 4, 6]),
        (200, 64, 8, [1, 2, 4, 8]),  # 180 allowed: 16 would take 260
        (160, 64, 4, [1, 2, 4]),
    ],
)
def test_sizes_are_tried_up_to_what_surely_fits(limit: int, most: int, size: int, tried: list[int]) -> None:
    computed: list[int] = []
    found = probe(computed.append, lambda: 100 + 10 * max(computed, default=0), most=most, limit_bytes=limit)
    assert computed == tried
    assert found.size == size
    assert 100 + 10 * found.room_for <= limit * MARGIN


def test_memory_that_runs_out_in_the_attempt_ends_it() -> None:
    def compute(size: int) -> None:
        if size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    peaks = iter([100, 110, 111, 113])
    assert probe(compute, lambda: next(peaks), most=64, limit_bytes=10_000).size <= 4


# Slow steps


def test_steps_three_times_as_slow_are_told_once() -> None:
    watch = SlowSteps()
    rates = [4.0] * FIRST + [1.5] + [1.2] + [4.0] + [1.0, 1.0, 1.0]
    said = [watch.measured(rate, device="cuda", images_at_once=8) for rate in rates]
    spoken = [number for number, text in enumerate(said) if text]
    assert spoken == [len(rates) - 2]  # a single slow stretch may be a drawing
    text = said[spoken[0]] or ""
    assert "4.0 times" in text
    assert "--micro-batch-size 4" in text
    assert "Sysmem Fallback" in text


# The command


def test_parts_change_no_picture_and_no_state(train: Train, dataset: Path) -> None:  # noqa: F811
    exact = ("--precision", "fp32")
    whole = train("loha", "--name", "whole", "--steps", 2, *exact)
    assert whole.exit_code == 0, whole.stdout + whole.stderr
    losses = {}
    for name, option in (("given", ("--micro-batch-size", 1)), ("tried", ("--auto-batch",))):
        parts = train("loha", "--name", name, "--steps", 2, *exact, *option)
        assert parts.exit_code == 0, parts.stderr
        assert ("are computed in parts of 2" in parts.stderr) == (name == "tried")
        losses[name] = [line["loss"] for line in metrics(run_folder(dataset, name))]
        # the size of a part shapes no result: a run goes on without it
        assert train("loha", "--name", name, "--steps", 2, *exact).exit_code == 0
    expected = [line["loss"] for line in metrics(run_folder(dataset, "whole"))]
    assert losses == dict.fromkeys(losses, pytest.approx(expected, rel=1e-4))


@pytest.mark.parametrize("place", ["trainers.train_run.make_method", "torch.optim.AdamW.step"])
def test_memory_that_runs_out_elsewhere_is_one_sentence(
    train: Train,  # noqa: F811
    dataset: Path,  # noqa: F811
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For the model, or for what the optimizer remembers: smaller parts of a batch do not help."""

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(place, fail)
    answer = train("loha", "--steps", 2, "--ema", 0.9, "--device", "cpu")
    assert answer.exit_code == ExitCode.FAILED
    assert "the memory of cpu ran out; what was saved is whole" in answer.stderr
    assert "--gradient-checkpointing, --ema-device cpu; --dry-run" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_size_that_is_given_and_tried_is_refused() -> None:
    flags = {"kind": "loha", "base": "b", "auto_batch": True, "micro_batch_size": 2}
    with pytest.raises(SettingsError, match="leave one of them out"):
        resolve_train({}, None, flags)[0].settings.check_memory()
