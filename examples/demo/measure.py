"""What a model of the demo learned, as the judge sees it: signatures by trigger word, and what stays without one.

A signature is right when hair colour, hair shape and outfit all are. Prompts, noise and seeds are always the same, so
two models differ by what they learned alone.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from characters import BACKGROUNDS, CAST, EXPRESSIONS, Scene, random_scene, tags_of
from fields import value_of
from judge import Judge, look_at
from PIL import Image

from trainers.adapters.merging import AdapterFile
from trainers.models import Models, load_models
from trainers.prompts import Prompt
from trainers.samples import sample_images

SIGNATURE = ("hair_color", "hair_shape", "outfit")
TRIGGER_SEED, PLAIN_SEED = 70, 71
STEPS, GUIDANCE, SAMPLER = 16, 4.0, "dpmsolver++"


def trigger_prompts(each: int) -> list[tuple[str, Prompt]]:
    """Prompts of a name and of nothing that belongs to its signature: [(name, prompt)], `each` a character."""
    prompts = []
    for place, name in enumerate(CAST):
        for number in range(each):
            rng = random.Random(TRIGGER_SEED + 1000 * place + number)
            framing = rng.choice(("close-up", "upper body", "upper body", "cowboy shot"))
            tags = [name, "1girl", "solo", framing, rng.choice(BACKGROUNDS), rng.choice(EXPRESSIONS[:2])]
            prompts.append((name, _prompt(", ".join(tags), rng.getrandbits(31))))
    return prompts


def plain_prompts(count: int) -> list[tuple[Scene, Prompt]]:
    """Prompts of random characters by their tags, without a name: [(what is asked for, prompt)]."""
    prompts = []
    for number in range(count):
        scene = random_scene(np.random.default_rng((PLAIN_SEED, number)))
        prompts.append((scene, _prompt(", ".join(tags_of(scene)), number)))
    return prompts


def _prompt(text: str, seed: int) -> Prompt:
    return Prompt(
        text=text, seed=seed, width_px=64, height_px=64, steps=STEPS, guidance=GUIDANCE, sampler=SAMPLER
    )


@contextmanager
def trained(base: Path, kind: str, file: Path) -> Iterator[Models]:
    """The model of a file: a checkpoint by itself (kind "full"), an adapter added to its base."""
    models = load_models(str(file if kind == "full" else base))
    if kind == "full":
        yield models
    else:
        with AdapterFile.read(file).merged(models.unet, models.text_encoder, 1.0):
            yield models


def draw(models: Models, prompts: Sequence[Prompt]) -> list[Image.Image]:
    """One picture a prompt, on the CPU."""
    return [image for _, image in sample_images(models, prompts, batch_size=32, device=torch.device("cpu"))]


def signature_rate(judge: Judge, names: Sequence[str], images: Sequence[Image.Image]) -> dict[str, float]:
    """Share of pictures with the right signature for each name, and over all as `all`."""
    rights: dict[str, list[bool]] = {}
    for name, seen in zip(names, look_at(judge, images), strict=True):
        right = tuple(seen[field] for field in SIGNATURE) == CAST[name].signature
        rights.setdefault(name, []).append(right)
    shares = {name: sum(one) / len(one) for name, one in rights.items()}
    everything = [right for one in rights.values() for right in one]
    return {**shares, "all": sum(everything) / len(everything)}


def following(judge: Judge, scenes: Sequence[Scene], images: Sequence[Image.Image]) -> dict[str, float]:
    """Share of right answers for each field of the signature."""
    seen = look_at(judge, images)
    return {
        field: sum(one[field] == value_of(scene, field) for one, scene in zip(seen, scenes, strict=True))
        / len(seen)
        for field in SIGNATURE
    }
