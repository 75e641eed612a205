"""Flatten a tree where it lies: folders are renamed whole, so that all that is in them comes along.

A folder with pictures becomes `root/N_name` in one rename, however many files it holds; the deepest first, so
that a folder in the middle keeps its own pictures only. Files are moved one by one only where the pictures of
one folder part, and out of the tree's own folder. Folders that become empty are removed and come back later;
those that a person left empty stay.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from pipeline.actions import FileAction, MakeFolder, Move, MoveFiles, Relink, RemoveFolder, Write
from pipeline.flattening import dataset
from pipeline.flattening.manifest import NAME, TOML_NAME, FlatFolder, Manifest
from pipeline.flattening.survey import Survey, sidecars, sidecars_of, unread
from pipeline.flattening.together import together
from pipeline.layouts.everydream import Tree
from pipeline.layouts.flat_names import FlatNames
from pipeline.names import path_key

Parts = tuple[str, ...]


@dataclass(slots=True)
class _Layout:
    """Where everything comes to lie."""

    survey: Survey
    bases: dict[Parts, str] = field(default_factory=dict)  # folders that are renamed, and their new names
    removed: list[Parts] = field(default_factory=list)  # deepest first
    moved_files: dict[str, list[str]] = field(default_factory=dict)  # flat folder -> files moved into it
    kept_files: dict[str, list[str]] = field(default_factory=dict)  # flat folder -> files that it has anyway

    @property
    def root(self) -> str:
        return self.survey.tree.root


def plan_in_place(survey: Survey, *, separator: str, writes_toml: bool) -> list[FileAction]:
    """The actions that flatten a tree where it lies; `survey` gets the names of its parts."""
    layout = _Layout(survey)
    layout.removed = _emptied(survey.tree, survey.parts.keys())
    _name(layout, separator)
    _share_files(layout)
    order = _order(layout)
    actions = list(together(_folder_action(layout, parts) for parts in order))
    moves = list(_file_moves(layout))
    # All folders before all files: the log need not be synced between the two of each folder.
    new = dict.fromkeys(destination for _, destination, _ in moves)
    actions += [MakeFolder(os.path.join(layout.root, name), "for files of other repeats") for name in new]
    for source, destination, names in moves:
        reason = "those with other repeats" if source else "from the tree's own folder"
        ends = os.path.join(layout.root, source), os.path.join(layout.root, destination)
        actions.append(MoveFiles(*ends, names, reason))
    links = list(_links(layout))
    root = Path(layout.root)
    actions += [Relink(root / path, now, before, "its target moved") for path, before, now in links]
    toml = dataset.toml_text(survey, dataset.flat_subsets(survey, root)) if writes_toml else ""
    manifest = _manifest(layout, separator, order, links, toml)
    if toml:
        actions.append(Write(root / TOML_NAME, toml, "for kohya's --dataset_config"))
    actions.append(Write(root / NAME, manifest.text(), "for the way back"))
    return actions


def _emptied(tree: Tree, moved: Iterable[Parts]) -> list[Parts]:
    """Folders that hold nothing once the moved ones are gone; the deepest first."""
    gone = set(moved)
    removed = []
    for parts, folder in sorted(tree.folders.items(), key=lambda item: -len(item[0])):
        if parts in gone or not parts or not folder.folders:
            continue
        if folder.files or folder.linked_folders or folder.ignored_folders or folder.others:
            continue
        if all((*parts, name) in gone for name in folder.folders):
            gone.add(parts)
            removed.append(parts)
    return removed


def _name(layout: _Layout, separator: str) -> None:
    """Give every part its name. What stays at the top keeps its own."""
    survey = layout.survey
    top = survey.tree.folders[()]
    gone = {parts for parts in survey.parts if parts} | set(layout.removed)
    staying = [name for name in (*top.folders, *top.ignored_folders) if (name,) not in gone]
    names = FlatNames(separator, [*staying, *top.files, *top.linked_folders, *top.others, NAME, TOML_NAME])
    for parts, own in survey.parts.items():
        for part in own:
            part.name = names.add(part.repeats, parts)
            if part.is_base and parts:
                layout.bases[parts] = part.name


def _share_files(layout: _Layout) -> None:
    for parts, own in layout.survey.parts.items():
        folder = layout.survey.tree.folders[parts]
        if len(own) == 1 and parts:
            layout.kept_files[own[0].name] = folder.files
            continue
        owned, _ = sidecars(folder)
        left = set(folder.files)
        for part in own:
            if parts and part.is_base:
                continue
            names = [*part.images, *(unread(folder) if part.is_base else ())]
            names += sidecars_of(names, owned)
            layout.moved_files[part.name] = [name for name in names if name in left]
            left.difference_update(names)
        if parts:
            layout.kept_files[own[0].name] = sorted(left)


def _order(layout: _Layout) -> list[Parts]:
    """Folders to rename or remove: children first, and what stands in the place of a name before that name.

    In layers, so that few steps of the journal touch what an earlier one touched.
    """
    occupants = {path_key(parts[0]): parts for parts in (*layout.bases, *layout.removed) if len(parts) == 1}
    changed = {*layout.bases, *layout.removed}
    first: dict[Parts, list[Parts]] = {parts: [] for parts in changed}
    for parts in changed:
        for end in range(1, len(parts)):
            if parts[:end] in changed:
                first[parts[:end]].append(parts)
        occupant = occupants.get(path_key(layout.bases[parts])) if parts in layout.bases else None
        if occupant is not None and occupant != parts:
            first[parts].append(occupant)
    depth: dict[Parts, int] = {}

    def layer(parts: Parts) -> int:
        if parts not in depth:
            depth[parts] = 1 + max((layer(other) for other in first[parts]), default=0)
        return depth[parts]

    return sorted(changed, key=lambda parts: (layer(parts), parts))


def _folder_action(layout: _Layout, parts: Parts) -> FileAction:
    path = layout.survey.tree.folders[parts].path
    if parts not in layout.bases:
        return RemoveFolder(path, "its folders moved away")
    return Move(path, os.path.join(layout.root, layout.bases[parts]))


def _file_moves(layout: _Layout) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(folder where files lie once the folders are renamed, folder where they go, their names)."""
    for parts, own in layout.survey.parts.items():
        base = layout.bases.get(parts, "")
        for part in own:
            if names := layout.moved_files.get(part.name):
                yield base, part.name, tuple(names)


