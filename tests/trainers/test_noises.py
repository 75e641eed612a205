"""Noise that is not plain, held against formulas written once more here, and against its statistics."""

import pytest
import torch
from torch.nn.functional import interpolate

from trainers import draws
from trainers.noises import batch_noise, input_noise
from trainers.objective_settings import ObjectiveSettings

LATENTS = torch.ones(4, 4, 16, 24) * torch.tensor([-2.0, 0.0, 1.0, 3.0]).view(1, 4, 1, 1)


def noise(number: int = 7, seed: int = 1, **options: object) -> torch.Tensor:
    return batch_noise(ObjectiveSettings(**options), LATENTS, seed, number)  # type: ignore[arg-type]


def test_plain_noise_is_the_keyed_draw() -> None:
    assert torch.equal(noise(), draws.normal((4, 4, 16, 24), "noise", 1, 7))
    assert input_noise(ObjectiveSettings(), noise(), 1, 7) is None


def test_the_offset_is_one_number_a_channel_of_the_strength_asked_for() -> None:
    shifts = torch.stack([noise(number, noise_offset=0.5) - noise(number) for number in range(200)])
    assert shifts.flatten(3).std(-1).max() < 1e-6  # all pixels of a channel alike
    numbers = shifts[..., 0, 0].flatten()  # 3,200 of them
    assert numbers.std().item() == pytest.approx(0.5, rel=0.05)
    assert abs(numbers.mean().item()) < 0.04
    assert torch.equal(noise(noise_offset=0.5), noise(noise_offset=0.5))


def test_a_random_strength_is_even_up_to_the_offset() -> None:
    """Of u * N with u even to 0.5, the variance is 0.25 / 3."""
    shifts = torch.stack(
        [(noise(n, noise_offset=0.5, noise_offset_random=True) - noise(n))[..., 0, 0] for n in range(300)]
    )
    assert shifts.var().item() == pytest.approx(0.25 / 3, rel=0.15)
    fixed = torch.stack([(noise(n, noise_offset=0.5) - noise(n))[..., 0, 0] for n in range(300)])
    ratios = (shifts / fixed).flatten(2)
    torch.testing.assert_close(ratios, ratios[..., :1].expand_as(ratios), rtol=1e-3, atol=1e-3)  # a picture
    assert 0.4 < ratios.mean() < 0.6
    assert ratios.max() <= 1.001


def test_an_adaptive_offset_follows_the_mean_of_each_channel() -> None:
    plain = noise(noise_offset=0.1) - noise()
    adaptive = noise(noise_offset=0.1, adaptive_noise_scale=0.2) - noise()
    ratios = (adaptive / plain).mean(dim=(0, 2, 3))
    torch.testing.assert_close(ratios, torch.tensor([5.0, 1.0, 3.0, 7.0]), rtol=1e-3, atol=1e-3)
    falling = noise(noise_offset=0.1, adaptive_noise_scale=-0.2) - noise()
    assert falling[:, [0, 2, 3]].abs().max() < 1e-6  # below 0 there is no strength
    assert torch.allclose(falling[:, 1], plain[:, 1])


def test_the_pyramid_level_by_level() -> None:
    """As the recipe says: smaller by r^i, enlarged bilinearly, discount^i each, brought to deviation 1."""
    found = noise(pyramid_noise=10, pyramid_discount=0.4)
    expected = draws.normal((4, 4, 16, 24), "noise", 1, 7)
    random = draws.stream("pyramid", 1, 7)
    for level in range(10):
        ratio = (random.random() * 2 + 2) ** level
        height, width = max(1, int(16 / ratio)), max(1, int(24 / ratio))
        small = draws.normal((4, 4, height, width), "pyramid", 1, 7, level)
        expected += 0.4**level * interpolate(small, size=(16, 24), mode="bilinear", align_corners=False)
        if height == 1 or width == 1:
            break
    assert 1 <= level <= 4
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other / other.std(), rtol=1e-4, atol=1e-5)


def test_pyramid_noise_has_deviation_one_and_more_of_the_coarse() -> None:
    found = torch.cat([noise(number, pyramid_noise=8, pyramid_discount=0.6) for number in range(20)])
    assert found.std(dim=(1, 2, 3)).tolist() == pytest.approx([1.0] * 80, rel=1e-4)
    coarse = found.unfold(2, 8, 8).unfold(3, 8, 8).mean(dim=(-1, -2)).var()
    assert coarse > 5 / 64  # plain noise has 1 / 64


def test_the_input_alone_is_disturbed() -> None:
    settings = ObjectiveSettings(ip_noise_gamma=0.1)
    plain = torch.stack([noise(number) for number in range(50)])
    disturbed = [input_noise(settings, one, 1, number) for number, one in enumerate(plain)]
    shifts = torch.stack([one for one in disturbed if one is not None]) - plain
    assert shifts.std().item() == pytest.approx(0.1, rel=0.02)
    correlation = (shifts * plain).mean() / (shifts.std() * plain.std())
    assert abs(correlation.item()) < 0.01


def test_a_random_strength_of_it_is_one_for_each_picture_from_0_up() -> None:
    settings = ObjectiveSettings(ip_noise_gamma=0.4, ip_noise_random=True)
    plain = torch.cat([noise(number) for number in range(200)])
    disturbed = input_noise(settings, plain, 1, 0)
    assert disturbed is not None
    strengths = (disturbed - plain).std(dim=(1, 2, 3))
    assert strengths.min() < 0.02 and 0.37 < strengths.max() < 0.43
    assert strengths.mean().item() == pytest.approx(0.2, abs=0.02)  # four deviations of 800 even draws
