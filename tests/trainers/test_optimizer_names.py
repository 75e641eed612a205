"""Optimizers by their short names, against their formulas written out once more in fp64."""

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.errors import SettingsError
from trainers.optimizers import KNOWN, make_optimizer
from trainers.precision import Stepper
from trainers.shown_weights import is_schedule_free

Array = NDArray[np.float64]
ROWS, COLUMNS, STEPS = 4, 6, 5


def start() -> Array:
    return np.random.default_rng(0).standard_normal((ROWS, COLUMNS))


def gradients() -> Iterator[Array]:
    random = np.random.default_rng(1)
    for _ in range(STEPS):
        yield start() + random.standard_normal((ROWS, COLUMNS))


def stepped(name: str, arguments: Mapping[str, Any], rate: float) -> tuple[Array, torch.optim.Optimizer]:
    one = torch.nn.Parameter(torch.tensor(start(), dtype=torch.float32))
    optimizer = make_optimizer(name, [{"params": [one], "lr": rate}], arguments)
    for gradient in gradients():
        one.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
    return one.detach().double().numpy(), optimizer


def lion(rate: float, decay: float) -> Array:
    """Algorithm 2 of arXiv:2302.06675."""
    weight, momentum = start(), np.zeros((ROWS, COLUMNS))
    for gradient in gradients():
        update = np.sign(0.9 * momentum + 0.1 * gradient)
        weight = weight - rate * (update + decay * weight)
        momentum = 0.99 * momentum + 0.01 * gradient
    return weight


def schedule_free(rate: float, decay: float) -> tuple[Array, Array]:
    """Algorithm 1 of arXiv:2405.15682: (y, x). Weights of the average are squares of the rate: 1 / t."""
    x, z, second = start(), start(), np.zeros((ROWS, COLUMNS))
    y = start()
    for number, gradient in enumerate(gradients(), start=1):
        y = 0.1 * z + 0.9 * x
        second = 0.999 * second + 0.001 * gradient**2
        z = z - rate * (gradient / (np.sqrt(second / (1 - 0.999**number)) + 1e-8) + decay * y)
        x = (1 - 1 / number) * x + z / number
    return 0.1 * z + 0.9 * x, x


def prodigy(rate: float, decay: float) -> tuple[Array, float]:
    """Algorithm 4 of arXiv:2306.06101 with the weights of the estimate as its authors' code has them."""
    weight, first, second, s = start(), *(np.zeros((ROWS, COLUMNS)) for _ in range(3))
    d, d0, numerator, beta3 = 1e-4, 1e-4, 0.0, np.sqrt(0.999)
    largest = d
    for gradient in gradients():
        numerator = beta3 * numerator + d / d0 * d * rate * np.sum(gradient * (start() - weight))
        first = 0.9 * first + 0.1 * d * gradient
        second = 0.999 * second + 0.001 * d**2 * gradient**2
        s = beta3 * s + d / d0 * d * rate * gradient
        estimate = numerator / np.abs(s).sum()
        step = d * rate
        if d == d0:
            d = max(d, estimate)
        largest = max(largest, estimate)
        d = largest
        weight = weight - step * decay * weight
        weight = weight - step * first / (np.sqrt(second) + d * 1e-8)
    return weight, d


def factored(rows: Array, columns: Array) -> Array:
    """One over the root of the matrix that has these means of rows and columns (arXiv:1804.04235, algorithm 2)."""
    whole: Array = np.outer(rows, columns) / rows.mean()
    return 1 / np.sqrt(whole)


def rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


def adafactor(rate: float, decay: float) -> Array:
    """Algorithm 4 of arXiv:1804.04235 with a learning rate that is given, decay beside the step."""
    weight, rows, columns = start(), np.zeros(ROWS), np.zeros(COLUMNS)
    for number, gradient in enumerate(gradients(), start=1):
        kept = 1 - number**-0.8
        squares = gradient**2 + 1e-30
        rows = kept * rows + (1 - kept) * squares.mean(1)
        columns = kept * columns + (1 - kept) * squares.mean(0)
        update = gradient * factored(rows, columns)
        update = update / max(1.0, rms(update))
        weight = weight - rate * decay * weight
        weight = weight - rate * update
    return weight


