"""What each trainer would read of a tree: its pictures, how often an epoch shows each, in which buckets.

The trees themselves are read by pipeline/layouts.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.layouts import everydream, kohya
from pipeline.layouts.everydream import Tree
from pipeline.layouts.flat_names import split_prefix
from pipeline.layouts.kohya import Subset
from pipeline.lint.traps import Trainer
from pipeline.names import natural_key

# What EveryDream trees of this pipeline and its ancestor call folders, and kohya takes for repeats.
_CHARACTER_COUNT = re.compile(r"\d+\+?_characters?")


@dataclass(slots=True)
class FolderRead:
    """One folder as a trainer reads it."""

    repeats: Fraction
    names: Sequence[str]  # of its pictures
    options: Mapping[str, Any] = field(default_factory=dict)  # of a subset
    class_tokens: str = ""
    captions: int = 0  # pictures with a caption that is read


@dataclass(slots=True)
class Reading:
    """What one trainer reads. Paths are below the checked folder, with forward slashes."""

    trainer: Trainer
    images: dict[str, Fraction] = field(default_factory=dict)  # picture -> how often an epoch shows it
    folders: dict[str, FolderRead] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)  # subsets outside of the checked folder

    @property
    def exposures(self) -> Fraction:
        """Pictures shown in one epoch, repeats counted; EveryDream2 leaves out the last fraction of one."""
        return sum(self.images.values(), Fraction(0))

    def rows(self) -> list[dict[str, Any]]:
        """One row a folder, the largest share of an epoch first."""
        rows = [
            {
                "folder": path or ".",
                "pictures": len(one.names),
                "repeats": plain(one.repeats),
                "exposures": plain(sum((self.images[join(path, name)] for name in one.names), Fraction(0))),
                "captions": one.captions,
            }
            for path, one in self.folders.items()
        ]
        return sorted(rows, key=lambda row: (-row["exposures"], natural_key(row["folder"])))


def plain(value: Fraction) -> int | float:
    """A number as people write it."""
    return int(value) if value.denominator == 1 else round(float(value), 3)


def choose_trainers(tree: Tree, wanted: str, config: Path | None) -> tuple[Trainer, ...]:
    """Whom to check for: as asked, or by what the tree looks like.

    A dataset TOML, or pictures directly in a folder `N_name`, are kohya's; all else is EveryDream2's. So are
    `1_character`, `2_characters`: they count characters, not repeats.
    """
    if wanted == "both":
        return ("kohya", "everydream")
    if wanted == "kohya" or (wanted == "auto" and (config is not None or _looks_flat(tree))):
        return ("kohya",)
    return ("everydream",)


def _looks_flat(tree: Tree) -> bool:
    root = tree.folders[()]
    children = [folder for parts, folder in tree.folders.items() if len(parts) == 1]
    names = [folder.parts[0] for folder in children if folder.images]
    if root.images and not names:
        names = [os.path.basename(tree.root)]
    return any(split_prefix(name) is not None and not _CHARACTER_COUNT.fullmatch(name) for name in names)


def find_dataset_config(folder: Path) -> Path | None:
    """The one kohya dataset TOML that lies in a folder itself; None where there is none, or several."""
    found = [path for path in sorted(folder.glob("*.toml")) if path.is_file() and _names_datasets(path)]
    return found[0] if len(found) == 1 else None


def _names_datasets(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return re.search(r"^\s*\[\[\s*datasets\b", text, re.MULTILINE) is not None


def kohya_subsets(tree: Tree, config: Path | None, caption_extension: str) -> list[Subset]:
    """The folders that kohya trains on.

    Raises:
        InputError: the TOML is broken, or a subset has no `image_dir`.
    """
    if config is None:
        return kohya.read_folders(Path(tree.root), caption_extension=caption_extension)
    found = []
    for one in kohya.read_toml(config):
        options = {"caption_extension": caption_extension, **one.options}
        found.append(Subset(os.path.normpath(one.image_dir), one.num_repeats, one.class_tokens, options))
    return found


def read_as_kohya(tree: Tree, subsets: Sequence[Subset]) -> Reading:
    """What kohya reads; subsets whose folder is missing give nothing."""
    reading = Reading("kohya")
    for subset in subsets:
        relative = os.path.relpath(subset.image_dir, tree.root).replace(os.sep, "/")
        if relative == ".." or relative.startswith("../") or os.path.isabs(relative):
            reading.elsewhere.append(subset.image_dir)
            continue
        try:
            names = [name for name in subset.images() if is_read(name, "kohya")]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            raise InputError(f"{subset.image_dir} may not be read") from error
        folder = "" if relative == "." else relative
        repeats = Fraction(subset.num_repeats)
        one = reading.folders.setdefault(
            folder, FolderRead(Fraction(0), names, subset.options, subset.class_tokens)
        )
        one.repeats += repeats
        for name in names:
            path = f"{folder}/{name}" if folder else name
            reading.images[path] = reading.images.get(path, Fraction(0)) + repeats
    return reading


def read_as_everydream(tree: Tree) -> Reading:
    """What EveryDream2 reads, where its small files are mended."""
    reading = Reading("everydream")
    settings, _ = tree.settings()
    for parts, folder in tree.folders.items():
        names = [name for name in folder.images if is_read(name, "everydream")]
        if not names:
            continue
        multiply = settings[parts].multiply
        own = everydream.image_multiplies(folder, multiply, [])
        reading.folders[folder.relative] = FolderRead(multiply, names)
        reading.images |= {join(folder.relative, name): own[name] for name in names}
    return reading


def is_read(name: str, trainer: Trainer) -> bool:
    """Whether a trainer takes a file for a picture, by its name; kohya's `*` leaves hidden files out."""
    if trainer == "kohya":
        return kohya.is_read(name) and not name.startswith(".")
    return everydream.is_picture(name) and os.path.splitext(name)[1].lower() in everydream.READ_SUFFIXES


def join(folder: str, name: str) -> str:
    """A path below the checked folder."""
    return f"{folder}/{name}" if folder else name
