# ruff: noqa: D102 - the methods of a step are described once, in Step
"""Steps for many files of one folder at once, linked or moved, and for where a symbolic link points."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar

from pipeline.actions import PlaceHow
from pipeline.files import partial_path, place, remove_folder, remove_partials, remove_tree, unlink
from pipeline.relocate import relocate
from pipeline.renaming import rename_all_new, rename_new, replace, sync_folder
from pipeline.steps import Made, MoveStep, Site, State, Step
from pipeline.tree import FutureTree, Node


@dataclass(frozen=True, slots=True)
class PlaceFolderStep(Step):
    """Make a folder that holds some of the files below another one; made beside its name, then renamed."""

    kind: ClassVar[str] = "place_folder"
    source: str
    destination: str
    names: tuple[str, ...]
    how: PlaceHow
    reason: str
    or_copy: bool = False
    origins: tuple[str, ...] = ()  # of the names, below the source; the names themselves when there are none

    def __post_init__(self) -> None:
        for name in ("names", "origins"):
            if not isinstance(getattr(self, name), tuple):  # a list, from JSON
                object.__setattr__(self, name, tuple(getattr(self, name)))

    def pairs(self) -> Iterator[tuple[str, str]]:
        """(path below the source, name in the folder) of each file."""
        return zip(self.origins or self.names, self.names, strict=True)

    def paths(self) -> tuple[str, ...]:
        return (self.destination,)

    def reads(self) -> tuple[str, ...]:
        return (self.source,)

    def state(self, site: Site) -> State:
        source, destination = site.path(self.source), site.path(self.destination)
        if not os.path.lexists(destination):
            return "before"
        is_ours = all(
            os.path.lexists(destination / name) and self._change(destination / name, source / origin) is None
            for origin, name in self.pairs()
        )
        return "after" if is_ours else "changed"

    def do(self, site: Site) -> Made:
        source, destination = str(site.path(self.source)), site.path(self.destination)
        temporary = partial_path(destination)
        os.mkdir(temporary)
        try:
            self._fill(source, str(temporary), sync=site.sync)
            if site.sync:
                sync_folder(temporary)
            rename_new(temporary, destination)
        except BaseException:
            with suppress(OSError):
                remove_tree(temporary)
            raise
        return {}

    def _fill(self, source: str, folder: str, *, sync: bool) -> None:
        listed: set[str] = set()
        if not self.origins:
            with os.scandir(source) as entries:
                listed = {entry.name for entry in entries if entry.is_symlink()}
        for origin, name in self.pairs():
            is_link = os.path.islink(f"{source}{os.sep}{origin}") if self.origins else name in listed
            if self.how == "hardlink" and not is_link:
                with suppress(OSError):
                    os.link(f"{source}{os.sep}{origin}", f"{folder}{os.sep}{name}")
                    continue
            ends = Path(source, origin), Path(folder, name)
            place(*ends, self.how, or_copy=self.or_copy, relative_link=True, sync=sync)

    def undo(self, site: Site, made: Made) -> None:
        source, destination = site.path(self.source), site.path(self.destination)
        if not os.path.lexists(destination):
            return site.tell_or_fail(f"{destination} is gone")
        own = self._own()
        for name in sorted(os.listdir(destination)):
            path = destination / name
            problem = self._change(path, source / own[name]) if name in own else "was added since"
            if problem:
                site.set_aside(path, problem)
            else:
                unlink(path)
        return remove_folder(destination)

    def foresee_undo(self, tree: FutureTree, site: Site, made: Made) -> str | None:
        destination = str(site.path(self.destination))
        node = tree.find(destination)
        if node.kind != "folder" or node.origin is None:
            return f"{destination} is gone"
        own, source = self._own(), tree.find(str(site.path(self.source)))
        problems = []
        for name in sorted(os.listdir(node.origin)):
            path = Path(node.origin, name)
            before = _below(source, own[name]).origin if name in own and source.is_folder else None
            problem = self._change(path, Path(before or path)) if name in own else "was added since"
            if problem:
                problems.append(f"{os.path.join(destination, name)} {problem}")
        tree.take(destination)
        more = f" (and {len(problems) - 1:,} more files of that folder)" if len(problems) > 1 else ""
        return problems[0] + more if problems else None

    def _own(self) -> dict[str, str]:
        return {name: origin for origin, name in self.pairs()}

    def _change(self, path: Path, source: Path) -> str | None:
        """Why a file is not ours to remove: it was edited, or is the only one left."""
        if path.is_symlink():
            is_ours = self.how == "symlink" and os.path.lexists(source)
            return None if is_ours else "is not the file that was placed"
        if not path.is_file():
            return "is not the file that was placed"
        if not source.is_file():
            return "is the only one left: the file it was made from is gone"
        found, wanted = path.stat(), source.stat()
        if (found.st_size, found.st_mtime_ns) != (wanted.st_size, wanted.st_mtime_ns):
            return "was edited since, or the file it was made from was"
        return None


def _below(node: Node, origin: str) -> Node:
    for part in origin.split("/"):
        node = node.child(part)
    return node


@dataclass(frozen=True, slots=True)
class MoveFilesStep(Step):
    """Move entries of one folder into another on the same disk, one rename after the other."""

    kind: ClassVar[str] = "move_files"
    source: str
    destination: str
    names: tuple[str, ...]
    reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.names, tuple):  # a list, from JSON
            object.__setattr__(self, "names", tuple(self.names))

    def paths(self) -> tuple[str, ...]:
        return (self.source, self.destination)

    def state(self, site: Site) -> State:
        names = set(self.names)
        here = names.intersection(_names_in(site.path(self.source)))
        there = names.intersection(_names_in(site.path(self.destination)))
        if here & there or here | there != names:
            return "changed"
        return "after" if not here else "before" if not there else "half"

    def do(self, site: Site) -> Made:
        source, destination = site.path(self.source), site.path(self.destination)
        _move_all(source, destination, self.names, sync=site.sync)
        return {}

    def finish(self, site: Site) -> None:
        left = _names_in(site.path(self.source))
        names = [name for name in self.names if name in left]
        _move_all(site.path(self.source), site.path(self.destination), names, sync=site.sync)

    def undo(self, site: Site, made: Made) -> None:
        source, destination = site.path(self.source), site.path(self.destination)
        here, there = _names_in(source), _names_in(destination)
        source.mkdir(parents=True, exist_ok=True)
        for name in self.names:
            if name not in there:
                if name not in here:
                    site.tell_or_fail(f"{destination / name} is gone and cannot be moved back")
            elif name in here:
                site.set_aside(source / name, f"is in the place that {destination / name} goes back to")
        names = [name for name in self.names if name in there]
        _move_all(destination, source, names, sync=site.sync)

    def foresee_undo(self, tree: FutureTree, site: Site, made: Made) -> str | None:
        source = tree.find(str(site.path(self.source)))
        destination = tree.find(str(site.path(self.destination)))
        problems = []
        for name in self.names:
            node = destination.child(name)
            if not node.exists and not source.child(name).exists:
                problems.append(f"{site.path(self.destination) / name} is gone and cannot be moved back")
            if not node.exists:
                continue
            if source.child(name).exists:
                problems.append(f"{site.path(self.source) / name} is in the place of a file that goes back")
            source.put(name, node)
            destination.put(name, Node(None, "missing"))
        more = f" (and {len(problems) - 1:,} more of that folder)" if len(problems) > 1 else ""
        return problems[0] + more if problems else None


@dataclass(frozen=True, slots=True)
class MoveFoldersStep(Step):
    """Move many folders, none of which lies in another, one after the other: each alone is a `MoveStep`.

    No path comes twice, so the disk tells of each folder alone whether it was moved, in whatever order a
    power cut left them.
    """

    kind: ClassVar[str] = "move_folders"
    pairs: tuple[tuple[str, str], ...]
    reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.pairs, tuple):  # a list of lists, from JSON
            object.__setattr__(
                self, "pairs", tuple((source, destination) for source, destination in self.pairs)
            )

    def moves(self) -> list[MoveStep]:
        """The steps that it is made of."""
        return [MoveStep(source, destination, "folder", self.reason) for source, destination in self.pairs]

    def paths(self) -> tuple[str, ...]:
        return tuple(chain.from_iterable(self.pairs))

    def state(self, site: Site) -> State:
        states = {move.state(site) for move in self.moves()}
        if "changed" in states:
            return "changed"
        return states.pop() if len(states) == 1 else "half"

    def do(self, site: Site) -> Made:
        for source, destination in self.pairs:
            relocate(site.text(source), site.text(destination))
        return {}

    def finish(self, site: Site) -> None:
        for move in self.moves():
            state = move.state(site)
            if state == "before":
                move.do(site)
            elif state == "half":
                move.finish(site)

    def undo(self, site: Site, made: Made) -> None:
        for move in reversed(self.moves()):
            if move.state(site) != "before":  # else a kill came after it was taken back
                move.undo(site, {})

    def foresee_undo(self, tree: FutureTree, site: Site, made: Made) -> str | None:
        found = (move.foresee_undo(tree, site, {}) for move in reversed(self.moves()))
        problems = [problem for problem in found if problem]
        more = f" (and {len(problems) - 1:,} more folders)" if len(problems) > 1 else ""
        return problems[0] + more if problems else None

    def clean(self, site: Site) -> None:
        for folder in {site.path(stored).parent for stored in self.paths()}:
            remove_partials(folder)


@dataclass(frozen=True, slots=True)
class RelinkStep(Step):
    """Point a symbolic link elsewhere."""

    kind: ClassVar[str] = "relink"
    path: str
    target: str
    expects: str
    reason: str

    def paths(self) -> tuple[str, ...]:
        return (self.path,)

    def state(self, site: Site) -> State:
        path = site.path(self.path)
        if not path.is_symlink():
            return "changed"
        text = os.readlink(path)
        return "after" if text == self.target else "before" if text == self.expects else "changed"

    def do(self, site: Site) -> Made:
        _point(site.path(self.path), self.target)
        return {}

    def undo(self, site: Site, made: Made) -> None:
        path = site.path(self.path)
        text = os.readlink(path) if path.is_symlink() else None
        if text == self.target:
            _point(path, self.expects)
        elif text != self.expects:
            site.tell_or_fail(f"{path} is not the link that was made")

    def foresee_undo(self, tree: FutureTree, site: Site, made: Made) -> str | None:
        path = str(site.path(self.path))
        node = tree.find(path)
        if node.kind == "link" and node.origin and os.readlink(node.origin) == self.target:
            return None
        return f"{path} is not the link that was made"


def _names_in(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _move_all(source: Path, destination: Path, names: Iterable[str], *, sync: bool) -> None:
    rename_all_new(source, destination, names)
    if sync:
        sync_folder(destination)
        sync_folder(source)


def _point(path: Path, target: str) -> None:
    """Replace a link by another in one step."""
    temporary = partial_path(path)
    try:
        os.symlink(target, temporary, target_is_directory=path.is_dir())
        replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
