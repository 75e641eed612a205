"""Train a LoHa, a LoCon, a LoRA or a full checkpoint of Stable Diffusion 1.x.

    celforge train loha --data dataset --base anime.safetensors

WHAT is a kind (lora, locon, loha, full) or the name of an entry [[train]] in celforge.toml; without it every
entry is trained, one after the other. Values come from the preset of the kind (the recipes of a model card of
March 2023), then from celforge.toml, then from the flags. Before the GPU is asked the whole plan is shown:
what is read, how long it takes, what it needs, what is odd; --dry-run stops there. Running the same command
again goes on where it stopped, bit for bit.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pipeline import console
from pipeline.command_table import section_names
from pipeline.console import LOG
from pipeline.errors import ExitCode, InputError, MissingPackageError
from pipeline.flags import click_options, take_flags
from pipeline.project import Project, entries_of, find_project, load_toml
from pipeline.settings import Resolved, nearest
from pipeline.stage_command import json_option
from trainers.train_settings import KINDS, SECTION, Settings, check_before, resolve_entries, resolve_train

__all__ = ["Settings", "check_before", "command", "resolve_entries"]


@dataclass(frozen=True, slots=True)
class Planned:
    """One run that was asked for.

    Args:
        preset: values of its preset.
    """

    resolved: Resolved[Settings]
    preset: Mapping[str, Any]


def planned_runs(what: str | None, flags: Mapping[str, Any]) -> tuple[Project, list[Planned]]:
    """The runs that a command line asks for, and the project they belong to.

    Raises:
        InputError: WHAT is neither a kind nor the name of an entry, or there is nothing to train.
    """
    data: Path | None = flags.get("data")
    start = Path() if data is None else data if data.is_dir() else data.parent
    project = find_project(start)
    path = project.config_path
    entries = entries_of(load_toml(path, section_names()), SECTION, path)
    by_name = {str(one.get("name") or one.get("kind") or "loha"): one for one in entries}
    if what is None:
        if not entries:
            raise InputError(
                "there is nothing to train: no kind was given, and celforge.toml has no [[train]]",
                hint=f"celforge train loha --data dataset --base MODEL (or {', '.join(KINDS[:2])}, full)",
            )
        chosen: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = [(one, flags) for one in entries]
    elif what in by_name:
        chosen = [(by_name[what], flags)]
    elif what in KINDS:
        chosen = [({}, {**flags, "kind": what})]
    else:
        known = [*KINDS, *by_name]
        near = nearest(what, known)
        raise InputError(
            f'"{what}" is neither a kind to train nor the name of a [[train]]',
            hint=f'did you mean "{near}"?' if near else f"known: {', '.join(known)}",
        )
    return project, [Planned(*resolve_train(table, path, given)) for table, given in chosen]


def _train(what: str | None, **given: Any) -> None:
    is_dry_run, is_json = given.pop("dry_run"), given.pop("json")
    flags = take_flags(Settings, given)
    project, runs = planned_runs(what, flags)
    _require_torch()
    reports = []
    for run in runs:
        for warning in run.resolved.warnings:
            LOG.warning("%s", warning)
        reports.append(_one(project, run, is_dry_run=is_dry_run, is_json=is_json))
    if is_json:
        console.write_json(reports if len(reports) > 1 else reports[0])
    has_failures = any(report.get("failures") for report in reports)
    click.get_current_context().exit(ExitCode.FAILED_ITEMS if has_failures else ExitCode.DONE)


def _one(project: Project, run: Planned, *, is_dry_run: bool, is_json: bool) -> dict[str, Any]:
    from trainers.preflight import prepare
    from trainers.train_run import hashes_of, run_training

    started = time.monotonic()
    prepared = prepare(run.resolved, run.preset, project)
    if not is_json:
        for line in prepared.lines():
            console.write(line) if isinstance(line, str) else console.table(line.rows, title=line.title)
    report: dict[str, Any] = {"run": run.resolved.settings.run_name, "plan": prepared.as_json()}
    if is_dry_run:
        return report
    outcome = run_training(prepared)
    report |= {
        "steps": outcome.steps,
        "smoothed_loss": outcome.smoothed_loss,
        "best": None if outcome.best is None else outcome.best.as_json(),
        "made": [str(path) for path, _ in outcome.made],
        "hashes": hashes_of(outcome.made),
        "failures": [
            {"path": one.path, "reason": one.reason, "detail": one.detail} for one in prepared.failures
        ],
        "seconds": round(time.monotonic() - started, 3),
    }
    if not is_json:
        for line in _result_lines(report):
            console.write(line)
    return report


def _result_lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"{report['run']}: {report['steps']:,} steps"
    if report["failures"]:
        yield f"{len(report['failures']):,} pictures could not be read and were left out; the log names them"
    for path in report["made"]:
        known = report["hashes"].get(Path(path).name)
        yield f"made: {path}" + (f"  AutoV2 {known['AutoV2']}  AutoV3 {known['AutoV3']}" if known else "")
    if report["best"]:
        yield report["best"]["text"]
    yield f"train took {report['seconds']:.1f} s"


def _require_torch() -> None:
    try:
        import diffusers  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"training needs a package that is not installed: {error.name}",
            hint="pip install 'celforge[train]'; celforge doctor says which torch fits this machine",
        ) from error


command = click.Command(
    "train",
    params=[
        click.Argument(["what"], required=False),
        *(one for one in click_options(Settings) if one.name != "kind"),
        click.Option(["--dry-run"], is_flag=True, help="Show the plan of the run, and train nothing."),
        json_option(),
    ],
    callback=_train,
    help=__doc__,
    short_help=(__doc__ or "").splitlines()[0],
)
