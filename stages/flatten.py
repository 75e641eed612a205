"""Turn an EveryDream tree into what kohya reads, and back: nothing lost, fractions kept.

By default the tree is not touched: a dataset TOML for kohya's --dataset_config is written to a folder beside
it. --to hardlink makes folders N_name of links there; --in-place renames the folders themselves. --revert
takes either back, and keeps what was added or edited meanwhile. --import-kohya makes an EveryDream tree of
folders N_name that came from elsewhere.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import SettingsError
from pipeline.flattening.runs import How, flatten_beside, flatten_in_place, take_back, take_in
from pipeline.job import Job, Report
from pipeline.layouts.flat_names import check_separator
from pipeline.settings import option

HAS_PLAN = True
_ONLY_BESIDE = {"in_place": [False]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [flatten] of celforge.toml."""

    to: Literal["toml", "hardlink", "copy", "symlink", "reflink"] = option(
        "toml",
        "What is made beside the tree: a dataset TOML over it, or folders N_name of links or copies.",
        only_if=_ONLY_BESIDE,
    )
    output: Path | None = option(  # noqa: RUF009 - a field, as for every other type
        None,
        "Folder that is made: kohya/ at the top of the project, or FOLDER-kohya beside a FOLDER that is its "
        "own project.",
        only_if=_ONLY_BESIDE,
    )
    in_place: bool = option(False, "Rename the folders of the tree itself to N_name.")
    fractions: Literal["split", "round", "floor", "ceil", "scale"] = option(
        "split",
        "What becomes of 2.4: some pictures get 2 and some 3 (split), all get the nearest, lower or higher "
        "number, or all folders are multiplied by the factor that fits best (scale).",
    )
    seed: int = option(
        0, "Which pictures of a folder get one repeat more.", min=0, only_if={"fractions": ["split"]}
    )
    max_scale: int = option(10, "Largest factor.", min=1, max=100, only_if={"fractions": ["scale"]})
    separator: str = option("~", "What stands between the names of folders in a flat name.", metavar="TEXT")
    even_if_flat: bool = option(False, "Flatten a tree that looks flat already, such as 3_asuka/.")
    revert: bool = option(False, "Take back what flatten made of FOLDER, and keep what changed meanwhile.")
    import_kohya: bool = option(
        False, "Take FOLDER in as a kohya tree from elsewhere: N_name becomes name, with N in multiply.txt."
    )


def run(job: Job, settings: Settings) -> Report:
    """Flatten the job's folder, take that back, or take a kohya tree in."""
    check_separator(settings.separator)
    if settings.revert and settings.import_kohya:
        hint = "--revert takes back what celforge made; --import-kohya is for trees from elsewhere"
        raise SettingsError("--revert and --import-kohya are two ways", hint=hint)
    if settings.import_kohya:
        return take_in(job, settings.separator, is_certain=False)
    output = Path(os.path.realpath(settings.output or default_output(job)))
    if settings.revert:
        return take_back(job, output)
    how = How(
        fractions=settings.fractions,
        seed=settings.seed,
        max_scale=settings.max_scale,
        separator=settings.separator,
        is_flat_wanted=settings.even_if_flat,
    )
    if settings.in_place:
        return flatten_in_place(job, how, writes_toml=True)
    return flatten_beside(job, how, settings.to, output)


def default_output(job: Job) -> Path:
    """`kohya/` at the top of a project; `FOLDER-kohya` beside a folder that is a project by itself."""
    if job.folder != job.root:
        return job.root / "kohya"
    return job.folder.with_name(f"{job.folder.name}-kohya")
