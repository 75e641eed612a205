"""Masks of the loss: where a picture counts, cut as its latents are, kept on disk like them.

A mask is the picture's own alpha, or a file of a folder that is laid out like the data set: white counts,
black does not. It is found again by the content of the picture and of the mask, bucket and crop, so that
an edited mask never meets an old one. A picture without a mask counts whole.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.errors import InputError
from pipeline.images import Pixels, read_alpha, read_image
from pipeline.report import Failure
from pipeline.workers import Failed, run_in_workers
from trainers.crops import cut
from trainers.dataset import Example
from trainers.latent_shards import DTYPES, KEY_BYTES, Head, Shard, ShardWriter, open_shard
from trainers.latents import ChangedPictureError
from trainers.objective_settings import ObjectiveSettings

RECIPE = 1  # raised by every change of what a mask becomes
SUFFIXES = (".png", ".webp", ".bmp", ".jpg", ".jpeg")
_DTYPE = "float16"


def mask_files(settings: ObjectiveSettings, examples: Sequence[Example]) -> dict[Path, Path]:
    """The mask file of each picture that has one.

    Raises:
        InputError: no picture has one.
    """
    folder = settings.masks
    if settings.masked_loss != "files" or folder is None:
        return {}
    names: dict[Path, dict[str, str]] = {}
    found = {}
    for example in examples:
        place = folder / example.concept
        if place not in names:
            listed = sorted(os.listdir(place)) if place.is_dir() else []
            known = [Path(name) for name in listed if name.lower().endswith(SUFFIXES)]
            names[place] = {one.stem: one.name for one in known}
        name = names[place].get(Path(example.name).stem)
        if name is not None:
            found[example.path] = place / name
    if not found:
        first = examples[0]
        raise InputError(
            f"{folder} holds no mask of any picture",
            hint=f"lay it out like the data set: {folder / first.concept / Path(first.name).stem}.png",
        )
    return found


def mask_problems(settings: ObjectiveSettings, examples: Sequence[Example]) -> list[str]:
    """What is odd about masks, a sentence each. Raises as `mask_files`."""
    missing = len(examples) - len(mask_files(settings, examples))
    if settings.masked_loss != "files" or not missing:
        return []
    return [f"{missing:,} of {len(examples):,} pictures have no mask in {settings.masks} and count whole"]


@dataclass(frozen=True, slots=True)
class _Work:
    """One mask to make."""

    key: bytes
    example: Example
    mask: Path | None  # None takes alpha
    is_whole: bool
    latent_factor: int


@dataclass(slots=True)
class MaskCache:
    """Masks of a run in the size of latents. Made by `open_masks`, made complete by `fill`.

    Args:
        files: mask file by picture; empty where alpha is the mask.
        digests: sha256 of each mask file.
        least: what counts where the mask is black.
    """

    folder: Path
    files: Mapping[Path, Path]
    digests: Mapping[Path, str]
    latent_factor: int
    least: float
    _shards: list[Shard] = field(default_factory=list)
    _places: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def key_of(self, example: Example) -> bytes:
        """Where its mask lies: by content, and by the mask's."""
        mask = self.files.get(example.path)
        digest = self.digests[mask] if mask is not None else "whole" if self.files else "alpha"
        left, top = example.crop
        text = f"{example.content} {digest} {example.bucket} {left},{top} {self.latent_factor}"
        return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()

    def digest(self, examples: Sequence[Example]) -> str:
        """What all masks are, for states to compare."""
        keys = b"".join(self.key_of(example) for example in examples)
        return hashlib.sha256(keys + f"{self.least}".encode()).hexdigest()

    def fill(
        self,
        examples: Sequence[Example],
        *,
        workers: int,
        should_stop: Callable[[], bool] = lambda: False,
        on_done: Callable[[], None] = lambda: None,
    ) -> list[Failure]:
        """Make the masks that are not there yet; what is done is on the disk, whenever the run is killed.

        Returns: pictures whose mask cannot be read.
        """
        self._look(examples)
        wanted = {self.key_of(one): one for one in examples}
        work = [
            _Work(
                key,
                one,
                path := self.files.get(one.path),
                bool(self.files) and path is None,
                self.latent_factor,
            )
            for key, one in wanted.items()
            if key not in self._places
        ]
        failures: list[Failure] = []
        writers: dict[tuple[int, ...], ShardWriter] = {}
        try:
            for item, mask in run_in_workers(_make, work, workers, should_stop=should_stop):
                if isinstance(mask, Failed):
                    failures.append(Failure(str(item.example.path), mask.reason, mask.detail))
                else:
                    slot = torch.from_numpy(mask)[None].to(DTYPES[_DTYPE])  # [1, 1, height, width]
                    head = self._head(tuple(slot.shape))
                    writer = writers.get(head.shape)
                    if writer is None or writer.is_full:
                        if writer is not None:
                            writer.close()
                        writer = writers[head.shape] = ShardWriter(self.folder, head)
                    writer.append([item.key], slot[None])
                on_done()
        finally:
            for writer in writers.values():
                writer.close()
        self._look(examples)
        return failures

    def gather(self, examples_and_flips: Sequence[tuple[Example, bool]]) -> Tensor:
        """Masks of pictures of one bucket, 0 to 1: [n, 1, height, width], fp32, on the CPU."""
        found = []
        for example, flip in examples_and_flips:
            shard, slot = self._places[self.key_of(example)]
            mask = self._shards[shard].slots[slot][0].float()
            found.append(mask.flip(-1) if flip else mask)
        return torch.stack(found).clamp(min=self.least)

    def _head(self, shape: tuple[int, ...]) -> Head:
        return Head("masks", RECIPE, _DTYPE, shape)

    def _look(self, examples: Sequence[Example]) -> None:
        """Read the shards anew, and find the masks of some pictures among their sound slots."""
        opened = (
            open_shard(path, vae="masks", recipe=RECIPE, dtype=_DTYPE)
            for path in sorted(self.folder.glob("*.index"))
        )
        self._shards = [shard for shard in opened if shard is not None]
        wanted = {self.key_of(one) for one in examples}
        self._places = {
            key: (number, slot)
            for number, shard in enumerate(self._shards)
            for slot, key in enumerate(shard.keys)
            if key is not None and key in wanted and shard.is_sound(slot)
        }


