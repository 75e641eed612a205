"""Which pictures a tree is made of: those below a folder, and those that were arranged before."""

import json
import os.path
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.arranging import ARRANGED, STAGE, Picture, Record, record_of, source_of
from pipeline.catalog import MediaFile, split
from pipeline.folder_format import FolderFormat, Known, one_spelling
from pipeline.job import Job
from pipeline.known_facts import counting_facts
from pipeline.names import natural_key
from pipeline.tree_names import distinct_names, is_mask

FACTS = ("characters", "num_people", "faces", "image_type")
NOBODY = frozenset({"unknown", "ood", "noise"})  # what tools write for "not known"
READING_STAGES = ("ingest", "dedupe")  # what they failed on cannot be read


@dataclass(slots=True)
class Sources:
    """What lies where, by content. Paths are relative to the project.

    Args:
        top: the tree.
        scope: the folder that was looked at; "" is the whole project.
    """

    top: str
    scope: str
    ids: dict[str, int] = field(default_factory=dict)
    paths: dict[str, list[str]] = field(
        default_factory=dict
    )  # outside the tree; empty when only arranged before
    places: dict[str, list[str]] = field(default_factory=dict)  # in the tree
    records: dict[str, Record] = field(default_factory=dict)


@dataclass(slots=True)
class Wanted:
    """Every picture with its place, and what to say about them."""

    pictures: list[Picture] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # reason -> pictures
    rare: Counter[str] = field(default_factory=Counter)  # combination -> pictures
    notes: dict[str, list[str]] = field(default_factory=dict)


def read_sources(job: Job, top: str) -> Sources:
    """Look at the pictures below the job's folder and at those of the tree.

    Args:
        top: the tree, relative to the project.
    """
    scope = job.project.relative(job.folder)
    found = Sources(top, "" if scope == "." else scope)
    tree = [job.root / top] if (job.root / top).is_dir() else []
    files = job.images(job.folder, *tree)
    elsewhere = _read_records(job, found)
    outside: dict[str, list[MediaFile]] = {}
    for file in files:
        if is_below(file.relative, top):
            found.places.setdefault(file.content, []).append(file.relative)
        elif file.relative not in elsewhere:
            outside.setdefault(split(file.relative)[0], []).append(file)
    for folder in outside.values():
        stems = {os.path.splitext(split(file.relative)[1])[0] for file in folder}
        for file in folder:
            if not is_mask(split(file.relative)[1], stems):
                found.ids[file.content] = file.id
                found.paths.setdefault(file.content, []).append(file.relative)
    for content in found.records:
        found.paths.setdefault(content, [])
    return found


def _read_records(job: Job, found: Sources) -> set[str]:
    """What was arranged before; returns paths of pictures in other trees, which are no sources."""
    elsewhere = set()
    sql = """SELECT media.id, content, source, value FROM facts JOIN media ON media.id = media_id
             WHERE name = ? AND value != 'null'"""
    for media_id, content, source, value in job.catalog.rows(sql, (ARRANGED,)):
        fields = json.loads(value)
        if source == source_of(found.top):
            found.records[content] = record_of(fields)
            found.ids[content] = media_id
        elif fields["how"] != "move":
            elsewhere.add(fields["path"])
    return elsewhere


