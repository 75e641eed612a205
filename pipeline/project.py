"""A project on disk: the folder that holds `.celforge/` and perhaps `celforge.toml`, and the one lock on
it.
"""

import contextlib
import errno
import json
import os
import platform
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, LockedError, SettingsError
from pipeline.settings import unknown_name

STATE_FOLDER = ".celforge"
CONFIG_NAME = "celforge.toml"
DATASET = "dataset"  # the tree that is trained on, at the top of a project that has one


@dataclass(frozen=True, slots=True)
class Project:
    """Where the catalogue, the journals and the settings of a folder lie."""

    root: Path  # absolute

    @property
    def state_folder(self) -> Path:
        """`.celforge/`: catalogue, journals, dropped pictures, logs."""
        return self.root / STATE_FOLDER

    @property
    def catalog_path(self) -> Path:
        """The SQLite file that knows every image."""
        return self.state_folder / "catalog.sqlite3"

    @property
    def config_path(self) -> Path | None:
        """celforge.toml, or None when the project has none."""
        path = self.root / CONFIG_NAME
        return path if path.is_file() else None

    def relative(self, path: Path) -> str:
        """`path` as the catalogue writes it: relative to the root, with forward slashes."""
        return path.relative_to(self.root).as_posix()


def find_project(folder: Path) -> Project:
    """The project that `folder` belongs to: the nearest `.celforge/` or celforge.toml at or above it, else
    itself.

    Raises:
        InputError: no such folder.
    """
    folder = existing_folder(folder)
    for candidate in (folder, *folder.parents):
        if (candidate / STATE_FOLDER).is_dir() or (candidate / CONFIG_NAME).is_file():
            return Project(candidate)
    return Project(folder)


def existing_folder(folder: Path) -> Path:
    """The absolute path of a folder that exists.

    Raises:
        InputError: it does not exist, is a file, or may not be read.
    """
    absolute = Path(os.path.abspath(folder.expanduser()))
    if absolute.is_dir():
        if not os.access(absolute, os.R_OK | os.X_OK):
            raise InputError(
                f"{absolute} may not be read", hint="change its permissions, or run as its owner"
            )
        return absolute
    if absolute.exists():
        raise InputError(f"{absolute} is a file, not a folder", hint=f"give its folder: {absolute.parent}")
    nearest = next(parent for parent in absolute.parents if parent.is_dir())
    raise InputError(f"there is no folder {absolute}", hint=f"{nearest} is the last part of it that exists")


def load_toml(path: Path | None, sections: Mapping[str, object]) -> dict[str, Any]:
    """Read celforge.toml and check the names of its sections.

    Args:
        path: None gives no settings at all.
        sections: every section name that exists.

    Raises:
        SettingsError: broken TOML (with line and column), or an unknown section.
    """
    if path is None:
        return {}
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"{path} is not valid TOML: {error}", hint="mend that line; nothing was run"
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8: {error}", hint="save it again as UTF-8") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    for name, value in data.items():
        if not isinstance(value, (dict, list)):
            hint = "put it below a [section] heading"
            raise SettingsError(f'"{name}" in {path} stands outside every section', hint=hint)
        if name not in sections:
            raise unknown_name("section", name, sections, str(path))
    return data


def entries_of(data: Mapping[str, Any], name: str, path: Path | None) -> list[Mapping[str, Any]]:
    """The tables `[[name]]` in their order, none when absent; one `[name]` is one of them.

    Raises:
        SettingsError: something else than tables stands there.
    """
    found = data.get(name, [])
    entries = [found] if isinstance(found, dict) else found
    if not all(isinstance(one, dict) for one in entries):
        raise SettingsError(f'"{name}" in {path} must be tables', hint=f"write [[{name}]] over each")
    return list(entries)


def section_of(data: Mapping[str, Any], name: str, path: Path | None) -> Mapping[str, Any]:
    """The table `[name]`, empty when absent.

    Raises:
        SettingsError: it is a list of tables (`[[name]]`) where one table is meant.
    """
    table = data.get(name, {})
    if not isinstance(table, dict):
        raise SettingsError(f"[[{name}]] in {path} must be written [{name}]: there is one")
    return table


@contextlib.contextmanager
def locked(project: Project) -> Iterator[None]:
    """Hold the project's lock; the holder is named to everybody else, and a killed holder lets go by itself.

    Raises:
        LockedError: another process holds it.
        InputError: the folder may not be written.
    """
    from filelock import FileLock, Timeout  # 30 ms that `--help` need not pay

    try:
        project.state_folder.mkdir(exist_ok=True)
        lock = FileLock(project.state_folder / "lock", timeout=0.2)
        lock.acquire()
    except Timeout:
        raise _locked_error(project) from None
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        hint = "change its permissions, or copy it to a folder of your own"
        raise InputError(f"{project.root} may not be written", hint=hint) from error
    holder_path = project.state_folder / "lock.json"
    try:
        holder_path.write_text(json.dumps(_this_process()), encoding="utf-8")
        yield
    finally:
        holder_path.unlink(missing_ok=True)
        lock.release()


def _this_process() -> dict[str, Any]:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    started = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": platform.node(), "command": command, "started": started}


def _locked_error(project: Project) -> LockedError:
    try:
        holder = json.loads((project.state_folder / "lock.json").read_text(encoding="utf-8"))
        text = "`{command}` (process {pid} on {host}, since {started})".format(**holder)
        hint = f"wait for it, or stop it: kill {holder['pid']}"
    except (OSError, ValueError, KeyError):
        text, hint = "another celforge process", "wait for it to end"
    return LockedError(f"{text} is working in {project.root}", hint=hint)
