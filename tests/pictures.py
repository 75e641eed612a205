"""Small picture files of every odd kind, drawn here, so that nothing has to be downloaded.

`odd_pictures()` gives them all by name; the other functions make one kind each, as bytes.
"""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, features

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
PNG_START = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # colour types of PNG


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    """A picture as a file of one format."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(width: int = 61, height: int = 43, seed: int = 0) -> Image.Image:
    """A picture in which every byte counts, so that a cut file cannot decode."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def letter_f() -> Image.Image:
    """A black F on white, 3 wide and 5 high: no turn and no mirror image of it looks the same."""
    rows = ["###", "#..", "##.", "#..", "#.."]
    return Image.fromarray(
        np.array([[[0 if dot == "#" else 255] * 3 for dot in row] for row in rows], np.uint8)
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    depth: int,
    colour_type: int,
    rows: list[bytes],
    *,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG by hand, which Pillow would not write.

    Args:
        rows: packed samples of each row, without the filter byte.
        before, after: chunks before and after the pixels.
    """
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return PNG_START + chunk(b"IHDR", head) + before + chunk(b"IDAT", pixels) + after + chunk(b"IEND", b"")


def bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """A whole 1-bit PNG of very many black pixels in few bytes: 400 million take 50 MB unpacked."""
    head = struct.pack(">IIBBBBB", width, height, 1, GREY, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row * 100) for _ in range(height // 100)) + packer.flush()
    return PNG_START + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def exif(orientation: int, order: str = "<") -> bytes:
    """The smallest EXIF block that turns a picture."""
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return start + struct.pack(order + "HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)


def broken_exif() -> bytes:
    """An EXIF block whose second field points behind the end; the orientation before it is sound."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHII", 0x010F, 2, 9999, 8000)
    return b"II" + struct.pack("<HIH", 42, 8, 2) + entries + b"\0\0\0\0"


def jpeg_with_exif(image: Image.Image, block: bytes) -> bytes:
    """A JPEG that is nearly lossless, with an EXIF block as it is."""
    data = saved(image, "JPEG", quality=100, subsampling="4:4:4")
    segment = b"Exif\0\0" + block
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def without_adobe(jpeg: bytes) -> bytes:
    """A JPEG without its Adobe segment, which says that the inks are stored inverted."""
    at = jpeg.index(b"\xff\xee")
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


def animation(format: str, colours: tuple[tuple[int, int, int], ...] = (RED, GREEN, BLUE)) -> bytes:
    """A picture of several flat frames."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in colours]
    return saved(frames[0], format, save_all=True, append_images=frames[1:], duration=100)


def formats() -> list[str]:
    """Formats that this Pillow can write, of those that are read."""
    return ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", *(["AVIF"] if features.check("avif") else [])]


def odd_pictures() -> dict[str, bytes]:
    """Every odd kind that is still a picture, by a file name."""
    grey16 = Image.fromarray(np.array([[0, 128, 257, 65535]], np.uint16))
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    kinds: dict[str, bytes] = {
        "rgba.png": saved(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG"),
        "grey alpha.png": saved(Image.new("LA", (4, 4), (100, 51)), "PNG"),
        "palette alpha.png": saved(palette, "PNG", transparency=b"\x80\xff"),
        "colour key.png": saved(Image.new("RGB", (4, 4), RED), "PNG", transparency=RED),
        "16 bits.png": saved(grey16, "PNG"),
        "16 bits big endian.tif": saved(Image.frombytes("I;16B", (2, 1), b"\x00\x80\xff\xff"), "TIFF"),
        "1 bit.png": saved(Image.new("1", (9, 3), 1), "PNG"),
        "float.tif": saved(Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)), "TIFF"),
        "cmyk.jpg": saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"),
        "turned.jpg": jpeg_with_exif(letter_f(), exif(6)),
        "broken exif.jpg": jpeg_with_exif(noise(), broken_exif()),
        "late exif.png": png(1, 2, 8, GREY, [b"\0", b"\xff"], after=chunk(b"eXIf", exif(6))),
        "a PNG.jpg": saved(noise(), "PNG"),
        "\u732b \u00e9e\u0301 #100%.webp": saved(noise(), "WEBP"),
        "no suffix": saved(noise(), "JPEG"),
    }
    for name in ("GIF", "PNG", "WEBP", *(["AVIF"] if features.check("avif") else [])):
        kinds[f"animation.{name.lower()}"] = animation(name)
    return kinds


def unreadable_pictures() -> dict[str, tuple[bytes, str]]:
    """Files that must be refused, by a file name: bytes and the reason in short."""
    whole = saved(noise(), "PNG")
    return {
        "empty.png": (b"", "empty file"),
        "page.jpg": (b"<!DOCTYPE html><html>404</html>", "not a picture"),
        "cut.png": (whole[: len(whole) // 2], "truncated"),
        "cut.jpg": (saved(noise(), "JPEG")[:-40], "truncated"),
        "flipped.png": (whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], "damaged"),
        "bomb.png": (bomb(), "too many pixels"),
    }


def draw(folder: Path, pictures: Callable[[], dict[str, bytes]] = odd_pictures) -> list[Path]:
    """Write pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, data in pictures().items():
        paths.append(folder / name)
        paths[-1].write_bytes(data)
    return paths
