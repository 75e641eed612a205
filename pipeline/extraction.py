"""One pass over one video: decode, decide on small grey grids, encode what is kept into a folder."""

import base64
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.frame_choice import Decision, FrameChooser, Rules
from pipeline.frame_files import Format, FrameWriter, WrittenFile, time_text
from pipeline.picture_kinds import kind_of_picture
from pipeline.picture_memory import SIGNATURE_SIZE, PictureMemory, signature
from pipeline.settings import Json
from pipeline.shots import Sample
from pipeline.video import Box, Deinterlace, VideoFrame, VideoProblem, VideoReader

TICK_FRAMES = 48  # between two words to the progress bar
FRAMES_AT_ONCE = 6  # put to the chooser: a quarter less work, as its code and data stay in the cache
BAR_LEVELS = 30  # a row or column that never gets brighter is a bar
BAR_SHARE = 0.95  # of the frames; a subtitle may stand in a bar now and then
MOST_BAR_SHARE = 0.3  # of the height or width on one side; more is a dark picture

Mode = Literal["changes", "keyframes", "every"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """How to go through a video."""

    mode: Mode = "changes"
    every_s: float = 1.0  # in the mode "every"
    rules: Rules = field(default_factory=Rules)
    stream: int = 0
    threads: int = 0
    deinterlace: Deinterlace = "auto"
    crops_bars: bool = False
    format: Format = "jpg"
    quality: int = 95


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """A frame that was written."""

    file: WrittenFile
    time_s: float
    shot: int  # counts from 1; 0 in modes that do not look for shots
    reason: str


@dataclass(slots=True)
class Extraction:
    """What one pass gave."""

    kept: list[KeptFrame]
    num_frames: int
    dropped: dict[str, int]  # reason -> frames
    cuts_s: list[float]
    problems: list[VideoProblem]
    notes: list[str]
    signatures: list[bytes]  # of the pictures of `kept`, for other episodes

    def record(self) -> dict[str, Json]:
        """All of it as JSON."""
        return {
            "frames": [
                {
                    "name": one.file.name,
                    "sha256": one.file.sha256,
                    "size_bytes": one.file.size_bytes,
                    "time_s": round(one.time_s, 6),
                    "shot": one.shot,
                    "reason": one.reason,
                }
                for one in self.kept
            ],
            "signatures": base64.b64encode(pack_signatures(self.signatures)).decode("ascii"),
            "num_frames": self.num_frames,
            "dropped": self.dropped,
            "cuts_s": self.cuts_s,
            "problems": [[one.reason, one.detail] for one in self.problems],
            "notes": self.notes,
        }


def extract_video(
    path: Path,
    folder: Path,
    request: Request,
    pool: Executor,
    *,
    on_frames: Callable[[int], None] = lambda _: None,
    check_stop: Callable[[], None] = lambda: None,
) -> Extraction:
    """Write the frames of a video worth keeping into a folder.

    The same file and request always give the same frames, whatever the number of threads.

    Args:
        folder: exists; receives files named `hh-mm-ss.mmm.<format>`.
        pool: encodes.
        on_frames: told how many frames were gone through since it was last told.
        check_stop: called now and then; raises to break off.

    Raises:
        UnreadableVideoError: not a video, or nothing of it decodes.
        DiskFullError: no room.
    """
    box = find_bars(path, request) if request.crops_bars else None
    writer = FrameWriter(pool, folder, request.format, request.quality)
    with VideoReader(
        path,
        stream=request.stream,
        threads=request.threads,
        only_keyframes=request.mode == "keyframes",
        deinterlace=request.deinterlace,
    ) as reader:
        frames = _told(reader, on_frames, check_stop)
        chooser = FrameChooser(request.rules)
        taken = (
            chosen_frames(frames, chooser) if request.mode == "changes" else sampled_frames(frames, request)
        )
        try:
            found = _write_kept(taken, writer, box)
        except BaseException:
            writer.cancel()
            raise
        notes = _notes(reader, box)
        problems = list(reader.problems)
    kept = [
        (KeptFrame(file, decision.time_s, decision.shot, decision.reason), signature)
        for file, decision, signature in zip(writer.finish(), found.kept, found.signatures, strict=True)
    ]
    kept.sort(key=lambda one: one[0].time_s)
    return Extraction(
        kept=[frame for frame, _ in kept],
        num_frames=found.num_frames,
        dropped=dict(found.dropped),
        cuts_s=found.cut_times(chooser),
        problems=problems,
        notes=notes,
        signatures=[signature for _, signature in kept],
    )


def chosen_frames(
    frames: Iterable[VideoFrame], chooser: FrameChooser
) -> Iterator[tuple[Decision, VideoFrame]]:
    """Put every frame to the chooser; yields each decision with its frame, a few frames late."""
    waiting: dict[int, VideoFrame] = {}
    samples: list[Sample] = []
    for frame in frames:
        waiting[frame.index] = frame
        samples.append(Sample(frame.index, frame.time_s, frame.luma_grid(), frame.sharpness()))
        if len(samples) == FRAMES_AT_ONCE:
            for decision in _pushed(samples, chooser):
                yield decision, waiting.pop(decision.index)
    for decision in [*_pushed(samples, chooser), *chooser.finish()]:
        yield decision, waiting.pop(decision.index)


def _pushed(samples: list[Sample], chooser: FrameChooser) -> list[Decision]:
    """What is decided once these are taken in; the list is empty then."""
    decided = [decision for sample in samples for decision in chooser.push(sample)]
    samples.clear()
    return decided


def sampled_frames(frames: Iterable[VideoFrame], request: Request) -> Iterator[tuple[Decision, VideoFrame]]:
    """Take every frame (of key frames alone), or one each `every_s`; pictures that come again are dropped."""
    memory, rules = PictureMemory(), request.rules
    next_s = 0.0
    for frame in frames:
        if request.mode == "every":
            if frame.time_s < next_s - 1e-4:
                yield Decision(frame.index, frame.time_s, False, "between", 0), frame
                continue
            next_s = (np.floor(frame.time_s / request.every_s + 1e-4) + 1) * request.every_s
        grid = frame.luma_grid()
        kind = kind_of_picture(grid) if rules.skip else None
        reason: str = request.mode
        if kind in rules.skip:
            reason = str(kind)
        elif rules.has_memory and memory.holds(grid, 0.0):
            reason = "same picture"
        else:
            memory.add(grid)
        yield Decision(frame.index, frame.time_s, reason == request.mode, reason, 0, grid), frame


@dataclass(slots=True)
class _Found:
    kept: list[Decision] = field(default_factory=list)
    signatures: list[bytes] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    num_frames: int = 0
    times_s: dict[int, float] = field(default_factory=dict)

    def cut_times(self, chooser: FrameChooser) -> list[float]:
        return [round(self.times_s[index], 3) for index in chooser.cuts]


def _write_kept(taken: Iterable[tuple[Decision, VideoFrame]], writer: FrameWriter, box: Box | None) -> _Found:
    found = _Found()
    stems: set[str] = set()
    for decision, frame in taken:
        found.num_frames += 1
        found.times_s[decision.index] = decision.time_s
        if not decision.is_kept:
            found.dropped[decision.reason] += 1
            continue
        assert decision.grid is not None
        stem = time_text(decision.time_s)
        while stem in stems:  # a broken file may show one time twice
            stem += "_"
        stems.add(stem)
        found.kept.append(replace(decision, grid=None))
        found.signatures.append(signature(decision.grid))
        writer.write(stem, _Pixels(frame, box))
    return found


@dataclass(frozen=True, slots=True)
class _Pixels:
    frame: VideoFrame
    box: Box | None

    def __call__(self) -> Any:
        return self.frame.rgb(self.box)


def _told(
    frames: Iterable[VideoFrame], on_frames: Callable[[int], None], check_stop: Callable[[], None]
) -> Iterator[VideoFrame]:
    since = 0
    for frame in frames:
        since += 1
        if since == TICK_FRAMES:
            on_frames(since)
            check_stop()
            since = 0
        yield frame
    on_frames(since)


def _notes(reader: VideoReader, box: Box | None) -> list[str]:
    info, notes = reader.info, []
    if reader.is_interlaced:
        notes.append("interlaced")
    if info.pixel_aspect != 1:
        notes.append(f"anamorphic pixels {info.pixel_aspect}")
    if info.num_streams > 1:
        notes.append(f"video stream {info.stream} of {info.num_streams}")
    if box is not None:
        notes.append(f"bars cropped to {box[2] - box[0]}x{box[3] - box[1]} from {box[0]},{box[1]}")
    return notes


# Signatures: what other episodes are compared with


def pack_signatures(signatures: Iterable[bytes]) -> bytes:
    """Signatures one after the other, compressed."""
    return zlib.compress(b"".join(signatures), 6)


def unpack_signatures(data: bytes) -> list[bytes]:
    """What `pack_signatures` was given."""
    size = SIGNATURE_SIZE[0] * SIGNATURE_SIZE[1]
    flat = zlib.decompress(data)
    return [flat[start : start + size] for start in range(0, len(flat), size)]


# Black bars


def find_bars(path: Path, request: Request) -> Box | None:
    """The picture inside black bars, in coded pixels at even places, or None where there are none.

    Looks at key frames alone. A row or column is bar when it stays dark in 95 % of the frames that are not
    dark themselves.

    Raises:
        UnreadableVideoError: not a video.
    """
    rows: list[Any] = []
    columns: list[Any] = []
    size = (0, 0)
    with VideoReader(path, stream=request.stream, threads=request.threads, only_keyframes=True) as reader:
        for frame in reader:
            luma = frame.luma_levels()
            if size not in ((0, 0), luma.shape):
                continue
            size = luma.shape
            if luma[::4, ::4].max() > 2 * BAR_LEVELS:
                rows.append(luma.max(axis=1) < BAR_LEVELS)
                columns.append(luma.max(axis=0) < BAR_LEVELS)
    if not rows:
        return None
    top, bottom = _span(np.mean(rows, axis=0) >= BAR_SHARE)
    left, right = _span(np.mean(columns, axis=0) >= BAR_SHARE)
    return None if (left, top, right, bottom) == (0, 0, size[1], size[0]) else (left, top, right, bottom)


def _span(is_bar: Any) -> tuple[int, int]:
    """First and last place that is not bar, the last outside, at even places; bars too wide are none."""
    length = len(is_bar)
    inside = np.flatnonzero(~is_bar)
    if len(inside) == 0:
        return 0, length
    first = (int(inside[0]) + 1) // 2 * 2
    last = (int(inside[-1]) + 1) // 2 * 2 if inside[-1] + 1 < length else length
    most = MOST_BAR_SHARE * length
    return (first if first <= most else 0), (last if length - last <= most else length)
