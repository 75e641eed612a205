import io
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import UnreadableImageError
from pipeline.images import Pixels, hash_pixels, probe_image, read_image, write_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def save(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(width: int = 61, height: int = 43, seed: int = 0) -> Image.Image:
    """A picture whose every byte counts, so that a cut file cannot decode."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def corners() -> Pixels:
    """2 wide, 3 high, each pixel its own colour: red and green on top, blue bottom left."""
    rows = [[RED, GREEN], [(9, 9, 9), (99, 99, 99)], [BLUE, WHITE]]
    return np.array(rows, dtype=np.uint8)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "AVIF", "JPEG"])
def test_every_format_is_read_as_rgb(format: str) -> None:
    flat = Image.new("RGB", (20, 10), (200, 100, 50))
    options: dict[str, object] = {"quality": 100} if format in ("AVIF", "JPEG", "WEBP") else {}
    picture = read_image(save(flat, format, **options))
    assert picture.pixels.shape == (10, 20, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    assert picture.pixels.flags.writeable
    assert np.abs(picture.pixels.astype(int) - (200, 100, 50)).max() <= 3
    assert (picture.header.width_px, picture.header.height_px, picture.header.format) == (20, 10, format)


# What a viewer shows for each orientation of EXIF 2.3, table 8: where the stored first row and first column
# go.
SHOWN = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_exif_turns_a_picture_upright(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    data = save(Image.fromarray(corners()), format, exif=exif, **options)
    expected = SHOWN[orientation](corners())
    picture = read_image(data)
    assert np.array_equal(picture.pixels, expected)
    header = probe_image(data)
    assert (header.height_px, header.width_px) == expected.shape[:2]
    assert header == picture.header
    assert ("turned by EXIF" in header.notes) == (orientation != 1)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_a_nonsense_orientation_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read_image(save(Image.fromarray(corners()), "PNG", exif=exif)).pixels, corners())


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(mode: str) -> None:
    values = {
        "RGBA": [(100, 0, 200, 0), (100, 0, 200, 51), (100, 0, 200, 255)],
        "LA": [(100, 0), (100, 51), (100, 255)],
    }
    image = Image.new(mode, (3, 1))
    image.putdata(values[mode])
    (row,) = read_image(save(image, "PNG")).pixels.tolist()
    # 51 / 255 = 0.2: 0.2 * colour + 0.8 * 255
    expected = {
        "RGBA": [[255, 255, 255], [224, 204, 244], [100, 0, 200]],
        "LA": [[255] * 3, [224] * 3, [100] * 3],
    }
    assert np.abs(np.array(row) - expected[mode]).max() <= 1
    assert probe_image(save(image, "PNG")).notes == ("transparent, on white",)


def test_a_palette_with_a_transparent_colour_lies_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    assert read_image(save(image, "PNG", transparency=0)).pixels.tolist() == [[[255, 255, 255], [40, 50, 60]]]
    assert read_image(save(image, "PNG")).pixels.tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_a_transparent_rgb_colour_lies_on_white() -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    assert read_image(save(image, "PNG", transparency=RED)).pixels.tolist() == [
        [[255, 255, 255], [0, 0, 255]]
    ]


def test_sixteen_bits_are_scaled_not_cut() -> None:
    values = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    data = save(Image.fromarray(values), "PNG")
    # value / 257, rounded: 65535 / 255 = 257
    assert read_image(data).pixels[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert probe_image(data).notes == ("more than 8 bits, scaled",)


def test_floats_are_scaled_by_their_range() -> None:
    unit = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    assert read_image(save(unit, "TIFF")).pixels[0, :, 1].tolist() == [0, 128, 255]
    bytes_like = Image.fromarray(np.array([[0.0, 100.0, 300.0, np.nan]], dtype=np.float32))
    assert read_image(save(bytes_like, "TIFF")).pixels[0, :, 1].tolist() == [0, 100, 255, 0]


@pytest.mark.parametrize(
    ("ink", "colour"),
    [((0, 0, 0, 0), WHITE), ((0, 255, 255, 0), RED), ((255, 255, 0, 0), BLUE), ((0, 0, 0, 255), (0, 0, 0))],
)
@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_converted_also_when_adobe_inverts_it(
    format: str, ink: tuple[int, int, int, int], colour: tuple[int, int, int]
) -> None:
    picture = read_image(save(Image.new("CMYK", (16, 16), ink), format))
    assert np.abs(picture.pixels[8, 8].astype(int) - colour).max() <= 3
    assert "CMYK, converted" in picture.header.notes


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF"])
def test_an_animation_gives_its_first_frame_and_says_so(format: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, GREEN, BLUE)]
    data = save(frames[0], format, save_all=True, append_images=frames[1:], duration=100)
    picture = read_image(data)
    assert picture.header.num_frames == 3
    assert "animated, first frame" in picture.header.notes
    assert np.abs(picture.pixels[16, 16].astype(int) - RED).max() <= 6


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr"])
def test_other_modes_become_rgb(mode: str) -> None:
    image = Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)
    assert (read_image(save(image, "JPEG" if mode == "YCbCr" else "PNG")).pixels == 255).all()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.98])
def test_a_truncated_file_is_refused_never_half_read(format: str, share: float) -> None:
    whole = save(noise(200, 150), format)
    with pytest.raises(UnreadableImageError) as caught:
        read_image(whole[: max(1, int(len(whole) * share))])
    assert caught.value.reason in ("truncated", "not a picture")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>404</html>", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
    ],
)
def test_a_file_that_is_no_picture_says_why(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "ép 猫.png"
    path.write_bytes(data)
    for read in (read_image, probe_image):
        with pytest.raises(UnreadableImageError) as caught:
            read(path)
        assert caught.value.reason == reason
        assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="no such file"):
        read_image(tmp_path / "gone.png")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("width", [20_000, 2_000_000_000])
def test_a_decompression_bomb_is_refused_from_its_header(width: int) -> None:
    head = struct.pack(">IIBBBBB", width, 20_000, 1, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )
    started = time.process_time()
    with pytest.raises(UnreadableImageError) as caught:
        read_image(bomb)
    assert caught.value.reason in ("too many pixels", "damaged")
    assert time.process_time() - started < 1


def test_content_counts_over_the_suffix_and_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(save(noise(), "PNG"))
    header = read_image(path).header
    assert (header.format, header.notes) == ("PNG", ("PNG file named .jpg",))
    assert probe_image(path) == header


def test_documents_and_icons_are_not_pictures() -> None:
    for kind in ("PDF", "ICO", "PPM"):
        with pytest.raises(UnreadableImageError, match="not a picture"):
            read_image(save(noise(), kind))


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    paths = []
    for number in range(6):
        paths.append(tmp_path / f"{number}.png")
        noise(seed=number).save(paths[-1])
    start = threading.Barrier(6)

    def read(path: Path) -> str:
        start.wait(10)
        return hash_pixels(read_image(path).pixels)

    with ThreadPoolExecutor(6) as pool:
        hashes = list(pool.map(read, paths))
    assert hashes == [hash_pixels(np.asarray(noise(seed=number))) for number in range(6)]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".PNG"])
def test_lossless_formats_give_the_same_pixels_back(tmp_path: Path, suffix: str) -> None:
    pixels = np.asarray(noise())
    write_image(tmp_path / f"a{suffix}", pixels)
    assert np.array_equal(read_image(tmp_path / f"a{suffix}").pixels, pixels)


def test_jpeg_keeps_the_colour_resolution(tmp_path: Path) -> None:
    stripes = np.zeros((32, 32, 3), dtype=np.uint8)
    stripes[:, ::2] = RED
    stripes[:, 1::2] = BLUE
    write_image(tmp_path / "a.jpg", stripes, quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg").pixels.astype(int) - stripes).max() < 30
    with pytest.raises(ValueError, match="png, jpg or webp"):
        write_image(tmp_path / "a.bmp", stripes)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


def test_equal_pixels_have_equal_hashes_whatever_the_file() -> None:
    png, webp = (
        read_image(save(noise(), "PNG")).pixels,
        read_image(save(noise(), "WEBP", lossless=True)).pixels,
    )
    assert hash_pixels(png) == hash_pixels(webp)
    assert hash_pixels(png) != hash_pixels(png.reshape(-1, png.shape[1] // 61 or 1, 3)[:, :, ::-1].copy())
    assert hash_pixels(np.zeros((2, 3, 3), np.uint8)) != hash_pixels(np.zeros((3, 2, 3), np.uint8))
