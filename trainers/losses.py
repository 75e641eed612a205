"""What the network is asked for, and how far off it is."""

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from trainers.model_parts import Diffusion


def cumulative_alphas(diffusion: Diffusion) -> Tensor:
    """Products of 1 - beta up to each timestep: [num_train_timesteps], fp32, falling.

    Ho et al. 2020, arXiv:2006.11239, below eq. 4; with zero-terminal SNR stretched to end at 0, Lin et al.
    2023, arXiv:2305.08891, algorithm 1.
    """
    alphas: Tensor = DDPMScheduler(**diffusion.config()).alphas_cumprod
    return alphas


def add_noise(latents: Tensor, noise: Tensor, alphas: Tensor, timesteps: Tensor) -> Tensor:
    """Noisy latents, [batch, channels, height, width]: sqrt(a) * latents + sqrt(1 - a) * noise.

    Ho et al. 2020, eq. 4.

    Args:
        alphas: cumulative, [num_train_timesteps].
        timesteps: [batch].
    """
    alpha = alphas[timesteps].view(-1, 1, 1, 1)
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise


def velocity(latents: Tensor, noise: Tensor, alphas: Tensor, timesteps: Tensor) -> Tensor:
    """What a v-prediction model is asked for: sqrt(a) * noise - sqrt(1 - a) * latents, of their shape.

    Salimans and Ho 2022, arXiv:2202.00512, section 4.

    Args:
        alphas: cumulative, [num_train_timesteps].
        timesteps: [batch].
    """
    alpha = alphas[timesteps].view(-1, 1, 1, 1)
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents


def errors(model_pred: Tensor, target: Tensor, kind: str, bounds: Tensor | None = None) -> Tensor:
    """Loss of each number in fp32, of the shape of `target`.

    "l2" is d^2, "l1" is |d|; of the two with a bound c, "huber" is 2 c (sqrt(d^2 + c^2) - c), near d^2 while
    d is small beside c, and "smooth-l1" is 2 (sqrt(d^2 + c^2) - c), near 2 |d| while it is large (the
    pseudo-Huber loss of Charbonnier et al. 1997, in the two scales of kohya's scripts; Khrapov et al. 2024,
    arXiv:2403.16728).

    Args:
        bounds: c of each picture, [batch].
    """
    off = model_pred.float() - target.float()
    if kind == "l2":
        return off.square()
    if kind == "l1":
        return off.abs()
    assert bounds is not None
    c = bounds.view(-1, 1, 1, 1)
    # the difference of a root and c as a quotient: nothing is lost where d is small
    smooth = 2 * off.square() / ((off.square() + c.square()).sqrt() + c)
    return smooth * c if kind == "huber" else smooth


def masked_mean(errors: Tensor, mask: Tensor) -> Tensor:
    """Mean of each picture's errors where its mask is, in its measure: [batch]; 0 where there is no mask.

    sum(mask * errors) / sum(mask): a small figure counts as much as a large one. Kohya's scripts divide by
    the whole picture instead, so that the loss falls with the mask.

    Args:
        errors: [batch, channels, height, width].
        mask: 0 to 1, [batch, 1, height, width].
    """
    covered = mask.flatten(1).sum(1) * errors.shape[1]
    return (errors * mask).flatten(1).sum(1) / covered.clamp(min=torch.finfo(covered.dtype).tiny)


def squared_error(noise_pred: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each picture in fp32: [batch]. Ho et al. 2020, eq. 14."""
    return (noise_pred.float() - target.float()).square().flatten(1).mean(1)
