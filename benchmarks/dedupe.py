"""Hashing and searching beside imagehash, imagededup and brute force, and what a comparison costs; tables.

    python benchmarks/dedupe.py [--images 60] [--sizes 10000 100000 1000000] [--threads 2]
        [--imagededup PYTHON]

Hashing: a process each, over the same 1080p JPEGs and PNGs, one thread; processor time once all is imported.
Frames of the demo's episodes are flat and clean, as of a series; the others are soft colours under grain, of
more than three times as many bytes, the worst that a decoder meets. Ours makes fourteen hashes and a
thumbnail of each picture, `imagehash.phash(Image.open(path))` and
`imagededup.methods.PHash().encode_image(path)` one hash.

Comparing: processor time of one comparison of two pictures that are read already, by what was done to one.

Searching: distinct uniform hashes, a tenth of them planted 1 to 8 bits from another one, every pair within 8
bits. Brute force is `np.bitwise_count` over the upper triangle; above 20,000 hashes only some of its rows are
computed and its time is extrapolated (~), and the pairs of these rows are held against ours. Peak memory is
that of a process that does nothing else. --imagededup names a Python that has imagededup (`pip install
--no-deps imagededup`, and numpy, Pillow, PyWavelets, scipy, scikit-learn, matplotlib, tqdm); its BK-tree
answers a sample of queries at the first size, extrapolated to all.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.hash_search import near_pairs  # noqa: E402 - found by the path above

RADIUS, PLANTED_SHARE, CHUNK, BRUTE_WHOLE = 8, 0.1, 512, 20_000
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
Hashes = NDArray[np.uint64]

OURS = """
import sys, time
from pathlib import Path
import cv2
from pipeline.picture_signature import sign
cv2.setNumThreads(1)
start = time.process_time()
for path in sys.argv[1:]:
    sign(Path(path))
print(time.process_time() - start)
"""
IMAGEHASH = """
import sys, time
import imagehash
from PIL import Image
start = time.process_time()
for path in sys.argv[1:]:
    imagehash.phash(Image.open(path))
print(time.process_time() - start)
"""
IMAGEDEDUP = """
import sys, time, types
for module, name in (("methods.cnn", "CNN"), ("utils.models", "CustomModel")):
    stub = types.ModuleType(f"imagededup.{module}")  # they import torch, which hashing does not need
    setattr(stub, name, None)
    sys.modules[stub.__name__] = stub
from imagededup.methods import PHash
hasher = PHash(verbose=False)
start = time.process_time()
for path in sys.argv[1:]:
    hasher.encode_image(path)
print(time.process_time() - start)
"""
COMPARE = """
import sys, time
from pathlib import Path
import cv2
from PIL import Image
from pipeline.picture_signature import read_small, reduced
from pipeline.same_picture import Raster, compare
cv2.setNumThreads(1)
def raster(path):
    small, width, height = read_small(Path(path), 960)
    return Raster(reduced(small, 640), max(width, height))
kinds = {name: [raster(path) for path in paths.split("|")] for name, paths in
    (one.split("=", 1) for one in sys.argv[1:])}
originals = kinds.pop("original")
for name, others in kinds.items():
    start = time.process_time()
    same = sum(compare(one, other).is_same for one, other in zip(originals, others))
    print(name, (time.process_time() - start) / len(others), same / len(others), sep="=")
"""
BK_TREE = """
import sys, time
import numpy as np
from imagededup.handlers.search.bktree import BKTree
def hamming(a, b):
    return bin(int(a, 16) ^ int(b, 16)).count("1")
hashes = [f"{int(one):016x}" for one in np.load(sys.argv[1])]
start = time.perf_counter()
tree = BKTree({str(place): one for place, one in enumerate(hashes)}, hamming)
built = time.perf_counter() - start
start = time.perf_counter()
for one in hashes[:int(sys.argv[2])]:
    tree.search(one, tol=8)
print(built + (time.perf_counter() - start) * len(hashes) / int(sys.argv[2]))
"""


# Hashing


def draw_frames(folder: Path, count: int, suffix: str = ".jpg") -> list[Path]:
    """1080p files of about the size and detail of screenshots."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (34, 60, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((1920, 1080), Image.Resampling.BICUBIC), np.int16)
        grain = random.normal(0, 4, smooth.shape[:2])[:, :, None]
        paths.append(folder / f"{number:05}{suffix}")
        Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(paths[-1], quality=92)
    return paths


