import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from pipeline.errors import InputError
from tests.trainers.tiny_models import tiny_models
from trainers.adapters.network import AdapterSpec, attach
from trainers.models import Models
from trainers.prompts import Prompt
from trainers.sample_sheet import LABEL_PX, SMALLEST_CELL_PX, WIDEST_PX, SampleSheet
from trainers.samplers import SAMPLERS, make_scheduler
from trainers.samples import png_parameters, sample_images, save_sample, sized

GIRL = Prompt(text="girl", negative="cat", seed=3, steps=3, width_px=48, height_px=32)


@pytest.fixture(scope="module")
def models() -> Models:
    return tiny_models()


def pixels(models: Models, *prompts: Prompt, **options: Any) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(image).astype(int) for _, image in sample_images(models, prompts, **options)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sampler", ["ddim", "dpmsolver++"])
def test_pictures_are_those_of_diffusers_pipeline(sampler: str, models: Models, tiny_files: Any) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_files.diffusers)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler(sampler, models.diffusion)
    noise = torch.randn((4, 8, 12), generator=torch.Generator().manual_seed(3))[None]
    made = pipeline("girl", negative_prompt="cat", num_inference_steps=3, width=48, height=32, latents=noise)
    prompt = Prompt(text="girl", negative="cat", seed=3, steps=3, width_px=48, height_px=32, sampler=sampler)
    (ours,) = pixels(models, prompt)
    assert ours.shape == (32, 48, 3)
    assert np.abs(ours - np.asarray(made.images[0]).astype(int)).max() <= 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_makes_the_same_picture_each_time_alone_or_in_a_batch(
    sampler: str, models: Models
) -> None:
    prompts = [
        Prompt(text=text, number=number, steps=2, sampler=sampler, guidance=2.0 + number)
        for number, text in enumerate(("girl", "cat", "girl"))
    ]
    alone, together = pixels(models, *prompts), pixels(models, *prompts, batch_size=2)
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one - other).max() <= 1
    assert np.abs(alone[0] - alone[2]).max() > 8  # of another seed


def test_seed_text_negative_guidance_clip_skip_and_model_all_count(models: Models) -> None:
    (base,) = pixels(models, GIRL)
    from dataclasses import replace

    others = [
        pixels(models, replace(GIRL, seed=4)),
        pixels(models, replace(GIRL, text="cat")),
        pixels(models, replace(GIRL, negative="")),
        pixels(models, replace(GIRL, guidance=3.0)),
        pixels(models, replace(GIRL, steps=4)),
        pixels(models, GIRL, clip_skip=2),
    ]
    for other in others:
        assert not np.array_equal(other[0], base)
    long = replace(GIRL, text="girl " * 20)
    assert not np.array_equal(pixels(models, long, max_tokens=150)[0], pixels(models, long)[0])


def test_an_adapter_is_seen_and_at_its_beginning_changes_nothing(models: Models) -> None:
    (before,) = pixels(models, GIRL)
    spec = AdapterSpec("locon", linear_dim=2, linear_alpha=1, conv_dim=2, conv_alpha=1)
    network = attach(spec, models.unet, models.text_encoder)
    try:
        assert np.array_equal(pixels(models, GIRL)[0], before)
        for one in network.factors.values():
            one.flat.data.add_(0.3)
        assert not np.array_equal(pixels(models, GIRL)[0], before)
    finally:
        network.restore()


def test_training_is_left_as_it_was(models: Models) -> None:
    models.unet.train()
    models.vae.requires_grad_(False)
    models.unet.mid_block.eval()
    modules = [one for part in (models.unet, models.text_encoder, models.vae) for one in part.modules()]

    def state() -> Iterator[Any]:
        yield [one.training for one in modules]
        for part in (models.unet, models.text_encoder, models.vae):
            yield [(id(one), one.dtype, one.device, one.requires_grad, one.grad) for one in part.parameters()]
        yield torch.get_rng_state().tolist()
        yield random.getstate()
        yield np.random.get_state()[1].tolist()
        yield torch.is_grad_enabled()

    before = list(state())
    sampling = sample_images(models, [GIRL, GIRL], dtype=torch.bfloat16)
    next(sampling)
    assert list(state()) == before  # also between two pictures
    sampling.close()
    assert list(state()) == before
    with pytest.raises(InputError):
        list(sample_images(models, [GIRL], clip_skip=9))
    assert list(state()) == before
    models.unet.eval()
    models.vae.requires_grad_(True)


def test_sampling_stops_when_it_is_told(models: Models) -> None:
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) > 4

    assert len(list(sample_images(models, [GIRL] * 5, should_stop=should_stop))) == 1


