"""Work out a run before the GPU is asked, and say what is odd about it and how to mend that."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import DiskFullError, InputError, SettingsError
from pipeline.files import format_bytes
from pipeline.project import DATASET, Project
from pipeline.settings import Resolved
from trainers.balanced import balanced
from trainers.craft import craft_notes, refuse_senseless
from trainers.dataset import TrainingData
from trainers.embedding_plan import read_embeddings
from trainers.held_out import hold_out, missing_concepts
from trainers.masks import mask_problems
from trainers.models import BaseFacts, inspect_base
from trainers.objectives import objective_problems, trained_diffusion, trained_range
from trainers.optimizers import check_optimizer, parse_arguments
from trainers.precision import choose_device, choose_precision
from trainers.prepared import Prepared, available_bytes
from trainers.prompts import Prompt, read_prompts
from trainers.regularisation import read_data
from trainers.run_folder import RunFolder
from trainers.samples import sized
from trainers.sizes import model_sizes
from trainers.step_graphs import graphs_note, refuse_graphs
from trainers.train_settings import Settings, check_before, differences

SMALL_MODEL = 200_000_000  # numbers, of a model that a CPU can train


def prepare(resolved: Resolved[Settings], preset: Mapping[str, Any], project: Project) -> Prepared:
    """Read what there is, and work out the plan of a run. Nothing is written.

    Raises:
        InputError, SettingsError: no data, no base model, a model of another family, settings that do not go
            together.
        DiskFullError: the run's files would not fit.
        TooManyFailuresError: too many pictures cannot be read.
    """
    settings = resolved.settings
    check_before(settings)
    settings.check_memory()
    root = _data_path(settings, project)
    check_optimizer(settings.optimizer, parse_arguments(settings.optimizer_arg))
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    refuse_senseless(settings, precision)
    refuse_graphs(settings, device)
    name = settings.run_name
    folder = RunFolder(settings.out or _models_folder(project) / name, name)
    facts = inspect_base(settings.base, vae=settings.vae, state_folder=_state_folder(project))
    said = facts.models.diffusion
    facts.models.diffusion = trained_diffusion(settings, said)
    trained_range(settings, said.num_train_timesteps)  # refuses what the model has not
    prompts = _prompts(settings, facts)
    embeddings = read_embeddings(settings, facts.models)
    data = read_data(root, settings, count_tokens=facts.models.tokenizer.count)
    data, held_out = hold_out(data, settings, count_tokens=facts.models.tokenizer.count)
    data = balanced(data, settings)
    _refuse_odd_sizes(data, facts)
    embeddings = embeddings and embeddings.seen_in(data.examples)
    sizes = model_sizes(settings, facts, data.examples, precision, device.type, embeddings)
    prepared = Prepared(
        settings=settings,
        sources=resolved.sources,
        changed=differences(settings, preset),
        project=project,
        folder=folder,
        data=data,
        held_out=held_out,
        facts=facts,
        device=device,
        precision=precision,
        prompts=prompts,
        num_trainable=sizes.num_trainable,
        optimizer_bytes=sizes.optimizer_bytes,
        num_layers=sizes.num_layers,
        block_rows=sizes.block_rows,
        file_bytes=sizes.file_bytes,
        forecast=sizes.forecast,
        embeddings=embeddings,
        problems=[*facts.notes, *data.notes, *data.problems],
    )
    prepared.count_failures(data.unreadable)
    prepared.problems += _problems(prepared)
    prepared.problems += mask_problems(settings, data.examples)
    prepared.problems += objective_problems(settings, settings.base, said, facts.models.diffusion)
    prepared.problems += craft_notes(settings, prepared.total_steps, resolved.sources)
    _refuse_full_disk(prepared)
    return prepared


def _prompts(settings: Settings, facts: BaseFacts) -> list[Prompt]:
    """Those to draw, with the setting's guidance rescale where they do not say it; what could not be drawn is
    refused before the first step.
    """
    prompts = read_prompts(settings.prompts) if settings.prompts else []
    for prompt in prompts:
        sized(prompt, facts.models, seed=0)
    share = settings.guidance_rescale or None
    return [replace(one, guidance_rescale=share) if one.guidance_rescale is None else one for one in prompts]


def _models_folder(project: Project) -> Path:
    """models/ of a project; of the current folder where the data belong to none yet."""
    is_project = project.config_path is not None or project.state_folder.is_dir()
    return (project.root if is_project else Path.cwd()) / "models"


def _state_folder(project: Project) -> Path | None:
    """Where commits of hub files are noted, once the project has such a folder."""
    return project.state_folder if project.state_folder.is_dir() else None


def _data_path(settings: Settings, project: Project) -> Path:
    path = settings.data or project.root / DATASET
    if not path.exists():
        hint = "give your data set: --data FOLDER"
        if settings.data is None:
            hint += "; celforge arrange makes dataset/"
        raise InputError(f"there is no data set {path}", hint=hint)
    return path


def _refuse_odd_sizes(data: TrainingData, facts: BaseFacts) -> None:
    """See that every size is whole in latents."""
    factor = facts.models.latent_factor
    for size in sorted({one.bucket for one in data.examples}):
        if size.width_px % factor or size.height_px % factor:
            raise SettingsError(
                f"pictures would be cut to {size}, and a latent of this model is {factor} pixels wide",
                hint=f"write a bucket_step_px that is a multiple of {factor}; without buckets, a resolution",
            )


def _problems(prepared: Prepared) -> Iterator[str]:
    settings = prepared.settings
    there = available_bytes(prepared.device)
    if prepared.memory_bytes > there:
        yield (
            f"about {format_bytes(prepared.memory_bytes)} of memory are needed and {prepared.device} has "
            f"{format_bytes(there)}: give --micro-batch-size {max(1, settings.batch_size // 2)}, or "
            "--gradient-checkpointing"
        )
    if settings.micro_batch_size > settings.batch_size:
        yield f"micro_batch_size has no effect: a batch has {settings.batch_size} pictures"
    batches = prepared.repeats_sum / settings.batch_size
    for one in prepared.visits().small_buckets():
        yield (
            f"the bucket {one.bucket} fills a batch only every {float(one.epochs_per_batch):.1f} passes; its "
            "pictures wait for it and none is lost"
        )
    if batches < 1:
        size = settings.batch_size
        yield f"one pass shows {prepared.repeats_sum:.1f} pictures, less than a batch of {size}"
    if settings.warmup >= 1 and settings.warmup >= prepared.total_steps:
        yield f"the warmup of {settings.warmup:g} steps is as long as the run: lower --warmup"
    until = prepared.text_encoder_until
    if until is not None and until >= prepared.total_steps:
        yield (
            f"the text encoder learns to the end, as the run has no step {until:,}: leave out "
            "--text-encoder-until"
        )
    if prepared.embeddings is not None:
        yield from prepared.embeddings.problems
    until = prepared.embeddings_until
    if until is not None and until >= prepared.total_steps:
        yield f"the embeddings learn to the end: the run has no step {until:,}, leave --embedding-until out"
    if settings.kind != "full" and settings.linear_alpha == 0:
        yield "an alpha of 0 learns nothing: raise --linear-alpha"
    if prepared.held_out is not None and (missing := missing_concepts(prepared.data, prepared.held_out)):
        yield (
            f"no picture of {', '.join(missing[:10])} is held out, so validation says nothing of it: raise "
            "--validation-share, or name pictures by --validation-data"
        )
    is_zero_snr = prepared.facts.models.diffusion.is_zero_terminal_snr
    if is_zero_snr and any(one.guidance > 1 and not one.guidance_rescale for one in prepared.prompts):
        yield "guidance makes pictures of zero-terminal SNR too bright or dark: --guidance-rescale 0.7"
    if note := graphs_note(settings, prepared.gpu_step_s()):
        yield note
    if settings.prompts is None:
        yield "nothing is drawn on the way: give --prompts FILE to see it learn"
    if prepared.device.type == "cpu" and sum(prepared.facts.num_parameters.values()) > SMALL_MODEL:
        yield "training this model on a CPU takes minutes a step: see celforge doctor for the GPU"


def _refuse_full_disk(prepared: Prepared) -> None:
    place = prepared.folder.path
    while not place.exists():
        place = place.parent
    there = sum(path.stat().st_size for path in prepared.folder.path.rglob("*") if path.is_file())
    free, needed = shutil.disk_usage(place).free, prepared.disk_bytes() - there  # a run that goes on
    if needed > free:
        raise DiskFullError(
            f"the run would write {format_bytes(needed)} into {prepared.folder.path}, "
            f"and {format_bytes(free)} are free",
            hint="keep fewer step models: --keep-last 2, or save less often: --save-every",
        )