def came(rate: float, decay: float) -> Array:
    """Algorithm 2 of arXiv:2307.02047."""
    weight, momentum = start(), np.zeros((ROWS, COLUMNS))
    rows, columns, res_rows, res_columns = (
        np.zeros(ROWS),
        np.zeros(COLUMNS),
        np.zeros(ROWS),
        np.zeros(COLUMNS),
    )
    for gradient in gradients():
        squares = gradient**2 + 1e-30
        rows, columns = 0.999 * rows + 0.001 * squares.mean(1), 0.999 * columns + 0.001 * squares.mean(0)
        update = gradient * factored(rows, columns)
        update = update / max(1.0, rms(update))
        momentum = 0.9 * momentum + 0.1 * update
        off = (update - momentum) ** 2 + 1e-16
        res_rows = 0.9999 * res_rows + 0.0001 * off.mean(1)
        res_columns = 0.9999 * res_columns + 0.0001 * off.mean(0)
        weight = weight - rate * decay * weight
        weight = weight - rate * momentum * factored(res_rows, res_columns)
    return weight


@pytest.mark.parametrize(
    ("name", "formula", "rate"),
    [("lion", lion, 1e-2), ("adafactor", adafactor, 1e-2), ("came", came, 1e-4)],
)
def test_the_steps_are_those_of_the_formula(
    name: str, formula: Callable[[float, float], Array], rate: float
) -> None:
    found, _ = stepped(name, {"weight_decay": 0.1}, rate)
    expected = formula(rate, 0.1)
    assert np.abs(expected - start()).max() > 5 * rate / 10
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-4 * np.abs(expected - start()).max())


def test_schedule_free_learns_at_one_point_and_shows_another() -> None:
    found, optimizer = stepped("schedule-free-adamw", {"weight_decay": 0.1}, 1e-2)
    learned_at, result = schedule_free(1e-2, 0.1)
    np.testing.assert_allclose(found, learned_at, atol=1e-6)
    assert is_schedule_free(optimizer)
    optimizer.eval()  # type: ignore[attr-defined]
    np.testing.assert_allclose(optimizer.param_groups[0]["params"][0].detach().numpy(), result, atol=1e-6)
    assert np.abs(result - learned_at).max() > 1e-4


def test_prodigy_finds_its_rate_and_tells_it() -> None:
    found, optimizer = stepped("prodigy", {"weight_decay": 0.1, "d0": 1e-4}, 1.0)
    expected, d = prodigy(1.0, 0.1)
    assert d > 1.1e-4
    np.testing.assert_allclose(
        found - start(), expected - start(), atol=1e-3 * np.abs(expected - start()).max() + 3e-7
    )
    stepper = Stepper(optimizer, [], torch.device("cpu"), "fp32", 0)
    assert stepper.effective_learning_rate == pytest.approx(d, rel=1e-3)
    plain = make_optimizer("adamw", [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0}], {})
    assert Stepper(plain, [], torch.device("cpu"), "fp32", 0).effective_learning_rate is None


def test_muon_makes_singular_values_equal_and_steps_as_far_as_adamw() -> None:
    one = torch.nn.Parameter(torch.zeros(32, 48))
    torch.manual_seed(0)
    one.grad = torch.randn(32, 48) @ torch.diag(torch.logspace(0, -1, 48))
    directions, _, others = np.linalg.svd(one.grad.double().numpy(), full_matrices=False)
    make_optimizer("muon", [{"params": [one], "lr": 0.1}], {"weight_decay": 0.0}).step()
    values = np.linalg.svd(one.detach().double().numpy(), compute_uv=False) / (0.1 * 0.2 * np.sqrt(48))
    assert values.min() > 0.6  # five steps of Newton and Schulz end between 0.7 and 1.2
    assert values.max() < 1.3
    aligned = np.sum(-one.detach().double().numpy() * (directions @ others))
    assert aligned / (np.linalg.norm(one.detach().numpy()) * np.sqrt(32)) > 0.95
    assert rms(one.detach().double().numpy()) == pytest.approx(0.1 * 0.2, rel=0.3)


