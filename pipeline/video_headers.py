"""Open a video file with PyAV, and read what its header says; what cannot be read is named."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    import av
    from av.video.stream import VideoStream


class UnreadableVideoError(PipelineError):
    """A file cannot be opened as video: empty, not a video, only sound, or nothing of it decodes.

    Args:
        reason: short, the same for all of its kind.
        is_damaged: a video once; else it never was one, or has only sound.
    """

    def __init__(
        self, path: Path, reason: str, detail: str = "", *, hint: str = "", is_damaged: bool = True
    ) -> None:
        super().__init__(f"{path}: {reason}{f' ({detail})' if detail else ''}", hint=hint)
        self.reason = reason
        self.is_damaged = is_damaged


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video's header says."""

    codec: str
    pixel_format: str
    width_px: int  # coded, before anamorphic pixels are corrected
    height_px: int
    pixel_aspect: Fraction  # width of a pixel over its height
    bits: int  # of a luma sample
    frames_per_s: float | None
    duration_s: float | None
    is_duration_exact: bool  # of the video stream; else of the container, sound included
    num_streams: int  # video streams, cover pictures left out
    stream: int  # which of them is read, counting from 0

    @property
    def num_frames(self) -> int | None:
        """About how many frames there are, for a progress bar."""
        if self.duration_s is None or self.frames_per_s is None:
            return None
        return max(1, round(self.duration_s * self.frames_per_s))


def open_container(path: Path) -> "av.container.InputContainer":
    """Open a file.

    Raises:
        UnreadableVideoError: empty, or no container that FFmpeg knows.
    """
    import av
    from av.error import FFmpegError

    if path.stat().st_size == 0:
        raise UnreadableVideoError(path, "empty file", is_damaged=False)
    try:
        return av.open(str(path), metadata_errors="replace")
    except FFmpegError as error:
        is_damaged = _begins_as_video(path)
        reason = "damaged, or cut off" if is_damaged else "not a video"
        raise UnreadableVideoError(path, reason, str(error.strerror), is_damaged=is_damaged) from error


def _begins_as_video(path: Path) -> bool:
    """Whether the first bytes are those of a known container, whatever follows."""
    with path.open("rb") as file:
        head = file.read(200)
    starts = (
        b"\x1aE\xdf\xa3",
        b"RIFF",
        b"FLV",
        b"0&\xb2u\x8ef\xcf\x11",
        b"\x00\x00\x01\xba",
        b"\x00\x00\x01\xb3",
    )
    is_transport = len(head) > 192 and (head[0] == head[188] == 0x47 or head[4] == head[196] == 0x47)
    return (
        head.startswith(starts) or head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free") or is_transport
    )


def pick_stream(container: "av.container.InputContainer", path: Path, wanted: int) -> "VideoStream":
    """The video stream of a number, cover pictures left out.

    Raises:
        UnreadableVideoError: there is none.
    """
    from av.stream import Disposition

    streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not streams:
        what = "only sound" if container.streams.audio else "no video stream"
        raise UnreadableVideoError(path, what, is_damaged=False)
    if wanted >= len(streams):
        hint = f"give a --video-stream from 0 to {len(streams) - 1}"
        raise UnreadableVideoError(path, "no such stream", f"has {len(streams)} video streams", hint=hint)
    if streams[wanted].codec_context is None:
        raise UnreadableVideoError(path, "unknown codec")
    return streams[wanted]


def describe(container: "av.container.InputContainer", one: "VideoStream", stream: int) -> VideoInfo:
    """What the header says of a stream."""
    from av.stream import Disposition

    duration_s, is_exact = _duration(container, one)
    context = one.codec_context
    layout = context.format
    rate = one.average_rate or one.guessed_rate or one.base_rate
    return VideoInfo(
        codec=context.name,
        pixel_format=layout.name if layout is not None else "unknown",
        width_px=context.width,
        height_px=context.height,
        pixel_aspect=Fraction(one.sample_aspect_ratio or 1),
        bits=layout.components[0].bits if layout is not None else 8,
        frames_per_s=float(rate) if rate else None,
        duration_s=duration_s,
        is_duration_exact=is_exact,
        num_streams=sum(
            1 for each in container.streams.video if not each.disposition & Disposition.attached_pic
        ),
        stream=stream,
    )


def _duration(container: "av.container.InputContainer", one: "VideoStream") -> tuple[float | None, bool]:
    """Seconds, and whether they are the video stream's own."""
    if one.duration is not None and one.time_base is not None:
        return float(one.duration * one.time_base), True
    tag = one.metadata.get("DURATION", "")  # Matroska: 00:23:40.086000000
    parts = tag.split(":")
    if len(parts) == 3 and all(part.replace(".", "", 1).isdigit() for part in parts):
        return int(parts[0]) * 3600 + int(parts[1]) * 60 + float(parts[2]), True
    if container.duration is not None:
        return container.duration / 1_000_000, not container.streams.audio
    return None, False
