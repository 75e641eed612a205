"""What a stage of `celforge run` saw and left when it was last done, kept in the catalogue.

A stage is up to date while its settings, the files it reads, what people said, and the stages before it are
what they were. Files are told by name, size and time, as everywhere; in doubt a stage is run again, which
costs little, as each one redoes only what it must.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.catalog import Catalog, below
from pipeline.chain import ORDER, Chain, Link
from pipeline.made_folders import MARK
from pipeline.media_names import kind_of
from pipeline.names import is_ignored_name
from pipeline.project import CONFIG_NAME, Project
from pipeline.settings import canonical_json, digest

Which = Literal["image", "video", "all", "all but multiply"]
OWN_OUTPUTS = ("out", "output")  # settings that name what a stage makes
AFTER: Mapping[str, tuple[str, ...]] = {  # whose facts a stage reads, which no file shows
    "identify": ("tag",),
    "caption": ("tag", "identify"),
    "arrange": ("tag", "identify"),
    "balance": ("identify",),
}
CHANGED_BY: Mapping[str, tuple[str, ...]] = {  # what a stage reads, and changes itself
    "dedupe": ("pictures",),
    "caption": ("captions",),
    "arrange": ("tree",),
    "balance": ("tree",),
    "flatten": ("tree", "kohya"),
    "check": ("tree",),
}
SAID = "what people said"
OWN_NOTES = ("arranged", "folders_seen", "duplicate_of")  # facts that stages keep for themselves
READ_FACTS = ("identify", "caption", "arrange", "balance", "report")


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a folder, as names, sizes and times."""

    files: int
    size_bytes: int
    digest: str


class Disk:
    """Listings of folders; each folder is walked once until `forget`."""

    def __init__(self) -> None:
        self._walked: dict[Path, list[tuple[str, int, int]]] = {}

    def forget(self) -> None:
        """Look anew the next time."""
        self._walked.clear()

    def names(self, folder: Path, which: Which) -> set[str]:
        """Paths of the files, relative to the folder."""
        self._walk(folder)
        return {name for name, _, _ in self._walked[folder] if _is_meant(name, which)}

    def _walk(self, folder: Path) -> None:
        if folder not in self._walked:
            self._walked[folder] = sorted(_walk(folder))

    def listing(self, folder: Path, which: Which = "all") -> Listing:
        """The files at and below a folder, without those that celforge put into folders of their own."""
        self._walk(folder)
        hashed = hashlib.sha256()
        files, size_bytes = 0, 0
        for name, size, mtime_ns in self._walked[folder]:
            if _is_meant(name, which):
                files, size_bytes = files + 1, size_bytes + size
                hashed.update(f"{name}\0{size}\0{mtime_ns}\n".encode("utf-8", "surrogateescape"))
        return Listing(files, size_bytes, hashed.hexdigest())


