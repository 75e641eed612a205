"""The training loop, read from top to bottom."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from trainers.batches import Batch, Batches
from trainers.methods import Method
from trainers.models import Models
from trainers.nan_guard import NotFiniteError, first_gradient, watching
from trainers.objectives import Objective
from trainers.parts import Parts, add_gradients
from trainers.precision import Precision, Stepper, autocast
from trainers.schedules import LrSchedule
from trainers.step_graphs import Gradients, StepGraphs
from trainers.text_outputs import TextOutputs

MOST_SKIPPED = 50  # steps of fp16 in one stretch of the log, before it is no accident any more


class Events(Protocol):
    """What happens beside the loop: files, bars, pictures."""

    def after_step(self, step: int) -> None:
        """A step is done: save, draw, stop, as it falls due."""

    def measured(self, step: int, values: dict[str, Any]) -> None:
        """What the last stretch of steps measured."""


@dataclass(slots=True)
class Run:
    """Everything that one run of the loop works with.

    Args:
        learning_rates: of each group of the optimizer, before the schedule.
        accumulation: batches of one step.
        replays: steps are recorded as CUDA graphs and replayed.
        stops: (step, what is done there): from that step on something learns no more.
    """

    models: Models
    method: Method
    stepper: Stepper
    batches: Batches
    texts: TextOutputs
    objective: Objective
    lr_schedule: LrSchedule
    learning_rates: list[float]
    device: torch.device
    precision: Precision
    accumulation: int
    log_every: int
    unet: Callable[..., Any]  # the UNet, perhaps compiled
    parts: Parts = field(default_factory=Parts)
    replays: bool = False
    stops: Sequence[tuple[int, Callable[[], None]]] = ()


@dataclass(slots=True)
class Stretch:
    """Losses and norms between two lines of the log, left on the device until then."""

    losses: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    images: int = 0
    started_s: float = field(default_factory=time.perf_counter)


def train_loop(run: Run, start: int, stop: int, events: Events) -> None:
    """Train from one step to another.

    Args:
        start: steps that are done already.
        stop: steps that shall be done.

    Raises:
        NotFiniteError: NaN or infinity; the weights are those of before.
        DeviceError: not even one picture fits into memory.
        InterruptedRunError: as `events.after_step` raises it.
    """
    stretch: Stretch | None = None
    gradients: Gradients = partial(add_gradient, run)
    graphs: StepGraphs | None = None
    if run.replays:
        graphs = StepGraphs(gradients, run.device, known_states=run.texts.known, making=run.batches.making)
        gradients = graphs
    batches = run.batches.between(start * run.accumulation, stop * run.accumulation)
    for step in range(start, stop):
        stretch = stretch or Stretch()

        # From here on the text encoder, or embeddings, may learn no more.
        for until, freeze in run.stops:
            if step == max(start, until):
                freeze()
                if graphs is not None:
                    graphs.forget()

        # The learning rate follows from the step alone.
        multiplier = run.lr_schedule.multiplier(step)
        for group, learning_rate in zip(run.stepper.optimizer.param_groups, run.learning_rates, strict=True):
            group["lr"] = learning_rate * multiplier

        # Gradients of one batch, or of several.
        of_step = [next(batches) for _ in range(run.accumulation)]
        stretch.losses += add_gradients(
            of_step,
            run.parts,
            gradients,
            run.method.zero_grad,
            step=step + 1,
        )
        stretch.images += sum(len(batch.captions) for batch in of_step)

        # The step; one with a bad gradient is left out.
        stretch.norms.append(run.stepper.step())
        run.method.end_step()

        # The log is the only place where the host waits for the device.
        if (step + 1) % run.log_every == 0 or step + 1 == stop:
            _close(run, stretch, step + 1, events)
            stretch = None
        events.after_step(step + 1)


def add_gradient(run: Run, batch: Batch, weight: float) -> Tensor:
    """Add the gradient of a batch's mean loss times a weight.

    Returns: the mean loss, on the device.
    """
    loss = _fresh_loss(run, batch)
    run.stepper.backward(loss * weight)
    return loss.detach()


def _fresh_loss(run: Run, batch: Batch) -> Tensor:
    """Mean loss of a batch or a part of one, with the draws of its adapter keyed by the batch's number."""
    run.method.begin_batch(batch.number)
    return batch_loss(run, batch)


