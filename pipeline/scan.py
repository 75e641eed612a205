"""What lies in a folder, compared with what the catalogue saw there last: only files with another size or
mtime are hashed again.

Folders are walked one at a time, so memory does not grow with their number. Symlinks to files are read,
symlinks to folders are not followed. Hidden names and the litter of file managers are passed over
(pipeline/names.py: is_ignored_name), and so are folders that celforge itself filled (made_folders.py).
"""

import hashlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.catalog import Catalog, MediaFile, below, join, split
from pipeline.made_folders import MARK, MadeFolders
from pipeline.media_names import Kind, kind_of
from pipeline.names import is_ignored_name, is_utf8, natural_key
from pipeline.project import Project

HASH_BLOCK_BYTES = 1 << 20
COMMIT_EVERY_S = 0.1

# A file written again within one tick of its file system's clock keeps its mtime: such a young file is not
# trusted.
COARSE_TICK_NS = 2_000_000_000  # FAT, and some network disks
FINE_TICK_NS = 20_000_000
UNTRUSTED_MTIME = -1


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture or video found on disk."""

    name: str
    kind: Kind
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A file or folder that could not be looked at."""

    path: Path
    reason: str


@dataclass(slots=True)
class FolderDifference:
    """One folder on disk against the catalogue."""

    folder: str  # relative to the root, "" for the root itself
    unchanged: int = 0
    changed: list[Entry] = field(default_factory=list)  # known path, other size or mtime
    unsettled: list[Entry] = field(default_factory=list)  # known path, hashed too soon after it was written
    new: list[Entry] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)  # names
    back: list[str] = field(default_factory=list)  # names marked gone that lie there again, unchanged


@dataclass(slots=True)
class Survey:
    """Counts over a whole folder, without writing anything."""

    unchanged: int = 0
    changed: int = 0
    new: int = 0
    gone: int = 0
    problems: list[Problem] = field(default_factory=list)
    made: list[str] = field(default_factory=list)  # folders filled by celforge, which were passed over


def differences(
    catalog: Catalog,
    project: Project,
    folder: Path,
    kinds: Collection[Kind],
    problems: list[Problem],
    made: list[str],
) -> Iterator[FolderDifference]:
    """Compare every folder at and below `folder` with the catalogue, one at a time, in natural order.

    Args:
        kinds: which media are looked at; the others are neither new nor gone.
        problems: receives what could not be read.
        made: receives the folders, relative to the root, that celforge filled and that are passed over.
    """
    top = project.relative(folder) if folder != project.root else ""
    seen: set[str] = set()
    unread: list[str] = []
    for relative, entries in _walk(project.root, top, kinds, problems, unread, made):
        seen.add(relative)
        yield _difference(catalog, relative, entries, kinds)
    condition, parameters = below(top)
    sql = f"SELECT DISTINCT folder FROM paths WHERE NOT is_gone AND {condition}"
    for (known,) in catalog.rows(sql, parameters).fetchall():
        is_hidden = any(known == one or known.startswith(f"{one}/") for one in (*unread, *made))
        if known not in seen and not is_hidden:
            yield _difference(catalog, known, [], kinds)


def _walk(
    root: Path,
    top: str,
    kinds: Collection[Kind],
    problems: list[Problem],
    unread: list[str],
    made: list[str],
) -> Iterator[tuple[str, list[Entry]]]:
    waiting = [top]
    while waiting:
        relative = waiting.pop()
        entries: list[Entry] = []
        folders: list[str] = []
        try:
            with os.scandir(root / relative) as found:
                for one in found:
                    _sort_entry(one, relative, kinds, entries, folders, problems)
        except OSError as error:
            problems.append(Problem(root / relative, f"folder cannot be read: {error.strerror}"))
            unread.append(relative)
            continue
        if relative != top and (root / relative / MARK).is_file():
            made.append(relative)
            continue
        yield relative, entries
        waiting.extend(sorted(folders, key=natural_key, reverse=True))