def episode_frames(folder: Path, count: int) -> list[Path]:
    """1080p JPEGs of the demo's episodes, evenly spread over them."""
    import av

    paths: list[Path] = []
    episodes = sorted((ROOT / "examples" / "demo" / "episodes").glob("*.mp4"))
    for place, episode in enumerate(episodes):
        wanted = count * (place + 1) // len(episodes) - len(paths)
        with av.open(str(episode)) as container:
            (stream,) = container.streams.video
            every = max(1, stream.frames // max(1, wanted))
            for number, frame in enumerate(container.decode(stream)):
                if number % every == every // 2 and wanted:
                    paths.append(folder / f"{len(paths):05}.jpg")
                    image = frame.to_image().resize((1920, 1080), Image.Resampling.LANCZOS)
                    image.save(paths[-1], quality=92)
                    wanted -= 1
    return paths


def processor_s(code: str, paths: list[Path], python: str) -> float:
    """Processor time that a process of its own takes for the pictures once all is imported, seconds."""
    command = [python, "-c", code, *map(str, paths)]
    environment = {**os.environ, **ONE_THREAD}
    answer = subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    return float(answer.stdout)


def compare_hashing(title: str, make: Callable[[Path, int], list[Path]], asked: argparse.Namespace) -> None:
    images, runs = asked.images, asked.runs
    with tempfile.TemporaryDirectory() as folder:
        paths = make(Path(folder), images)
        size_kib = sum(path.stat().st_size for path in paths) / images / 1024
        ways = [("imagehash.phash", IMAGEHASH, sys.executable), ("celforge", OURS, sys.executable)]
        if asked.imagededup:
            ways.append(("imagededup PHash", IMAGEDEDUP, asked.imagededup))
        costs: dict[str, list[float]] = {name: [] for name, _, _ in ways}
        for _ in range(runs):  # turn about, so that other load meets all
            for name, code, python in ways:
                costs[name].append(processor_s(code, paths, python) / images)
    best = {name: min(values) for name, values in costs.items()}
    print(f"\n{images} 1080p {title} of {size_kib:.0f} KiB on average, best of {runs} runs\n")
    print("| hashing | ms of processor a picture | pictures/s a core | times |\n|---|---|---|---|")
    for name, cost in best.items():
        print(f"| {name} | {cost * 1000:.1f} | {1 / cost:.0f} | {best['imagehash.phash'] / cost:.1f} |")


# Comparing


def time_comparisons(images: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = draw_frames(Path(folder), images)
        kinds = {"original": paths}
        for name, change in CHANGES.items():
            kinds[name] = [path.with_stem(f"{path.stem} {name}") for path in paths]
            for path, changed in zip(paths, kinds[name], strict=True):
                with Image.open(path) as image:
                    change(image).save(changed, quality=75)
        kinds["another picture"] = [*paths[1:], paths[0]]
        told = [f"{name}={'|'.join(map(str, of))}" for name, of in kinds.items()]
        command = [sys.executable, "-c", COMPARE, *told]
        environment = {**os.environ, **ONE_THREAD}
        found = subprocess.run(
            command, check=True, cwd=ROOT, env=environment, capture_output=True, text=True
        ).stdout
    print(f"\n{images} pairs each\n")
    print("| comparing with | ms of processor a pair | found the same |\n|---|---|---|")
    for line in found.splitlines():
        name, cost, share = line.split("=")
        print(f"| {name} | {float(cost) * 1000:.1f} | {float(share):.0%} |")


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "quality 75": lambda image: image,
    "720p": lambda image: image.resize((1280, 720), Image.Resampling.LANCZOS),
    "20 % brighter": lambda image: image.point(lambda level: min(255, round(level * 1.2))),
    "crop of 4 %": lambda image: image.crop((77, 43, 1843, 1037)),
}


# Searching


def planted(count: int, seed: int = 1) -> Hashes:
    """Distinct hashes, `PLANTED_SHARE` of them 1 to 8 bits from another one, in mixed order."""
    random = np.random.default_rng(seed)
    near = round(count * PLANTED_SHARE)
    hashes = random.integers(0, 2**64, count, dtype=np.uint64)
    changes = np.zeros(near, np.uint64)
    wanted = random.integers(1, RADIUS + 1, near)
    for step in range(RADIUS):  # a bit drawn twice changes fewer: still within the radius
        bits = np.uint64(1) << random.integers(0, 64, near, dtype=np.uint64)
        changes |= np.where(step < wanted, bits, np.uint64(0))
    hashes[count - near :] = hashes[:near] ^ changes
    return random.permutation(np.unique(hashes))


def brute_pairs(hashes: Hashes, rows: int) -> tuple[int, float]:
    """Pairs whose first is among the first `rows`, by looking at each; how many, and seconds."""
    start, found = time.perf_counter(), 0
    for begin in range(0, rows, CHUNK):
        part = hashes[begin : min(begin + CHUNK, rows)]
        near = np.bitwise_count(part[:, None] ^ hashes[None, begin:]) <= RADIUS
        first, second = np.nonzero(near)
        found += int((first < second).sum())
    return found, time.perf_counter() - start


def _search(count: int, threads: int, answers: "SimpleQueue[tuple[float, int]]") -> None:
    hashes = planted(count)
    start = time.perf_counter()
    first, _, _ = near_pairs(hashes, RADIUS, threads=threads)
    seconds = time.perf_counter() - start
    rows = min(count, brute_rows(count))
    answers.put((seconds, int((first < rows).sum())))


def brute_rows(count: int) -> int:
    """How many rows of the triangle brute force computes: all of a small one."""
    return count if count <= BRUTE_WHOLE else 2_048


def in_own_process(task: Callable[..., None], *arguments: object) -> tuple[tuple[float, int], float]:
    """What a task answers, and the most memory its process held, MiB."""
    context = multiprocessing.get_context("spawn")
    answers: SimpleQueue[tuple[float, int]] = context.SimpleQueue()
    process = context.Process(target=task, args=(*arguments, answers))
    process.start()
    most = 0
    watched = psutil.Process(process.pid)
    while process.is_alive():
        try:
            most = max(most, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.01)
    process.join()
    if process.exitcode:
        raise SystemExit(f"the search ended with {process.exitcode}")
    return answers.get(), most / 2**20


def compare_searching(sizes: list[int], threads: int, imagededup: str | None) -> None:
    print(f"\nevery pair within {RADIUS} of 64 bits, {threads} threads; ~ is extrapolated\n")
    print("| hashes | celforge, s | its memory, MiB | numpy brute force, s | times | imagededup BK-tree, s |")
    print("|---|---|---|---|---|---|")
    for place, count in enumerate(sizes):
        (seconds, ours), memory = in_own_process(_search, count, threads)
        hashes = planted(count)
        rows = min(len(hashes), brute_rows(count))
        found, spent = brute_pairs(hashes, rows)
        if found != ours:
            raise SystemExit(f"{count:,} hashes: {ours:,} pairs of the first rows, brute force has {found:,}")
        total = len(hashes) * (len(hashes) - 1) / 2
        seen = rows * len(hashes) - rows * (rows + 1) / 2
        brute = spent * total / seen
        mark = "" if rows == len(hashes) else "~"
        tree = f"~{bk_tree_s(imagededup, hashes):.0f}" if imagededup and place == 0 else "-"
        cells = f"{seconds:.2f} | {memory:.0f} | {mark}{brute:.1f} | {brute / seconds:.0f}"
        print(f"| {count:,} | {cells} | {tree} |", flush=True)


def bk_tree_s(python: str, hashes: Hashes, queries: int = 100) -> float:
    """Seconds of building the tree and asking for every hash, from a sample of queries."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hashes.npy"
        np.save(path, hashes)
        command = [python, "-c", BK_TREE, str(path), str(queries)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--imagededup", metavar="PYTHON")
    asked = parser.parse_args()
    if asked.images:
        for title, make in (
            ("frames of the demo's episodes as .jpg", episode_frames),
            ("grainy .jpg", draw_frames),
            ("grainy .png", partial(draw_frames, suffix=".png")),
        ):
            compare_hashing(title, make, asked)
        time_comparisons(min(asked.images, 20))
    compare_searching(asked.sizes, asked.threads, asked.imagededup)


if __name__ == "__main__":
    main()
