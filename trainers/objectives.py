"""The objective of a run: noisy latents, what is asked for, how far off an answer is, what that weighs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.loss_weights import min_snr_weights, signal_to_noise
from trainers.losses import add_noise, cumulative_alphas, squared_error
from trainers.model_parts import Diffusion
from trainers.objective_settings import ObjectiveSettings


@dataclass(frozen=True, slots=True)
class Objective:
    """What a step asks for; its tables lie on the device.

    Args:
        alphas: cumulative, [num_train_timesteps].
        timestep_weights: [num_train_timesteps].
    """

    alphas: Tensor
    timestep_weights: Tensor

    def noisy_latents(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network is shown, [batch, channels, height, width]."""
        return add_noise(latents, noise, self.alphas, timesteps)

    def losses(self, noise_pred: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Loss of each picture, weighed by its timestep, fp32: [batch].

        Args:
            timesteps: [batch].
        """
        return squared_error(noise_pred, noise) * self.timestep_weights[timesteps]


def make_objective(
    settings: ObjectiveSettings, diffusion: Diffusion, device: torch.device | str = "cpu"
) -> Objective:
    """The objective that settings ask for, with a model that is noised as it says."""
    alphas = cumulative_alphas(diffusion)
    weights = torch.ones_like(alphas)
    if settings.min_snr_gamma > 0:
        snr = signal_to_noise(alphas)
        weights = min_snr_weights(snr, settings.min_snr_gamma, diffusion.prediction_type)
    return Objective(alphas.to(device), weights.to(device))


def objective_words(settings: ObjectiveSettings, diffusion: Diffusion) -> str:
    """The objective in one line of the plan."""
    words = [diffusion.prediction_type]
    if settings.min_snr_gamma > 0:
        words.append(f"min-SNR {settings.min_snr_gamma:g}")
    return ", ".join(words)
