"""Put pictures into a tree by character, as trainers balance them: n_characters/character.

The tree is made of hard links in dataset/ at the top of the project; captions and other files beside a
picture come along. Pictures that dedupe dropped stay out. Running it again brings the tree up to date: new
pictures come in, corrected names move, dropped pictures go to .celforge/dropped. What a person did in the
tree is kept: files of their own, pictures that they moved, captions that they edited.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.arrange_sources import Sources, Wanted, read_sources, wanted_pictures
from pipeline.arranging import STAGE, Arranger
from pipeline.errors import InputError
from pipeline.files import partial_path, place
from pipeline.folder_format import FolderFormat, parse_format
from pipeline.job import Job, Report, no_images
from pipeline.layouts.everydream import Tree, read_tree
from pipeline.plan import Plan
from pipeline.project import DATASET
from pipeline.report import Table
from pipeline.settings import Json, option
from pipeline.tree_state import TreeState

HAS_PLAN = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [arrange] of celforge.toml."""

    out: Path | None = option(
        None,
        "Where the tree is made, inside the project; dataset at its top when left out.",
        metavar="FOLDER",
    )
    format: str = option(
        "n_characters/character",
        "Levels of the tree, of n_characters, character, character_string, n_people, n_faces, fh_ratio, "
        "image_type, folder.",
        metavar="LEVEL/LEVEL",
    )
    max_character_number: int = option(
        6, "This many characters, people or faces, and more, share one folder: 6+_characters.", min=1, max=99
    )
    min_images_per_combination: int = option(
        10, "Characters and combinations with fewer pictures go to character_others.", min=1, max=1_000_000
    )
    face_ratio_folder_range: int = option(
        25, "Width of the folders of fh_ratio, in percent of the picture's height.", min=1, max=100
    )
    how: Literal["hardlink", "copy", "symlink", "move", "reflink"] = option(
        "hardlink", "How a picture and the files beside it come into the tree; hard links take no space."
    )
    put_back: bool = option(
        False, "Put pictures and captions back that were taken out of the tree by hand.", affects_result=False
    )


def run(job: Job, settings: Settings) -> Report:
    """Bring the tree up to date with the pictures below the job's folder and what is known of them."""
    layout = FolderFormat(
        parse_format(settings.format),
        settings.max_character_number,
        settings.min_images_per_combination,
        settings.face_ratio_folder_range,
    )
    out = tree_folder(job, settings.out)
    sources = read_sources(job, job.project.relative(out))
    if not sources.paths and not job.failures:
        raise _nothing_to_arrange(job, sources)
    state = TreeState(read_tree(out) if out.is_dir() else Tree(str(out), {}), sources.top)
    wanted = wanted_pictures(job, sources, layout, state.folders)
    arranger = Arranger(job.root, state, sources.places, settings.how, settings.put_back)
    for one in wanted.pictures:
        arranger.take(one, sources.records.get(one.content))
    job.check_stop()
    if settings.how == "reflink" and not job.is_dry_run:
        _check_reflinks(job, arranger)
    report = job.apply(Plan(STAGE, arranger.actions(in_bulk=not job.is_dry_run)))
    _tell(report, arranger, wanted)
    if out.is_dir():
        report.made.append(out)
    return report


def tree_folder(job: Job, wanted: Path | None) -> Path:
    """The folder of the tree.

    Raises:
        InputError: outside the project, above the pictures, or the pictures lie in it.
    """
    out = job.root / DATASET if wanted is None else Path(os.path.abspath(wanted.expanduser()))
    if not out.is_relative_to(job.root) or out == job.root or job.project.state_folder in (out, *out.parents):
        hint = f"take a folder below it: --out {job.root / DATASET}"
        raise InputError(f"the tree {out} must lie inside the project {job.root}", hint=hint)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", hint="take another --out")
    if job.folder.is_relative_to(out):
        hint = f"give the folder with the pictures, such as {job.root}, or another --out"
        raise InputError(f"{job.folder} lies in the tree that would be made of it, {out}", hint=hint)
    return out


def _check_reflinks(job: Job, arranger: Arranger) -> None:
    """See before anything is begun whether the disk can share bytes.

    Raises:
        InputError: it cannot.
    """
    source = arranger.first_source
    trial = partial_path(job.project.state_folder / "reflink")
    if source is None:
        return
    try:
        place(job.root / source, trial, "reflink", sync=False)
    except InputError as error:
        raise InputError(f"the disk of {job.root} makes no reflinks", hint="take --how copy") from error
    finally:
        trial.unlink(missing_ok=True)


def _nothing_to_arrange(job: Job, sources: Sources) -> InputError:
    if not sources.places:
        return no_images(job.folder)
    top = job.root / sources.top
    return InputError(
        f"all pictures below {job.folder} lie in {top}, the tree that is made",
        hint="take another folder for the tree: --out FOLDER",
    )


def _tell(report: Report, arranger: Arranger, wanted: Wanted) -> None:
    """Add what was done, in place of counts of files, where a picture and its place in the tree are two."""
    report.counts.clear()
    values: dict[str, Json] = {
        "in_the_tree": sum(arranger.folders.values()),
        "done": dict(arranger.counts) or "nothing: the tree is up to date",
        "left_out": dict(wanted.left_out.most_common()),
    }
    if arranger.by_hand:
        values["by_hand"] = dict(arranger.by_hand.most_common())
    if wanted.rare:
        values["too_few_for_a_folder"] = [f"{name} ({count:,})" for name, count in wanted.rare.most_common()]
    values |= {name: list(texts) for name, texts in wanted.notes.items()}
    report.values |= values
    report.parts.append(Table("folders", _folder_rows(arranger), "folders"))


def _folder_rows(arranger: Arranger) -> list[dict[str, Any]]:
    top = arranger.state.top
    return [
        {"folder": folder[len(top) + 1 :] or ".", "images": count}
        for folder, count in sorted(arranger.folders.items())
    ]
