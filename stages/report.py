"""Write a page about the data set: pictures by folder, balance, tags, sizes, drops and failures.

One static HTML page in report/ of the project, with small pictures beside it; it needs no server, no network
and no script. Everything comes from the catalogue, so that it can be written after any stage. Small pictures
are made once for each picture, ever. Nothing else is written over.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import InputError
from pipeline.files import write_atomic
from pipeline.job import Job, Report
from pipeline.made_folders import mark_made
from pipeline.media_names import kind_of
from pipeline.report_page.markup import address
from pipeline.report_page.page import GENERATOR, DropGroup, Page, Pictures
from pipeline.report_page.pictures import Thumbnail, quotas, read_size, spread
from pipeline.report_page.survey import (
    Dropped,
    FolderSummary,
    Weighed,
    bucket_use,
    dropped_pictures,
    failed_ids,
    known_sizes,
    places_of,
    summarize,
    take_survey,
)
from pipeline.report_page.trainings import small_sheets, trainings_part
from pipeline.settings import option
from pipeline.training_runs import find_runs

if TYPE_CHECKING:
    from pipeline.catalog import MediaFile
    from pipeline.training_set import Record

PAGE_NAME = "index.html"
THUMBNAILS_FOLDER = ".thumbs"  # hidden, so that no stage and no trainer takes them for pictures
MOST_DROPPED_SHOWN = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [report] of celforge.toml."""

    out: Path | None = option(
        None, "Folder of the page; report/ in the project when left out.", metavar="FOLDER"
    )
    pictures: int = option(
        3_000, "Most pictures shown, spread over the folders; 0 shows all of them.", min=0, max=1_000_000
    )
    thumbnail_px: int = option(320, "Longer side of the small pictures.", min=64, max=1024)
    resolution: int = option(512, "Resolution in px for which buckets are plotted.", min=128, max=4096)


def run(job: Job, settings: Settings) -> Report:
    """Count, make small pictures, and write the page."""
    from pipeline.training_set import training_root

    page_folder = settings.out or job.root / "report"
    _refuse_foreign_page(page_folder)
    if page_folder == job.root / "report" and not _holds_pictures(page_folder):
        for mark in mark_made(page_folder, "report"):
            write_atomic(mark.path, mark.content)
    tree = training_root(job.folder, job.root)
    files = job.images(job.folder, tree)
    folder = job.project.relative(job.folder).removeprefix(".")
    every, records = _weigh(job, files, tree)
    weighed, in_tree = _once(every, records)
    unreadable = failed_ids(job.catalog)
    sizes = _sizes(job, [file for file in files if file.id not in unreadable])
    folders = summarize(weighed, in_tree)
    shown = _choose(folders, settings.pictures)
    dropped = dropped_pictures(job.catalog, folder)
    groups, extra = _drop_groups(job, dropped[:MOST_DROPPED_SHOWN])
    wanted = (one.file for ones in shown.values() for one in ones)
    readable = [file for file in wanted if file.id in sizes and file.id not in unreadable]
    thumbnails = _thumbnails(job, [*readable, *extra], settings)
    survey = take_survey(job.catalog, job.project, folder, folders, dropped, sizes)
    pictures = Pictures(
        shown=shown,
        thumbnails={content: f"{THUMBNAILS_FOLDER}/{name}" for content, (name, _) in thumbnails.items()},
        captions=_captions(job, [one for ones in shown.values() for one in ones], records),
        sizes={one.file.content: sizes[one.file.id] for one in weighed if one.file.id in sizes},
        root=_root_address(page_folder, job.root),
    )
    trainings = [] if folder else find_runs(job.root)
    sheets = small_sheets(trainings)
    page = Page(
        survey,
        pictures,
        groups,
        bucket_use(survey.sizes, settings.resolution),
        settings.resolution,
        trainings_part(
            trainings,
            pictures.root,
            {name: f"{THUMBNAILS_FOLDER}/{place}" for name, (place, _) in sheets.items()},
        ),
        len(trainings),
    )
    thumbnails |= sheets
    written = _write_thumbnails(page_folder, thumbnails)
    write_atomic(page_folder / PAGE_NAME, page.html())
    _remove_unused(page_folder, {name for name, _ in thumbnails.values()})
    report = job.report(
        pictures=survey.num_pictures,
        places=survey.num_places,
        pictures_shown=sum(map(len, shown.values())),
        small_pictures_written=written,
    )
    report.made.append(page_folder / PAGE_NAME)
    return report


