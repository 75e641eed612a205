"""Flatten a tree without touching it: a dataset TOML over its folders, or folders of links beside it.

A TOML can name a folder once only. Where the pictures of a folder get 2 and 3 repeats, the folder stands in
the TOML with 2, and those with 3 lie once more, as links, in a small folder with 1.

Running it again brings the output up to date: only what changed in the tree is touched. What a person added
or edited in the output is left as it is, and named.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from pipeline.actions import Drop, FileAction, Place, PlaceFolder, PlaceHow, RemoveFolder, Write
from pipeline.errors import InputError
from pipeline.files import relative_path
from pipeline.flattening import dataset
from pipeline.flattening.manifest import (
    NAME,
    TOML_NAME,
    FlatFolder,
    Manifest,
    Stamp,
    To,
    read_manifest,
    stamp,
)
from pipeline.flattening.survey import Part, Survey, sidecars, sidecars_of, some, unread
from pipeline.layouts import kohya
from pipeline.layouts.everydream import Folder
from pipeline.layouts.flat_names import FlatNames
from pipeline.made_folders import MARK, mark_made
from pipeline.project import STATE_FOLDER

_HOW: dict[To, PlaceHow] = {
    "toml": "hardlink",
    "hardlink": "hardlink",
    "copy": "copy",
    "symlink": "symlink",
    "reflink": "reflink",
}


@dataclass(slots=True)
class _Wanted:
    """One folder of the output."""

    part: Part
    name: str
    repeats: int
    files: list[str]
    is_base: bool

    @property
    def source(self) -> str:
        return self.part.folder.path


@dataclass(slots=True)
class Beside:
    """Actions, and what a person did in the output meanwhile."""

    actions: list[FileAction] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan_beside(survey: Survey, output: Path, to: To, *, separator: str) -> Beside:
    """The actions that make an output, or bring it up to date; `survey` gets the names of its parts.

    Raises:
        InputError: the output folder holds something else, or lies inside the tree.
    """
    root = Path(survey.tree.root)
    _check_place(root, output)
    before = read_manifest(output) if output.is_dir() else None
    _check_output(root, output, before)
    names = FlatNames(separator, [NAME, TOML_NAME, MARK, STATE_FOLDER])
    dangling: list[str] = []
    folders, subsets = [], []
    for own in survey.parts.values():
        wanted, listed = (_over_tree if to == "toml" else _as_folders)(survey, own, names, output, dangling)
        folders += wanted
        subsets += listed
    toml = dataset.toml_text(survey, subsets)
    manifest = Manifest(
        to=to,
        source=relative_path(root, output),
        separator=separator,
        folders=tuple(_row(one) for one in folders),
        toml_sha256=sha256(toml.encode()).hexdigest(),
    )
    update = _Update(root, output, _HOW[to], before)
    for one in folders:
        update.want(one)
    if before is not None:
        update.drop_old({one.name for one in folders})
    update.write(TOML_NAME, toml, before.toml_sha256 if before else None)
    update.write(NAME, manifest.text(), sha256((output / NAME).read_bytes()).hexdigest() if before else None)
    update.actions += mark_made(output, "flatten")
    if dangling:
        update.notes.append(f"links that lead nowhere are left out: {some(dangling)}")
    return Beside(update.actions, [*update.notes, *update.kept_notes()])


def _check_place(root: Path, output: Path) -> None:
    hint = "give a folder beside it: --output FOLDER"
    if output == root or root in output.parents:
        raise InputError(f"{output} lies inside the tree, where EveryDream2 would read it too", hint=hint)
    if output in root.parents:
        raise InputError(f"the tree lies inside {output}", hint=hint)


def _check_output(root: Path, output: Path, before: Manifest | None) -> None:
    if not os.path.lexists(output):
        return
    if before is None:
        if not output.is_dir() or any(name != STATE_FOLDER for name in os.listdir(output)):
            hint = "give another folder: --output FOLDER"
            raise InputError(f"{output} holds something that celforge flatten did not make", hint=hint)
        return
    source = os.path.normpath(output / before.source)
    if before.to == "in-place" or source != str(root):
        raise InputError(
            f"{output} was made of {source}, not of {root}", hint="give another folder: --output FOLDER"
        )


def _row(one: _Wanted) -> FlatFolder:
    stamps = [stamp(f"{one.source}{os.sep}{name}") or (0, 0) for name in one.files]
    where = one.part.folder.relative
    return FlatFolder(one.name, where, one.repeats, one.is_base, "/".join(one.files), tuple(stamps))


def _over_tree(
    survey: Survey, own: list[Part], names: FlatNames, output: Path, dangling: list[str]
) -> tuple[list[_Wanted], list[kohya.Subset]]:
    """The folder itself with the fewest repeats of its pictures, and links for those with more."""
    folder = own[0].folder
    low = min(part.repeats for part in own)
    pictures = [name for part in own for name in part.images]
    whole = Part(folder, low, pictures, is_base=True)
    subsets = [dataset.subset(survey, whole, folder.path, low)]
    wanted = []
    owned = sidecars(folder)[0] if len(own) > 1 else {}
    for part in own:
        if part.repeats == low:
            part.name = "itself" if low else "nothing"
            continue
        more = part.repeats - low
        part.name = names.add(more, folder.parts)
        files = _present(folder, [*part.images, *sidecars_of(part.images, owned)], dangling)
        wanted.append(_Wanted(part, part.name, more, files, is_base=False))
        subsets.append(dataset.subset(survey, part, str(output / part.name), more))
    return wanted, subsets


def _as_folders(
    survey: Survey, own: list[Part], names: FlatNames, output: Path, dangling: list[str]
) -> tuple[list[_Wanted], list[kohya.Subset]]:
    """A folder of links for each number of repeats; the largest takes loose files along."""
    folder = own[0].folder
    owned, loose = sidecars(folder)
    base = next(part for part in own if part.repeats)
    wanted, subsets = [], []
    for part in own:
        if not part.repeats:
            part.name = "nothing"
            continue
        part.name = names.add(part.repeats, folder.parts)
        pictures = [*part.images, *(unread(folder) if part is base else ())]
        files = [*pictures, *sidecars_of(pictures, owned)]
        files += loose if part is base and folder.parts else []
        files = _present(folder, list(dict.fromkeys(files)), dangling)
        wanted.append(_Wanted(part, part.name, part.repeats, files, is_base=part is base))
        subsets.append(dataset.subset(survey, part, str(output / part.name), part.repeats))
    return wanted, subsets


def _present(folder: Folder, names: list[str], dangling: list[str]) -> list[str]:
    """The names that lead to a file; a link may lead nowhere."""
    if not folder.links:
        return names
    links = folder.links.intersection(names)
    missing = {name for name in links if not os.path.isfile(os.path.join(folder.path, name))}
    dangling += [os.path.join(folder.path, name) for name in sorted(missing)]
    return [name for name in names if name not in missing]


class _Update:
    """Collects the actions that lead from the output as it is to the one that is wanted."""

    def __init__(self, root: Path, output: Path, how: PlaceHow, before: Manifest | None) -> None:
        self.actions: list[FileAction] = []
        self.notes: list[str] = []
        self._root = root
        self._output = output
        self._how = how
        self._old = {one.name: one for one in before.folders} if before else {}
        self._stamps: dict[str, dict[str, Stamp]] = {}
        self._edited: list[str] = []
        self._added: list[str] = []

    def want(self, wanted: _Wanted) -> None:
        """See that one folder of the output holds what it should."""
        path = self._output / wanted.name
        source = Path(wanted.source)
        if not os.path.lexists(path):
            self.actions.append(PlaceFolder(source, path, tuple(wanted.files), self._how))
            return
        old = self._rows(wanted.name)
        for name in wanted.files:
            self._want_file(source / name, path / name, old.get(name))
        for name in sorted(set(os.listdir(path)).difference(wanted.files)):
            self._drop_file(wanted.name, name)

    def _want_file(self, source: Path, path: Path, old: Stamp | None) -> None:
        if not os.path.lexists(path):
            self.actions.append(Place(source, path, self._how))
            return
        found = stamp(path)
        if found == stamp(source):
            return
        if old is not None and found == old:
            self.actions += [Drop(path, "changed in the tree"), Place(source, path, self._how)]
        else:
            self._edited.append(str(path))

    def _drop_file(self, folder: str, name: str) -> None:
        path = self._output / folder / name
        if self._is_ours(folder, name):
            self.actions.append(Drop(path, "no longer in the tree, or with other repeats"))
        else:
            self._added.append(str(path))

    def drop_old(self, wanted: set[str]) -> None:
        """Take away folders that are not wanted any more, but for what a person put there."""
        for name in self._old.keys() - wanted:
            path = self._output / name
            if not path.is_dir():
                continue
            files = sorted(os.listdir(path))
            if all(self._is_ours(name, file) for file in files):
                self.actions.append(Drop(path, "no longer in the tree, or with other repeats"))
                continue
            for file in files:
                self._drop_file(name, file)
            self.actions.append(RemoveFolder(path))

    def _is_ours(self, folder: str, name: str) -> bool:
        """Whether a file is as it was made, or is the tree's own by a link, and may go."""
        if name not in self._rows(folder):
            return False
        home = self._root / self._old[folder].folder / name
        return stamp(self._output / folder / name) in (self._rows(folder)[name], stamp(home))

    def write(self, name: str, text: str, old_sha256: str | None) -> None:
        """Write a file of ours, but not over one that was edited."""
        path = self._output / name
        if not os.path.lexists(path):
            self.actions.append(Write(path, text))
            return
        found = sha256(path.read_bytes()).hexdigest()
        if found == sha256(text.encode()).hexdigest():
            return
        if found == old_sha256:
            self.actions.append(Write(path, text, "brought up to date", expects=found))
        else:
            self.notes.append(f"{path} was edited and is left as it is; move it away to have it made anew")

    def kept_notes(self) -> Iterator[str]:
        """What was left because a person made it."""
        if self._edited:
            yield f"files edited in the output are left as they are: {some(self._edited)}"
        if self._added:
            yield f"files added to the output are left as they are: {some(self._added)}"

    def _rows(self, folder: str) -> dict[str, Stamp]:
        if folder not in self._stamps:
            self._stamps[folder] = self._old[folder].old() if folder in self._old else {}
        return self._stamps[folder]
