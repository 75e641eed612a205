"""The containers of picture files: what lies around the pixels, read without decoding.

Pillow decodes the pixels. What it does not do, or does in ways that do not suit a library, is done before:

- A file must reach its own end. Pillow refuses cut files too, unless some other library of the process has
  set LOAD_TRUNCATED_IMAGES, as trainers like to: then it returns pictures that are grey from the cut on.
- Checksums of PNG chunks are compared: Pillow skips those of the pixels.
- Metadata is left out of what Pillow is given. It warns of odd EXIF through Python's warnings, which threads
  share, and refuses whole pictures for a broken colour profile or a long text beside the pixels.
- Sizes are known before a decoder takes memory for them.

Sources: PNG third edition (W3C), EXIF 2.32 section 4.6, GIF89a, RFC 9649 (WebP), TIFF 6.0,
ISO/IEC 14496-12 (AVIF boxes).
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Literal

MAX_PIXELS = 89_478_485  # where Pillow starts to speak of bombs: 256 MiB of RGB
SNIFFED_BYTES = 64

Reason = Literal["truncated", "damaged", "too many pixels"]

_EXIF_MARK = b"Exif\0\0"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_NEEDED = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_PNG_GREY, _PNG_RGB, _PNG_PALETTE = 0, 2, 3  # colour types
_MAX_EXIF_BYTES = 1 << 20
_JPEG_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a segment


class ContainerError(Exception):
    """A picture file that cannot be decoded; `reason` is short and countable, the text tells more."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Container:
    """A file as the decoder is given it, and what was found around the pixels."""

    body: BinaryIO
    num_frames: int = 1
    orientation: int = 1  # EXIF, 1 to 8
    colour_key: tuple[int, ...] | None = None  # of PNG: decoded samples, one or three, that are transparent
    has_plain_inks: bool = False  # CMYK of a JPEG stored as it is, not inverted as Adobe does
    is_usual_jpeg: bool = False  # YCbCr of 8 bits, colour at full or half resolution


def sniff_format(start: bytes) -> str | None:
    """Pillow's name of a file's format, by its first bytes; None for anything that is no picture."""
    if start.startswith(_PNG_START):
        return "PNG"
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[4:8] == b"ftyp" and (b"avif" in start[8:] or b"avis" in start[8:]):
        return "AVIF"
    if start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    return "BMP" if start.startswith(b"BM") else None


def read_container(format_name: str, stream: BinaryIO, *, is_whole: bool) -> Container:
    """Walk through a file.

    Args:
        is_whole: go to the end and keep the pixels; without it a file that was cut may pass.

    Raises:
        ContainerError: truncated, damaged, or too many pixels.
    """
    stream.seek(0)
    try:
        return _WALKS[format_name](stream, is_whole)
    except (struct.error, IndexError) as error:
        raise ContainerError("damaged", f"a header of {format_name} is broken: {error}") from error


def check_size(width: int, height: int) -> None:
    """Refuse a picture by its size.

    Raises:
        ContainerError: no pixels, or more than MAX_PIXELS.
    """
    if width < 1 or height < 1:
        raise ContainerError("damaged", f"it has {width:,} x {height:,} pixels")
    if width * height > MAX_PIXELS:
        raise ContainerError(
            "too many pixels", f"it has {width:,} x {height:,} pixels, more than {MAX_PIXELS:,} in all"
        )


def exif_orientation(block: bytes) -> int:
    """How an EXIF block says to turn a picture, 1 to 8; 1, upright, where it says nothing or nonsense."""
    block = block.removeprefix(_EXIF_MARK)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return 1
    try:
        (first,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, first)
        for at in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", block, at)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + {1: "B", 4: "I"}.get(kind, "H"), block, at + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _take(stream: BinaryIO, num_bytes: int) -> bytes:
    data = stream.read(num_bytes)
    if len(data) < num_bytes:
        raise ContainerError("truncated", "the file ends in the middle")
    return data


def _size_of(stream: BinaryIO) -> int:
    here = stream.tell()
    size = stream.seek(0, 2)
    stream.seek(here)
    return size


