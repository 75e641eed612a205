"""The loss of held-out pictures: always the same pictures, timesteps and noise, so that it moves only where
the model does.

Of each picture and each of K strata of timesteps one is taken, (k + u) T / K with u from 0 to 1 keyed by the
picture; T are the timesteps that are trained. Noise and the sample of its latents are keyed by it too. The
seed of a run says nothing here, so that runs can be compared. Captions are whole and unshuffled, nothing is
mirrored, no folder's loss scale counts. Random numbers, module modes and gradients of the training are left
as they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from trainers import draws
from trainers.batches import Batch
from trainers.caption_rules import plain_caption
from trainers.dataset import Example
from trainers.held_out import HeldOut, concepts_of
from trainers.latents import LatentCache, flips_of
from trainers.loop import Run, picture_losses
from trainers.objectives import trained_range
from trainers.samples import undisturbed
from trainers.train_settings import Settings

Slot = tuple[int, int]  # number of a picture, stratum of its timestep


class Validator:
    """Measures held-out pictures, and training pictures beside them."""

    def __init__(self, settings: Settings, held: HeldOut, cache: LatentCache) -> None:
        self._settings = settings
        self._held = held
        self._cache = cache
        self._examples = [*held.measured, *held.compared]

    def measure(self, run: Run, *, should_stop: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
        """A line of metrics; None when it was stopped.

        Returns: `validation_loss`, `validation_train_loss` where there are pictures to compare with, and
            `validation`, {concept: loss}.
        """
        strata = self._settings.validation_timesteps
        losses = torch.zeros(len(self._examples), strata, dtype=torch.float64)
        parts = (run.models.unet, run.models.text_encoder)
        with undisturbed(parts, run.device), torch.no_grad():
            for slots in self._batches():
                if should_stop():
                    return None
                found = picture_losses(run, self._batch(run, slots)).double().cpu()
                for (number, stratum), loss in zip(slots, found, strict=True):
                    losses[number, stratum] = loss
        return self._line(losses.mean(1).tolist())

    def _line(self, losses: Sequence[float]) -> dict[str, Any]:
        count = len(self._held.measured)
        measured, compared = losses[:count], losses[count:]
        by_concept: dict[str, list[float]] = {name: [] for name in self._held.concepts}
        for example, loss in zip(self._held.measured, measured, strict=True):
            for name in concepts_of(example):
                by_concept[name].append(loss)
        line: dict[str, Any] = {"validation_loss": _mean(measured)}
        if compared:
            line["validation_train_loss"] = _mean(compared)
        return {**line, "validation": {name: _mean(ones) for name, ones in by_concept.items()}}

    def _batches(self) -> Iterator[list[Slot]]:
        """All slots in batches of one bucket and of the size that is trained with.

        The last of a bucket is filled up with its own last slot: no new size, and the same numbers.
        """
        size = self._settings.batch_size
        by_bucket: dict[Any, list[Slot]] = {}
        for number, example in enumerate(self._examples):
            slots = by_bucket.setdefault(example.bucket, [])
            slots += [(number, stratum) for stratum in range(self._settings.validation_timesteps)]
        for slots in by_bucket.values():
            for at in range(0, len(slots), size):
                batch = slots[at : at + size]
                yield batch + batch[-1:] * (size - len(batch))

    def _batch(self, run: Run, slots: Sequence[Slot]) -> Batch:
        models = run.models
        examples = [self._examples[number] for number, _ in slots]
        mean, deviation = self._cache.gather([(one, flips_of(one)[0]) for one in examples], "cpu")
        shape = tuple(mean.shape[1:])
        fresh = torch.stack([draws.normal(shape, "validation latents", one.content) for one in examples])
        noise = [
            draws.normal(shape, "validation noise", one.content, stratum)
            for one, (_, stratum) in zip(examples, slots, strict=True)
        ]
        timesteps = [
            self._timestep(one, stratum, *trained_range(self._settings, models.diffusion.num_train_timesteps))
            for one, (_, stratum) in zip(examples, slots, strict=True)
        ]
        captions = tuple(plain_caption(one.caption) for one in examples)
        sampled = mean.float() + deviation.float() * fresh
        return Batch(
            -1,
            latents=(sampled - models.shift_factor) * models.scaling_factor,
            noise=torch.stack(noise),
            timesteps=torch.tensor(timesteps),
            token_ids=models.tokenizer(captions, max_tokens=self._settings.max_tokens),
            weights=torch.ones(len(slots)),
            captions=captions,
        )

    def _timestep(self, example: Example, stratum: int, first: int, end: int) -> int:
        place = draws.stream("validation timestep", example.content).random()
        return first + int((stratum + place) * (end - first) / self._settings.validation_timesteps)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def said(line: Mapping[str, Any]) -> str:
    """A line of validation, for the console."""
    text = f"validation loss {line['validation_loss']:.4f}"
    if "validated" in line:
        text += f" of the {line['validated']}"
    other = line.get("validation_train_loss")
    return text if other is None else f"{text} (training pictures {other:.4f})"
