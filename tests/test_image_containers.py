import io
import struct
import sys
import threading
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from pictures import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB,
    animation,
    bomb,
    broken_exif,
    chunk,
    draw,
    exif,
    formats,
    jpeg_with_exif,
    letter_f,
    noise,
    odd_pictures,
    png,
    saved,
    unreadable_pictures,
    without_adobe,
)
from PIL import Image, ImageFile

from pipeline.errors import UnreadableImageError
from pipeline.image_containers import MAX_PIXELS, exif_orientation
from pipeline.images import hash_pixels, probe_image, read_image

# the letter F as a viewer shows it for each EXIF orientation (EXIF 2.32, section 4.6.4, tag 274)
TURNED_F = {
    1: ["###", "#..", "##.", "#..", "#.."],
    2: ["###", "..#", ".##", "..#", "..#"],
    3: ["..#", "..#", ".##", "..#", "###"],
    4: ["#..", "#..", "##.", "#..", "###"],
    5: ["#####", "#.#..", "#...."],
    6: ["#####", "..#.#", "....#"],
    7: ["....#", "..#.#", "#####"],
    8: ["#....", "#.#..", "#####"],
}


def reason_of(data: bytes) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        read_image(data)
    return caught.value.reason


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_shown_as_its_exif_says(orientation: int, order: str) -> None:
    pixels = read_image(jpeg_with_exif(letter_f(), exif(orientation, order))).pixels
    drawn = ["".join("#" if dot < 128 else "." for dot in row) for row in pixels[:, :, 0]]
    assert drawn == TURNED_F[orientation]
    header = probe_image(jpeg_with_exif(letter_f(), exif(orientation, order)))
    assert header.orientation == orientation
    assert (header.width_px, header.height_px) == ((5, 3) if orientation > 4 else (3, 5))


@pytest.mark.parametrize(
    "data",
    [
        png(1, 2, 8, GREY, [b"\0", b"\xff"], after=chunk(b"eXIf", exif(6))),
        saved(Image.fromarray(np.array([[0], [255]], np.uint8)), "AVIF", exif=exif(6), quality=100)
        if "AVIF" in formats()
        else png(1, 2, 8, GREY, [b"\0", b"\xff"], before=chunk(b"eXIf", exif(6))),
    ],
    ids=["PNG with EXIF behind the pixels", "AVIF"],
)
def test_a_turn_is_found_wherever_it_stands(data: bytes) -> None:
    assert probe_image(data).width_px == 2
    row = read_image(data).pixels[0, :, 0]
    assert row[0] > 200
    assert row[1] < 50


@pytest.mark.parametrize("block", [b"", b"II", b"II*\0\xff\xff\xff\x7f", exif(6)[:-9], b"XX" + exif(6)[2:]])
def test_a_broken_exif_block_turns_nothing(block: bytes) -> None:
    assert exif_orientation(block) == 1


def test_odd_metadata_is_no_reason_to_refuse_a_picture_nor_to_warn() -> None:
    oddities = [
        jpeg_with_exif(noise(), broken_exif()),
        png(2, 1, 8, GREY, [b"\0\xff"], before=chunk(b"acTL", struct.pack(">II", 0, 0))),
        png(2, 1, 8, GREY, [b"\0\xff"], before=chunk(b"iCCP", b"x\0\0garbage")),
        png(2, 1, 8, GREY, [b"\0\xff"], before=chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(10**7)))),
        png(2, 1, 8, GREY, [b"\0\xff"], before=chunk(b"gAMA", b"")),
        saved(noise(), "TIFF", tiffinfo={270: "xx"}).replace(
            b"\x0e\x01\x02\0\x03\0\0\0", b"\x0e\x01\x02\0\x03\0\0\x10"
        ),
    ]
    filters = list(warnings.filters)
    for data in oddities:  # warnings are errors here
        assert probe_image(data) == read_image(data).header
    assert warnings.filters == filters


