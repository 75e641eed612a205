"""The way back of a tree that was flattened where it lies, by its manifest.

What a person did meanwhile stays: new captions come back beside their pictures, edited ones stay edited,
deleted files stay deleted. A flat folder whose number was changed comes back with that number in
multiply.txt. Folders that `flatten` did not make stay where they are.

All that lies in a folder comes along with it, whoever wrote it and when: what is found here of edits is told
to the person, and nothing depends on it. So the time is asked of what people write by hand only, captions and
other small files, and not of pictures, which are half of all files.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path

from pipeline.actions import Drop, FileAction, MakeFolder, Move, MoveFiles, Relink, RemoveFolder, Write
from pipeline.flattening.manifest import NAME, TOML_NAME, FlatFolder, Manifest
from pipeline.flattening.survey import some
from pipeline.flattening.together import together
from pipeline.layouts.everydream import PICTURE_SUFFIXES, is_picture
from pipeline.layouts.flat_names import split_prefix
from pipeline.names import is_ignored_name

# Suffixes of files whose time is not asked
_NOT_ASKED = frozenset(one[1:] for one in {*PICTURE_SUFFIXES, *map(str.upper, PICTURE_SUFFIXES)})


@dataclass(slots=True)
class Back:
    """Actions of the way back, and what a person did meanwhile."""

    actions: list[FileAction] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    changes: dict[str, int] = field(default_factory=dict)  # added, edited, deleted: files


@dataclass(slots=True)
class _Site:
    root: Path
    manifest: Manifest
    lies_in: dict[str, str]  # name of a flat folder -> its name on the disk now; those that are gone lack

    def path(self, flat: FlatFolder) -> str:
        return os.path.join(self.root, self.lies_in[flat.name])

    def home(self, folder: str) -> str:
        """Where a folder of the tree lies, given as the manifest writes it."""
        return os.path.normpath(os.path.join(self.root, folder))


def plan_back(root: Path, manifest: Manifest) -> Back:
    """The actions that bring a tree back."""
    site = _Site(root, manifest, _whereabouts(root, manifest))
    back = Back()
    _note_changes(site, back)
    back.actions += _relinked(site, back)
    back.actions += _gathered(site)
    back.actions += _renumbered(site, back)
    back.actions += together(_renamed(site))
    for name in (TOML_NAME, NAME):
        if name == NAME or (manifest.toml_sha256 and (root / name).is_file()):
            back.actions.append(Drop(root / name, "the tree is back"))
    return back


def _whereabouts(root: Path, manifest: Manifest) -> dict[str, str]:
    """Where each flat folder lies: under its name, or under the same name with another number."""
    there = [entry.name for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    known = {one.name for one in manifest.folders}
    found = {name: name for name in known.intersection(there)}
    by_rest: dict[str, list[str]] = {}
    for name in there:
        prefix = split_prefix(name)
        if name not in known and prefix is not None and prefix[0] >= 1:
            by_rest.setdefault(prefix[1], []).append(name)
    for name in sorted(known - found.keys()):
        others = by_rest.get(name.partition("_")[2], [])
        if len(others) == 1:
            found[name] = others.pop()
    return found


def _note_changes(site: _Site, back: Back) -> None:
    added: list[str] = []
    edited: list[str] = []
    deleted: list[str] = []
    gone = []
    for flat in site.manifest.folders:
        if flat.name not in site.lies_in:
            gone += [flat.name] if flat.names else []
            continue
        path = site.path(flat)
        names, newer = _files(path, site.manifest.made_ns)
        if newer or "/".join(names) != flat.names:  # they are sorted, except where a folder parted
            now, before = set(names), set(flat.files)
            added += [os.path.join(path, name) for name in sorted(now - before)]
            deleted += [os.path.join(path, name) for name in sorted(before - now)]
            edited += [os.path.join(path, name) for name in newer if name in before]
    back.changes = {"added": len(added), "edited": len(edited), "deleted": len(deleted)}
    for what, names in (("added since, and kept", added), ("edited since, and kept so", edited)):
        back.notes += [f"{what}: {some(names)}"] if names else []
    back.notes += [f"deleted since, and not made again: {some(deleted)}"] if deleted else []
    back.notes += [f"flat folders that are gone, with all that was in them: {some(gone)}"] if gone else []
    back.notes += list(_strangers(site))


def _files(folder: str, since_ns: int) -> tuple[list[str], list[str]]:
    """Names in a folder, other than folders, sorted, and those of them that were written after a time; links
    and pictures are not asked.
    """
    found: list[str] = []
    newer: list[str] = []
    with _listed(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                name = entry.name
                found.append(name)
                is_asked = name.rpartition(".")[2] not in _NOT_ASKED
                if is_asked and entry.stat(follow_symlinks=False).st_mtime_ns > since_ns:
                    newer.append(name)
            elif entry.is_symlink() or not entry.is_dir():
                found.append(entry.name)
    found.sort()
    return found, newer


@contextmanager
def _listed(folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """The entries of a folder that stays open: none of them is looked for from the top of the disk again."""
    if os.scandir not in os.supports_fd:  # Windows tells sizes and times with the names
        with os.scandir(folder) as entries:
            yield entries
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(descriptor) as entries:
            yield entries
    finally:
        os.close(descriptor)


def _strangers(site: _Site) -> Iterator[str]:
    """Folders with pictures that came later."""
    known = set(site.lies_in.values())
    new = []
    for entry in os.scandir(site.root):
        if not entry.is_dir(follow_symlinks=False) or is_ignored_name(entry.name) or entry.name in known:
            continue
        if split_prefix(entry.name) and any(map(is_picture, os.listdir(entry.path))):
            new.append(entry.path)
    if new:
        yield (
            f"folders that flatten did not make stay as they are: {some(sorted(new))}; "
            "to take them in as kohya's: celforge flatten --import-kohya"
        )


def _relinked(site: _Site, back: Back) -> Iterator[FileAction]:
    for stored, before, now in site.manifest.links:
        top, _, rest = stored.partition("/")
        path = site.root / (f"{site.lies_in.get(top, top)}/{rest}" if rest else top)
        if path.is_symlink() and os.readlink(path) == now:
            yield Relink(path, before, now, "as it was")
        elif os.path.lexists(path):
            back.notes.append(f"{path} was pointed elsewhere since, and is left so")


def _gathered(site: _Site) -> Iterator[FileAction]:
    """Bring the parts of a folder together again, and pictures of the tree's own folder out of theirs."""
    bases = {one.folder: one for one in site.manifest.folders if one.is_base and one.folder}
    emptied = []
    for flat in site.manifest.folders:
        if flat.name not in site.lies_in or flat is bases.get(flat.folder):
            continue
        base = bases.get(flat.folder)
        is_there = base is not None and base.name in site.lies_in
        home = site.path(base) if base is not None and is_there else site.home(flat.folder)
        yield from _moved_out(site.path(flat), home)
        emptied.append(site.path(flat))
    yield from map(RemoveFolder, emptied)  # after all: the log need not be synced between the two of each


