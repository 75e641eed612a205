import math

import pytest
import torch
from diffusers.optimization import get_scheduler

from trainers.schedules import lr_schedule


@pytest.mark.parametrize(
    ("shape", "theirs"), [("constant", "constant_with_warmup"), ("linear", "linear"), ("cosine", "cosine")]
)
def test_multipliers_are_those_of_diffusers_after_the_warmup(shape: str, theirs: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    their_schedule = get_scheduler(theirs, optimizer, num_warmup_steps=10, num_training_steps=100)
    ours = lr_schedule(shape, 100, warmup=10, decay_ratio=1.0)  # type: ignore[arg-type]
    for step in range(100):
        if step >= 10:
            assert ours.multiplier(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        their_schedule.step()


def test_the_warmup_rises_in_equal_parts_and_its_first_step_learns() -> None:
    schedule = lr_schedule("constant", 100, warmup=4, decay_ratio=1.0)
    assert [schedule.multiplier(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_a_warmup_below_one_is_a_share_of_the_run() -> None:
    assert lr_schedule("cosine", 20_000, warmup=0.03, decay_ratio=1.5).warmup_steps == 600


def test_the_cosine_of_everydream_ends_at_a_quarter() -> None:
    schedule = lr_schedule("cosine", 20_000, warmup=0.03, decay_ratio=1.5)
    end = schedule.multiplier(19_999)
    assert end == pytest.approx(0.5 * (1 + math.cos(math.pi * (20_000 - 600) / (30_000 - 600))), abs=1e-4)
    assert 0.25 < end < 0.27


def test_a_fall_ends_at_zero_and_stays_there() -> None:
    schedule = lr_schedule("linear", 10, warmup=0, decay_ratio=0.5)
    assert [schedule.multiplier(step) for step in (0, 5, 9)] == [1, 0, 0]
