import torch
from diffusers import DDPMScheduler

from trainers.draws import normal, timesteps
from trainers.losses import add_noise, cumulative_alphas, squared_error
from trainers.model_parts import Diffusion


def test_draws_are_a_function_of_seed_and_position() -> None:
    first = normal((2, 3), "noise", 1, 7)
    normal((5,), "noise", 1, 8)
    assert torch.equal(first, normal((2, 3), "noise", 1, 7))
    others = [normal((2, 3), "noise", 2, 7), normal((2, 3), "latents", 1, 7), normal((2, 3), "noise", 1, 8)]
    assert not any(torch.equal(first, other) for other in others)


def test_timesteps_cover_the_whole_range_evenly() -> None:
    drawn = torch.cat([timesteps(500, 10, "timesteps", 0, number) for number in range(20)])
    counts = torch.bincount(drawn, minlength=10)
    assert len(counts) == 10
    assert counts.min() > 900  # of 1,000 each; five standard deviations are 150
    assert counts.max() < 1_150


def test_noise_is_added_as_diffusers_adds_it() -> None:
    for kind, betas in (("scaled_linear", (0.00085, 0.012)), ("linear", (1e-4, 0.02))):
        theirs = DDPMScheduler(1000, *betas, beta_schedule=kind)
        alphas = cumulative_alphas(Diffusion(1000, *betas, kind))
        latents, noise = torch.randn(2, 3, 4, 4, 4)
        steps = torch.tensor([0, 500, 999])
        torch.testing.assert_close(
            add_noise(latents, noise, alphas, steps),
            theirs.add_noise(latents, noise, steps),
            rtol=1e-4,
            atol=1e-5,
        )


def test_the_error_of_each_picture_is_its_own() -> None:
    target = torch.zeros(2, 1, 2, 2)
    pred = torch.tensor([[[[1.0, 1.0], [1.0, 1.0]]], [[[2.0, 0.0], [0.0, 0.0]]]])
    assert squared_error(pred, target).tolist() == [1.0, 1.0]
    assert squared_error(pred.half(), target.half()).dtype == torch.float32
