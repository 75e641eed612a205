"""Files written whole, and placed without overwriting anything.

Nothing here asks for a project or a journal; paths are used as they are given. A half-written file is never
seen under its own name: it lies beside it as `.<name>.<16 hex digits>.partial` until it is complete.
"""

import errno
import os
import re
import secrets
import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from pipeline.errors import DiskFullError, InputError
from pipeline.names import (
    IGNORED_FILES,
    IGNORED_FOLDERS,
    cut_name,
    is_ignored_name,
    name_problem,
    natural_key,
    path_key,
    safe_name,
)
from pipeline.renaming import already_there, rename_new, replace, sync_folder

How = Literal["hardlink", "copy", "symlink", "reflink", "move"]

__all__ = [
    "IGNORED_FILES",
    "IGNORED_FOLDERS",
    "How",
    "copy_bytes",
    "copy_file",
    "disk_full_as_error",
    "format_bytes",
    "is_disk_full",
    "is_ignored_name",
    "move_file",
    "name_problem",
    "natural_key",
    "partial_path",
    "path_key",
    "place",
    "relative_path",
    "remove_folder",
    "remove_partials",
    "remove_tree",
    "safe_name",
    "unlink",
    "write_atomic",
    "write_new",
]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_LINKS_HERE = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
)  # EINVAL is what Windows says of FAT and exFAT
_NO_PRIVILEGE = 1314  # ERROR_PRIVILEGE_NOT_HELD of Windows, which Python takes for no PermissionError
_NO_CLONES_HERE = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
)
_FICLONE = 0x40049409  # linux/fs.h, _IOW(0x94, 9, int)
_PARTIAL = re.compile(r"\.(?P<name>.*)\.[0-9a-f]{16}\.partial", re.DOTALL)


def write_atomic(path: Path, data: bytes | str, *, sync: bool = True) -> None:
    """Write a file whole or not at all; text is written as UTF-8 with its line ends as they are.

    A file that is replaced keeps its permission bits. A link is replaced, not followed.

    Args:
        sync: wait until the bytes are on the disk; without it a power cut may leave an empty file.

    Raises:
        DiskFullError: no room; nothing is left behind.
    """
    _write(path, data, replace, sync=sync)


def write_new(path: Path, data: bytes | str, *, sync: bool = True) -> None:
    """Write a file as `write_atomic` does, but never over one that exists (FileExistsError)."""
    _write(path, data, rename_new, sync=sync)


@contextmanager
def disk_full_as_error(folder: Path, what: str = "writing") -> Iterator[None]:
    """Turn "no space left" of the system or of SQLite into a DiskFullError.

    Args:
        folder: where (a file will do); its disk is asked how much is free.
        what: what was being done, for the message: `writing ep01.txt`.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if not is_disk_full(error):
            raise
        raise DiskFullError(
            f"the disk is full: {what} in {folder}, {_free_space(folder)} free",
            hint="free some space and run the same command again",
        ) from error


def is_disk_full(error: BaseException) -> bool:
    """Say whether an error means that the disk, or this person's share of it, is full."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return isinstance(error, sqlite3.Error) and "disk is full" in str(error)


def place(
    source: Path,
    destination: Path,
    how: How,
    *,
    or_copy: bool = False,
    relative_link: bool = False,
    sync: bool = True,
) -> How:
    """Make a file appear at a second path, or move it there; never over something that exists.

    A source that is a link is followed, except by a move, which moves the link itself. Copies keep
    modification time and permission bits. A copy, also the one that a move to another disk makes, appears
    whole or not at all.

    Args:
        or_copy: where the disk cannot make a hard link or a reflink, make a copy.
        relative_link: write the target of a symbolic link relative to the link's folder.
        sync: wait until the bytes of a copy are on the disk. A move to another disk always waits.
    Returns: how it was done.

    Raises:
        FileExistsError: the destination exists; nothing was touched.
        InputError: the disk cannot do this, and `or_copy` was not given.
        DiskFullError: no room; nothing is left behind.
    """
    with disk_full_as_error(destination.parent, f"placing {destination.name}"):
        if how == "move":
            move_file(source, destination)
        elif how == "copy":
            copy_file(source, destination, sync=sync)
        elif how == "symlink":
            _symlink(source, destination, relative=relative_link)
        else:
            try:
                _hardlink(source, destination) if how == "hardlink" else _reflink(
                    source, destination, sync=sync
                )
            except InputError:
                if not or_copy:
                    raise
                copy_file(source, destination, sync=sync)
                return "copy"
    return how


def copy_file(source: Path, destination: Path, *, sync: bool = True) -> None:
    """Copy bytes, modification time and permission bits; FileExistsError where the destination exists."""
    if os.path.lexists(destination):
        raise already_there(destination)
    temporary = partial_path(destination)
    try:
        copy_bytes(source, temporary, sync=sync)
        rename_new(temporary, destination)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def copy_bytes(source: Path, destination: Path, *, sync: bool) -> None:
    """Copy into a new file, byte by byte: for a destination that is itself temporary."""
    with (
        open(source, "rb") as reader,
        os.fdopen(os.open(destination, _write_flags(), 0o666), "wb") as writer,
    ):
        status = os.fstat(reader.fileno())
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        if sync:
            os.fsync(writer.fileno())
    _stamp(destination, status)


