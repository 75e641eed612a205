"""v-prediction and zero-terminal SNR: what is asked for, how it is drawn, and what saved models say."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from PIL import Image
from safetensors import safe_open

from pipeline.errors import InputError, SettingsError
from tests.conftest import Celforge
from tests.trainers.tiny_models import tiny_models
from trainers.losses import cumulative_alphas, velocity
from trainers.model_parts import Diffusion
from trainers.models import Models, load_models, save_diffusers
from trainers.objective_settings import ObjectiveSettings
from trainers.objectives import make_objective, objective_problems, trained_diffusion
from trainers.prompts import Prompt
from trainers.samplers import SAMPLERS, begins_at_noise, make_scheduler
from trainers.samples import png_parameters, rescaled, sample_images, sized

EPSILON = Diffusion()
V = Diffusion(prediction_type="v_prediction")
ZERO_SNR = replace(V, is_zero_terminal_snr=True)
FAST = ("--resolution-px", 64, "--bucket-step-px", 16, "--batch-size", 2, "--steps", 2, "--log-every", 1)


def test_velocity_is_that_of_diffusers() -> None:
    latents, noise = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([0, 500, 999])
    for diffusion in (V, ZERO_SNR):
        theirs = DDPMScheduler(**diffusion.config()).get_velocity(latents, noise, timesteps)
        ours = make_objective(ObjectiveSettings(), diffusion).target(latents, noise, timesteps)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert make_objective(ObjectiveSettings(), EPSILON).target(latents, noise, timesteps) is noise


def test_the_stretched_schedule_by_the_papers_algorithm() -> None:
    """Lin et al. 2023, algorithm 1, in double precision."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    roots = np.sqrt(np.cumprod(1 - betas))
    roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    alphas = cumulative_alphas(ZERO_SNR)
    assert alphas[-1] == 0
    np.testing.assert_allclose(alphas.numpy(), roots**2, rtol=2e-3, atol=1e-6)


def test_at_the_last_timestep_v_is_the_picture_turned_round() -> None:
    latents, noise = torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), 3.0)
    last = torch.tensor([999])
    assert torch.equal(velocity(latents, noise, cumulative_alphas(ZERO_SNR), last), -latents)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if begins_at_noise(name)])
def test_every_sampler_draws_by_the_stretched_schedule(sampler: str) -> None:
    """A network that knows the picture leads to it from noise alone, if the schedule is that of training."""
    picture = torch.full((1, 1, 8, 8), 0.7)
    alphas = cumulative_alphas(ZERO_SNR).double()
    scheduler = make_scheduler(sampler, ZERO_SNR)
    scheduler.set_timesteps(20)
    assert int(scheduler.timesteps[0]) == 999
    torch.testing.assert_close(scheduler.alphas_cumprod.double()[:-1], alphas[:-1], rtol=1e-3, atol=1e-7)
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(picture.shape, generator=generator) * scheduler.init_noise_sigma
    options = {"generator": generator} if sampler in ("ddpm", "euler_a", "dpm_2_a") else {}
    for timestep in scheduler.timesteps:
        seen = scheduler.scale_model_input(latents, timestep).double()
        alpha = alphas[round(float(timestep))]
        v = (alpha.sqrt() * seen - picture) / (1 - alpha).sqrt()
        latents = scheduler.step(v.float(), timestep, latents, **options).prev_sample
    near = 0.2 if sampler in ("ddim", "dpm_2", "dpm_2_a") else 1e-5  # these end above 0, or between steps
    assert (latents - picture).abs().max() < near


def test_plms_is_refused_before_the_first_step() -> None:
    models = tiny_models()
    prompt = Prompt(text="girl", steps=3, sampler="pndm")
    sized(prompt, models, seed=0)
    models.diffusion = ZERO_SNR
    with pytest.raises(InputError, match="PLMS cannot draw a model of zero-terminal SNR"):
        sized(prompt, models, seed=0)


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_guidance_is_rescaled_as_diffusers_does(share: float) -> None:
    """`rescale_noise_cfg` of its pipeline for Stable Diffusion."""
    without, with_text = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    guided = without + 7.5 * (with_text - without)
    theirs = rescale_noise_cfg(guided, with_text, guidance_rescale=share)
    torch.testing.assert_close(rescaled(guided, with_text, share), theirs)
    each = torch.tensor([0.0, share, 1.0]).view(-1, 1, 1, 1)
    torch.testing.assert_close(rescaled(guided, with_text, each)[1], theirs[1])


def test_a_prompt_says_how_far_guidance_is_rescaled() -> None:
    models = tiny_models()
    models.diffusion = ZERO_SNR
    shares = (None, 0.0, 0.7)
    prompts = [Prompt(text="girl", seed=1, steps=2, guidance=9, guidance_rescale=one) for one in shares]
    plain, zero, other = (np.asarray(image) for _, image in sample_images(models, prompts))
    assert np.array_equal(plain, zero) and not np.array_equal(plain, other)
    facts = png_parameters(prompts[2], {})
    assert "CFG scale: 9, CFG Rescale: 0.7, Seed: 1" in facts
    assert "Rescale" not in png_parameters(prompts[1], {})


