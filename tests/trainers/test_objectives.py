"""What a step asks for, against numbers made by hand and the formulas of diffusers' training scripts."""

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from pipeline.errors import SettingsError
from trainers.loss_weights import debiased_weights, huber_bounds, min_snr_weights, signal_to_noise
from trainers.losses import cumulative_alphas, errors
from trainers.model_parts import Diffusion, PredictionType
from trainers.objective_settings import ObjectiveSettings
from trainers.objectives import make_objective

SD15 = Diffusion()
V = Diffusion(prediction_type="v_prediction")
ZERO_SNR = Diffusion(prediction_type="v_prediction", is_zero_terminal_snr=True)
T = torch.arange(1000)


def as_scripts_weigh(diffusion: Diffusion, gamma: float) -> Tensor:
    """The weight of train_text_to_image.py of diffusers, timestep by timestep."""
    scheduler = DDPMScheduler(**diffusion.config())
    snr = compute_snr(scheduler, T)
    weights = torch.stack([snr, gamma * torch.ones_like(T)], dim=1).min(dim=1)[0]
    return weights / (snr if diffusion.prediction_type == "epsilon" else snr + 1)


@pytest.mark.parametrize("diffusion", [SD15, V, ZERO_SNR])
@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
def test_min_snr_weighs_as_the_scripts_of_diffusers(diffusion: Diffusion, gamma: float) -> None:
    weights = make_objective(ObjectiveSettings(min_snr_gamma=gamma), diffusion).timestep_weights
    torch.testing.assert_close(weights, as_scripts_weigh(diffusion, gamma), rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("prediction", "snr", "weight"),
    [
        ("epsilon", 20.0, 0.25),
        ("epsilon", 5.0, 1.0),
        ("epsilon", 0.1, 1.0),
        ("epsilon", 0.0, 1.0),
        ("v_prediction", 19.0, 0.25),
        ("v_prediction", 4.0, 0.8),
        ("v_prediction", 1.0, 0.5),
        ("v_prediction", 0.0, 0.0),
    ],
)
def test_min_snr_by_hand(prediction: PredictionType, snr: float, weight: float) -> None:
    found = min_snr_weights(torch.tensor([snr]), 5.0, prediction)
    assert found.item() == pytest.approx(weight, rel=1e-6)


def test_the_same_weight_of_x0_whatever_is_predicted() -> None:
    """From one wrong x0 follow a wrong noise and a wrong v: min-SNR finds the three equally wrong."""
    torch.manual_seed(0)
    latents, noise, error = torch.randn(3, 4, 2, 2, dtype=torch.float64).unbind()
    for step in (0, 300, 700, 999):
        a = float(cumulative_alphas(SD15)[step])
        snr = a / (1 - a)
        noisy = a**0.5 * latents + (1 - a) ** 0.5 * noise
        wrong = latents + error
        wrong_noise = (noisy - a**0.5 * wrong) / (1 - a) ** 0.5
        wrong_v = (a**0.5 * noisy - wrong) / (1 - a) ** 0.5  # of x0 = sqrt(a) x - sqrt(1 - a) v
        v = a**0.5 * noise - (1 - a) ** 0.5 * latents
        expected = min(snr, 5.0) * error.square().mean()
        for diffusion, off in ((SD15, wrong_noise - noise), (V, wrong_v - v)):
            weights = make_objective(ObjectiveSettings(min_snr_gamma=5.0), diffusion).timestep_weights
            torch.testing.assert_close(
                weights[step].double() * off.square().mean(), expected, rtol=1e-4, atol=0
            )


def test_the_last_timestep_of_zero_terminal_snr_has_no_signal() -> None:
    """Kohya's scripts take the SNR before the betas are rescaled, and so weigh another schedule."""
    rescaled = signal_to_noise(cumulative_alphas(ZERO_SNR))
    assert rescaled[-1] == 0
    assert signal_to_noise(cumulative_alphas(V))[-1] > 0.004
    assert torch.isfinite(make_objective(ObjectiveSettings(min_snr_gamma=5), ZERO_SNR).timestep_weights).all()


def test_without_min_snr_all_timesteps_weigh_one() -> None:
    assert torch.equal(make_objective(ObjectiveSettings(), SD15).timestep_weights, torch.ones(1000))


def test_the_loss_of_a_picture_is_weighed_by_its_timestep() -> None:
    objective = make_objective(ObjectiveSettings(min_snr_gamma=5.0), SD15)
    noise = torch.zeros(2, 4, 3, 3)
    timesteps = torch.tensor([0, 900])
    losses = objective.losses(noise + 2, noise, timesteps)
    snr = float(signal_to_noise(cumulative_alphas(SD15))[0])
    assert losses.tolist() == pytest.approx([4 * 5 / snr, 4], rel=1e-5)


