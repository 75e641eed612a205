"""What each trainer would read of a tree: its pictures, how often an epoch shows each, in which buckets.

The trees themselves are read by pipeline/layouts.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
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
    own: Mapping[str, Fraction] = field(default_factory=dict)  # repeats of pictures that have others
    options: Mapping[str, Any] = field(default_factory=dict)  # of a subset
    class_tokens: str = ""
    captions: int = 0  # pictures with a caption that is read

    @property
    def exposures(self) -> Fraction:
        """Pictures that an epoch shows of it, repeats counted."""
        own = [self.own[name] for name in self.names if name in self.own] if self.own else []
        return self.repeats * (len(self.names) - len(own)) + sum(own, Fraction(0))


@dataclass(slots=True)
class Reading:
    """What one trainer reads, by folder; their paths are below the checked one, with forward slashes."""

    trainer: Trainer
    folders: dict[str, FolderRead] = field(default_factory=dict)
    # names in folders that are read and not checked: outside of the tree, or behind a link
    outside: dict[str, frozenset[str]] = field(default_factory=dict)

    @property
    def num_outside(self) -> int:
        """Pictures that are read and were not checked."""
        return sum(len(self.folders[path].names) for path in self.outside)

    @property
    def num_pictures(self) -> int:
        """Pictures that are read, each counted once."""
        return sum(len(one.names) for one in self.folders.values())

    @property
    def exposures(self) -> Fraction:
        """Pictures shown in one epoch, repeats counted; EveryDream2 leaves out the last fraction of one."""
        return sum((one.exposures for one in self.folders.values()), Fraction(0))

    def rows(self) -> list[dict[str, Any]]:
        """One row a folder, the largest share of an epoch first."""
        rows = [
            {
                "folder": path or ".",
                "pictures": len(one.names),
                "repeats": plain(one.repeats),
                "exposures": plain(one.exposures),
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
    subsets = kohya.read_toml(config)
    for one, counts in zip(subsets, _counting(config), strict=True):
        options = {"caption_extension": caption_extension, **one.options}
        if counts:
            found.append(Subset(os.path.normpath(one.image_dir), one.num_repeats, one.class_tokens, options))
    return found


def _counting(config: Path) -> Iterator[bool]:
    """For each subset with a repeat: whether its folder is named for the first time in its dataset."""
    data = tomllib.loads(config.read_text(encoding="utf-8-sig"))
    for dataset in data.get("datasets", []):
        seen: set[str] = set()
        for subset in dataset.get("subsets", []):
            keys = data.get("general", {}) | dataset | subset
            if int(keys.get("num_repeats", 1)) >= 1:
                yield keys["image_dir"] not in seen
                seen.add(keys["image_dir"])


def read_as_kohya(tree: Tree, subsets: Sequence[Subset]) -> Reading:
    """What kohya reads; subsets whose folder is missing give nothing."""
    reading = Reading("kohya")
    for subset in subsets:
        try:
            files = os.listdir(subset.image_dir)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            raise InputError(f"{subset.image_dir} may not be read") from error
        path = _below(tree, subset.image_dir)
        names = [name for name in subset.images() if is_read(name, "kohya")]
        if not names:
            continue
        if path and tuple(path.split("/")) not in tree.folders:
            reading.outside[path] = frozenset(files)
        one = FolderRead(Fraction(0), names, {}, subset.options, subset.class_tokens)
        reading.folders.setdefault(path, one).repeats += subset.num_repeats
    return reading


def _below(tree: Tree, folder: str) -> str:
    """A folder's path below the tree, "" the tree itself; the whole path where it lies elsewhere."""
    folder = os.path.abspath(folder)
    try:
        relative = os.path.relpath(folder, tree.root).replace(os.sep, "/")
    except ValueError:  # another drive of Windows
        return folder
    if relative == ".." or relative.startswith("../"):
        return folder
    return "" if relative == "." else relative


def read_as_everydream(tree: Tree) -> Reading:
    """What EveryDream2 reads, small files that it cannot read as it takes them."""
    reading = Reading("everydream")
    settings, _ = tree.settings(as_trained=True)
    for parts, folder in tree.folders.items():
        names = [name for name in folder.images if is_read(name, "everydream")]
        if names:
            own = everydream.image_multiplies(folder, [])
            reading.folders[folder.relative] = FolderRead(settings[parts].multiply, names, own)
    return reading


def is_read(name: str, trainer: Trainer) -> bool:
    """Whether a trainer takes a file for a picture, by its name; kohya's `*` leaves hidden files out."""
    if trainer == "kohya":
        return kohya.is_read(name) and not name.startswith(".")
    return suffix_of(name).lower() in everydream.READ_SUFFIXES and not name.startswith(".")


def suffix_of(name: str) -> str:
    """The suffix of a file's name, `.png`; cheaper than os.path.splitext, and asked a million times."""
    dot = name.rfind(".")
    return name[dot:] if dot > 0 else ""


def join(folder: str, name: str) -> str:
    """A path below the checked folder."""
    return f"{folder}/{name}" if folder else name