def _holds_pictures(folder: Path) -> bool:
    """Whether pictures lie in a folder that are not hidden as ours are: a person's, which must be seen."""
    found = (path.relative_to(folder).parts for path in folder.rglob("*") if kind_of(path.name) == "image")
    return any(not any(part.startswith(".") for part in parts) for parts in found)


def _refuse_foreign_page(folder: Path) -> None:
    """See that the page there, if any, is one of ours.

    Raises:
        InputError: it is not, or the folder cannot be made.
    """
    path = folder / PAGE_NAME
    if path.is_file() and GENERATOR not in path.read_text(encoding="utf-8", errors="replace")[:2_000]:
        raise InputError(f"{path} was not made by celforge report", hint="give another folder: --out FOLDER")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "give another folder: --out FOLDER"
        raise InputError(f"{folder} cannot be made: {error.strerror}", hint=hint) from error


def _weigh(job: Job, files: Sequence["MediaFile"], top: Path) -> tuple[list[Weighed], dict[str, "Record"]]:
    """Every picture with its repeats, and its record by its path relative to the project.

    Pictures beside the tree that is trained on, such as frames, are shown in no epoch.
    """
    from pipeline.training_set import read_training_set

    found = read_training_set(top)
    for problem in found.problems:
        job.warn(problem)
    prefix = job.project.relative(top)
    prefix = "" if prefix == "." else f"{prefix}/"
    records = {prefix + record.relative: record for record in found.records}
    weighed = []
    for file in files:
        record = records.get(file.relative)
        is_captioned = record is not None and record.caption_name is not None
        weighed.append(Weighed(file, float(record.repeats) if record else 0.0, is_captioned))
    return weighed, records


def _once(weighed: Sequence[Weighed], records: Mapping[str, "Record"]) -> tuple[list[Weighed], list[Weighed]]:
    """The pictures to count and show, and further places outside the tree of those that lie in it."""
    trained = {one.file.id for one in weighed if one.file.relative in records}
    is_further = [one.file.id in trained and one.file.relative not in records for one in weighed]
    own = [one for one, further in zip(weighed, is_further, strict=True) if not further]
    return own, [one for one, further in zip(weighed, is_further, strict=True) if further]


def _sizes(job: Job, files: Sequence["MediaFile"]) -> dict[int, tuple[int, int]]:
    """Width and height by content; headers are read of those that no stage has looked at."""
    known = known_sizes(job.catalog)
    unknown = [file for file in files if file.id not in known]
    if unknown:
        job.map(read_size, unknown, step="report.size", key={})
        known = known_sizes(job.catalog)
    return known


def _choose(folders: Sequence[FolderSummary], most: int) -> dict[str, list[Weighed]]:
    numbers = quotas({folder.relative: len(folder.files) for folder in folders}, most)
    return {
        folder.relative: spread(folder.files, numbers[folder.relative])
        for folder in folders
        if numbers[folder.relative]
    }


def _drop_groups(job: Job, dropped: Sequence[Dropped]) -> tuple[list[DropGroup], list["MediaFile"]]:
    """Dropped pictures by stage, reason and what they gave way to, and the files to show of them."""
    from itertools import groupby

    groups: list[DropGroup] = []
    shown: list[MediaFile] = []
    for (_, reason, detail), together in groupby(
        dropped, key=lambda one: (one.stage, one.reason, one.detail)
    ):
        own = tuple(together)
        survivor = _survivor(job, detail)
        groups.append(
            DropGroup(reason, detail, (survivor.content, survivor.relative) if survivor else None, own)
        )
        shown += [survivor] if survivor else []
        shown += [file for one in own if (file := _dropped_file(job, one)) is not None]
    return groups, shown


