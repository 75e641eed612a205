"""Train the demo's autoencoder: 64 x 64 pixels to 16 x 16 x 4, in the classes of Stable Diffusion 1.x.

    python examples/demo/make/train_vae.py [--steps 3000] [--pictures 20000]

The loss is L1 + MSE + L1 of the gradients, which keeps outlines, + L1 of the chroma, which keeps small
coloured areas such as eyes, + a little KL. At the end the latent's channels are brought to mean 0 and
deviation 1 inside the model's own 1 x 1 convolutions, so that the noise schedule fits it with a scaling factor of 1.
"""

import argparse
import math
import time

import numpy as np
import torch
from diffusers import AutoencoderKL
from drawn import WORK, Pixels, drawings
from torch import Tensor

SEED, NUM_HELD_OUT = 1, 256
BATCH, PEAK_RATE, WARM_UP_STEPS, KL_WEIGHT = 16, 2e-3, 100, 3e-4
PATH = WORK / "vae"


def new_vae() -> AutoencoderKL:
    """0.68 million numbers; a latent is 4 pixels wide."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
    )


def to_tensor(pixels: Pixels) -> Tensor:
    """uint8 RGB [n, h, w, 3] to -1 .. 1, [n, 3, h, w]."""
    return torch.tensor(pixels).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1


def loss_of(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """One number for a batch."""
    posterior = vae.encode(pictures).latent_dist
    again = vae.decode(posterior.mean + posterior.std * torch.randn_like(posterior.mean)).sample
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    return loss_of_pixels(again, pictures) + KL_WEIGHT * kl


def loss_of_pixels(found: Tensor, wanted: Tensor) -> Tensor:
    """One number for a batch, without the latent."""
    error = found - wanted
    across, down = error.diff(dim=3).abs().mean(), error.diff(dim=2).abs().mean()
    chroma = (error - error.mean(dim=1, keepdim=True)).abs().mean()
    return error.abs().mean() + error.square().mean() + 0.5 * (across + down) + 0.5 * chroma


@torch.no_grad()
def encoded(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Means of the latents."""
    return torch.cat([vae.encode(some).latent_dist.mean for some in pictures.split(64)])


@torch.no_grad()
def through(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Pictures as a model of this autoencoder would draw them at best: the mean of the latent, decoded."""
    return torch.cat([vae.decode(encoded(vae, some)).sample.clamp(-1, 1) for some in pictures.split(64)])


def psnr(found: Tensor, pictures: Tensor) -> float:
    """Decibels over all of the pictures, both -1 .. 1."""
    return -10 * math.log10((found - pictures).square().mean().item() / 4)


def share_of_rate(step: int, steps: int, warm_up_steps: int) -> float:
    """Of the highest learning rate at a step: a straight rise, then a cosine down to a fiftieth."""
    fall = (1 + math.cos(math.pi * step / steps)) / 2
    return min(1.0, step / warm_up_steps) * (0.02 + 0.98 * fall)


def normalise(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Bring each channel of the latent to mean 0 and deviation 1, and take it back before the decoder."""
    with torch.no_grad():
        latents = encoded(vae, pictures)
        mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        channels = len(mean)
        into, back = vae.quant_conv, vae.post_quant_conv
        into.weight[:channels] /= deviation[:, None, None, None]
        into.bias[:channels] = (into.bias[:channels] - mean) / deviation
        into.bias[channels:] -= 2 * deviation.log()  # the logarithm of the variance
        back.bias += (back.weight[:, :, 0, 0] * mean).sum(1)
        back.weight *= deviation[None, :, None, None]


def main() -> None:
    """Train for so many steps, going on from what is there, and write `scratch/vae`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=PEAK_RATE)
    arguments = parser.parse_args()
    pixels, _ = drawings(SEED, arguments.pictures, 64)
    held_out = to_tensor(pixels[-NUM_HELD_OUT:])
    torch.manual_seed(SEED)
    vae = AutoencoderKL.from_pretrained(PATH) if PATH.is_dir() else new_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=arguments.rate, betas=(0.9, 0.99), weight_decay=0.0)
    began = time.monotonic()
    rng = np.random.default_rng(SEED)
    for step in range(1, arguments.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * share_of_rate(step, arguments.steps, WARM_UP_STEPS)
        chosen = np.sort(rng.integers(0, arguments.pictures - NUM_HELD_OUT, BATCH))
        loss = loss_of(vae, to_tensor(pixels[chosen]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            minutes = (time.monotonic() - began) / 60
            print(
                f"{step} steps, {minutes:.1f} min: {psnr(through(vae, held_out), held_out):.2f} dB",
                flush=True,
            )
        if step % 500 == 0:
            vae.save_pretrained(PATH)  # the same command goes on from it, with a schedule of its own
    normalise(vae, to_tensor(pixels[:2048]))
    vae.save_pretrained(PATH)
    print(
        f"{PATH}: {arguments.steps} steps of {BATCH}, held-out {psnr(through(vae, held_out), held_out):.2f} dB"
    )


if __name__ == "__main__":
    main()
