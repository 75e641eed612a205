"""The short way of reading a JPEG gives the very pixels of the long one, and is taken only where it may be."""

import io
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import UnreadableImageError
from pipeline.images import Pixels, Room, read_image


def encoded(image: Image.Image, format_name: str = "JPEG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **how)
    return buffer.getvalue()


def drawn(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return smooth.convert(mode)


def pixels_of(data: bytes, **how: Any) -> Pixels:
    return read_image(data, **how).pixels


def by_pillow(data: bytes, **how: Any) -> Pixels:
    """What the long way gives."""
    with patch("pipeline.images._usual_jpeg", return_value=None):
        return read_image(data, **how).pixels


@pytest.fixture
def decoded_short(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each picture that simplejpeg decoded."""
    calls: list[int] = []
    own = simplejpeg.decode_jpeg

    def counted(data: bytes, colorspace: str, **how: Any) -> Any:
        decoded = own(data, colorspace, **how)
        calls.append(len(data))
        return decoded

    monkeypatch.setattr(simplejpeg, "decode_jpeg", counted)
    return calls


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    quality=st.integers(20, 100),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    progressive=st.booleans(),
    seed=st.integers(0, 9),
)
def test_pixels_are_those_of_pillow(
    width: int, height: int, quality: int, subsampling: str, progressive: bool, seed: int
) -> None:
    image = drawn(width, height, seed)
    data = encoded(image, quality=quality, subsampling=subsampling, progressive=progressive)
    found = pixels_of(data)
    assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(data))))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize(("width", "height"), [(331, 170), (170, 331), (64, 64), (7, 300), (11, 9)])
def test_reduced_pixels_are_those_of_pillow_too(
    width: int, height: int, subsampling: str, decoded_short: list[int]
) -> None:
    data = encoded(drawn(width, height), subsampling=subsampling)
    for least in (1, 20, 41, 80, 165, 400):
        assert np.array_equal(pixels_of(data, reduce_to_px=least), by_pillow(data, reduce_to_px=least))
    assert len(decoded_short) == 6


def test_usual_jpegs_take_the_short_way(decoded_short: list[int]) -> None:
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        pixels_of(encoded(drawn(33, 17), subsampling=subsampling))
    assert len(decoded_short) == 3


def test_one_room_holds_one_picture_after_the_other(
    decoded_short: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.images.ROOM_BYTES", 3 * 40 * 40)
    room = Room()
    for size in (
        (30, 20),
        (40, 40),
        (7, 9),
        (41, 40),
    ):  # it grows, is too large, and is not asked for the last
        data = encoded(drawn(*size))
        assert np.array_equal(pixels_of(data, room=room), by_pillow(data))
    assert len(decoded_short) == 4
    kept = room.take(3 * 40 * 40)
    assert np.shares_memory(kept, pixels_of(encoded(drawn(40, 40)), room=room))
    assert not np.shares_memory(kept, pixels_of(encoded(drawn(41, 40)), room=room))
    assert not np.shares_memory(kept, pixels_of(encoded(drawn(40, 40))))


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(drawn(33, 17), exif=exif)


def of_rgb() -> bytes:
    """A JPEG that holds RGB itself, as Adobe's mark says."""
    return encoded(drawn(33, 17), keep_rgb=True)


UNUSUAL = {
    "turned by EXIF": turned(6),
    "mirrored by EXIF": turned(2),
    "grey": encoded(drawn(33, 17, mode="L")),
    "CMYK": encoded(drawn(33, 17, mode="CMYK")),
    "RGB inside": of_rgb(),
    "PNG": encoded(drawn(33, 17), "PNG"),
    "transparent": encoded(drawn(33, 17).convert("RGBA"), "PNG"),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_all_else_takes_the_long_way(name: str, decoded_short: list[int]) -> None:
    assert np.array_equal(pixels_of(UNUSUAL[name]), by_pillow(UNUSUAL[name]))
    assert decoded_short == []


def test_an_upright_exif_is_no_reason_for_the_long_way(decoded_short: list[int]) -> None:
    assert np.array_equal(pixels_of(turned(1)), by_pillow(turned(1)))
    assert len(decoded_short) == 1


DAMAGE = {
    "a mark amid the pixels": lambda data: data[:9000] + b"\xff\xd3" + data[9000:],
    "rubbish behind the pixels": lambda data: data[:-2] + b"\0\0rubbish\xff\xd9",
    "pixels missing": lambda data: data[:-800] + b"\xff\xd9",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_libjpeg_remarks_on_takes_the_long_way_and_the_terminal_stays_clean(
    name: str, decoded_short: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    data = DAMAGE[name](encoded(drawn(200, 200), quality=95))
    assert np.array_equal(pixels_of(data), by_pillow(data))
    assert decoded_short == []
    assert capfd.readouterr() == ("", "")


def test_what_the_short_way_gives_up_is_said_by_pillow() -> None:
    data = bytearray(encoded(drawn(64, 64), quality=90))
    data[data.index(b"\xff\xda") + 4 : data.index(b"\xff\xda") + 10] = b"\xff" * 6  # the scan's own header
    with pytest.raises(UnreadableImageError):
        pixels_of(bytes(data))


def test_a_cut_file_is_refused() -> None:
    with pytest.raises(UnreadableImageError, match="middle"):
        pixels_of(encoded(drawn(64, 64))[:-40])
