# ruff: noqa: D102 - the methods of a step are described once, in Step
"""The steps of a journal: what a plan's actions become once they are checked.

A step carries all that is needed to do it and to take it back. After a kill, `state` tells from the disk
alone whether it was done, so doing a step and undoing it can both be cut off anywhere and finished later.
"""

import errno
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pipeline.files import remove_folder
from pipeline.relocate import finish_move, is_half_moved, present, relocate, remove_leftovers
from pipeline.tree import FutureTree, Node

State = Literal["before", "half", "after", "changed"]
Made = dict[str, Any]  # what only the doing of a step tells; kept in its line of the log
_NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST})


class StepError(Exception):
    """A step cannot be done or taken back, because files changed since the plan was made or carried out."""


@dataclass(slots=True)
class Site:
    """Where steps are carried out, and how."""

    root: Path
    aside_folder: Path  # below .celforge/dropped: takes what a forced undo finds in its way
    sync: bool = True  # each written file waits for the disk
    force: bool = False
    notes: list[str] = field(default_factory=list)  # what an undo left or kept, for the person

    def path(self, stored: str) -> Path:
        """A stored path (relative to the root, or absolute) as it is on this machine."""
        return self.root / stored

    def text(self, stored: str) -> str:
        """The same as text, which is what thousands of renames need."""
        return os.path.join(self.root, stored.replace("/", os.sep))

    def tell_or_fail(self, text: str) -> None:
        """Note what is out of order and go on, if forced."""
        if not self.force:
            raise StepError(text)
        self.notes.append(text)

    def set_aside(self, path: Path, why: str) -> None:
        """Keep a file that is in the way, if forced, by moving it below `.celforge/dropped/`.

        Raises:
            StepError: not forced.
        """
        if not self.force:
            raise StepError(f"{path} {why}")
        inside = path.relative_to(self.root) if path.is_relative_to(self.root) else Path(*path.parts[1:])
        target, number = self.aside_folder / inside, 1
        while os.path.lexists(target):
            number += 1
            target = (self.aside_folder / inside).with_name(f"{inside.stem} ({number}){inside.suffix}")
        target.parent.mkdir(parents=True, exist_ok=True)
        relocate(path, target)
        self.notes.append(f"{path} {why}; kept as {target}")


class Step(ABC):
    """One change of files."""

    __slots__ = ()
    kind: ClassVar[str]

    @abstractmethod
    def paths(self) -> tuple[str, ...]:
        """Stored paths that it changes."""

    def reads(self) -> tuple[str, ...]:
        """Stored paths that it only reads."""
        return ()

    @abstractmethod
    def state(self, site: Site) -> State:
        """Tell from the disk whether it was done; `half` is what `finish` can end, `changed` is neither."""

    @abstractmethod
    def do(self, site: Site) -> Made:
        """Do it; never overwrites anything that the plan did not expect."""

    @abstractmethod
    def undo(self, site: Site, made: Made) -> None:
        """Take it back; doing so twice does no harm.

        Raises:
            StepError: files changed since, and the site is not forced.
        """

    @abstractmethod
    def foresee_undo(self, tree: FutureTree, site: Site, made: Made) -> str | None:
        """Take it back in `tree` only, and say what stands against it."""

    def finish(self, site: Site) -> None:
        """End what a kill cut off in the middle."""
        raise AssertionError(f"a step of kind {self.kind} is never half done")

    def seen(self, site: Site) -> Made:
        """What `do` would have told, for a step found done."""
        return {}

    def clean(self, site: Site) -> None:
        """Remove temporary files that a kill in the middle of it left."""
        remove_leftovers(*(site.path(stored) for stored in self.paths()))