def _png(stream: BinaryIO, is_whole: bool) -> Container:
    size_bytes = _size_of(stream)
    kept = [_take(stream, 8)]
    depth = colour_type = 0
    transparency: bytes | None = None
    num_frames, orientation = 1, 1
    for length, kind in _png_chunks(stream, size_bytes, is_whole=is_whole):
        is_wanted = kind in _PNG_NEEDED and (is_whole or kind not in (b"IDAT", b"IEND"))
        if not is_wanted and (kind not in (b"tRNS", b"eXIf", b"acTL") or length > _MAX_EXIF_BYTES):
            stream.seek(length + 4, 1)
            continue
        data = _take(stream, length)
        is_sound = zlib.crc32(data, zlib.crc32(kind)) == int.from_bytes(_take(stream, 4), "big")
        if not is_sound and (is_wanted or kind == b"tRNS"):
            raise ContainerError("damaged", f"the checksum of its {kind.decode()} is wrong")
        if kind == b"IHDR":
            width, height, depth, colour_type = struct.unpack_from(">IIBB", data)
            check_size(width, height)
        elif kind == b"tRNS":
            transparency = data
        elif kind == b"eXIf" and is_sound:
            orientation = exif_orientation(data)
        elif kind == b"acTL" and is_sound:
            num_frames = max(1, struct.unpack_from(">I", data)[0])
        if is_wanted:
            kept.append(_png_chunk(kind, data))
        if kind == b"tRNS" and colour_type == _PNG_PALETTE:
            kept.append(_png_chunk(kind, data))
    if not is_whole:
        kept.append(_png_chunk(b"IDAT", b"") + _png_chunk(b"IEND", b""))
    key = None if transparency is None else _png_colour_key(transparency, depth, colour_type)
    return Container(BytesIO(b"".join(kept)), num_frames, orientation, key)


def _png_chunks(stream: BinaryIO, size_bytes: int, *, is_whole: bool) -> Iterator[tuple[int, bytes]]:
    """(length, kind) of each chunk, to the end mark or to a cut in the pixels; the stream is at its data."""
    kind = b""
    while kind != b"IEND":
        is_first = not kind
        length, kind = struct.unpack(">I4s", _take(stream, 8))
        if not kind.isalpha() or is_first != (kind == b"IHDR"):
            raise ContainerError("damaged", "its chunks are broken")
        if stream.tell() + length + 4 > size_bytes:
            if kind == b"IDAT" and not is_whole:
                return
            raise ContainerError("truncated", f"the file ends in the middle of its {kind.decode()}")
        yield length, kind


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big")


