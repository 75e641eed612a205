"""Journals as files: what a run was going to do, and how far it came.

`.celforge/journals/000012-dedupe.jsonl` holds the whole plan: a header, one line for each step with all that
is needed to do it and to take it back, one for each change of the catalogue. It appears whole or not at all,
and is never changed. `000012-dedupe.log` beside it grows by one line for each step done or taken back.
"""

import base64
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import pipeline
from pipeline.content_steps import PlaceStep, WriteStep
from pipeline.errors import JournalError
from pipeline.files import disk_full_as_error, partial_path
from pipeline.folder_steps import MoveFilesStep, MoveFoldersStep, PlaceFolderStep, RelinkStep
from pipeline.renaming import rename_new, sync_folder
from pipeline.steps import Made, MakeFolderStep, MoveStep, RemoveFolderStep, RowStep, Step

VERSION = 1
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_ENCODE = _ENCODER.encode
TAIL_BYTES = 4096  # longer than any two lines of a log
STEP_TYPES: dict[str, type[Step]] = {
    kind.kind: kind
    for kind in (
        MoveStep,
        MoveFilesStep,
        MoveFoldersStep,
        PlaceStep,
        PlaceFolderStep,
        RelinkStep,
        WriteStep,
        MakeFolderStep,
        RemoveFolderStep,
    )
}
Status = Literal["open", "applied", "undoing", "undone"]


@dataclass(frozen=True, slots=True)
class Journal:
    """One run that changed files."""

    path: Path  # of the .jsonl
    number: int
    stage: str
    started: str  # local time, ISO 8601
    version: str  # of celforge
    num_steps: int
    num_rows: int
    status: Status
    notes: tuple[str, ...] = ()  # of an undo: what it left or kept

    @property
    def name(self) -> str:
        """`000012-dedupe`."""
        return self.path.stem

    @property
    def is_open(self) -> bool:
        """Whether a run, or its undo, was cut off."""
        return self.status in ("open", "undoing")

    @property
    def is_undone(self) -> bool:
        """Whether it was taken back."""
        return self.status == "undone"


def list_journals(state_folder: Path) -> list[Journal]:
    """All journals of a project, oldest first.

    Raises:
        JournalError: one is damaged, or from a newer celforge.
    """
    folder = state_folder / "journals"
    if not folder.is_dir():
        return []
    names = sorted(name for name in os.listdir(folder) if name.endswith(".jsonl") and name[0] != ".")
    return [_read_header(folder / name) for name in names]


def next_number(state_folder: Path) -> int:
    """A number that no journal, and no folder of dropped or kept files, has had."""
    numbers = [0]
    for folder in ("journals", "dropped", "undo"):
        path = state_folder / folder
        for name in os.listdir(path) if path.is_dir() else ():
            digits = name.removeprefix("undo-").partition("-")[0].partition(".")[0]
            numbers.append(int(digits) if digits.isascii() and digits.isdigit() else 0)
    return max(numbers) + 1