def _walk(folder: Path) -> list[tuple[str, int, int]]:
    found: list[tuple[str, int, int]] = []
    for where, folders, names in os.walk(folder):
        if where != str(folder) and MARK in names:
            folders.clear()
            continue
        folders[:] = [one for one in folders if not is_ignored_name(one)]
        for name in names:
            if is_ignored_name(name):
                continue
            path = os.path.join(where, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            found.append((os.path.relpath(path, folder), status.st_size, status.st_mtime_ns))
    return found


def _is_meant(name: str, which: Which) -> bool:
    if which in ("image", "video"):
        return kind_of(name) == which
    base = os.path.basename(name)
    return base != CONFIG_NAME and not (which == "all but multiply" and base == "multiply.txt")


@dataclass(slots=True)
class Record:
    """How a stage was last done.

    Args:
        serial: of the last time that it changed something; what follows compares it.
        is_open: begun, and not ended: stopped, failed or killed.
        inputs: what it read, each as a digest.
        after: serials of the stages whose facts it reads.
        outcome: digest of what it reported.
        result: numbers for people, `12 kept, 3 dropped`.
        seconds_each: of one item, as measured the last time that there was work.
        bytes_each: likewise, on the disk.
    """

    serial: int = 0
    is_open: bool = True
    version: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    run_id: int = 0
    exit_code: int = 0
    failed: int = 0
    outcome: str = ""
    result: str = ""
    made: list[str] = field(default_factory=list)  # relative to the project where they lie in it
    seconds_each: float | None = None
    bytes_each: float | None = None


def read_records(catalog: Catalog) -> dict[str, Record]:
    """Every record by the stage's name; empty for a catalogue that has none yet."""
    if not catalog.rows("SELECT 1 FROM sqlite_master WHERE name = 'chain'").fetchone():
        return {}
    rows = catalog.rows("SELECT stage, record FROM chain").fetchall()
    return {stage: Record(**json.loads(text)) for stage, text in rows}


def write_record(catalog: Catalog, name: str, record: Record) -> None:
    """Keep the record of a stage."""
    text = canonical_json(asdict(record))
    catalog.rows("INSERT OR REPLACE INTO chain (stage, record) VALUES (?, ?)", (name, text))


def inputs_of(link: Link, chain: Chain, disk: Disk, catalog: Catalog) -> dict[str, str]:
    """What a stage reads, by name of the place, each as a digest."""
    places: list[tuple[str, Path, Which]] = []
    command, sources, tree = link.command, chain.sources or link.folder, chain.tree
    if command == "extract":
        places = [("videos", link.folder, "video")]
    elif command == "ingest":
        return {}  # dedupe takes pictures away from it; what came is asked of the catalogue
    elif command in ("dedupe", "tag", "identify"):
        places = [("pictures", link.folder, "image")]
    elif command == "caption":
        places = [("pictures", link.folder, "image"), ("captions", link.folder, "all")]
    elif command == "arrange":
        places = [
            ("pictures", sources, "image"),
            ("captions", sources, "all"),
            ("tree", tree, "all but multiply"),
        ]
    elif command in ("balance", "check"):
        places = [("tree", tree, "all")]
    elif command == "flatten":
        places = [("tree", tree, "all"), ("kohya", chain.kohya, "all")]
    elif command == "train":
        data = link.folder.parent if link.folder.is_file() else link.folder
        places = [("data", data, "all"), ("tree", tree, "all")]
    elif command == "compare":
        places = [(one.name, one.made, "all") for one in chain.links if one.command == "train" and one.made]
    else:
        places = [("pictures", sources, "image"), ("tree", tree, "all")]
    found = {name: disk.listing(folder, which).digest for name, folder, which in places}
    found |= _files_named(link, chain.project.root, disk)
    if command in READ_FACTS:
        found[SAID] = _said(catalog)
    return found


def inputs_read(
    link: Link, before: Mapping[str, str], after: Mapping[str, str], *, grew: bool
) -> dict[str, str]:
    """What a stage that ran has read: as it was when it began, but for what it changes itself.

    So a file that came while it worked makes it stale.

    Args:
        grew: pictures came while it worked.
    """
    own = CHANGED_BY.get(link.command, ())
    read = {name: (after if name in own else before).get(name, "") for name in (*before, *after)}
    if grew and "pictures" in own:
        read["pictures"] = ""
    return read


def _files_named(link: Link, root: Path, disk: Disk) -> dict[str, str]:
    """Files and folders that settings name, such as a model: they may change while the setting stays."""
    found: dict[str, str] = {}
    for name, value in link.settings.items():
        texts = value if isinstance(value, list) else [value]
        for text in texts:
            if name in OWN_OUTPUTS or not isinstance(text, str) or not text or len(text) > 1000:
                continue
            path = root / text
            if path.is_file():
                status = path.stat()
                found[f"{name} {text}"] = f"{status.st_size} {status.st_mtime_ns}"
            elif path.is_dir() and not root.is_relative_to(path):
                found[f"{name} {text}"] = disk.listing(path).digest
    return found


def _said(catalog: Catalog) -> str:
    """A digest of the facts that do not come from a stage of the chain."""
    by_hand = """SELECT content, name, source, value FROM facts JOIN media ON media.id = media_id
                 WHERE by_hand ORDER BY content, name, source"""
    hashed = hashlib.sha256()
    for row in catalog.rows(by_hand):
        hashed.update(repr(row).encode())
    own = ", ".join(f"'{name}'" for name in ORDER)
    notes = ", ".join(f"'{name}'" for name in OWN_NOTES)
    others = f"""SELECT name, source, COUNT(*), SUM(LENGTH(value)) FROM facts
                 WHERE NOT by_hand AND source NOT IN ({own}) AND name NOT IN ({notes})
                 GROUP BY name, source ORDER BY name, source"""
    outside = f"SELECT MAX(id) FROM runs WHERE stage NOT IN ({own})"
    rest = [*catalog.rows(others).fetchall(), *catalog.rows(outside).fetchall()]
    hashed.update(repr(rest).encode())
    return hashed.hexdigest()


def not_taken_in(link: Link, project: Project, catalog: Catalog) -> int:
    """How many known pictures below its folder a stage has not ended for in any way."""
    condition, parameters = below(project.relative(link.folder))
    sql = f"""SELECT COUNT(DISTINCT media_id) FROM paths JOIN media ON media.id = media_id
              WHERE NOT is_gone AND kind = 'image' AND {condition} AND NOT EXISTS (
                  SELECT 1 FROM outcomes WHERE outcomes.media_id = paths.media_id AND stage = :stage)"""
    known = catalog.rows("SELECT 1 FROM sqlite_master WHERE name = 'outcomes'").fetchone()
    return int(catalog.rows(sql, {**parameters, "stage": link.command}).fetchone()[0]) if known else 0


def last_run(catalog: Catalog, command: str) -> int:
    """The number of the last run of a stage, by whomever; 0 when there was none."""
    found = catalog.rows("SELECT MAX(id) FROM runs WHERE stage = ?", (command,)).fetchone()[0]
    return int(found or 0)


def outcome_of(answer: Mapping[str, Any]) -> str:
    """A digest of what a stage reported, without what differs from time to time."""
    kept = ("exit_code", "counts", "failures", "steps")
    return digest(json.loads(json.dumps({name: answer.get(name) for name in kept}, default=str)))
