"""Count, search and edit the tags of a folder, and draw a chart of them.

Without options it counts. --search narrows everything to the pictures that answer: `solo -"long hair"
char:sabine folder:ep01 rating:general tags>30 by:hand`, where all words must hold, - turns one round, and *
stands for any letters. Edits are a person's word: they stand above every tagger's, until --forget hands
them back to the machines; `celforge undo` takes the last edits back.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click

from pipeline import console
from pipeline.catalog import Catalog, split
from pipeline.errors import InputError, SettingsError
from pipeline.project import Project, existing_folder, find_project
from pipeline.settings import Json
from pipeline.stage_command import folder_argument, json_option, show_report
from pipeline.tagging.counts import COUNTED_FACTS, count_beside, count_names
from pipeline.tagging.edits import (
    FORGOTTEN,
    Changes,
    Edits,
    Forgotten,
    as_actions,
    find_changes,
    find_words_by_hand,
    read_pair,
)
from pipeline.tagging.search import TagBook

EXAMPLES = 20  # pictures of a preview
STAGE = "tags"


def _tags(folder: Path, **given: Any) -> None:
    edits = _edits(given)
    if given["forget"]:
        if edits:
            raise SettingsError("--forget goes alone", hint="edit the tags first, or afterwards")
        _forget(folder, given)
        return
    if edits:
        _edit(folder, edits, given)
        return
    if given["dry_run"]:
        hint = "name an edit: --add, --remove, --rename, --replace or --forget"
        raise SettingsError("--dry-run has no effect: nothing would be changed", hint=hint)
    if given["dark"] and given["chart"] is None:
        raise SettingsError("--dark has no effect: no chart is drawn", hint="add --chart FILE.png")
    folder = existing_folder(folder)
    project = find_project(folder)
    with Catalog.open(project.catalog_path, read_only=True) as catalog:
        if given["of"] is not None:
            _show_one(catalog, project, given["of"], is_json=given["json"])
            return
        book = TagBook(catalog, project, folder, given["search"])
        if given["files"]:
            _show_files(book, is_json=given["json"])
        elif given["beside"] is not None:
            _show_beside(book, given)
        else:
            _show_counts(book, given)


def _edits(given: dict[str, Any]) -> Edits:
    pairs = [("--rename", text) for text in given["rename"]] + [
        ("--replace", text) for text in given["replace"]
    ]
    replaced = []
    for name, text in pairs:
        pair = read_pair(text, name)
        if name == "--rename" and len(pair[1]) > 1:
            raise SettingsError(f'--rename gives one name, found "{text}"', hint="use --replace for several")
        replaced.append(pair)
    return Edits(tuple(given["remove"]), tuple(replaced), tuple(given["add"]))


def _show_counts(book: TagBook, given: dict[str, Any]) -> None:
    counts = count_names(book, COUNTED_FACTS[given["category"]])
    ordered = sorted(counts.by_name.items(), key=lambda one: (-one[1], one[0]))
    shown = ordered if given["top"] == 0 else ordered[: given["top"]]
    rows = [
        {"tag": name, "pictures": count, "share": f"{100 * count / counts.pictures:.1f} %"}
        for name, count in shown
    ]
    made = _draw(given, shown, counts.pictures) if given["chart"] is not None else None
    if given["json"]:
        answer = {
            "pictures": counts.pictures,
            "tagged": counts.tagged,
            "names": len(ordered),
            "tags": [{"tag": name, "pictures": count} for name, count in shown],
        }
        console.write_json(answer | ({"made": str(made)} if made else {}))
        return
    console.table(rows)
    kind = given["category"]
    console.write(f"{counts.pictures:,} pictures, {counts.tagged:,} with {kind} tags, {len(ordered):,} names")
    if counts.pictures and not counts.tagged:
        console.write("nothing has been tagged yet; type: celforge tag FOLDER")
    if made:
        console.write(f"made: {made}")


def _draw(given: dict[str, Any], counts: Sequence[tuple[str, int]], total: int) -> Path:
    from pipeline.tagging.chart import write_chart

    title = f"{given['category'].capitalize()} tags, the {len(counts)} most frequent"
    searched = f" that answer {given['search']}" if given["search"] else ""
    path: Path = given["chart"]
    write_chart(path, title, f"{total:,} pictures{searched}", counts, total, is_dark=given["dark"])
    return path


def _show_beside(book: TagBook, given: dict[str, Any]) -> None:
    having, rows = count_beside(book, given["beside"])
    shown: list[dict[str, Json]] = list(rows if given["top"] == 0 else islice(rows, given["top"]))
    if given["json"]:
        console.write_json({"tag": given["beside"], "pictures": having, "beside": shown})
        return
    console.table(shown)
    console.write(f"{having:,} pictures with {given['beside']}")


def _show_files(book: TagBook, *, is_json: bool) -> None:
    ids = [media_id for media_id, _ in book.rows([])]
    paths = sorted(path for places in book.paths(ids).values() for path in places)
    if is_json:
        console.write_json({"files": paths})
        return
    for path in paths:
        console.write(path)


def _show_one(catalog: Catalog, project: Project, path: Path, *, is_json: bool) -> None:
    rows = list(_words_about(catalog, project, path))
    if is_json:
        console.write_json(rows)
        return
    for row in rows:
        row["by_hand"], row["counts"] = ("yes" if row[name] else "" for name in ("by_hand", "counts"))
        row["probability"] = "" if row["probability"] is None else f"{row['probability']:.4f}"
    console.table(rows)


def _words_about(catalog: Catalog, project: Project, path: Path) -> Iterator[dict[str, Any]]:
    """Every tag that anybody gave a picture, who and when, the word that counts first."""
    absolute = path if path.is_absolute() else Path.cwd() / path
    inside = absolute.is_relative_to(project.root)
    folder, name = split(project.relative(absolute)) if inside else ("", "")
    sql = "SELECT media_id FROM paths WHERE folder = ? AND name = ?"
    found = catalog.rows(sql, (folder, name)).fetchone()
    if found is None:
        raise InputError(f"{path} is not in the catalogue", hint="take it in: celforge ingest FOLDER")
    dates = dict(catalog.rows("SELECT id, started_at FROM runs").fetchall())
    for fact_name in dict.fromkeys(COUNTED_FACTS.values()):
        for place, fact in enumerate(catalog.facts(found[0], fact_name)):
            values = fact.value if isinstance(fact.value, dict) else None
            names = values or ([fact.value] if isinstance(fact.value, str) else fact.value)
            names = names or ["(none)"]  # seen, and nothing found; or a person took everything off
            for tag in sorted(names, key=lambda tag: -((values or {}).get(tag) or 0)):
                yield {
                    "kind": fact_name,
                    "tag": tag,
                    "probability": (values or {}).get(tag),
                    "source": fact.source,
                    "date": dates.get(fact.run_id, ""),
                    "by_hand": fact.by_hand,
                    "counts": place == 0,
                }


def _edit(folder: Path, edits: Edits, given: dict[str, Any]) -> None:
    if given["dry_run"]:
        project = find_project(existing_folder(folder))
        with Catalog.open(project.catalog_path, read_only=True) as catalog:
            book = TagBook(catalog, project, existing_folder(folder), given["search"])
            _preview(book, find_changes(book, edits), is_json=given["json"])
        return
    from pipeline.job import open_job
    from pipeline.plan import Plan

    started = time.monotonic()
    with open_job(folder, STAGE) as job:
        book = TagBook(job.catalog, job.project, job.folder, given["search"])
        found = find_changes(book, edits)
        report = job.apply(Plan(STAGE, list(as_actions(job.catalog, found.changes))))
    if given["json"]:
        report.values.update(_numbers(found))
    else:
        _write_numbers(found)
        console.write(f"{len(found.changes):,} pictures changed; `celforge undo` takes it back")
    show_report(report, seconds=time.monotonic() - started, is_json=given["json"])
    click.get_current_context().exit(report.exit_code)


def _forget(folder: Path, given: dict[str, Any]) -> None:
    """Take a person's words out of the catalogue, so that those of machines count again."""
    names: tuple[str, ...] = given["forget"]
    if given["dry_run"]:
        project = find_project(existing_folder(folder))
        with Catalog.open(project.catalog_path, read_only=True) as catalog:
            book = TagBook(catalog, project, existing_folder(folder), given["search"])
            found = find_words_by_hand(book, catalog, names)
            shown = found if given["json"] else found[:EXAMPLES]
            paths = book.paths(one.media_id for one in shown)
        rows = [{"picture": paths[one.media_id][0], "change": one.text()} for one in shown]
        if given["json"]:
            console.write_json({"forgotten": _counted_words(found), "changes": rows})
            return
        console.table(rows)
        if len(found) > len(rows):
            console.write(f"... and {len(found) - len(rows):,} more; --json shows all")
        console.write(f"{len(found):,} words would be forgotten; nothing was touched (--dry-run)")
        return
    from pipeline.job import open_job
    from pipeline.plan import Plan

    started = time.monotonic()
    with open_job(folder, STAGE) as job:
        book = TagBook(job.catalog, job.project, job.folder, given["search"])
        found = find_words_by_hand(book, job.catalog, names)
        report = job.apply(Plan(STAGE, [one.action for one in found]))
    report.values["forgotten"] = _counted_words(found)
    show_report(report, seconds=time.monotonic() - started, is_json=given["json"])
    click.get_current_context().exit(report.exit_code)


