"""Extraction beside bare decoding and beside ffmpeg's mpdecimate: wall and processor time of whole processes.

    python benchmarks/extract.py [--clip VIDEO] [--runs 2] [--peer-runs 1] [--ffmpeg ffmpeg] [--seconds 40]

A clip that is not there is drawn and encoded once (a minute or two), at --clip or in benchmarks/clips/, and
read from there ever after: 1080p shots of 2.5 to 5 s on textured backgrounds with grain, mouths on threes,
held poses, pans, one shot of six before speed lines, three drawings in turn; H.264 at about the bit rate of
an episode (the rate and the share of frames kept are printed; of an episode 2 to 3 % are). "decode" is the
limit: PyAV, frame threads, every frame decoded and nothing done with it. Peer commands, slow and run once:

    ffmpeg -i CLIP -vf "mpdecimate=hi=64*200:lo=64*50:frac=0.33,setpts=N/FRAME_RATE/TB" -qscale:v 1 -qmin 1
        %d.png
    python: every PNG read again with Pillow and reduced to 224 px, what an embedding needs before it begins;
        the network is left out, so this row is a lower bound of the ancestor's dedupe
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

FPS = 24
SIZE = (1920, 1080)
PAN_PX = 600
GRAIN_MIDDLE = 16  # of noise stored without a sign
CLIPS = Path(__file__).parent / "clips"
DRAWING = 3  # another number for another drawing, which is another clip

DECODE = """
import sys, av
with av.open(sys.argv[1]) as container:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = int(sys.argv[2])
    for frame in container.decode(stream):
        pass
"""
READ_AGAIN = """
import sys
from pathlib import Path
from PIL import Image
for path in Path(sys.argv[1]).glob("*.png"):
    Image.open(path).convert("RGB").resize((224, 224))
