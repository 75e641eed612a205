"""A tree of pictures as it is, and as it becomes while changes of it are thought of: names that are free,
folders that become empty.
"""

from pathlib import PurePosixPath

from pipeline.catalog import join, split
from pipeline.layouts.everydream import Tree
from pipeline.media_names import kind_of
from pipeline.names import path_key
from pipeline.tree_names import sidecars_by_picture, stem_key, with_mark


class TreeState:
    """Paths are relative to the project, with forward slashes.

    Args:
        tree: as it is on the disk.
        top: where it lies.
    """

    def __init__(self, tree: Tree, top: str) -> None:
        self.top = top
        self._folders = {self.inside(folder.relative): folder for folder in tree.folders.values()}
        self._stems: dict[str, set[str]] = {}  # folder by its key -> stems of pictures that are or come there
        for path, folder in self._folders.items():
            stems = {stem_key(name) for name in folder.files if kind_of(name) == "image"}
            self._stems.setdefault(path_key(path), set()).update(stems)
        self._names = {path: set(folder.files) for path, folder in self._folders.items()}
        self._beside: dict[str, dict[str, list[str]]] = {}
        self._left: dict[str, set[str]] = {}
        self._filled: set[str] = set()
        self._targets: set[str] | None = None  # folders that something is moved into, and those above
        self._origins: dict[str, str] = {}  # path that something is moved to -> where it lies now

    def inside(self, folder: str) -> str:
        """A folder of the tree as a path of the project."""
        return join(self.top, folder) if folder else self.top

    @property
    def folders(self) -> list[str]:
        """Folders of the tree on the disk, below its top."""
        return [folder.relative for folder in self._folders.values() if folder.relative]

    def holds(self, path: str) -> bool:
        """Whether a file lies at a path on the disk."""
        folder, name = split(path)
        return name in self._names.get(folder, ())

    def origin(self, path: str) -> str | None:
        """Where the file that will be at a path lies on the disk now; None where there will be none."""
        return self._origins.get(path) or (path if self.holds(path) else None)

    def has_stem(self, path: str) -> bool:
        """Whether a picture on the disk has the stem of that path, in its folder."""
        folder, name = split(path)
        return any(
            kind_of(other) == "image" and stem_key(other) == stem_key(name)
            for other in self._names.get(folder, ())
        )

    def sidecars(self, path: str) -> list[str]:
        """Names of the files beside a picture that belong to it and to no other picture."""
        folder, name = split(path)
        if folder not in self._beside:
            self._beside[folder] = _own(sidecars_by_picture(self._names.get(folder, ())))
        return self._beside[folder].get(name, [])

    def free_name(self, folder: str, name: str, content: str) -> str:
        """A name for a picture whose stem no other one has in that folder; it is taken from then on.

        Args:
            content: hash of the picture, which tells it from a namesake.
        """
        taken = self._stems.setdefault(path_key(folder), set())
        free, start = name, 0
        while stem_key(free) in taken:
            free = with_mark(name, content[start:])
            start += 1
        taken.add(stem_key(free))
        self._fill(folder)
        return free

    def move(self, source: str, destination: str) -> None:
        """Note that a file will lie elsewhere."""
        self.leave(source)
        self._origins[destination] = source
        self._targets = None
        self._fill(split(destination)[0])

    def leave(self, path: str) -> None:
        """Note that a file leaves the tree."""
        folder, name = split(path)
        self._left.setdefault(folder, set()).add(name)

    def is_moved_into(self, folder: str) -> bool:
        """Whether something of the tree is moved into a folder or below it."""
        if self._targets is None:
            folders = {split(path)[0] for path in self._origins}
            self._targets = {
                str(one) for path in folders for one in (PurePosixPath(path), *PurePosixPath(path).parents)
            }
        return folder in self._targets

    def emptied(self) -> list[str]:
        """Folders that hold nothing any more because all that was in them left, the deepest first."""
        empty: set[str] = set()
        for path in sorted(self._folders, key=lambda path: -path.count("/")):
            folder = self._folders[path]
            below = {join(path, name) for name in folder.folders}
            has_lost = path in self._left or bool(below & empty)
            rest = self._names[path] - self._left.get(path, set())
            others = folder.others or folder.ignored_folders or folder.linked_folders
            if has_lost and not rest and not others and below <= empty and path not in self._filled:
                empty.add(path)
        empty.discard(self.top)
        return sorted(empty, key=lambda path: (-path.count("/"), path))

    def _fill(self, folder: str) -> None:
        if folder not in self._filled:  # else those above are there too
            self._filled.update(map(str, (PurePosixPath(folder), *PurePosixPath(folder).parents)))


def _own(beside: dict[str, list[str]]) -> dict[str, list[str]]:
    owners: dict[str, int] = {}
    for names in beside.values():
        for name in names:
            owners[name] = owners.get(name, 0) + 1
    return {picture: [name for name in names if owners[name] == 1] for picture, names in beside.items()}
