"""The folder tree as it will be once some changes are made, without making them.

A plan is checked against it action by action, and an undo step by step, before anything is touched. It asks
the disk only about the paths that are named, and knows where each of them lies now (`Node.origin`).
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from pipeline.names import path_key


class Node:
    """One path: a file, a folder, a link, something else, or nothing."""

    __slots__ = ("_kind", "added", "bytes_at", "children", "names", "origin", "sha256", "status")

    def __init__(self, origin: str | None, kind: str | None = None, sha256: str | None = None) -> None:
        self.origin = origin  # where it lies on the disk now; None when it is not there yet
        self.sha256 = sha256  # of a file that a plan writes
        self.bytes_at = origin  # a file on the disk that has its bytes
        self.status: os.stat_result | None = None  # of the origin, known once `kind` was asked for
        self.children: dict[str, Node] = {}
        self.added: list[str] = []  # names that were put, before the entries were listed
        self.names: dict[str, set[str]] | None = None  # path_key -> names of entries, once they were listed
        self._kind = kind

    @property
    def kind(self) -> str:
        """`missing`, `file`, `folder`, `link` or `other`."""
        if self._kind is None:
            self._kind = self._look()
        return self._kind

    @property
    def exists(self) -> bool:
        """Whether there is anything at this path."""
        return self.kind != "missing"

    @property
    def is_folder(self) -> bool:
        """Whether files can be put into it: a folder, or a link to one."""
        if self.kind == "link":
            return self.origin is not None and os.path.isdir(self.origin)
        return self.kind == "folder"

    def child(self, name: str) -> "Node":
        """The entry of that name, which may be missing."""
        child = self.children.get(name)
        if child is None:
            origin = self.origin
            if origin is not None:
                origin += name if origin.endswith(os.sep) else os.sep + name
            child = self.children[name] = Node(origin)
        return child

    def has(self, name: str) -> bool:
        """Whether there is an entry of that name, which a folder that is listed answers without the disk."""
        return path_key(name) in self.entries() and self.child(name).exists

    def is_listed(self, name: str) -> bool:
        """Whether an entry has exactly this spelling."""
        return name in self.entries().get(path_key(name), ())

    def twin(self, name: str) -> str | None:
        """Another entry whose name differs in letter case or Unicode form only."""
        for other in self.entries().get(path_key(name), ()):
            if other != name and self.child(other).exists:
                return other
        return None

    def look_at_all(self) -> None:
        """Learn which entries on the disk are files and which are links, from one listing."""
        if self.origin is None:
            return
        with suppress(OSError), os.scandir(self.origin) as entries:
            for entry in entries:
                is_file = entry.is_file(follow_symlinks=False)
                if (is_file or entry.is_symlink()) and entry.name not in self.children:
                    kind = "file" if is_file else "link"
                    self.children[entry.name] = Node(f"{self.origin}{os.sep}{entry.name}", kind)

    def entries(self) -> dict[str, set[str]]:
        """Names on the disk and names added since, by their key; some may be gone by now."""
        if self.names is None:
            self.names = {}
            for name in (*self._listed(), *self.added):
                self.names.setdefault(path_key(name), set()).add(name)
        return self.names

    def put(self, name: str, child: "Node") -> None:
        """Set an entry."""
        self.children[name] = child
        if self.names is None:
            self.added.append(name)
        else:
            self.names.setdefault(path_key(name), set()).add(name)

    def put_all(self, names: Sequence[str], child: "Node") -> None:
        """Set entries that are all the same: none of them is on the disk yet."""
        self.children |= dict.fromkeys(names, child)
        self.added += names
        self.names = None

    def _listed(self) -> list[str]:
        if self.origin is None or not self.is_folder:
            return []
        try:
            return os.listdir(self.origin)
        except OSError:
            return []

    def _look(self) -> str:
        if self.origin is None:
            return "missing"
        try:
            self.status = os.lstat(self.origin)
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        except OSError:
            return "other"
        return kind_of(self.status.st_mode)


class FutureTree:
    """Paths are absolute and normal (no `..`), as strings."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._inside = root if root.endswith(os.sep) else root + os.sep
        self._tops: dict[str, Node] = {root: Node(root)}

    def find(self, path: str) -> Node:
        """What will be at a path."""
        node, rest = self._start(path)
        for part in rest.split(os.sep) if rest else ():
            if part:
                node = node.child(part)
        return node

    def is_listed(self, path: str) -> bool:
        """Whether an entry has exactly this spelling."""
        folder, name = parted(path)
        return self.find(folder).is_listed(name)

    def is_empty(self, path: str) -> bool:
        """Whether a folder will hold nothing at all."""
        node = self.find(path)
        return not any(node.child(name).exists for names in node.entries().values() for name in names)

    def put(self, path: str, node: Node) -> None:
        """Set what will be at a path."""
        folder, name = parted(path)
        self.find(folder).put(name, node)

    def take(self, path: str) -> Node:
        """Take away what is at a path, with all that is below it."""
        node = self.find(path)
        node.exists  # noqa: B018 - look now, while the origin is where it is
        self.put(path, Node(None, "missing"))
        return node

    def _start(self, path: str) -> tuple[Node, str]:
        """A node that is known, and the rest of the path below it."""
        if path == self._root:
            return self._tops[path], ""
        if path.startswith(self._inside):
            return self._tops[self._root], path[len(self._inside) :]
        drive, rest = os.path.splitdrive(path)
        anchor = drive + os.sep
        if anchor not in self._tops:
            self._tops[anchor] = Node(anchor)
        return self._tops[anchor], rest


def parted(path: str) -> tuple[str, str]:
    """The folder and the name of a normal absolute path, as `os.path.split` gives them, but quicker."""
    folder, _, name = path.rpartition(os.sep)
    return (folder, name) if folder and folder[-1] != ":" else os.path.split(path)


def kind_of(mode: int) -> str:
    """`file`, `folder`, `link` or `other`, of `st_mode`."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "other"
