"""The judge: a small network that says what a 64 x 64 picture shows, field by field.

It is trained on drawings alone (make/train_judge.py), also such as went through the demo's autoencoder and got a little
noise, and never on what a model drew. `judge.json` beside its weights says how often it is right on drawings
it has not seen.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from fields import FIELDS
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

SIZE_PX = 64


class Judge(nn.Module):
    """Four stages of convolutions, and one linear answer a field."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for now, stride in (
            (width, 1),
            (2 * width, 2),
            (2 * width, 1),
            (4 * width, 2),
            (4 * width, 1),
            (6 * width, 2),
        ):
            layers += [nn.Conv2d(before, now, 3, stride, 1, bias=False), nn.BatchNorm2d(now), nn.ReLU()]
            before = now
        self.trunk = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(4), nn.Flatten(), nn.Dropout(0.2))
        self.answers = nn.ModuleList(nn.Linear(16 * before, len(values)) for values in FIELDS.values())

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """[n, 3, 64, 64] of -1 .. 1 to one [n, values] of scores for each field."""
        states = self.trunk(pictures)
        return [answer(states) for answer in self.answers]


def load_judge(path: Path) -> Judge:
    """The trained judge, from its safetensors file."""
    judge = Judge()
    judge.load_state_dict({name: one.float() for name, one in load_file(path).items()})
    return judge.eval()


def look_at(judge: Judge, pictures: Sequence[Image.Image]) -> list[dict[str, str]]:
    """What each picture shows: {field: value}."""
    if not pictures:
        return []
    pixels = np.stack([np.asarray(one.convert("RGB").resize((SIZE_PX, SIZE_PX))) for one in pictures])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        places = [scores.argmax(1).tolist() for scores in judge(batch)]
    return [
        {
            field: values[places[field_place][number]]
            for field_place, (field, values) in enumerate(FIELDS.items())
        }
        for number in range(len(pictures))
    ]
