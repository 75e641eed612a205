"""One run, from its settings to its files: what the loop is given, and what happens beside it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from pipeline import console
from pipeline.console import LOG
from pipeline.errors import InterruptedRunError, LockedError, PipelineError
from pipeline.files import format_bytes, write_atomic
from pipeline.interruption import Interruption, interruptible
from pipeline.made_folders import mark_made
from trainers.batches import Batches
from trainers.checkpoints import State, compare_conditions, load_state, save_state
from trainers.compiling import compiled
from trainers.ema import Ema
from trainers.environment import environment
from trainers.export import FileHashes
from trainers.latents import LatentCache
from trainers.loop import Run, train_loop
from trainers.memory_probe import choose_parts
from trainers.metadata import file_metadata, learning_rates, recipe
from trainers.methods import Method, make_method
from trainers.models import Models, load_models
from trainers.objectives import make_objective, trained_diffusion
from trainers.optimizers import make_optimizer, parse_arguments, traits_of
from trainers.parts import Parts, memory_said
from trainers.pivotal import PivotalMethod, attach_embeddings
from trainers.precision import Stepper
from trainers.prepared import Prepared
from trainers.run_caches import fill_latents, fill_masks, latents_on
from trainers.run_drawing import draw_samples
from trainers.run_folder import AVERAGE, RunFolder
from trainers.run_record import Best, Record, best_of, best_saved
from trainers.schedules import lr_schedule
from trainers.shown_weights import shown_weights
from trainers.single_steps import SingleStepper
from trainers.slow_steps import SlowSteps
from trainers.text_outputs import TextOutputs
from trainers.timesteps import write_timestep_chart
from trainers.train_settings import Settings
from trainers.validation import Validator, said


@dataclass(slots=True)
class Outcome:
    """What a run made."""

    steps: int
    made: list[tuple[Path, FileHashes | None]] = field(default_factory=list)
    smoothed_loss: float | None = None
    best: Best | None = None


def run_training(prepared: Prepared) -> Outcome:
    """Carry out what was prepared, from the start or from the newest state.

    Raises:
        SettingsError: the run was begun with other settings.
        InterruptedRunError: asked to stop; model and state are saved.
        NotFiniteError, DiskFullError, DeviceError: what was saved is whole.
    """
    folder = prepared.folder
    folder.prepare()
    with ExitStack() as stack:
        stack.enter_context(_locked(folder.state_folder))
        stack.enter_context(console.log_file(folder.log_path))
        interruption = stack.enter_context(interruptible())
        for mark in mark_made(folder.path, "train"):
            write_atomic(mark.path, mark.content)
        with memory_said(prepared.device, prepared.settings):
            return _Training(prepared, interruption).run()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / "lock", timeout=0.2)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(
            f"another celforge is training in {folder.parent}", hint="wait for it, or give another --name"
        ) from None
    try:
        yield
    finally:
        lock.release()


class _Training:
    """The parts of a run that the loop does not see; `after_step` and `measured` are its events."""

    def __init__(self, prepared: Prepared, interruption: Interruption) -> None:
        self.prepared = prepared
        self.settings: Settings = prepared.settings
        self.folder = prepared.folder
        self._interruption = interruption
        self._outcome = Outcome(prepared.total_steps)
        self._saved_step = -1
        self._validator: Validator | None = None
        self._slow_steps = SlowSteps()

    def run(self) -> Outcome:
        """Load, cache, resume, train, save."""
        settings, prepared = self.settings, self.prepared
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self.models: Models = load_models(
            settings.base, vae=settings.vae, state_folder=prepared.project.state_folder
        )
        self.models.diffusion = trained_diffusion(settings, self.models.diffusion)
        vectors = attach_embeddings(prepared.embeddings, self.models, settings)
        cache = fill_latents(prepared, self.models, self._interruption)
        self.masks = fill_masks(prepared, self.models, self._interruption)
        self.visits = prepared.visits()
        self.method: Method = make_method(settings, self.models, prepared.device, prepared.precision)
        if vectors is not None:
            self.method = PivotalMethod(self.method, vectors, settings, prepared.device)
        self.stepper = self._stepper()
        self.average = self._average()
        start = self._resume()
        if start >= prepared.total_steps:
            LOG.info("%s has all its %s steps already", self.folder.path, f"{start:,}")
            self._outcome.made = [(self.folder.model_path(), None)]
            self._outcome.best = best_of(self.folder)
            return self._outcome
        self.folder.write_settings(
            {**prepared.as_json(), "environment": environment(prepared.device, prepared.precision)}
        )
        write_timestep_chart(self.folder.path / "timesteps.svg", settings, self.models.diffusion)
        self.metrics = Record(self.folder, resumed_step=start, tensorboard=settings.tensorboard)
        try:
            with memory_said(prepared.device, settings):
                self._train(start, cache)
            self.metrics.write_page("done")
        except PipelineError as error:
            self.metrics.write_page("stopped", ended=str(error))
            raise
        finally:
            self.metrics.close()
        self._outcome.smoothed_loss = self.metrics.smoothed_loss
        self._outcome.best = best_of(self.folder)
        return self._outcome

    def _stepper(self) -> Stepper:
        settings, prepared = self.settings, self.prepared
        unet_rate, text_rate = learning_rates(settings)
        groups = self.method.parameter_groups(
            {"unet": unet_rate, "text_encoder": text_rate},
            by_matrix=traits_of(settings.optimizer).sees_matrices,
        )
        arguments = {"weight_decay": settings.weight_decay} | parse_arguments(settings.optimizer_arg)
        if settings.kind == "full" and settings.steps_singly:
            stepper: Stepper = SingleStepper(
                groups,
                lambda one: make_optimizer(settings.optimizer, one, arguments),
                prepared.device,
                max_grad_norm=settings.max_grad_norm,
                is_fused=settings.fused_backward,
                seed=settings.seed,
                held=arguments.keys(),
            )
            self.learning_rates = [float(group["lr"]) for group in stepper.optimizer.param_groups]
            return stepper
        optimizer = make_optimizer(settings.optimizer, groups, arguments)
        self.learning_rates = [float(group["lr"]) for group in optimizer.param_groups]
        return Stepper(
            optimizer,
            self.method.parameters(),
            prepared.device,
            prepared.precision,
            settings.max_grad_norm,
            held=arguments.keys(),
        )

    def _average(self) -> Ema | None:
        settings = self.settings
        if not settings.ema:
            return None
        device = torch.device("cpu") if settings.ema_device == "cpu" else None
        return Ema(self.method.tensors(), decay=settings.ema, every=settings.ema_every, device=device)

    def _resume(self) -> int:
        """Take the newest state back. Returns: steps that are done."""
        states = self.folder.states()
        if not states:
            return 0
        step, path = states[-1]
        state = load_state(path)
        for sentence in compare_conditions(
            {**recipe(Settings()), **state.conditions},  # settings that came later had their default
            self._conditions(),
            accept_changes=self.settings.accept_changes,
        ):
            LOG.warning("%s, from step %s on", sentence, f"{step:,}")
        self.method.load(state.tensors)
        self.stepper.load_state_dict(dict(state.stepper))
        if self.average is not None:
            self.average.load(state.averages or state.tensors)
        LOG.info("going on from step %s of %s", f"{step:,}", f"{self.prepared.total_steps:,}")
        self._saved_step = step
        return step

    def _conditions(self) -> dict[str, Any]:
        return {
            **recipe(self.settings),
            "precision": self.prepared.precision,
            "base_sha256": self.models.source.sha256,
            "vae_sha256": self.models.source.vae_sha256,
            **self.prepared.data_digests(),
            **({"embeddings": self.prepared.embeddings.identity} if self.prepared.embeddings else {}),
            **({"masks": self.masks.digest(self.prepared.data.examples)} if self.masks else {}),
        }

    def _train(self, start: int, cache: LatentCache) -> None:
        settings, prepared = self.settings, self.prepared
        unet: Any = self.models.unet
        texts = TextOutputs(
            self.models,
            settings,
            prepared.device,
            is_learning=settings.asks_text_encoder,
            captions_vary=prepared.captions_vary,
        )
        run = Run(
            models=self.models,
            method=self.method,
            stepper=self.stepper,
            batches=Batches(
                settings,
                prepared.data.examples,
                self.visits,
                cache,
                self.models,
                latents_on=latents_on(prepared, self.models, cache),
                masks=self.masks,
            ),
            texts=texts,
            objective=make_objective(settings, self.models.diffusion, prepared.device),
            lr_schedule=lr_schedule(
                settings.lr_schedule,
                prepared.total_steps,
                warmup=settings.warmup,
                decay_ratio=settings.decay_ratio,
            ),
            learning_rates=self.learning_rates,
            device=prepared.device,
            precision=prepared.precision,
            accumulation=settings.accumulation,
            log_every=settings.log_every,
            unet=compiled(unet) if settings.compile else unet,
            parts=Parts(settings.micro_batch_size, is_fixed=settings.fused_backward),
            replays=settings.cuda_graphs,
            stops=list(self._stops(texts)),
        )
        if prepared.held_out is not None:
            self._validator = Validator(settings, prepared.held_out, cache)
        self._run = run
        if settings.auto_batch:
            choose_parts(run, prepared)
        self._parts = run.parts
        if start == 0 and settings.sample_at_start:
            self._draw(0)
        if self._is_validated(start) and not any(
            line["step"] == start and "validation_loss" in line for line in self.metrics.kept
        ):
            self._validate(start)
        self.metrics.write_page("running")
        with console.progress(settings.run_name, prepared.total_steps, "step") as self.bar:
            self.bar.advance(start)
            train_loop(run, start, prepared.total_steps, self)
        self._save_models(None)
        self._save_state(prepared.total_steps)

    def _stops(self, texts: TextOutputs) -> Iterator[tuple[int, Callable[[], None]]]:
        """What learns no more from a step on; then what is said of a caption is remembered."""
        prepared = self.prepared
        if prepared.text_encoder_until is not None:
            yield prepared.text_encoder_until, self.method.freeze_text_encoder
        if prepared.embeddings_until is not None:
            assert isinstance(self.method, PivotalMethod)
            yield prepared.embeddings_until, self.method.freeze_embeddings
        if prepared.texts_until is not None:
            yield prepared.texts_until, texts.freeze

    # Events of the loop

    def measured(self, step: int, values: dict[str, Any]) -> None:
        """Write a line of metrics, and say it beside the bar."""
        share = self.prepared.share_of_bound(values["images_per_s"])
        if share is not None:
            values = {**values, "share_of_bound": share}
        self.metrics.write(step, {**values, "epoch": self._epoch(step)})
        loss = self.metrics.smoothed_loss or 0.0
        rate = values.get("effective_learning_rate", values["learning_rate"])
        text = f"loss {loss:.4f}  lr {rate:.2e}  {values['images_per_s']:.1f} img/s"
        if share is not None:
            text += f" ({share:.0%} of the bound)"
        if "memory_bytes" in values:
            text += f"  {format_bytes(values['memory_bytes'])}"
        if values.get("skipped_steps"):
            text += f"  {values['skipped_steps']} steps skipped"
        self.bar.say(text)
        slow = self._slow_steps.measured(
            values["images_per_s"],
            device=self.prepared.device.type,
            images_at_once=self._parts.size or self.settings.batch_size,
        )
        if slow:
            LOG.warning("step %s: %s", f"{step:,}", slow)

    def after_step(self, step: int) -> None:
        """Save and draw when it is due; stop when asked.

        Raises:
            InterruptedRunError: asked to stop.
        """
        settings, is_last = self.settings, step == self.prepared.total_steps
        if self.average is not None:
            self.average.update(self.method.tensors(), step)
        self.bar.advance()
        if self._interruption.is_asked and not is_last:
            self._save_models(step)
            self._save_state(step)
            raise InterruptedRunError(
                f"interrupted after step {step:,}; model and state are saved",
                hint="run the same command again to go on",
            )
        if self._is_validated(step):
            self._validate(step)
        if not is_last and _is_due(step, settings.save_every):
            self._save_models(step)
        if not is_last and _is_due(step, settings.state_every or settings.save_every):
            self._save_state(step)
        if is_last or _is_due(step, settings.sample_every):
            self._draw(step)
        if self._saved_step == step or _is_due(step, settings.sample_every) or self._is_validated(step):
            self.metrics.write_page("running")

    def _is_validated(self, step: int) -> bool:
        settings, ends = self.settings, (0, self.prepared.total_steps)
        is_due = _is_due(step, settings.validation_every) or _is_due(step, settings.save_every)
        return self._validator is not None and (is_due or step in ends)

    def _validate(self, step: int) -> None:
        assert self._validator is not None
        average = self.average if self.settings.ema_validation else None
        with shown_weights(self.method, self.stepper.optimizer, average):
            line = self._validator.measure(self._run, should_stop=lambda: self._interruption.is_asked)
        if line is not None:
            if average is not None:
                line["validated"] = "moving average"
            LOG.info("step %s: %s", f"{step:,}", said(line))
            self.metrics.write(step, line)

    # Files

    def _save_models(self, step: int | None) -> None:
        metadata = file_metadata(
            self.settings,
            self.models,
            self.prepared.data.examples,
            step=self.prepared.total_steps if step is None else step,
            total_steps=self.prepared.total_steps,
            batches_per_epoch=self.visits.batches_per_epoch,
            precision=self.prepared.precision,
        )
        is_beside = self.settings.ema_save == "beside"
        if self.average is None or is_beside:
            with shown_weights(self.method, self.stepper.optimizer, None):
                self._save_model(self.folder, step, metadata)
        if self.average is not None:
            folder = replace(self.folder, suffix=AVERAGE) if is_beside else self.folder
            with shown_weights(self.method, self.stepper.optimizer, self.average):
                self._save_model(folder, step, {**metadata, "celforge.average": f"ema {self.settings.ema:g}"})
        if step is not None:
            keep = self.settings.keep_last
            self.folder.forget_old_models(keep, step, best_saved(self.folder) if keep else None)

    def _save_model(self, folder: RunFolder, step: int | None, metadata: Mapping[str, str]) -> None:
        for path, hashes in self.method.save(folder, step, metadata):
            self._outcome.made.append((path, hashes))
            known = f" (AutoV2 {hashes.auto_v2}, AutoV3 {hashes.auto_v3})" if hashes else ""
            LOG.info("saved %s%s", path.name, known)

    def _save_state(self, step: int) -> None:
        if step == self._saved_step:
            return
        averages = self.average.tensors if self.average is not None else {}
        state = State(step, self.method.tensors(), self.stepper.state_dict(), self._conditions(), averages)
        save_state(self.folder.state_path(step), state)
        self.folder.forget_old_states()
        self._saved_step = step

    def _draw(self, step: int) -> None:
        average = self.average if self.settings.ema_samples else None
        with shown_weights(self.method, self.stepper.optimizer, average):
            draw_samples(
                self.prepared,
                self.models,
                step,
                is_average=average is not None,
                should_stop=lambda: self._interruption.is_asked,
            )

    def _epoch(self, step: int) -> float:
        return round(step * self.settings.accumulation / max(1, self.visits.batches_per_epoch), 3)


def _is_due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def hashes_of(made: list[tuple[Path, FileHashes | None]]) -> Mapping[str, Mapping[str, str]]:
    """{file: its hashes}, for the report."""
    return {
        path.name: {"AutoV2": one.auto_v2, "AutoV3": one.auto_v3, "sha256": one.sha256}
        for path, one in made
        if one is not None
    }
