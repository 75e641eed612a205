"""What a run works out of its pictures once: latents, and masks of the loss; kept for all of a project."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from pipeline import console
from pipeline.interruption import Interruption
from trainers.latents import LatentCache, size_bytes
from trainers.masks import MaskCache, open_masks
from trainers.models import Models
from trainers.prepared import Prepared, available_bytes

CACHED_DTYPE = torch.float16  # of mean and deviation: rounded by less than the deviation itself
WAIT_S = 0.5  # for another run, before it is asked again whether to stop
LITTLE = 0.1  # of a GPU's memory, that latents may take


def fill_latents(prepared: Prepared, models: Models, interruption: Interruption) -> LatentCache:
    """Latents of every picture; those that cannot be read are left out of the run.

    Raises:
        InterruptedRunError: asked to stop; what is encoded is kept.
    """
    settings, vae = prepared.settings, models.vae
    workers = settings.workers or os.cpu_count() or 1
    cache = LatentCache.open(
        prepared.project.state_folder / "cache" / "latents",
        vae_identity=models.source.vae_sha256,
        dtype=CACHED_DTYPE,
    )
    with _alone(cache.folder, interruption):
        _fill(prepared, cache, vae, workers, interruption)
    vae.to("cpu")
    return cache


@contextmanager
def _alone(folder: Path, interruption: Interruption) -> Iterator[None]:
    """Of several runs that start together one encodes, and the others find what it made."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    while not lock.is_locked:
        interruption.check()
        with suppress(Timeout):
            lock.acquire(timeout=WAIT_S)
    try:
        yield
    finally:
        lock.release()


def _fill(prepared: Prepared, cache: LatentCache, vae: Any, workers: int, interruption: Interruption) -> None:
    settings = prepared.settings
    missing = len(cache.missing(prepared.encoded, workers=workers))
    if missing:
        with console.progress("latents", missing, "image") as bar:
            failures = cache.fill(
                prepared.encoded,
                vae,
                device=prepared.device,
                batch_size=settings.vae_batch_size,
                workers=workers,
                on_done=bar.advance,
                should_stop=lambda: interruption.is_asked,
            )
        interruption.check()
        prepared.leave_out(failures)


def fill_masks(prepared: Prepared, models: Models, interruption: Interruption) -> MaskCache | None:
    """Masks of every picture, if asked for; pictures whose mask cannot be read are left out.

    Raises:
        InterruptedRunError: asked to stop; what is read is kept.
    """
    settings, examples = prepared.settings, prepared.data.examples
    workers = settings.workers or os.cpu_count() or 1
    masks = open_masks(
        settings,
        prepared.project.state_folder / "cache" / "masks",
        examples,
        latent_factor=models.latent_factor,
        workers=workers,
    )
    if masks is not None:
        failures = masks.fill(examples, workers=workers, should_stop=lambda: interruption.is_asked)
        interruption.check()
        if failures:
            prepared.leave_out(failures)
    return masks


def latents_on(prepared: Prepared, models: Models, cache: LatentCache) -> torch.device:
    """Where latents are gathered: on the GPU when all of them take little of its memory."""
    device = prepared.device
    if device.type != "cuda":
        return torch.device("cpu")
    needed = size_bytes(
        prepared.data.examples,
        latent_factor=models.latent_factor,
        channels=models.latent_channels,
        dtype=CACHED_DTYPE,
    )
    if needed > LITTLE * available_bytes(device):
        return torch.device("cpu")
    cache.preload(prepared.data.examples, device)
    return device