"""


@dataclass(frozen=True)
class Cost:
    wall_s: float
    cpu_s: float


def drawn_clip(path: Path, seconds: int) -> Path:
    """The clip, drawn first when it is not there; half a clip never stands under its name."""
    if not path.exists():
        print(f"drawing {path}, {seconds} s", file=sys.stderr)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished-{path.name}")
        draw_clip(unfinished, seconds)
        unfinished.replace(path)
    return path


def draw_clip(path: Path, seconds: int) -> None:
    """Encode a clip whose kept share is that of an episode."""
    import av
    import cv2
    import numpy as np

    random = np.random.default_rng(7)
    width, height = SIZE
    noises = [random.normal(GRAIN_MIDDLE, 2.0, (height, width)) for _ in range(13)]
    grains = [np.rint(np.clip(noise, 0, 255)).astype(np.uint8) for noise in noises]

    def background() -> "np.ndarray":
        picture = np.zeros((height, width + PAN_PX), np.float32)
        picture += np.linspace(60, 190, height, dtype=np.float32)[:, None]
        for _ in range(220):
            points = (random.random((4, 2)) * (width + PAN_PX, height)).astype(np.int32)
            cv2.fillPoly(picture, [points[:3]], float(random.integers(30, 225)))
            cv2.polylines(picture, [points], True, 20.0, 2, cv2.LINE_AA)
        return cv2.GaussianBlur(picture, (0, 0), 1.2).clip(18, 230).astype(np.uint8)

    def speed_lines() -> "np.ndarray":
        lines = np.repeat(random.integers(20, 230, (height // 24, 1)).astype(np.float32), 24, axis=0)
        return np.repeat(cv2.GaussianBlur(lines, (0, 0), 4.0), width, axis=1).astype(np.uint8)

    def character(picture: "np.ndarray", x: int, mouth: int) -> None:
        cv2.ellipse(picture, (x, 900), (260, 420), 0, 180, 360, 90.0, -1, cv2.LINE_AA)
        cv2.circle(picture, (x, 420), 170, 210.0, -1, cv2.LINE_AA)
        cv2.circle(picture, (x, 420), 170, 25.0, 4, cv2.LINE_AA)
        for side in (-65, 65):
            cv2.ellipse(picture, (x + side, 400), (26, 34), 0, 0, 360, 40.0, -1, cv2.LINE_AA)
        cv2.ellipse(picture, (x, 500), (34, (4, 12, 22)[mouth]), 0, 0, 360, 70.0, -1, cv2.LINE_AA)

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "19", "preset": "veryfast", "g": "240"}
        number = shot = 0
        while number < seconds * FPS:
            behind, x = background(), int(random.integers(500, 1400))
            is_pan, has_mouth = random.random() < 0.12, random.random() < 0.7
            is_fight = shot % 6 == 4
            lines = [speed_lines() for _ in range(3)] if is_fight else []
            for step in range(int(random.integers(FPS * 5 // 2, FPS * 5))):
                left = min(PAN_PX, step * 6) if is_pan else 0
                picture = lines[step % 3].copy() if is_fight else behind[:, left : left + width].copy()
                character(picture, x, (step // 3) % 3 if has_mouth and not is_fight else 0)
                planes = np.full((height * 3 // 2, width), 128, np.uint8)
                planes[:height] = cv2.subtract(cv2.add(picture, grains[number % 13]), GRAIN_MIDDLE)
                frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                container.mux(stream.encode(frame))
                number += 1
            shot += 1
        container.mux(stream.encode(None))


def length_of(clip: Path) -> tuple[int, float]:
    """Frames and seconds, as the header says."""
    from pipeline.video import VideoReader

    with VideoReader(clip) as reader:
        return reader.info.num_frames or 0, reader.info.duration_s or 1.0


def cost_of(command: list[str]) -> Cost:
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)} ended with {child.returncode}")
    return Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime)


def celforge(clip: Path, work: Path, threads: int, *options: str) -> tuple[Cost, int]:
    """A first extraction in a project of its own; hashing the video, catalogue and journal are counted in."""
    project = work / "project"
    shutil.rmtree(project, ignore_errors=True)
    (project / "videos").mkdir(parents=True)
    os.link(clip, project / "videos" / clip.name)
    command = [str(Path(sys.executable).with_name("celforge")), "extract", str(project)]
    cost = cost_of([*command, "--workers", str(threads), *options])
    return cost, sum(1 for path in (project / "frames").rglob("*") if path.is_file())


def mpdecimate(clip: Path, work: Path, threads: int, ffmpeg: str) -> tuple[Cost, int]:
    folder = work / "peer"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    chain = "mpdecimate=hi=64*200:lo=64*50:frac=0.33,setpts=N/FRAME_RATE/TB"
    command = [ffmpeg, "-nostdin", "-threads", str(threads), "-i", str(clip), "-vf", chain]
    cost = cost_of([*command, "-qscale:v", "1", "-qmin", "1", str(folder / "%d.png")])
    return cost, sum(1 for _ in folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--peer-runs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--ffmpeg", default=shutil.which("ffmpeg"))
    arguments = parser.parse_args()
    if not arguments.ffmpeg:
        print("no ffmpeg on the path: the peer is left out", file=sys.stderr)
    seconds = arguments.seconds
    clip = drawn_clip(arguments.clip or CLIPS / f"extract-{DRAWING}-{seconds}s.mkv", seconds)
    num_frames, length_s = length_of(clip)
    size_bytes = clip.stat().st_size
    rate = f"{num_frames:,} frames, {size_bytes / 1e6:.1f} MB, {size_bytes * 8e-6 / length_s:.1f} Mbit/s"
    print(f"{clip.name}: {rate}, {arguments.threads} threads", flush=True)
    rows: dict[str, list[tuple[Cost, int]]] = {}
    with tempfile.TemporaryDirectory(dir=clip.parent) as folder:
        for run in range(arguments.runs):  # interleaved, so that other work on the machine meets them all
            peer = arguments.ffmpeg if run < arguments.peer_runs else None
            measure_once(rows, clip, Path(folder), arguments.threads, peer)
    print_table(rows, num_frames)


def print_table(rows: dict[str, list[tuple[Cost, int]]], num_frames: int) -> None:
    """Medians of the runs, as shares of the frames and beside bare decoding."""
    limit = statistics.median(cost.wall_s for cost, _ in rows["decode"])
    limit_cpu = statistics.median(cost.cpu_s for cost, _ in rows["decode"])
    print("| what | runs | files | of frames | wall s | cpu s | wall / decode | cpu / decode |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, found in rows.items():
        wall = statistics.median(cost.wall_s for cost, _ in found)
        cpu = statistics.median(cost.cpu_s for cost, _ in found)
        files = f"{len(found)} | {found[0][1]} | {found[0][1] / num_frames:.1%}"
        print(f"| {name} | {files} | {wall:.2f} | {cpu:.2f} | {wall / limit:.2f} | {cpu / limit_cpu:.2f} |")


def measure_once(
    rows: dict[str, list[tuple[Cost, int]]], clip: Path, work: Path, threads: int, ffmpeg: str | None
) -> None:
    def note(name: str, found: tuple[Cost, int]) -> None:
        rows.setdefault(name, []).append(found)

    note("decode", (cost_of([sys.executable, "-c", DECODE, str(clip), str(threads)]), 0))
    note("celforge extract (jpg)", celforge(clip, work, threads))
    note("celforge extract --format png", celforge(clip, work, threads, "--format", "png"))
    note("celforge extract --keyframes", celforge(clip, work, threads, "--keyframes"))
    if ffmpeg:
        note("ffmpeg mpdecimate, png", mpdecimate(clip, work, threads, ffmpeg))
        again = cost_of([sys.executable, "-c", READ_AGAIN, str(work / "peer")])
        note("  and reading its png again at 224 px", (again, 0))


if __name__ == "__main__":
    main()
