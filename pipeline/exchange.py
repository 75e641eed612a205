"""The catalogue as JSON lines, out and in: a backup, a merge of two machines, or a way for other programs to
read it.

One object a line. The first is `{"celforge_catalog": 1}`; then `{"run": ...}`, `{"media": ...}` (a content
with its paths, outcomes and facts) and `{"result": ...}` (cached work of a step), each kind sorted, so that
equal catalogues give equal bytes.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.catalog import Catalog, join, split
from pipeline.errors import InputError
from pipeline.settings import Json, canonical_json

FORMAT = 1
RUN_COLUMNS = ("stage", "folder", "settings", "version", "started_at", "ended_at", "exit_code")


@dataclass(slots=True)
class Imported:
    """How much an import brought."""

    contents: int = 0
    facts: int = 0
    outcomes: int = 0
    results: int = 0
    kept_by_hand: int = 0  # facts of the file that gave way to a person's word here


def export_lines(catalog: Catalog, *, with_history: bool = True, with_results: bool = True) -> Iterator[str]:
    """The catalogue as lines of JSON, without line ends.

    Args:
        with_history: include the runs, with their times and settings, and which run each thing came from.
        with_results: include cached work (hashes, probabilities), which may be large.
    """
    yield canonical_json({"celforge_catalog": FORMAT})
    if with_history:
        for run_id, *rest in catalog.rows(f"SELECT id, {', '.join(RUN_COLUMNS)} FROM runs ORDER BY id"):
            yield canonical_json({"run": {"id": run_id, **dict(zip(RUN_COLUMNS, rest, strict=True))}})
    for media in catalog.rows("SELECT id, content, kind, size_bytes FROM media ORDER BY content").fetchall():
        yield canonical_json({"media": _media(catalog, *media, with_history=with_history)})
    if with_results:
        yield from _results(catalog, with_history=with_history)


def _media(
    catalog: Catalog, media_id: int, content: str, kind: str, size_bytes: int, *, with_history: bool
) -> Json:
    paths = catalog.rows(
        "SELECT folder, name, is_gone FROM paths WHERE media_id = ? ORDER BY 1, 2", (media_id,)
    )
    sql = "SELECT stage, outcome, reason, detail, run_id FROM outcomes WHERE media_id = ? ORDER BY stage"
    outcomes = [
        _named(("stage", "outcome", "reason", "detail", "run"), row) for row in catalog.rows(sql, (media_id,))
    ]
    sql = "SELECT name, source, value, by_hand, run_id FROM facts WHERE media_id = ? ORDER BY name, source"
    facts = [
        _named(
            ("name", "source", "value", "by_hand", "run"),
            (name, source, json.loads(value), bool(by_hand), run),
        )
        for name, source, value, by_hand, run in catalog.rows(sql, (media_id,))
    ]
    if not with_history:
        for row in (*outcomes, *facts):
            del row["run"]
    written = [
        row[0] for row in catalog.rows("SELECT sha256 FROM written WHERE subject = ? ORDER BY 1", (content,))
    ]
    return {
        "content": content,
        "kind": kind,
        "size_bytes": size_bytes,
        "paths": [{"path": join(folder, name), "is_gone": bool(is_gone)} for folder, name, is_gone in paths],
        "outcomes": outcomes,
        "facts": facts,
        "written": written,
    }


def _named(names: Iterable[str], values: Iterable[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


def _results(catalog: Catalog, *, with_history: bool) -> Iterator[str]:
    sql = """SELECT step, key, content, value, run_id FROM results JOIN steps ON steps.id = step_id
             JOIN media ON media.id = media_id ORDER BY step, key, content"""
    for step, key, content, value, run_id in catalog.rows(sql):
        is_bytes = isinstance(value, bytes)
        stored = {"base64": base64.b64encode(value).decode()} if is_bytes else {"value": json.loads(value)}
        run = {"run": run_id} if with_history else {}
        yield canonical_json(
            {"result": {"step": step, "key": json.loads(key), "content": content, **stored, **run}}
        )


def import_lines(catalog: Catalog, lines: Iterable[str], name: str) -> Imported:
    """Merge exported lines into a catalogue, all or nothing.

    A person's word here is never replaced by the file's; of two machine's words of the same source the file's
    counts.

    Args:
        name: the file, for messages.

    Raises:
        InputError: not such a file, or a line of it is broken; nothing was taken in.
    """
    importer = _Importer(catalog)
    with catalog.transaction():
        number = 0
        for number, line in enumerate(lines, 1):
            try:
                importer.take(json.loads(line), is_first=number == 1)
            except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
                hint = "give a file made by: celforge catalog export"
                raise InputError(
                    f"{name} line {number} is not a catalogue line: {error!r}", hint=hint
                ) from error
        if number == 0:
            raise InputError(f"{name} is empty", hint="give a file made by: celforge catalog export")
    return importer.imported


class _Importer:
    def __init__(self, catalog: Catalog) -> None:
        self.imported = Imported()
        self._catalog = catalog
        self._runs: dict[int, int] = {}  # run in the file -> run here
        self._fallback_run: int | None = None

    def take(self, line: dict[str, Any], *, is_first: bool) -> None:
        if is_first:
            if line["celforge_catalog"] != FORMAT:
                raise ValueError(f"format {line['celforge_catalog']}, and this celforge reads {FORMAT}")
            return
        ((kind, value),) = line.items()
        {"run": self._take_run, "media": self._take_media, "result": self._take_result}[kind](value)

    def _take_run(self, run: Mapping[str, Any]) -> None:
        columns = ", ".join(RUN_COLUMNS)
        values = tuple(run[column] for column in RUN_COLUMNS)
        same = " AND ".join(f"{column} IS ?" for column in RUN_COLUMNS)
        found = self._catalog.rows(f"SELECT id FROM runs WHERE {same}", values).fetchone()
        if found is None:
            cursor = self._catalog.rows(f"INSERT INTO runs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            found = (cursor.lastrowid,)
        self._runs[run["id"]] = int(found[0] or 0)

    def _run(self, row: Mapping[str, Any]) -> int | None:
        return self._runs.get(row.get("run") or 0)

    def _take_media(self, media: Mapping[str, Any]) -> None:
        if media["kind"] not in ("image", "video") or len(bytes.fromhex(media["content"])) != 32:
            raise ValueError("not a content")
        media_id = self._catalog.add_media(media["content"], media["kind"], int(media["size_bytes"]))
        self.imported.contents += 1
        for path in media["paths"]:
            # "gone" until the next look at the disk finds it there
            sql = "INSERT OR IGNORE INTO paths VALUES (?, ?, ?, ?, -1, 1)"
            self._catalog.rows(sql, (*split(path["path"]), media_id, media["size_bytes"]))
        for row in media["outcomes"]:
            self._catalog.set_outcome(
                media_id, row["stage"], row["outcome"], row["reason"], row["detail"], self._run(row)
            )
            self.imported.outcomes += 1
        for row in media["facts"]:
            self._take_fact(media["content"], media_id, row)
        for sha256 in media["written"]:
            self._catalog.note_written(media["content"], sha256)

    def _take_fact(self, content: str, media_id: int, row: Mapping[str, Any]) -> None:
        here = self._catalog.read_fact(content, row["name"], row["source"])
        if here and here["by_hand"]:
            self.imported.kept_by_hand += here["value"] != row["value"]
            return
        self._catalog.set_fact(
            media_id, row["name"], row["value"], row["source"], by_hand=row["by_hand"], run_id=self._run(row)
        )
        self.imported.facts += 1

    def _take_result(self, result: Mapping[str, Any]) -> None:
        media_id = self._catalog.media_id(result["content"])
        if media_id is None:
            raise ValueError(f"no content {result['content']}")
        value = base64.b64decode(result["base64"], validate=True) if "base64" in result else result["value"]
        step_id = self._catalog.step_id(result["step"], result["key"])
        assert step_id is not None
        run_id = self._run(result) or self._fallback()
        self._catalog.add_result(step_id, media_id, value, run_id)
        self.imported.results += 1

    def _fallback(self) -> int:
        """The run that results without a history belong to."""
        if self._fallback_run is None:
            self._fallback_run = self._catalog.start_run("import", ".", {}, "")
        return self._fallback_run
