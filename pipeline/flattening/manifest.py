"""`.flatten.json`: what was made of a tree, file by file, for the way back.

It lies in the flat folder and travels with it. Paths in it use forward slashes; those of folders are relative
to the tree, those of flat folders to the folder that holds the manifest.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import pipeline
from pipeline.errors import InputError

NAME = ".flatten.json"
TOML_NAME = "dataset.toml"
VERSION = 2  # 1: names of files as a list
_READ_VERSIONS = (1, VERSION)

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode

To = Literal["in-place", "toml", "hardlink", "copy", "symlink", "reflink"]
Stamp = tuple[int, int]  # size in bytes, mtime in ns


@dataclass(frozen=True, slots=True)
class FlatFolder:
    """One flat folder.

    Args:
        is_base: it keeps the folder's loose files; in place it is the folder itself, under another name.
        names: of the files that lay in it when it was made, joined by "/", which no name holds: quicker to
            write, read and compare than one by one.
        stamps: of each of them; none in place, where a file that changed since is told by its time.
    """

    name: str
    folder: str
    repeats: int
    is_base: bool
    names: str
    stamps: tuple[Stamp, ...] = ()

    @property
    def files(self) -> list[str]:
        """Names of what lay in it when it was made."""
        return self.names.split("/") if self.names else []

    def old(self) -> dict[str, Stamp]:
        """Names of its files, and what they looked like."""
        return dict(zip(self.files, self.stamps, strict=True))


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `flatten` did.

    Args:
        made_ns: when, as file systems count.
        source: the tree, relative to the manifest's folder; "." when it was changed in place.
        removed: folders that became empty and were removed, with their permission bits, deepest first.
        order: ("move", name of a base folder) and ("remove", path of a folder), as they were done.
        links: (path in the flat tree, text before, text now) of links that were pointed elsewhere.
        toml_sha256: of the dataset TOML; "" without one.
    """

    to: To
    source: str
    separator: str
    folders: tuple[FlatFolder, ...]
    removed: dict[str, int] = field(default_factory=dict)
    order: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str, str], ...] = ()
    toml_sha256: str = ""
    made_ns: int = 0

    def text(self) -> str:
        """The file's text; the same for the same manifest."""
        head = {
            "celforge_flatten": VERSION,
            "celforge": pipeline.__version__,
            "to": self.to,
            "source": self.source,
            "separator": self.separator,
            "removed": self.removed,
            "order": self.order,
            "links": self.links,
            "toml_sha256": self.toml_sha256,
            "made_ns": self.made_ns,
        }
        rows = (
            "\n  " + _ENCODE([one.name, one.folder, one.repeats, one.is_base, one.names, one.stamps])
            for one in self.folders
        )
        lines = (f'\n "{key}": {_ENCODE(value)}' for key, value in head.items())
        return "".join(["{", ",".join(lines), ',\n "folders": [', ",".join(rows), "\n ]\n}\n"])


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a flat folder; None when there is none.

    Raises:
        InputError: it is damaged, or from a newer celforge.
    """
    path = folder / NAME
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        hint = "put back the file as it was, or take the folder in as kohya's: --import-kohya"
        raise InputError(f"{path} is damaged: {error}", hint=hint) from error
    if not isinstance(data, dict) or data.get("celforge_flatten") not in _READ_VERSIONS:
        raise InputError(f"{path} was made by another version of celforge", hint="use that version")
    try:
        return _manifest(data)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error!r}") from error


def _manifest(data: dict[str, Any]) -> Manifest:
    folders = tuple(
        FlatFolder(
            name,
            where,
            repeats,
            is_base,
            "/".join([names] if isinstance(names, str) else names),
            tuple((size, ns) for size, ns in stamps),
        )
        for name, where, repeats, is_base, names, stamps in data["folders"]
    )
    return Manifest(
        to=cast("To", data["to"]),
        source=data["source"],
        separator=data["separator"],
        folders=folders,
        removed=dict(data["removed"]),
        order=tuple((kind, name) for kind, name in data["order"]),
        links=tuple((path, before, now) for path, before, now in data["links"]),
        toml_sha256=data["toml_sha256"],
        made_ns=data["made_ns"],
    )


def stamp(path: str | Path) -> Stamp | None:
    """Size and time of what a path leads to; None where it leads nowhere."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
