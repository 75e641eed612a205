"""Decode video with PyAV: frames in time order as views of the decoder's planes, converted only on demand.

    with VideoReader(path) as reader:
        for frame in reader:                    # seconds from the start of the file, by pts * time_base
            grid = frame.luma_grid()            # uint8 [height, width], about 320 cells across
            if worth_keeping(grid):
                rgb = frame.rgb()               # uint8 [height, width, 3], square pixels
    reader.problems                             # what could not be decoded, once the loop is through

Interlaced frames are deinterlaced as they come (bwdif, one frame for each frame). A damaged or truncated file
gives what decodes; `problems` says the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.video_headers import UnreadableVideoError, describe, open_container, pick_stream

if TYPE_CHECKING:
    from av.video.frame import VideoFrame as AvFrame
    from av.video.stream import VideoStream

GRID_WIDTH_CELLS = 320
LEAST_CELL_PX = (
    2  # a box of 5 cells is wider then than a coded block of 8 px, whose errors even out in its mean
)
DETAIL_ROW_STEP = 9  # rows that a grid of 1080 lines reads too
MOST_CHANNELS = 4  # of an OpenCV transform
MISSING_S = 0.5  # decoded that much less than the stream says: truncated
MISSING_CONTAINER_S = 2.0  # the same where only the container, which also holds sound, says how long it is
MOST_PROBLEMS = 20  # named; more are counted
# swscale's bicubic with accurate rounding and chroma at full width: without, 10 bits lose 2 levels; 3x slower
_EXACT_BICUBIC = 0x4 | 0x40000 | 0x2000

Deinterlace = Literal["auto", "off", "on"]
Box = tuple[int, int, int, int]  # left, top, right, bottom in coded pixels; right and bottom are outside


@dataclass(frozen=True, slots=True)
class VideoProblem:
    """Something that did not decode."""

    reason: str  # short, the same for all of its kind
    detail: str


@dataclass(slots=True)
class VideoFrame:
    """One decoded frame. Its planes belong to the decoder's pool: do not keep hundreds."""

    index: int  # counts decoded frames from 0
    time_s: float  # from the start of the file
    is_key: bool
    picture: "AvFrame"
    pixel_aspect: Fraction = field(default=Fraction(1))

    def luma(self) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """The luma plane, [height, width], without a copy: uint8, or uint16 for more than 8 bits.

        Samples of more than 8 bits lie in the low bits (0 to 1023 for 10), but for P010 in the high ones.
        A format without a luma plane (RGB, palettes) is converted.
        """
        picture = self._with_luma()
        plane = picture.planes[0]
        sample = np.uint8 if picture.format.components[0].bits == 8 else np.uint16
        rows = np.frombuffer(plane, np.uint8).view(sample)  # type: ignore[call-overload]
        per_line = plane.line_size // np.dtype(sample).itemsize
        return rows.reshape(-1, per_line)[: picture.height, : picture.width]  # type: ignore[no-any-return]

    def luma_grid(self, width_cells: int = GRID_WIDTH_CELLS) -> NDArray[np.uint8]:
        """Means over square cells of the luma, uint8 [height, width], full range: 0 black to 255 white.

        Half of the rows of a cell are read, which halves the cost and keeps the noise low.

        Args:
            width_cells: cells across, about; a cell has a whole number of pixels, at least `LEAST_CELL_PX`.
        """
        import cv2

        luma = self.luma()
        height_px, width_px = luma.shape
        cell_px = max(LEAST_CELL_PX, round(width_px / width_cells))
        cell_px = max(1, min(cell_px, width_px, height_px))
        size = (width_px // cell_px, height_px // cell_px)
        rows = luma[: size[1] * cell_px : max(1, cell_px // 2), : size[0] * cell_px]
        num_pairs = cell_px // 2
        if luma.dtype != np.uint8 or cell_px % 2 or num_pairs > MOST_CHANNELS:
            return self._full_range(cv2.resize(rows, size, interpolation=cv2.INTER_AREA))
        # OpenCV is fast for 2 x 2 alone; the pairs of a cell are summed as the channels of one sample
        pairs = cv2.resize(rows, (size[0] * num_pairs, size[1]), interpolation=cv2.INTER_AREA)
        scale, offset = self._to_full_range()
        weights = np.full((1, num_pairs + 1), scale / num_pairs, np.float32)
        weights[0, -1] = offset
        return np.asarray(cv2.transform(pairs.reshape(size[1], size[0], num_pairs), weights), np.uint8)

    def luma_levels(self) -> NDArray[np.uint8]:
        """The whole luma in levels of full range, uint8 [height, width]: a copy."""
        return self._full_range(self.luma())

    def sharpness(self) -> float:
        """Mean absolute difference of neighbours along every ninth row, in levels of 8 bits."""
        import cv2

        rows = self.luma()[::DETAIL_ROW_STEP]
        total = cv2.norm(rows[:, 1:], rows[:, :-1], cv2.NORM_L1)
        return float(total / rows.size / (1 << self._excess_bits()))

    def rgb(self, box: Box | None = None) -> NDArray[np.uint8]:
        """The frame in colour: RGB, uint8, [height, width, 3]; anamorphic pixels are made square.

        The frame's own matrix and range are used (BT.709 from 720 lines on where it names none).

        Args:
            box: the part to give, in coded pixels.
        """
        picture = self.picture
        width, height = square_size(picture.width, picture.height, self.pixel_aspect)
        if picture.format.name != "rgb24" or (width, height) != (picture.width, picture.height):
            picture = picture.reformat(
                width,
                height,
                "rgb24",
                src_colorspace=_colour_matrix(self.picture),
                interpolation=_EXACT_BICUBIC if self._is_inexact(width) else "BICUBIC",
            )
        rgb = np.asarray(picture.to_ndarray(), np.uint8)
        if box is None:
            return rgb
        across, down = width / self.picture.width, height / self.picture.height
        left, top, right, bottom = box
        return np.ascontiguousarray(
            rgb[round(top * down) : round(bottom * down), round(left * across) : round(right * across)]
        )

    def _is_inexact(self, width: int) -> bool:
        """Whether swscale's fast way would lose levels."""
        return self.picture.format.components[0].bits > 8 or width != self.picture.width

    def _with_luma(self) -> "AvFrame":
        layout = self.picture.format
        if layout.is_rgb or layout.is_big_endian or layout.name.startswith(("pal", "mono", "yuyv", "uyvy")):
            return self.picture.reformat(format="gray")
        return self.picture

    def _excess_bits(self) -> int:
        """How far the luma must be shifted right to have 8 bits."""
        layout = self._with_luma().format
        return 8 if layout.name.startswith("p0") else layout.components[0].bits - 8

    def _to_full_range(self) -> tuple[float, float]:
        """What turns a sample into a level of 0 to 255: a factor, and what is added then."""
        is_full = self.picture.color_range == 2 or self.picture.format.name.startswith("yuvj")
        unit = 1 << self._excess_bits()
        if is_full or self._with_luma() is not self.picture:
            return 1 / unit, 0.0
        return 255 / 219 / unit, -16 * 255 / 219

    def _full_range(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """Levels of samples."""
        import cv2

        scale, offset = self._to_full_range()
        if offset:
            samples = np.maximum(samples, round(-offset / scale))  # what is below black would be mirrored
        return np.asarray(cv2.convertScaleAbs(samples, alpha=scale, beta=offset), np.uint8)


def square_size(width_px: int, height_px: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """Width and height of a frame once its pixels are square: the short measure grows, nothing is lost."""
    if pixel_aspect == 1 or pixel_aspect <= 0:
        return width_px, height_px
    if pixel_aspect > 1:
        return max(1, round(width_px * pixel_aspect)), height_px
    return width_px, max(1, round(height_px / pixel_aspect))


def _colour_matrix(picture: "AvFrame") -> str | None:
    """What swscale would not know by itself: it takes BT.601 where a file names no matrix."""
    is_unnamed = int(picture.colorspace) in (2, 5) and int(picture.color_primaries) == 2
    return "ITU709" if is_unnamed and picture.height >= 720 else None


class VideoReader:
    """One video stream of a file; iterating gives its frames, once.

    Args:
        stream: which video stream, counting from 0, cover pictures left out.
        threads: of the decoder; 0 takes one for each processor core.
        only_keyframes: decode key frames alone, ten times faster and more.
        deinterlace: "auto" looks at each frame's flag.

    Raises:
        UnreadableVideoError: not a video, or no such stream.
    """

    def __init__(
        self,
        path: Path,
        *,
        stream: int = 0,
        threads: int = 0,
        only_keyframes: bool = False,
        deinterlace: Deinterlace = "auto",
    ) -> None:
        self.path = path
        self.problems: list[VideoProblem] = []
        self.is_interlaced = False  # a frame was; known while reading
        self._num_problems = 0
        self._deinterlace = deinterlace
        self._filter: _Deinterlacer | None = None
        self._container = open_container(path)
        try:
            self._stream = pick_stream(self._container, path, stream)
            self.info = describe(self._container, self._stream, stream)
        except BaseException:
            self._container.close()
            raise
        context = self._stream.codec_context
        context.thread_count = threads
        context.thread_type = "SLICE" if only_keyframes else "AUTO"
        self._only_keyframes = only_keyframes
        if only_keyframes:
            context.skip_frame = "NONKEY"

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        first_s = (self._container.start_time or 0) / 1_000_000
        step_s = 1 / self.info.frames_per_s if self.info.frames_per_s else 1 / 24
        index, time_s = 0, -step_s
        for picture in self._progressive(self._pictures()):
            time_s = time_s + step_s if picture.time is None else picture.time - first_s
            yield VideoFrame(index, time_s, bool(picture.key_frame), picture, self.info.pixel_aspect)
            index += 1
        if index == 0:
            why = self.problems[0].detail if self.problems else "no frame of it decodes"
            raise UnreadableVideoError(self.path, "does not decode", why)
        self._check_length(time_s + step_s)
        if self._num_problems > MOST_PROBLEMS:
            self.problems.append(VideoProblem("corrupt", f"{self._num_problems:,} damaged places in all"))

    def _pictures(self) -> Iterator["AvFrame"]:
        from av.error import FFmpegError

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except FFmpegError as error:
                self._note("corrupt", f"reading stops: {error.strerror}")
                return
            try:
                pictures = packet.decode()
            except FFmpegError as error:
                at = "" if packet.pts is None else f" at {float(packet.pts * packet.time_base):.1f} s"
                self._note("corrupt", f"a packet{at} does not decode: {error.strerror}")
                continue
            for picture in pictures:
                if picture.is_corrupt:
                    self._note("corrupt", f"a damaged frame at {picture.time or 0:.1f} s is left out")
                else:
                    yield picture

    def _progressive(self, pictures: Iterator["AvFrame"]) -> Iterator["AvFrame"]:
        for picture in pictures:
            self.is_interlaced |= picture.interlaced_frame
            if self._filter is None and self._wants_filter(picture):
                self._filter = _Deinterlacer(self._stream, picture, is_forced=self._deinterlace == "on")
            if self._filter is None:
                yield picture
            else:
                yield from self._filter.push(picture)
        if self._filter is not None:
            yield from self._filter.finish()

    def _wants_filter(self, picture: "AvFrame") -> bool:
        if self._deinterlace == "auto":
            return bool(picture.interlaced_frame)
        return self._deinterlace == "on"

    def _note(self, reason: str, detail: str) -> None:
        self._num_problems += 1
        if self._num_problems <= MOST_PROBLEMS:
            self.problems.append(VideoProblem(reason, detail))

    def _check_length(self, end_s: float) -> None:
        said_s = self.info.duration_s
        if said_s is None or self._only_keyframes:
            return
        allowed_s = MISSING_S if self.info.is_duration_exact else MISSING_CONTAINER_S
        if end_s < said_s - allowed_s:
            self._note("truncated", f"decodes to {end_s:.1f} s of the {said_s:.1f} s that its header names")


def read_frames(path: Path, **options: Any) -> Iterator[VideoFrame]:
    """Yield a video's frames; `options` are those of `VideoReader`, which also tells what did not decode.

    Raises:
        UnreadableVideoError: not a video, or nothing of it decodes.
    """
    with VideoReader(path, **options) as reader:
        yield from reader


class _Deinterlacer:
    """bwdif, one frame out for each frame in; frames that are not interlaced pass unchanged."""

    def __init__(self, stream: "VideoStream", picture: "AvFrame", *, is_forced: bool) -> None:
        from av.filter import Graph

        self._graph = Graph()
        source = self._graph.add_buffer(
            width=picture.width,
            height=picture.height,
            format=picture.format,
            time_base=stream.time_base or Fraction(1, 1000),
        )
        which = "all" if is_forced else "interlaced"
        bwdif = self._graph.add("bwdif", f"mode=send_frame:deint={which}")
        sink = self._graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        self._graph.configure()

    def push(self, picture: "AvFrame") -> Iterator["AvFrame"]:
        self._graph.vpush(picture)
        yield from self._pull()

    def finish(self) -> Iterator["AvFrame"]:
        self._graph.vpush(None)
        yield from self._pull()

    def _pull(self) -> Iterator["AvFrame"]:
        import av

        while True:
            try:
                yield self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
