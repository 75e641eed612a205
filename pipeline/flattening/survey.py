"""What a tree becomes: each folder with pictures as one or more flat folders, with repeats and names."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, PlanError
from pipeline.flattening.repeats import Fractions, Group, assign, whole_repeats
from pipeline.layouts import kohya
from pipeline.layouts.everydream import (
    FOLDER_FILES,
    Folder,
    FolderSettings,
    Tree,
    image_multiplies,
    read_tree,
    sidecar_owner,
    stem_of,
)
from pipeline.names import is_utf8

SHOWN_NAMES = 3


@dataclass(slots=True)
class Part:
    """Pictures of one folder that get the same number of repeats.

    Args:
        is_base: the part that keeps the folder's loose files, and what kohya does not read.
        name: of the flat folder; given later.
    """

    folder: Folder
    repeats: int  # 0: not seen under `split`
    images: list[str]
    is_base: bool
    name: str = ""


@dataclass(slots=True)
class Survey:
    """A tree, read and reckoned; nothing is planned yet."""

    tree: Tree
    settings: dict[tuple[str, ...], FolderSettings]
    parts: dict[tuple[str, ...], list[Part]]  # by folder, the base first
    scale: int
    multiplicity: dict[tuple[str, ...], Fraction]  # of what kohya reads, by folder, times the scale
    notes: list[str] = field(default_factory=list)
    # How many pictures of a whole folder have a caption, by its suffix; dataset.py counts once
    captions: dict[tuple[str, ...], dict[str, int]] = field(default_factory=dict)

    @property
    def all_parts(self) -> Iterator[Part]:
        """Every part, in the order of the tree."""
        return (part for parts in self.parts.values() for part in parts)

    @property
    def num_images(self) -> int:
        """Pictures that kohya reads."""
        return sum(len(part.images) for part in self.all_parts)

    @property
    def total_repeats(self) -> int:
        """Pictures seen in one pass."""
        return sum(part.repeats * len(part.images) for part in self.all_parts)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The table that --dry-run prints: one line a part."""
        for parts, own in self.parts.items():
            wanted, got = self.multiplicity[parts], self._got(parts)
            for part in own:
                yield {
                    "folder": part.folder.relative or ".",
                    "images": len(part.images),
                    "multiply": decimal(self.settings[parts].multiply),
                    "repeats": part.repeats,
                    "error_%": percent(Fraction(got), wanted),
                    "becomes": part.name,
                }

    def summary(self) -> dict[str, Any]:
        """Totals, and how far the repeats are from the fractions."""
        wanted = total(self.multiplicity.values())
        worst = self._worst()
        values: dict[str, Any] = {
            "folders": len(self.parts),
            "images": self.num_images,
            "multiplicity": float(round(wanted, 3)),
            "repeats": self.total_repeats,
            "error": f"{percent(Fraction(self.total_repeats), wanted):+g} % in all",
        }
        if worst is not None:
            values["worst_error"] = f"{worst[0]:+g} %, {worst[1] or '.'}"
        if self.scale > 1:
            values["scale"] = self.scale
        return values

    def _worst(self) -> tuple[float, str] | None:
        """The folder whose repeats are farthest from its fraction, and how far; None where all are exact."""
        errors = (
            (percent(Fraction(self._got(parts)), self.multiplicity[parts]), parts) for parts in self.parts
        )
        error, parts = max(errors, key=lambda found: abs(found[0]), default=(0.0, ()))
        return (error, self.tree.folders[parts].relative) if error else None

    def _got(self, parts: tuple[str, ...]) -> int:
        """How often the pictures of a folder are seen in one pass of kohya's."""
        return sum(part.repeats * len(part.images) for part in self.parts[parts])


def survey(
    root: Path, *, fractions: Fractions, seed: int, max_scale: int, shares_sidecars: bool = False
) -> Survey:
    """Read a tree and give every picture its repeats.

    Args:
        shares_sidecars: a sidecar can lie in two flat folders (links), so that namesakes may part.

    Raises:
        InputError: no pictures.
        PlanError: small files that say what cannot be, folders whose names no text can hold; all are named.
    """
    tree = read_tree(root)
    if not any(folder.images for folder in tree.folders.values()):
        raise InputError(f"{root} holds no pictures, at any depth", hint="give the folder of your data set")
    settings, problems = tree.settings()
    problems += _unwritable(tree)
    groups: list[Group] = []
    owners: list[tuple[str, ...]] = []
    for parts in settings:
        of_folder = _groups(tree.folders[parts], settings[parts].multiply, problems, shares_sidecars)
        groups += of_folder
        owners += [parts] * len(of_folder)
    if problems:
        raise PlanError(told("this tree cannot be flattened as it stands", problems))
    assigned, scale = assign(groups, fractions, seed=seed, max_scale=max_scale)
    seen: dict[tuple[str, ...], list[Fraction]] = {parts: [] for parts in settings}
    repeats: dict[tuple[str, ...], dict[int, list[str]]] = {parts: {} for parts in settings}
    for parts, group, own in zip(owners, groups, assigned, strict=True):
        seen[parts].append(group.multiplicity)
        for number, names in own.items():
            repeats[parts].setdefault(number, []).extend(names)
    found = {parts: _parts(tree.folders[parts], settings[parts], repeats[parts]) for parts in settings}
    multiplicity = {parts: total(values) for parts, values in seen.items()}
    if scale > 1:
        multiplicity = {parts: value * scale for parts, value in multiplicity.items()}
    return Survey(tree, settings, found, scale, multiplicity, _notes(tree, found))