@pytest.mark.parametrize("kind", odd_pictures())
def test_the_header_of_an_odd_picture_fits_its_pixels(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    path.write_bytes(odd_pictures()[kind])
    picture = read_image(path)
    assert picture.header == probe_image(path)
    assert picture.pixels.shape == (picture.header.height_px, picture.header.width_px, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    assert picture.pixels.flags.writeable


@pytest.mark.parametrize("name", unreadable_pictures())
def test_a_file_that_cannot_be_read_says_why_in_few_words(name: str, tmp_path: Path) -> None:
    data, reason = unreadable_pictures()[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UnreadableImageError) as caught:
        read_image(path)
    assert caught.value.reason == reason
    assert str(path) in str(caught.value)
    assert str(path) not in [open_file.path for open_file in psutil.Process().open_files()]


VARIANTS = [(name, {}) for name in formats()] + [
    ("JPEG", {"progressive": True}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}),
]


@pytest.mark.parametrize("is_lenient", [False, True], ids=["Pillow strict", "Pillow lenient"])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_no_cut_gives_a_half_picture(
    name: str, options: dict[str, object], is_lenient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # other libraries of a process set this to True; then Pillow fills what is missing with grey
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", is_lenient)
    data = saved(noise(23, 17), name, **options)
    whole = read_image(data).pixels
    for length in [*range(1, len(data) - 40, 11), *range(max(1, len(data) - 40), len(data))]:
        try:
            pixels = read_image(data[:length]).pixels
        except UnreadableImageError as error:
            assert error.reason in ("truncated", "damaged", "not a picture")
        else:  # only the padding behind the last row of a BMP may be missing
            assert name == "BMP"
            assert np.array_equal(pixels, whole)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", *(["AVIF"] if "AVIF" in formats() else [])])
def test_an_animation_that_was_cut_is_refused(name: str) -> None:
    data = animation(name)
    assert read_image(data).header.num_frames == 3
    assert reason_of(data[:-20]) == "truncated"


def test_what_lies_behind_the_end_of_a_picture_does_not_matter() -> None:
    for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        data = saved(noise(), name)
        assert np.array_equal(read_image(data + b"more" * 99).pixels, read_image(data).pixels)


@pytest.mark.parametrize("part", [b"PLTE", b"IDAT", b"tRNS"])
def test_one_wrong_bit_in_a_png_is_seen(part: bytes) -> None:
    before = chunk(b"PLTE", bytes(range(12))) + chunk(b"tRNS", b"\x00\x33")
    data = png(4, 1, 2, PALETTE, [b"\x1b"], before=before)
    at = data.index(part) + 5
    assert reason_of(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) == "damaged"


def test_a_bomb_takes_no_memory_and_no_time(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb())
    for read in (probe_image, read_image):
        tracemalloc.start()
        started = time.process_time()
        with pytest.raises(UnreadableImageError, match=r"20,000 x 20,000 pixels") as caught:
            read(path)
        assert time.process_time() - started < 0.2
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
        assert caught.value.reason == "too many pixels"


def webp_of_size(width: int, height: int) -> bytes:
    canvas = b"\0\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif_of_size(width: int, height: int) -> bytes:
    frame = struct.pack("<cHHHHB", b",", 0, 0, width, height, 0)
    return struct.pack("<6sHHBBB", b"GIF89a", 1, 1, 0, 0, 0) + frame + b"\x02\x00;"


def bmp_of_size(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54) + head


@pytest.mark.parametrize("make", [webp_of_size, gif_of_size, bmp_of_size])
def test_bombs_of_every_format_are_refused_from_the_header(make: object) -> None:
    assert callable(make)
    assert reason_of(make(16_000, 16_000)) == "too many pixels"
    assert reason_of(make(9_000, 10_000)) == "too many pixels"


def test_the_largest_picture_is_allowed() -> None:
    width = MAX_PIXELS // 5
    assert probe_image(bomb(width, 5)).width_px == width


def packed(*samples: int) -> bytes:
    return struct.pack(f">{len(samples)}H", *samples)


@pytest.mark.parametrize(
    ("data", "row"),
    [
        (png(4, 1, 2, GREY, [b"\x1b"], before=chunk(b"tRNS", packed(2))), [0, 85, 255, 255]),
        (png(8, 1, 1, GREY, [b"\x0f"], before=chunk(b"tRNS", packed(0))), [255] * 8),
        (png(2, 1, 8, GREY, [b"\x07\x08"], before=chunk(b"tRNS", packed(7))), [255, 8]),
        (png(2, 1, 16, GREY, [packed(700, 40000)], before=chunk(b"tRNS", packed(700))), [255, 156]),
        (png(1, 1, 16, RGB, [packed(9, 9, 9)], before=chunk(b"tRNS", packed(9, 9, 9))), [255]),
        (png(2, 1, 16, GREY_ALPHA, [packed(25700, 65535, 0, 0)]), [100, 255]),
    ],
    ids=["2 bits", "1 bit", "8 bits", "16 bits", "48 bits", "16 bits and alpha"],
)
def test_transparent_colours_of_any_depth_become_white(data: bytes, row: list[int]) -> None:
    assert read_image(data).pixels[0, :, 0].tolist() == row


def test_a_palette_of_four_colours_with_half_transparency() -> None:
    palette = chunk(b"PLTE", bytes([0, 0, 0, 255, 0, 0, 0, 100, 0, 9, 9, 9]))
    data = png(4, 1, 2, PALETTE, [b"\x1b"], before=palette + chunk(b"tRNS", b"\x00\x33"))
    # 0x33 / 255 = 0.2 of red on white
    assert read_image(data).pixels[0].tolist() == [[255, 255, 255], [255, 204, 204], [0, 100, 0], [9, 9, 9]]


def test_every_grey_on_every_alpha_is_rounded_to_the_nearest() -> None:
    grey, alpha = np.meshgrid(np.arange(256), np.arange(256))
    image = Image.fromarray(np.stack([grey, alpha], 2).astype(np.uint8), "LA")
    expected = np.rint((grey * alpha + 255 * (255 - alpha)) / 255)
    assert np.array_equal(read_image(saved(image, "PNG")).pixels[:, :, 1], expected)


def test_inks_are_inverted_only_where_adobe_says_so() -> None:
    adobe = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert np.abs(read_image(adobe).pixels[8, 8].astype(int) - (255, 0, 0)).max() <= 3
    # the same samples, 255 0 0 255, read as they are: full cyan and full black
    assert read_image(without_adobe(adobe)).pixels[8, 8].max() <= 3


def test_threads_read_odd_pictures_at_once_and_leave_the_warnings_alone(tmp_path: Path) -> None:
    paths = draw(tmp_path / "odd") * 3
    alone = {path: hash_pixels(read_image(path).pixels) for path in paths}
    filters, interval = list(warnings.filters), sys.getswitchinterval()
    barrier = threading.Barrier(8)

    def read(number: int) -> bool:
        barrier.wait(10)
        return all(hash_pixels(read_image(path).pixels) == alone[path] for path in paths[number:])

    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert warnings.filters == filters


def test_a_file_of_bytes_is_read_like_a_path(tmp_path: Path) -> None:
    data = saved(noise(), "WEBP")
    path = tmp_path / "a.webp"
    path.write_bytes(data)
    assert read_image(path).header == read_image(data).header
    assert io.BytesIO(data).getvalue() == path.read_bytes()


@pytest.mark.parametrize("kind", ["folder", "missing", "forbidden"])
def test_a_path_that_cannot_be_opened_says_so(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "forbidden":
        path.touch()

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", refuse)
    for read in (probe_image, read_image):
        with pytest.raises(UnreadableImageError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert 0 < len(caught.value.reason) < 30


def test_a_header_is_read_from_a_png_that_was_cut_behind_it() -> None:
    data = saved(noise(), "PNG")
    assert probe_image(data[:2000]) == probe_image(data)
