"""Buckets against the figures that the trainers are known by, and laws that hold for any picture."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.layouts.buckets import (
    Bucket,
    buckets,
    everydream_buckets,
    everydream_resolutions,
    fit,
    kohya_buckets,
    nearest_bucket,
    nearest_by_ratio,
)

SIDES = st.integers(1, 20_000)


def mirrored(sizes: list[tuple[int, int]]) -> set[tuple[int, int]]:
    return {*sizes, *((height, width) for width, height in sizes)}


def as_sizes(found: tuple[Bucket, ...]) -> set[tuple[int, int]]:
    return {(one.width_px, one.height_px) for one in found}


KOHYA_512 = mirrored(
    [
        *((256, height) for height in (832, 896, 960, 1024)),
        *((320, height) for height in (704, 768)),
        (384, 640),
        (448, 576),
        (512, 512),
    ]
)


def test_the_seventeen_buckets_of_512() -> None:
    assert as_sizes(kohya_buckets(512)) == KOHYA_512
    assert len(kohya_buckets(512)) == 17
    assert buckets(512) == kohya_buckets(512)


def test_everydream_buckets_are_the_known_tables_and_their_mirror_images() -> None:
    found = everydream_buckets(512)
    assert found is not None
    wide = [(512, 512), (576, 448), (640, 384), (768, 320), (896, 256), (1024, 256)]
    assert as_sizes(found) == mirrored(wide)
    large = everydream_buckets(1024)
    assert large is not None
    assert len(large) == 15
    assert everydream_buckets(1088 + 63) == everydream_buckets(1088)
    assert everydream_resolutions() == (*range(256, 1153, 64), 1280, 1536)


@pytest.mark.parametrize("resolution_px", [64, 128, 255, 1216, 1279, 1344, 1408, 1472, 1535, 1600, 2048])
def test_where_everydream_has_no_buckets(resolution_px: int) -> None:
    assert everydream_buckets(resolution_px) is None


def test_every_table_of_everydream_is_like_the_two_that_are_known_best() -> None:
    odd = 0
    for resolution_px in everydream_resolutions():
        found = everydream_buckets(resolution_px)
        assert found is not None
        sizes = as_sizes(found)
        assert (resolution_px, resolution_px) in sizes
        assert len(sizes) == len(found) <= 19
        assert all(width % 16 == height % 16 == 0 for width, height in sizes)
        odd += sum((height, width) not in sizes for width, height in sizes)
        for width, height in sizes - {(576, 640), (1408, 1344)}:  # areas of 7/10 of the square, or more
            assert 0.69 * resolution_px**2 < width * height < 1.26 * resolution_px**2
    assert odd == 4, "two at 320 and two at 1280: 576x128 has 576x640 beside it, 1408x1152 has 1408x1344"
    assert str(nearest_by_ratio(1920, 1080, everydream_buckets(768) or ())) == "1024x576"
    assert str(nearest_by_ratio(1920, 1080, everydream_buckets(640) or ())) == "832x448"


def test_a_screenshot_at_512_goes_to_640x384_and_loses_a_sixteenth_of_its_width() -> None:
    bucket = nearest_by_ratio(1920, 1080, kohya_buckets(512))
    assert str(bucket) == "640x384" == str(nearest_bucket(1920, 1080, buckets(512)))
    fitted = fit(1920, 1080, bucket)
    assert (fitted.width_px, fitted.height_px, fitted.left_px, fitted.top_px) == (683, 384, 21, 0)
    assert fitted.cut_share == pytest.approx(0.0625, abs=0.001)


def test_kohyas_largest_side_of_1024_wastes_a_resolution_of_1024_and_ours_does_not() -> None:
    assert str(nearest_by_ratio(1920, 1080, kohya_buckets(1024))) == "1024x576"
    assert str(nearest_by_ratio(1920, 1080, kohya_buckets(1024, max_px=2048))) == "1344x768"
    assert str(nearest_bucket(1920, 1080, buckets(1024))) == "1344x768"


@pytest.mark.parametrize("resolution_px", [128, 256, 512, 640, 768, 832, 1024, 1536, 500])
def test_each_of_our_buckets_has_the_whole_area_but_for_one_step(resolution_px: int) -> None:
    area = resolution_px**2
    for one in buckets(resolution_px):
        assert one.area_px <= area
        short, long = sorted((one.width_px, one.height_px))
        assert (short + 64) * (long + 64) > area
        assert short == long or short * (long + 64) > area or (short + 64) * long > area
        assert short % 64 == long % 64 == 0


def test_a_resolution_too_small_for_buckets_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 128"):
        buckets(127)


@given(SIDES, SIDES)
def test_our_choice_treats_wide_and_tall_alike(width: int, height: int) -> None:
    sizes = buckets(512)
    wide, tall = nearest_bucket(width, height, sizes), nearest_bucket(height, width, sizes)
    error = abs(math.log(wide.aspect) - math.log(width / height))
    assert error == pytest.approx(abs(math.log(tall.aspect) - math.log(height / width)), abs=1e-9)
    assert all(error <= abs(math.log(one.aspect) - math.log(width / height)) + 1e-9 for one in sizes)


def test_choosing_by_plain_ratio_is_not_choosing_by_its_logarithm() -> None:
    """Between 2.2 (704x320) and 2.4 (768x320), and between their mirror images: the plain ratio is asked of
    width over height, so the two middles do not mirror each other.
    """
    sizes = kohya_buckets(512)
    assert str(nearest_by_ratio(2299, 1000, sizes)) == "704x320"
    assert str(nearest_bucket(2299, 1000, sizes)) == "768x320"


@given(SIDES, SIDES)
def test_a_picture_covers_its_bucket_and_two_sides_are_not_cut(width: int, height: int) -> None:
    bucket = nearest_bucket(width, height, buckets(512))
    fitted = fit(width, height, bucket)
    assert fitted.width_px >= bucket.width_px
    assert fitted.height_px >= bucket.height_px
    assert fitted.width_px == bucket.width_px or fitted.height_px == bucket.height_px
    assert 0 <= fitted.cut_share < 1


def test_a_picture_of_a_buckets_own_size_is_left_as_it_is() -> None:
    for one in buckets(512):
        fitted = fit(one.width_px, one.height_px, one)
        assert (fitted.scale, fitted.cut_share) == (1, 0)
        assert nearest_by_ratio(one.width_px, one.height_px, buckets(512)) == one
