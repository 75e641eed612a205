"""All that `check` looks at, once through: the tree, what each trainer reads of it, and the findings."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.catalog import MediaFile
from pipeline.errors import InputError
from pipeline.job import Job, no_images
from pipeline.layouts.everydream import Tree, read_tree
from pipeline.layouts.kohya import Subset
from pipeline.lint import captions, control_files, layout, names, pictures
from pipeline.lint.captions import CaptionFile
from pipeline.lint.reading import (
    Reading,
    choose_trainers,
    find_dataset_config,
    join,
    kohya_subsets,
    read_as_everydream,
    read_as_kohya,
)
from pipeline.lint.traps import Finding, Trainer, traps
from pipeline.mapped import Mapped
from pipeline.names import natural_key
from pipeline.settings import Json

Decode = Literal["none", "header", "whole"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What to look for."""

    trainer: str = "auto"
    decode: Decode = "header"
    resolution_px: int = 512
    caption_extension: str = ".caption"
    dataset_config: Path | None = None
    max_tokens: int = 75
    from_encoding: str | None = None


@dataclass(slots=True)
class Looked:
    """What was seen."""

    tree: Tree
    trainers: tuple[Trainer, ...]
    config: Path | None
    num_pictures: int  # in the tree, read or not
    readings: list[Reading] = field(default_factory=list)
    buckets: dict[Trainer, list[dict[str, Any]]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, findings: "Sequence[Finding] | Any") -> None:
        """Keep those that catch one of the trainers asked for."""
        wanted = set(self.trainers)
        self.findings += [one for one in findings if wanted & set(traps()[one.trap].trainers)]


def look(job: Job, asked: Asked) -> Looked:
    """Look at the job's folder.

    Raises:
        InputError: there are no pictures, or a folder cannot be read.
    """
    tree = read_tree(job.folder)
    num_pictures = sum(len(folder.images) for folder in tree.folders.values())
    if not num_pictures:
        raise no_images(job.folder)
    config = asked.dataset_config or find_dataset_config(job.folder)
    trainers = choose_trainers(tree, asked.trainer, config)
    looked = Looked(tree, trainers, config if "kohya" in trainers else None, num_pictures)
    if "kohya" in trainers:
        _read_as_kohya(looked, asked)
    if "everydream" in trainers:
        looked.readings.append(read_as_everydream(tree))
        looked.add(control_files.findings(tree))
    job.check_stop()
    looked.add(captions.presence_findings(tree, looked.readings))
    _add_layout(looked)
    looked.add(names.findings(tree, trainers))
    files = _read_captions(job, looked, asked)
    if asked.decode != "none":
        _look_at_pictures(job, looked, asked, files)
    looked.findings.sort(key=lambda one: natural_key(one.path))
    return looked


def _read_as_kohya(looked: Looked, asked: Asked) -> None:
    subsets: list[Subset] = []
    try:
        subsets = kohya_subsets(looked.tree, looked.config, asked.caption_extension)
    except (InputError, ValueError, TypeError, AttributeError) as error:
        if looked.config is None:
            raise
        text = str(error) if isinstance(error, InputError) else f"it is not built as kohya wants it: {error}"
        looked.add([Finding("dataset-config", looked.config.name, text)])
    looked.readings.append(read_as_kohya(looked.tree, subsets))


def _add_layout(looked: Looked) -> None:
    """Needs the captions of every folder counted."""
    looked.add(layout.everyone_findings(looked.tree))
    for reading in looked.readings:
        if reading.trainer == "kohya" and looked.config is not None:
            looked.add(layout.config_findings(looked.tree, reading, looked.config))
        elif reading.trainer == "kohya":
            looked.add(layout.folder_findings(looked.tree, reading))
        is_explained = (
            any(one.trap == "leaf-folder" for one in looked.findings) and reading.trainer == "kohya"
        )
        if not reading.folders and not is_explained:
            looked.add([Finding("nothing-read", ".", f"by {reading.trainer}")])


def _read_captions(job: Job, looked: Looked, asked: Asked) -> list[CaptionFile]:
    with job.progress(None, "caption", title="captions") as bar:

        def on_read(count: int) -> None:
            job.check_stop()
            bar.advance(count)

        files = captions.caption_files(
            looked.tree,
            looked.readings,
            max_tokens=asked.max_tokens,
            fallback=asked.from_encoding,
            workers=job.workers,
            on_read=on_read,
        )
    looked.add(captions.text_findings(files, frozenset(looked.trainers), asked.max_tokens))
    looked.add(captions.twin_findings(files))
    return files


def _look_at_pictures(job: Job, looked: Looked, asked: Asked, files: Sequence[CaptionFile]) -> None:
    in_tree = {
        join(folder.relative, name) for folder in looked.tree.folders.values() for name in folder.images
    }
    own = job.project.relative(job.folder) if job.folder != job.root else ""
    skip = len(own) + 1 if own and own != "." else 0
    media = [file for file in job.images() if file.relative[skip:] in in_tree]
    sizes: Mapping[str, Mapping[str, Any]] = {
        file.relative[skip:]: found for file, found in _described(job, media, asked.decode)
    }
    named = {os.path.join(looked.tree.root, one.path) for one in looked.findings}
    job.failures[:] = [one for one in job.failures if one.path not in named]
    looked.add(pictures.picture_findings(sizes.items(), frozenset(looked.trainers)))
    seen: set[tuple[str, str]] = set()
    for reading in looked.readings:
        found, rows = pictures.bucket_findings(reading, sizes, asked.resolution_px)
        looked.buckets[reading.trainer] = rows
        looked.add(one for one in found if (one.trap, one.path) not in seen)
        seen |= {(one.trap, one.path) for one in found}
    places: dict[int, list[str]] = defaultdict(list)
    for file in media:
        places[file.id].append(file.relative[skip:])
    texts = {os.path.splitext(one.path)[0]: one.text_hash for one in files}
    looked.add(pictures.duplicate_findings(places, texts))
    looked.add(pictures.character_findings(job.catalog, frozenset(places)))


def _described(
    job: Job, media: Sequence[MediaFile], decode: Decode
) -> Iterator[tuple[MediaFile, dict[str, Any]]]:
    """What is known about each picture; one that was decoded whole before is not looked at again."""
    whole: dict[str, Json] = {"decode": "whole", "version": pictures.VERSION}
    if decode == "whole":
        yield from job.map(pictures.describe_whole, media, step=pictures.STEP, key=whole)
        return
    step_id = job.catalog.step_id(pictures.STEP, whole, create=False)
    known = job.catalog.known_results(step_id) if step_id is not None else set()
    if step_id is not None:
        yield from Mapped(job.catalog, step_id, [file for file in media if file.id in known])
    rest = [file for file in media if file.id not in known]
    key: dict[str, Json] = {"decode": "header", "version": pictures.VERSION}
    yield from job.map(pictures.describe_header, rest, step=pictures.STEP, key=key)
