"""A data set as exports see it: folders of pictures with their texts, repeats and settings."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from pipeline.flattening.repeats import Fractions, Group, assign, whole_repeats
from pipeline.layouts.captions import looks_like_tags, parts_of
from pipeline.layouts.everydream import FolderSettings
from pipeline.settings import Json

KEEP_SEPARATOR = "|||"  # kohya's customary one, between what stays in front and what is shuffled


@dataclass(frozen=True, slots=True)
class Example:
    """One picture of a folder.

    Args:
        name: of its file.
        text: its caption on one line; "" without one.
        caption_suffix: of its caption file; "" without one.
        tags: what the catalogue knows, as taggers spell them.
        facts: further columns, such as rating and characters.
    """

    name: str
    repeats: Fraction
    text: str = ""
    caption_suffix: str = ""
    tags: tuple[str, ...] = ()
    facts: Mapping[str, Json] = field(default_factory=dict)

    @property
    def has_tag_text(self) -> bool:
        """Whether the caption is a list of tags, not sentences."""
        return looks_like_tags(parts_of(self.text.replace(KEEP_SEPARATOR, ",")))


@dataclass(frozen=True, slots=True)
class ExampleFolder:
    """The pictures directly in one folder.

    Args:
        parts: of its path below the data set; () is the data set's own folder.
        path: absolute, or relative to where the export lies; with forward slashes.
        settings: what its small files say, besides the repeats.
        others: names of files that are neither pictures nor captions.
    """

    parts: tuple[str, ...]
    path: str
    examples: tuple[Example, ...]
    settings: FolderSettings = field(default_factory=FolderSettings)
    others: tuple[str, ...] = ()

    @property
    def relative(self) -> str:
        """Below the data set; "" is its own folder."""
        return "/".join(self.parts)

    @property
    def name(self) -> str:
        """How messages and concepts call it."""
        return self.relative or "the data set's own folder"

    @property
    def multiplicity(self) -> Fraction:
        """How many pictures an epoch shows from here."""
        return sum((one.repeats for one in self.examples), Fraction())

    @property
    def mean_repeats(self) -> Fraction:
        """Repeats of its pictures on average: for trainers that know one number a folder."""
        return self.multiplicity / len(self.examples)

    @property
    def has_own_repeats(self) -> bool:
        """Whether its pictures have different repeats."""
        return len({one.repeats for one in self.examples}) > 1

    @property
    def caption_suffix(self) -> str:
        """The suffix of most of its caption files; `.txt` without any."""
        counts = Counter(one.caption_suffix for one in self.examples if one.caption_suffix)
        return counts.most_common(1)[0][0] if counts else ".txt"

    @property
    def suffixes(self) -> Counter[str]:
        """How many pictures have which suffix, in small letters."""
        return Counter(os.path.splitext(one.name)[1].lower() for one in self.examples)


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export writes.

    Args:
        files: text by path, relative to the folder of the export.
        exposures: pictures that an epoch shows there.
        notes: what the other side has no equal for, one sentence each.
    """

    files: Mapping[str, str]
    exposures: Fraction
    notes: tuple[str, ...]


def whole_groups(
    folders: Sequence[ExampleFolder], fractions: Fractions, seed: int
) -> Iterator[tuple[ExampleFolder, int, list[Example]]]:
    """Every folder as groups of pictures with one whole number of repeats each, at least 1.

    `split` keeps the sum of the fractions; a picture that gets none is left out, a folder never is.
    """
    groups: list[Group] = []
    owners: list[ExampleFolder] = []
    for folder in folders:
        by_repeats: dict[Fraction, list[str]] = {}
        for one in folder.examples:
            by_repeats.setdefault(one.repeats, []).append(one.name)
        for repeats, names in by_repeats.items():
            groups.append(Group(folder.relative, repeats, names))
            owners.append(folder)
    assigned, _ = assign(groups, fractions, seed=seed, max_scale=1)
    repeats_of: dict[tuple[str, ...], dict[str, int]] = {}
    for folder, numbers in zip(owners, assigned, strict=True):
        for number, names in numbers.items():
            repeats_of.setdefault(folder.parts, {}).update(dict.fromkeys(names, number))
    for folder in folders:
        by_number: dict[int, list[Example]] = {}
        for one in folder.examples:
            by_number.setdefault(repeats_of[folder.parts][one.name], []).append(one)
        for number in sorted(by_number, reverse=True):
            if number:
                yield folder, number, by_number[number]


