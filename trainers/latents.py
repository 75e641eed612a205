"""The latent cache: what the VAE makes of each picture, worked out once and shared by all runs of a project.

Kept are mean and standard deviation, so that every visit draws latents of its own: kohya's caches freeze one
draw. A mirrored picture is encoded as such, because a VAE does not commute with mirroring. A picture is found
by content, bucket, crop and mirroring within the shards of one VAE, dtype and version of the recipe; whatever
changes one of them misses, and is encoded again. Slots are believed only after their checksum was right.
"""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.console import LOG
from pipeline.errors import DeviceError, PipelineError
from pipeline.images import Pixels, read_image
from pipeline.layouts.buckets import Bucket
from pipeline.report import Failure
from pipeline.workers import Failed, run_in_workers
from trainers.crops import RECIPE, cut
from trainers.dataset import Example
from trainers.latent_shards import DTYPES, KEY_BYTES, Head, Shard, ShardWriter, open_shard

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

BATCHES_IN_HAND = 4  # encoded batches that wait for the disk


class ChangedPictureError(PipelineError):
    """A picture is not the one that was read when the run began."""

    reason = "changed while it was read"


def key_of(example: Example, flip: bool) -> bytes:
    """Where a picture's latents lie within the shards of one VAE, dtype and recipe."""
    left, top = example.crop
    text = f"{example.content} {example.bucket} {left},{top} {int(flip)}"
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()


def flips_of(example: Example) -> tuple[bool, ...]:
    """The variants that training may ask for."""
    if example.flip_p <= 0:
        return (False,)
    return (True,) if example.flip_p >= 1 else (False, True)


