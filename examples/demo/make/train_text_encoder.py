"""Teach the demo's text encoder to read before anything is drawn: caption -> what the scene shows.

    python examples/demo/make/train_text_encoder.py [--steps 500]

A text encoder that learns from the noise of pictures alone is slow to bind a colour to its noun. Here each
field of a scene (hair colour, outfit, ...) has a question of its own, one vector that pools the states of all
tokens by attention, and a linear answer; the answer to a tag that was left out is "not said". Only the encoder is kept.
"""

import argparse
import random
import time

import numpy as np
import torch
from characters import random_scene
from drawn import WORK
from fields import FIELDS, value_of
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel
from words import MAX_TEXT_TOKENS, new_tokenizer, shuffled

from trainers.conditioning import Tokenizer, encode

SEED, BATCH, RATE, DROPOUT, WIDTH = 2, 64, 1e-3, 0.15, 128


def new_text_encoder(tokenizer: Tokenizer) -> CLIPTextModel:
    """Three layers, 128 wide."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TEXT_TOKENS,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.begin,
            eos_token_id=tokenizer.end,
            pad_token_id=tokenizer.pad,
            attn_implementation="eager",
        )
    )


class Reader(nn.Module):
    """Asks the states of a caption one question for each field."""

    def __init__(self) -> None:
        super().__init__()
        self.questions = nn.Parameter(torch.randn(len(FIELDS), WIDTH) / WIDTH**0.5)
        self.answers = nn.ModuleList(nn.Linear(WIDTH, len(values) + 1) for values in FIELDS.values())

    def forward(self, states: Tensor) -> list[Tensor]:
        """[batch, tokens, width] to one [batch, values + 1] for each field."""
        weights = (states @ self.questions.T).softmax(dim=1)
        pooled = weights.transpose(1, 2) @ states
        return [answer(pooled[:, place]) for place, answer in enumerate(self.answers)]


def examples(rng: random.Random, count: int) -> tuple[list[str], Tensor]:
    """Captions, and [count, fields] of the value's place; the last place is "not said"."""
    captions, rows = [], []
    for _ in range(count):
        scene = random_scene(np.random.default_rng(rng.getrandbits(32)))
        tags = shuffled(scene, rng, dropout=DROPOUT)
        captions.append(", ".join(tags))
        said = set(tags)
        rows.append(
            [
                values.index(value_of(scene, field)) if value_of(scene, field) in said else len(values)
                for field, values in FIELDS.items()
            ]
        )
    return captions, torch.tensor(rows)


def main() -> None:
    """Learn the vocabulary, teach the encoder, write both into `scratch/text`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    steps = parser.parse_args().steps
    rng = random.Random(SEED)
    captions, _ = examples(rng, 5000)
    tokenizer = new_tokenizer(captions)
    print(f"{tokenizer.vocab_size} tokens; the longest caption has {max(map(tokenizer.count, captions))}")
    torch.manual_seed(SEED)
    encoder, reader = new_text_encoder(tokenizer).train(), Reader()
    learning = [*encoder.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(learning, lr=RATE, betas=(0.9, 0.99))
    began = time.monotonic()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, step / 50) * (1 - 0.9 * step / steps)
        captions, wanted = examples(rng, BATCH)
        found = reader(encode(encoder, tokenizer(captions), clip_skip=1))
        loss = torch.stack([F.cross_entropy(one, wanted[:, place]) for place, one in enumerate(found)]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps:
            right = [
                (one.argmax(1) == wanted[:, place]).float().mean().item() for place, one in enumerate(found)
            ]
            told = "  ".join(f"{field} {share:.2f}" for field, share in zip(FIELDS, right, strict=True))
            print(
                f"{step} steps, {time.monotonic() - began:.0f} s: loss {loss.item():.4f}  {told}", flush=True
            )
    folder = WORK / "text"
    encoder.save_pretrained(folder / "text_encoder")
    for name, text in tokenizer.files().items():
        (folder / name).write_text(text, encoding="utf-8")
    print(folder)


if __name__ == "__main__":
    main()
