"""Flatten and its way back, beside what the disk can do: bare renames of folders, bare links of files.

    python benchmarks/flatten.py [--images 100000] [--folders 2000] [--runs 5] [--tree FOLDER]

Each picture has a caption, so there are twice as many files; each folder has a multiply.txt. Each figure is a
whole process with its modules compiled, as those of an installed program are, the median of --runs. Limits
run in the same minute, in bare Python processes: os.rename of every folder there and back, alone and after
os.scandir of every folder each way (in place), os.link of every file and removing the links again (hard
links), os.scandir of every folder (TOML). "fractions" are trees where multiply.txt says 2.4, so that every
folder parts in two; else every folder has a whole number.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RENAME = """
import os, sys
root = sys.argv[1]
pairs = [(f"{root}/{top}/{name}", f"{root}/1_{top}~{name}")
         for top in os.listdir(root) if top[0] != "." for name in os.listdir(f"{root}/{top}")]
for source, destination in pairs:
    os.rename(source, destination)
for source, destination in pairs:
    os.rename(destination, source)
"""
LINK = """
import os, shutil, sys
root, out = sys.argv[1], sys.argv[1] + "-bare"
os.mkdir(out)
for top in os.listdir(root):
    for name in os.listdir(f"{root}/{top}") if top[0] != "." else ():
        os.mkdir(f"{out}/1_{top}~{name}")
        for file in os.listdir(f"{root}/{top}/{name}"):
            os.link(f"{root}/{top}/{name}/{file}", f"{out}/1_{top}~{name}/{file}")
"""
UNLINK = "import shutil, sys; shutil.rmtree(sys.argv[1] + '-bare')"
SCAN = """
import os, sys
def walk(folder):
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            walk(entry.path)
walk(sys.argv[1])
"""
WALK_AND_RENAME = (
    SCAN
    + """
root, way = sys.argv[1:]
for name in [name for name in os.listdir(root) if name[0] != "."]:
    if way == "back" and "~" in name:
        os.rename(f"{root}/{name}", f"{root}/" + name.partition("_")[2].replace("~", "/"))
    for inner in os.listdir(f"{root}/{name}") if way == "there" else ():
        os.rename(f"{root}/{name}/{inner}", f"{root}/1_{name}~{inner}")
"""
)
CELFORGE = [sys.executable, "-c", "from pipeline.cli import main; main()"]
COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def make_tree(root: Path, images: int, folders: int, multiply: str) -> None:
    """Folders in ten groups, one picture of 60 bytes and one caption after the other."""
    per_folder = images // folders
    for number in range(folders):
        folder = root / f"{number % 10 + 1}_characters" / f"character {number:05d}"
        folder.mkdir(parents=True)
        (folder / "multiply.txt").write_text(multiply)
        for image in range(per_folder):
            (folder / f"frame_{number:05d}_{image:04d}.png").write_bytes(b"x" * 60)
            (folder / f"frame_{number:05d}_{image:04d}.txt").write_text("1girl, solo")


def timed(command: list[str]) -> tuple[float, float, float]:
    """Wall and processor seconds, peak MB of one process."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=COMPILED)
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{command} ended with {child.returncode}: {said.decode()}")
    wall = time.perf_counter() - started
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure(title: str, runs: int, *commands: list[str], tidy: Callable[[], object] = lambda: None) -> float:
    """Print the medians of some commands, one after the other, and of their sum; gives the sum of walls."""
    found = []
    for _ in range(runs):
        found.append([timed(command) for command in commands])
        tidy()
    total = statistics.median(sum(wall for wall, _, _ in run) for run in found)
    cpu = statistics.median(sum(cpu for _, cpu, _ in run) for run in found)
    peak = statistics.median(max(peak for _, _, peak in run) for run in found)
    each = " + ".join(f"{statistics.median(run[i][0] for run in found):.2f}" for i in range(len(commands)))
    print(f"{title:<44} wall {total:6.2f} s ({each})   cpu {cpu:6.2f} s   peak {peak:4.0f} MB", flush=True)
    return total


def compare(root: Path, runs: int, name: str) -> None:
    """All three ways on one tree, each beside its limit."""
    out = root.with_name(root.name + "-kohya")

    def flatten(*flags: str) -> list[str]:
        return [*CELFORGE, "-q", "flatten", *flags, str(root)]

    def forget() -> None:
        shutil.rmtree(root / ".celforge")
        os.sync()

    def bare(code: str) -> list[str]:
        return [sys.executable, "-c", code, str(root)]

    back = flatten("--revert")
    timed([*CELFORGE, "flatten", "--dry-run", str(root)])  # compiles the modules
    forget()
    limit = measure("renames of folders, there and back", runs, bare(RENAME))
    walk = [[*bare(WALK_AND_RENAME), way] for way in ("there", "back")]
    walk_limit = measure("scan of all folders and renames, twice", runs, *walk)
    ours = measure(f"{name}: in place, and back", runs, flatten("--in-place"), back, tidy=forget)
    print(f"  {ours / limit:.1f}x the bare renames, {ours / walk_limit:.1f}x the bare scans and renames")
    limit = measure("links of files, and removing them", runs, bare(LINK), bare(UNLINK))
    ours = measure(f"{name}: hard links, and back", runs, flatten("--to", "hardlink"), back, tidy=forget)
    print(f"  {ours / limit:.1f}x the bare links")
    limit = measure("scan of all folders", runs, bare(SCAN))
    ours = measure(f"{name}: TOML, and back", runs, flatten(), back, tidy=forget)
    print(f"  {ours / limit:.1f}x the bare scan")
    assert not out.exists()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folders", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--known", action="store_true", help="take the pictures into the catalogue first")
    options = parser.parse_args()
    print(f"{options.images:,} images in {options.folders:,} folders, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as temporary:
        for name, multiply in (("whole numbers", "2"), ("fractions", "2.4")):
            root = Path(temporary) / name.replace(" ", "-")
            make_tree(root, options.images, options.folders, multiply)
            os.sync()
            compare(root, options.runs, name)


if __name__ == "__main__":
    main()
