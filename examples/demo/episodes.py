"""Draw the two episodes: `python episodes.py [FOLDER]` writes each as H.264 with its truth as JSON beside it.

The storyboard is in storyboard.py. A frame is drawn twice as large and reduced; drawings that come again are
not drawn again. The truth says of every frame which shot it belongs to, what is held there and who is seen.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from backgrounds import paint
from drawing import draw_character
from drawing_pen import Pen, box, even, oval
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from storyboard import storyboard
from storyboard_parts import FPS, SIZE, Drawing, Shot

GROWN = 2
ZOOM, SLIDE, RISE = 1.16, 0.8, 0.85  # growth; slide in shares of the height; climb of a tilt, likewise
REST = 14  # frames that a tilt rests at its end
FADE = 14  # frames of the fade to black at the end
LANTERN = even("0,-.9 .5,-.86! .72,-.5 .62,.6 .4,.86! 0,.9")
LANTERN_FOOT = box(-1, 0.55, 1, 1)
LANTERNS = (
    (0.16, 0.3, 0.075), (0.36, 0.14, 0.045), (0.3, 0.74, 0.09), (0.66, 0.2, 0.06), (0.62, 0.86, 0.05), (0.95, 0.84, 0.065),
    (1.12, 0.16, 0.05), (1.34, 0.78, 0.08), (1.42, 0.2, 0.07), (1.64, 0.36, 0.045), (1.66, 0.86, 0.05), (0.1, 0.86, 0.04),
)  # fmt: skip  # x, y and half width, shares of the frame's height
CRF = "20"  # quality of the encoder, lower is better
Pixels = NDArray[np.uint8]


@lru_cache(maxsize=12)
def _background(name: str, variant: int, width: int, height: int) -> Pixels:
    """A painting, a little out of focus, as a camera that looks at a character shows it."""
    image = np.empty((height, width, 3), np.uint8)
    paint(image, name, variant)
    blur = 0 if name in ("simple background", "night sky") else height / 450
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(blur)))


def _large(drawing: Drawing, share: float = 0.0, camera: str = "still") -> Pixels:
    """A drawing GROWN times as large as a frame; `share` of the shot has passed."""
    width, height = SIZE[0] * GROWN, SIZE[1] * GROWN
    people = drawing.people
    if camera == "follow":
        wide = _background(drawing.background, drawing.variant, width + round(SLIDE * height), height)
        left = round(share * SLIDE * height)
        image = wide[:, left : left + width].copy()
    elif camera == "tilt":
        tall = _background(drawing.background, drawing.variant, width * 5 // 4, height * 5 // 4)
        top = round((1 - share) * height / 4)
        image = tall[top : top + height, width // 8 : width // 8 + width].copy()
        people = tuple((n, replace(s, shift=(s.shift[0], -RISE * (1 - share)))) for n, s in people)
    else:
        image = _background(drawing.background, drawing.variant, width, height).copy()
    for _, scene in people:
        draw_character(image, scene)
    if drawing.text:
        _lanterns(image)
    return image


@lru_cache(maxsize=64)
def _frame(drawing: Drawing, share: float = 0.0, camera: str = "still") -> Image.Image:
    """A frame without text, of SIZE."""
    image = Image.fromarray(_large(drawing, 0.0 if camera == "zoom" else share, camera))
    if camera != "zoom":
        return image.reduce(GROWN)
    width, height = image.size
    part = 1 / (1 + (ZOOM - 1) * share)
    left, top = width * (1 - part) / 2, height * (1 - part) * 0.35
    area = (left, top, left + width * part, top + height * part)
    return image.resize(SIZE, Image.Resampling.BICUBIC, box=area, reducing_gap=2.0)


def _lanterns(image: Pixels) -> None:
    """Paper lanterns that rise over a card."""
    height = image.shape[0]
    for x, y, size in LANTERNS:
        matrix = np.array([(size * height, 0, x * height), (0, size * height, y * height), (0, 0, 1)])
        pen = Pen(image, matrix, height / 200)
        pen.shape(LANTERN, (255, 196, 92), (120, 44, 40), (LANTERN_FOOT, (240, 126, 60)))
        pen.fill(oval(0, 0.25, 0.34, 0.4), (255, 238, 170))


def _lines(image: Image.Image, lines: tuple[str, ...], top: float, size: int, gap: float) -> None:
    """Centred lines of white text with a dark edge; `top` is the first line's middle."""
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        font = ImageFont.load_default(size)
        at = (SIZE[0] / 2, top + number * size * gap)
        draw.text(
            at, line, (255, 252, 240), font, "mm", stroke_width=max(2, size // 12), stroke_fill=(52, 24, 52)
        )


def _moved(shot: Shot) -> Iterator[tuple[Drawing, float, int]]:
    """For each frame its drawing, how much of the camera's movement is done, and its number in the shot."""
    moving = max(1, shot.frames - 1 - (REST if shot.camera == "tilt" else 0))
    frame = 0
    for drawing, count in shot.drawings:
        for _ in range(count):
            yield drawing, 0.0 if shot.camera == "still" else min(1.0, frame / moving), frame
            frame += 1


def shot_frames(shot: Shot) -> Iterator[Image.Image]:
    """The frames of a shot with its texts, before any dissolve."""
    for drawing, share, frame in _moved(shot):
        image = _frame(drawing, share, shot.camera).copy()
        if shot.kind == "credits":
            _lines(image, drawing.text, 224 - 5 * max(0, frame - 16), 22, 1.6)
        elif drawing.text:
            _lines(image, drawing.text, 180 - 28 * (len(drawing.text) - 1), 46, 1.25)
        if shot.subtitle:
            _lines(image, (shot.subtitle,), 332, 22, 1.0)
        yield image


def episode_frames(shots: list[Shot]) -> Iterator[Image.Image]:
    """All frames of an episode: dissolves from shot to shot, out of black at the start and into it at the end."""
    total, number = sum(shot.frames for shot in shots), 0
    last = Image.new("RGB", SIZE)
    for shot in shots:
        before = last
        for frame, image in enumerate(shot_frames(shot)):
            last = image
            if frame < shot.dissolve:
                image = Image.blend(before, image, (frame + 1) / (shot.dissolve + 1))
            left = total - 1 - number
            if left < FADE:
                image = Image.blend(Image.new("RGB", SIZE), image, left / FADE)
            number += 1
            yield image


def truth(number: int, shots: list[Shot]) -> dict[str, object]:
    """What is known of an episode, in frames: `start` is the first, `end` the first after it."""
    rows: list[dict[str, object]] = []
    fades: list[dict[str, object]] = []
    start = 0
    for index, shot in enumerate(shots):
        if shot.dissolve:
            kind = "cross-fade" if index else "from black"
            fades.append({"start": start, "end": start + shot.dissolve, "kind": kind})
        rows.append(_shot_truth(shot, start))
        start += shot.frames
    fades.append({"start": start - FADE, "end": start, "kind": "to black"})
    cuts = [row["start"] for row, shot in zip(rows[1:], shots[1:], strict=True) if not shot.dissolve]
    return {
        "video": f"episode_{number:02d}.mp4",
        "fps": FPS,
        "size": list(SIZE),
        "frames": start,
        "cuts": cuts,
        "fades": fades,
        "shots": rows,
    }


def _shot_truth(shot: Shot, start: int) -> dict[str, object]:
    holds: list[dict[str, object]] = []
    drawings: list[Drawing] = []
    frame = start
    for drawing, count in shot.drawings:
        if drawing not in drawings:
            drawings.append(drawing)
        holds.append({"start": frame, "end": frame + count, "drawing": drawings.index(drawing)})
        frame += count
    return {
        "start": start,
        "end": frame,
        "kind": shot.kind,
        "camera": shot.camera,
        "subtitle": shot.subtitle,
        "background": shot.drawings[0][0].background,
        "characters": list(shot.drawings[0][0].names),
        "drawings": [drawing.truth() for drawing in drawings],
        "holds": holds,
    }


def write_episode(number: int, folder: Path) -> Path:
    """Draw an episode into a folder: the video, and `episode_NN.json` beside it."""
    shots = storyboard(number)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"episode_{number:02d}.mp4"
    with av.open(str(path), "w", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        options = {"crf": CRF, "preset": "slow", "tune": "animation", "x264-params": "threads=1"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for index, image in enumerate(episode_frames(shots)):
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    text = json.dumps(truth(number, shots), indent=1, ensure_ascii=False)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8", newline="\n")
    return path


def main() -> None:
    """Write both episodes."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "episodes"
    for number in (1, 2):
        path = write_episode(number, folder)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