def _survivor(job: Job, detail: str) -> "MediaFile | None":
    """The picture that a detail names by its path."""
    from pipeline.catalog import MediaFile, split

    sql = """SELECT media.id, content, paths.size_bytes FROM paths JOIN media ON media.id = media_id
             WHERE folder = ? AND name = ? AND NOT is_gone AND kind = 'image'"""
    row = job.catalog.rows(sql, split(detail)).fetchone()
    return None if row is None else MediaFile(row[0], row[1], job.root, detail, row[2])


def _dropped_file(job: Job, dropped: Dropped) -> "MediaFile | None":
    """Where a dropped picture can be read: at a path of its own, or among the dropped ones of a run."""
    from pipeline.catalog import MediaFile
    from pipeline.scan import hash_file

    inside = [path.name for path in (job.project.state_folder / "dropped").glob("*")]
    for relative in places_of(job.catalog, dropped.content):
        for top in ("", *(f"{job.project.state_folder.name}/dropped/{name}/" for name in sorted(inside))):
            path = job.root / (top + relative)
            if path.is_file() and hash_file(path) == dropped.content:
                size_bytes = path.stat().st_size
                return MediaFile(dropped.media_id, dropped.content, job.root, top + relative, size_bytes)
    return None


# Small pictures


def _thumbnails(job: Job, files: Sequence["MediaFile"], settings: Settings) -> dict[str, tuple[str, bytes]]:
    """Name and bytes of the small picture of each content."""
    make = Thumbnail(settings.thumbnail_px)
    made = job.map(make, files, step="report.thumbnail", key=make.key)
    return {
        file.content: (f"{file.content[:2]}/{file.content[2:20]}_{settings.thumbnail_px}.webp", data)
        for file, data in made
    }


def _write_thumbnails(folder: Path, thumbnails: Mapping[str, tuple[str, bytes]]) -> int:
    """Write those that are not there yet; their names hold what they depend on."""
    written = 0
    for name, data in thumbnails.values():
        path = folder / THUMBNAILS_FOLDER / name
        if not path.is_file() or path.stat().st_size != len(data):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data, sync=False)
            written += 1
    return written


def _remove_unused(folder: Path, used: set[str]) -> None:
    """Take away small pictures of earlier pages that no page shows any more."""
    top = folder / THUMBNAILS_FOLDER
    for path in sorted(top.glob("[0-9a-f][0-9a-f]/*_*.webp")):
        if path.relative_to(top).as_posix() not in used:
            path.unlink()
    for path in sorted(top.glob("[0-9a-f][0-9a-f]")):
        if not any(path.iterdir()):
            path.rmdir()


def _captions(job: Job, shown: Iterable[Weighed], records: Mapping[str, "Record"]) -> dict[str, str]:
    """The captions of the pictures that are shown, by path; unreadable ones are named."""
    from pipeline.training_set import read_caption

    found = {}
    for one in shown:
        record = records.get(one.file.relative)
        if record is None:
            continue
        try:
            text, problem = read_caption(record)
        except OSError as error:
            text, problem = None, error.strerror or str(error)
        if problem:
            job.warn(f"{record.caption_path}: {problem}")
        if text:
            found[one.file.relative] = text
    return found


def _root_address(folder: Path, root: Path) -> str:
    """The project's folder as a link of the page, with a slash at its end."""
    try:
        relative = os.path.relpath(root, folder)
    except ValueError:  # another drive of Windows
        return root.as_uri() + "/"
    return address(relative.replace(os.sep, "/")) + "/"
