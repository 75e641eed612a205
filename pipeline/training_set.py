"""The pictures of a folder as a trainer would see them: repeats and captions, whichever layout it has."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

from pipeline.caption_files import decode_caption
from pipeline.flattening.manifest import read_manifest
from pipeline.layouts import everydream, kohya
from pipeline.layouts.captions import SUFFIXES
from pipeline.layouts.everydream import Folder, FolderSettings, Tree, image_multiplies, read_tree
from pipeline.layouts.flat_names import split_prefix
from pipeline.project import DATASET

Layout = Literal["everydream", "kohya"]


@dataclass(frozen=True, slots=True)
class Record:
    """One picture file of a data set.

    Args:
        folder: below the tree, as its parts; () is the tree itself.
        folder_path: absolute.
        repeats: how often an epoch shows it; 0 where its trainer would not read it.
        caption_name: of its caption file, where it has one.
    """

    folder: tuple[str, ...]
    folder_path: str
    name: str
    repeats: Fraction
    caption_name: str | None

    @property
    def path(self) -> Path:
        """Of the picture, absolute."""
        return Path(self.folder_path, self.name)

    @property
    def caption_path(self) -> Path | None:
        """Of its caption file, absolute."""
        return Path(self.folder_path, self.caption_name) if self.caption_name else None

    @property
    def relative(self) -> str:
        """Below the tree, with forward slashes."""
        return "/".join((*self.folder, self.name))


@dataclass(slots=True)
class TrainingSet:
    """Every picture of a tree, folders in their order.

    Args:
        settings: what EveryDream's small files say, by folder; empty for a kohya tree.
        problems: what is wrong with those files, one sentence each.
    """

    root: Path
    layout: Layout
    tree: Tree
    records: list[Record] = field(default_factory=list)
    settings: dict[tuple[str, ...], FolderSettings] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def by_folder(self) -> dict[tuple[str, ...], list[Record]]:
        """The records of each folder that holds pictures."""
        found: dict[tuple[str, ...], list[Record]] = {}
        for record in self.records:
            found.setdefault(record.folder, []).append(record)
        return found


def training_root(folder: Path, project_root: Path) -> Path:
    """The tree that is trained on: `dataset/` of a project that has one, else the folder itself."""
    inside = project_root / DATASET
    return inside if folder == project_root and inside.is_dir() else folder


def read_training_set(root: Path, layout: Layout | Literal["auto"] = "auto") -> TrainingSet:
    """List the pictures of a tree with their repeats; no picture and no caption is opened.

    Raises:
        InputError: a folder may not be read.
    """
    tree = read_tree(root)
    chosen: Layout = ("kohya" if looks_like_kohya(tree) else "everydream") if layout == "auto" else layout
    found = TrainingSet(root, chosen, tree)
    found.records.extend(_kohya(tree) if chosen == "kohya" else _everydream(found))
    return found


def looks_like_kohya(tree: Tree) -> bool:
    """Whether `celforge flatten` made the tree, or all its pictures lie directly in folders `N_name`.

    Files that speak to EveryDream make a tree of such names one of EveryDream's, unless flatten's manifest
    says that they are only kept for the way back.
    """
    manifest = read_manifest(Path(tree.root))
    if manifest is not None and manifest.to != "toml":
        return True
    folders = [folder for folder in tree.folders.values() if folder.images]
    return bool(folders) and all(
        len(folder.parts) == 1
        and split_prefix(folder.parts[0]) is not None
        and not everydream.FOLDER_FILES.intersection(folder.files)
        for folder in folders
    )


def _everydream(found: TrainingSet) -> Iterator[Record]:
    found.settings, problems = found.tree.settings()
    found.problems += problems
    for folder in found.tree.folders.values():
        if folder.images:
            of_all = dict.fromkeys(folder.images, found.settings[folder.parts].multiply)
            yield from _records(folder, of_all | image_multiplies(folder, found.problems))


def _kohya(tree: Tree) -> Iterator[Record]:
    for folder in tree.folders.values():
        prefix = split_prefix(folder.parts[0]) if len(folder.parts) == 1 else None
        number = max(0, prefix[0]) if prefix else 0
        yield from _records(folder, {name: Fraction(number * kohya.is_read(name)) for name in folder.images})


def _records(folder: Folder, repeats: dict[str, Fraction]) -> Iterator[Record]:
    files = set(folder.files)
    for name in folder.images:
        stem = os.path.splitext(name)[0]
        caption = next((stem + suffix for suffix in SUFFIXES if stem + suffix in files), None)
        yield Record(folder.parts, folder.path, name, repeats[name], caption)


def read_caption(record: Record) -> tuple[str | None, str]:
    """The text of a picture's caption file, and what is wrong with it; neither where there is no file.

    Raises:
        OSError: it cannot be read.
    """
    path = record.caption_path
    return (None, "") if path is None else decode_caption(path.read_bytes())