def write_journal(
    state_folder: Path, name: str, number: int, stage: str, steps: Sequence[Step], rows: Sequence[RowStep]
) -> Journal:
    """Put a plan on the disk, whole, before any of it is done.

    Raises:
        DiskFullError: no room; nothing was touched.
    """
    folder = state_folder / "journals"
    path = folder / f"{name}.jsonl"
    journal = Journal(path, number, stage, _now(), pipeline.__version__, len(steps), len(rows), "open")
    temporary = partial_path(path)
    with disk_full_as_error(folder, "writing the journal"):
        try:
            with temporary.open("x", encoding="ascii", newline="\n") as file:
                file.write(_line(_header(journal)))
                file.writelines(chain.from_iterable(map(_pieces, steps)))
                file.writelines(_line(_row_record(row)) for row in rows)
                file.flush()
                os.fsync(file.fileno())
            rename_new(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(folder)
    return journal


class Steps:
    """The steps and rows of a journal on the disk; each line is read when it is asked for.

    A journal holds all that is written, which for 100,000 captions is more than memory should.
    """

    def __init__(self, journal: Journal) -> None:
        self._path = journal.path
        self._num_steps = journal.num_steps
        self._starts = array("Q")  # where each line begins, in bytes
        with journal.path.open("rb") as file:
            start = len(file.readline())  # the header
            for line in file:
                if line.endswith(b"\n"):
                    self._starts.append(start)
                start += len(line)
        if len(self._starts) != journal.num_steps + journal.num_rows:
            raise _damaged(journal.path, f"has {len(self._starts)} of its lines")

    def __len__(self) -> int:
        return self._num_steps

    def __getitem__(self, index: int) -> Step:
        return self._step(index, next(self._records(index)))

    def __iter__(self) -> Iterator[Step]:
        records = islice(self._records(0), self._num_steps)
        return (self._step(index, record) for index, record in enumerate(records))

    def rows(self) -> list[RowStep]:
        """The changes of the catalogue."""
        return [
            RowStep(record["table"], tuple(record["key"]), record["before"], record["after"])
            for record in self._records(self._num_steps)
        ]

    def _step(self, index: int, record: dict[str, Any]) -> Step:
        try:
            return step_of(record)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(self._path, f"line {index + 2} is not understood") from error

    def _records(self, first: int) -> Iterator[dict[str, Any]]:
        """Every line from one on."""
        if first == len(self._starts):
            return
        with self._path.open("rb") as file:
            file.seek(self._starts[first])
            for index in range(first, len(self._starts)):
                try:
                    record: dict[str, Any] = json.loads(file.readline())
                except ValueError as error:
                    raise _damaged(self._path, f"line {index + 2} is not JSON") from error
                yield record


class Log:
    """How far a journal came: one line a step, appended; a line cut off by a kill is forgotten."""

    def __init__(self, journal: Journal) -> None:
        self.done: dict[int, Made] = {}
        self.undone: set[int] = set()
        self.marks: dict[str, Any] = {}  # catalog, end, undoing, catalog_undone, undone_all
        self._path = journal.path.with_suffix(".log")
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(self._path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
        self._read()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line, seen by the system at once; `sync` puts it on the disk."""
        self._take(entry)
        data = _line(entry).encode("ascii")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            with disk_full_as_error(self._path.parent, "noting what is done"):
                raise

    def sync(self) -> None:
        """Wait until all lines, and on common file systems all renames before them, are on the disk."""
        with disk_full_as_error(self._path.parent, "noting what is done"):
            os.fsync(self._descriptor)

    def mark(self, name: str, **more: Any) -> None:
        """Add a line for a turn of events, with the time, on the disk when this returns."""
        self.append({name: _now(), **more})
        self.sync()

    def _take(self, entry: dict[str, Any]) -> None:
        if "done" in entry:
            self.done[entry["done"]] = {key: value for key, value in entry.items() if key != "done"}
        elif "undone" in entry:
            self.undone.add(entry["undone"])
        else:
            self.marks |= entry

    def _read(self) -> None:
        good = 0
        with self._path.open("rb") as file:
            for line in file:
                entry = _parsed(line)
                if entry is None:
                    break
                self._take(entry)
                good += len(line)
        if good < os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, good)


def step_record(step: Step) -> dict[str, Any]:
    """A step as JSON values."""
    record = {"do": step.kind} | {field.name: getattr(step, field.name) for field in fields(step)}  # type: ignore[arg-type]
    if isinstance(step, WriteStep):
        try:
            record["data"] = {"text": step.data.decode("utf-8")}
        except UnicodeDecodeError:
            record["data"] = {"base64": base64.b64encode(step.data).decode("ascii")}
    return record


def step_of(record: dict[str, Any]) -> Step:
    """The step that a record describes. KeyError, TypeError or ValueError: it describes none."""
    kind = STEP_TYPES[record["do"]]
    values = {key: value for key, value in record.items() if key != "do"}
    if kind is WriteStep:
        data = values["data"]
        values["data"] = data["text"].encode() if "text" in data else base64.b64decode(data["base64"])
    return kind(**values)


def _pieces(step: Step) -> Iterable[str]:
    """The line of a step, in pieces where it is long: a text of megabytes is not copied once more."""
    if isinstance(step, WriteStep):
        return chain(_ENCODER.iterencode(step_record(step)), "\n")
    return (_line(step_record(step)),)


def _row_record(row: RowStep) -> dict[str, Any]:
    return {"do": row.kind, "table": row.table, "key": row.key, "before": row.before, "after": row.after}


def _header(journal: Journal) -> dict[str, Any]:
    return {
        "celforge_journal": VERSION,
        "number": journal.number,
        "stage": journal.stage,
        "celforge": journal.version,
        "started": journal.started,
        "steps": journal.num_steps,
        "rows": journal.num_rows,
    }


def _read_header(path: Path) -> Journal:
    with path.open("rb") as file:
        header = _parsed(file.readline())
    if header is None or "celforge_journal" not in header:
        raise _damaged(path, "its first line is not understood")
    if header["celforge_journal"] != VERSION:
        raise JournalError(
            f"{path} was made by celforge {header.get('celforge')}, which this version does not understand",
            hint="use that version, or a newer one",
        )
    return Journal(
        path,
        header["number"],
        header["stage"],
        header["started"],
        header["celforge"],
        header["steps"],
        header["rows"],
        _status(path.with_suffix(".log")),
    )


def _status(log_path: Path) -> Status:
    """The status that the last whole line of a log tells."""
    try:
        with log_path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return "open"
    for line in reversed(lines):
        entry = _parsed(line + b"\n")
        if entry is not None:
            if "undone_all" in entry:
                return "undone"
            if not entry.keys().isdisjoint({"undoing", "undone", "catalog_undone"}):
                return "undoing"
            return "applied" if "end" in entry else "open"
    return "open"


def _parsed(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _line(record: dict[str, Any]) -> str:
    return _ENCODE(record) + "\n"


def _now() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


def _damaged(path: Path, why: str) -> JournalError:
    return JournalError(
        f"the journal {path} is damaged: {why}",
        hint=f"move {path.name} and its .log away to go on; that run can then not be taken back",
    )
