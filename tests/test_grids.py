from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from videos import luma_of, scene, with_mouth

from pipeline import grids
from pipeline.grids import Grid


def grid_of(picture: NDArray[np.uint8]) -> Grid:
    return np.rint(luma_of(picture)).astype(np.uint8)


def test_box_change_sums_absolute_differences_over_5_by_5_cells() -> None:
    a, b = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    b[4, 4] = 10
    a[4, 5] = 3
    sums = grids.box_change(a, b)
    assert sums[4, 4] == 13 and sums[2, 2] == 10 and sums[2, 3] == 13 and sums[1, 4] == 0
    assert sums.dtype == np.uint16


def test_box_sums_hold_the_largest_change_there_is() -> None:
    black, white = np.zeros((20, 20), np.uint8), np.full((20, 20), 255, np.uint8)
    assert grids.box_change(black, white).min() == 255 * grids.BOX_AREA


def test_a_mouth_is_another_picture_and_grain_is_none() -> None:
    shut, open_ = grid_of(with_mouth(scene(1), 0)), grid_of(with_mouth(scene(1), 2))
    random = np.random.default_rng(0)
    grainy = np.clip(shut + random.normal(0, 1.0, shut.shape), 0, 255).astype(np.uint8)
    tolerated = grids.tolerance(shut, 0.0)
    assert not grids.is_same(shut, open_, tolerated)
    assert grids.is_same(shut, grainy, tolerated)
    assert grids.changes_less(shut, grainy, tolerated, Fraction(5, 4))
    assert not grids.changes_less(shut, open_, tolerated, Fraction(5, 4))


def test_the_quick_way_of_is_same_agrees_with_the_sums() -> None:
    random = np.random.default_rng(3)
    grid = grid_of(scene(2))
    tolerated = grids.tolerance(grid, 0.5)
    for levels in range(12):
        noise = random.integers(-levels, levels + 1, grid.shape)
        other = np.clip(grid + noise, 0, 255).astype(np.uint8)
        agrees = bool((grids.box_change(grid, other) <= tolerated).all())
        assert grids.is_same(grid, other, tolerated) == agrees


def test_tolerance_grows_with_noise_detail_and_base() -> None:
    flat, busy = np.full((40, 40), 90, np.uint8), np.tile(np.array([0, 80], np.uint8), (40, 20))
    assert grids.tolerance(flat, 0.0).max() == round(grids.BASE_LEVELS * grids.BOX_AREA)
    assert (grids.tolerance(flat, 1.0) > grids.tolerance(flat, 0.0)).all()
    assert (grids.tolerance(busy, 0.0)[3:-3, 3:-3] > grids.tolerance(flat, 0.0)[3:-3, 3:-3]).all()
    assert (grids.tolerance(flat, 0.0, 9.0) == 9 * grids.BOX_AREA).all()


def test_median_change_is_the_noise_where_less_than_half_moves() -> None:
    still = grid_of(scene(3))
    moved = still.copy()
    moved[:, :100] = 255 - moved[:, :100]
    mean, median = grids.mean_and_median_change(still, moved)
    assert median == 0 and mean == pytest.approx(np.abs(still.astype(int) - moved).mean())
    assert grids.mean_and_median_change(still, still) == (0, 0)


def test_structure_distance_is_0_for_the_same_and_about_1_for_unrelated_pictures() -> None:
    a, b = grid_of(scene(1)), grid_of(scene(2))
    assert grids.distance(a, a) == pytest.approx(0, abs=1e-6)
    assert grids.distance(a, b) > 0.6
    assert grids.distance(a, 255 - a) > 1.2
    x, y = a.astype(float), b.astype(float)
    cov = ((x - x.mean()) * (y - y.mean())).mean()
    ssim = (2 * x.mean() * y.mean() + 60) / (x.mean() ** 2 + y.mean() ** 2 + 60)
    ssim *= (2 * cov + 4) / (x.var() + y.var() + 4)
    assert grids.distance(a, b) == pytest.approx(1 - ssim, abs=1e-5)


def test_thumb_is_the_mean_of_9_by_16_parts() -> None:
    grid = grid_of(scene(5))
    wanted = grid.reshape(9, 20, 16, 20).mean((1, 3)).ravel()
    assert np.abs(grids.thumb(grid) - wanted).max() <= 0.51


def test_shift_between_finds_how_far_content_went() -> None:
    wide = grid_of(scene(6, 400, 180))
    right, down, clear = grids.shift_between(wide[:, 20:340], wide[:, 12:332])
    assert (round(right), round(down)) == (8, 0) and clear > 0.3


@pytest.mark.parametrize("shift", [0, 12, 24, 40])
def test_motion_extent_of_a_pan_is_its_share_of_the_width(shift: int) -> None:
    wide = grid_of(scene(7, 480, 180))
    extent = grids.motion_extent(wide[:, :320], wide[:, shift : shift + 320])
    assert extent == pytest.approx(shift / 320, abs=0.012)


def before_ground(ground: Grid, left: int, right: int, seed: int = 9) -> Grid:
    """A figure from one column to another, cut off at the bottom."""
    seen = ground.copy()
    seen[30:, left:right] = grid_of(scene(seed))[30:, left:right]
    return seen


@pytest.mark.parametrize("shift", [10, 20, 30, 50, -10, -20, -30, -50])
@pytest.mark.parametrize(("left", "right"), [(130, 190), (100, 220), (20, 120)])
def test_motion_extent_of_a_background_that_slides_behind_a_still_figure(
    left: int, right: int, shift: int
) -> None:
    wide = grid_of(scene(18, 520, 180))
    looks = [before_ground(wide[:, 100 + x : 420 + x], left, right) for x in (0, shift)]
    assert grids.motion_extent(*looks) == pytest.approx(abs(shift) / 320, abs=0.01)


@pytest.mark.parametrize("shift", [20, -25])
def test_motion_extent_of_a_background_that_slides_up_behind_a_still_figure(shift: int) -> None:
    tall = grid_of(scene(21, 320, 300))
    looks = []
    for y in (60, 60 + shift):
        seen = tall[y : y + 180].copy()
        seen[60:120, 100:220] = grid_of(scene(9))[60:120, 100:220]
        looks.append(seen)
    assert grids.motion_extent(*looks) == pytest.approx(abs(shift) / 320, abs=0.01)


@pytest.mark.parametrize("ground_shift", [0, 30])
def test_motion_extent_is_none_where_another_figure_comes(ground_shift: int) -> None:
    wide = grid_of(scene(18, 400, 180))
    first = before_ground(wide[:, :320], 20, 100)
    ground = before_ground(wide[:, ground_shift : 320 + ground_shift], 20, 100)
    assert grids.motion_extent(first, before_ground(ground, 200, 270, seed=10)) is None


def test_motion_extent_is_none_where_a_figure_stands_before_another_background() -> None:
    looks = [before_ground(grid_of(scene(seed)), 60, 260) for seed in (12, 13)]
    assert grids.motion_extent(*looks) is None


def test_motion_extent_of_another_scene_is_none() -> None:
    assert grids.motion_extent(grid_of(scene(1)), grid_of(scene(2))) is None
