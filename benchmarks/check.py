"""How long `celforge check` takes on 100,000 images with captions, beside opening every caption and no more.

    python benchmarks/check.py [--images 100000] [--folder-images 50]

Each figure is a whole process, the median of --runs. "walk and open" is the limit of a check that opens no
picture: os.scandir of every folder, and the bytes of every caption. Half of the captions have more than 75
characters, so their tokens are counted.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from catalog import measure

WALK = """
import os, sys
def walk(folder):
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            walk(entry.path)
        elif entry.name.endswith(".txt"):
            with open(entry.path, "rb") as file:
                file.read()
walk(sys.argv[1])
"""
TAGS = ["1girl", "solo", "smile", "long hair", "looking at viewer", "school uniform", "outdoors", "blue eyes"]


def make_tree(folder: Path, images: int, folder_images: int) -> None:
    """An EveryDream tree of distinct bitmaps, captions and multiply.txt, older than a clock tick."""
    head = b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0\0\0\0\0\x04\0\0\0"
    head += b"\0" * 16
    old_ns = time.time_ns() - 3_600_000_000_000
    for number in range(images):
        leaf = folder / "1_character" / f"name {number // folder_images:04d}"
        name = leaf / f"frame_{number:06d}.bmp"
        if number % folder_images == 0:
            leaf.mkdir(parents=True)
            (leaf / "multiply.txt").write_text("1.5")
        name.write_bytes(head + number.to_bytes(4, "little"))
        os.utime(name, ns=(old_ns, old_ns))
        tags = TAGS[: 3 + 5 * (number % 2)]
        name.with_suffix(".txt").write_text(", ".join([leaf.name, *tags, str(number)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder-images", type=int, default=50)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    check = [sys.executable, "-c", "from pipeline.cli import main; main()", "check", "--ignore", "too-small"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "dataset"
        make_tree(folder, options.images, options.folder_images)
        folders = options.images // options.folder_images
        print(f"{options.images:,} images in {folders:,} folders, {os.cpu_count()} cores")
        walk = measure(
            "walk and open captions (the limit)", [sys.executable, "-c", WALK, str(folder)], options.runs
        )
        none = measure(
            "check --decode none", [*check, "--decode", "none", str(folder)], options.runs, answers=(0, 3)
        )
        first = measure("check, first time", [*check, str(folder)], answers=(0, 3))
        again = measure("check, nothing changed", [*check, str(folder)], options.runs, answers=(0, 3))
        print(f"--decode none is {none / walk:.1f}x the limit, a check of nothing new {again / walk:.1f}x")
        print(f"first check: {options.images / first:,.0f} images/s")


if __name__ == "__main__":
    main()