def _moved_out(folder: str, home: str) -> Iterator[FileAction]:
    if names := sorted(os.listdir(folder)):
        yield MoveFiles(folder, home, tuple(names), "back to the others")


def _renumbered(site: _Site, back: Back) -> Iterator[FileAction]:
    """Folders whose number was changed by hand get it in multiply.txt."""
    parts: dict[str, int] = {}
    for flat in site.manifest.folders:
        parts[flat.folder] = parts.get(flat.folder, 0) + 1
    for flat in site.manifest.folders:
        name = site.lies_in.get(flat.name, flat.name)
        prefix = split_prefix(name)
        if name == flat.name or prefix is None:
            continue
        if parts[flat.folder] > 1 or not flat.folder:
            back.notes.append(f"{name} was {flat.name}; its multiply.txt is left as it was")
            continue
        yield from number_written(site.root / name, prefix[0])
        back.notes.append(f"{name} was {flat.name}: multiply.txt of {flat.folder} is {prefix[0]} now")


def number_written(folder: Path, number: int) -> Iterator[FileAction]:
    """Write multiply.txt, over one that is there."""
    path = folder / "multiply.txt"
    expects = sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    yield Write(path, f"{number}\n", "the number of the flat folder", expects=expects)


def _renamed(site: _Site) -> Iterator[FileAction]:
    """Folders get their names again, in the opposite order, and removed ones are made."""
    homes = {one.name: one.folder for one in site.manifest.folders if one.is_base}
    leaving = {
        site.lies_in[name] for kind, name in site.manifest.order if name in site.lies_in and kind == "move"
    }
    is_there = cache(os.path.isdir)  # most folders lie in a few that are not there
    for kind, name in reversed(site.manifest.order):
        if kind == "remove":
            yield MakeFolder(site.home(name), "as it was", mode=site.manifest.removed[name], as_is=True)
        elif name in site.lies_in:
            folder, home = os.path.join(site.root, site.lies_in[name]), site.home(homes[name])
            is_taken = is_there(os.path.dirname(home)) and is_there(home) and homes[name] not in leaving
            if is_taken:
                yield from _moved_out(folder, home)
                yield RemoveFolder(folder)
            else:
                yield Move(folder, home, as_is=True)
