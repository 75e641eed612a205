"""Arrange and balance, beside what the disk can do: bare links of the same files.

    python benchmarks/arrange.py [--images 100000] [--folder-images 1000] [--runs 3]

Each picture has a caption, so there are twice as many files. Each figure is a whole process, the median of
--runs; the catalogue knows the pictures already (celforge ingest). "links" is the limit, in the same minute:
a bare Python process that makes the folders and calls os.link for every file, by a list of paths.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.job import open_job

LINKS = """
import os, sys
for line in open(sys.argv[1], encoding="utf-8"):
    source, destination = line.rstrip("\\n").split("\\t")
    try:
        os.link(source, destination)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(destination))
        os.link(source, destination)
"""
CELFORGE = [sys.executable, "-c", "from pipeline.cli import main; main()"]
CHARACTERS = 200


def make_project(root: Path, images: int, folder_images: int) -> None:
    """Distinct one-pixel bitmaps with captions, older than a clock tick, and characters for each."""
    head = b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0\0\0\0\0\x04\0\0\0"
    head += b"\0" * 16
    old_ns = time.time_ns() - 3_600_000_000_000
    for number in range(images):
        path = root / "frames" / f"ep{number // folder_images:03d}" / f"frame_{number:06d}.bmp"
        if number % folder_images == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(head + number.to_bytes(4, "little"))
        caption = path.with_suffix(".txt")
        caption.write_text(f"character {number % CHARACTERS}, 1girl, picture {number}")
        for one in (path, caption):
            os.utime(one, ns=(old_ns, old_ns))
    with open_job(root, "identify") as job:
        files = job.images()
        with job.catalog.transaction():
            for number, file in enumerate(files):
                names = [f"character {number % CHARACTERS}", f"character {number % 7}"]
                job.set_fact(file, "characters", names[: 1 + number % 2])


def seconds(command: list[str]) -> float:
    """Wall seconds of a command."""
    started = time.perf_counter()
    code = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    ).returncode
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}")
    return time.perf_counter() - started


def show(title: str, walls: list[float]) -> float:
    """Print the median of some runs, and return it."""
    wall = statistics.median(walls)
    print(f"{title:<34} wall {wall:7.2f} s ({min(walls):.2f} to {max(walls):.2f})", flush=True)
    return wall


def list_links(root: Path, list_path: Path) -> int:
    """Write source and destination of every link that a bare process makes, from the arranged tree."""
    inodes = {os.stat(path).st_ino: path for path in (root / "frames").rglob("*.*")}
    lines = []
    for path in (root / "dataset").rglob("*.*"):
        if not path.name.startswith("."):  # .celforge-made
            target = root / "bare" / path.relative_to(root / "dataset")
            lines.append(f"{inodes[os.stat(path).st_ino]}\t{target}\n")
    list_path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder-images", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root, list_path = Path(temporary) / "project", Path(temporary) / "links.txt"
        make_project(root, options.images, options.folder_images)
        arrange, undo = [*CELFORGE, "arrange", str(root)], [*CELFORGE, "undo", str(root)]
        first, undone, bare = [], [], []
        for _ in range(options.runs):
            first.append(seconds(arrange))
            files = list_links(root, list_path)
            bare.append(seconds([sys.executable, "-c", LINKS, str(list_path)]))
            shutil.rmtree(root / "bare")
            undone.append(seconds(undo))
        print(f"{options.images:,} pictures with captions, {files:,} files, {os.cpu_count()} cores")
        limit = show("links (the limit)", bare)
        wall = show("arrange, first", first)
        show("undo of it", undone)
        seconds(arrange)
        show("arrange, nothing changed", [seconds(arrange) for _ in range(options.runs)])
        show("balance", [seconds([*CELFORGE, "balance", str(root)]) for _ in range(options.runs)])
        print(f"arrange is {wall / limit:.1f}x the bare links")


if __name__ == "__main__":
    main()
