"""Train the judge on drawings, and on drawings that went through the autoencoder.

python examples/demo/make/train_judge.py [--steps 1500]
"""

import argparse
import json
import time

import torch
from diffusers import AutoencoderKL
from drawn import WORK, drawings
from fields import FIELDS, is_seen, value_of
from judge import Judge
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from train_vae import through, to_tensor

UNSEEN = -100  # the place that cross entropy passes over
SEED, NUM_PICTURES, NUM_HELD_OUT, BATCH, RATE = 3, 20_000, 2_000, 64, 2e-3


def accuracy(judge: Judge, pictures: Tensor, wanted: Tensor) -> dict[str, float]:
    """Share of right answers for each field, where it is seen."""
    judge.eval()
    with torch.no_grad():
        parts = [
            torch.stack([scores.argmax(1) for scores in judge(some)], dim=1) for some in pictures.split(256)
        ]
    judge.train()
    seen = wanted != UNSEEN
    shares = ((torch.cat(parts) == wanted) & seen).sum(0) / seen.sum(0)
    return dict(zip(FIELDS, shares.tolist(), strict=True))


def main() -> None:
    """Train, measure on drawings that were held out, write `scratch/judge.safetensors` and its card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    steps = parser.parse_args().steps
    pixels, scenes = drawings(SEED, NUM_PICTURES, 64)
    wanted = torch.tensor(
        [
            [
                values.index(value_of(one, name)) if is_seen(one, name) else UNSEEN
                for name, values in FIELDS.items()
            ]
            for one in scenes
        ]
    )
    vae = AutoencoderKL.from_pretrained(WORK / "vae").eval()
    pictures = to_tensor(pixels)
    again = through(vae, pictures)
    torch.manual_seed(SEED)
    judge = Judge().train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=RATE, weight_decay=0.01)
    began, first_held_out = time.monotonic(), NUM_PICTURES - NUM_HELD_OUT
    rng = torch.Generator().manual_seed(SEED)
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, step / 50) * (1 - step / (steps + 1))
        chosen = torch.randint(first_held_out, (BATCH,), generator=rng)
        is_again = torch.rand(BATCH, 1, 1, 1, generator=rng) < 0.6
        batch = torch.where(is_again, again[chosen], pictures[chosen])
        batch = batch + 0.08 * torch.rand(BATCH, 1, 1, 1, generator=rng) * torch.randn(
            batch.shape, generator=rng
        )
        loss = torch.stack(
            [F.cross_entropy(scores, wanted[chosen, place]) for place, scores in enumerate(judge(batch))]
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"{step} steps, {time.monotonic() - began:.0f} s: loss {loss.item():.4f}", flush=True)
    card = {
        "steps": steps,
        "seed": SEED,
        "drawings": first_held_out,
        "held out": NUM_HELD_OUT,
        "right on drawings": accuracy(judge, pictures[first_held_out:], wanted[first_held_out:]),
        "right after the autoencoder": accuracy(judge, again[first_held_out:], wanted[first_held_out:]),
    }
    save_file(
        {name: one.half() if one.is_floating_point() else one for name, one in judge.state_dict().items()},
        WORK / "judge.safetensors",
    )
    (WORK / "judge.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
