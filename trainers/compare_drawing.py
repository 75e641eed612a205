"""Single pictures of a comparison: found on disk by their keys, drawn where they are missing."""

import functools
import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from pipeline import console
from pipeline.errors import DeviceError
from pipeline.files import write_atomic
from pipeline.interruption import Interruption
from pipeline.settings import Json
from trainers.adapters.merging import AdapterFile
from trainers.compare_plan import Cell, Column, Plan
from trainers.embedding_files import read_vectors
from trainers.embeddings import in_place
from trainers.export import read_hashes
from trainers.models import Models, load_models
from trainers.precision import DTYPES
from trainers.prompts import Prompt, to_words
from trainers.samples import PARAMETERS_KEY, png_bytes, png_parameters, sample_images

PICTURE_KEY = "celforge.compare"  # of a PNG's texts: what the picture was drawn from, as JSON


@dataclass(frozen=True, slots=True)
class Pictures:
    """The folder of single pictures."""

    folder: Path

    def path(self, key: str) -> Path:
        """Where a picture lies."""
        return self.folder / f"{key}.png"

    def read(self, key: str) -> Image.Image | None:
        """A picture, RGB; None where it is missing or damaged."""
        try:
            with Image.open(self.path(key)) as image:
                return image.convert("RGB")
        except (OSError, ValueError, SyntaxError):
            return None

    def missing(self, plan: Plan) -> list[Cell]:
        """What has to be drawn, in the order of drawing."""
        return [cell for key, cell in plan.pictures().items() if self.read(key) is None]


def draw(
    plan: Plan,
    cells: Sequence[Cell],
    pictures: Pictures,
    *,
    device: torch.device,
    state_folder: Path | None,
    interruption: Interruption,
) -> None:
    """Draw pictures and write each as soon as it is there.

    Raises:
        InterruptedRunError: asked to stop; what is drawn is on disk.
        DeviceError: too little memory.
        DiskFullError: no room.
    """
    pictures.folder.mkdir(parents=True, exist_ok=True)
    try:
        with console.progress("compare", len(cells), "picture") as bar:
            for sha256, of_base in groupby(cells, key=lambda cell: cell.column.base.sha256):
                todo = list(of_base)
                given = todo[0].column.base.given
                models = load_models(given, vae=plan.settings.vae, state_folder=state_folder)
                if models.source.sha256 != sha256:
                    raise DeviceError(f"{given} changed while it was read", hint="run the command again")
                models.diffusion = todo[0].column.base.facts.models.diffusion
                for module in (models.unet, models.text_encoder, models.vae):
                    nn.Module.to(module.requires_grad_(False), device)
                for path, prompt, image, cell in _drawn(plan, todo, models, device, pictures, interruption):
                    write_atomic(path, png_bytes(image, _texts(plan, cell, prompt)))
                    bar.advance()
                interruption.check()
                del models, module
                gc.collect()  # two checkpoints never lie in memory at once
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            "too little memory to draw", hint="--batch-size 1, or smaller pictures: --width-px, --height-px"
        ) from error


def _drawn(
    plan: Plan,
    cells: Sequence[Cell],
    models: Models,
    device: torch.device,
    pictures: Pictures,
    interruption: Interruption,
) -> Iterator[tuple[Path, Prompt, Image.Image, Cell]]:
    for column, of_column in groupby(cells, key=lambda cell: cell.column):
        todo = list(of_column)
        with ExitStack() as stack:
            embeddings = read_vectors(column.embeddings)
            if column.adapter is not None:
                adapter = AdapterFile.read(column.adapter.path)
                embeddings |= adapter.embeddings
                stack.enter_context(adapter.merged(models.unet, models.text_encoder, column.weight))
            words = stack.enter_context(in_place(models.text_encoder, embeddings))
            images = sample_images(
                replace(models, tokenizer=models.tokenizer.with_words(words)),
                [cell.prompt for cell in todo],
                clip_skip=plan.clip_skip,
                max_tokens=plan.max_tokens,
                device=device,
                dtype=DTYPES[plan.precision],
                batch_size=plan.settings.batch_size,
                should_stop=lambda: interruption.is_asked,
            )
            for cell, (prompt, image) in zip(todo, images, strict=False):
                yield pictures.path(cell.key), prompt, image, cell
        interruption.check()


def _texts(plan: Plan, cell: Cell, prompt: Prompt) -> Mapping[str, str]:
    base, model, weight = cell.column.identity
    words: dict[str, Json] = {"key": cell.key, "base": base, "model": model, "weight": weight}
    words["prompt"] = to_words(prompt)
    return {
        PARAMETERS_KEY: parameters(plan, cell.column, prompt),
        PICTURE_KEY: json.dumps(words, ensure_ascii=False),
    }


def parameters(plan: Plan, column: Column, prompt: Prompt, more: Mapping[str, object] | None = None) -> str:
    """The A1111 text of a picture; an adapter stands in the prompt as A1111 calls it.

    Args:
        more: facts to add at the end.
    """
    facts: dict[str, object] = {
        "Model": column.base.name,
        "Model hash": column.base.sha256[:10],
        "Clip skip": plan.clip_skip,
    }
    if column.adapter is not None:
        name = column.adapter.path.stem
        prompt = replace(prompt, text=f"{prompt.text} <lora:{name}:{column.weight:g}>")
        if column.adapter.path.suffix.lower() == ".safetensors":
            facts["Lora hashes"] = f"{name}: {_short_hash(column.adapter.path)}"
    if column.model is not None and column.model.step is not None and column.weight:
        facts["Trained steps"] = column.model.step
    return png_parameters(prompt, facts | dict(more or {}))


@functools.lru_cache(maxsize=4)
def _short_hash(path: Path) -> str:
    return read_hashes(path).auto_v3
