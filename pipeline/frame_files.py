"""Frames as files: their names, their formats, and encoding in workers beside the decoder."""

import hashlib
import io
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.files import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Format = Literal["jpg", "png", "webp"]
MOST_WAITING = 8  # frames of one video that wait for their encoder


def time_text(time_s: float) -> str:
    """A time as file names write it, `hh-mm-ss.mmm`, to the nearest millisecond; times below 0 are 0."""
    total_ms = max(0, round(time_s * 1000))
    total_s, milliseconds = divmod(total_ms, 1000)
    minutes, seconds = divmod(total_s, 60)
    return f"{minutes // 60:02d}-{minutes % 60:02d}-{seconds:02d}.{milliseconds:03d}"


def encode(pixels: "NDArray[np.uint8]", format: Format, quality: int) -> bytes:
    """Encode RGB pixels, uint8 [height, width, 3].

    Args:
        quality: 1 to 100 for jpg (full colour resolution) and webp, where 100 is lossless; png is lossless.
    """
    if format == "png":
        return _png(pixels)
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if format == "jpg":
        image.save(buffer, "JPEG", quality=quality, subsampling="4:4:4")
    else:
        image.save(
            buffer, "WEBP", lossless=quality == 100, quality=75 if quality == 100 else quality, method=2
        )
    return buffer.getvalue()


def _png(pixels: "NDArray[np.uint8]") -> bytes:
    """PNG by FFmpeg's encoder, one filter and zlib level 1: half the time of Pillow's lightest setting."""
    import av

    height, width, _ = pixels.shape
    encoder = av.CodecContext.create("png", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "rgb24"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"compression_level": "1", "pred": "up"}
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    frame.pts, frame.time_base = 0, encoder.time_base
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that was written whole."""

    name: str
    sha256: str
    size_bytes: int


class FrameWriter:
    """Encodes and writes the frames of one video in a pool that several videos may share.

    Args:
        pool: what encodes; pixels are made there too, as swscale releases the interpreter.
        folder: exists.
    """

    def __init__(self, pool: Executor, folder: Path, format: Format, quality: int) -> None:
        self._pool = pool
        self._folder = folder
        self._format = format
        self._quality = quality
        self._waiting: deque[Future[WrittenFile]] = deque()
        self.written: list[WrittenFile] = []  # in the order they were given, once `finish` is done

    def write(self, stem: str, pixels_of: Callable[[], "NDArray[np.uint8]"]) -> None:
        """Hand a frame over; waits while too many are in hand.

        Args:
            stem: file name without its suffix.
            pixels_of: gives RGB, uint8 [height, width, 3]; called in a worker.

        Raises:
            DiskFullError: an earlier frame found no room.
        """
        while len(self._waiting) >= MOST_WAITING:
            self.written.append(self._waiting.popleft().result())
        self._waiting.append(self._pool.submit(self._write_one, f"{stem}.{self._format}", pixels_of))

    def finish(self) -> list[WrittenFile]:
        """Wait for the rest.

        Raises:
            DiskFullError: no room for one of them.
        """
        while self._waiting:
            self.written.append(self._waiting.popleft().result())
        return self.written

    def cancel(self) -> None:
        """Give up what has not begun, and wait for what has."""
        for future in self._waiting:
            if not future.cancel():
                future.exception()
        self._waiting.clear()

    def _write_one(self, name: str, pixels_of: Callable[[], "NDArray[np.uint8]"]) -> WrittenFile:
        data = encode(pixels_of(), self._format, self._quality)
        write_atomic(self._folder / name, data, sync=False)
        return WrittenFile(name, hashlib.sha256(data).hexdigest(), len(data))
