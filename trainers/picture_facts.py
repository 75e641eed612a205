"""What must be known of the pictures of a data set before training: content, size, caption, faces.

The project's catalogue remembers contents and sizes, so that of 250,000 pictures only new and changed files
are read again. Where no catalogue can be written everything is read, and nothing kept.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pipeline
from pipeline.catalog import Catalog, below, join
from pipeline.console import progress
from pipeline.errors import SidecarError, UnreadableImageError
from pipeline.images import probe_image
from pipeline.known_facts import counting_facts
from pipeline.media_names import Kind
from pipeline.project import Project, find_project
from pipeline.report import Failure
from pipeline.scan import hash_file, index_folder
from pipeline.sidecars import read_sidecar
from trainers.caption_rules import CaptionSource
from trainers.caption_texts import read_source
from trainers.crops import Box
from trainers.data_sources import Picture

SIZE_STEP, SIZE_KEY = (
    "train.size",
    {"version": 1},
)  # cached results: [width, height] in pixels, turned by EXIF
IMAGES: tuple[Kind, ...] = ("image",)
CHUNK = 200  # pictures that a worker looks at in one go


@dataclass(frozen=True, slots=True)
class Looked:
    """One picture as it lies on disk."""

    content: str  # sha256 of the file's bytes, hex
    width_px: int
    height_px: int
    caption: CaptionSource
    caption_problem: str
    faces: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """What the catalogue knows of a file; None where it knows nothing."""

    content: str
    size: Sequence[int] | None = None
    faces: tuple[Box, ...] | None = None


def look_at(
    pictures: Sequence[Picture],
    tops: Sequence[Path],
    *,
    workers: int,
    captions_from_names: bool,
    wants_faces: bool,
    check_stop: Callable[[], None] = lambda: None,
) -> list[Looked | Failure]:
    """Look at every picture, in their order; one that cannot be read becomes a Failure.

    Args:
        tops: the folders that hold them.
        check_stop: called now and then; raises to stop. What was hashed until then is kept.

    Raises:
        CatalogError: the catalogue is damaged, or made by a newer celforge.
        DiskFullError: no room for the catalogue.
    """
    known: dict[str, _Known] = {}
    projects = {project.root: project for project in map(find_project, tops) if _is_writable(project)}
    for project in projects.values():
        inside = [top for top in dict.fromkeys(tops) if find_project(top).root == project.root]
        known |= _remembered(project, inside, workers, check_stop, wants_faces=wants_faces)
    found: list[Looked | Failure] = []
    look = partial(_look_at_chunk, known, from_names=captions_from_names, wants_faces=wants_faces)
    chunks = [pictures[at : at + CHUNK] for at in range(0, len(pictures), CHUNK)]
    with progress("looking at pictures", len(pictures), "image") as bar, ThreadPoolExecutor(workers) as pool:
        for chunk, results in zip(chunks, pool.map(look, chunks), strict=True):
            check_stop()
            found += results
            for _ in chunk:
                bar.advance()
    sizes = {
        one.content: [one.width_px, one.height_px]
        for picture, one in zip(pictures, found, strict=True)
        if isinstance(one, Looked) and (str(picture.path) in known and known[str(picture.path)].size is None)
    }
    for project in projects.values():
        _remember_sizes(project, sizes)
    return found


def _look_at_chunk(
    known: Mapping[str, _Known], pictures: Sequence[Picture], *, from_names: bool, wants_faces: bool
) -> list[Looked | Failure]:
    return [
        _look_at_one(one, known.get(str(one.path)), from_names=from_names, wants_faces=wants_faces)
        for one in pictures
    ]


def _look_at_one(
    picture: Picture, known: _Known | None, *, from_names: bool, wants_faces: bool
) -> Looked | Failure:
    try:
        width_px, height_px = known.size if known and known.size else _size(picture.path)
        content = known.content if known else hash_file(picture.path)
    except UnreadableImageError as error:
        return Failure(str(picture.path), error.reason, error.message)
    except OSError as error:
        return Failure(str(picture.path), (error.strerror or "cannot be read").lower(), str(error))
    try:
        caption, problem = read_source(picture, from_name=from_names)
    except OSError as error:
        caption = CaptionSource("", picture.terms.rules, origin="none")
        problem = f"cannot be read: {(error.strerror or 'unknown').lower()}"
    faces = known.faces if known else None
    if faces is None:
        faces = _sidecar_faces(picture) if wants_faces and picture.sidecar else ()
    return Looked(content, width_px, height_px, caption, problem, faces)


def _size(path: Path) -> tuple[int, int]:
    header = probe_image(path)
    return header.width_px, header.height_px


def _sidecar_faces(picture: Picture) -> tuple[Box, ...]:
    try:
        sidecar = read_sidecar(Path(picture.folder_path, picture.sidecar), picture.path)
    except SidecarError:
        return ()  # celforge catalog sidecars says what is wrong with it
    return _boxes(sidecar.facts.get("faces")) if sidecar else ()


def _boxes(fact: Any) -> tuple[Box, ...]:
    """Boxes of a `faces` fact: left, top, right, bottom in 0 to 1."""
    boxes = fact.get("boxes") if isinstance(fact, Mapping) else None
    sound = [box for box in boxes or () if isinstance(box, list) and len(box) == 4]
    return tuple((float(box[0]), float(box[1]), float(box[2]), float(box[3])) for box in sound)


def _is_writable(project: Project) -> bool:
    folder = project.state_folder if project.state_folder.is_dir() else project.root
    return os.access(folder, os.W_OK)


def _remembered(
    project: Project, tops: Sequence[Path], workers: int, check_stop: Callable[[], None], *, wants_faces: bool
) -> dict[str, _Known]:
    """What the catalogue knows of files below some folders, by absolute path; new ones are hashed first."""
    files: dict[str, tuple[str, int]] = {}
    project.state_folder.mkdir(exist_ok=True)
    with Catalog.open(project.catalog_path) as catalog:
        for top in tops:
            with progress("hashing", None, "image") as bar:
                index_folder(
                    catalog,
                    project,
                    top,
                    IMAGES,
                    workers=workers,
                    on_hashed=bar.advance,
                    check_stop=check_stop,
                )
            condition, parameters = below(project.relative(top))
            sql = f"""SELECT folder, name, content, media.id FROM paths JOIN media ON media.id = media_id
                      WHERE NOT is_gone AND kind = 'image' AND {condition}"""
            for folder, name, content, media_id in catalog.rows(sql, parameters):
                files[str(project.root / join(folder, name))] = content, media_id
        ids = [media_id for _content, media_id in files.values()]
        step_id = catalog.step_id(SIZE_STEP, SIZE_KEY, create=False)
        sizes = {} if step_id is None else catalog.results(step_id, ids)
        faces: dict[int, tuple[Box, ...]] = {}
        if wants_faces:
            for media_id, facts in counting_facts(catalog, ["faces"], ids):
                if "faces" in facts:
                    faces[media_id] = _boxes(facts["faces"].value)
    return {path: _Known(content, sizes.get(at), faces.get(at)) for path, (content, at) in files.items()}


def _remember_sizes(project: Project, sizes: Mapping[str, list[int]]) -> None:
    """Keep sizes by content, for contents that the catalogue knows."""
    if not sizes:
        return
    with Catalog.open(project.catalog_path) as catalog, catalog.transaction():
        run_id = catalog.start_run("train", "", {}, pipeline.__version__)
        step_id = catalog.step_id(SIZE_STEP, SIZE_KEY)
        for content, size in sizes.items():
            media_id = catalog.media_id(content)
            if media_id is not None and step_id is not None:
                catalog.add_result(step_id, media_id, size, run_id)
        catalog.end_run(run_id, 0)