def is_below(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it; everything lies in ""."""
    return not folder or path == folder or path.startswith(f"{folder}/")


def wanted_pictures(job: Job, sources: Sources, layout: FolderFormat, present: Sequence[str] = ()) -> Wanted:
    """Where each picture belongs, in natural order of the sources.

    Args:
        present: folders that the tree has, whose spelling is kept.
    """
    wanted = Wanted()
    origins, gone = _origins(job, sources, wanted)
    why_out = _why_out(job, sources, gone)
    contents = sorted(sources.paths, key=lambda content: natural_key(origins[content] or ""))
    known = _known(job, sources, contents, origins)
    inside = [content for content in contents if content not in why_out]
    folders = dict(zip(inside, layout.folders([known[content] for content in inside]), strict=True))
    spelling = one_spelling(list(folders.values()), present)
    _note_spelling(wanted, spelling, present)
    names = dict(
        zip(inside, distinct_names([origins[content] or content for content in inside]), strict=True)
    )
    wanted.rare = layout.rare_combinations([known[content] for content in inside])
    for content in contents:
        reason = why_out.get(content, "")
        source = origins[content]
        is_outside = source is not None and not is_below(source, sources.top)
        folder = spelling[folders[content]] if content in folders else ""
        one = Picture(content, source if is_outside else None, folder, names.get(content, ""), reason)
        wanted.pictures.append(one)
        if reason and is_outside:
            wanted.left_out[reason] += 1
    return wanted


def _origins(job: Job, sources: Sources, wanted: Wanted) -> tuple[dict[str, str | None], set[str]]:
    """The path that each picture is taken from, and the contents that are gone from where they lay."""
    captioned = _Captioned(job)
    origins: dict[str, str | None] = {}
    gone: set[str] = set()
    copies = 0
    lost_folders: Counter[str] = Counter()
    for content, paths in sources.paths.items():
        record = sources.records.get(content)
        if paths:
            origins[content] = record.source if record and record.source in paths else captioned.best(paths)
            copies += len(paths) - 1
            continue
        assert record is not None
        if record.how == "move":
            origins[content] = record.path
        elif os.path.lexists(job.root / record.source) and not is_below(record.source, sources.scope):
            origins[content] = record.source
        else:
            origins[content] = None
            folder = split(record.source)[0]
            if not is_below(record.source, sources.scope):
                continue
            if (job.root / folder).is_dir():
                gone.add(content)
            else:
                lost_folders[folder or "."] += 1
    if copies:
        wanted.left_out["another file of the same bytes is in the tree"] = copies
    if lost_folders:
        wanted.notes["folders_that_are_gone"] = [
            f"{folder}: {count:,} pictures of it stay in the tree"
            for folder, count in sorted(lost_folders.items())
        ]
    return origins, gone


class _Captioned:
    """Chooses among files of the same bytes: the first that has a caption, else the first."""

    def __init__(self, job: Job) -> None:
        self._root = job.root

    def best(self, paths: Sequence[str]) -> str:
        if len(paths) == 1:
            return paths[0]
        stems = ((path, os.path.splitext(self._root / path)[0]) for path in paths)
        captioned = (
            path for path, stem in stems if os.path.exists(f"{stem}.txt") or os.path.exists(f"{stem}.caption")
        )
        return next(captioned, paths[0])


def _why_out(job: Job, sources: Sources, gone: Iterable[str]) -> dict[str, str]:
    """Why pictures do not belong into the tree, by content."""
    found = dict.fromkeys(gone, "its picture is gone from its folder")
    sql = """SELECT content, stage, outcome, reason FROM outcomes JOIN media ON media.id = media_id
             WHERE stage != ? AND (outcome = 'dropped' OR (outcome = 'failed' AND stage IN (?, ?)))"""
    for content, stage, outcome, reason in job.catalog.rows(sql, (STAGE, *READING_STAGES)):
        if content in sources.paths:
            found[content] = f"{outcome} by {stage}" + (f": {reason}" if reason else "")
    return found


def _known(
    job: Job, sources: Sources, contents: Sequence[str], origins: Mapping[str, str | None]
) -> dict[str, Known]:
    by_id = {sources.ids[content]: content for content in contents}
    found = {}
    for media_id, facts in counting_facts(job.catalog, FACTS, list(by_id)):
        content = by_id[media_id]
        record = sources.records.get(content)
        origin = record.source if record else origins[content] or ""
        values = {name: fact.value for name, fact in facts.items()}
        found[content] = known_of(values, split(origin)[0])
    return found


def known_of(values: Mapping[str, Any], folder: str) -> Known:
    """What the facts of one picture say; values of another shape than expected say nothing."""
    names = values.get("characters")
    faces = values.get("faces")
    faces = faces if isinstance(faces, dict) else {}
    boxes = faces.get("boxes")
    num_faces = faces.get("num_faces", len(boxes) if isinstance(boxes, list) else None)
    height = faces.get("height_ratio", 0.0 if num_faces == 0 else None)
    if height is None and isinstance(boxes, list):
        height = max((box[3] - box[1] for box in boxes), default=0.0)
    return Known(
        tuple(str(name) for name in names if name not in NOBODY) if isinstance(names, list) else (),
        values.get("num_people"),
        num_faces,
        height,
        values.get("image_type"),
        folder,
    )


def _note_spelling(wanted: Wanted, spelling: Mapping[str, str], present: Sequence[str]) -> None:
    changed = sorted(f"{folder} is {new}" for folder, new in spelling.items() if folder != new)
    if changed:
        wanted.notes["one_folder_on_windows"] = changed
