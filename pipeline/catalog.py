"""The catalogue: one SQLite file a project, keyed by the content of files (sha256), never by their path.
Tables: `media` (contents), `paths` (where a content was last seen), `results` (cached work of a step),
`outcomes` (how a stage ended), `facts` (what is known), `written` (our texts, to recognise edits by hand),
`runs` (who did it, when, with which settings), `chain` (the stages of `celforge run`). Times: `runs` alone.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import CatalogError
from pipeline.files import disk_full_as_error
from pipeline.media_names import Kind
from pipeline.settings import Json, canonical_json

Outcome = Literal["kept", "dropped", "failed"]

APPLICATION_ID = 0x63656C66  # "celf"
BUSY_TIMEOUT_MS = 30_000

# One script a schema version: a catalogue of version n is brought up to date by the scripts after the n-th.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY, stage TEXT NOT NULL, folder TEXT NOT NULL, settings TEXT NOT NULL,
        version TEXT NOT NULL, started_at TEXT NOT NULL, ended_at TEXT, exit_code INTEGER
    );
    CREATE TABLE media (
        id INTEGER PRIMARY KEY, content TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, size_bytes INTEGER NOT NULL
    );
    CREATE TABLE paths (
        folder TEXT NOT NULL, name TEXT NOT NULL, media_id INTEGER NOT NULL REFERENCES media (id),
        size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, is_gone INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (folder, name)
    ) WITHOUT ROWID;
    CREATE INDEX paths_by_media ON paths (media_id);
    CREATE TABLE steps (id INTEGER PRIMARY KEY, step TEXT NOT NULL, key TEXT NOT NULL, UNIQUE (step, key));
    CREATE TABLE results (
        step_id INTEGER NOT NULL REFERENCES steps (id), media_id INTEGER NOT NULL REFERENCES media (id),
        value BLOB NOT NULL, run_id INTEGER NOT NULL REFERENCES runs (id), PRIMARY KEY (step_id, media_id)
    );
    CREATE TABLE outcomes (
        media_id INTEGER NOT NULL REFERENCES media (id), stage TEXT NOT NULL, outcome TEXT NOT NULL,
        reason TEXT NOT NULL, detail TEXT NOT NULL, run_id INTEGER REFERENCES runs (id),
        PRIMARY KEY (media_id, stage)
    ) WITHOUT ROWID;
    CREATE TABLE facts (
        media_id INTEGER NOT NULL REFERENCES media (id), name TEXT NOT NULL, source TEXT NOT NULL,
        value TEXT NOT NULL, by_hand INTEGER NOT NULL, run_id INTEGER REFERENCES runs (id),
        PRIMARY KEY (media_id, name, source)
    ) WITHOUT ROWID;
    CREATE TABLE written (
        subject TEXT NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (subject, sha256)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE chain (stage TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
    """,
)


