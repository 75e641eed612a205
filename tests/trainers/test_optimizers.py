import pytest
import torch

from pipeline.errors import SettingsError
from trainers.optimizers import make_optimizer, parse_arguments
from trainers.precision import Stepper


def parameter(*gradient: float) -> torch.nn.Parameter:
    one = torch.nn.Parameter(torch.ones(len(gradient)))
    one.grad = torch.tensor(gradient)
    return one


def test_arguments_are_python_values() -> None:
    assert parse_arguments(["eps=1e-6", "betas=(0.9, 0.99)", "amsgrad=True"]) == {
        "eps": 1e-6,
        "betas": (0.9, 0.99),
        "amsgrad": True,
    }


@pytest.mark.parametrize("text", ["eps", "eps=", "=1", "eps=__import__('os')", "a b=1"])
def test_other_arguments_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="name=value"):
        parse_arguments([text])


def test_adamw_is_the_one_of_torch() -> None:
    ours, theirs = parameter(1.0, -2.0), parameter(1.0, -2.0)
    make_optimizer("adamw", [{"params": [ours], "lr": 0.1}], {"weight_decay": 0.02}).step()
    torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.02, fused=False).step()
    torch.testing.assert_close(ours, theirs)


def test_adamw8bit_follows_adamw_closely() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(8192), torch.randn(5, 8192)
    results = []
    for name in ("adamw", "adamw8bit"):
        one = torch.nn.Parameter(start.clone())
        optimizer = make_optimizer(name, [{"params": [one], "lr": 0.01}], {"weight_decay": 0.0})
        for gradient in gradients:
            one.grad = gradient.clone()
            optimizer.step()
        results.append(one.detach())
    moved, apart = (results[0] - start).abs().mean(), (results[0] - results[1]).abs().mean()
    assert moved > 0.01
    assert apart < 0.05 * moved


def test_any_class_is_taken_by_its_path() -> None:
    one = parameter(2.0)
    make_optimizer("torch.optim.SGD", [{"params": [one], "lr": 0.5}], {}).step()
    assert one.item() == 0.0


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("adamv", {}, 'no optimizer "adamv"'),
        ("torch.optim.Adammm", {}, "has no Adammm"),
        ("nowhere.Adam", {}, "cannot be imported"),
        ("torch.optim.SGD", {"beta": 1}, "does not take these arguments"),
        ("collections.OrderedDict", {}, "does not take these arguments|not an optimizer"),
    ],
)
def test_what_is_no_optimizer_gets_a_sentence(name: str, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        make_optimizer(name, [{"params": [parameter(1.0)], "lr": 0.1}], arguments)


@pytest.mark.parametrize("name", ["adamw", "torch.optim.SGD"])
def test_a_step_with_a_bad_gradient_is_left_out_and_the_next_one_is_not(name: str) -> None:
    one = parameter(float("nan"), 1.0)
    optimizer = make_optimizer(name, [{"params": [one], "lr": 0.1}], {})
    stepper = Stepper(optimizer, [one], torch.device("cpu"), "fp32", max_grad_norm=1.0)
    assert not torch.isfinite(stepper.step())
    assert one.tolist() == [1.0, 1.0]
    one.grad = torch.tensor([3.0, 4.0])
    assert stepper.step() == 5.0
    assert (one < 1).all()
    assert torch.isfinite(one).all()


def test_gradients_are_shortened_to_the_norm_asked_for() -> None:
    one = parameter(3.0, 4.0)
    optimizer = make_optimizer("torch.optim.SGD", [{"params": [one], "lr": 1.0}], {})
    Stepper(optimizer, [one], torch.device("cpu"), "fp32", max_grad_norm=1.0).step()
    torch.testing.assert_close(one.detach(), torch.tensor([0.4, 0.2]))


def test_fp16_losses_are_scaled_and_gradients_come_back_in_their_size() -> None:
    one = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = make_optimizer("torch.optim.SGD", [{"params": [one], "lr": 1.0}], {})
    stepper = Stepper(optimizer, [one], torch.device("cpu"), "fp16", max_grad_norm=0.0)
    stepper.backward((one * 3).sum())
    assert one.grad is not None
    assert one.grad.item() == 3.0 * stepper.scale
    assert stepper.step() == 3.0
    assert one.item() == -1.0
    before = stepper.scale
    one.grad = torch.tensor([float("inf")])
    stepper.step()
    assert one.item() == -1.0
    assert stepper.scale == before / 2
