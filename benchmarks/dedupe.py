"""Hashing beside imagehash, and exact search beside a numpy brute force.

    python benchmarks/dedupe.py [--pictures 40] [--runs 3] [--largest 1000000]

Hashing: drawn 1080p JPEGs (quality 95, with little and with much grain) and PNGs, one thread, processor time
a picture, the median of --runs.
`imagehash.phash` gives one hash of 64 bits; ours gives the hashes of seven views and of their mirror images,
and the thumbnail that confirms a match. Search: uniform random 64-bit hashes of which a tenth are planted
within 4 bits of another, all pairs within 8 bits, two threads. numpy compares every pair (`bitwise_count`);
above 10,000 hashes its time is extrapolated from the first 2,000 rows.
"""

import argparse
import io
import resource
import statistics
import tempfile
import time
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageDraw

from pipeline.hash_search import near_pairs
from pipeline.picture_signature import sign

RADIUS_BITS = 8
SAMPLED_ROWS = 2_000
EXACT_UP_TO = 10_000


def draw(number: int, grain_levels: float) -> Image.Image:
    random = np.random.default_rng(number)
    picture = Image.new("RGB", (1920, 1080), tuple(int(one) for one in random.integers(0, 256, 3)))
    pen = ImageDraw.Draw(picture)
    for _ in range(150):
        x, y = (int(one) for one in random.integers(0, (1920, 1080)))
        width, height = (int(one) for one in random.integers(20, 500, 2))
        colour = tuple(int(one) for one in random.integers(0, 256, 3))
        pen.ellipse((x, y, x + width, y + height), fill=colour, outline="black", width=3)
    grain = random.normal(0, grain_levels, (1080, 1920, 1))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


def hashing(num_pictures: int, runs: int) -> None:
    print("| hashing, 1080p | ms of cpu a picture | imagehash / ours |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for kind, grain, options in (
            ("JPEG", 0.5, {"quality": 95}),
            ("JPEG", 2.0, {"quality": 95}),
            ("PNG", 0.5, {"compress_level": 1}),
        ):
            paths = []
            for number in range(num_pictures):
                buffer = io.BytesIO()
                draw(number, grain).save(buffer, kind, **options)
                paths.append(Path(folder, f"{number}.{kind.lower()}"))
                paths[-1].write_bytes(buffer.getvalue())
            costs: dict[str, list[float]] = {"imagehash.phash": [], "celforge": []}
            for _ in range(runs):
                for name, work in (
                    ("imagehash.phash", lambda path: imagehash.phash(Image.open(path))),
                    ("celforge", sign),
                ):
                    started = time.process_time()
                    for path in paths:
                        work(path)
                    costs[name].append((time.process_time() - started) * 1000 / len(paths))
            theirs, ours = (statistics.median(costs[name]) for name in costs)
            size_kb = statistics.mean(path.stat().st_size for path in paths) / 1000
            print(f"| {kind} of {size_kb:.0f} kB, imagehash.phash | {theirs:.1f} | |")
            print(f"| {kind} of {size_kb:.0f} kB, celforge | {ours:.1f} | {theirs / ours:.1f} |")


def planted(size: int) -> "np.ndarray":
    random = np.random.default_rng(size)
    hashes = random.integers(0, 2**63, size, dtype=np.uint64) * np.uint64(2) + random.integers(
        0, 2, size, dtype=np.uint64
    )
    copies = size // 10
    near = hashes[random.integers(0, size - copies, copies)].copy()
    for _ in range(4):
        near ^= np.left_shift(np.uint64(1), random.integers(0, 64, copies).astype(np.uint64))
    hashes[size - copies :] = near
    return np.unique(hashes)


def brute_force_s(hashes: "np.ndarray") -> tuple[float, int | None]:
    """Seconds for all pairs, and their number where all were compared."""
    rows = len(hashes) if len(hashes) <= EXACT_UP_TO else SAMPLED_ROWS
    started, pairs = time.perf_counter(), 0
    for row in range(rows):
        pairs += int((np.bitwise_count(hashes[row + 1 :] ^ hashes[row]) <= RADIUS_BITS).sum())
    seconds = time.perf_counter() - started
    compared = sum(len(hashes) - 1 - row for row in range(rows))
    whole = len(hashes) * (len(hashes) - 1) / 2
    return seconds * whole / compared, pairs if rows == len(hashes) else None


def search(largest: int) -> None:
    print("| search, radius 8 | pairs | wall s | cpu s | numpy, every pair, s |")
    print("| --- | --- | --- | --- | --- |")
    for size in (10_000, 100_000, 1_000_000):
        if size > largest:
            break
        hashes = planted(size)
        wall, cpu = time.perf_counter(), time.process_time()
        found = len(near_pairs(hashes, RADIUS_BITS, threads=2)[0])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        brute, exact = brute_force_s(hashes)
        assert exact is None or exact == found
        note = "" if exact is not None else " (extrapolated)"
        print(f"| {len(hashes):,} hashes | {found:,} | {wall:.2f} | {cpu:.2f} | {brute:.1f}{note} |")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the whole process: {peak_mb:,.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--largest", type=int, default=1_000_000)
    options = parser.parse_args()
    search(options.largest)
    hashing(options.pictures, options.runs)


if __name__ == "__main__":
    main()
