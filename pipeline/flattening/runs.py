"""What `celforge flatten` and `flatten_folder` do with a job: look, plan, apply, and say what happened."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.actions import FileAction
from pipeline.errors import InputError
from pipeline.flattening import dataset
from pipeline.flattening.back import Back, plan_back
from pipeline.flattening.back_beside import plan_back_beside
from pipeline.flattening.beside import plan_beside
from pipeline.flattening.foreign import looks_flat, plan_import
from pipeline.flattening.in_place import plan_in_place
from pipeline.flattening.manifest import TOML_NAME, Manifest, To, read_manifest
from pipeline.flattening.repeats import Fractions
from pipeline.flattening.survey import Survey, survey
from pipeline.job import Job, Report
from pipeline.many_objects import many_objects
from pipeline.plan import Plan

STAGE = "flatten"


@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """How multiplies become whole numbers, and paths names."""

    fractions: Fractions
    seed: int
    max_scale: int
    separator: str
    is_flat_wanted: bool  # also where the tree looks flat already


@many_objects()
def flatten_in_place(job: Job, how: How, *, writes_toml: bool) -> Report:
    """Rename the folders of the job's tree to `N_name`.

    Raises:
        InputError: no pictures, or the tree is flat already.
        PlanError: something stands against it; nothing was touched.
    """
    found = _survey(job, how, shares_sidecars=False)
    actions = plan_in_place(found, separator=how.separator, writes_toml=writes_toml)
    _warn(job, [*found.notes, *dataset.notes(found, has_toml=writes_toml)])
    return _reported(job, found, actions, [_root(job) / TOML_NAME] if writes_toml else [])


@many_objects()
def flatten_beside(job: Job, how: How, to: To, output: Path) -> Report:
    """Make a dataset TOML, or folders of links with one, beside the job's tree.

    Raises:
        InputError: no pictures, the tree is flat already, or the output holds something else.
        PlanError: something stands against it; nothing was touched.
    """
    found = _survey(job, how, shares_sidecars=True)
    planned = plan_beside(found, output, to, separator=how.separator)
    _warn(job, [*found.notes, *dataset.notes(found, has_toml=True), *planned.notes])
    report = _reported(job, found, planned.actions, [output / TOML_NAME])
    if not planned.actions:
        report.values["output"] = "is up to date"
    return report


@many_objects()
def take_back(job: Job, output: Path | None) -> Report:
    """Take back what was made of the job's tree: in place, or beside it in `output`.

    Raises:
        InputError: nothing was made of it.
        PlanError: something stands in the way; nothing was touched.
    """
    root = _root(job)
    manifest = read_manifest(root)
    if manifest is not None and manifest.to == "in-place":
        return _taken_back(job, plan_back(root, manifest))
    if manifest is not None:
        source = os.path.normpath(root / manifest.source)
        hint = f"name the tree: celforge flatten --revert {source} --output {root}"
        raise InputError(f"{root} was made of {source}, which is untouched", hint=hint)
    manifest = read_manifest(output) if output is not None and output.is_dir() else None
    if output is None or manifest is None or not _is_made_of(manifest, output, root):
        places = f"{root} or {output}" if output is not None else f"{root}"
        hint = "for a kohya tree from elsewhere: --import-kohya; for the last change: celforge undo"
        raise InputError(f"there is no .flatten.json of this tree in {places}", hint=hint)
    return _taken_back(job, plan_back_beside(root, output, manifest))


@many_objects()
def take_in(job: Job, separator: str, *, is_certain: bool) -> Report:
    """Make an EveryDream tree of a kohya tree that came from elsewhere, where it lies.

    Raises:
        InputError: it is none, or celforge made it.
        PlanError: something stands against it; nothing was touched.
    """
    root = _root(job)
    if read_manifest(root) is not None:
        raise InputError(f"celforge flattened {root}, and knows the way back", hint="use --revert")
    return _taken_back(job, plan_import(root, separator, is_certain=is_certain))


def _root(job: Job) -> Path:
    return Path(os.path.realpath(job.folder))


def _survey(job: Job, how: How, *, shares_sidecars: bool) -> Survey:
    root = _root(job)
    if read_manifest(root) is not None:
        hint = "nothing is left to do; to take it back: --revert"
        raise InputError(f"{root} was flattened already", hint=hint)
    found = survey(
        root,
        fractions=how.fractions,
        seed=how.seed,
        max_scale=how.max_scale,
        shares_sidecars=shares_sidecars,
    )
    if looks_flat(found.tree) and not how.is_flat_wanted:
        example = next(iter(found.parts))[0]
        raise InputError(
            f"{root} looks flat already: its pictures lie in folders such as {example}",
            hint="kohya reads it as it is; if these are names of your own: --even-if-flat",
        )
    return found


def _is_made_of(manifest: Manifest, output: Path, root: Path) -> bool:
    return os.path.normpath(output / manifest.source) == str(root)


def _reported(job: Job, found: Survey, actions: Sequence[FileAction], made: list[Path]) -> Report:
    report = job.apply(Plan(STAGE, actions))
    report.values |= found.summary()
    if report.planned is not None:
        report.planned = list(found.rows())
    else:
        report.made = made
    return report


def _taken_back(job: Job, back: Back) -> Report:
    _warn(job, back.notes)
    report = job.apply(Plan(STAGE, back.actions))
    report.values |= back.changes
    return report


def _warn(job: Job, notes: Sequence[str]) -> None:
    for note in notes:
        job.warn(note)
