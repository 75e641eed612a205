"""Renames that never replace anything unasked, and names put on the disk.

Linux can refuse to replace in the same step that renames (renameat2); Windows refuses by itself.
"""

import ctypes
import errno
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import cast

from pipeline.names import path_key

_RENAME_NOREPLACE = 1  # linux/fs.h
_AT_FDCWD = -100


def rename_new(source: Path | str, destination: Path | str) -> None:
    """Rename a file, link or folder on one disk; FileExistsError where the destination exists.

    `os.rename` replaces an existing file, and an empty folder, without a word. A change of letter case alone
    is allowed where the disk takes both spellings for one name.
    """
    try:
        if _rename_noreplace(source, destination):
            return
    except FileExistsError:
        if not is_other_spelling(Path(source), Path(destination)):
            raise
    source, destination = Path(source), Path(destination)
    if os.path.lexists(destination) and not is_other_spelling(source, destination):
        raise already_there(destination)
    _patiently(os.rename, source, destination)  # Windows refuses by itself to replace


def rename_all_new(source: Path, destination: Path, names: Iterable[str]) -> None:
    """Rename entries of one folder into another on the same disk, as `rename_new` does; names stay."""
    call = _renameat2()
    if call is None:
        for name in names:
            rename_new(source / name, destination / name)
        return
    with _folder_descriptor(source) as here, _folder_descriptor(destination) as there:
        for name in names:
            text = os.fsencode(name)
            if call(here, text, there, text, _RENAME_NOREPLACE):  # that one's way out, or its error
                rename_new(source / name, destination / name)


def is_other_spelling(first: Path, second: Path) -> bool:
    """Say whether two paths are one entry of a folder on a disk that ignores letter case or Unicode form."""
    if first.parent != second.parent or path_key(first.name) != path_key(second.name):
        return False
    names = os.listdir(first.parent)
    return not (first.name in names and second.name in names)


def replace(source: Path, destination: Path) -> None:
    """Rename over what is there, in one step."""
    _patiently(os.replace, source, destination)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk; Windows does this by itself and has no call for it."""
    if sys.platform == "win32":
        return
    with _folder_descriptor(folder) as descriptor:
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (
                errno.EINVAL,
                errno.ENOTSUP,
                errno.EOPNOTSUPP,
            ):  # some network disks cannot
                raise


@contextmanager
def _folder_descriptor(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def already_there(path: Path | str) -> FileExistsError:
    """The error for a destination that exists."""
    return FileExistsError(errno.EEXIST, "is there already and is not overwritten", str(path))


def _patiently(rename: Callable[[Path, Path], None], source: Path, destination: Path) -> None:
    """Rename; on Windows try for half a second, since scanners hold new files open for a moment."""
    for _ in range(10 if sys.platform == "win32" else 0):
        try:
            rename(source, destination)
        except PermissionError:
            time.sleep(0.05)
        else:
            return
    rename(source, destination)


def _rename_noreplace(source: Path | str, destination: Path | str) -> bool:
    """Rename in one step that cannot replace anything; False where this system or disk has no such step."""
    call = _renameat2()
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(destination), _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM):
        return False
    if number == errno.EEXIST:
        raise already_there(destination)
    raise OSError(number, os.strerror(number), str(source), None, str(destination))


@cache
def _renameat2() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    call.restype = ctypes.c_int
    return cast("Callable[..., int]", call)