@dataclass(frozen=True, slots=True)
class MoveStep(Step):
    """Move a file, a link or a folder; a drop is such a move."""

    kind: ClassVar[str] = "move"
    source: str
    destination: str
    what: str  # file, folder, link
    reason: str
    detail: str = ""
    is_drop: bool = False

    def paths(self) -> tuple[str, ...]:
        return (self.source, self.destination)

    def _ends(self, site: Site) -> tuple[Path, Path]:
        return site.path(self.source), site.path(self.destination)

    def state(self, site: Site) -> State:
        source, destination = self._ends(site)
        is_there, is_moved = present(source, destination), present(destination, source)
        if is_there and is_moved:
            return "half" if is_half_moved(source, destination) else "changed"
        if not is_there and not is_moved:
            return "changed"
        return "before" if is_there else "after"

    def do(self, site: Site) -> Made:
        relocate(*self._ends(site))
        return {}

    def finish(self, site: Site) -> None:
        finish_move(*self._ends(site))

    def undo(self, site: Site, made: Made) -> None:
        source, destination = self._ends(site)
        if not present(destination, source):
            return site.tell_or_fail(f"{destination} is gone and cannot be moved back")
        if present(source, destination):
            if is_half_moved(destination, source):
                return finish_move(destination, source)
            site.set_aside(source, f"is in the place that {destination} goes back to")
        source.parent.mkdir(parents=True, exist_ok=True)
        relocate(destination, source)

    def foresee_undo(self, tree: FutureTree, site: Site, made: Made) -> str | None:
        source, destination = (str(path) for path in self._ends(site))
        kind = tree.find(destination).kind
        if kind == "missing":
            return f"{destination} is gone and cannot be moved back"
        if kind != self.what:
            return f"{destination} was a {self.what} and is a {kind} now"
        node = tree.take(destination)
        is_taken = tree.find(source).exists and tree.is_listed(source)
        tree.put(source, node)
        return f"{source} is in the place that {destination} goes back to" if is_taken else None


@dataclass(frozen=True, slots=True)
class MakeFolderStep(Step):
    """Make a folder."""

    kind: ClassVar[str] = "make_folder"
    path: str
    reason: str
    is_implied: bool = False  # by something else that goes into it
    mode: int | None = None  # permission bits

    def paths(self) -> tuple[str, ...]:
        return (self.path,)

    def state(self, site: Site) -> State:
        path = site.path(self.path)
        if path.is_dir():
            return "after"
        return "changed" if os.path.lexists(path) else "before"

    def do(self, site: Site) -> Made:
        path = site.path(self.path)
        path.mkdir()
        if self.mode is not None:
            path.chmod(self.mode)
        return {}

    def undo(self, site: Site, made: Made) -> None:
        path = site.path(self.path)
        try:
            remove_folder(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
            site.notes.append(f"{path} stays: it holds other files")

    def foresee_undo(self, tree: FutureTree, site: Site, made: Made) -> str | None:
        path = str(site.path(self.path))
        if tree.find(path).kind == "folder" and tree.is_empty(path):
            tree.take(path)
        return None

    def clean(self, site: Site) -> None:
        """A folder is made in one step."""


@dataclass(frozen=True, slots=True)
class RemoveFolderStep(Step):
    """Remove a folder if it is empty."""

    kind: ClassVar[str] = "remove_folder"
    path: str
    reason: str
    mode: int | None = None  # permission bits, for the undo

    def paths(self) -> tuple[str, ...]:
        return (self.path,)

    def state(self, site: Site) -> State:
        return "before" if os.path.lexists(site.path(self.path)) else "after"

    def do(self, site: Site) -> Made:
        try:
            remove_folder(site.path(self.path))
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
            return {"stays": True}
        return {}

    def undo(self, site: Site, made: Made) -> None:
        path = site.path(self.path)
        if made.get("stays") or path.is_dir():
            return
        if os.path.lexists(path):
            site.set_aside(path, "is in the place of a folder that comes back")
        path.mkdir(parents=True)
        if self.mode is not None:
            path.chmod(self.mode)

    def foresee_undo(self, tree: FutureTree, site: Site, made: Made) -> str | None:
        path = str(site.path(self.path))
        if made.get("stays") or tree.find(path).is_folder:
            return None
        is_taken = tree.find(path).exists
        tree.put(path, Node(None, "folder"))
        return f"{path} is in the place of a folder that comes back" if is_taken else None

    def clean(self, site: Site) -> None:
        """A folder is removed in one step."""


@dataclass(frozen=True, slots=True)
class RowStep:
    """A change of the catalogue, with the row as it was: done in one transaction, after the files."""

    kind: ClassVar[str] = "row"
    table: Literal["outcome", "fact"]
    key: tuple[str, ...]  # (content, stage), or (content, name, source)
    before: dict[str, Any] | None
    after: dict[str, Any] | None
