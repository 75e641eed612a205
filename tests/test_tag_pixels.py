"""Pixels are those of the plain way: pad the whole picture, then resize it."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.images import read_image
from pipeline.tagging.pixels import Fit, Recipe, prepare_picture

SIDES = st.integers(1, 70)


def padded(pixels: np.ndarray) -> np.ndarray:
    """As kohya's script and the WD Space: white, centred, the smaller half left and above."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    margins = ((top, side - height - top), (left, side - width - left), (0, 0))
    return np.pad(pixels, margins, constant_values=255)


def wd_space(pixels: np.ndarray, size: int) -> np.ndarray:
    square = Image.fromarray(padded(pixels)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(square, np.float32)[:, :, ::-1]


def kohya(pixels: np.ndarray, size: int) -> np.ndarray:
    square = padded(pixels)[:, :, ::-1]
    if square.shape[0] > size:
        return cv2.resize(np.ascontiguousarray(square), (size, size), interpolation=cv2.INTER_AREA).astype(
            np.float32
        )
    shrunk = Image.fromarray(np.ascontiguousarray(square)).resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(shrunk, np.float32)


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def recipe(resampling: str) -> Recipe:
    return Recipe((Fit("pad", resampling=resampling),))  # type: ignore[arg-type]


@settings(max_examples=120, deadline=None)
@given(width=SIDES, height=SIDES, size=st.integers(1, 40), seed=st.integers(0, 3))
def test_resizing_before_padding_gives_the_pixels_of_wd(
    width: int, height: int, size: int, seed: int
) -> None:
    pixels = noise(width, height, seed)
    found = prepare_picture(pixels, recipe("bicubic"), size)
    assert np.array_equal(found, wd_space(pixels, size))
    assert found.dtype == np.float32


@settings(max_examples=120, deadline=None)
@given(width=SIDES, height=SIDES, size=st.integers(1, 40), seed=st.integers(0, 3))
def test_resizing_before_padding_gives_the_pixels_of_kohya(
    width: int, height: int, size: int, seed: int
) -> None:
    pixels = noise(width, height, seed)
    assert np.array_equal(prepare_picture(pixels, recipe("area"), size), kohya(pixels, size))


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1280, 718), (853, 1000), (1921, 1079)])
def test_frames_of_usual_sizes_are_exact_too(width: int, height: int) -> None:
    pixels = noise(width, height)
    assert np.array_equal(prepare_picture(pixels, recipe("bicubic"), 448), wd_space(pixels, 448))
    assert np.array_equal(prepare_picture(pixels, recipe("area"), 448), kohya(pixels, 448))


def test_camie_resizes_first_and_pads_with_its_colour_and_normalises() -> None:
    pixels = noise(50, 20)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    fit = Fit("letterbox", resampling="lanczos", colour=(124, 116, 104))
    found = prepare_picture(pixels, Recipe((fit,), "NCHW", "RGB", 1, mean, std), 32)
    inside = Image.fromarray(pixels).resize((32, int(20 * 32 / 50)), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (32, 32), (124, 116, 104))
    square.paste(inside, (0, (32 - inside.height) // 2))
    values = (np.asarray(square, np.float32) / 255 - np.float32(mean)) / np.float32(std)
    assert np.array_equal(found, values.transpose(2, 0, 1))


def test_steps_of_a_preprocess_json_are_those_of_imgutils() -> None:
    pixels = noise(61, 37)
    fits = (
        Fit("letterbox", 64, "bilinear", rounding="round"),
        Fit("short_side", 48, "bicubic"),
        Fit("crop", 40),
    )
    found = prepare_picture(pixels, Recipe(fits, "NCHW", "RGB", 1, (0.5,) * 3, (0.5,) * 3), 40)
    inside = Image.fromarray(pixels).resize((64, round(37 * 64 / 61)), Image.Resampling.BILINEAR)
    square = Image.new("RGB", (64, 64), "white")
    square.paste(inside, (0, (64 - inside.height) // 2))
    cropped = square.resize((48, 48), Image.Resampling.BICUBIC).crop((4, 4, 44, 44))
    values = (np.asarray(cropped, np.float32) / 255 - np.float32(0.5)) / np.float32(0.5)
    assert np.array_equal(found, values.transpose(2, 0, 1))


def test_stretching_gives_up_the_shape() -> None:
    pixels = noise(50, 20)
    found = prepare_picture(pixels, Recipe((Fit("stretch", resampling="bilinear"),), channels="RGB"), 16)
    assert np.array_equal(
        found, np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR))
    )


def test_a_jpeg_is_decoded_smaller_only_as_far_as_allowed(tmp_path: Path) -> None:
    smooth = Image.fromarray(noise(20, 10)).resize((1600, 800), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.jpg", quality=95)
    smooth.save(tmp_path / "a.png")
    whole = read_image(tmp_path / "a.jpg")
    half = read_image(tmp_path / "a.jpg", reduce_to_px=700)
    assert half.pixels.shape == (400, 800, 3)
    assert half.header == whole.header
    assert read_image(tmp_path / "a.jpg", reduce_to_px=801).pixels.shape == (800, 1600, 3)
    assert read_image(tmp_path / "a.png", reduce_to_px=100).pixels.shape == (800, 1600, 3)
    by_two = np.asarray(Image.fromarray(whole.pixels).reduce(2), np.int16)
    assert np.abs(by_two - half.pixels).mean() < 1


def test_a_jpeg_cut_in_the_middle_is_refused_when_decoded_smaller() -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(640, 480)).save(buffer, "JPEG")
    with pytest.raises(Exception, match="middle"):
        read_image(buffer.getvalue()[:-2000], reduce_to_px=100)
