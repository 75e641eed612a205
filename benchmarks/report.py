"""Report and export of 100,000 pictures with 30 tags each, beside the bare walk of the disk.

    python benchmarks/report.py [--images 100000] [--folder-images 1000]

Each figure is a whole process. "report, first" reads every header and makes 3,000 small pictures; "report,
again" after a change of one fact is what a person waits for. "status" reads no picture and is the peer of the
same catalogue: it walks, compares and counts.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from catalog import WALK, make_images, measure

from pipeline.job import open_job

TAGS = [f"tag_{number}" for number in range(5_000)]


def tell_tags(folder: Path) -> None:
    """Thirty tags for each picture, common ones often, as taggers give them."""
    chance = random.Random(0)
    weights = [1 / (place + 1) for place in range(len(TAGS))]
    with open_job(folder, "tag") as job, job.catalog.transaction():
        for file in job.images():
            chosen = chance.choices(TAGS, weights, k=30)
            job.set_fact(file, "tags", {tag: round(chance.random(), 4) for tag in chosen}, source="wd")
            job.set_fact(file, "characters", [chance.choice(TAGS[:40])], source="identify")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder-images", type=int, default=1_000)
    given = parser.parse_args()
    celforge = [sys.executable, "-c", "from pipeline.cli import main; main()"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder, given.images, given.folder_images)
        measure("ingest", [*celforge, "ingest", name, "--decode", "header"], 1)
        tell_tags(folder)
        walk = measure("walk", [sys.executable, "-c", WALK, name], 3)
        status = measure("status", [*celforge, "status", name], 3)
        first = measure("report, first", [*celforge, "report", name], 1)
        again = measure("report, again", [*celforge, "report", name], 3)
        measure("export, imagefolder", [*celforge, "export", name, "--to", "imagefolder"], 1)
        measure("export, kohya-json", [*celforge, "export", name, "--to", "kohya-json"], 1)
        page = (folder / "report" / "index.html").stat().st_size
        ratios = {
            "first_to_walk": first / walk,
            "again_to_walk": again / walk,
            "again_to_status": again / status,
        }
        print(json.dumps({key: round(value, 1) for key, value in ratios.items()} | {"page_bytes": page}))


if __name__ == "__main__":
    main()