def _counted_words(found: Sequence[Forgotten]) -> dict[str, int]:
    return {name: sum(one.name == name for one in found) for name in FORGOTTEN}


def _numbers(found: Changes) -> dict[str, Any]:
    return {
        "pictures_changed": len(found.changes),
        "tags_added": dict(found.come.most_common()),
        "tags_removed": dict(found.gone.most_common()),
    }


def _preview(book: TagBook, found: Changes, *, is_json: bool) -> None:
    examples = found.changes if is_json else found.changes[:EXAMPLES]
    paths = book.paths(change.media_id for change in examples)
    rows = [{"picture": paths[change.media_id][0], "change": change.text()} for change in examples]
    if is_json:
        console.write_json({**_numbers(found), "changes": rows})
        return
    console.table(rows)
    more = len(found.changes) - len(rows)
    if more:
        console.write(f"... and {more:,} more; --json shows all")
    _write_numbers(found)
    console.write(f"{len(found.changes):,} pictures would change; nothing was touched (--dry-run)")


def _write_numbers(found: Changes) -> None:
    for mark, counter in (("+", found.come), ("-", found.gone)):
        for tag, count in counter.most_common(EXAMPLES):
            console.write(f"{mark}{tag}: {count:,}")


def _texts(flag: str, metavar: str, text: str) -> click.Option:
    return click.Option([flag], multiple=True, metavar=metavar, help=text)


