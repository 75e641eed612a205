"""Write a data set as the files of another trainer: kohya's JSON, OneTrainer, ai-toolkit and others.

FOLDER is a tree of EveryDream or of kohya, with captions beside the pictures; of a project with a dataset/,
it is that. Nothing in it is changed. The files go to exports/ of the project; a Hugging Face metadata.jsonl
goes to the tree itself, where it is looked for. What the other side has no equal for is said.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from sys import intern
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import InputError, PipelineError, PlanError, SettingsError
from pipeline.job import Job, Report, no_images
from pipeline.plan import Plan, Write
from pipeline.settings import Json, option

if TYPE_CHECKING:
    from pipeline.catalog import MediaFile
    from pipeline.exporting.examples import Example, ExampleFolder
    from pipeline.training_set import Record, TrainingSet

HAS_PLAN = True
EXPORTS_FOLDER = "exports"
FACTS = ("characters", "copyright", "artist", "rating")  # columns of imagefolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [export] of celforge.toml."""

    to: Literal["kohya-json", "imagefolder", "onetrainer", "ai-toolkit", "diffusion-pipe"] = option(
        "kohya-json", "Whose files are written."
    )
    out: Path | None = option(
        None,
        "Folder of the files; exports/ of the project, and there one of the trainer's name, when left out.",
        metavar="FOLDER",
    )
    layout: Literal["auto", "everydream", "kohya"] = option(
        "auto", "How FOLDER says repeats: by multiply.txt and its companions, or by names N_name."
    )
    paths: Literal["absolute", "relative"] = option(
        "absolute",
        "How pictures are named: absolute works wherever the trainer is started, relative only in the folder "
        "of the files.",
        only_if={"to": ("kohya-json", "onetrainer", "ai-toolkit", "diffusion-pipe")},
    )
    fractions: Literal["split", "round", "floor", "ceil"] = option(
        "split",
        "What becomes of 2.4 repeats: some pictures get 2 and some 3 (split; only kohya-json can), or all "
        "the nearest, lower or higher number.",
        only_if={"to": ("kohya-json", "ai-toolkit", "diffusion-pipe")},
    )
    seed: int = option(
        0,
        "Which pictures of a folder get one repeat more.",
        min=0,
        only_if={"to": ("kohya-json",), "fractions": ("split",)},
    )
    resolution: int = option(
        512,
        "Side in px of the square that pictures are trained at.",
        min=64,
        max=4096,
        only_if={"to": ("kohya-json", "ai-toolkit", "diffusion-pipe")},
    )
    tags: bool = option(
        False,
        "Beside captions that are sentences, give the tags in the catalogue too.",
        only_if={"to": ("kohya-json",)},
    )
    overwrite: bool = option(False, "Write over files of an earlier export.", affects_result=False)


def run(job: Job, settings: Settings) -> Report:
    """Export the job's folder."""
    from pipeline.exporting.formats import FORMATS
    from pipeline.training_set import training_root

    root = training_root(job.folder, job.root)
    out = _out_folder(job, settings, root)
    folders = _folders(job, settings, root, out)
    exported = FORMATS[settings.to](folders, _how(settings, root, out))
    for note in exported.notes:
        job.warn(note)
    writes = list(_writes(out, exported.files, is_overwriting=settings.overwrite))
    report = job.apply(Plan("export", writes))
    wanted = sum((folder.multiplicity for folder in folders), Fraction())
    report.values.update(
        tree=str(root),
        folders=len(folders),
        pictures=sum(len(folder.examples) for folder in folders),
        shown_in_an_epoch=round(float(wanted), 3),
        shown_after_export=round(float(exported.exposures), 3),
        files=len(exported.files),
        files_written=len(writes),
    )
    report.made += [out / sorted(exported.files)[0] if len(exported.files) == 1 else out]
    return report


def _out_folder(job: Job, settings: Settings, root: Path) -> Path:
    """Where the files go.

    Raises:
        SettingsError: a metadata.jsonl there would not be found beside its pictures.
    """
    if settings.to != "imagefolder":
        return Path(os.path.abspath(settings.out or job.root / EXPORTS_FOLDER / settings.to))
    if settings.out is not None and Path(os.path.abspath(settings.out)) != root:
        hint = f"leave out --out; it is written to {root}"
        raise SettingsError("metadata.jsonl must lie at the top of the pictures it tells of", hint=hint)
    return root


def _how(settings: Settings, root: Path, out: Path) -> Any:
    from pipeline.exporting.formats import How

    is_absolute = settings.paths == "absolute"
    return How(
        root=_named(root, out, is_absolute=is_absolute),
        location=f"{_slashes(out)}/" if is_absolute else "",
        resolution_px=settings.resolution,
        fractions=settings.fractions,
        seed=settings.seed,
        adds_tags=settings.tags,
        absolute=is_absolute,
    )