def _png_colour_key(data: bytes, depth: int, colour_type: int) -> tuple[int, ...] | None:
    """The one transparent colour, as samples come out of the decoder: 8 bits, or 16 of grey."""
    if colour_type == _PNG_GREY:
        (grey,) = struct.unpack_from(">H", data)
        return (grey if depth >= 8 else grey * 255 // (2**depth - 1),)
    if colour_type == _PNG_RGB:
        samples = struct.unpack_from(">3H", data)
        return tuple(sample >> 8 for sample in samples) if depth == 16 else samples
    return None


def _jpeg(stream: BinaryIO, is_whole: bool) -> Container:
    kept = [_take(stream, 2)]
    orientation: int | None = None
    is_adobe, num_components, is_usual = False, 0, False
    marker = 0
    while marker != 0xDA:  # start of scan
        marker = _jpeg_marker(stream)
        if marker in _JPEG_ALONE:
            continue
        if marker == 0xD9:
            raise ContainerError("damaged", "it ends before its pixels")
        (length,) = struct.unpack(">H", _take(stream, 2))
        data = _take(stream, max(0, length - 2))
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, num_components = struct.unpack_from(">xHHB", data)
            check_size(width, height)
            is_usual = marker <= 0xC2 and data[0] == 8 and _has_usual_sampling(data[6:])
        elif marker == 0xE1 and data.startswith(_EXIF_MARK) and orientation is None:
            orientation = exif_orientation(data)
        is_adobe |= marker == 0xEE and data.startswith(b"Adobe")
        if not (0xE1 <= marker <= 0xEF or marker == 0xFE) or marker == 0xEE:  # application data, comments
            kept.append(b"\xff" + bytes([marker]) + length.to_bytes(2, "big") + data)
    if is_whole:
        scans = stream.read()
        end = scans.rfind(b"\xff\xd9")
        if end < 0:
            raise ContainerError("truncated", "the file ends in the middle")
        kept.append(scans[: end + 2])
    has_plain_inks = num_components == 4 and not is_adobe
    is_usual = is_usual and not is_adobe
    return Container(BytesIO(b"".join(kept)), 1, orientation or 1, None, has_plain_inks, is_usual)


def _has_usual_sampling(components: bytes) -> bool:
    """Y, Cb and Cr numbered 1 to 3, both colours at full, half or a quarter of the pixels."""
    usual_y = (0x11, 0x21, 0x22)  # samples across and down for each of a colour
    return components[::3] == b"\1\2\3" and components[1] in usual_y and components[4::3] == b"\x11\x11"


def _jpeg_marker(stream: BinaryIO) -> int:
    """The next marker; bytes that do not belong there are passed over, as decoders do."""
    previous = 0
    while True:
        byte = _take(stream, 1)[0]
        if previous == 0xFF and byte not in (0x00, 0xFF):
            return byte
        previous = byte


def _gif(stream: BinaryIO, is_whole: bool) -> Container:
    width, height, flags = struct.unpack("<6xHHBxx", _take(stream, 13))
    check_size(width or 1, height or 1)
    _skip_gif_palette(stream, flags)
    num_frames = 0
    while (mark := _take(stream, 1)) != b";":
        if mark == b",":
            left, top, frame_width, frame_height, flags = struct.unpack("<HHHHB", _take(stream, 9))
            check_size(max(width, left + frame_width), max(height, top + frame_height))
            _skip_gif_palette(stream, flags)
            _take(stream, 1)
            num_frames += 1
        elif mark == b"!":
            _take(stream, 1)
        else:
            continue  # stray bytes between blocks, as decoders allow
        while length := _take(stream, 1)[0]:
            _take(stream, length)
    if not num_frames:
        raise ContainerError("damaged", "it holds no frame")
    stream.seek(0)
    return Container(stream, num_frames)


def _skip_gif_palette(stream: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        _take(stream, 3 * 2 ** ((flags & 7) + 1))


def _webp(stream: BinaryIO, is_whole: bool) -> Container:
    (length,) = struct.unpack("<4xI4x", _take(stream, 12))
    end = 8 + length
    if end > _size_of(stream):
        raise ContainerError("truncated", "the file ends in the middle")
    num_frames, orientation = 0, 1
    while stream.tell() + 8 <= end:
        kind, size_bytes = struct.unpack("<4sI", _take(stream, 8))
        following = stream.tell() + size_bytes + size_bytes % 2
        if stream.tell() + size_bytes > end:
            raise ContainerError("truncated", "a chunk is longer than the file")
        if kind == b"VP8X":
            start = _take(stream, 10)
            check_size(1 + int.from_bytes(start[4:7], "little"), 1 + int.from_bytes(start[7:10], "little"))
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", _take(stream, 10), 6)
            check_size(width & 0x3FFF, height & 0x3FFF)
        elif kind == b"VP8L":
            bits = int.from_bytes(_take(stream, 5)[1:], "little")
            check_size(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif kind == b"EXIF" and size_bytes <= _MAX_EXIF_BYTES:
            orientation = exif_orientation(_take(stream, size_bytes))
        num_frames += kind == b"ANMF"
        stream.seek(following)
    stream.seek(0)
    return Container(stream, max(1, num_frames), orientation)


def _avif(stream: BinaryIO, is_whole: bool) -> Container:
    end = _size_of(stream)
    while (at := stream.tell()) < end:
        length = int.from_bytes(_take(stream, 4), "big")
        _take(stream, 4)
        if length == 1:
            length = int.from_bytes(_take(stream, 8), "big")
        if length == 0:  # to the end of the file
            break
        if length < 8:
            raise ContainerError("damaged", "its boxes are broken")
        if at + length > end:
            raise ContainerError("truncated", "the file ends in the middle")
        stream.seek(at + length)
    stream.seek(0)
    return Container(stream)


def _bmp(stream: BinaryIO, is_whole: bool) -> Container:
    claimed, offset, head_bytes = struct.unpack("<2xI4xII", _take(stream, 18))
    if head_bytes < 40:  # of OS/2
        width, height, depth = struct.unpack("<HHxxH", _take(stream, 8))
        compression = 0
    else:
        width, height, depth, compression = struct.unpack("<iixxHI", _take(stream, 16))
    row_bytes = (width * depth + 7) // 8
    is_packed = compression in (1, 2, 4, 5)  # run lengths, or a JPEG or PNG inside
    needed = claimed if is_packed else offset + (row_bytes + 3) // 4 * 4 * (abs(height) - 1) + row_bytes
    check_size(width, abs(height))
    if is_whole and needed > _size_of(stream):
        raise ContainerError("truncated", "the file ends in the middle")
    stream.seek(0)
    return Container(stream)


def _tiff(stream: BinaryIO, is_whole: bool) -> Container:
    start = _take(stream, 8)
    order = "<" if start.startswith(b"II") else ">"
    version, first = struct.unpack_from(order + "HI", start, 2)
    if version == 42:  # 43 is BigTIFF, of another shape
        stream.seek(first)
        (count,) = struct.unpack(order + "H", _take(stream, 2))
        _take(stream, 12 * count)
    stream.seek(0)
    return Container(stream)


_WALKS: dict[str, Callable[[BinaryIO, bool], Container]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "GIF": _gif,
    "WEBP": _webp,
    "AVIF": _avif,
    "BMP": _bmp,
    "TIFF": _tiff,
}