def size_bytes(examples: Sequence[Example], *, latent_factor: int, channels: int, dtype: torch.dtype) -> int:
    """What the latents of a data set take on the disk, or in the GPU's memory when they are preloaded."""
    distinct = {(key_of(one, flip), one.bucket.area_px) for one in examples for flip in flips_of(one)}
    values = sum(2 * channels * (area_px // latent_factor**2) for _key, area_px in distinct)
    return values * dtype.itemsize


@dataclass(slots=True)
class _Work:
    """One content to encode, and all pictures that show it the same way."""

    example: Example
    flips: tuple[bool, ...]
    others: list[Example] = field(default_factory=list)

    @property
    def all(self) -> list[Example]:
        return [self.example, *self.others]


class LatentCache:
    """Latents of one VAE in one dtype. Made by `open`, made complete by `fill`, asked by `gather`."""

    def __init__(self, folder: Path, vae_identity: str, dtype_name: str) -> None:
        self.folder = folder
        self.foreign: list[Path] = []  # index files there that are not ours to read
        self._vae = vae_identity
        self._dtype_name = dtype_name
        self._shards: list[Shard] = []
        self._places: dict[bytes, tuple[int, int]] = {}  # of checked slots: shard, slot
        self._loaded: dict[tuple[int, ...], Tensor] = {}  # by shape of a slot, on a device
        self._rows: dict[bytes, int] = {}  # in `_loaded`

    @classmethod
    def open(cls, folder: Path, *, vae_identity: str, dtype: torch.dtype) -> "LatentCache":
        """The cache below a folder; nothing is read yet.

        Args:
            folder: shared by all VAEs, such as `.celforge/cache/latents`.
            vae_identity: sha256 of the VAE's weights.
            dtype: float32, float16 or bfloat16.
        """
        name = next(name for name, one in DTYPES.items() if one == dtype)
        kind = hashlib.sha256(f"{vae_identity} {name} {RECIPE}".encode()).hexdigest()[:16]
        return cls(folder / kind, vae_identity, name)

    def missing(self, examples: Sequence[Example], *, workers: int = 1) -> list[Example]:
        """Pictures that have no sound latents yet; those that have are known from now on."""
        self._look(examples, workers)
        return [one for one in examples if self._missing_flips(one)]

    def fill(
        self,
        examples: Sequence[Example],
        vae: "AutoencoderKL",
        *,
        device: torch.device | str,
        batch_size: int = 8,
        workers: int = 1,
        on_done: Callable[[], None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Failure]:
        """Encode what is missing; what is done is on the disk, whenever the run is killed.

        Batches are padded to one size, so that what a picture becomes does not depend on its neighbours.

        Args:
            vae: in the dtype to encode in; it is moved to `device`.
            workers: threads that decode ahead of the VAE.
            on_done: called once for each of `missing(examples)`.
            should_stop: asked between pictures.

        Returns: pictures that could not be read or encoded.

        Raises:
            DiskFullError: no room; what was written before is whole.
            DeviceError: not enough memory on the device.
        """
        work = self._work(self.missing(examples, workers=workers))
        if not work:
            return []
        encoding: Any = vae
        encoding.to(device).eval()
        failures: list[Failure] = []
        with _Writer(self.folder, self._head, failures) as writer, torch.no_grad():
            for bucket, members in groupby(work, key=lambda one: one.example.bucket):
                encoder = _Encoder(encoding, bucket, batch_size, writer, on_done)
                for one, pixels in run_in_workers(_decode, list(members), workers, should_stop=should_stop):
                    if isinstance(pixels, Failed):
                        failures += [
                            Failure(str(each.path), pixels.reason, pixels.detail) for each in one.all
                        ]
                        for _ in one.all:
                            on_done()
                    else:
                        encoder.add(one, pixels)
                encoder.flush()
        self._look(examples, workers)
        return failures

    def gather(
        self, examples_and_flips: Sequence[tuple[Example, bool]], device: torch.device | str
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of some pictures of one bucket, unscaled: each [n, channels, h, w].

        Raises:
            KeyError: the latents of a picture are not there: `fill` failed on it, or was not called.
        """
        keys = [key_of(example, flip) for example, flip in examples_and_flips]
        if all(key in self._rows for key in keys):
            shard, _slot = self._places[keys[0]]
            whole = self._loaded[self._shards[shard].head.shape]
            rows = torch.tensor([self._rows[key] for key in keys])
            if whole.is_cuda:
                rows = rows.pin_memory()
            found = whole.index_select(0, rows.to(whole.device, non_blocking=True)).to(device)
        else:
            places = [
                self._place_of(key, one) for key, (one, _) in zip(keys, examples_and_flips, strict=True)
            ]
            found = torch.stack([self._shards[shard].slots[slot] for shard, slot in places])
            if torch.device(device).type == "cuda":
                found = found.pin_memory()
            found = found.to(device, non_blocking=True)
        return found[:, 0], found[:, 1]

    def preload(self, examples: Sequence[Example], device: torch.device | str) -> int:
        """Copy the latents of a data set to a device, where `gather` then finds them.

        Returns: how many bytes they take there.
        """
        wanted = dict.fromkeys(key_of(one, flip) for one in examples for flip in flips_of(one))
        by_shape: dict[tuple[int, ...], list[bytes]] = {}
        for key in wanted:
            if key in self._places:
                by_shape.setdefault(self._shards[self._places[key][0]].head.shape, []).append(key)
        self._loaded, self._rows = {}, {}
        for shape, keys in by_shape.items():
            whole = torch.empty((len(keys), *shape), dtype=DTYPES[self._dtype_name], device=device)
            for row, key in enumerate(keys):
                shard, slot = self._places[key]
                whole[row].copy_(self._shards[shard].slots[slot])
                self._rows[key] = row
            self._loaded[shape] = whole
        return sum(whole.nbytes for whole in self._loaded.values())

    def _place_of(self, key: bytes, example: Example) -> tuple[int, int]:
        if key not in self._places:
            raise KeyError(f"there are no latents of {example.path}")
        return self._places[key]

    def _head(self, shape: tuple[int, ...]) -> Head:
        return Head(self._vae, RECIPE, self._dtype_name, shape)

    def _missing_flips(self, example: Example) -> tuple[bool, ...]:
        return tuple(flip for flip in flips_of(example) if key_of(example, flip) not in self._places)

    def _work(self, examples: Sequence[Example]) -> list[_Work]:
        """What to encode, each content once, buckets one after the other."""
        found: dict[bytes, _Work] = {}
        for example in examples:
            key, flips = key_of(example, False), self._missing_flips(example)
            if key not in found:
                found[key] = _Work(example, flips)
            else:
                found[key].others.append(example)
                found[key].flips = tuple(sorted({*found[key].flips, *flips}))
        return sorted(found.values(), key=lambda one: one.example.bucket)

    def _look(self, examples: Sequence[Example], workers: int) -> None:
        """Read the index of shards that are new, and check the slots of some pictures."""
        known = {shard.path: shard.index_bytes for shard in self._shards}
        for path in sorted(self.folder.glob("*.index")):
            if path in self.foreign or known.get(path) == path.stat().st_size:
                continue
            shard = open_shard(path, vae=self._vae, recipe=RECIPE, dtype=self._dtype_name)
            if shard is None:
                self.foreign.append(path)
                LOG.warning("%s is not a shard of these latents, and is passed over", path)
            else:
                self._shards.append(shard)
        wanted = {key_of(one, flip) for one in examples for flip in flips_of(one)} - self._places.keys()
        if not wanted:
            return
        with ThreadPoolExecutor(workers) as pool:
            sound = pool.map(partial(_sound_slots, wanted), self._shards)
            for number, found in enumerate(sound):
                for key, slot in found:
                    self._places.setdefault(key, (number, slot))


def _sound_slots(wanted: set[bytes], shard: Shard) -> list[tuple[bytes, int]]:
    candidates = [(key, slot) for slot, key in enumerate(shard.keys) if key is not None and key in wanted]
    return [(key, slot) for key, slot in candidates if shard.is_sound(slot)]


def _decode(work: _Work) -> list[Pixels]:
    """The pixels of each variant, as large as the bucket: [bucket height, bucket width, 3]."""
    example = work.example
    data = example.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != example.content:
        raise ChangedPictureError(f"{example.path} was changed since the run began", hint="start it again")
    pixels = cut(read_image(data).pixels, example.bucket, example.crop)
    return [pixels[:, ::-1] if flip else pixels for flip in work.flips]


class _Encoder:
    """Collects pictures of one bucket to batches, and hands what the VAE makes of them to the writer."""

    def __init__(
        self, vae: Any, bucket: Bucket, batch_size: int, writer: "_Writer", on_done: Callable[[], None]
    ) -> None:
        self._vae = vae
        self._pixels = np.zeros((batch_size, bucket.height_px, bucket.width_px, 3), np.uint8)
        self._entries: list[tuple[bytes, _Work]] = []
        self._writer = writer
        self._on_done = on_done

    def add(self, work: _Work, variants: Iterable[Pixels]) -> None:
        for flip, pixels in zip(work.flips, variants, strict=True):
            self._pixels[len(self._entries)] = pixels
            self._entries.append((key_of(work.example, flip), work))
            if len(self._entries) == len(self._pixels):
                self.flush()
        for _ in work.all:
            self._on_done()

    def flush(self) -> None:
        """Encode what was added; the rest of the batch is black."""
        if not self._entries:
            return
        self._pixels[len(self._entries) :] = 0
        try:
            # [batch, 3, height, width], -1 to 1
            batch = torch.from_numpy(self._pixels.copy())
            if self._vae.device.type == "cuda":
                batch = batch.pin_memory()
            batch = batch.to(self._vae.device, non_blocking=True).permute(0, 3, 1, 2)
            batch = (batch.to(torch.float32) / 127.5 - 1).to(self._vae.dtype)
            posterior = self._vae.encode(batch).latent_dist
            slots = torch.stack([posterior.mean, posterior.std], dim=1)[: len(self._entries)]
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{self._vae.device} has too little memory to encode {len(self._pixels)} pictures at once",
                hint="take a smaller batch for the VAE",
            ) from error
        self._writer.put(self._entries, slots)
        self._entries = []


class _Writer:
    """A thread that brings encoded batches to the disk, a few behind the VAE."""

    def __init__(
        self, folder: Path, head: Callable[[tuple[int, ...]], Head], failures: list[Failure]
    ) -> None:
        self._folder = folder
        self._head = head
        self._failures = failures
        self._shards: dict[tuple[int, ...], ShardWriter] = {}
        self._queue: queue.Queue[tuple[list[tuple[bytes, _Work]], Tensor] | None]
        self._queue = queue.Queue(BATCHES_IN_HAND)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="latents")

    def __enter__(self) -> "_Writer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def put(self, entries: list[tuple[bytes, _Work]], slots: Tensor) -> None:
        """Hand over a batch, on any device: [n, 2, channels, height, width]."""
        self._raise()
        self._queue.put((entries, slots))

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                self._guarded(partial(self._write, *item))
        for shard in self._shards.values():
            self._guarded(shard.close)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Keep an error for the main thread, which waits on the queue meanwhile."""
        try:
            step()
        except (OSError, PipelineError, RuntimeError) as error:
            self._error = self._error or error

    def _write(self, entries: list[tuple[bytes, _Work]], slots: Tensor) -> None:
        head = self._head(tuple(slots.shape[1:]))
        slots = slots.to("cpu", DTYPES[head.dtype])
        is_finite = slots.flatten(1).isfinite().all(dim=1)
        for (_key, work), is_sound in zip(entries, is_finite.tolist(), strict=True):
            if not is_sound:
                text = "the VAE gives NaN or infinite latents; encode in float32, or take another --vae"
                self._failures += [Failure(str(one.path), "NaN latents", text) for one in work.all]
        kept = [key for (key, _work), is_sound in zip(entries, is_finite.tolist(), strict=True) if is_sound]
        if not kept:
            return
        shard = self._shards.get(head.shape)
        if shard is None or shard.is_full:
            if shard is not None:
                shard.close()
            shard = self._shards[head.shape] = ShardWriter(self._folder, head)
        shard.append(kept, slots[is_finite])
