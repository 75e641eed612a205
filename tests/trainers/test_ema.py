import pytest
import torch

from pipeline.errors import InputError
from trainers.ema import Ema


def test_the_average_is_that_of_its_formula() -> None:
    """Written out by hand: decays 2/11, 3/12, then 4/13 held under 0.3."""
    ema = Ema({"a": torch.tensor([8.0])}, decay=0.3)
    expected = 8.0
    for step, (weight, decay) in enumerate([(1.0, 2 / 11), (5.0, 3 / 12), (-3.0, 0.3), (2.0, 0.3)], start=1):
        ema.update({"a": torch.tensor([weight])}, step)
        expected = decay * expected + (1 - decay) * weight
        assert ema.tensors["a"].item() == pytest.approx(expected, rel=1e-6)


def test_a_rarer_update_keeps_the_memory_of_as_many_steps() -> None:
    """Of weights that stand still the rare average is where the frequent one is."""
    target = {"a": torch.ones(3)}
    often, rarely = (Ema({"a": torch.zeros(3)}, decay=0.01 + 0.98, every=every) for every in (1, 5))
    late = range(1_001, 1_101)  # behind the rise of the decay
    for step in late:
        often.update(target, step)
        rarely.update(target, step)
    torch.testing.assert_close(often.tensors["a"], rarely.tensors["a"], rtol=1e-5, atol=1e-6)
    assert rarely.tensors["a"].mean() == pytest.approx(1 - 0.99**100, rel=1e-5)


def test_the_average_is_fp32_and_sees_changes_that_bf16_weights_cannot_hold() -> None:
    weights = {"a": torch.ones(2, dtype=torch.bfloat16)}
    ema = Ema(weights, decay=0.999, every=1, device=torch.device("cpu"))
    weights["a"] += 0.0078125  # one step of bf16 at 1
    ema.update(weights, 100_000)
    assert ema.tensors["a"].dtype == torch.float32
    torch.testing.assert_close(ema.tensors["a"], torch.full((2,), 1 + 0.001 * 0.0078125), rtol=0, atol=2e-7)


def test_many_tensors_are_taken_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.ema.MOST_AT_ONCE", 5)
    weights = {str(number): torch.full((3,), float(number)) for number in range(7)}
    ema = Ema({name: torch.zeros(3) for name in weights}, decay=0.5)
    ema.update(weights, 1_000)
    assert {name: one.tolist() for name, one in ema.tensors.items()} == {
        name: [number / 2] * 3 for number, name in enumerate(weights)
    }


def test_an_average_of_other_layers_is_refused() -> None:
    ema = Ema({"a": torch.ones(2)}, decay=0.5)
    with pytest.raises(InputError, match="other layers"):
        ema.load({"a": torch.ones(3)})