# Debiased estimation


def test_debiased_estimation_by_hand() -> None:
    snr = torch.tensor([4.0, 1.0, 0.25])
    assert debiased_weights(snr, "epsilon").tolist() == pytest.approx([0.5, 1.0, 2.0])
    assert debiased_weights(snr, "v_prediction").tolist() == pytest.approx([2 / 5, 1 / 2, 0.5 / 1.25])


def test_debiased_weights_are_the_same_of_x0_whatever_is_predicted() -> None:
    snr = signal_to_noise(cumulative_alphas(SD15))
    torch.testing.assert_close(
        debiased_weights(snr, "epsilon") * snr, debiased_weights(snr, "v_prediction") * (snr + 1)
    )
    settings = ObjectiveSettings(debiased_estimation=True)
    assert torch.equal(make_objective(settings, SD15).timestep_weights, debiased_weights(snr, "epsilon"))
    assert make_objective(settings, ZERO_SNR).timestep_weights[-1] == 0


# The loss of each number


def test_losses_by_hand() -> None:
    pred, target = torch.tensor([3.0, -4.0, 0.0]).view(1, 1, 1, 3), torch.zeros(1, 1, 1, 3)
    c = torch.tensor([3.0])
    assert errors(pred, target, "l2").flatten().tolist() == [9.0, 16.0, 0.0]
    assert errors(pred, target, "l1").flatten().tolist() == [3.0, 4.0, 0.0]
    root = 18**0.5
    expected = [2 * 3 * (root - 3), 2 * 3 * (5 - 3), 0.0]
    assert errors(pred, target, "huber", c).flatten().tolist() == pytest.approx(expected)
    assert errors(pred, target, "smooth-l1", c).flatten().tolist() == pytest.approx([e / 3 for e in expected])


@pytest.mark.parametrize("kind", ["huber", "smooth-l1"])
def test_huber_is_square_when_small_and_plain_when_large(kind: str) -> None:
    off = torch.tensor([1e-3, 1e-2, 30.0, -100.0], dtype=torch.float64)
    c = 0.1
    found = errors(off.view(4, 1, 1, 1), torch.zeros(4, 1, 1, 1), kind, torch.full((4,), c)).flatten()
    scale = c if kind == "huber" else 1.0
    assert found[:2].tolist() == pytest.approx([scale * 1e-6 / c, scale * 1e-4 / c], rel=5e-3)
    assert found[2:].tolist() == pytest.approx([scale * 2 * 29.9, scale * 2 * 99.9], rel=1e-3)
    exact = 2 * scale * ((off.square() + c * c).sqrt() - c)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("schedule", "step", "bound"),
    [
        ("constant", 0, 0.1),
        ("constant", 999, 0.1),
        ("exponential", 0, 1.0),
        ("exponential", 500, 0.1**0.5),
        ("exponential", 999, 0.1**0.999),
        ("snr", 0, 0.9 / (1 + 0.00085005**0.5 / (1 - 0.00085) ** 0.5) ** 2 + 0.1),
        ("snr", 999, 0.9 / (1 + 14.6146) ** 2 + 0.1),
    ],
)
def test_bounds_of_huber_by_hand(schedule: str, step: int, bound: float) -> None:
    """14.6146 is the sigma that samplers of Stable Diffusion 1.x begin with."""
    bounds = huber_bounds(cumulative_alphas(SD15), schedule, 0.1)
    assert float(bounds[step]) == pytest.approx(bound, rel=1e-3)


def test_at_zero_snr_the_bound_is_c() -> None:
    assert float(huber_bounds(cumulative_alphas(ZERO_SNR), "snr", 0.1)[-1]) == pytest.approx(0.1)


def test_a_picture_has_the_bound_of_its_timestep() -> None:
    objective = make_objective(ObjectiveSettings(loss="huber", huber_schedule="exponential"), SD15)
    losses = objective.losses(torch.full((2, 4, 3, 3), 2.0), torch.zeros(2, 4, 3, 3), torch.tensor([0, 500]))
    expected = [2 * c * ((4 + c * c) ** 0.5 - c) for c in (1.0, 0.1**0.5)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)


# What does not go together


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ObjectiveSettings(min_snr_gamma=5.0, debiased_estimation=True), "each in its own way"),
        (ObjectiveSettings(noise_offset_random=True), "there is none"),
        (ObjectiveSettings(ip_noise_random=True), "there is none"),
        (ObjectiveSettings(adaptive_noise_scale=0.1), "adaptive_noise_scale changes the offset"),
        (ObjectiveSettings(min_timestep=500, max_timestep=500), "no timestep is from 500 to below 500"),
    ],
)
def test_what_makes_no_sense_together_is_refused(settings: ObjectiveSettings, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings.check_objective()
