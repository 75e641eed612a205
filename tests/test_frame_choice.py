from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from videos import held, luma_of, plain, scene, title_page, with_mouth

from pipeline.frame_choice import Decision, FrameChooser, Rules
from pipeline.shots import Sample

Picture = NDArray[np.uint8]


def choose(
    pictures: Sequence[Picture], rules: Rules | None = None, fps: float = 24
) -> tuple[list[Decision], list[int]]:
    """All decisions in the order of the frames, and the cuts."""
    chooser = FrameChooser(rules)
    decided = []
    for index, picture in enumerate(pictures):
        grid = np.rint(luma_of(picture)).astype(np.uint8)
        decided += chooser.push(Sample(index, index / fps, grid, float(grid.std() + index % 3)))
    decided += chooser.finish()
    decided.sort(key=lambda one: one.index)
    assert [one.index for one in decided] == list(range(len(pictures)))  # each frame is decided on once
    return decided, chooser.cuts


def kept(pictures: Sequence[Picture], rules: Rules | None = None) -> list[int]:
    return [one.index for one in choose(pictures, rules)[0] if one.is_kept]


A, B, C = scene(1), scene(2), scene(3)


def test_each_held_picture_is_kept_once_and_by_its_sharpest_frame() -> None:
    found = kept(held(A, B, C, frames=12))
    assert [index // 12 for index in found] == [0, 1, 2]
    assert all(index % 3 == 2 for index in found)


def test_cuts_are_where_scenes_begin() -> None:
    decisions, cuts = choose(held(A, B, C, frames=12))
    assert cuts == [12, 24]
    assert [one.shot for one in decisions] == [1] * 12 + [2] * 12 + [3] * 12


def test_a_scene_that_comes_again_is_kept_once_and_with_repeats_twice() -> None:
    there_and_back = held(A, B, A, B, frames=12)
    assert len(kept(there_and_back)) == 2
    assert len(kept(there_and_back, Rules(has_memory=False))) == 4


def test_each_mouth_of_a_cycle_on_threes_is_kept_once() -> None:
    mouths = [with_mouth(A, openness) for openness in (0, 1, 3)]
    found = kept(held(*mouths * 4, frames=3))
    assert sorted(index // 3 % 3 for index in found) == [0, 1, 2]


def test_a_short_hold_counts_from_hold_s_on() -> None:
    pictures = [*held(A, frames=24), *held(with_mouth(A, 2), frames=4), *held(A, frames=24)]
    assert len(kept(pictures)) == 1
    assert len(kept(pictures, Rules(hold_s=0.16))) == 2


def test_base_levels_say_how_small_a_change_is_another_picture() -> None:
    brighter = np.clip(A.astype(int) + 5, 0, 255).astype(np.uint8)
    pictures = held(A, brighter, frames=12)
    assert len(kept(pictures)) == 2
    assert len(kept(pictures, Rules(base_levels=8))) == 1


def pan(frames: int, step: int) -> list[Picture]:
    wide = scene(11, 320 + frames * step, 180)
    return [wide[:, step * number : step * number + 320] for number in range(frames)]


def test_a_pan_gives_a_few_frames() -> None:
    assert 2 <= len(kept(pan(72, 6))) <= 6


def test_motion_interval_says_how_many_frames_a_fight_gives() -> None:
    random = np.random.default_rng(5)
    fight = [scene(int(random.integers(1000))) for _ in range(48)]
    many = len(kept(fight, Rules(motion_interval_s=0.2)))
    assert len(kept(fight, Rules(motion_interval_s=2))) < many


def fade(a: Picture, b: Picture, frames: int) -> list[Picture]:
    shares = np.linspace(0, 1, frames + 2)[1:-1]
    return [np.rint(a * (1 - share) + b * share).astype(np.uint8) for share in shares]


@pytest.mark.parametrize("frames", [8, 12, 20])
def test_nothing_is_kept_of_a_cross_fade_between_clean_pictures(frames: int) -> None:
    pictures = [*held(A, frames=24), *fade(A, B, frames), *held(B, frames=24)]
    found = kept(pictures)
    assert [index for index in found if 24 <= index < 24 + frames] == []
    assert len(found) == 2


@pytest.mark.parametrize("ends", ["in", "out"])
def test_nothing_is_kept_of_a_fade_from_or_to_black(ends: str) -> None:
    steps = fade(plain(0), B, 12)
    if ends == "in":
        pictures = [*held(plain(0), frames=12), *steps, *held(B, frames=24)]
        faded = range(12, 24)
    else:
        pictures = [*held(B, frames=24), *steps[::-1], *held(plain(0), frames=12)]
        faded = range(24, 36)
    assert not set(kept(pictures)) & set(faded)


def test_a_flash_is_no_cut_and_not_kept() -> None:
    pictures = [*held(A, frames=12), *held(plain(255), frames=2), *held(A, frames=12)]
    decisions, cuts = choose(pictures)
    assert cuts == []
    assert sum(one.is_kept for one in decisions) == 1
    assert {decisions[12].reason, decisions[13].reason} <= {"flash", "held"}


@pytest.mark.parametrize(
    ("kind", "picture"), [("black", plain(0)), ("white", plain(255)), ("title", title_page())]
)
def test_skip_leaves_out_each_kind(kind: str, picture: Picture) -> None:
    pictures = held(A, picture, B, frames=24)
    assert [index // 24 for index in kept(pictures)] == [0, 1, 2]
    assert [index // 24 for index in kept(pictures, Rules(skip=frozenset({kind})))] == [0, 2]


def test_skip_fade_leaves_out_a_shot_that_is_nothing_but_a_fade() -> None:
    pictures = [*held(A, frames=24), *fade(B, plain(0), 9), *held(A, frames=24)]
    assert len(kept(pictures)) == 2
    assert len(kept(pictures, Rules(skip=frozenset({"fade"})))) == 1


def test_skip_flash_leaves_out_a_shot_that_is_nothing_but_a_flash() -> None:
    pictures = [*held(A, frames=12), *held(plain(255), frames=4), *held(B, frames=12)]
    assert len(kept(pictures)) == 3
    assert len(kept(pictures, Rules(skip=frozenset({"flash"})))) == 2


def test_most_per_shot_thins_a_shot_evenly() -> None:
    mouths = held(*[with_mouth(A, openness) for openness in (0, 1, 2, 3)], frames=8)
    assert len(kept(mouths)) == 4
    assert [index // 8 for index in kept(mouths, Rules(most_per_shot=2))] == [0, 3]


def test_grain_makes_no_pictures() -> None:
    random = np.random.default_rng(1)
    grainy = [np.clip(A + random.normal(0, 2.5, A.shape), 0, 255).astype(np.uint8) for _ in range(48)]
    assert len(kept(grainy)) == 1