def _named(path: Path, out: Path, *, is_absolute: bool) -> str:
    """A folder as an export names it.

    Raises:
        SettingsError: it lies on another drive, which no relative path leads to.
    """
    if is_absolute:
        return _slashes(path)
    try:
        return os.path.relpath(path, out).replace(os.sep, "/")
    except ValueError as error:
        raise SettingsError(f"{path} lies on another drive than {out}", hint="--paths absolute") from error


def _slashes(path: Path) -> str:
    return str(path).replace(os.sep, "/")


# What is exported


def _folders(job: Job, settings: Settings, root: Path, out: Path) -> list["ExampleFolder"]:
    """Every folder with its pictures, texts, repeats and settings.

    Raises:
        InputError: no pictures.
        PlanError: the small files of the tree say what cannot be.
    """
    from pipeline.exporting.examples import ExampleFolder
    from pipeline.layouts.everydream import FOLDER_FILES, FolderSettings
    from pipeline.training_set import read_training_set

    files = {file.path: file for file in job.images(root)}
    found = read_training_set(root, settings.layout)
    if found.problems:
        raise PlanError("the small files of this tree cannot be read as they stand: " + found.problems[0])
    examples = _examples(job, found, files)
    folders = []
    for parts, records in found.by_folder().items():
        own = [examples[record.path] for record in records if record.path in examples]
        captions = {record.caption_name for record in records}
        names = set(found.tree.folders[parts].files) - {record.name for record in records} - captions
        if own:
            path = Path(root, *parts)
            is_absolute = settings.paths == "absolute"
            folders.append(
                ExampleFolder(
                    parts,
                    _named(path, out, is_absolute=is_absolute),
                    tuple(own),
                    found.settings.get(parts, FolderSettings()),
                    tuple(sorted(names - FOLDER_FILES | (names & _YAMLS))),
                )
            )
    if not folders:
        raise no_images(root)
    return folders


_YAMLS = frozenset({"local.yaml", "local.yml", "global.yaml", "global.yml"})


def _examples(job: Job, found: "TrainingSet", files: Mapping[Path, "MediaFile"]) -> dict[Path, "Example"]:
    """The pictures that a trainer would read, by path; one whose caption cannot be read is named."""
    known = _facts(job, [files[record.path] for record in found.records if record.path in files])
    examples = {}
    with job.progress(len(found.records), "picture", title="reading captions") as bar:
        for record in found.records:
            job.check_stop()
            if record.repeats:
                file = files.get(record.path)
                try:
                    examples[record.path] = _example(record, known.get(file.id, {}) if file else {})
                except PipelineError as error:
                    if file is None:
                        raise
                    job.fail(file, error)
            bar.advance()
    return examples


def _facts(job: Job, files: Sequence["MediaFile"]) -> dict[int, dict[str, Any]]:
    """Values by content and name; tags are shared texts, of which a large set has few and millions."""
    from pipeline.known_facts import counting_facts

    known: dict[int, dict[str, Any]] = {}
    names = ("tags", "caption", *FACTS)
    for media_id, facts in counting_facts(job.catalog, names, [file.id for file in files]):
        values = {name: fact.value for name, fact in facts.items()}
        if "tags" in values:
            values["tags"] = tuple(map(intern, values["tags"]))
        known[media_id] = values
    return known


def _example(record: "Record", known: Mapping[str, Any]) -> "Example":
    """One picture: the text of its caption file, or, without one, the caption that the catalogue knows.

    Raises:
        InputError: the caption file cannot be read as text.
    """
    from pipeline.exporting.examples import Example
    from pipeline.training_set import read_caption

    try:
        text, problem = read_caption(record)
    except OSError as error:
        text, problem = None, error.strerror or str(error)
    if text is None and problem:
        raise InputError(f"{record.caption_path} cannot be used: {problem}", hint="save it again as UTF-8")
    if record.caption_name is None:
        text = str(known["caption"]) if "caption" in known else ""
    facts: dict[str, Json] = {name: known[name] for name in FACTS if name in known}
    return Example(
        record.name,
        record.repeats,
        " ".join((text or "").split()),
        os.path.splitext(record.caption_name)[1] if record.caption_name else "",
        known.get("tags", ()),
        facts,
    )


# What is written


def _writes(out: Path, files: Mapping[str, str], *, is_overwriting: bool) -> Iterator[Write]:
    """Files that are not there yet with these very bytes.

    Raises:
        PlanError: another file lies there, and it was not said that it may go.
    """
    from pipeline.content_steps import file_sha256

    taken = []
    for relative, text in files.items():
        path = out / relative
        if not path.is_file():
            yield Write(path, text)
        elif path.read_bytes() != text.encode("utf-8"):
            taken.append(path)
            if is_overwriting:
                yield Write(path, text, expects=file_sha256(path))
    if taken and not is_overwriting:
        more = f" and {len(taken) - 1:,} more" if len(taken) > 1 else ""
        hint = "add --overwrite (celforge undo brings them back), or give another folder: --out FOLDER"
        raise PlanError(f"{taken[0]}{more} would be written over", hint=hint)
