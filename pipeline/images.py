"""Pictures read the same way everywhere: RGB, uint8, [height, width, 3], upright, on white, the first frame.

Pillow decodes: it refuses truncated files, where OpenCV gives a picture that is grey from the cut on.
Contents decide, not suffixes. Colour profiles are not applied, as trainers and taggers do not apply them.
"""

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import UnreadableImageError
from pipeline.files import write_atomic

Pixels = NDArray[np.uint8]

MAX_PIXELS = 178_956_970  # Pillow's own limit for a decompression bomb: half a gigabyte of RGB
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")
SUFFIXES = {
    "PNG": {".png"},
    "JPEG": {".jpg", ".jpeg", ".jfif"},
    "WEBP": {".webp"},
    "AVIF": {".avif"},
    "BMP": {".bmp"},
    "GIF": {".gif"},
    "TIFF": {".tif", ".tiff"},
}
ORIENTATION = 0x0112  # EXIF tag
TURNED = (5, 6, 7, 8)  # orientations that swap width and height
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
    OverflowError,
    struct.error,
    zlib.error,
    UserWarning,  # where warnings are errors
)

# Pillow remarks on odd metadata through Python's warnings, which name no file; what matters is in our notes.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a picture is, as every stage sees it."""

    width_px: int  # after the EXIF turn
    height_px: int
    format: str  # Pillow's name: "PNG", "JPEG"
    mode: str  # Pillow's name of the stored pixels: "RGB", "RGBA", "CMYK", "I;16"
    num_frames: int
    notes: tuple[str, ...]  # what was done to it, or what is odd about it


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture."""

    pixels: Pixels  # RGB, [height, width, 3], contiguous
    header: ImageHeader


def probe_image(source: Path | bytes) -> ImageHeader:
    """Read a header, without decoding.

    Raises:
        UnreadableImageError: empty, not a picture, too many pixels, or not to be opened.
    """
    with _opened(source) as image:
        return _header(image, source)


def read_image(source: Path | bytes) -> Picture:
    """Decode a picture.

    Raises:
        UnreadableImageError: truncated, empty, not a picture, too many pixels, or not to be opened.
    """
    with _opened(source) as image:
        header = _header(image, source)
        image.load()
        pixels = np.array(_rgb(_upright(image)), order="C")
    return Picture(pixels, header)


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
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    """An open picture, its size checked; every way of failing becomes an UnreadableImageError."""
    name = str(source) if isinstance(source, Path) else "the picture"
    try:
        file = source.open("rb") if isinstance(source, Path) else io.BytesIO(source)
    except OSError as error:
        reason = (error.strerror or "cannot be opened").lower()
        raise UnreadableImageError(f"{name} cannot be opened: {reason}", reason=reason) from error
    with file:
        image = _identify(file, name)
        with image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                text = f"{name} has {width:,} x {height:,} pixels, more than {MAX_PIXELS:,} in all"
                raise UnreadableImageError(text, reason="too many pixels")
            try:
                yield image
            except DECODING_ERRORS as error:
                text = f"{name} is truncated or damaged: {error}"
                raise UnreadableImageError(text, reason="truncated or damaged") from error


def _identify(file: BinaryIO, name: str) -> Image.Image:
    """Find the format that fits, by the file's first bytes.

    Not `Image.open`: it warns of many pixels through Python's warnings, which threads share, instead of
    leaving the limit to us, and it tries formats that nobody has as screenshots (fonts, icons, documents).
    """
    Image.init()
    prefix = file.read(16)
    if not prefix:
        raise UnreadableImageError(f"{name} is an empty file", reason="empty file")
    for format_name in FORMATS:
        factory, accept = Image.OPEN.get(format_name, (None, None))
        if factory is None or accept is None or accept(prefix) is not True:
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except DECODING_ERRORS as error:
            text = f"{name} is a damaged {format_name} file: {error}"
            raise UnreadableImageError(text, reason="truncated or damaged") from error
    raise UnreadableImageError(f"{name} is not a picture that can be read", reason="not a picture")


def _header(image: Image.Image, source: Path | bytes) -> ImageHeader:
    width, height = image.size
    orientation = _orientation(image)
    if orientation in TURNED and image.format != "TIFF":  # which Pillow turns by itself
        width, height = height, width
    num_frames = int(getattr(image, "n_frames", 1))
    format_name = "JPEG" if image.format == "MPO" else image.format or ""
    notes = _notes(image, orientation, num_frames if format_name != "JPEG" else 1)
    if isinstance(source, Path) and source.suffix.lower() not in SUFFIXES.get(format_name, ()):
        notes.append(f"{format_name} file named {source.suffix}")
    return ImageHeader(width, height, format_name, image.mode, num_frames, tuple(notes))


def _notes(image: Image.Image, orientation: int, num_frames: int) -> list[str]:
    notes = []
    if orientation != 1:
        notes.append("turned by EXIF")
    if _is_transparent(image):
        notes.append("transparent, on white")
    if num_frames > 1:
        notes.append("animated, first frame")
    if image.mode == "CMYK":
        notes.append("CMYK, converted")
    if image.mode.startswith(("I", "F")):
        notes.append("more than 8 bits, scaled")
    return notes


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) when there is none or it is nonsense."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except DECODING_ERRORS:
        return 1
    return value if value in range(1, 9) else 1


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _upright(image: Image.Image) -> Image.Image:
    method = TURNS.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _rgb(image: Image.Image) -> Pixels:
    """Pixels of an open picture: RGB, [height, width, 3]."""
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image).astype(np.int64), 0, FULL_16_BITS)
        return _from_grey((grey + 128) // 257)  # 65535 / 255 = 257, rounded
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        full = 1.0 if values.max(initial=0.0) <= 1.0 else 255.0
        return _from_grey(np.clip(np.rint(values * (255.0 / full)), 0, 255))
    if _is_transparent(image):
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return np.asarray(white)
    return np.asarray(image.convert("RGB"))


def _from_grey(grey: "NDArray[np.generic]") -> Pixels:
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
