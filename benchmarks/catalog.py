"""Catalogue throughput: how long 100,000 images take to be taken in and to be looked at again, beside the
bare walk of the disk.

    python benchmarks/catalog.py [--images 100000] [--folder-images 1000]

Each figure is a whole process, the median of --runs. "walk" is the limit: os.scandir and stat of every file,
nothing else.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WALK = """
import os, sys
def walk(folder):
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            walk(entry.path)
        else:
            entry.stat()
walk(sys.argv[1])
"""


def make_images(folder: Path, images: int, folder_images: int) -> None:
    """Distinct one-pixel bitmaps (58 bytes, hashed like any other), older than a clock tick."""
    head = b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0\0\0\0\0\x04\0\0\0"
    head += b"\0" * 16
    old_ns = time.time_ns() - 3_600_000_000_000
    for number in range(images):
        name = folder / f"ep{number // folder_images:03d}" / f"frame_{number:06d}.bmp"
        if number % folder_images == 0:
            name.parent.mkdir(parents=True)
        name.write_bytes(head + number.to_bytes(4, "little"))
        os.utime(name, ns=(old_ns, old_ns))


def measure(title: str, command: list[str], runs: int = 1, *, answers: tuple[int, ...] = (0,)) -> float:
    """Print wall and processor time and peak memory of a command, each the median of some runs; returns
    the wall time.

    Args:
        answers: exit codes that are no failure.
    """
    walls, cpus, peaks_mb = [], [], []
    for _ in range(runs):
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        walls.append(time.perf_counter() - started)
        cpus.append(usage.ru_utime + usage.ru_stime)
        peaks_mb.append(usage.ru_maxrss / 1024)
        if child.returncode not in answers:
            sys.exit(f"{title} ended with {child.returncode}")
    wall = statistics.median(walls)
    print(
        f"{title:<36} wall {wall:6.2f} s ({min(walls):.2f} to {max(walls):.2f})   "
        f"cpu {statistics.median(cpus):6.2f} s   peak {statistics.median(peaks_mb):4.0f} MB",
        flush=True,
    )
    return wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder-images", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    celforge = [sys.executable, "-c", "from pipeline.cli import main; main()"]
    folders = options.images // options.folder_images
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "frames"
        make_images(folder, options.images, options.folder_images)
        print(f"{options.images:,} images in {folders:,} folders, {os.cpu_count()} cores")
        ingest = [*celforge, "ingest", "--decode", "header", str(folder)]
        for arguments in (["--help"], ["ingest", "--help"]):
            measure(f"celforge {' '.join(arguments)}", [*celforge, *arguments], options.runs)
        walk = measure("walk (the limit)", [sys.executable, "-c", WALK, str(folder)], options.runs)
        measure("status, nothing known", [*celforge, "status", str(folder)], options.runs)
        first = measure("ingest --decode header, first", ingest, 1)
        status = measure("status, nothing changed", [*celforge, "status", str(folder)], options.runs)
        again = measure("ingest, nothing changed", ingest, options.runs)
        size_mb = (folder / ".celforge" / "catalog.sqlite3").stat().st_size / 1e6
        print(f"taken in: {options.images / first:,.0f} images/s; catalogue {size_mb:.1f} MB")
        print(f"status is {status / walk:.1f}x the bare walk, ingest of nothing new {again / walk:.1f}x")


if __name__ == "__main__":
    main()