def _manifest(
    layout: _Layout, separator: str, order: list[Parts], links: list[tuple[str, str, str]], toml: str
) -> Manifest:
    folders = []
    for parts, own in layout.survey.parts.items():
        for part in own:
            names = layout.moved_files.get(part.name, layout.kept_files.get(part.name, []))
            row = FlatFolder(part.name, "/".join(parts), part.repeats, part.is_base, "/".join(names))
            folders.append(row)
    removed = {
        "/".join(parts): os.stat(Path(layout.root, *parts)).st_mode & 0o7777 for parts in layout.removed
    }
    return Manifest(
        to="in-place",
        source=".",
        separator=separator,
        folders=tuple(folders),
        removed=removed,
        order=tuple(
            ("move", layout.bases[parts]) if parts in layout.bases else ("remove", "/".join(parts))
            for parts in order
        ),
        links=tuple(links),
        toml_sha256=sha256(toml.encode()).hexdigest() if toml else "",
        made_ns=time.time_ns(),
    )


# Symbolic links


def _links(layout: _Layout) -> Iterator[tuple[str, str, str]]:
    """(path afterwards, text before, text afterwards) of every link that would lead elsewhere."""
    tree = layout.survey.tree
    if not any(folder.links or folder.linked_folders for folder in tree.folders.values()):
        return
    moved_to = _moved_files(layout)
    for folder in tree.folders.values():
        for name in (*sorted(folder.links), *folder.linked_folders):
            old = os.path.join(folder.path, name)
            new = _after(layout, moved_to, old)
            text = os.readlink(old)
            target = os.path.normpath(os.path.join(os.path.dirname(old), text))
            target_after = _after(layout, moved_to, target)
            if os.path.normpath(os.path.join(os.path.dirname(new), text)) == target_after:
                continue
            is_relative = not os.path.isabs(text)
            now = os.path.relpath(target_after, os.path.dirname(new)) if is_relative else target_after
            yield os.path.relpath(new, tree.root).replace(os.sep, "/"), text, now


def _moved_files(layout: _Layout) -> dict[str, str]:
    """Old path to new path of files that move by themselves."""
    found = {}
    for parts, own in layout.survey.parts.items():
        path = layout.survey.tree.folders[parts].path
        for part in own:
            for name in layout.moved_files.get(part.name, ()):
                found[os.path.join(path, name)] = os.path.join(layout.root, part.name, name)
    return found


def _after(layout: _Layout, moved_files: Mapping[str, str], path: str) -> str:
    """Where a path leads once everything moved."""
    inside = layout.root.rstrip(os.sep) + os.sep
    real = (
        path
        if path.startswith(inside)
        else os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    )
    if real in moved_files:
        return moved_files[real]
    if real.startswith(inside):
        parts = tuple(real[len(inside) :].split(os.sep))
        for end in range(len(parts), 0, -1):
            if parts[:end] in layout.bases:
                return os.path.join(layout.root, layout.bases[parts[:end]], *parts[end:])
    return path