def _sort_entry(
    one: "os.DirEntry[str]",
    relative: str,
    kinds: Collection[Kind],
    entries: list[Entry],
    folders: list[str],
    problems: list[Problem],
) -> None:
    if is_ignored_name(one.name):
        return
    try:
        if one.is_dir(follow_symlinks=False):
            if _is_text(one, problems):
                folders.append(join(relative, one.name))
            return
        kind = kind_of(one.name)
        if kind not in kinds or kind is None or one.is_dir() or not _is_text(one, problems):
            return
        # Windows keeps in a folder what a file was when it was last opened by that name, not by another link
        found = os.stat(one.path) if sys.platform == "win32" else one.stat()
        entries.append(Entry(one.name, kind, found.st_size, found.st_mtime_ns))
    except OSError as error:
        problems.append(Problem(Path(one.path), f"cannot be read: {error.strerror}"))


def _is_text(one: "os.DirEntry[str]", problems: list[Problem]) -> bool:
    if not is_utf8(one.name):
        problems.append(Problem(Path(one.path), "its name is not valid UTF-8; rename it"))
        return False
    return True


def _difference(
    catalog: Catalog, folder: str, entries: list[Entry], kinds: Collection[Kind]
) -> FolderDifference:
    sql = "SELECT name, size_bytes, mtime_ns, is_gone FROM paths WHERE folder = ?"
    known = {name: rest for name, *rest in catalog.rows(sql, (folder,)) if kind_of(name) in kinds}
    result = FolderDifference(folder)
    for entry in entries:
        row = known.pop(entry.name, None)
        if row is None:
            result.new.append(entry)
        elif row == [entry.size_bytes, UNTRUSTED_MTIME, 0]:
            result.unsettled.append(entry)
        elif row[:2] != [entry.size_bytes, entry.mtime_ns]:
            (result.new if row[2] else result.changed).append(entry)
        elif row[2]:
            result.back.append(entry.name)
        else:
            result.unchanged += 1
    result.gone = [name for name, row in known.items() if not row[2]]
    return result


def survey(catalog: Catalog, project: Project, folder: Path, kinds: Collection[Kind]) -> Survey:
    """Count what is unchanged, changed, new and gone, reading no file and writing nothing."""
    total = Survey()
    for one in differences(catalog, project, folder, kinds, total.problems, total.made):
        total.unchanged += one.unchanged + len(one.unsettled) + len(one.back)
        total.changed += len(one.changed)
        total.new += len(one.new)
        total.gone += len(one.gone)
    return total


def index_folder(
    catalog: Catalog,
    project: Project,
    folder: Path,
    kinds: Collection[Kind],
    *,
    workers: int = 1,
    on_hashed: Callable[[], None] = lambda: None,
    check_stop: Callable[[], None] = lambda: None,
) -> list[Problem]:
    """Bring the catalogue's paths up to date with a folder; hash new and changed files.

    Args:
        workers: threads that read files.
        on_hashed: called after each file hashed, for a progress bar.
        check_stop: called between files; raises to stop. What was hashed until then is kept.

    Returns: files and folders that could not be read.
    """
    problems: list[Problem] = []
    writer = _IndexWriter(catalog, project.root, problems)
    with ThreadPoolExecutor(workers) as pool:
        try:
            for one in differences(catalog, project, folder, kinds, problems, made=[]):
                writer.mark(one)
                for entry in (*one.changed, *one.unsettled, *one.new):
                    relative = join(one.folder, entry.name)
                    writer.waiting.append(
                        (relative, entry, pool.submit(_hash_steadily, project.root / relative))
                    )
                    while len(writer.waiting) > 4 * workers:
                        check_stop()
                        writer.take_one()
                        on_hashed()
            while writer.waiting:
                check_stop()
                writer.take_one()
                on_hashed()
        finally:
            for _, _, future in writer.waiting:
                future.cancel()
            writer.flush()
    return problems


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes, hex.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class _Hashed:
    content: str
    size_bytes: int
    mtime_ns: int  # UNTRUSTED_MTIME when the file may change again without a new mtime


def _hash_steadily(path: Path) -> _Hashed:
    """Hash a file, again if it changed meanwhile."""
    for _ in range(3):
        before = path.stat()
        started_ns = time.time_ns()
        content = hash_file(path)
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
            break
    return _Hashed(content, after.st_size, _trusted_mtime(after.st_mtime_ns, started_ns))


