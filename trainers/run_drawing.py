"""Pictures of a run's prompts, drawn as the model draws them now."""

from collections.abc import Callable

import torch

from pipeline.console import LOG
from trainers.models import Models
from trainers.prepared import Prepared
from trainers.sample_sheet import SampleSheet
from trainers.samples import sample_images, save_sample


def draw_samples(
    prepared: Prepared,
    models: Models,
    step: int,
    *,
    is_average: bool,
    should_stop: Callable[[], bool],
) -> None:
    """Draw the prompts of a step and the sheet of all steps; what is there already is not drawn again.

    Too little memory for it is said, and never ends the training.

    Args:
        is_average: the weights are a moving average, which the files shall say.
        should_stop: asked before each step of the sampler.
    """
    folder, settings = prepared.folder, prepared.settings
    paths = [folder.sample_path(step, prompt.number) for prompt in prepared.prompts]
    if all(path.exists() for path in paths):
        return
    drawn = sample_images(
        models,
        prepared.prompts,
        clip_skip=settings.clip_skip,
        max_tokens=settings.max_tokens,
        device=prepared.device,
        dtype=prepared.dtype,
        batch_size=settings.sample_batch_size,
        seed=settings.seed,
        should_stop=should_stop,
    )
    trained = f"{settings.kind} {settings.run_name}, step {step}"
    facts = {
        "Model": models.source.name,
        "Model hash": models.source.sha256[:10],
        "Clip skip": settings.clip_skip,
        "Trained": f"{trained}, moving average" if is_average else trained,
    }
    folder.samples_folder.mkdir(exist_ok=True)
    try:
        for path, (prompt, image) in zip(paths, drawn, strict=False):
            save_sample(path, image, prompt, step=step, facts=facts)
    except torch.OutOfMemoryError:
        LOG.warning("too little memory to draw at step %s: give smaller pictures in --prompts", f"{step:,}")
        return
    SampleSheet.read(folder.samples_folder.glob("*.png")).save(folder.sheet_path)
