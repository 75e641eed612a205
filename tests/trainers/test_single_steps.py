"""Weights that are stepped one by one, and rounding by chance."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

from trainers import draws
from trainers.optimizers import make_optimizer
from trainers.precision import Stepper
from trainers.single_steps import SingleStepper, round_by_chance

CPU = torch.device("cpu")


def rounded(values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return round_by_chance(values, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("value", [1.0 + 2.0**-9, -3.0e-5, 0.7, 1234.567, -1e30])
def test_rounding_by_chance_is_right_on_average_and_takes_a_neighbour(value: float) -> None:
    """Binomial: the share that goes up is the share that is cut off, within four deviations."""
    count = 40_000
    exact = torch.tensor(value, dtype=torch.float32)
    found = rounded(exact.repeat(count)).double()
    ends = sorted(set(found.tolist()))
    assert len(ends) == 2
    low, high = (torch.tensor(end, dtype=torch.float32) for end in ends)
    assert low < exact < high
    assert torch.nextafter(low.bfloat16(), high.bfloat16()) == high.bfloat16(), "neighbours in bf16"
    p = float((exact.double() - low) / (high.double() - low))
    share = float((found == ends[1]).double().mean())
    assert abs(share - p) < 4 * (p * (1 - p) / count) ** 0.5


def test_what_bf16_holds_stays_as_it_is() -> None:
    values = torch.tensor([0.0, -0.0, 1.0, -2.5, 3.0e-39, float("inf"), -float("inf")]).bfloat16().float()
    for seed in range(50):
        assert torch.equal(rounded(values, seed).float(), values)
    assert torch.isnan(rounded(torch.tensor([float("nan")]))).all()


def test_small_steps_are_kept_on_average_where_the_nearest_number_loses_them() -> None:
    """Steps of 1e-4 of a weight of 1, whose neighbours lie 0.008 apart."""
    by_chance = nearest = torch.ones(4_000, dtype=torch.bfloat16)
    for number in range(300):
        by_chance = rounded(by_chance.float() + 1e-4, number)
        nearest = (nearest.float() + 1e-4).bfloat16()
    assert torch.equal(nearest, torch.ones(4_000, dtype=torch.bfloat16))
    deviation = 0.0078 * (0.03 / 0.0078) ** 0.5  # of one weight: 300 draws, most of which stay
    assert float(by_chance.float().mean()) == pytest.approx(1.03, abs=4 * deviation / 4_000**0.5)


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 16, bias=False), nn.SiLU(), nn.Linear(16, 4))
    return nn.Sequential(*layers).to(dtype)


def stepper_of(module: nn.Module, *, name: str = "adamw", is_fused: bool = False) -> SingleStepper:
    groups = [{"params": list(module.parameters()), "lr": 1e-2}]
    return SingleStepper(
        groups,
        lambda one: make_optimizer(name, one, {"weight_decay": 0.1}),
        CPU,
        max_grad_norm=0.0,
        is_fused=is_fused,
        seed=3,
        held=["weight_decay"],
    )


def run(module: nn.Module, stepper: Stepper, start: int, stop: int) -> list[float]:
    norms = []
    for number in range(start, stop):
        x = draws.normal((5, 8), "x", number).to(next(module.parameters()).dtype)
        for one in module.parameters():
            one.grad = None
        stepper.backward(module(x).float().square().mean())
        norms.append(float(stepper.step()))
    return norms


@pytest.mark.parametrize("is_fused", [True, False])
def test_one_by_one_is_the_same_as_all_at_once(is_fused: bool) -> None:
    one, other = network(), network()
    groups = [{"params": list(one.parameters()), "lr": 1e-2}]
    optimizer = make_optimizer("adamw", groups, {"weight_decay": 0.1})
    whole = Stepper(optimizer, list(one.parameters()), CPU, "fp32", 0.0)
    expected = run(one, whole, 0, 4)
    assert run(other, stepper_of(other, is_fused=is_fused), 0, 4) == pytest.approx(expected, rel=1e-5)
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-7)
        assert second.grad is None or not is_fused


def test_gradients_of_all_are_shortened_together_before_single_steps() -> None:
    one, other = network(), network()
    groups = [{"params": list(one.parameters()), "lr": 1e-2}]
    optimizer = make_optimizer("torch.optim.SGD", groups, {})
    whole = Stepper(optimizer, list(one.parameters()), CPU, "fp32", 1e-3)
    single = SingleStepper(
        [{"params": list(other.parameters()), "lr": 1e-2}],
        lambda given: make_optimizer("torch.optim.SGD", given, {}),
        CPU,
        max_grad_norm=1e-3,
        is_fused=False,
        seed=0,
    )
    run(one, whole, 0, 2)
    run(other, single, 0, 2)
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "adafactor", "lion", "came", "muon"])
@pytest.mark.parametrize("is_fused", [True, False])
def test_weights_in_bf16_go_on_bit_for_bit(name: str, is_fused: bool) -> None:
    whole = network(torch.bfloat16)
    begun = copy.deepcopy(whole)
    stepper = stepper_of(whole, name=name, is_fused=is_fused)
    run(whole, stepper, 0, 2)
    file = io.BytesIO()
    torch.save({"weights": whole.state_dict(), "stepper": stepper.state_dict()}, file)
    run(whole, stepper, 2, 4)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    resumed = network(torch.bfloat16)
    resumed.load_state_dict(kept["weights"])
    second = stepper_of(resumed, name=name, is_fused=is_fused)
    second.load_state_dict(kept["stepper"])
    run(resumed, second, 2, 4)
    for one, other, start in zip(whole.parameters(), resumed.parameters(), begun.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.dtype == torch.bfloat16
        assert not torch.equal(one, start)
    memory = state_tensors(stepper.state_dict())
    assert memory
    assert all(one.dtype != torch.bfloat16 for one in memory)


def state_tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [found for one in inner for found in state_tensors(one)]


@pytest.mark.parametrize("name", ["adamw", "lion"])
@pytest.mark.parametrize("is_fused", [True, False])
def test_a_bad_gradient_never_reaches_a_weight(name: str, is_fused: bool) -> None:
    module = network(torch.bfloat16)
    stepper = stepper_of(module, name=name, is_fused=is_fused)
    run(module, stepper, 0, 1)
    before = copy.deepcopy(module.state_dict())
    for one in module.parameters():
        one.grad = None
    stepper.backward(module(torch.full((2, 8), float("nan")).bfloat16()).float().sum())
    assert not torch.isfinite(stepper.step())
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert torch.isfinite(torch.tensor(run(module, stepper, 1, 2))).all()


def test_a_learning_rate_that_is_set_reaches_every_weight() -> None:
    module = network()
    stepper = stepper_of(module)
    for group in stepper.optimizer.param_groups:
        group["lr"] = 0.0
    before = copy.deepcopy(module.state_dict())
    run(module, stepper, 0, 1)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])