def sidecars(folder: Folder) -> tuple[dict[str, list[str]], list[str]]:
    """Files that belong to pictures, by the picture's stem, and the loose ones."""
    stems = set(folder.stems)
    owned: dict[str, list[str]] = {}
    loose = []
    pictures = set(folder.images)
    for name in folder.files:
        if name in pictures:
            continue
        owner: str | None = name[: name.rfind(".")]
        if owner not in stems or name[0] == ".":  # not simply `stem.txt`
            owner = None if name in FOLDER_FILES else sidecar_owner(name, stems)
        if owner is None:
            loose.append(name)
        else:
            owned.setdefault(owner, []).append(name)
    return owned, loose


def sidecars_of(names: Sequence[str], owned: Mapping[str, Sequence[str]]) -> list[str]:
    """The sidecars of some pictures."""
    stems = dict.fromkeys(map(stem_of, names))
    return [sidecar for stem in stems for sidecar in owned.get(stem, ())]


def unread(folder: Folder) -> list[str]:
    """Pictures of a folder that EveryDream2 reads and kohya does not."""
    return [name for name in folder.images if not kohya.is_read(name)]


def is_read_whole(folder: Folder) -> bool:
    """Whether kohya reads all pictures of a folder that EveryDream2 reads."""
    return not any(suffix not in kohya.EVERY_SPELLING for suffix in folder.picture_suffixes)


def decimal(value: Fraction) -> float:
    """A number for a table."""
    return float(round(value, 4))


def total(values: Iterable[Fraction]) -> Fraction:
    """The sum; whole ones are added as what they are, for arithmetic of fractions is slow."""
    whole, parted = 0, Fraction()
    for value in values:
        if value.denominator == 1:
            whole += value.numerator
        else:
            parted += value
    return parted + whole


def percent(got: Fraction, wanted: Fraction) -> float:
    """How far off, in percent with one digit."""
    if got == wanted or not wanted:  # most folders, and arithmetic of fractions is slow
        return 0.0
    return float(round((got - wanted) * 100 / wanted, 1))


def told(what: str, problems: Sequence[str]) -> str:
    """Problems as one message, ten of them in full."""
    more = [f"and {len(problems) - 10:,} more"] if len(problems) > 10 else []
    lines = "\n  ".join([*problems[:10], *more])
    return f"{what}, and nothing was touched; problems: {len(problems):,}\n  {lines}"


def _groups(folder: Folder, multiply: Fraction, problems: list[str], shares_sidecars: bool) -> list[Group]:
    own = image_multiplies(folder, problems)
    names = folder.images
    if not is_read_whole(folder):
        names = [name for name in folder.images if kohya.is_read(name)]
    by_multiply: dict[Fraction, list[str]] = {} if own or not names else {multiply: names}
    for name in names if own else ():
        by_multiply.setdefault(own.get(name, multiply), []).append(name)
    together = {} if shares_sidecars else _namesakes(folder)
    return [
        Group(folder.relative, value, members, {name: together[name] for name in members if name in together})
        if together
        else Group(folder.relative, value, members)
        for value, members in by_multiply.items()
    ]


def _unwritable(tree: Tree) -> list[str]:
    """Folders whose names are not UTF-8, which Linux allows: neither a TOML nor kohya could name them."""
    return [
        f"{folder.path}: its name is not valid UTF-8; rename it"
        for folder in tree.folders.values()
        if folder.parts and not is_utf8(folder.parts[-1])
    ]


def _namesakes(folder: Folder) -> dict[str, str]:
    """Pictures that share a stem and a sidecar: `a.png` and `a.jpg` beside `a.txt`, as name to stem."""
    if len(folder.picture_suffixes) < 2 or len(set(folder.stems)) == len(folder.images):
        return {}
    counts = Counter(folder.stems)
    owned, _ = sidecars(folder)
    stems = {stem for stem, count in counts.items() if count > 1 and stem in owned}
    return {name: stem for name, stem in zip(folder.images, folder.stems, strict=True) if stem in stems}


def _parts(folder: Folder, settings: FolderSettings, by_repeats: dict[int, list[str]]) -> list[Part]:
    if not by_repeats:  # pictures that kohya does not read
        return [Part(folder, whole_repeats(settings.multiply, "round"), [], is_base=True)]
    numbers = sorted(by_repeats, key=lambda number: (-len(by_repeats[number]), -number))
    return [Part(folder, number, by_repeats[number], is_base=number == numbers[0]) for number in numbers]


def _notes(tree: Tree, found: dict[tuple[str, ...], list[Part]]) -> list[str]:
    """What kohya will not do as EveryDream2 does, in sentences."""
    notes = []
    suffixes: Counter[str] = Counter()
    for own in found.values():
        if not is_read_whole(own[0].folder):
            suffixes.update(os.path.splitext(name)[1] for name in unread(own[0].folder))
    if suffixes:
        kinds = ", ".join(f"{suffix} ({count:,})" for suffix, count in suffixes.most_common())
        notes.append(
            f"pictures that kohya does not read: {kinds}; save them as .png or .jpg to train on them"
        )
    followed = [f"{folder.path}/{name}" for folder in tree.folders.values() for name in folder.linked_folders]
    if followed:
        notes.append(f"links to folders, which are not followed: {some(followed)}")
    doubled = [
        f"{one.path}/{name}"
        for one in tree.folders.values()
        if ".txt.txt" in "\n".join(one.files)
        for name in one.files
        if name.endswith(".txt.txt")
    ]
    if doubled:
        notes.append(f"no trainer reads a name that ends in .txt.txt: {some(doubled)}")
    return notes


def some(names: Sequence[str]) -> str:
    """A few names, and how many more."""
    more = f" and {len(names) - SHOWN_NAMES:,} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more
