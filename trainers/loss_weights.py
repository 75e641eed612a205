"""What the error at each timestep weighs, as a table over the timesteps of a model.

SNR is the signal-to-noise ratio a / (1 - a) of a timestep, where a is the cumulative alpha (Kingma et al.
2021, arXiv:2107.00630, eq. 2). The squared errors of one prediction are, by what is predicted,

    |x0 error|^2 = |noise error|^2 / SNR = |v error|^2 / (SNR + 1)

so that a weight that is meant for the error of x0 is divided by SNR for epsilon and by SNR + 1 for v.
"""

import math

import torch
from torch import Tensor

from trainers.model_parts import PredictionType


def signal_to_noise(alphas: Tensor) -> Tensor:
    """SNR of each timestep, falling: 0 at the last one of a schedule with zero-terminal SNR.

    Args:
        alphas: cumulative, below 1.
    """
    return alphas / (1 - alphas)


def min_snr_weights(snr: Tensor, gamma: float, prediction: PredictionType) -> Tensor:
    """min(SNR, gamma) of the error of x0, in terms of what is predicted, of the shape of `snr`.

    Hang et al. 2023, arXiv:2303.09556, eq. 9 and section 3.4: min(1, gamma / SNR) of epsilon, which is 1
    where the SNR is 0, and min(SNR, gamma) / (SNR + 1) of v.

    Args:
        snr: of 0 and more.    gamma: above 0.
    """
    if prediction == "epsilon":
        return (gamma / snr).clamp(max=1)
    return snr.clamp(max=gamma) / (snr + 1)


def debiased_weights(snr: Tensor, prediction: PredictionType) -> Tensor:
    """Debiased estimation: 1 / sqrt(SNR) of the noise's error, of the shape of `snr`.

    Yu et al. 2023, arXiv:2310.08442: sqrt(SNR) of the error of x0, and so sqrt(SNR) / (SNR + 1) of v.
    Kohya's scripts take 1 / (SNR + 1) of v, which is another weight of x0 than theirs of epsilon.

    Args:
        snr: above 0 of epsilon.
    """
    return snr.rsqrt() if prediction == "epsilon" else snr.sqrt() / (snr + 1)


def huber_bounds(alphas: Tensor, schedule: str, c: float) -> Tensor:
    """Where an error stops to count squared, by timestep, of the shape of `alphas`.

    Khrapov et al. 2024, arXiv:2403.16728: c at all timesteps ("constant"); falling from 1 as
    exp(t ln(c) / T) ("exponential"); or (1 - c) / (1 + sigma)^2 + c ("snr"), sigma^2 = 1 / SNR.

    Args:
        alphas: cumulative, [num_train_timesteps].
        c: above 0, at most 1.
    """
    if schedule == "constant":
        return torch.full_like(alphas, c)
    if schedule == "exponential":
        steps = torch.arange(len(alphas), dtype=torch.float64)
        return (steps * (math.log(c) / len(alphas))).exp().to(alphas.dtype)
    sigmas = (1 / alphas - 1).sqrt()
    return (1 - c) / (1 + sigmas).square() + c
