"""Pictures read the same way everywhere: RGB, uint8, [height, width, 3], upright, on white, the first frame.

Pillow decodes, or simplejpeg the same pixels, once `image_containers` has found that the file reaches its
end: OpenCV gives pictures that are grey from a cut on. Contents decide, not suffixes. Any number of threads
may read at once. Colour profiles are not applied, as trainers and taggers do not apply them.
"""

import hashlib
import io
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pipeline.errors import UnreadableImageError
from pipeline.files import write_atomic
from pipeline.image_containers import (
    SNIFFED_BYTES,
    Container,
    ContainerError,
    check_size,
    exif_orientation,
    read_container,
    sniff_format,
)

Pixels = NDArray[np.uint8]

PLUGINS: dict[str, type[ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WEBP": WebPImageFile,
    "AVIF": AvifImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
}
SUFFIXES = {
    "PNG": {".png"},
    "JPEG": {".jpg", ".jpeg", ".jfif"},
    "WEBP": {".webp"},
    "AVIF": {".avif"},
    "BMP": {".bmp"},
    "GIF": {".gif"},
    "TIFF": {".tif", ".tiff"},
}
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
FULL_16_BITS = 65535
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
ORIENTATION_TAG = 0x0112  # of TIFF, and of EXIF
_OFFSETS, _LENGTHS = (273, 324), (279, 325)  # TIFF tags: where the strips or tiles lie, and how long they are
ROOM_BYTES = 1 << 26
_WARNINGS = threading.Lock()


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a picture is, as every stage sees it."""

    width_px: int  # after the EXIF turn
    height_px: int
    format: str  # Pillow's name: "PNG", "JPEG"
    mode: str  # Pillow's name of the stored pixels: "RGB", "RGBA", "CMYK", "I;16"
    num_frames: int
    notes: tuple[str, ...]  # what was done to it, or what is odd about it
    orientation: int = 1  # of EXIF, 1 to 8, as the file says it


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture."""

    pixels: Pixels  # RGB, [height, width, 3], contiguous
    header: ImageHeader


class Room:
    """Memory to decode into, one piece for each thread: new memory for each 1080p picture costs 2 ms."""

    def __init__(self) -> None:
        self._own = threading.local()

    def take(self, num_bytes: int) -> "NDArray[np.uint8]":
        """So many bytes, the same ones for this thread next time; huge pictures are not kept room for."""
        if num_bytes > ROOM_BYTES:
            return np.empty(num_bytes, np.uint8)
        if getattr(self._own, "memory", None) is None or len(self._own.memory) < num_bytes:
            self._own.memory = np.empty(num_bytes, np.uint8)
        memory: NDArray[np.uint8] = self._own.memory
        return memory[:num_bytes]


def probe_image(source: Path | bytes) -> ImageHeader:
    """Read a header, without decoding; a file that was cut behind it may pass.

    Raises:
        UnreadableImageError: empty, not a picture, too many pixels, or not to be opened.
    """
    with _opened(source, is_whole=False) as (image, container):
        return _header(image, container, source)


def read_image(source: Path | bytes, *, reduce_to_px: int | None = None, room: Room | None = None) -> Picture:
    """Decode a picture.

    Args:
        reduce_to_px: decode a JPEG at a half, a quarter or an eighth, as long as its long side stays at least
            this long: several times faster, and a little blurred. `header` tells the sizes of the file.
        room: where pixels may lie; they are good until the same thread reads the next picture into it.

    Raises:
        UnreadableImageError: truncated, damaged, empty, not a picture, too many pixels, or not to be opened.
    """
    with _opened(source, is_whole=True) as (image, container):
        header = _header(image, container, source)
        if reduce_to_px is not None and isinstance(image, JpegImageFile):
            _reduce(image, reduce_to_px)
        pixels = _usual_jpeg(image.size, container, room)
        if pixels is None:
            image.load()
            pixels = np.array(_rgb(_upright(image, container), container), order="C")
    return Picture(pixels, header)


def _usual_jpeg(size: tuple[int, int], container: Container, room: Room | None) -> Pixels | None:
    """Pixels of a usual JPEG by simplejpeg: those of Pillow for two fifths less work; None of all else.

    Both stand on libjpeg-turbo. Upright YCbCr goes this way; what libjpeg remarks on is left to Pillow, which
    says what is wrong with it. (OpenCV is slower, and lets libjpeg write its remarks on the terminal.)
    """
    body = container.body
    if not container.is_usual_jpeg or container.orientation != 1 or not isinstance(body, io.BytesIO):
        return None
    import simplejpeg

    width, height = size
    memory = None if room is None else room.take(3 * width * height)
    with suppress(ValueError):  # any remark of libjpeg, such as on damage
        decoded = simplejpeg.decode_jpeg(
            body.getvalue(), "RGB", min_width=width, min_height=height, buffer=memory
        )
        if decoded.shape[1::-1] == size:
            return np.asarray(decoded, np.uint8)
    return None


def read_alpha(source: Path | bytes) -> Pixels | None:
    """How opaque a picture is, 0 to 255, upright: [height, width]; None for one that nothing shines through.

    Raises:
        UnreadableImageError: as `read_image`.
    """
    with _opened(source, is_whole=True) as (image, container):
        image.load()
        if not _is_transparent(image):
            return None
        alpha = image.convert("RGBA").getchannel("A")
        method = None if image.format == "TIFF" else TURNS.get(container.orientation)
        return np.array(alpha if method is None else alpha.transpose(method), order="C")


def _reduce(image: JpegImageFile, long_side_px: int) -> None:
    """Ask the decoder for fewer pixels: Pillow takes the strongest reduction that keeps both sides."""
    width, height = image.size
    share = min(1.0, long_side_px / max(width, height))
    image.draft(image.mode, (math.ceil(width * share), math.ceil(height * share)))


def write_image(path: Path, pixels: Pixels, *, quality: int | None = None) -> None:
    """Write RGB pixels, whole or not at all; the suffix decides the format.

    Args:
        pixels: RGB, uint8, [height, width, 3].
        quality: 1 to 100 for JPEG (95 when left out; full colour resolution) and WebP (lossless when left
            out).

    Raises:
        ValueError: a suffix that is not .png, .jpg, .jpeg or .webp.
        DiskFullError: no room; nothing is left behind.
    """
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    match path.suffix.lower():
        case ".png":
            image.save(buffer, "PNG")
        case ".jpg" | ".jpeg":
            image.save(buffer, "JPEG", quality=95 if quality is None else quality, subsampling="4:4:4")
        case ".webp" if quality is None:
            image.save(buffer, "WEBP", lossless=True)
        case ".webp":
            image.save(buffer, "WEBP", quality=quality)
        case other:
            raise ValueError(f"{path}: pictures are written as png, jpg or webp, not {other}")
    write_atomic(path, buffer.getvalue())


def hash_pixels(pixels: Pixels) -> str:
    """sha256, hex, of shape and pixels: equal for pictures that show the same, whatever their files."""
    digest = hashlib.sha256(np.array(pixels.shape, dtype="<u4").tobytes())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


@contextmanager
def _opened(source: Path | bytes, *, is_whole: bool) -> Iterator[tuple[ImageFile, Container]]:
    """An open picture, its size checked; every way of failing becomes an UnreadableImageError."""
    name = str(source) if isinstance(source, Path) else "the picture"
    try:
        file = source.open("rb") if isinstance(source, Path) else io.BytesIO(source)
    except OSError as error:
        reason = (error.strerror or "cannot be opened").lower()
        raise UnreadableImageError(f"{name} cannot be opened: {reason}", reason=reason) from error
    with file:
        start = file.read(SNIFFED_BYTES)
        if not start:
            raise UnreadableImageError(f"{name} is an empty file", reason="empty file")
        format_name = sniff_format(start)
        if format_name is None:
            raise UnreadableImageError(f"{name} is not a picture that can be read", reason="not a picture")
        try:
            container = read_container(format_name, file, is_whole=is_whole)
            with _quietly(format_name == "TIFF"):
                with _quietly(format_name == "AVIF"):
                    # not Image.open, which warns of many pixels and tries formats that are no screenshots
                    image = PLUGINS[format_name](container.body)
                with image:
                    _check(image, container, is_whole=is_whole)
                    yield image, _with_own_turn(image, container)
        except ContainerError as error:
            raise UnreadableImageError(f"{name} is refused: {error}", reason=error.reason) from error
        except DECODING_ERRORS as error:
            text = str(error) or type(error).__name__
            reason = "truncated" if "truncated" in text else "damaged"
            raise UnreadableImageError(f"{name} is {reason}: {text}", reason=reason) from error


@contextmanager
def _quietly(is_noisy: bool) -> Iterator[None]:
    """Keep Pillow's remarks on odd metadata out of Python's warnings, which name no file.

    Only where the metadata cannot be left out (reading a TIFF, opening an AVIF), and for one picture at a
    time: the list of warning filters is one for all threads.
    """
    if not is_noisy:
        yield
        return
    with _WARNINGS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _check(image: ImageFile, container: Container, *, is_whole: bool) -> None:
    check_size(*image.size)
    if is_whole and isinstance(image, TiffImageFile):
        offsets = next((image.tag_v2[tag] for tag in _OFFSETS if tag in image.tag_v2), ())
        lengths = next((image.tag_v2[tag] for tag in _LENGTHS if tag in image.tag_v2), ())
        size_bytes = container.body.seek(0, io.SEEK_END)
        if any(offset + length > size_bytes for offset, length in zip(offsets, lengths, strict=False)):
            raise ContainerError("truncated", "the file ends in the middle")


def _with_own_turn(image: ImageFile, container: Container) -> Container:
    """AVIF says by its own boxes how to turn it, which Pillow tells as EXIF; TIFF has a tag."""
    if image.format == "AVIF":
        return replace(container, orientation=exif_orientation(image.info.get("exif", b"")))
    if isinstance(image, TiffImageFile):
        orientation = image.tag_v2.get(ORIENTATION_TAG, 1)
        return replace(container, orientation=orientation if orientation in TURNS else 1)
    return container


def _header(image: ImageFile, container: Container, source: Path | bytes) -> ImageHeader:
    width, height = image.size
    format_name = image.format or ""
    if container.orientation in TURNED and format_name != "TIFF":  # which Pillow turns by itself
        width, height = height, width
    num_frames = max(container.num_frames, int(getattr(image, "n_frames", 1)))
    notes = _notes(image, container, num_frames)
    if isinstance(source, Path) and source.suffix.lower() not in SUFFIXES[format_name]:
        notes.append(f"{format_name} file named {source.suffix}")
    return ImageHeader(
        width, height, format_name, image.mode, num_frames, tuple(notes), container.orientation
    )


def _notes(image: ImageFile, container: Container, num_frames: int) -> list[str]:
    notes = []
    if container.orientation != 1:
        notes.append("turned by EXIF")
    if _is_transparent(image) or container.colour_key is not None:
        notes.append("transparent, on white")
    if num_frames > 1:
        notes.append("animated, first frame")
    if image.mode == "CMYK":
        notes.append("CMYK, converted")
    if image.mode.startswith(("I", "F")):
        notes.append("more than 8 bits, scaled")
    return notes


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _upright(image: ImageFile, container: Container) -> Image.Image:
    method = TURNS.get(container.orientation)
    return image if method is None or image.format == "TIFF" else image.transpose(method)


def _rgb(image: Image.Image, container: Container) -> Pixels:
    """Pixels of a decoded picture: RGB, [height, width, 3]."""
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image).astype(np.int64), 0, FULL_16_BITS)
        pixels = _from_grey((grey + 128) // 257)  # 65535 / 255 = 257, rounded
    elif image.mode == "F":
        values = np.nan_to_num(np.asarray(image)).astype(np.float64)
        full = 1.0 if values.max(initial=0.0) <= 1.0 else 255.0
        pixels = _from_grey(np.rint(np.clip(values, 0.0, full) * (255.0 / full)))
    elif _is_transparent(image):
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return np.asarray(white)
    else:
        # Pillow takes the inks of every JPEG for inverted
        upright = ImageChops.invert(image) if container.has_plain_inks else image
        pixels = np.asarray(upright if upright.mode == "RGB" else upright.convert("RGB"))
    if container.colour_key is None:
        return pixels
    samples = np.atleast_3d(np.asarray(image if image.mode != "1" else image.convert("L")))
    is_key = (samples == container.colour_key).all(axis=2, keepdims=True)
    return np.where(is_key, np.uint8(255), pixels)


def _from_grey(grey: "NDArray[np.generic]") -> Pixels:
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
