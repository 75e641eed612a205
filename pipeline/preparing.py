"""How a plan becomes steps: each action against the disk as it will be when those before it are done."""

import hashlib
import os
from pathlib import Path

from pipeline.actions import (
    Action,
    AnyPath,
    Drop,
    MakeFolder,
    Move,
    MoveFiles,
    MoveFolders,
    Place,
    PlaceFolder,
    Relink,
    RemoveFolder,
    Write,
)
from pipeline.content_steps import PlaceStep, WriteStep, file_sha256
from pipeline.folder_steps import MoveFilesStep, MoveFoldersStep, PlaceFolderStep, RelinkStep
from pipeline.names import name_problem, path_key, path_problem
from pipeline.steps import MakeFolderStep, MoveStep, RemoveFolderStep, Step
from pipeline.tree import FutureTree, Node, parted

PARTIAL_UNITS = len("..0123456789abcdef.partial")  # that a temporary name is longer (pipeline/files.py)


class Preparer:
    """Goes through the actions of a plan on a tree that is only thought of: `add` turns each into steps, or
    says what stands against it.
    """

    def __init__(self, root: Path, state_folder: Path, run: str) -> None:
        self.steps: list[Step] = []
        self.problems: list[str] = []
        self._given_root = os.path.abspath(root)
        self._root = os.path.realpath(root)
        self._inside = self._root.rstrip(os.sep) + os.sep
        self._state = os.path.realpath(state_folder)
        self._dropped = os.path.join(self._state, "dropped", run)
        self._kept = os.path.join(self._state, "undo", run)
        self._tree = FutureTree(self._root)
        self._made: dict[str, str] = {}  # path_key -> path that the plan makes
        self._writable: dict[str, bool] = {}
        self._real_folders: dict[str, str] = {}
        self._moves_links = False

    def add(self, action: Action) -> None:
        """Take the next action; actions on rows of the catalogue need no step."""
        match action:
            case Move():
                self._move(self._full(action.source), self._full(action.destination), action)
            case Drop():
                source = self._full(action.source)
                self._move(source, self._drop_path(source), action)
            case Place():
                self._place(self._full(action.source), self._full(action.destination), action)
            case MoveFiles():
                self._move_files(self._full(action.source), self._full(action.destination), action)
            case MoveFolders():
                self._move_folders(action)
            case PlaceFolder():
                self._place_folder(self._full(action.source), self._full(action.destination), action)
            case Relink():
                self._relink(self._full(action.path), action)
            case Write():
                self._write(self._full(action.path), action)
            case MakeFolder():
                self._make_folder(self._full(action.path), action)
            case RemoveFolder():
                self._remove_folder(self._full(action.path), action)

    def _full(self, path: AnyPath) -> str:
        """An absolute path through real folders: one place has one name. Its last part may be a link."""
        full = os.fspath(path)
        folder, _, name = full.rpartition(os.sep)
        if folder not in self._real_folders or name in ("", ".", ".."):  # else it is normal
            full = os.path.normpath(os.path.join(self._given_root, full))
            folder, name = os.path.split(full)
        if full == self._given_root:
            return self._root
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        return os.path.join(self._real_folders[folder], name)

    def _stored(self, path: str) -> str:
        if path.startswith(self._inside):
            return path[len(self._inside) :].replace(os.sep, "/")
        return path

    def _say(self, problem: str) -> bool:
        self.problems.append(problem)
        return False

    def _drop_path(self, source: str) -> str:
        inside = self._stored(source)
        if inside == source:
            inside = os.path.join("outside", os.path.splitdrive(source)[1].lstrip(os.sep))
        path, number = os.path.join(self._dropped, inside), 1
        stem, extension = os.path.splitext(path)
        while self._tree.find(os.path.normpath(path)).exists:
            number += 1
            path = f"{stem} ({number}){extension}"
        return os.path.normpath(path)

    # One method an action: say problems, else change the tree and add the step

    def _move(self, source: str, destination: str, action: Move | Drop) -> None:
        is_drop = isinstance(action, Drop)
        as_is = isinstance(action, Drop) or action.as_is
        kind = self._moved(source, destination, is_drop=is_drop, as_is=as_is)
        if kind is not None:
            detail = action.detail if isinstance(action, Drop) else ""
            ends = self._stored(source), self._stored(destination)
            self.steps.append(MoveStep(*ends, kind, action.reason, detail=detail, is_drop=is_drop))

    def _move_folders(self, action: MoveFolders) -> None:
        pairs = []
        for given in action.pairs:
            source, destination = self._full(given[0]), self._full(given[1])
            kind = self._moved(source, destination, is_drop=False, as_is=action.as_is)
            if kind not in (None, "folder"):
                self._say(f"{source} is not a folder")
            pairs.append((self._stored(source), self._stored(destination)))
        self.steps.append(MoveFoldersStep(tuple(pairs), action.reason))

    def _moved(self, source: str, destination: str, *, is_drop: bool, as_is: bool) -> str | None:
        """What was moved in the tree: `file`, `folder` or `link`; None where something stands against it."""
        folder, name = parted(source)
        parent = self._tree.find(folder)
        node = parent.child(name)
        kind = node.kind
        if not self._may_leave(source, node, parent) or not self._is_outside(source, destination):
            return None
        if kind not in ("file", "folder", "link"):
            self._say(f"{source} is neither a file nor a folder")
            return None
        is_far = kind == "folder" and folder != parted(destination)[0]
        if is_far and not self._may_change(node):  # the folder's own entry ".." changes
            return None
        parent.put(name, Node(None, "missing"))
        if not self._may_appear(destination, source, is_drop=is_drop, as_is=as_is):
            parent.put(name, node)
            return None
        self._tree.put(destination, node)
        self._moves_links |= kind == "link"
        return kind

    def _move_files(self, source: str, destination: str, action: MoveFiles) -> None:
        node = self._tree.find(source)
        if not node.is_folder:
            self._say(f"{source} is not a folder")
            return
        if not self._is_one_disk(node, os.path.join(destination, "")):
            for name in action.names:
                ends = os.path.join(source, name), os.path.join(destination, name)
                self._move(*ends, Move(*ends, action.reason, as_is=True))
            return
        if self._is_behind_link(os.path.join(source, "")) or not self._may_change(node):
            return
        if not self._has_folder(destination, self._tree.find(destination)):
            return
        home = self._tree.find(destination)
        node.look_at_all()
        for name in action.names:
            child = node.child(name)
            if not child.exists:
                self._say(f"{os.path.join(source, name)} does not exist")
            elif self._holds_records(os.path.join(source, name)):
                continue
            elif home.has(name):
                self._say(f"{os.path.join(destination, name)} exists already")
            home.put(name, child)
            node.put(name, Node(None, "missing"))
            self._moves_links |= child.kind == "link"
        ends = self._stored(source), self._stored(destination)
        self.steps.append(MoveFilesStep(*ends, action.names, action.reason))

    def _place(self, source: str, destination: str, action: Place) -> None:
        node = self._tree.find(source)
        if not node.exists:
            self._say(f"{source} does not exist")
            return
        if self._is_behind_link(source):
            return
        if node.kind != "file" and not (node.kind == "link" and node.origin and os.path.isfile(node.origin)):
            self._say(f"{source} is not a file")
            return
        if not self._may_appear(destination):
            return
        if action.how == "hardlink" and not action.or_copy and not self._is_one_disk(node, destination):
            self._say(f"{destination} lies on another disk than {source}: a hard link cannot; choose copy")
        self._moves_links |= action.how == "symlink"
        placed = Node(None, "link" if action.how == "symlink" else "file", node.sha256)
        placed.bytes_at = node.bytes_at
        self._tree.put(destination, placed)
        is_relative = source.startswith(self._inside) and destination.startswith(self._inside)
        ends = self._stored(source), self._stored(destination)
        self.steps.append(
            PlaceStep(*ends, action.how, action.reason, or_copy=action.or_copy, relative_link=is_relative)
        )

    def _place_folder(self, source: str, destination: str, action: PlaceFolder) -> None:
        node = self._tree.find(source)
        if not node.is_folder or node.origin is None:
            self._say(f"{source} is not a folder")
            return
        if self._is_behind_link(source) or not self._may_appear(destination):
            return
        if action.origins:
            missing = {one for one in action.origins if not os.path.lexists(os.path.join(node.origin, one))}
        else:
            missing = set(action.names).difference(os.listdir(node.origin))
        if missing:
            self._say(f"{os.path.join(source, min(missing))} does not exist")
        if action.how == "hardlink" and not action.or_copy and not self._is_one_disk(node, destination):
            self._say(f"{destination} lies on another disk than {source}: a hard link cannot; choose copy")
        longest = max(action.names, key=len, default="")
        self._fits(os.path.join(destination, longest), PARTIAL_UNITS)
        placed = Node(None, "folder")
        placed.put_all(action.names, Node(None, "file"))
        self._tree.put(destination, placed)
        ends = "." if source == self._root else self._stored(source), self._stored(destination)
        self.steps.append(
            PlaceFolderStep(
                *ends, action.names, action.how, action.reason, or_copy=action.or_copy, origins=action.origins
            )
        )

    def _relink(self, path: str, action: Relink) -> None:
        node = self._tree.find(path)
        if node.kind != "link" or node.origin is None:
            self._say(f"{path} is not a link")
        elif os.readlink(node.origin) != action.expects:
            self._say(f"{path} was pointed elsewhere since it was read")
        elif self._may_change(self._tree.find(os.path.dirname(path))):
            self.steps.append(RelinkStep(self._stored(path), action.target, action.expects, action.reason))

    def _write(self, path: str, action: Write) -> None:
        data = action.content.encode("utf-8") if isinstance(action.content, str) else action.content
        kept = None
        if action.expects is None:
            if not self._may_appear(path):
                return
        elif self._may_overwrite(path, action.expects):
            if hashlib.sha256(data).hexdigest() == action.expects:
                return  # it holds that already: it stays the file that it is, with its links
            kept = self._stored(os.path.join(self._kept, str(len(self.steps))))
        else:
            return
        step = WriteStep(self._stored(path), data, action.reason, action.expects, kept)
        self._tree.put(path, Node(None, "file", step.sha256))
        self.steps.append(step)

    def _make_folder(self, path: str, action: MakeFolder) -> None:
        if not self._tree.find(path).is_folder and self._may_appear(path, as_is=action.as_is):
            self._tree.put(path, Node(None, "folder"))
            self.steps.append(MakeFolderStep(self._stored(path), action.reason, mode=action.mode))

    def _remove_folder(self, path: str, action: RemoveFolder) -> None:
        folder, name = parted(path)
        parent = self._tree.find(folder)
        node = parent.child(name)
        if not self._may_leave(path, node, parent):
            return
        if node.kind != "folder":
            self._say(f"{path} is not a folder")
            return
        mode = node.status.st_mode & 0o7777 if node.status else None
        if self._tree.is_empty(path):
            self._tree.take(path)
        self.steps.append(RemoveFolderStep(self._stored(path), action.reason, mode))

    # Questions; each says what is wrong

    def _may_leave(self, source: str, node: Node, parent: Node) -> bool:
        if not node.exists:
            return self._say(f"{source} does not exist")
        if self._is_behind_link(source):
            return False
        return not self._holds_records(source) and self._may_change(parent)

    def _holds_records(self, source: str) -> bool:
        is_above = self._state.startswith(source) and f"{self._state}{os.sep}".startswith(source + os.sep)
        if is_above:
            self._say(f"{source} holds the project's own records and cannot be moved or removed")
        return is_above

    def _is_outside(self, source: str, destination: str) -> bool:
        if destination == source:
            return self._say(f"{source} would be moved onto itself")
        if destination.startswith(source + os.sep):
            return self._say(f"{destination} lies inside {source}, which would be moved there")
        return True

    def _may_appear(
        self, path: str, moved_from: str | None = None, *, as_is: bool = False, is_drop: bool = False
    ) -> bool:
        """Whether nothing is at a path, under any spelling; folders above it are made.

        Args:
            as_is: what other systems say of the names is not asked.
            is_drop: the place was chosen free.
        """
        if is_drop:
            folder = parted(path)[0]
            return self._has_folder(folder, self._tree.find(folder), as_is=True)
        folder, name = parted(path)
        keeps_name = as_is or (moved_from is not None and parted(moved_from)[1] == name)
        problem = None if keeps_name else name_problem(name)
        if problem:
            return self._say(f"{path}: the name {problem}")
        if not as_is and not self._fits(path, PARTIAL_UNITS if moved_from is None else 0):
            return False
        parent, key = self._tree.find(folder), path_key(path)
        if parent.child(name).exists and (moved_from is None or parent.is_listed(name)):
            is_ours = self._made.get(key) == path
            return self._say(f"{path} would be made twice" if is_ours else f"{path} exists already")
        twin = None if as_is else self._twin(path, parent, key)
        if twin:
            return self._say(f"{path} and {twin} are one file on Windows and macOS")
        self._made[key] = path
        return self._has_folder(folder, parent, as_is=as_is)

    def _fits(self, path: str, more_units: int = 0) -> bool:
        """Whether this machine takes a path, beside which a name so much longer stands for a moment."""
        problem = path_problem(path + "." * more_units)
        return self._say(f"{path} {problem}") if problem else True

    def _twin(self, path: str, parent: Node, key: str) -> str | None:
        """Another path, of the disk or of the plan, that is this one on disks that ignore letter case."""
        folder, name = parted(path)
        if beside := parent.twin(name):
            return os.path.join(folder, beside)
        other = self._made.get(key)
        return other if other is not None and other != path and self._tree.find(other).exists else None

    def _has_folder(self, folder: str, node: Node, *, as_is: bool = False) -> bool:
        """Whether a folder is there, or can be made and now is."""
        if self._moves_links and self._is_behind_link(os.path.join(folder, "")):
            return False
        if node.is_folder:
            return self._may_change(node)
        if node.exists:
            return self._say(f"{folder} is not a folder")
        if not self._may_appear(folder, as_is=as_is):
            return False
        self._tree.put(folder, Node(None, "folder"))
        self.steps.append(MakeFolderStep(self._stored(folder), "", is_implied=True))
        return True

    def _may_change(self, folder: Node) -> bool:
        origin = folder.origin
        if origin is None:
            return True
        if origin not in self._writable:
            self._writable[origin] = not folder.is_folder or os.access(origin, os.W_OK | os.X_OK)
            if not self._writable[origin]:
                self._say(f"{origin} may not be written")
        return self._writable[origin]

    def _may_overwrite(self, path: str, expects: str) -> bool:
        node = self._tree.find(path)
        if not node.exists:
            return self._say(f"{path} does not exist, and was to be overwritten")
        if node.kind != "file":
            return self._say(f"{path} is a {node.kind}, and a file was to be overwritten")
        if self._is_behind_link(path) or not self._may_change(self._tree.find(os.path.dirname(path))):
            return False
        if node.sha256 is None and node.bytes_at is not None:
            node.sha256 = file_sha256(Path(os.path.realpath(node.bytes_at)))
        if node.sha256 != expects:
            return self._say(f"{path} was edited since it was read")
        return True

    def _is_behind_link(self, path: str) -> bool:
        """Whether a path goes through a link that the plan itself moved or made."""
        folder = os.path.dirname(path)
        while self._moves_links and folder not in (self._root, os.path.dirname(folder)):
            if self._tree.find(folder).kind == "link":
                self._say(f"{path} lies behind {folder}, a link that is moved; name the real folder")
                return True
            folder = os.path.dirname(folder)
        return False

    def _is_one_disk(self, node: Node, destination: str) -> bool:
        if node.origin is None:
            return True
        folder = os.path.dirname(destination)
        while self._tree.find(folder).origin is None or not self._tree.find(folder).exists:
            folder = os.path.dirname(folder)
        origin = self._tree.find(folder).origin
        assert origin is not None
        return os.stat(node.origin).st_dev == os.stat(origin).st_dev
