# ruff: noqa: D102 - the methods of a step are described once, in Step
"""Steps that make a file appear: placed from another one, or written."""

import errno
import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pipeline.actions import PlaceHow
from pipeline.files import copy_bytes, copy_file, partial_path, place, unlink, write_atomic, write_new
from pipeline.relocate import is_same_tree, remove_leftovers
from pipeline.renaming import replace
from pipeline.steps import Made, Site, State, Step, StepError
from pipeline.tree import FutureTree, Node, kind_of


@dataclass(frozen=True, slots=True)
class PlaceStep(Step):
    """Make a file appear at a second path."""

    kind: ClassVar[str] = "place"
    source: str
    destination: str
    how: PlaceHow
    reason: str
    or_copy: bool = False
    relative_link: bool = False

    def paths(self) -> tuple[str, ...]:
        return (self.destination,)

    def reads(self) -> tuple[str, ...]:
        return (self.source,)

    def state(self, site: Site) -> State:
        source, destination = site.path(self.source), site.path(self.destination)
        if not os.path.lexists(destination):
            return "before"
        if destination.is_symlink():
            return "after" if self.how == "symlink" and _is_same_file(source, destination) else "changed"
        is_ours = _is_same_file(source, destination) or is_same_tree(source.resolve(), destination)
        return "after" if is_ours else "changed"

    def do(self, site: Site) -> Made:
        place(
            site.path(self.source),
            site.path(self.destination),
            self.how,
            or_copy=self.or_copy,
            relative_link=self.relative_link,
        )
        return self.seen(site)

    def seen(self, site: Site) -> Made:
        path = site.path(self.destination)
        status = os.lstat(path)
        if self.how == "symlink":
            return {"target": os.readlink(path)}
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}

    def undo(self, site: Site, made: Made) -> None:
        source, destination = site.path(self.source), site.path(self.destination)
        if not os.path.lexists(destination):
            return site.tell_or_fail(f"{destination} is gone")
        problem = self._change(str(destination), str(source), made)
        if problem:
            return site.set_aside(destination, problem)
        unlink(destination)

    def foresee_undo(self, tree: FutureTree, site: Site, made: Made) -> str | None:
        destination = str(site.path(self.destination))
        origin = tree.find(destination).origin if tree.find(destination).exists else None
        if origin is None:
            return f"{destination} is gone"
        problem = self._change(origin, tree.find(str(site.path(self.source))).origin, made)
        tree.take(destination)
        return f"{destination} {problem}" if problem else None

    def _change(self, destination: str, source: str | None, made: Made) -> str | None:
        """Why the placed file is not ours to remove: it was edited, or is the only one left."""
        status = os.lstat(destination)
        if "target" in made:
            is_ours = kind_of(status.st_mode) == "link" and os.readlink(destination) == made["target"]
            return None if is_ours else "is not the link that was made"
        if kind_of(status.st_mode) != "file":
            return f"is a {kind_of(status.st_mode)} now"
        if source is not None and _is_same_file(source, destination):
            return None
        if (status.st_size, status.st_mtime_ns) != (made["size"], made["mtime_ns"]):
            return "was edited since"
        if status.st_nlink > 1 or (source is not None and os.path.isfile(source)):
            return None
        return "is the only one left: the file it was made from is gone"


@dataclass(frozen=True, slots=True)
class WriteStep(Step):
    """Write a whole file; what it replaces is kept for the undo."""

    kind: ClassVar[str] = "write"
    path: str
    data: bytes
    reason: str
    expects: str | None = None  # sha256 of what it replaces
    kept: str | None = None  # where the replaced file is kept

    def paths(self) -> tuple[str, ...]:
        return (self.path,) if self.kept is None else (self.path, self.kept)

    @property
    def sha256(self) -> str:
        """Of what is written."""
        return hashlib.sha256(self.data).hexdigest()

    def state(self, site: Site) -> State:
        path = site.path(self.path)
        if not os.path.lexists(path):
            return "before" if self.expects is None else "changed"
        if path.is_symlink() or not path.is_file():
            return "changed"
        found = path.read_bytes()
        digest = hashlib.sha256(found).hexdigest()
        if found == self.data:
            return "after"
        if digest == self.expects:
            return "before"
        return "half" if _is_torn(found, self.data) else "changed"

    def do(self, site: Site) -> Made:
        path = site.path(self.path)
        if self.kept is None:
            write_new(path, self.data, sync=site.sync)
            return {}
        if file_sha256(path) != self.expects:
            raise StepError(f"{path} was edited since the plan was made")
        self._keep(path, site.path(self.kept))
        write_atomic(path, self.data, sync=site.sync)
        return {}

    def finish(self, site: Site) -> None:
        write_atomic(site.path(self.path), self.data)

    def undo(self, site: Site, made: Made) -> None:
        path, kept = site.path(self.path), None if self.kept is None else site.path(self.kept)
        if not os.path.lexists(path):
            site.tell_or_fail(f"{path} is gone")
        else:
            digest = file_sha256(path)
            if digest == self.expects and not (kept and os.path.lexists(kept)):
                return None
            if digest != self.sha256:
                site.set_aside(path, "was edited since")
        if kept is None:
            return unlink(path) if os.path.lexists(path) else None
        if not os.path.lexists(kept):
            return site.tell_or_fail(f"{kept} is gone, which holds the old bytes of {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        return _put_back(kept, path)

    def foresee_undo(self, tree: FutureTree, site: Site, made: Made) -> str | None:
        path, kept = str(site.path(self.path)), None if self.kept is None else site.path(self.kept)
        node = tree.find(path)
        problem = None
        if not node.exists:
            problem = f"{path} is gone"
        elif node.kind != "file" or (node.sha256 or file_sha256(Path(node.origin or path))) != self.sha256:
            problem = f"{path} was edited since"
        elif kept is not None and not kept.exists() and self.sha256 != self.expects:
            problem = f"{kept} is gone, which holds the old bytes of {path}"
        tree.take(path)
        if kept is not None:
            tree.put(path, Node(str(kept), "file", self.expects))
        return problem

    def clean(self, site: Site) -> None:
        remove_leftovers(*(site.path(stored) for stored in self.paths()))
        path, kept = site.path(self.path), site.path(self.kept or self.path)
        if kept != path and kept.exists() and os.path.lexists(path) and file_sha256(path) == self.expects:
            unlink(kept)

    def _keep(self, path: Path, kept: Path) -> None:
        if os.path.lexists(kept):
            return
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, kept)
        except OSError:
            copy_file(path, kept)


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, hex; a link or a folder gives a word that is no hash."""
    kind = kind_of(os.lstat(path).st_mode)
    if kind != "file":
        return kind
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_same_file(first: Path | str, second: Path | str) -> bool:
    with suppress(OSError):
        return os.path.samefile(first, second)
    return False


def _is_torn(found: bytes, wanted: bytes) -> bool:
    """Say whether a file is one whose last bytes a power cut took: empty, or ending in zeros."""
    if not found:
        return True
    return len(found) <= len(wanted) and found[-1] == 0 and wanted.startswith(found.rstrip(b"\0"))


def _put_back(kept: Path, path: Path) -> None:
    try:
        replace(kept, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = partial_path(path)
        copy_bytes(kept, temporary, sync=True)
        replace(temporary, path)
        unlink(kept)
