"""Moves of files, links and whole folders, also from disk to disk, that can be killed and finished later.

On one disk a move is one rename. To another disk it is: copy beside the destination under a temporary name,
compare, sync, rename; then rename the source away and remove it. So every name holds a whole thing or
nothing, and what a kill leaves is told from the two paths alone: only the source (not moved), only the
destination (moved), or both and equal (half moved).
"""

import errno
import os
import shutil
from pathlib import Path

from pipeline.files import copy_bytes, partial_path, path_key, remove_partials, remove_tree, unlink
from pipeline.renaming import rename_new, sync_folder
from pipeline.tree import kind_of

COMPARE_BYTES = 1 << 20


def relocate(source: Path | str, destination: Path | str) -> None:
    """Move a file, link or folder; nothing is overwritten and no link is followed.

    Raises:
        FileExistsError: the destination exists; nothing was touched.
        OSError: the source stays whole where it is, or the destination is whole.
    """
    try:
        rename_new(source, destination)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_over(Path(source), Path(destination))
        _discard(Path(source))


def is_half_moved(source: Path, destination: Path) -> bool:
    """Say whether a killed move between two disks left the source beside its complete copy."""
    if os.stat(source.parent).st_dev == os.stat(destination.parent).st_dev:
        return False
    return is_same_tree(source, destination)


def finish_move(source: Path, destination: Path) -> None:
    """Remove the source of a half move. Call only when `is_half_moved`."""
    sync_folder(destination.parent)
    _discard(source)


def remove_leftovers(*paths: Path) -> None:
    """Remove temporary copies, and sources renamed away, that a killed move or write left."""
    for path in paths:
        remove_partials(path.parent, path.name)


def present(path: Path, other: Path) -> bool:
    """Say whether a path exists under exactly this spelling, `other` being the second path of a move."""
    if not os.path.lexists(path):
        return False
    if path.name == other.name or path.parent != other.parent or path_key(path.name) != path_key(other.name):
        return True
    return path.name in os.listdir(path.parent)


def is_same_tree(first: Path, second: Path) -> bool:
    """Compare two files, links or folders: kinds, names, link targets and every byte."""
    try:
        kind = kind_of(os.lstat(first).st_mode)
        if kind != kind_of(os.lstat(second).st_mode):
            return False
        if kind == "link":
            return os.readlink(first) == os.readlink(second)
        if kind == "file":
            return _is_same_file(first, second)
        if kind != "folder":
            return False
        names = sorted(os.listdir(first))
        return names == sorted(os.listdir(second)) and all(
            is_same_tree(first / name, second / name) for name in names
        )
    except FileNotFoundError:
        return False


def _is_same_file(first: Path, second: Path) -> bool:
    if os.stat(first).st_size != os.stat(second).st_size:
        return False
    with first.open("rb") as one, second.open("rb") as other:
        while block := one.read(COMPARE_BYTES):
            if block != other.read(COMPARE_BYTES):
                return False
        return not other.read(1)


def _copy_over(source: Path, destination: Path) -> None:
    if os.path.lexists(destination):
        raise FileExistsError(errno.EEXIST, "is there already and is not overwritten", str(destination))
    temporary = partial_path(destination)
    try:
        _copy_tree(source, temporary)
        _compare(source, temporary)
        rename_new(temporary, destination)
    except BaseException:
        remove_partials(destination.parent, destination.name)
        raise
    sync_folder(destination.parent)


def _compare(source: Path, copy: Path) -> None:
    if not is_same_tree(source, copy):
        raise OSError(errno.EIO, "changed while it was copied to another disk", str(source))


def _copy_tree(source: Path, destination: Path) -> None:
    """Copy one thing with its times and permissions, synced; links stay links."""
    kind = kind_of(os.lstat(source).st_mode)
    if kind == "link":
        os.symlink(os.readlink(source), destination, target_is_directory=source.is_dir())
        if os.utime in os.supports_follow_symlinks:
            status = os.lstat(source)
            os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
    elif kind == "file":
        copy_bytes(source, destination, sync=True)
    elif kind == "folder":
        destination.mkdir()
        for name in sorted(os.listdir(source)):
            _copy_tree(source / name, destination / name)
        sync_folder(destination)
        shutil.copystat(source, destination)
    else:
        raise OSError(
            errno.EINVAL, "is no file, folder or link and cannot be moved to another disk", str(source)
        )


def _discard(source: Path) -> None:
    """Remove what has a complete copy elsewhere: renamed away first, so that it never stands half removed."""
    if source.is_symlink() or not source.is_dir():
        unlink(source)
        return
    trash = partial_path(source)
    os.rename(source, trash)
    sync_folder(source.parent)
    remove_tree(trash)