def batch_loss(run: Run, batch: Batch) -> Tensor:
    """Mean loss of a batch, on the device, ready for `backward`."""
    return picture_losses(run, batch).mean()


def picture_losses(run: Run, batch: Batch) -> Tensor:
    """Loss of each picture of a batch, on the device: [batch]."""
    latents, noise, timesteps, weights = (
        one.to(run.device, non_blocking=True)
        for one in (batch.latents, batch.noise, batch.timesteps, batch.weights)
    )
    # [batch, channels, height, width]
    added = noise if batch.input_noise is None else batch.input_noise.to(run.device, non_blocking=True)
    noisy_latents = run.objective.noisy_latents(latents, added, timesteps)
    with autocast(run.device, run.precision):
        states = run.texts(batch) if batch.states is None else batch.states  # [batch, tokens, width]
        model_pred = run.unet(noisy_latents, timesteps, states, return_dict=False)[0]
    target = run.objective.target(latents, noise, timesteps)
    mask = None if batch.mask is None else batch.mask.to(run.device, non_blocking=True)
    return run.objective.losses(model_pred, target, timesteps, mask) * weights


def _close(run: Run, stretch: Stretch, step: int, events: Events) -> None:
    losses = torch.stack(stretch.losses).float().cpu()
    norms = torch.stack(stretch.norms).float().cpu()
    seconds = time.perf_counter() - stretch.started_s
    skipped = int((~torch.isfinite(norms)).sum())
    if skipped:
        _raise_if_broken(run, losses, skipped, step)
    finite = torch.isfinite(norms)
    values: dict[str, Any] = {
        "loss": float(losses[torch.isfinite(losses)].mean()) if bool(torch.isfinite(losses).any()) else 0.0,
        "grad_norm": float(norms[finite].mean()) if bool(finite.any()) else 0.0,
        "learning_rate": run.stepper.optimizer.param_groups[0]["lr"],
        "images_per_s": stretch.images / max(seconds, 1e-9),
    }
    values |= run.method.measurements()
    if run.stepper.effective_learning_rate is not None:
        values["effective_learning_rate"] = run.stepper.effective_learning_rate
    if skipped:
        values["skipped_steps"] = skipped
    if run.stepper.is_scaling:
        values["loss_scale"] = run.stepper.scale
    if run.device.type == "cuda":
        values["memory_bytes"] = torch.cuda.max_memory_allocated(run.device)
    events.measured(step, values)


def _raise_if_broken(run: Run, losses: Tensor, skipped: int, step: int) -> None:
    """Overflows of scaled fp16 gradients are part of the way; anything else names its layer and stops."""
    is_loss_bad = bool((~torch.isfinite(losses)).any())
    if run.stepper.is_scaling and not is_loss_bad and skipped < min(MOST_SKIPPED, len(losses)):
        return
    first = max(0, step - len(losses) // run.accumulation) * run.accumulation
    where = find_layer(run, (run.batches.make(number) for number in range(first, step * run.accumulation)))
    raise NotFiniteError(
        f"training met NaN or infinity before step {step}, {where}; "
        f"{skipped} steps were left out and the weights are whole",
        hint="lower --learning-rate, or give --precision bf16 or fp32; it goes on from the last state",
    )


def find_layer(run: Run, batches: Iterable[Batch]) -> str:
    """Compute batches again and say in words where the first number that is not finite appears."""
    parts = {"unet": run.models.unet, "text_encoder": run.models.text_encoder}
    for batch in batches:
        run.method.zero_grad()
        with watching(parts) as found:
            loss = _fresh_loss(run, batch)
        if found:
            return f"first in the output of {found[0]}"
        run.stepper.backward(loss)
        name = first_gradient(run.method.named_trainable())
        if name is not None:
            return f"first in the gradient of {name}"
    return "which did not show again when its batches were computed once more"
