"""How well a model of the demo follows tags: the judge looks at pictures of random captions.

python examples/demo/make/measure_base.py MODEL [--prompts 200] [--sheet FILE.png] [--card]
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
from characters import random_scene, tags_of
from drawn import WORK
from fields import FIELDS, is_seen, value_of
from judge import load_judge, look_at
from PIL import Image

from trainers.models import load_models
from trainers.prompts import Prompt
from trainers.samples import sample_images

SEED, JOINT = 5, ("hair_color", "hair_shape", "outfit")


def main() -> None:
    """Draw, judge, print shares of right answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--judge", type=Path, default=WORK / "judge.safetensors")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--card", action="store_true", help="keep the figures in scratch/base.json")
    arguments = parser.parse_args()
    scenes = [random_scene(np.random.default_rng((SEED, number))) for number in range(arguments.prompts)]
    prompts = []
    for number, scene in enumerate(scenes):
        tags = list(tags_of(scene))
        random.Random(number).shuffle(tags)
        prompts.append(
            Prompt(
                text=", ".join(tags),
                seed=number,
                width_px=64,
                height_px=64,
                steps=arguments.steps,
                guidance=arguments.guidance,
            )
        )
    models = load_models(arguments.model)
    images = [image for _, image in sample_images(models, prompts, batch_size=32, device=torch.device("cpu"))]
    seen = look_at(load_judge(arguments.judge), images)
    right = {
        field: [
            one[field] == value_of(scene, field)
            for one, scene in zip(seen, scenes, strict=True)
            if is_seen(scene, field)
        ]
        for field in FIELDS
    }
    shares = {field: sum(answers) / len(answers) for field, answers in right.items()}
    joint = [
        all(one[field] == value_of(scene, field) for field in JOINT)
        for one, scene in zip(seen, scenes, strict=True)
    ]
    shares["joint " + "+".join(JOINT)] = sum(joint) / len(joint)
    card = json.dumps(
        {"prompts": len(prompts), "right": {field: round(share, 3) for field, share in shares.items()}},
        indent=2,
    )
    print(card)
    if arguments.card:
        (WORK / "base.json").write_text(card + "\n", encoding="utf-8")
    if arguments.sheet:
        sheet = Image.new("RGB", (12 * 130, -(-len(images) // 12) * 130), "white")
        for number, image in enumerate(images):
            sheet.paste(
                image.resize((128, 128), Image.Resampling.BICUBIC), (number % 12 * 130, number // 12 * 130)
            )
        sheet.save(arguments.sheet)


if __name__ == "__main__":
    main()
