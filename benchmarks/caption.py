"""Captions: how long 100,000 of them take, first and again, beside the bare writing of the same texts.

    python benchmarks/caption.py [--images 100000] [--folder-images 1000] [--runs 3]

Each figure is a whole process. "bare" is the limit: one open, write and close for each caption, and one sync
of the disk at the end, as a journalled run has. Pictures are one-pixel bitmaps that are known already; each
has 40 tags, every second one a character with core tags.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from catalog import make_images, measure

BARE = """
import os, sys
from pathlib import Path
captions, target = Path(sys.argv[1]), Path(sys.argv[2])
texts = captions.read_text(encoding="utf-8").splitlines()
per_folder = int(sys.argv[3])
for number, text in enumerate(texts):
    if number % per_folder == 0:
        folder = target / f"ep{number // per_folder:03d}"
        folder.mkdir(parents=True)
    with open(folder / f"frame_{number:06d}.txt", "w", encoding="utf-8") as file:
        file.write(text)
os.sync()
"""
WORDS = (
    *("long", "short", "blue", "red", "white", "black", "open", "closed", "hair", "eyes", "dress", "skirt"),
    *("hand", "holding", "school", "sitting"),
)


def note_facts(folder: Path) -> None:
    """Tags and characters as `tag` and `identify` leave them."""
    from pipeline.catalog import Catalog

    rng = random.Random(0)
    pool = [f"{first}_{second}" for first in WORDS for second in WORDS if first != second]
    with Catalog.open(folder / ".celforge" / "catalog.sqlite3") as catalog, catalog.transaction():
        run = catalog.start_run("tag", "", {}, "benchmark")
        for (media_id,) in catalog.rows("SELECT id FROM media").fetchall():
            tags = {tag: round(rng.uniform(0.35, 1), 3) for tag in rng.sample(pool, 38)}
            catalog.set_fact(media_id, "tags", tags | {"1girl": 0.99, "solo": 0.98}, "tagger", run_id=run)
            if media_id % 2:
                name = rng.choice(["sabine", "mireth", "kaorin"])
                catalog.set_fact(media_id, "characters", [name], "identify", run_id=run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder-images", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    celforge = [sys.executable, "-c", "from pipeline.cli import main; main()", "-q"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "frames"
        make_images(folder, options.images, options.folder_images)
        subprocess.run(
            [*celforge, "ingest", "--decode", "header", folder], check=True, stdout=subprocess.DEVNULL
        )
        note_facts(folder)
        print(f"{options.images:,} pictures, {os.cpu_count()} cores")
        first = measure("caption, first", [*celforge, "caption", str(folder)])
        texts = Path(temporary) / "texts"
        paths = sorted(folder.rglob("*.txt"))
        texts.write_text("\n".join(path.read_text(encoding="utf-8") for path in paths), encoding="utf-8")
        bare = [
            measure(
                "bare writing",
                [
                    sys.executable,
                    "-c",
                    BARE,
                    str(texts),
                    f"{temporary}/bare{run}",
                    str(options.folder_images),
                ],
            )
            for run in range(options.runs)
        ]
        again = measure("caption, nothing changed", [*celforge, "caption", str(folder)])
        shorter = measure(
            "caption, all of them shorter", [*celforge, "caption", "--max-tags", "10", str(folder)]
        )
        undo = measure("undo of that", [*celforge, "undo", str(folder)])
        sync = measure("sync, nothing changed", [*celforge, "sync", str(folder)])
        limit = statistics.median(bare)
        print(f"first: {options.images / first:,.0f} captions/s, {first / limit:.1f}x the bare writing")
        for title, wall in (
            ("nothing changed", again),
            ("all shorter", shorter),
            ("undo", undo),
            ("sync", sync),
        ):
            print(f"{title}: {wall / limit:.1f}x the bare writing")


if __name__ == "__main__":
    main()
