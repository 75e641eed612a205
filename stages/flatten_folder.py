"""The command `flatten_folder`, as anime_screenshot_pipeline had it: flatten a tree where it lies, and back.

It renames folders as the old script did, on trees where that worked: `2_1_character~Asuka`. Where the old
script lost names, stopped half-way or made folders that kohya passes over, this one does it right, or says
why it does not and touches nothing.
"""

import time
from pathlib import Path
from typing import Any, NoReturn, get_args

import click

from pipeline import cli
from pipeline.flattening.foreign import is_of_flatten_folder
from pipeline.flattening.manifest import read_manifest
from pipeline.flattening.repeats import Fractions
from pipeline.flattening.runs import How, flatten_in_place, take_back, take_in
from pipeline.job import Job, Report, open_job
from pipeline.layouts.everydream import read_tree
from pipeline.layouts.flat_names import check_separator
from pipeline.stage_command import json_option, show_report


def run(job: Job, **given: Any) -> Report:
    """Flatten the job's folder in place, or take that back."""
    separator: str = given["separator"]
    check_separator(separator)
    if given["import_kohya"]:
        return take_in(job, separator, is_certain=False)
    if given["revert"]:
        is_its = read_manifest(job.folder) is None and is_of_flatten_folder(read_tree(job.folder), separator)
        return take_in(job, separator, is_certain=True) if is_its else take_back(job, None)
    how = How(
        fractions=given["fractions"],
        seed=0,
        max_scale=10,
        separator=separator,
        is_flat_wanted=given["even_if_flat"],
    )
    return flatten_in_place(job, how, writes_toml=False)


def _flatten_folder(**given: Any) -> None:
    from pipeline.console import set_up_logging

    set_up_logging(verbose=False, quiet=False)
    started = time.monotonic()
    with open_job(given["src_dir"], "flatten", is_dry_run=given["dry_run"]) as job:
        report = run(job, **given)
    show_report(report, seconds=time.monotonic() - started, is_json=given["json"])


command = click.Command(
    "flatten_folder",
    params=[
        click.Option(
            ["--src_dir"],
            type=click.Path(path_type=Path),
            required=True,
            help="Folder that holds the tree; its folders are renamed where they lie.",
        ),
        click.Option(
            ["--separator"],
            default="~",
            show_default=True,
            help="What stands between the names of folders in a flat name.",
        ),
        click.Option(["--revert"], is_flag=True, help="Make the tree again of the flat folders."),
        click.Option(
            ["--fractions"],
            type=click.Choice(get_args(Fractions)),
            default="round",
            show_default=True,
            help="What becomes of 2.4 in multiply.txt; split keeps it exactly, by two folders.",
        ),
        click.Option(
            ["--even-if-flat"], is_flag=True, help="Flatten a tree that looks flat already, such as 3_asuka/."
        ),
        click.Option(
            ["--import-kohya"],
            is_flag=True,
            help="Take in a kohya tree from elsewhere: N_name becomes name, with N in multiply.txt.",
        ),
        click.Option(["--dry-run"], is_flag=True, help="Show what would be done, and do nothing."),
        json_option(),
    ],
    callback=_flatten_folder,
    help=(__doc__ or "").replace("`", ""),
    epilog="More ways, and a dataset TOML without touching the tree: celforge flatten. " + cli.EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """Run the command line and leave the process with its exit code."""
    cli.main(command=command)
