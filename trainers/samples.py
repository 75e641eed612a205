"""Pictures made while training, from fixed noise: one prompt shows what the steps between have changed.

Noise is drawn on the CPU, keyed by each prompt's own seed: neither device nor batch changes it.
"""

import inspect
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.files import write_atomic
from trainers.conditioning import TOKENS_PER_CHUNK, encode
from trainers.models import Models
from trainers.prompts import Prompt, to_words
from trainers.samplers import SAMPLERS, begins_at_noise, make_scheduler

PARAMETERS_KEY = "parameters"  # of a PNG's texts: what A1111 and its kin read
SAMPLE_KEY = "celforge.sample"  # step and prompt as JSON, for the contact sheet


def sized(prompt: Prompt, models: Models, *, seed: int) -> Prompt:
    """A prompt with its size and seed said: sizes are cut down to whole latents.

    Raises:
        InputError: less than a latent, or more steps than the model has.
    """
    side, factor = models.sample_size_px, models.latent_factor
    width, height = prompt.width_px or side, prompt.height_px or side
    if prompt.aspect_ratio > 0 and not (prompt.width_px or prompt.height_px):
        width = round(side * prompt.aspect_ratio**0.5)
        height = round(side / prompt.aspect_ratio**0.5)
    width, height = (one // factor * factor for one in (width, height))
    if not width or not height:
        raise InputError(
            f"the sample of {prompt.text!r} is less than a latent wide or high",
            hint="write --w 512 --h 512",
        )
    if prompt.steps > (most := models.diffusion.num_train_timesteps):
        raise InputError(
            f"{prompt.steps} steps of the sampler are more than the {most} of the model",
            hint=f"ask for {min(30, most)}",
        )
    if models.diffusion.is_zero_terminal_snr and not begins_at_noise(prompt.sampler):
        raise InputError(
            f"{SAMPLERS[prompt.sampler].shown} cannot draw a model of zero-terminal SNR",
            hint="write --ss ddim or --ss euler",
        )
    own_seed = seed + prompt.number if prompt.seed is None else prompt.seed
    return replace(prompt, width_px=width, height_px=height, aspect_ratio=0.0, seed=own_seed)


def sample_images(
    models: Models,
    prompts: Sequence[Prompt],
    *,
    clip_skip: int = 1,
    max_tokens: int = TOKENS_PER_CHUNK,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 1,
    seed: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Prompt, Image.Image]]:
    """Make one picture of each prompt with the model as it is now, adapters included.

    Args:
        dtype: of autocast; the VAE works in fp32 always, for its activations leave the range of fp16.
        batch_size: prompts at once; only neighbours of one size, sampler and number of steps go together.
        seed: of prompts that have none of their own, with their number added.
        should_stop: asked before each step.

    Yields: the prompt with its size and seed said, and the picture, RGB; in the order of `prompts`.
    """
    said = [sized(prompt, models, seed=seed) for prompt in prompts]
    for batch in _batches(said, batch_size):
        parts = (models.unet, models.text_encoder, models.vae)
        with undisturbed(parts, torch.device(device)), torch.no_grad():
            latents = _denoise(models, batch, clip_skip, max_tokens, torch.device(device), dtype, should_stop)
            if latents is None:
                return
            images = [_decode(models, one) for one in latents]
        yield from zip(batch, images, strict=True)


def _batches(prompts: Sequence[Prompt], batch_size: int) -> Iterator[list[Prompt]]:
    batch: list[Prompt] = []
    for prompt in prompts:
        if batch and (len(batch) == batch_size or _shape(prompt) != _shape(batch[0])):
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def _shape(prompt: Prompt) -> tuple[int, int, int, str]:
    return prompt.width_px, prompt.height_px, prompt.steps, prompt.sampler


