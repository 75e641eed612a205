"""What is kept of a picture: the middle, or the faces, and the same pixels as by scaling and cutting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import noise
from PIL import Image

from pipeline.layouts.buckets import Bucket, fit
from trainers.crops import crop_corner, cut

WIDE, SQUARE = Bucket(640, 384), Bucket(512, 512)


def test_without_faces_the_middle_is_kept() -> None:
    assert crop_corner(1920, 1080, WIDE) == ((683 - 640) // 2, 0)
    assert crop_corner(512, 1024, SQUARE) == (0, 256)


@pytest.mark.parametrize(
    ("faces", "left"),
    [
        ([(0.45, 0.2, 0.55, 0.4)], 256),  # in the middle anyway
        ([(0.0, 0.2, 0.1, 0.4)], 0),
        ([(0.9, 0.2, 1.0, 0.4)], 512),
        ([(0.2, 0.2, 0.3, 0.4)], 179),  # 0.2 less a quarter of the face, of 1024
        ([(0.3, 0.2, 0.4, 0.4), (0.6, 0.2, 0.7, 0.4)], 256),  # both fit
        ([(0.0, 0.2, 0.2, 0.8), (0.9, 0.2, 0.94, 0.3)], 0),  # the larger of two that do not fit together
    ],
)
def test_the_window_moves_to_faces_no_further_than_it_must(
    faces: list[tuple[float, float, float, float]], left: int
) -> None:
    assert crop_corner(1024, 512, SQUARE, faces) == (left, 0)


BOXES = st.tuples(*[st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.01, 0.1), st.floats(0.01, 0.1)])


@given(st.integers(8, 3000), st.integers(8, 3000), st.lists(BOXES, max_size=4))
def test_the_window_lies_in_the_picture_and_one_face_that_fits_is_whole(
    width: int, height: int, boxes: list[tuple[float, float, float, float]]
) -> None:
    faces = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    scaled = fit(width, height, SQUARE)
    left, top = crop_corner(width, height, SQUARE, faces)
    assert 0 <= left <= scaled.width_px - 512
    assert 0 <= top <= scaled.height_px - 512
    if len(faces) == 1:
        x0, y0, x1, y1 = faces[0]
        if (x1 - x0) * scaled.width_px < 300:
            assert left <= x0 * scaled.width_px + 1
            assert x1 * scaled.width_px - 1 <= left + 512
        if (y1 - y0) * scaled.height_px < 300:
            assert top <= y0 * scaled.height_px + 1
            assert y1 * scaled.height_px - 1 <= top + 512


def test_cut_is_scaling_and_then_cutting() -> None:
    pixels = np.asarray(noise(200, 100))
    corner = crop_corner(200, 100, Bucket(64, 48))
    whole = Image.fromarray(pixels).resize((96, 48), Image.Resampling.LANCZOS)
    expected = np.asarray(whole)[:, corner[0] : corner[0] + 64]
    found = cut(pixels, Bucket(64, 48), corner)
    assert found.shape == (48, 64, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1


@given(st.integers(1, 300), st.integers(1, 300))
def test_every_picture_can_be_cut(width: int, height: int) -> None:
    bucket = Bucket(32, 48)
    pixels = np.full((height, width, 3), 7, np.uint8)
    found = cut(pixels, bucket, crop_corner(width, height, bucket, [(0.9, 0.9, 1.0, 1.0)]))
    assert found.shape == (48, 32, 3)
    assert (found == 7).all()


def test_a_picture_of_the_size_of_its_bucket_stays_as_it_is() -> None:
    pixels = np.asarray(noise(64, 48))
    assert np.array_equal(cut(pixels, Bucket(64, 48), (0, 0)), pixels)
