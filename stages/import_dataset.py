"""Take in a list of pictures of another trainer: EveryDream's JSON, kohya's TOML or JSON, JSON lines.

Captions and tags are noted in the catalogue for the pictures of FOLDER's project, which are found by their
path or by their content. --tree makes an EveryDream tree of the pictures too, by hard links: captions beside
them, repeats in multiply.txt. The list, and the pictures where they lie, are left as they are.

A list in the place of FOLDER is the --source, for the project of the current folder.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import SettingsError
from pipeline.job import Failure, Job, Report
from pipeline.names import path_key, safe_name
from pipeline.plan import Action, Place, Plan, SetFact, Write
from pipeline.settings import option

if TYPE_CHECKING:
    from pipeline.foreign_sets import ForeignPicture, ForeignSet

HAS_PLAN = True
FILE_OPTION = "source"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [import-dataset] of celforge.toml."""

    source: Path | None = option(None, "The list: a .json, .jsonl or .toml file.", metavar="FILE")
    images: Path | None = option(
        None,
        "Folder that relative paths in a .json or .jsonl count from; the list's own when left out.",
        metavar="FOLDER",
    )
    tree: str = option(
        "", "Make an EveryDream tree of this name in the project, by hard links.", metavar="NAME"
    )
    facts: bool = option(True, "Note captions and tags in the catalogue.")


@dataclass(frozen=True, slots=True)
class Found:
    """A picture of the list that is there, with its content (sha256, hex)."""

    picture: "ForeignPicture"
    content: str


def run(job: Job, settings: Settings) -> Report:
    """Read the list, and carry out what it says."""
    from pipeline.foreign_sets import read_foreign_set

    if settings.source is None:
        raise SettingsError(
            "which list is to be taken in?", hint="celforge import-dataset FOLDER --source FILE"
        )
    if not settings.facts and not settings.tree:
        raise SettingsError("--no-facts without --tree leaves nothing to do", hint="add --tree NAME")
    listed = read_foreign_set(settings.source, settings.images)
    for entry, reason in listed.problems:
        _note(job, entry, reason)
    found = _find(job, listed.pictures, needs_catalogue=not settings.tree)
    actions: list[Action] = []
    if settings.tree:
        actions += _tree(job.root / _tree_name(job, settings.tree), found)
    if settings.facts:
        actions += _facts(listed, found)
    if settings.tree and not job.is_dry_run:
        for one in found:
            job.catalog.add_media(one.content, "image", one.picture.path.stat().st_size)
    report = job.apply(Plan(job.stage, actions))
    report.failures = list(job.failures)
    report.values.update(
        list=listed.tool,
        entries=len(listed.pictures),
        pictures=len({one.content for one in found}),
        captions=sum(bool(one.picture.caption) for one in found),
        with_tags=sum(bool(one.picture.tags) for one in found),
    )
    report.made += [job.root / settings.tree] if settings.tree else []
    return report


def _note(job: Job, path: str, reason: str) -> None:
    job.warn(f"{path}: {reason}")
    job.failures.append(Failure(path, reason.partition(",")[0].partition(";")[0], reason))


def _find(job: Job, pictures: Sequence["ForeignPicture"], *, needs_catalogue: bool) -> list[Found]:
    """The pictures that are there, with their content; the others are named."""
    from pipeline.scan import hash_file

    known = {str(file.path): file.content for file in job.images()}
    found = []
    with job.progress(len(pictures), "picture", title="finding") as bar:
        for picture in pictures:
            job.check_stop()
            bar.advance()
            content = known.get(str(picture.path))
            if content is None:
                try:
                    content = known[str(picture.path)] = hash_file(picture.path)
                except OSError as error:
                    _note(job, str(picture.path), f"cannot be read: {error.strerror}")
                    continue
            if needs_catalogue and job.catalog.media_id(content) is None:
                _note(job, str(picture.path), "not a picture of this project; take it in with --tree NAME")
                continue
            found.append(Found(picture, content))
    return found


def _facts(listed: "ForeignSet", found: Sequence[Found]) -> Iterator[SetFact]:
    """What the list says about each content; of several entries the first counts."""
    seen: set[tuple[str, str]] = set()
    for one in found:
        tags = {"_".join(tag.split()): None for tag in one.picture.tags}
        for name, value in (("caption", one.picture.caption), ("tags", tags)):
            if value and (one.content, name) not in seen:
                seen.add((one.content, name))
                yield SetFact(one.content, name, value, listed.tool)


# The tree


def _tree_name(job: Job, name: str) -> str:
    """The name of the tree.

    Raises:
        SettingsError: it is no plain name, or something lies there.
    """
    if name != safe_name(name):
        raise SettingsError(f'"{name}" cannot be the name of a folder everywhere', hint="--tree dataset")
    path = job.root / name
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise SettingsError(f"{path} exists already", hint="give --tree another name")
    return name


def _tree(root: Path, found: Sequence[Found]) -> Iterator[Action]:
    """Links, captions and repeats; folders as they lie below what all of them have in common."""
    folders: dict[Path, list[Found]] = {}
    for one in found:
        folders.setdefault(one.picture.path.parent, []).append(one)
    if not folders:
        return
    top = Path(os.path.commonpath([str(folder) for folder in folders]))
    for folder, own in sorted(folders.items()):
        target = root.joinpath(*(safe_name(part) for part in folder.relative_to(top).parts))
        yield from _folder(target, own)


def _folder(target: Path, found: Sequence[Found]) -> Iterator[Action]:
    repeats = _common_repeats(found)
    if repeats != 1:
        yield Write(target / "multiply.txt", f"{_decimal(repeats)}\n")
    taken: set[str] = set()
    for one in found:
        name = _free_name(one.picture.path, taken)
        yield Place(one.picture.path, target / name, "hardlink", or_copy=True)
        caption = one.picture.text
        if caption:
            yield Write((target / name).with_suffix(".txt"), f"{caption}\n")
        if one.picture.repeats != repeats:
            yield Write((target / name).with_suffix(".yaml"), f"multiply: {_decimal(one.picture.repeats)}\n")


def _common_repeats(found: Sequence[Found]) -> Fraction:
    """The repeats of most pictures of a folder; the others say their own."""
    counts: dict[Fraction, int] = {}
    for one in found:
        counts[one.picture.repeats] = counts.get(one.picture.repeats, 0) + 1
    return max(counts, key=lambda repeats: (counts[repeats], repeats))


def _free_name(path: Path, taken: set[str]) -> str:
    """A name whose stem no other picture of the folder has: captions belong to stems."""
    stem, number = Path(safe_name(path.name)).stem, 1
    wanted = stem
    while path_key(wanted) in taken:
        number += 1
        wanted = f"{stem} ({number})"
    taken.add(path_key(wanted))
    return f"{wanted}{path.suffix}"


def _decimal(value: Fraction) -> str:
    return f"{float(value):.6f}".rstrip("0").rstrip(".")
