"""Draw grids of pictures: models across, prompts down, the same noise everywhere.

\b
    celforge compare --prompts prompts.txt
    celforge compare sabine.safetensors --base anime.safetensors --weights 0,0.5,1 --prompts prompts.txt

Without MODELS every run under models/ of the project is shown with all its step files: the base alone first,
then LoHa, LoCon, LoRA and full checkpoints, each by training step. Files of kohya's scripts, LyCORIS,
diffusers and PEFT are read as well. Pictures, a grid as PNG, and a page go into compare/. Running the same
command again draws only what is missing or has changed; --dry-run says how many pictures that is.
"""

import time
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import click

from pipeline import console
from pipeline.command_table import section_names
from pipeline.console import LOG
from pipeline.errors import ExitCode, MissingPackageError
from pipeline.flags import click_options, take_flags
from pipeline.project import find_project, load_toml, section_of
from pipeline.settings import resolve
from pipeline.stage_command import json_option
from trainers.compare_settings import Settings

__all__ = ["Settings", "command"]

SECTION = "compare"


class _Numbers(click.ParamType[Any]):
    """Numbers with commas between: 0,0.5,1."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self._kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int | float, ...]:
        """A tuple of at least one number."""
        try:
            return tuple(self._kind(one) for one in str(value).split(","))
        except ValueError:
            what = "whole numbers" if self._kind is int else "numbers"
            self.fail(f"{value!r} is not {what} with commas between, such as 1,2", param, ctx)


def _compare(**given: Any) -> None:
    is_dry_run, is_json = given.pop("dry_run"), given.pop("json")
    for name in _NUMBERS:
        given[name] = tuple(chain.from_iterable(given[name] or ()))
    flags = take_flags(Settings, given)
    project = find_project(Path())
    toml_path = project.config_path
    table = section_of(load_toml(toml_path, section_names()), SECTION, toml_path)
    resolved = resolve(Settings, SECTION, table, toml_path, flags)
    for warning in resolved.warnings:
        LOG.warning("%s", warning)
    _require_torch()
    from trainers.compare_run import run_comparison

    started = time.monotonic()
    report = run_comparison(resolved, project, is_dry_run=is_dry_run)
    report["seconds"] = round(time.monotonic() - started, 3)
    code = ExitCode.FAILED_ITEMS if report["failures"] else ExitCode.DONE
    report["exit_code"] = int(code)
    if is_json:
        console.write_json(report)
    else:
        for line in _lines(report, is_dry_run=is_dry_run):
            console.write(line)
    click.get_current_context().exit(code)


def _lines(report: Mapping[str, Any], *, is_dry_run: bool) -> Iterator[str]:
    yield f"{len(report['columns']):,} models, {len(report['rows']):,} rows: {report['pictures']:,} pictures"
    if is_dry_run:
        yield f"{report['missing']:,} to draw; nothing was drawn (--dry-run)"
    else:
        yield f"{report['drawn']:,} drawn, {report['pictures'] - report['drawn']:,} were there already"
    for one in report["failures"]:
        yield f"left out: {one['path']}: {one['reason']}"
    for path in report["made"]:
        yield f"made: {path}"
    yield f"compare took {report['seconds']:.1f} s"


def _require_torch() -> None:
    try:
        import diffusers  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"drawing needs a package that is not installed: {error.name}",
            hint="pip install 'celforge[train]'; celforge doctor says which torch fits this machine",
        ) from error


_NUMBERS: Mapping[str, type[int] | type[float]] = {"steps": int, "weights": float, "seed": int}


def _parameters() -> Iterator[click.Parameter]:
    yield click.Argument(["models"], nargs=-1, type=click.Path(path_type=Path))
    for one in click_options(Settings):
        if one.name in _NUMBERS:
            one.type = _Numbers(_NUMBERS[one.name])
        if one.name != "models":
            yield one
    yield click.Option(["--dry-run"], is_flag=True, help="Say how many pictures it is, and draw nothing.")
    yield json_option()


command = click.Command(
    "compare",
    params=list(_parameters()),
    callback=_compare,
    help=__doc__,
    short_help=(__doc__ or "").splitlines()[0],
)