@contextmanager
def undisturbed(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """All modules in eval mode on one device, eager; afterwards, as the random numbers, as they were."""
    modes = [(one, one.training) for module in modules for one in module.modules()]
    places = [_device(module) for module in modules]
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", DeprecationWarning)  # of numpy, for what schedulers of diffusers do
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        stack.enter_context(
            torch.compiler.set_stance("force_eager")
        )  # sizes of samples are not worth compiling
        try:
            for module in modules:
                module.eval()
                if _device(module) != device:
                    module.to(device)
            yield
        finally:
            for module, place in zip(modules, places, strict=True):
                if _device(module) != place:
                    module.to(place)
            for one, was_training in modes:
                one.training = was_training


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _denoise(
    models: Models,
    batch: Sequence[Prompt],
    clip_skip: int,
    max_tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    should_stop: Callable[[], bool],
) -> Tensor | None:
    """From noise to latents, fp32, [batch, channels, height, width]; None when it was stopped."""
    scheduler = make_scheduler(batch[0].sampler, models.diffusion)
    scheduler.set_timesteps(batch[0].steps)
    generators = [torch.Generator().manual_seed(_seed(prompt)) for prompt in batch]
    latents: Tensor = torch.stack([_noise(models, *pair) for pair in zip(batch, generators, strict=True)])
    latents = latents * scheduler.init_noise_sigma
    texts = [prompt.negative for prompt in batch] + [prompt.text for prompt in batch]
    guidance, rescale = (
        torch.tensor(values, device=device).view(-1, 1, 1, 1)
        for values in ([one.guidance for one in batch], [one.guidance_rescale or 0.0 for one in batch])
    )
    is_rescaled = any(one.guidance_rescale for one in batch)
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    options = {"generator": generators} if takes_generator else {}
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        ids = models.tokenizer(texts, max_tokens=max_tokens).to(device)
        states = encode(models.text_encoder, ids, clip_skip=clip_skip)
    for timestep in scheduler.timesteps:
        if should_stop():
            return None
        scaled = scheduler.scale_model_input(latents, timestep).to(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            both = models.unet(torch.cat([scaled, scaled]), timestep.to(device), states).sample.float()
        without, with_text = both.chunk(2)
        noise_pred = without + guidance * (with_text - without)
        if is_rescaled:
            noise_pred = rescaled(noise_pred, with_text, rescale)
        # the scheduler's own arithmetic is on the CPU, and the same for every device
        stepped = scheduler.step(noise_pred.cpu(), timestep, latents, **options)
        latents = stepped.prev_sample
    return latents


def rescaled(noise_pred: Tensor, with_text: Tensor, share: Tensor | float) -> Tensor:
    """A guided prediction brought back towards the deviation of the one it was guided from.

    Guidance makes a prediction larger, and pictures of zero-terminal SNR too bright or too dark. Lin et al.
    2023, arXiv:2305.08891, section 3.4, eq. 15 and 16; 0.7 is theirs.

    Args:
        noise_pred: guided, [batch, channels, height, width].
        with_text: before guidance, the same shape.
        share: how far, 0 to 1, [batch, 1, 1, 1] or one number.
    """
    sides = (1, 2, 3)
    factor = with_text.std(dim=sides, keepdim=True) / noise_pred.std(dim=sides, keepdim=True)
    return noise_pred * (share * factor + (1 - share))


def _seed(prompt: Prompt) -> int:
    assert prompt.seed is not None  # `sized` has said it
    return prompt.seed


def _noise(models: Models, prompt: Prompt, generator: torch.Generator) -> Tensor:
    factor = models.latent_factor
    size = (models.latent_channels, prompt.height_px // factor, prompt.width_px // factor)
    return torch.randn(size, generator=generator)


def _decode(models: Models, latents: Tensor) -> Image.Image:
    """[channels, height, width] of scaled latents to RGB; one at a time, for the VAE takes most memory."""
    weights = next(models.vae.parameters())
    unscaled = latents[None].to(weights.device) / models.scaling_factor + models.shift_factor
    pixels = models.vae.decode(unscaled.to(weights.dtype)).sample[0].float()
    levels = ((pixels.nan_to_num() / 2 + 0.5).clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    return Image.fromarray(np.ascontiguousarray(levels.permute(1, 2, 0).numpy()))


def png_parameters(prompt: Prompt, facts: Mapping[str, object]) -> str:
    """The `parameters` text of A1111, which UIs and model sites read out of a PNG.

    Args:
        prompt: as `sample_images` gave it back, with size and seed.
        facts: what follows the settings: `Model`, `Model hash`, `Clip skip`, `Lora hashes` and so on.
    """
    words: dict[str, object] = {
        "Steps": prompt.steps,
        "Sampler": SAMPLERS[prompt.sampler].shown,
        "CFG scale": f"{prompt.guidance:g}",
        **({"CFG Rescale": f"{prompt.guidance_rescale:g}"} if prompt.guidance_rescale else {}),
        "Seed": prompt.seed,
        "Size": f"{prompt.width_px}x{prompt.height_px}",
        **facts,
    }
    lines = [prompt.text, f"Negative prompt: {prompt.negative}" if prompt.negative else ""]
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in words.items()))
    return "\n".join(line for line in lines if line)


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ',:\n"') else text


def save_sample(
    path: Path, image: Image.Image, prompt: Prompt, *, step: int, facts: Mapping[str, object]
) -> None:
    """Write one sample as PNG, whole or not at all, with its parameters for UIs and for the contact sheet."""
    words: dict[str, Any] = {"step": step, "prompt": to_words(prompt)}
    texts = {PARAMETERS_KEY: png_parameters(prompt, facts), SAMPLE_KEY: json.dumps(words)}
    write_atomic(path, png_bytes(image, texts))


def png_bytes(image: Image.Image, texts: Mapping[str, str]) -> bytes:
    """A picture as PNG with texts by their keys."""
    info = PngInfo()
    for key, text in texts.items():
        _add_text(info, key, text)
    data = io.BytesIO()
    image.save(data, "PNG", pnginfo=info)
    return data.getvalue()


def _add_text(texts: PngInfo, key: str, text: str) -> None:
    """Latin-1 as plain text, which every reader knows, anything else as UTF-8."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        texts.add_itxt(key, text)
    else:
        texts.add_text(key, text)
