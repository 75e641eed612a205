"""A stage's module (`Settings`, `run`) as a click command: flags, celforge.toml, job, report, exit code."""

import time
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from pipeline import console
from pipeline.command_table import JOB_SECTION, load, section_names
from pipeline.console import LOG
from pipeline.flags import click_options, take_flags
from pipeline.job import JobSettings, Report, open_job
from pipeline.layouts.captions import tag_text
from pipeline.project import find_project, load_toml, section_of
from pipeline.report import Details, Part, Table
from pipeline.settings import Resolved, resolve

PLAN_ROWS_SHOWN = 200
LIST_SHOWN = 12  # parts of a list in a report


def stage_command(name: str, module: ModuleType) -> click.Command:
    """Build the command of a stage.

    Args:
        module: holds `Settings` (a dataclass of options), `run(job, settings) -> Report`, a docstring for the
            help, `HAS_PLAN = True` when `run` hands a plan to `job.apply`, which is what `--dry-run`
            shows, and `FILE_OPTION = NAME` where a file in the place of FOLDER is the value of that option.
    """

    def run_stage(**given: Any) -> None:
        folder: Path = given["folder"]
        file_option = getattr(module, "FILE_OPTION", None)
        if file_option and given[file_option] is None and folder.is_file():
            given[file_option], folder = folder, Path()
        is_json: bool = given["json"]
        flags = take_flags(module.Settings, given)
        job_flags = take_flags(JobSettings, given)
        settings, job_settings = _resolve(name, module, folder, flags, job_flags)
        started = time.monotonic()
        is_dry_run = bool(given.get("dry_run"))
        with open_job(folder, name, settings, job_settings=job_settings, is_dry_run=is_dry_run) as job:
            report = module.run(job, settings)
        show_report(report, seconds=time.monotonic() - started, is_json=is_json)
        click.get_current_context().exit(report.exit_code)

    options: list[click.Parameter] = [*click_options(module.Settings), *_shared_options(module)]
    return click.Command(
        name,
        params=[folder_argument(), *options],
        callback=run_stage,
        help=module.__doc__,
        short_help=(module.__doc__ or "").splitlines()[0],
    )


def command_of(name: str) -> click.Command:
    """The click command of a name in the table: what its module holds, or built of its stage."""
    module = load(name)
    found = getattr(module, "command", None)
    return found if isinstance(found, click.Command) else stage_command(name, module)


def folder_argument() -> click.Argument:
    """FOLDER: where to work; the current folder when left out."""
    return click.Argument(["folder"], type=click.Path(path_type=Path), default=Path(), required=False)


def json_option() -> click.Option:
    """--json: the result for machines."""
    return click.Option(["--json"], is_flag=True, help="Print the result as JSON.")


def _shared_options(module: ModuleType) -> list[click.Option]:
    shared = [*click_options(JobSettings), json_option()]
    if getattr(module, "HAS_PLAN", False):
        text = "Show what would be done to which file, and do nothing."
        shared.insert(0, click.Option(["--dry-run"], is_flag=True, help=text))
    return shared


def _resolve(
    name: str, module: ModuleType, folder: Path, flags: dict[str, Any], job_flags: dict[str, Any]
) -> tuple[Any, JobSettings]:
    toml_path = find_project(folder).config_path
    data = load_toml(toml_path, section_names())
    resolved = resolve(module.Settings, name, section_of(data, name, toml_path), toml_path, flags)
    of_job: Resolved[JobSettings] = resolve(
        JobSettings, JOB_SECTION, section_of(data, JOB_SECTION, toml_path), toml_path, job_flags
    )
    for warning in (*resolved.warnings, *of_job.warnings):
        LOG.warning("%s", warning)
    return resolved.settings, of_job.settings


def show_report(report: Report, *, seconds: float, is_json: bool) -> None:
    """Print what a stage did on stdout."""
    if is_json:
        console.write_json(_as_json(report, seconds))
        return
    if report.planned is not None:
        console.table(report.planned[:PLAN_ROWS_SHOWN])
        more = len(report.planned) - PLAN_ROWS_SHOWN
        if more > 0:
            console.write(f"... and {more:,} more; --json shows all")
        console.write(f"{len(report.planned):,} changes planned; nothing was touched (--dry-run)")
    for part in report.parts:
        _write_part(part)
    for (outcome, reason), count in report.counts.items():
        console.write(f"{count:>9,} {outcome}{': ' if reason else ''}{reason}")
    for key, value in report.values.items():
        console.write(f"{key.replace('_', ' ')}: {_value_text(value)}")
    if report.failures:
        console.write(
            f"{len(report.failures):,} failed; each is named in the log above and in .celforge/logs/"
        )
    for path in report.made:
        console.write(f"made: {path}")
    console.write(f"{report.stage} took {seconds:.1f} s")


def _write_part(part: Part) -> None:
    match part:
        case str():
            console.write(part)
        case Table():
            console.table(part.rows[: part.most_shown], title=part.title)
            if (more := len(part.rows) - part.most_shown) > 0:
                console.write(f"... and {more:,} more; --json shows all")


def _value_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{tag_text(name)} {_value_text(part)}" for name, part in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        more = len(value) - LIST_SHOWN
        shown = [
            *map(_value_text, value[:LIST_SHOWN]),
            *([f"and {more:,} more (--json)"] if more > 0 else []),
        ]
        return ", ".join(shown) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _as_json(report: Report, seconds: float) -> dict[str, Any]:
    return {
        "stage": report.stage,
        "exit_code": int(report.exit_code),
        "seconds": round(seconds, 3),
        "counts": [
            {"outcome": outcome, "reason": reason, "files": count}
            for (outcome, reason), count in report.counts.items()
        ],
        "failures": [
            {"path": one.path, "reason": one.reason, "detail": one.detail} for one in report.failures
        ],
        "warnings": report.warnings,
        "planned": report.planned,
        "made": [str(path) for path in report.made],
        **report.values,
        **{part.key: part.rows for part in report.parts if isinstance(part, Table) and part.key},
        **{
            key: value
            for part in report.parts
            if isinstance(part, Details)
            for key, value in part.values.items()
        },
    }
