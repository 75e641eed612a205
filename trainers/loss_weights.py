"""What the error at each timestep weighs, as a table over the timesteps of a model.

SNR is the signal-to-noise ratio a / (1 - a) of a timestep, where a is the cumulative alpha (Kingma et al.
2021, arXiv:2107.00630, eq. 2). The squared errors of one prediction are, by what is predicted,

    |x0 error|^2 = |noise error|^2 / SNR = |v error|^2 / (SNR + 1)

so that a weight that is meant for the error of x0 is divided by SNR for epsilon and by SNR + 1 for v.
"""

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