def open_masks(
    settings: ObjectiveSettings,
    folder: Path,
    examples: Sequence[Example],
    *,
    latent_factor: int,
    workers: int,
) -> MaskCache | None:
    """The masks that settings ask for; None for none. Mask files are read once, to know their content.

    Args:
        folder: where masks are kept, such as `.celforge/cache/masks`.

    Raises:
        InputError: no picture has a mask.
    """
    if settings.masked_loss == "off":
        return None
    files = mask_files(settings, examples)
    with ThreadPoolExecutor(workers) as pool:
        digests = dict(zip(files.values(), pool.map(_digest, files.values()), strict=True))
    return MaskCache(folder, files, digests, latent_factor, settings.unmasked_weight)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _make(work: _Work) -> NDArray[np.float32]:
    """The mask of a picture as the mean over the pixels of each latent: [1, height, width], 0 to 1."""
    example = work.example
    bucket = example.bucket
    size = (bucket.height_px // work.latent_factor, bucket.width_px // work.latent_factor)
    grey = _grey(work)
    if grey is None:
        return np.ones((1, *size), np.float32)
    if grey.shape != (example.height_px, example.width_px):
        fitted = Image.fromarray(grey).resize((example.width_px, example.height_px), _SMOOTH)
        grey = np.asarray(fitted)
    window = cut(grey, bucket, example.crop, _SMOOTH).astype(np.float32) / 255
    blocks = window.reshape(size[0], work.latent_factor, size[1], work.latent_factor)
    means: NDArray[np.float32] = blocks.mean(axis=(1, 3))
    return means[None]


_SMOOTH = Image.Resampling.BILINEAR


def _grey(work: _Work) -> Pixels | None:
    """The mask in the picture's own pixels, or in those of its file: [height, width], 0 to 255."""
    if work.is_whole:
        return None
    if work.mask is not None:
        levels: Pixels = np.rint(read_image(work.mask).pixels.mean(axis=2)).astype(np.uint8)
        return levels
    data = work.example.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != work.example.content:
        raise ChangedPictureError(
            f"{work.example.path} was changed since the run began", hint="start it again"
        )
    return read_alpha(data)
