"""The noise of a batch, where it is not plain: shifted, of several sizes, other in input than in target.

All is drawn on the CPU, keyed by seed and number of the batch.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trainers import draws
from trainers.objective_settings import ObjectiveSettings


def batch_noise(settings: ObjectiveSettings, latents: Tensor, seed: int, number: int) -> Tensor:
    """The noise that is added and asked for, [batch, channels, height, width], fp32.

    Args:
        latents: scaled, of the same shape; only an adaptive offset looks at them, and is on their device.
        number: of the batch.
    """
    shape = tuple(latents.shape)
    noise = draws.normal(shape, "noise", seed, number)
    if settings.noise_offset > 0:
        noise = _shifted(settings, noise, latents, seed, number)
    if settings.pyramid_noise:
        noise = _pyramid(settings, noise, seed, number)
    return noise


def input_noise(settings: ObjectiveSettings, noise: Tensor, seed: int, number: int) -> Tensor | None:
    """The noise in the input, noise + gamma * xi; None where it is that of the target.

    Ning et al. 2023, arXiv:2301.11706, algorithm 1. With a random strength gamma is drawn from 0 to what is
    asked for, one for each picture.
    """
    if not settings.ip_noise_gamma:
        return None
    other = draws.normal(tuple(noise.shape), "input noise", seed, number).to(noise.device)
    strength = torch.full((len(noise), 1, 1, 1), settings.ip_noise_gamma)
    if settings.ip_noise_random:
        strength = strength * draws.uniform((len(noise), 1, 1, 1), "input noise strength", seed, number)
    return noise + strength.to(noise.device) * other


def _shifted(settings: ObjectiveSettings, noise: Tensor, latents: Tensor, seed: int, number: int) -> Tensor:
    """Noise + strength * N(0, 1) of each channel of each picture (Guttenberg 2023, "Diffusion with offset
    noise").

    Adaptive, the strength is offset + scale * |mean of the channel|, not below 0, as in kohya's scripts.
    """
    batch, channels = noise.shape[:2]
    offsets = draws.normal((batch, channels, 1, 1), "noise offset", seed, number)
    strength = torch.full((batch, 1, 1, 1), settings.noise_offset)
    if settings.noise_offset_random:
        strength = strength * draws.uniform((batch, 1, 1, 1), "noise strength", seed, number)
    if settings.adaptive_noise_scale:
        means = latents.mean(dim=(2, 3), keepdim=True).abs()
        strength = (strength.to(latents.device) + settings.adaptive_noise_scale * means).clamp(min=0)
    return noise.to(strength.device) + strength * offsets.to(strength.device)


def _pyramid(settings: ObjectiveSettings, noise: Tensor, seed: int, number: int) -> Tensor:
    """Noise of coarser and coarser sizes added, then each picture brought to a deviation of 1.

    Whitaker 2023, "Multi-resolution noise for diffusion model training": level i is smaller by r^i, r from 2
    to 4, counts discount^i, and is enlarged bilinearly; level 0 is of full size. The levels end at one pixel.
    """
    batch, channels, height, width = noise.shape
    ratios = draws.stream("pyramid", seed, number)
    for level in range(settings.pyramid_noise):
        ratio = (2 + 2 * ratios.random()) ** level
        size = max(1, int(height / ratio)), max(1, int(width / ratio))
        coarse = draws.normal((batch, channels, *size), "pyramid", seed, number, level).to(noise.device)
        enlarged = interpolate(coarse, (height, width), mode="bilinear")
        noise = noise + enlarged * settings.pyramid_discount**level
        if 1 in size:
            break
    return noise / noise.std(dim=(1, 2, 3), keepdim=True)
