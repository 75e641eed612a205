"""Batches ready for the device, made a few ahead in a thread: pictures, captions and draws by position."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from trainers import draws
from trainers.caption_rules import draw_caption, draw_flip
from trainers.dataset import Example
from trainers.latents import LatentCache
from trainers.masks import MaskCache
from trainers.models import Models
from trainers.noises import batch_noise, input_noise
from trainers.timesteps import draw_timesteps
from trainers.train_settings import Settings
from trainers.visits import Visits

AHEAD = 4  # batches; each is a few MB


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch, on the CPU; latents may lie on the device already.

    Args:
        latents: scaled, fp32, [batch, channels, height, width].
        noise: standard normal, the same shape.
        timesteps: [batch], int64.
        token_ids: [batch, chunks, tokens of a chunk], int64.
        weights: what each picture's loss is multiplied by, [batch], fp32.
        captions: as drawn.
        input_noise: what is added in the place of `noise`, where that differs from what is asked for.
        mask: what each place counts, 0 to 1, [batch, 1, height, width].
        states: hidden states of the captions, [batch, tokens, width], where they are known already.
    """

    number: int
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    token_ids: Tensor
    weights: Tensor
    captions: tuple[str, ...]
    input_noise: Tensor | None = None
    mask: Tensor | None = None
    states: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the latents: one compiled graph each."""
        return tuple(self.latents.shape)


class Batches:
    """Every batch of a run by its number, a function of (settings, data, number)."""

    def __init__(
        self,
        settings: Settings,
        examples: Sequence[Example],
        visits: Visits,
        cache: LatentCache,
        models: Models,
        *,
        latents_on: torch.device,
        masks: MaskCache | None = None,
    ) -> None:
        self._masks = masks
        self._settings = settings
        self._examples = examples
        self._visits = visits
        self._cache = cache
        self._latents_on = latents_on
        self._tokenizer = models.tokenizer
        self._num_timesteps = models.diffusion.num_train_timesteps
        self._scaling_factor = models.scaling_factor
        self._shift_factor = models.shift_factor
        self._is_pinned = torch.cuda.is_available()
        self.making = threading.Lock()  # held while a batch is made, which asks things of the GPU

    def make(self, number: int) -> Batch:
        """The batch of a number, from 0."""
        with self.making:
            return self._make(number)

    def _make(self, number: int) -> Batch:
        seed = self._settings.seed
        visits = self._visits.batch(number)
        examples = [self._examples[visit.example] for visit in visits]
        captions = tuple(
            draw_caption(example, visit.visit, seed=seed)
            for example, visit in zip(examples, visits, strict=True)
        )
        flips = [
            draw_flip(example, visit.visit, seed=seed)
            for example, visit in zip(examples, visits, strict=True)
        ]
        mean, deviation = self._cache.gather(list(zip(examples, flips, strict=True)), self._latents_on)
        shape = tuple(mean.shape)
        fresh = _sent(draws.normal(shape, "latents", seed, number), mean.device)
        sampled = mean.float() + deviation.float() * fresh
        latents = (sampled - self._shift_factor) * self._scaling_factor
        noise = batch_noise(self._settings, latents, seed, number)
        batch = Batch(
            number,
            latents=latents,
            noise=noise,
            timesteps=draw_timesteps(self._settings, len(visits), self._num_timesteps, seed, number),
            token_ids=self._tokenizer(captions, max_tokens=self._settings.max_tokens),
            weights=torch.tensor([example.loss_scale for example in examples], dtype=torch.float32),
            captions=captions,
            input_noise=input_noise(self._settings, noise, seed, number),
            mask=self._masks.gather(list(zip(examples, flips, strict=True))) if self._masks else None,
        )
        return _pinned(batch) if self._is_pinned else batch

    def between(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches by number, the next few already in the making."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            yield from _ahead(pool, self.make, start, stop)


def _ahead(pool: ThreadPoolExecutor, make: Callable[[int], Batch], start: int, stop: int) -> Iterator[Batch]:
    waiting: deque[Future[Batch]] = deque()
    numbers = iter(range(start, stop))
    for number in numbers:
        waiting.append(pool.submit(make, number))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """On a device, without waiting for what it still has to do."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _pinned(batch: Batch) -> Batch:
    """In memory that a GPU copies from by itself."""
    names = [one.name for one in fields(batch) if isinstance(getattr(batch, one.name), Tensor)]
    tensors = {name: getattr(batch, name) for name in names}
    return replace(batch, **{name: one if one.is_cuda else one.pin_memory() for name, one in tensors.items()})