def folder_repeats(folder: ExampleFolder, fractions: Fractions) -> int:
    """One whole number for all pictures of a folder, at least 1; a trainer of folders cannot split them."""
    how = fractions if fractions in ("floor", "ceil") else "round"
    return whole_repeats(folder.mean_repeats, how)


def told(what: str, folders: Sequence[str]) -> list[str]:
    """A note that names a few folders; nothing for none."""
    if not folders:
        return []
    more = f" and {len(folders) - 3:,} more" if len(folders) > 3 else ""
    return [f"{what}: {', '.join(folders[:3])}{more}"]


def rounding_note(folders: Sequence[ExampleFolder], exposures: Fraction) -> list[str]:
    """How far whole numbers are from the fractions, and what keeps them."""
    wanted = sum((folder.multiplicity for folder in folders), Fraction())
    rounded = [folder.name for folder in folders if folder.mean_repeats.denominator != 1]
    if not rounded:
        return []
    error = float((exposures - wanted) * 100 / wanted)
    text = (
        f"repeats are whole numbers here ({error:+.1f} % in all); celforge flatten --to hardlink keeps them"
    )
    return told(text, rounded)


def own_repeats_note(folders: Sequence[ExampleFolder]) -> list[str]:
    """Folders whose pictures have repeats of their own, where a trainer knows one number a folder."""
    names = [folder.name for folder in folders if folder.has_own_repeats]
    return told("pictures with repeats of their own get the mean of their folder", names)


def caption_notes(folders: Sequence[ExampleFolder], suffixes: Sequence[str]) -> list[str]:
    """Pictures whose caption the trainer does not read.

    Args:
        suffixes: of caption files that it reads.
    """
    without = [folder.name for folder in folders if not all(one.caption_suffix for one in folder.examples)]
    other = [
        folder.name
        for folder in folders
        if any(one.caption_suffix and one.caption_suffix not in suffixes for one in folder.examples)
    ]
    mixed = [
        folder.name
        for folder in folders
        if len({one.caption_suffix for one in folder.examples if one.caption_suffix in suffixes}) > 1
    ]
    return [
        *told("pictures without a caption file; write them with celforge caption", without),
        *told(f"captions are read from {' or '.join(suffixes)} files only", other),
        *told("captions with two suffixes; one kind a folder is read", mixed),
    ]


def suffix_notes(folders: Sequence[ExampleFolder], read: frozenset[str]) -> list[str]:
    """Pictures of kinds that the trainer does not read."""
    counts: Counter[str] = Counter()
    for folder in folders:
        counts.update({suffix: count for suffix, count in folder.suffixes.items() if suffix not in read})
    kinds = ", ".join(f"{suffix} ({count:,})" for suffix, count in counts.most_common())
    return [f"pictures that are not read there: {kinds}; save them as .png or .jpg"] if kinds else []


def settings_notes(folders: Sequence[ExampleFolder], names: Mapping[str, Any]) -> list[str]:
    """Small files of EveryDream that the other side has no equal for.

    Args:
        names: settings without an equal, each with the value that says nothing.
    """
    notes = []
    for name, default in names.items():
        found = [folder.name for folder in folders if getattr(folder.settings, name) != default]
        notes += told(f"{name} has no equal there", found)
    others = sorted({key for folder in folders for key in folder.settings.others})
    return [*notes, *(f"{key} has no equal there" for key in others)]
