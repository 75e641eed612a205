"""Folder trees for tests of plans and journals: built from a few words, and looked at byte for byte."""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Tree = dict[str, tuple[object, ...]]


def build(root: Path, files: Mapping[str, str]) -> Path:
    """Make a tree: `"a/b.txt": "text"`, `"a/": ""` an empty folder, `"a/l": "-> target"` a link."""
    for number, (name, content) in enumerate(files.items()):
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            path.symlink_to(content[3:])
        else:
            path.write_bytes(content.encode())
            os.utime(path, ns=(10**18, 10**18 + number * 1_000_000_007))
    return root


def look(root: Path, *, times: bool = True, state: bool = False) -> Tree:
    """Every name below a folder with its kind, bytes, permissions, times of files and target of links.

    Args:
        times: with the modification times of files.
        state: with what lies in .celforge, but for journals and the catalogue.
    """
    seen: Tree = {}
    for folder, folders, names in os.walk(root):
        inside = os.path.relpath(folder, root)
        skipped = (
            {"journals", "catalog.json", "catalog.json.new"}
            if inside == ".celforge"
            else set()
            if state
            else {".celforge"}
        )
        folders[:] = sorted(set(folders) - skipped)
        for name in (*folders, *sorted(set(names) - skipped)):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            key = name if inside == "." else os.path.join(inside, name)
            if stat.S_ISLNK(status.st_mode):
                seen[key] = ("link", os.readlink(path))
            elif stat.S_ISDIR(status.st_mode):
                seen[key] = ("folder", oct(status.st_mode))
            else:
                with open(path, "rb", buffering=0) as file:
                    data = file.read()
                seen[key] = ("file", data, oct(status.st_mode), times and status.st_mtime_ns)
    return seen


def linked(root: Path) -> set[frozenset[str]]:
    """Groups of names that are one file by hard links."""
    groups: dict[tuple[int, int], set[str]] = {}
    for folder, folders, names in os.walk(root):
        if ".celforge" in folders:
            folders.remove(".celforge")
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            key = os.path.relpath(os.path.join(folder, name), root)
            groups.setdefault((status.st_dev, status.st_ino), set()).add(key)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


class FileCatalog:
    """A catalogue of outcomes and facts in one JSON file, which a killed process leaves whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: dict[str, Any] | None = None

    @property
    def rows(self) -> dict[str, Any]:
        """What it holds."""
        if self._open is not None:
            return self._open
        rows: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}
        return rows

    def read_outcome(self, content: str, stage: str) -> dict[str, Any] | None:
        return self._read(f"outcome {content} {stage}")

    def write_outcome(self, content: str, stage: str, row: Mapping[str, Any] | None) -> None:
        self._write(f"outcome {content} {stage}", row)

    def read_fact(self, content: str, name: str, source: str) -> dict[str, Any] | None:
        return self._read(f"fact {content} {name} {source}")

    def write_fact(self, content: str, name: str, source: str, row: Mapping[str, Any] | None) -> None:
        self._write(f"fact {content} {name} {source}", row)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._open = self.rows
        try:
            yield
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = self.path.with_suffix(".json.new")
            new.write_text(json.dumps(self._open, sort_keys=True))
            os.replace(new, self.path)
        finally:
            self._open = None

    def _read(self, key: str) -> dict[str, Any] | None:
        row: dict[str, Any] | None = self.rows.get(key)
        return row

    def _write(self, key: str, row: Mapping[str, Any] | None) -> None:
        assert self._open is not None, "the journal writes inside one transaction"
        self._open.pop(key, None)
        if row is not None:
            self._open[key] = dict(row)
