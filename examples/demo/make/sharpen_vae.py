"""Train the decoder of the demo's autoencoder further, against a network that tells drawings from what it decodes.

    python examples/demo/make/sharpen_vae.py [--steps 3000]

The mean of all places where an outline may be is a blur, and the least error; so after `train_vae.py` lines are soft. A
discriminator of patches (Isola et al. 2017, arXiv:1611.07004; hinge loss; spectral norm) calls blur by its name. Its weight is that of VQGAN (Esser
et al. 2021, arXiv:2012.09841, eq. 7): the two gradients at the decoder's last layer keep one proportion. What it sees within, its features, is
to be alike as well (Wang et al. 2018, arXiv:1711.11585, eq. 4). The encoder stays, and so do latents and all that was trained on them.
"""

import argparse
import time
from itertools import chain

import numpy as np
import torch
from diffusers import AutoencoderKL
from drawn import drawings
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from train_vae import NUM_HELD_OUT, PATH, encoded, loss_of_pixels, psnr, share_of_rate, through, to_tensor
from train_vae import SEED as SEED_OF_DRAWINGS

SEED, PICTURES = 2, 20_000
BATCH, RATE, WARM_UP_STEPS = 16, 4e-4, 50
ADVERSARIAL, FEATURES = 0.5, 0.25  # weights beside the loss of pixels
LATENT_NOISE = 0.05  # of a deviation of 1: what a UNet draws is never quite what an encoder gives


class Discriminator(nn.Module):
    """Says of each patch of 26 pixels whether it was drawn (above 0) or decoded."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        shapes = [
            (3, width, 4, 2),
            (width, 2 * width, 4, 2),
            (2 * width, 4 * width, 3, 1),
            (4 * width, 1, 3, 1),
        ]
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, after, kernel, stride, padding=1))
            for before, after, kernel, stride in shapes
        )

    def forward(self, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Pictures [n, 3, h, w] to scores [n, 1, h / 4, w / 4], and the features of each layer before."""
        features = []
        *inner, last = self.layers
        for layer in inner:
            pictures = functional.leaky_relu(layer(pictures), 0.2)
            features.append(pictures)
        return last(pictures), features


def adversarial_loss(
    discriminator: Discriminator, found: Tensor, wanted: Tensor, pixels_loss: Tensor, last_layer: Tensor
) -> Tensor:
    """What the decoder learns from the discriminator for a batch: one number, weights included."""
    discriminator.requires_grad_(False)
    scores, features = discriminator(found)
    with torch.no_grad():
        _, of_drawings = discriminator(wanted)
    distances = [(one - other).abs().mean() for one, other in zip(features, of_drawings, strict=True)]
    fooling = -scores.mean()
    by_pixels, by_fooling = (
        torch.autograd.grad(one, last_layer, retain_graph=True)[0].norm() for one in (pixels_loss, fooling)
    )
    discriminator.requires_grad_(True)
    weight = (by_pixels / (by_fooling + 1e-6)).clamp(max=10)
    return ADVERSARIAL * weight * fooling + FEATURES * sum(distances, torch.zeros(()))


def hinge_loss(discriminator: Discriminator, found: Tensor, wanted: Tensor) -> Tensor:
    """What the discriminator learns from a batch."""
    of_drawings, of_found = discriminator(wanted)[0], discriminator(found)[0]
    return functional.relu(1 - of_drawings).mean() + functional.relu(1 + of_found).mean()


def state(vae: AutoencoderKL, pictures: Tensor) -> str:
    """What a person would see of it: the error, and how strong outlines are beside those of the drawings."""
    found = through(vae, pictures)
    strengths = [one.diff(dim=2).abs().mean() + one.diff(dim=3).abs().mean() for one in (found, pictures)]
    outlines = strengths[0] / strengths[1]
    return f"held-out {psnr(found, pictures):.2f} dB, outlines {outlines:.2f} of the drawings'"


def main() -> None:
    """Train the decoder of `scratch/vae`, and write it back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    arguments = parser.parse_args()
    pixels, _ = drawings(SEED_OF_DRAWINGS, PICTURES, 64)
    held_out = to_tensor(pixels[-NUM_HELD_OUT:])
    torch.manual_seed(SEED)
    vae, discriminator = AutoencoderKL.from_pretrained(PATH, torch_dtype=torch.float32), Discriminator()
    print(f"before: {state(vae, held_out)}", flush=True)
    latents = encoded(vae, to_tensor(pixels))
    learning = list(chain(vae.decoder.parameters(), vae.post_quant_conv.parameters()))
    of_decoder, of_discriminator = (
        torch.optim.AdamW(parameters, lr=RATE, betas=(0.5, 0.99), weight_decay=0.0)
        for parameters in (learning, discriminator.parameters())
    )
    began = time.monotonic()
    rng = np.random.default_rng(SEED)
    for step in range(1, arguments.steps + 1):
        for group in chain(of_decoder.param_groups, of_discriminator.param_groups):
            group["lr"] = RATE * share_of_rate(step, arguments.steps, WARM_UP_STEPS)
        chosen = np.sort(rng.integers(0, PICTURES - NUM_HELD_OUT, BATCH))
        wanted, of_wanted = to_tensor(pixels[chosen]), latents[torch.from_numpy(chosen)]
        found = vae.decode(of_wanted + LATENT_NOISE * torch.randn_like(of_wanted)).sample
        loss = loss_of_pixels(found, wanted)
        if step > WARM_UP_STEPS:
            loss = loss + adversarial_loss(discriminator, found, wanted, loss, vae.decoder.conv_out.weight)
        of_decoder.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        of_decoder.step()
        seen = hinge_loss(discriminator, found.detach(), wanted)
        of_discriminator.zero_grad()
        seen.backward()
        of_discriminator.step()
        if step % 100 == 0:
            minutes = (time.monotonic() - began) / 60
            print(
                f"{step} steps, {minutes:.1f} min: {state(vae, held_out)}; discriminator {seen.item():.2f} of 2",
                flush=True,
            )
    vae.save_pretrained(PATH)
    print(f"{PATH}: {arguments.steps} steps of {BATCH}, {state(vae, held_out)}")


if __name__ == "__main__":
    main()
