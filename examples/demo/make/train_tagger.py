"""Train the demo's tagger and write it in the interface of the WD taggers.

    python examples/demo/make/train_tagger.py [--steps 2500] [--frames 12000]

Frames of random characters, none of them one of the five, scaled as WD taggers get theirs: padded to a white square,
BGR, 0 to 255. Writes scratch/tagger: model.onnx, selected_tags.csv, and card.json with precision and recall on frames
that were held out. Needs the packages onnx and onnxscript, which celforge itself does not.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from drawn import WORK, Pixels
from fields import FIELDS, NOTHING
from frames import COUNTS, frames
from torch import Tensor, nn
from torch.nn import functional as F

SEED, NUM_HELD_OUT, BATCH, RATE, SIZE_PX, THRESHOLD = 6, 1000, 32, 2e-3, 160, 0.5
GENERAL, RATING = 0, 9  # categories of selected_tags.csv
TAGS = (
    *(*COUNTS.values(), "multiple girls", "solo"),
    *(value for values in FIELDS.values() for value in values if value != NOTHING),
)


class Tagger(nn.Module):
    """Five halvings; the mean and the largest of each channel say what is there."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for now, stride in ((24, 2), (48, 2), (48, 1), (96, 2), (96, 1), (160, 2), (160, 1), (224, 1)):
            layers += [nn.Conv2d(before, now, 3, stride, 1, bias=False), nn.BatchNorm2d(now), nn.ReLU()]
            before = now
        self.trunk = nn.Sequential(*layers)
        self.answer = nn.Linear(2 * before, len(TAGS))

    def forward(self, pictures: Tensor) -> Tensor:
        """[n, 3, 160, 160] BGR of -1 .. 1 to scores [n, tags]."""
        states = self.trunk(pictures)
        return self.answer(torch.cat([states.mean((2, 3)), states.amax((2, 3))], dim=1))


class Interface(nn.Module):
    """WD's contract around it: [n, height, width, 3] BGR of 0 .. 255 to probabilities, the rating first."""

    def __init__(self, tagger: Tagger) -> None:
        super().__init__()
        self.tagger = tagger

    def forward(self, pictures: Tensor) -> Tensor:
        """Every drawing is for all: the rating `general` is always certain."""
        found = self.tagger(pictures.permute(0, 3, 1, 2) / 127.5 - 1).sigmoid()
        return torch.cat([torch.ones_like(found[:, :1]), found], dim=1)


def squares(pixels: Pixels) -> Tensor:
    """Frames as a WD tagger gets them: [n, 160, 160, 3], BGR, 0 .. 255."""
    count, height, width, _ = pixels.shape
    padded = np.full((count, width, width, 3), 255, np.uint8)
    top = (width - height) // 2
    padded[:, top : top + height] = pixels
    small = [cv2.resize(one[:, :, ::-1], (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA) for one in padded]
    return torch.from_numpy(np.stack(small)).float()


def scores_of(tagger: nn.Module, pixels: Pixels) -> Tensor:
    """Probabilities [n, 1 + tags]."""
    parts = []
    with torch.no_grad():
        for first in range(0, len(pixels), 64):
            parts.append(tagger(squares(pixels[first : first + 64])))
    return torch.cat(parts)


def card_of(found: Tensor, wanted: Tensor) -> dict[str, object]:
    """Precision and recall at THRESHOLD, over all and by tag."""
    said = found > THRESHOLD
    right = (said & wanted).sum(0).float()
    by_tag = {
        tag: {
            "precision": round(float(right[place] / said[:, place].sum().clamp(min=1)), 3),
            "recall": round(float(right[place] / wanted[:, place].sum().clamp(min=1)), 3),
        }
        for place, tag in enumerate(TAGS)
    }
    return {
        "threshold": THRESHOLD,
        "precision": round(float(right.sum() / said.sum()), 4),
        "recall": round(float(right.sum() / wanted.sum()), 4),
        "by tag": by_tag,
    }


def strip(path: Path) -> None:
    """Take the exporter's notes out of a model: where each operation stood in which file."""
    model = onnx.load(path)
    for one in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        one.doc_string = ""
        del one.metadata_props[:]
    onnx.save(model, path)


def main() -> None:
    """Train, measure, export, compare the export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--frames", type=int, default=12_000)
    arguments = parser.parse_args()
    pixels, tags = frames(SEED, arguments.frames)
    wanted = torch.tensor([[tag in some for tag in TAGS] for some in tags])
    learned = arguments.frames - NUM_HELD_OUT
    torch.manual_seed(SEED)
    tagger = Tagger().train()
    optimizer = torch.optim.AdamW(tagger.parameters(), lr=RATE, weight_decay=0.01)
    rng, began = np.random.default_rng(SEED), time.monotonic()
    for step in range(1, arguments.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, step / 50) * (1 - step / (arguments.steps + 1))
        chosen = np.sort(rng.integers(0, learned, BATCH))
        batch = squares(pixels[chosen]).permute(0, 3, 1, 2) / 127.5 - 1
        loss = F.binary_cross_entropy_with_logits(tagger(batch), wanted[chosen].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"{step} steps, {time.monotonic() - began:.0f} s: loss {loss.item():.4f}", flush=True)
    whole = Interface(tagger).eval()
    found = scores_of(whole, pixels[learned:])
    card = {
        "what": "a small tagger in the interface of the WD taggers, trained on drawings of this folder",
        "frames": learned,
        "held out": NUM_HELD_OUT,
        "steps": arguments.steps,
        "seed": SEED,
        "minutes": round((time.monotonic() - began) / 60, 1),
        **card_of(found[:, 1:], wanted[learned:]),
    }
    folder = WORK / "tagger"
    folder.mkdir(exist_ok=True)
    batch_axis = {0: torch.export.Dim("batch")}
    torch.onnx.export(
        whole,
        (torch.zeros(2, SIZE_PX, SIZE_PX, 3),),
        folder / "model.onnx",
        input_names=["input"],
        output_names=["output"],
        dynamic_shapes=(batch_axis,),
        external_data=False,
    )
    strip(folder / "model.onnx")
    with (folder / "selected_tags.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerow([0, "general", RATING, arguments.frames])
        for place, tag in enumerate(TAGS):
            writer.writerow([place + 1, tag.replace(" ", "_"), GENERAL, int(wanted[:, place].sum())])
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({name: one for name, one in card.items() if name != "by tag"}, indent=2))


if __name__ == "__main__":
    main()