def _trusted_mtime(mtime_ns: int, read_ns: int) -> int:
    """The mtime of a file that was read at a time, or UNTRUSTED_MTIME where it was too young then."""
    tick_ns = COARSE_TICK_NS if mtime_ns % 1_000_000_000 == 0 else FINE_TICK_NS
    return mtime_ns if mtime_ns < read_ns - tick_ns else UNTRUSTED_MTIME


class _IndexWriter:
    """Writes paths in small transactions: a kill loses at most COMMIT_EVERY_S of hashing."""

    def __init__(self, catalog: Catalog, root: Path, problems: list[Problem]) -> None:
        self.waiting: deque[tuple[str, Entry, Future[_Hashed]]] = deque()
        self._catalog = catalog
        self._root = root
        self._problems = problems
        self._rows: list[tuple[str, Entry, _Hashed]] = []
        self._flushed_at = time.monotonic()

    def mark(self, one: FolderDifference) -> None:
        """Note which known files are gone, and which are back."""
        for is_gone, names in ((1, one.gone), (0, one.back)):
            if names:
                sql = "UPDATE paths SET is_gone = ? WHERE folder = ? AND name = ?"
                self._catalog.execute_many(sql, [(is_gone, one.folder, name) for name in names])

    def take_one(self) -> None:
        """Wait for the oldest hash, and keep it."""
        relative, entry, future = self.waiting.popleft()
        try:
            self._rows.append((relative, entry, future.result()))
        except OSError as error:
            self._problems.append(Problem(self._root / relative, f"cannot be read: {error.strerror}"))
        if time.monotonic() - self._flushed_at > COMMIT_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write what is known so far."""
        with self._catalog.transaction():
            for relative, entry, hashed in self._rows:
                media_id = self._catalog.add_media(hashed.content, entry.kind, hashed.size_bytes)
                note_path(self._catalog, relative, media_id, hashed.size_bytes, hashed.mtime_ns)
        self._rows.clear()
        self._flushed_at = time.monotonic()


def note_made(catalog: Catalog, project: Project, contents: Mapping[str, str]) -> None:
    """Note files that we wrote ourselves and whose content is known: they need not be read again.

    Args:
        contents: sha256 in hex by path relative to the root; those that are not there are passed over.
    """
    now_ns = time.time_ns()
    with catalog.transaction():
        for relative, content in contents.items():
            media_id = catalog.media_id(content)
            try:
                found = (project.root / relative).stat()
            except OSError:
                continue
            if media_id is not None:
                note_path(
                    catalog, relative, media_id, found.st_size, _trusted_mtime(found.st_mtime_ns, now_ns)
                )


def note_path(catalog: Catalog, relative: str, media_id: int, size_bytes: int, mtime_ns: int) -> None:
    """Note that a content lies at a path now; where it lay before and is gone from is forgotten."""
    catalog.rows("DELETE FROM paths WHERE media_id = ? AND is_gone", (media_id,))
    sql = "INSERT OR REPLACE INTO paths VALUES (?, ?, ?, ?, ?, 0)"
    catalog.rows(sql, (*split(relative), media_id, size_bytes, mtime_ns))


def media_files(catalog: Catalog, project: Project, folder: Path, kinds: Iterable[Kind]) -> list[MediaFile]:
    """Every known file that lies at or below a folder, in natural order of its path; those in folders that
    celforge filled only when the folder lies in one.
    """
    top = project.relative(folder) if folder != project.root else ""
    condition, parameters = below(top)
    wanted = ", ".join(f"'{kind}'" for kind in kinds)
    sql = f"""SELECT media.id, content, folder, name, paths.size_bytes
              FROM paths JOIN media ON media.id = media_id
              WHERE NOT is_gone AND kind IN ({wanted}) AND {condition}"""
    made = MadeFolders(project.root, top)
    rows = (row for row in catalog.rows(sql, parameters) if not made.holds(row[2]))
    files = [MediaFile(row[0], row[1], project.root, join(row[2], row[3]), row[4]) for row in rows]
    files.sort(key=lambda file: natural_key(file.relative))
    return files