def move_file(source: Path, destination: Path) -> None:
    """Move a file or a link; to another disk by a copy, and the source goes when the copy is complete."""
    try:
        rename_new(source, destination)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if source.is_symlink():
            os.symlink(os.readlink(source), destination, target_is_directory=source.is_dir())
        else:
            copy_file(source, destination, sync=True)
        sync_folder(destination.parent)
        unlink(source)


def unlink(path: Path) -> None:
    """Remove a file or a link; on Windows also one that is marked read-only."""
    try:
        path.unlink()
    except PermissionError:
        if sys.platform != "win32":
            raise
        os.chmod(path, stat.S_IWRITE)
        path.unlink()


def remove_folder(folder: Path) -> None:
    """Remove an empty folder; on Windows also one that is marked read-only, as cloud folders are."""
    try:
        folder.rmdir()
    except PermissionError:
        if sys.platform != "win32":
            raise
        os.chmod(folder, stat.S_IWRITE)
        folder.rmdir()


def relative_path(path: Path | str, folder: Path | str) -> str:
    """The way from a folder to a path, with forward slashes; the whole path where that is another drive."""
    try:
        return os.path.relpath(path, folder).replace(os.sep, "/")
    except ValueError:
        return os.path.abspath(path)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, read-only or not; links are removed, not followed."""
    os.chmod(folder, 0o700)
    for name in os.listdir(folder):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            unlink(path)
    folder.rmdir()


def partial_path(path: Path) -> Path:
    """Name a new temporary file beside `path`, hidden from every listing of pictures."""
    return path.with_name(f".{_partial_stem(path.name)}.{secrets.token_hex(8)}.partial")


def remove_partials(folder: Path, name: str | None = None) -> int:
    """Remove the temporary files, and folders, that a killed process left in a folder.

    Args:
        name: only those of this file; all of the folder without it. The caller sees to it that no other
            process is writing there.
    Returns: how many there were.
    """
    if not folder.is_dir():
        return 0
    removed = 0
    for found in os.listdir(folder):
        match = _PARTIAL.fullmatch(found)
        if match is None or (name is not None and match["name"] != _partial_stem(name)):
            continue
        path = folder / found
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            unlink(path)
        removed += 1
    return removed


def format_bytes(size_bytes: int) -> str:
    """Write a size for people: `512 bytes`, `3.4 GiB`."""
    if size_bytes < 1024:
        return f"{size_bytes} bytes"
    size = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def _write(path: Path, data: bytes | str, publish: Callable[[Path, Path], None], *, sync: bool) -> None:
    temporary = partial_path(path)
    with disk_full_as_error(path.parent, f"writing {path.name}"):
        try:
            with os.fdopen(os.open(temporary, _write_flags(), 0o666), "wb") as file:
                file.write(data.encode("utf-8") if isinstance(data, str) else data)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            _keep_mode(path, temporary)
            publish(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        if sync:
            sync_folder(path.parent)


def _write_flags() -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    return flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0)


def _keep_mode(path: Path, temporary: Path) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISREG(status.st_mode) and sys.platform != "win32":
        os.chmod(temporary, stat.S_IMODE(status.st_mode))


def _stamp(path: Path, status: os.stat_result) -> None:
    if sys.platform != "win32":
        os.chmod(path, stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _hardlink(source: Path, destination: Path) -> None:
    try:
        os.link(os.path.realpath(source) if source.is_symlink() else source, destination)
    except OSError as error:
        if error.errno not in _NO_LINKS_HERE or os.path.lexists(destination):
            raise
        raise InputError(
            f"cannot make a hard link from {source} to {destination}: {error.strerror}",
            hint="choose copy instead",
        ) from error


def _symlink(source: Path, destination: Path, *, relative: bool) -> None:
    target = os.path.abspath(source)
    if relative:
        with suppress(ValueError):  # another drive of Windows: no relative path leads there
            target = os.path.relpath(target, os.path.realpath(destination.parent))
    try:
        os.symlink(target, destination)
    except OSError as error:
        if getattr(error, "winerror", None) == _NO_PRIVILEGE:
            raise InputError(
                f"Windows does not let this account make symbolic links ({destination})",
                hint="choose hardlink or copy, or switch on Developer Mode",
            ) from error
        if error.errno not in _NO_LINKS_HERE or os.path.lexists(destination):
            raise
        raise InputError(
            f"cannot make a symbolic link from {source} to {destination}: {error.strerror}",
            hint="choose copy instead",
        ) from error


def _reflink(source: Path, destination: Path, *, sync: bool) -> None:
    if not sys.platform.startswith("linux"):
        raise InputError(f"reflinks are known on Linux only ({destination})", hint="choose copy instead")
    import fcntl  # not there on Windows

    if os.path.lexists(destination):
        raise already_there(destination)
    temporary = partial_path(destination)
    try:
        with (
            open(source, "rb") as reader,
            os.fdopen(os.open(temporary, _write_flags(), 0o666), "wb") as writer,
        ):
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
            if sync:
                os.fsync(writer.fileno())
            status = os.fstat(reader.fileno())
        _stamp(temporary, status)
        rename_new(temporary, destination)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno in _NO_CLONES_HERE:
            raise InputError(
                f"the disk cannot share the bytes of {source} with {destination} (reflink)",
                hint="choose hardlink or copy instead",
            ) from error
        raise


def _free_space(folder: Path) -> str:
    try:
        return format_bytes(shutil.disk_usage(folder).free)
    except OSError:
        return "an unknown amount"


def _partial_stem(name: str) -> str:
    return cut_name(name, 200)
