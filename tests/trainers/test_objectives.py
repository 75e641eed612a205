"""What a step asks for, against numbers made by hand and the formulas of diffusers' training scripts."""

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from trainers.loss_weights import min_snr_weights, signal_to_noise
from trainers.losses import cumulative_alphas
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