@pytest.mark.parametrize(
    ("settings", "said", "trained"),
    [
        (ObjectiveSettings(), V, V),
        (ObjectiveSettings(), ZERO_SNR, ZERO_SNR),
        (ObjectiveSettings(prediction="v"), EPSILON, V),
        (ObjectiveSettings(prediction="v", zero_terminal_snr="on"), EPSILON, ZERO_SNR),
        (ObjectiveSettings(prediction="epsilon"), V, EPSILON),
        (ObjectiveSettings(zero_terminal_snr="off"), ZERO_SNR, V),
    ],
)
def test_the_model_says_what_is_trained_unless_a_person_does(
    settings: ObjectiveSettings, said: Diffusion, trained: Diffusion
) -> None:
    assert trained_diffusion(settings, said) == trained


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ObjectiveSettings(zero_terminal_snr="on"), EPSILON),
        (ObjectiveSettings(prediction="epsilon"), ZERO_SNR),
        (ObjectiveSettings(), replace(EPSILON, is_zero_terminal_snr=True)),
    ],
)
def test_noise_is_not_predicted_from_noise_alone(settings: ObjectiveSettings, said: Diffusion) -> None:
    with pytest.raises(SettingsError, match="noise alone"):
        trained_diffusion(settings, said)


def test_a_change_of_what_is_predicted_is_told_and_a_misleading_name_too() -> None:
    settings = ObjectiveSettings(prediction="v")
    (problem,) = objective_problems(settings, "a.safetensors", EPSILON, V)
    assert "predicts epsilon and is trained to predict v_prediction" in problem
    (problem,) = objective_problems(ObjectiveSettings(), "anime-VPred.safetensors", EPSILON, EPSILON)
    assert "--prediction v" in problem
    assert not list(objective_problems(ObjectiveSettings(), "anime-vpred.safetensors", V, V))


# The whole way


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "anime" / "dataset"
    root.mkdir(parents=True)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        (root / f"{number}.txt").write_text("girl", encoding="utf-8")
    (root.parent / "celforge.toml").write_text("", encoding="utf-8")
    return root


@pytest.fixture
def v_base(tmp_path: Path) -> Path:
    models: Models = tiny_models()
    models.diffusion = replace(models.diffusion, prediction_type="v_prediction")
    save_diffusers(models, tmp_path / "v", torch.float32, {})
    return tmp_path / "v"


@pytest.mark.filterwarnings("ignore:.*:FutureWarning")
def test_a_checkpoint_trained_to_zero_terminal_snr_says_so_everywhere(
    celforge: Celforge, dataset: Path, v_base: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("girl --w 32 --h 32 --s 3 --ss euler\n", encoding="utf-8")
    where = ("--data", dataset, "--base", v_base, "--prompts", prompts, "--optimizer", "adamw")
    options = ("--zero-terminal-snr", "on", "--min-snr-gamma", 5, "--save-as", "both")
    plan = celforge("train", "full", *where, *FAST, *options, "--dry-run")
    assert "too bright or dark: --guidance-rescale 0.7" in plan.stdout
    options += ("--guidance-rescale", 0.7)
    assert "objective: v_prediction, zero-terminal SNR, min-SNR 5" in plan.stdout, plan.stderr
    answer = celforge("train", "full", *where, *FAST, *options)
    assert answer.exit_code == 0, answer.stderr
    folder = dataset.parent / "models/full"
    samples = list((folder / "samples").glob("*.png"))
    assert len(samples) == 2
    with Image.open(samples[0]) as image:
        assert "CFG Rescale: 0.7" in image.info["parameters"]
    for base in (folder / "full.safetensors", folder / "full"):
        diffusion = load_models(str(base)).diffusion
        assert (diffusion.prediction_type, diffusion.is_zero_terminal_snr) == ("v_prediction", True)
    with safe_open(folder / "full.safetensors", "pt") as file:
        assert {"v_pred", "ztsnr"} <= set(file.keys())
        told = file.metadata()
    assert told["modelspec.prediction_type"] == "v"
    assert (told["ss_base_model_version"], told["ss_zero_terminal_snr"]) == ("sd_v1_v", "True")
    assert told["ss_min_snr_gamma"] == "5.0"
    scheduler = StableDiffusionPipeline.from_pretrained(folder / "full").scheduler
    assert scheduler.alphas_cumprod[-1] == 0
    assert scheduler.config.timestep_spacing == "trailing"
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 2
    assert all(np.isfinite(losses))


def test_an_adapter_of_a_v_model_asks_for_v(celforge: Celforge, dataset: Path, v_base: Path) -> None:
    where = ("--data", dataset, "--base", v_base)
    losses = []
    for name, options in (("as-it-says", ()), ("forced", ("--prediction", "epsilon"))):
        answer = celforge("train", "locon", *where, *FAST, "--name", name, *options)
        assert answer.exit_code == 0, answer.stderr
        folder = dataset.parent / "models" / name
        losses.append(json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["loss"])
        with safe_open(folder / f"{name}.safetensors", "pt") as file:
            assert file.metadata()["modelspec.prediction_type"] == ("epsilon" if options else "v")
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)
    refused = celforge(
        "train", "locon", *where, *FAST, "--prediction", "epsilon", "--zero-terminal-snr", "on"
    )
    assert refused.exit_code == 2
    assert "give --zero-terminal-snr off" in refused.stderr