def test_sizes_and_seeds_come_from_the_model_and_the_run(models: Models) -> None:
    def say(**values: Any) -> tuple[int, int, int | None]:
        one = sized(Prompt(text="a", **values), models, seed=100)
        return one.width_px, one.height_px, one.seed

    assert say(number=3) == (32, 32, 103)
    assert say(seed=0, width_px=50) == (48, 32, 0)
    assert say(aspect_ratio=4.0) == (64, 16, 100)
    with pytest.raises(InputError, match="less than a latent"):
        say(aspect_ratio=1e9)


# Files


def test_parameters_are_written_as_a1111_does() -> None:
    prompt = Prompt(
        text="girl, smile", negative="bad", seed=7, width_px=512, height_px=768, sampler="euler_a", guidance=7
    )
    facts = {"Model hash": "0123456789", "Lora hashes": "mine: 0123456789ab"}
    assert png_parameters(prompt, facts) == (
        "girl, smile\nNegative prompt: bad\nSteps: 30, Sampler: Euler a, CFG scale: 7, Seed: 7, Size: 512x768, "
        'Model hash: 0123456789, Lora hashes: "mine: 0123456789ab"'
    )
    assert png_parameters(Prompt(text="girl", seed=1), {}).count("\n") == 1


@pytest.mark.parametrize("text", ["girl", "caf\u00e9", "\u732b"])
def test_a_sample_on_disk_says_how_it_was_made(text: str, tmp_path: Path) -> None:
    prompt = Prompt(text=text, seed=7, width_px=8, height_px=8)
    save_sample(tmp_path / "a.png", Image.new("RGB", (8, 8), "red"), prompt, step=20, facts={"Model": "mine"})
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["parameters"] == png_parameters(prompt, {"Model": "mine"})
        assert json.loads(image.info["celforge.sample"])["step"] == 20
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]


def colour_at(sheet: Image.Image, column: int, row_y: int) -> Any:
    return sheet.getpixel((8 + LABEL_PX + column * 264 + 128, row_y))


def test_the_sheet_has_a_row_for_each_prompt_and_a_column_for_each_step(tmp_path: Path) -> None:
    sheet = SampleSheet()
    first, second = Prompt(text="girl", seed=1, number=0), Prompt(text="cat", seed=1, number=1)
    sheet.add(200, second, Image.new("RGB", (64, 64), "blue"))
    sheet.add(0, first, Image.new("RGB", (512, 512), "red"))
    sheet.add(200, first, Image.new("RGB", (512, 512), "lime"))
    assert (sheet.steps, [one.text for one in sheet.prompts]) == ([0, 200], ["girl", "cat"])
    sheet.save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as drawn:
        assert colour_at(drawn, 0, 150) == (255, 0, 0)
        assert colour_at(drawn, 1, 150) == (0, 255, 0)
        assert colour_at(drawn, 1, 40 + 256 + 8 + 20) == (0, 0, 255)
        assert colour_at(drawn, 0, 40 + 256 + 8 + 5) == (250, 250, 248)  # not made
        label = np.asarray(drawn.crop((8, 40, LABEL_PX, 100)))
        assert (label < 100).any()  # written
    assert [one.name for one in tmp_path.iterdir()] == ["sheet.png"]


def test_a_run_that_goes_on_finds_its_samples_on_disk(tmp_path: Path) -> None:
    prompt, image = Prompt(text="girl", seed=1), Image.new("RGB", (96, 64), "red")
    drawn = SampleSheet()
    for step in (0, 10):
        save_sample(tmp_path / f"{step}.png", image, prompt, step=step, facts={})
        drawn.add(step, prompt, image)
    image.save(tmp_path / "stranger.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    found = SampleSheet.read(tmp_path.glob("*.png"))
    assert found.steps == [0, 10]
    assert found.draw().tobytes() == drawn.draw().tobytes()
    from dataclasses import replace

    found.add(20, replace(prompt, number=4), image)  # moved down in the file: the same row
    assert len(found.prompts) == 1


def test_a_sheet_of_a_thousand_steps_stays_a_picture_that_opens() -> None:
    sheet = SampleSheet()
    for step in range(0, 1_000_000, 1000):
        sheet.add(step, Prompt(text="girl " * 200, seed=1), Image.new("RGB", (16, 16)))
    drawn = sheet.draw()
    assert WIDEST_PX - SMALLEST_CELL_PX - 16 <= drawn.width <= WIDEST_PX
    assert drawn.height < 400
    assert SampleSheet().save(Path("nowhere/a.png")) is None
