"""Extraction beside bare decoding and beside ffmpeg's mpdecimate: wall and processor time of whole processes.

    python benchmarks/extract.py [--clip VIDEO] [--runs 3] [--minutes 8] [--ffmpeg ffmpeg] [--seconds 60]

Without --clip a 1080p clip is drawn and encoded (a minute or two) into the folder of temporary files, and
taken from there the next time: shots of 3 to 6 s on textured backgrounds with grain, mouths on threes, held
poses, pans, H.264 at about the bit rate of an episode. The rate and the share of frames kept are printed; an
episode keeps 2 to 3 % of its frames. "decode" is the limit: PyAV, frame threads, every frame decoded and
nothing done with it. After the first run none
is begun that would not end within --minutes of its start. Peer commands:

    ffmpeg -i CLIP -vf "mpdecimate=hi=64*200:lo=64*50:frac=0.33,setpts=N/FRAME_RATE/TB" -qscale:v 1 -qmin 1
        %d.png
    python: every PNG read again with Pillow and reduced to 224 px, what an embedding needs before it begins;
        the network is left out, so this row is a lower bound of the ancestor's dedupe
"""

import argparse
import hashlib
import inspect
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
EPISODE_SHARE = (0.02, 0.03)
SIZE = (1920, 1080)
OURS, OURS_PNG = "celforge extract (jpg)", "celforge extract --format png"
PEER, PEER_AGAIN = "ffmpeg mpdecimate, png", "  and reading its png again at 224 px"

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


def draw_clip(path: Path, seconds: int) -> None:
    """Encode a clip whose kept share is that of an episode."""
    import av
    import cv2
    import numpy as np

    random = np.random.default_rng(7)
    width, height = SIZE
    grains = [random.normal(0, 2.0, (height, width)).astype(np.float32) for _ in range(13)]

    def background() -> "np.ndarray":
        picture = np.zeros((height, width + 600), np.float32)
        picture += np.linspace(60, 190, height, dtype=np.float32)[:, None]
        for _ in range(220):
            points = (random.random((4, 2)) * (width + 600, height)).astype(np.int32)
            cv2.fillPoly(picture, [points[:3]], float(random.integers(30, 225)))
            cv2.polylines(picture, [points], True, 20.0, 2, cv2.LINE_AA)
        return cv2.GaussianBlur(picture, (0, 0), 1.2)

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
        stream.options = {"crf": "19", "preset": "faster", "g": "240"}
        number = 0
        while number < seconds * FPS:
            behind, x = background(), int(random.integers(500, 1400))
            is_pan, has_mouth = random.random() < 0.12, random.random() < 0.7
            for step in range(int(random.integers(3 * FPS, 6 * FPS))):
                left = min(600, step * 6) if is_pan else 0
                picture = behind[:, left : left + width].copy()
                character(picture, x, (step // 3) % 3 if has_mouth else 0)
                luma = np.clip(picture + grains[number % 13], 16, 235).astype(np.uint8)
                planes = np.full((height * 3 // 2, width), 128, np.uint8)
                planes[:height] = luma
                frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                container.mux(stream.encode(frame))
                number += 1
        container.mux(stream.encode(None))


def drawn_clip(seconds: int) -> Path:
    """The clip of an earlier call when it was drawn by the same code and as long, else a new one."""
    code = hashlib.sha256(inspect.getsource(draw_clip).encode()).hexdigest()[:8]
    path = Path(tempfile.gettempdir()) / f"celforge-clip-{seconds}s-{code}.mkv"
    if not path.is_file():
        part = path.with_stem(f"{path.stem}-{os.getpid()}.part")
        draw_clip(part, seconds)
        part.replace(path)
    return path


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
    try:
        os.link(clip, project / "videos" / clip.name)
    except OSError:  # another disk
        shutil.copyfile(clip, project / "videos" / clip.name)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--ffmpeg", default=shutil.which("ffmpeg"))
    arguments = parser.parse_args()
    clip = arguments.clip or drawn_clip(arguments.seconds)
    num_frames, seconds = length_of(clip)
    size_bytes = clip.stat().st_size
    rate = f"{num_frames:,} frames, {size_bytes / 1e6:.1f} MB, {size_bytes * 8e-6 / seconds:.1f} Mbit/s"
    print(f"{clip.name}: {rate}, {arguments.threads} threads, load {load_text()}", flush=True)
    rows: dict[str, list[tuple[Cost, int]]] = {}
    started = time.monotonic()
    longest_s, num_runs = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        ends_s = started + arguments.minutes * 60
        while num_runs < arguments.runs and (not num_runs or time.monotonic() + longest_s < ends_s):
            begun = time.monotonic()  # interleaved, so that other work on the machine meets them all
            measure_once(rows, clip, Path(folder), arguments.threads, arguments.ffmpeg)
            longest_s, num_runs = max(longest_s, time.monotonic() - begun), num_runs + 1
    print(f"{num_runs} runs, medians; load at the end {load_text()}")
    print_table(rows, num_frames)


def load_text() -> str:
    """Processes that ran or waited in the last minute, where the system counts them."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def print_table(rows: dict[str, list[tuple[Cost, int]]], num_frames: int) -> None:
    def median_of(name: str) -> Cost:
        costs = [cost for cost, _ in rows[name]]
        wall_s = statistics.median(cost.wall_s for cost in costs)
        return Cost(wall_s, statistics.median(cost.cpu_s for cost in costs))

    limit = median_of("decode")
    print("| what | files | wall s | cpu s | wall / decode | cpu / decode |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, found in rows.items():
        cost = median_of(name)
        ratios = f"{cost.wall_s / limit.wall_s:.2f} | {cost.cpu_s / limit.cpu_s:.2f}"
        print(f"| {name} | {found[0][1]} | {cost.wall_s:.2f} | {cost.cpu_s:.2f} | {ratios} |")
    share = rows[OURS][0][1] / num_frames
    is_like = EPISODE_SHARE[0] <= share <= EPISODE_SHARE[1]
    print(f"kept: {share:.1%} of the frames, {'as of' if is_like else 'NOT as of'} an episode")
    if PEER in rows:
        ours, peer, again = median_of(OURS_PNG), median_of(PEER), median_of(PEER_AGAIN)
        alone, whole = peer.wall_s / ours.wall_s, (peer.wall_s + again.wall_s) / ours.wall_s
        print(f"mpdecimate + png: {alone:.1f} times ours with png, {whole:.1f} with reading again, by wall")


def measure_once(
    rows: dict[str, list[tuple[Cost, int]]], clip: Path, work: Path, threads: int, ffmpeg: str | None
) -> None:
    def note(name: str, found: tuple[Cost, int]) -> None:
        rows.setdefault(name, []).append(found)

    note("decode", (cost_of([sys.executable, "-c", DECODE, str(clip), str(threads)]), 0))
    note(OURS, celforge(clip, work, threads))
    note(OURS_PNG, celforge(clip, work, threads, "--format", "png"))
    note("celforge extract --keyframes", celforge(clip, work, threads, "--keyframes"))
    if ffmpeg:
        note(PEER, mpdecimate(clip, work, threads, ffmpeg))
        note(PEER_AGAIN, (cost_of([sys.executable, "-c", READ_AGAIN, str(work / "peer")]), 0))


if __name__ == "__main__":
    main()