def test_muon_leaves_tables_convolutions_and_vectors_to_adamw() -> None:
    shapes = {"matrix": (6, 4), "convolution": (3, 2, 3, 3), "vector": (5,), "table": (7, 4)}
    ones = {name: torch.nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}
    groups = [
        {"params": [ones["matrix"], ones["convolution"], ones["vector"]], "lr": 0.1},
        {"params": [ones["table"]], "lr": 0.01, "is_table": True},
    ]
    optimizer = make_optimizer("muon", groups, {"weight_decay": 0.0})
    assert [(len(group["params"]), group["lr"]) for group in optimizer.param_groups] == [
        (1, 0.1),
        (2, 0.1),
        (1, 0.01),
    ]
    optimizer.param_groups[2]["lr"] = 0.5
    for one in ones.values():
        one.grad = torch.ones_like(one)
    optimizer.step()
    for name, moved in (("convolution", 0.1), ("vector", 0.1), ("table", 0.5)):
        torch.testing.assert_close(
            ones[name].detach(), torch.full(shapes[name], 1 - moved), rtol=1e-4, atol=1e-6
        )


# Of all of them


def mixed(seed: int = 0) -> list[torch.nn.Parameter]:
    torch.manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 600), (7,), (3, 2, 3, 3))]


def stepper_of(name: str, ones: list[torch.nn.Parameter], decay: float = 0.01) -> Stepper:
    rate = 1.0 if KNOWN[name].is_alike else 1e-3
    optimizer = make_optimizer(name, [{"params": ones, "lr": rate}], {"weight_decay": decay})
    return Stepper(optimizer, ones, torch.device("cpu"), "fp32", 1.0, held=["weight_decay"])


def step(stepper: Stepper, ones: list[torch.nn.Parameter], number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for one in ones:
        one.grad = torch.randn(one.shape, generator=generator)
    stepper.step()


@pytest.mark.parametrize("name", KNOWN)
def test_a_state_goes_on_bit_for_bit(name: str) -> None:
    whole = mixed()
    stepper = stepper_of(name, whole)
    for number in range(2):
        step(stepper, whole, number)
    file = io.BytesIO()
    torch.save({"weights": whole, "stepper": stepper.state_dict()}, file)
    for number in range(2, 4):
        step(stepper, whole, number)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    resumed = mixed(seed=1)
    with torch.no_grad():
        for one, values in zip(resumed, kept["weights"], strict=True):
            one.copy_(values)
    second = stepper_of(name, resumed)
    second.load_state_dict(kept["stepper"])
    for number in range(2, 4):
        step(second, resumed, number)
    for one, other, begun in zip(whole, resumed, mixed(), strict=True):
        assert torch.equal(one, other)
        assert not torch.equal(one, begun)


@pytest.mark.parametrize("name", [name for name in KNOWN if name != "prodigy"])
def test_the_decay_of_weights_stands_beside_the_step(name: str) -> None:
    """Without a gradient a weight loses its share, learning rate times decay, and no more. (Prodigy takes no
    step without a gradient; its decay is in its formula above.)
    """
    one = torch.nn.Parameter(torch.full((8, 600), 2.0))
    one.grad = torch.zeros_like(one)
    make_optimizer(name, [{"params": [one], "lr": 0.25}], {"weight_decay": 0.5}).step()
    torch.testing.assert_close(one.detach(), torch.full_like(one, 2 * (1 - 0.25 * 0.5)))


@pytest.mark.parametrize("name", ["adamw", "muon", "lion"])
def test_a_changed_decay_holds_after_going_on(name: str) -> None:
    """The state of an optimizer has the decay of its time in it."""
    ones = mixed()
    stepper = stepper_of(name, ones)
    step(stepper, ones, 0)
    state = stepper.state_dict()
    other = stepper_of(name, ones, decay=0.125)
    other.load_state_dict(state)
    assert {group["weight_decay"] for group in other.optimizer.param_groups} == {0.125}


@pytest.mark.parametrize("name", ["lion", "prodigy", "came", "schedule-free-adamw"])
def test_a_mistyped_argument_is_not_swallowed(name: str) -> None:
    with pytest.raises(SettingsError, match='no "betaas", did you mean "betas"'):
        make_optimizer(name, [{"params": mixed(), "lr": 1e-3}], {"betaas": (0.9, 0.99)})


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pytorch_optimizer", None)
    with pytest.raises(SettingsError, match="needs pytorch-optimizer") as caught:
        make_optimizer("lion", [{"params": mixed(), "lr": 1e-3}], {})
    assert "celforge[optimizers]" in caught.value.hint
