"""How many pictures the device computes at once: tried on real steps, and never up to the edge.

The size is doubled while what the next one needs, by the growth between the last two, stays below a share of
the memory that is there. On a CPU nothing may run out in the attempt: the system would end the process.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil
import torch

from pipeline.console import LOG
from pipeline.files import format_bytes
from trainers.loop import Run, batch_loss
from trainers.parts import cut, is_out_of_memory
from trainers.prepared import Prepared, available_bytes

MARGIN = 0.9  # of the memory, that a step may take: larger captions, samples, and what others use


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found.

    Args:
        size: pictures at once that were computed and fit.
        peak_bytes: what they took at most, the model included.
        room_for: pictures that would fit by the growth of what was measured.
    """

    size: int
    peak_bytes: int
    room_for: int


def probe(
    compute: Callable[[int], None],
    peak_bytes: Callable[[], int],
    *,
    most: int,
    limit_bytes: int,
    later_bytes: int = 0,
) -> Probe:
    """Find how many pictures fit.

    Args:
        compute: a step of so many pictures; raises as torch does where memory runs out.
        peak_bytes: the most that was taken up to now.
        most: pictures that are asked for.
        limit_bytes: memory there is.
        later_bytes: what the optimizer takes at its first step, and nothing shows before.
    """
    allowed = int(limit_bytes * MARGIN) - later_bytes
    sizes, peaks = [0], [peak_bytes()]
    size, fails_at = 1, 0
    while True:
        try:
            compute(size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fails_at = size
            break
        sizes.append(size)
        peaks.append(peak_bytes())
        size = min(2 * size, most)
        if size == sizes[-1] or peaks[-1] + _growth(sizes, peaks) * (size - sizes[-1]) > allowed:
            break
    room = sizes[-1]
    growth = _growth(sizes, peaks)
    if not fails_at and growth > 0:
        room = max(1, sizes[-1] + int((allowed - peaks[-1]) / growth))
    return Probe(max(1, min(room, most)), peaks[-1], room)


def _growth(sizes: list[int], peaks: list[int]) -> float:
    """Bytes of one more picture: by the last two sizes, or by all, whichever is more."""
    if len(sizes) < 2:
        return 0.0
    pairs = ((sizes[-1] - sizes[at], peaks[-1] - peaks[at]) for at in (0, -2))
    return max(0.0, *(peak / size for size, peak in pairs))


def choose_parts(run: Run, prepared: Prepared) -> None:
    """Set the size of a part by steps of the largest bucket; the weights stay as they are."""
    settings, device, models = prepared.settings, prepared.device, prepared.facts.models
    largest = max((one.bucket for one in prepared.data.examples), key=lambda bucket: bucket.area_px)
    first = run.batches.make(0)
    sides = (largest.height_px // models.latent_factor, largest.width_px // models.latent_factor)
    zeros = torch.zeros((settings.batch_size, models.latent_channels, *sides))
    widest = replace(first, latents=zeros, noise=zeros)

    def compute(size: int) -> None:
        try:
            run.stepper.backward(batch_loss(run, cut(widest, 0, size)))
        finally:
            run.method.zero_grad()

    found = probe(
        compute,
        peak_of(device),
        most=settings.batch_size,
        limit_bytes=limit_of(device, available_bytes(device)),
        later_bytes=prepared.optimizer_bytes,
    )
    if device.type == "cuda":
        torch.cuda.empty_cache()
    run.parts.size = found.size
    LOG.info(
        "batches of %s are computed in parts of %s, by steps of %s tried on %s (%s taken)",
        settings.batch_size,
        found.size,
        largest,
        device,
        format_bytes(found.peak_bytes),
    )
    if found.room_for >= 2 * settings.batch_size:
        LOG.info("there is room for batches of about %s: --batch-size", found.room_for)


def peak_of(device: torch.device) -> Callable[[], int]:
    """The most memory that this process has taken on a device."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: int(torch.cuda.max_memory_reserved(device))
    return _peak_of_process


def _peak_of_process() -> int:
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    scale = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * scale


def limit_of(device: torch.device, whole_bytes: int) -> int:
    """What this process may have of a device: what it has, and what is free.

    Args:
        whole_bytes: of the machine as far as this process may use it.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device))
    own = psutil.Process().memory_info().rss
    return int(min(whole_bytes, own + psutil.virtual_memory().available))
