"""What EveryDream2 and kohya's scripts read of a tree, restated from descriptions of their behaviour, for tests.

Nothing here is shared with the code under test: plain walks of the disk, plain arithmetic.
"""

import math
import os
import tomllib
from fractions import Fraction
from pathlib import Path

EVERYDREAM = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".jfif"}
KOHYA = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".PNG", ".JPG", ".JPEG", ".WEBP", ".BMP"}

LITTER = {"@eadir", "__macosx"}  # of other software; EveryDream2 would read it, and nobody wants that


def everydream_multiplicity(root: Path, *, only_kohyas: bool = False) -> Fraction:
    """Sum over pictures of what the folder's multiply.txt says; hidden names are passed over, links too."""
    total = Fraction()
    for folder, folders, names in os.walk(root):
        folders[:] = [one for one in folders if one[0] != "." and one.lower() not in LITTER]
        multiply = Path(folder, "multiply.txt")
        each = Fraction(multiply.read_text().strip()) if multiply.is_file() else Fraction(1)
        for name in names:
            suffix = os.path.splitext(name)[1]
            if name.startswith(".") or suffix.lower() not in EVERYDREAM or not Path(folder, name).is_file():
                continue
            if only_kohyas and suffix not in KOHYA:
                continue
            total += each
    return total


def everydream_pass(root: Path) -> int:
    """Pictures in one pass: whole parts are repeated, fractions sampled up to the whole part of the sum."""
    return math.floor(everydream_multiplicity(root, only_kohyas=True))


def everydream_pass_of_floats(root: Path) -> int:
    """The same where a trainer adds up the numbers as floats, one picture after the other."""
    total = 0.0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(one for one in folders if one[0] != ".")
        multiply = Path(folder, "multiply.txt")
        each = float(multiply.read_text()) if multiply.is_file() else 1.0
        for name in names:
            total += each if os.path.splitext(name)[1].lower() in EVERYDREAM else 0.0
    return math.floor(total)


def kohya_folders(train_data_dir: Path) -> dict[str, list[int]]:
    """--train_data_dir: repeats of every picture, by its name."""
    seen: dict[str, list[int]] = {}
    for name in os.listdir(train_data_dir):
        folder = train_data_dir / name
        if not folder.is_dir():
            continue
        try:
            repeats = int(name.split("_")[0])
        except ValueError:
            continue  # "ignore folder without repeats", a warning
        if repeats < 1:
            continue  # without a word
        _add(seen, folder, repeats)
    return seen


def kohya_toml(path: Path) -> dict[str, list[int]]:
    """--dataset_config: repeats of every picture, by its name. Twice in one dataset, a folder counts once."""
    seen: dict[str, list[int]] = {}
    for dataset in tomllib.loads(path.read_text(encoding="utf-8"))["datasets"]:
        done = set()
        for subset in dataset.get("subsets", ()):
            if subset["image_dir"] not in done and subset.get("num_repeats", 1) >= 1:
                _add(seen, Path(subset["image_dir"]), subset.get("num_repeats", 1))
            done.add(subset["image_dir"])
    return seen


def total(seen: dict[str, list[int]]) -> int:
    """Pictures in one epoch."""
    return sum(sum(numbers) for numbers in seen.values())


def _add(seen: dict[str, list[int]], folder: Path, repeats: int) -> None:
    for name in os.listdir(folder):
        if os.path.splitext(name)[1] in KOHYA and (folder / name).is_file():
            seen.setdefault(name, []).append(repeats)