@dataclass(frozen=True, slots=True)
class MediaFile:
    """One picture or video on disk that the catalogue knows; two files of the same bytes share `id` and
    `content`.
    """

    id: int
    content: str  # sha256 of the file's bytes, hex
    root: Path
    relative: str  # to the project root, forward slashes
    size_bytes: int

    @property
    def path(self) -> Path:
        """Absolute path."""
        return self.root / self.relative


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing known about a content, and who says so."""

    name: str
    value: Any  # JSON
    source: str  # a stage, a tagger, an importer, "hand"
    by_hand: bool
    run_id: int | None


class Catalog:
    """The open catalogue: used by one thread, while other processes may read and write it too (WAL)."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> "Catalog":
        """Open the catalogue at `path`, made or brought up to date when needed.

        Args:
            read_only: never writes; a catalogue that is not there, or of an older schema, is read as it is or
                empty.

        Raises:
            CatalogError: not a catalogue of ours, damaged, or made by a newer celforge.
        """
        with _errors_named(path):
            if read_only and not path.exists():
                connection = sqlite3.connect(":memory:", isolation_level=None)
                read_only = False
            elif read_only:
                connection = _connect_read_only(path)
            else:
                connection = sqlite3.connect(path, isolation_level=None)
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            connection.execute("PRAGMA foreign_keys = ON")
            catalog = cls(connection, path)
            catalog._check_version(read_only=read_only)
        return catalog

    def _check_version(self, *, read_only: bool) -> None:
        version = self._value("PRAGMA user_version")
        application = self._value("PRAGMA application_id")
        if application not in (0, APPLICATION_ID):
            raise CatalogError(
                f"{self.path} was not made by celforge", hint="move it away, or work in another folder"
            )
        if version > len(MIGRATIONS):
            raise CatalogError(
                f"{self.path} has schema {version}, and this celforge knows up to {len(MIGRATIONS)}",
                hint="install the newer celforge that made it: pip install --upgrade celforge",
            )
        if read_only:
            return
        self._connection.execute("PRAGMA journal_mode = WAL")
        # kill -9 loses nothing that is committed, a power cut the last instants
        self._connection.execute("PRAGMA synchronous = NORMAL")
        if version == len(MIGRATIONS):
            return
        with self.transaction():
            version = self._value("PRAGMA user_version")  # another process may have been faster
            for script in MIGRATIONS[version:]:
                for statement in filter(str.strip, script.split(";")):
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def close(self) -> None:
        """Close the file; the WAL is folded in."""
        self._connection.close()

    def __enter__(self) -> "Catalog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nested ones join the outermost.

        Raises:
            DiskFullError: no room; everything before this transaction is whole.
        """
        if self._connection.in_transaction:
            yield
            return
        with _errors_named(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> sqlite3.Cursor:
        """Run one statement and give its rows, read as they are asked for."""
        try:
            return self._connection.execute(sql, parameters)
        except sqlite3.Error:
            with _errors_named(self.path):
                raise

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one writing statement for each row, all or nothing."""
        with self.transaction(), _errors_named(self.path):
            self._connection.executemany(sql, rows)

    def _value(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        row = self.rows(sql, parameters).fetchone()
        return None if row is None else row[0]

    # Runs

    def start_run(self, stage: str, folder: str, settings: Json, version: str) -> int:
        """Note that a stage began; returns the number that its results carry."""
        sql = "INSERT INTO runs (stage, folder, settings, version, started_at) VALUES (?, ?, ?, ?, ?)"
        cursor = self.rows(sql, (stage, folder, canonical_json(settings), version, _now()))
        return int(cursor.lastrowid or 0)

    def end_run(self, run_id: int, exit_code: int) -> None:
        """Note how a run ended; a killed one keeps an empty end."""
        self.rows("UPDATE runs SET ended_at = ?, exit_code = ? WHERE id = ?", (_now(), exit_code, run_id))

    # Contents

    def add_media(self, content: str, kind: Kind, size_bytes: int) -> int:
        """The id of a content, new or known."""
        found = self._value("SELECT id FROM media WHERE content = ?", (content,))
        if found is not None:
            return int(found)
        sql = "INSERT INTO media (content, kind, size_bytes) VALUES (?, ?, ?)"
        return int(self.rows(sql, (content, kind, size_bytes)).lastrowid or 0)

    def media_id(self, content: str) -> int | None:
        """The id of a content, or None when it was never seen."""
        found = self._value("SELECT id FROM media WHERE content = ?", (content,))
        return None if found is None else int(found)

    def present_paths(self, media_id: int) -> list[str]:
        """Where a content lies now, relative to the root, sorted."""
        sql = "SELECT folder, name FROM paths WHERE media_id = ? AND NOT is_gone ORDER BY folder, name"
        return [join(folder, name) for folder, name in self.rows(sql, (media_id,))]

    # Cached results of a step

    def step_id(self, step: str, key: Json, *, create: bool = True) -> int | None:
        """The number of a step under one combination of settings.

        Args:
            step: name, such as `dedupe.hash`.
            key: everything that may change the result: settings, version of the code, sha256 of a model.
            create: note the combination when it is new; else None is returned for it.
        """
        text = canonical_json(key)
        found = self._value("SELECT id FROM steps WHERE step = ? AND key = ?", (step, text))
        if found is None and create:
            self.rows("INSERT OR IGNORE INTO steps (step, key) VALUES (?, ?)", (step, text))
            found = self._value("SELECT id FROM steps WHERE step = ? AND key = ?", (step, text))
        return None if found is None else int(found)

    def add_result(self, step_id: int, media_id: int, value: Json | bytes, run_id: int) -> None:
        """Keep the result of a step for a content: bytes as they are, everything else as JSON."""
        stored = value if isinstance(value, bytes) else canonical_json(value)
        sql = "INSERT OR REPLACE INTO results (step_id, media_id, value, run_id) VALUES (?, ?, ?, ?)"
        self.rows(sql, (step_id, media_id, stored, run_id))

    def known_results(self, step_id: int) -> set[int]:
        """Ids of the contents for which this step is done."""
        return {row[0] for row in self.rows("SELECT media_id FROM results WHERE step_id = ?", (step_id,))}

    def count_superseded(self, step_id: int, media_ids: Sequence[int]) -> int:
        """How many of some contents have a result of the same step, but under other settings only."""
        sql = """SELECT COUNT(DISTINCT media_id) FROM results
                 WHERE step_id IN (SELECT other.id FROM steps AS other JOIN steps AS this USING (step)
                                   WHERE this.id = :step_id AND other.id != this.id)
                 AND media_id IN (SELECT value FROM json_each(:media_ids))"""
        return int(self._value(sql, {"step_id": step_id, "media_ids": json.dumps(list(media_ids))}))

    def results(self, step_id: int, media_ids: Sequence[int]) -> dict[int, Any]:
        """Stored results by content id, for the ids that have one."""
        sql = """SELECT media_id, value FROM results
                 WHERE step_id = ? AND media_id IN (SELECT value FROM json_each(?))"""
        rows = self.rows(sql, (step_id, json.dumps(list(media_ids))))
        return {row[0]: row[1] if isinstance(row[1], bytes) else json.loads(row[1]) for row in rows}

    # Outcomes: how a stage ended for a content

    def set_outcome(
        self,
        media_id: int,
        stage: str,
        outcome: Outcome,
        reason: str = "",
        detail: str = "",
        run_id: int | None = None,
    ) -> None:
        """Every image ends kept, dropped or failed, with a reason; the newest word of a stage counts."""
        sql = "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?)"
        self.rows(sql, (media_id, stage, outcome, reason, detail, run_id))

    def clear_outcome(self, media_id: int, stage: str) -> None:
        """Forget how a stage ended for a content."""
        self.rows("DELETE FROM outcomes WHERE media_id = ? AND stage = ?", (media_id, stage))

    # Facts

    def set_fact(
        self,
        media_id: int,
        name: str,
        value: Json,
        source: str,
        *,
        by_hand: bool = False,
        run_id: int | None = None,
    ) -> None:
        """Note what `source` says; what others say of the same name stays beside it."""
        sql = "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?)"
        self.rows(sql, (media_id, name, source, canonical_json(value), int(by_hand), run_id))

    def clear_fact(self, media_id: int, name: str, source: str) -> None:
        """Forget what `source` says."""
        sql = "DELETE FROM facts WHERE media_id = ? AND name = ? AND source = ?"
        self.rows(sql, (media_id, name, source))

    def facts(self, media_id: int, name: str) -> list[Fact]:
        """Everything said under one name, the word that counts first: a person's, then the newest
        machine's.
        """
        sql = """SELECT name, value, source, by_hand, run_id FROM facts WHERE media_id = ? AND name = ?
                 ORDER BY by_hand DESC, run_id DESC, source"""
        rows = self.rows(sql, (media_id, name))
        return [Fact(row[0], json.loads(row[1]), row[2], bool(row[3]), row[4]) for row in rows]

    def fact(self, media_id: int, name: str) -> Any:
        """The value that counts under one name, or None."""
        found = self.facts(media_id, name)
        return found[0].value if found else None

    # Texts that we wrote

    def note_written(self, subject: str, sha256: str) -> None:
        """Remember that we wrote this text for a subject (a content, or a relative path)."""
        self.rows("INSERT OR IGNORE INTO written VALUES (?, ?)", (subject, sha256))

    def is_ours(self, subject: str, sha256: str) -> bool:
        """Whether a text found on disk is one that we wrote, not one edited by hand."""
        sql = "SELECT 1 FROM written WHERE subject = ? AND sha256 = ?"
        return self._value(sql, (subject, sha256)) is not None

    # What a plan changes, as rows that a journal can keep (pipeline/plan.py: CatalogWriter)

    def read_outcome(self, content: str, stage: str) -> dict[str, Any] | None:
        """The outcome of a stage for a content as plain values."""
        sql = """SELECT outcome, reason, detail, run_id FROM outcomes JOIN media ON media.id = media_id
                 WHERE content = ? AND stage = ?"""
        return _as_dict(self.rows(sql, (content, stage)), ("outcome", "reason", "detail", "run_id"))

    def write_outcome(self, content: str, stage: str, row: Mapping[str, Any] | None) -> None:
        """Put back, or clear with None, what `read_outcome` gave.

        Raises:
            CatalogError: the content is not in the catalogue.
        """
        media_id = self._known(content)
        if row is None:
            return self.clear_outcome(media_id, stage)
        self.set_outcome(media_id, stage, row["outcome"], row["reason"], row["detail"], row.get("run_id"))

    def read_fact(self, content: str, name: str, source: str) -> dict[str, Any] | None:
        """A fact as plain values."""
        sql = """SELECT value, by_hand, run_id FROM facts JOIN media ON media.id = media_id
                 WHERE content = ? AND name = ? AND source = ?"""
        row = _as_dict(self.rows(sql, (content, name, source)), ("value", "by_hand", "run_id"))
        return row and {**row, "value": json.loads(row["value"]), "by_hand": bool(row["by_hand"])}

    def write_fact(self, content: str, name: str, source: str, row: Mapping[str, Any] | None) -> None:
        """Put back, or clear with None, what `read_fact` gave.

        Raises:
            CatalogError: the content is not in the catalogue.
        """
        media_id = self._known(content)
        if row is None:
            return self.clear_fact(media_id, name, source)
        self.set_fact(media_id, name, row["value"], source, by_hand=row["by_hand"], run_id=row.get("run_id"))

    def _known(self, content: str) -> int:
        media_id = self.media_id(content)
        if media_id is None:
            raise CatalogError(f"the catalogue has no content {content}", hint="run: celforge ingest FOLDER")
        return media_id


def _connect_read_only(path: Path) -> sqlite3.Connection:
    for query in ("mode=ro", "immutable=1"):  # WAL needs a file beside it, which a read-only disk cannot have
        connection = sqlite3.connect(f"{path.as_uri()}?{query}", uri=True, isolation_level=None)
        try:
            connection.execute("SELECT COUNT(*) FROM sqlite_master")
        except sqlite3.OperationalError:
            connection.close()
            if query == "immutable=1":
                raise
        else:
            break
    return connection


def join(folder: str, name: str) -> str:
    """A relative path from its folder ("" is the root) and its name."""
    return f"{folder}/{name}" if folder else name


def split(relative: str) -> tuple[str, str]:
    """Folder ("" is the root) and name of a relative path."""
    folder, _, name = relative.rpartition("/")
    return folder, name


def below(folder: str) -> tuple[str, dict[str, str]]:
    """An SQL condition for paths in `folder` and deeper, with its parameters; "" means everything."""
    if folder in ("", "."):
        return "1", {}
    # "0" is the character after "/": a range, so that the primary key serves and no wildcard needs escaping
    return "(folder = :folder OR (folder >= :low AND folder < :high))", {
        "folder": folder,
        "low": f"{folder}/",
        "high": f"{folder}0",
    }


def _as_dict(cursor: sqlite3.Cursor, names: Sequence[str]) -> dict[str, Any] | None:
    row = cursor.fetchone()
    return None if row is None else dict(zip(names, row, strict=True))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        with disk_full_as_error(path.parent, "writing the catalogue"):
            yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text:
            hint = "wait for the other celforge process and run the same command again"
            raise CatalogError(
                f"{path} is busy for more than {BUSY_TIMEOUT_MS // 1000} s", hint=hint
            ) from error
        raise CatalogError(
            f"{path} cannot be used: {error}", hint="see that its folder exists and may be written"
        ) from error
    except sqlite3.DatabaseError as error:
        if isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):
            raise
        hint = "move it away; pictures and captions are untouched, and the next run makes a new one"
        raise CatalogError(f"{path} is damaged: {error}", hint=hint) from error
