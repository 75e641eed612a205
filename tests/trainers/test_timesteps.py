"""Which timesteps are drawn, against distributions computed by other means."""

import math

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_snr

from pipeline.errors import SettingsError
from trainers import draws
from trainers.model_parts import Diffusion
from trainers.objective_settings import ObjectiveSettings
from trainers.objectives import trained_range
from trainers.timesteps import draw_timesteps, timestep_rows, timestep_shares

LOGIT = ObjectiveSettings(timestep_distribution="logit-normal", timestep_mean=-0.5, timestep_deviation=0.8)
MODE = ObjectiveSettings(timestep_distribution="mode", timestep_mode_scale=1.29)


def drawn(settings: ObjectiveSettings, count: int = 100, batches: int = 100) -> torch.Tensor:
    return torch.cat([draw_timesteps(settings, count, 1000, 0, number) for number in range(batches)])


def test_plain_draws_are_those_of_before() -> None:
    plain = draw_timesteps(ObjectiveSettings(), 8, 1000, 3, 5)
    assert torch.equal(plain, draws.timesteps(8, 1000, "timesteps", 3, 5))


def test_a_range_is_drawn_whole_and_alone() -> None:
    found = drawn(ObjectiveSettings(min_timestep=100, max_timestep=110))
    counts = torch.bincount(found, minlength=1000)
    assert counts[100:110].min() > 800
    assert counts.sum() == counts[100:110].sum()


def test_logit_normal_by_its_distribution_function() -> None:
    """P(t < x) = Phi((logit(x) - mean) / deviation)."""
    found = drawn(LOGIT).double() + 0.5
    shares = timestep_shares(LOGIT, 1000)
    for edge in (100, 250, 400, 600, 900):
        x = edge / 1000
        expected = 0.5 * (1 + math.erf((math.log(x / (1 - x)) + 0.5) / 0.8 / math.sqrt(2)))
        assert float(shares[:edge].sum()) == pytest.approx(expected, abs=1e-4)
        assert float((found < edge).double().mean()) == pytest.approx(expected, abs=0.02)  # 4 deviations


@pytest.mark.parametrize("settings", [LOGIT, MODE])
def test_distributions_are_those_of_diffusers(settings: ObjectiveSettings) -> None:
    theirs = compute_density_for_timestep_sampling(
        settings.timestep_distribution.replace("-", "_"),
        200_000,
        logit_mean=settings.timestep_mean,
        logit_std=settings.timestep_deviation,
        mode_scale=settings.timestep_mode_scale,
        generator=torch.Generator().manual_seed(0),
    )
    counts = torch.histc(theirs, 10, 0, 1).double() / 200_000
    ours = timestep_shares(settings, 1000).view(10, 100).sum(1)
    assert (counts - ours).abs().max() < 0.005


def test_every_timestep_can_be_drawn_and_all_shares_are_one() -> None:
    for settings in (ObjectiveSettings(), LOGIT, MODE):
        shares = timestep_shares(settings, 1000)
        assert float(shares.sum()) == pytest.approx(1)
        assert drawn(settings, 1000, 3).max() <= 999


def test_stratified_timesteps_lie_in_every_part_of_the_distribution() -> None:
    settings = ObjectiveSettings(stratified_timesteps=True)
    for number in range(20):
        batch = draw_timesteps(settings, 10, 1000, 0, number)
        assert sorted((batch // 100).tolist()) == list(range(10))
    firsts = torch.stack([draw_timesteps(settings, 10, 1000, 0, number)[0] for number in range(200)])
    assert firsts.unique().numel() > 100  # no place of a batch has a part of its own
    many = drawn(settings, 10, 1000)
    assert torch.bincount(many // 100).tolist() == [1000] * 10


def test_the_plot_shows_what_is_drawn_and_weighed() -> None:
    assert timestep_rows(ObjectiveSettings(), Diffusion()) == []
    rows = timestep_rows(ObjectiveSettings(min_timestep=500, min_snr_gamma=5.0), Diffusion())
    assert [row["drawn"] for row in rows] == ["0.0%"] * 5 + ["20.0%"] * 5
    assert [row["weighs"] for row in rows[5:]] == [1.0] * 5  # the SNR is below 5 there
    assert [row["drawn x weighs"] for row in rows] == [""] * 5 + ["#" * 30] * 5
    weighed = timestep_rows(ObjectiveSettings(min_snr_gamma=5.0), Diffusion())
    snr = compute_snr(DDPMScheduler(**Diffusion().config()), torch.arange(100))
    assert weighed[0]["weighs"] == pytest.approx(float((5 / snr).clamp(max=1).mean()), abs=6e-4)


def test_a_range_that_the_model_has_not_is_refused() -> None:
    assert trained_range(ObjectiveSettings(min_timestep=5, max_timestep=50), 100) == (5, 50)
    for settings in (ObjectiveSettings(max_timestep=101), ObjectiveSettings(min_timestep=100)):
        with pytest.raises(SettingsError, match="; the model has 100"):
            trained_range(settings, 100)