command = click.Command(
    "tags",
    params=[
        folder_argument(),
        click.Option(["--search"], default="", metavar="WORDS", help="Only pictures that answer; see above."),
        click.Option(
            ["--category"],
            type=click.Choice(list(COUNTED_FACTS)),
            default="general",
            show_default=True,
            help="Kind of tags to count; `characters` are names that were settled on.",
        ),
        click.Option(
            ["--top"],
            type=click.IntRange(0),
            default=50,
            show_default=True,
            help="Rows to show; 0 shows all.",
        ),
        click.Option(["--beside"], metavar="TAG", help="Count the tags that stand beside this one."),
        click.Option(["--files"], is_flag=True, help="List the pictures that answer."),
        click.Option(
            ["--of"],
            type=click.Path(path_type=Path),
            metavar="IMAGE",
            help="Show every tag of one picture: probability, who gave it, and when.",
        ),
        click.Option(
            ["--chart"],
            type=click.Path(path_type=Path),
            metavar="FILE.svg|FILE.png",
            help="Draw the counts as bars.",
        ),
        click.Option(["--dark"], is_flag=True, help="Draw a PNG for dark pages; an SVG fits both by itself."),
        _texts("--remove", "TAG", "Take a tag off; * stands for any letters."),
        _texts("--rename", "OLD=NEW", "Put one tag in another's place."),
        _texts("--replace", "OLD=NEW,NEW", "Put several tags in another's place."),
        _texts("--add", "TAG", "Put a tag on."),
        click.Option(
            ["--forget"],
            type=click.Choice(FORGOTTEN),
            multiple=True,
            help="Take back what a person said, so that taggers and identify count again.",
        ),
        click.Option(["--dry-run"], is_flag=True, help="Show what an edit would change, and change nothing."),
        json_option(),
    ],
    callback=_tags,
    help=__doc__,
)
