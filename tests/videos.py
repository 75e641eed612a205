"""Small videos drawn and encoded in tests."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

WIDTH, HEIGHT = 320, 180
FPS = 24


def scene(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Picture:
    """A picture full of soft shapes, RGB, uint8 [height, width, 3]; other seeds look altogether different."""
    import cv2

    random = np.random.default_rng(seed)
    tones = random.integers(40, 216, (3, 4, 3), dtype=np.uint8)
    picture = cv2.resize(tones, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(14):
        centre = (int(random.integers(width)), int(random.integers(height)))
        size = (int(random.integers(8, width // 4)), int(random.integers(8, height // 3)))
        colour = [int(tone) for tone in random.integers(30, 226, 3)]
        cv2.ellipse(picture, centre, size, float(random.integers(180)), 0, 360, colour, -1, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def with_mouth(picture: Picture, openness: int) -> Picture:
    """A face in the middle of a picture whose mouth is 0 shut to 3 open: all that changes is the mouth."""
    import cv2

    drawn = picture.copy()
    height, width, _ = drawn.shape
    centre = (width // 2, height // 2)
    cv2.circle(drawn, centre, height // 4, (230, 200, 180), -1, cv2.LINE_AA)
    mouth = (centre[0], centre[1] + height // 10)
    cv2.ellipse(
        drawn, mouth, (height // 16, 1 + openness * height // 45), 0, 0, 360, (120, 40, 50), -1, cv2.LINE_AA
    )
    return drawn


def plain(level: int, width: int = WIDTH, height: int = HEIGHT) -> Picture:
    """One even grey."""
    return np.full((height, width, 3), level, np.uint8)


def title_page(text: str = "ROUTE NINE", *, scale: float = 0.9, thickness: int = 1) -> Picture:
    """Dark writing on a plain ground; lines are parted by line breaks."""
    import cv2

    page = plain(236)
    for number, line in enumerate(text.split("\n")):
        place = (60, 96 + round(number * 36 * scale))
        cv2.putText(page, line, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (60, 20, 30), thickness, cv2.LINE_AA)
    return page


def figure(ground: int, size: float = 1.0) -> Picture:
    """A head and shoulders on one even grey, drawn at three times the size; 2.2 is a close-up."""
    import cv2

    page = plain(ground, 3 * WIDTH, 3 * HEIGHT)
    centre = (480, 180 if size < 2 else 300)
    cv2.ellipse(page, (480, 600), (round(130 * size), 300), 0, 180, 360, (70, 80, 160), -1, cv2.LINE_AA)
    cv2.circle(page, centre, round(90 * size), (235, 205, 185), -1, cv2.LINE_AA)
    hair = round(96 * size)
    cv2.ellipse(page, centre, (hair, hair), 0, 180, 360, (90, 50, 40), -1, cv2.LINE_AA)
    for side in (-35, 35):
        eye = (centre[0] + round(side * size), centre[1] + 5)
        axes = (round(14 * size), round(20 * size))
        cv2.ellipse(page, eye, axes, 0, 0, 360, (60, 90, 160), -1, cv2.LINE_AA)
    return np.asarray(cv2.resize(page, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)


def night_sky(num_stars: int, *, has_moon: bool = False) -> Picture:
    """Bright dots on black."""
    import cv2

    random, page = np.random.default_rng(num_stars), plain(10, 3 * WIDTH, 3 * HEIGHT)
    for _ in range(num_stars):
        place = (int(random.integers(3 * WIDTH)), int(random.integers(3 * HEIGHT)))
        tone = int(random.integers(120, 255))
        cv2.circle(page, place, int(random.integers(2, 7)), (tone, tone, tone), -1, cv2.LINE_AA)
    if has_moon:
        cv2.circle(page, (700, 120), 60, (230, 230, 210), -1, cv2.LINE_AA)
    return np.asarray(cv2.resize(page, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)


def held(*pictures: Picture, frames: int = 12) -> list[Picture]:
    """Each picture for so many frames."""
    return [picture for picture in pictures for _ in range(frames)]


def write_video(
    path: Path,
    pictures: Iterable[Picture],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    fps: int = FPS,
    times_s: Sequence[float] | None = None,
    options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    full_range: bool = False,
    container_format: str | None = None,
    second: Sequence[Picture] | None = None,
    cover: bool = False,
    sound_s: float = 0.0,
) -> Path:
    """Encode pictures as a video.

    Args:
        times_s: of each picture; else one each 1 / fps.
        second: pictures of a second video stream.
        cover: add a cover picture as a stream.
        sound_s: seconds of silence.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container_format) as container:
        drawn = [list(pictures), *([list(second)] if second is not None else [])]
        streams = [_add_stream(container, one[0], codec, pixel_format, fps, options, aspect) for one in drawn]
        if times_s is not None:
            streams[0].time_base = streams[0].codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", rate=48000, layout="mono") if sound_s else None
        if full_range:
            streams[0].codec_context.color_range = 2
        if cover:
            still = _add_cover(container)
            frame = av.VideoFrame.from_ndarray(plain(200, 64, 64), format="rgb24").reformat(format="yuvj420p")
            container.mux([*still.encode(frame), *still.encode(None)])
        for stream, pictures_of in zip(streams, drawn, strict=True):
            for number, picture in enumerate(pictures_of):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame = frame.reformat(format=pixel_format, dst_color_range="JPEG" if full_range else "MPEG")
                frame.pts = number if times_s is None else round(times_s[number] * 1000)
                frame.time_base = Fraction(1, fps) if times_s is None else Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if sound is not None:
            add_silence(container, sound, sound_s)
    return path


def _add_stream(
    container: Any,
    like: Picture,
    codec: str,
    pixel_format: str,
    fps: int,
    options: Any,
    aspect: Fraction | None,
) -> Any:
    stream = container.add_stream(codec, rate=fps)
    stream.height, stream.width = like.shape[:2]
    stream.pix_fmt = pixel_format
    quiet = {
        "libx265": {"x265-params": "log-level=none:crf=14"},
        "libx264": {"crf": "14", "preset": "veryfast"},
    }
    stream.options = {**quiet.get(codec, {}), **(options or {})}
    if aspect is not None:
        stream.codec_context.sample_aspect_ratio = aspect
    return stream


def _add_cover(container: Any) -> Any:
    """A still as a stream of its own; it must come before the pictures that it is shown beside."""
    cover = container.add_stream("mjpeg", rate=1)
    cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
    cover.disposition = Disposition.attached_pic
    return cover


def add_silence(container: Any, sound: Any, seconds: float) -> None:
    """Encode so many seconds of silence into a stream of sound."""
    for start in range(0, round(seconds * 48000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


def write_sound(path: Path, seconds: float = 0.5) -> Path:
    """Encode silence without a picture."""
    with av.open(str(path), "w") as container:
        add_silence(container, container.add_stream("aac", rate=48000, layout="mono"), seconds)
    return path


def luma_of(picture: Picture) -> NDArray[np.float64]:
    """BT.601 luma of RGB, full range, by its definition."""
    weights = np.array([0.299, 0.587, 0.114])
    return np.asarray(picture @ weights, np.float64)
