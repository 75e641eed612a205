"""Carry out the whole way of celforge.toml: from videos or screenshots to trained models.

The stages that have a section in celforge.toml run in their order: extract or ingest, dedupe, tag, identify,
caption, arrange, balance, flatten, check, every [[train]], compare, report. The plan is shown first: what is
done, what is stale and why, what will run. Running it again goes on where it stopped; where nothing changed,
it does nothing. --plan shows the plan alone.
"""

import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pipeline import console
from pipeline.chain import Chain, Link, Settings, read_chain, select
from pipeline.chain_plan import Planned, forecast
from pipeline.console import LOG
from pipeline.errors import InputError, PipelineError
from pipeline.files import format_bytes
from pipeline.flags import click_options, take_flags
from pipeline.project import CONFIG_NAME, Project, find_project
from pipeline.run import Done, Run
from pipeline.stage_command import command_of, json_option

__all__ = ["Settings", "command"]

WIDTH = 80
NOTHING_FOUND = "0 errors, 0 warnings"
RESULTS: Mapping[str, str] = {  # what a stage made, as the summary calls it
    "extract": "frames",
    "arrange": "dataset",
    "flatten": "kohya",
    "train": "model",
    "compare": "grid",
    "report": "report",
}


def _project_of(config: Path | None) -> Project:
    """The project of a celforge.toml or of a folder.

    Raises:
        InputError: no such file or folder, or a file of another name.
    """
    if config is None or config.is_dir():
        return find_project(config or Path())
    if config.name != CONFIG_NAME:
        hint = f"give the project's folder, or its {CONFIG_NAME}"
        raise InputError(f"settings are read from {CONFIG_NAME} alone, not from {config}", hint=hint)
    if not config.is_file():
        raise InputError(f"there is no file {config}", hint=f"celforge init {config.parent}")
    return Project(config.expanduser().absolute().parent)


def _run(config: Path | None, **given: Any) -> None:
    flags = take_flags(Settings, given)
    chain = read_chain(_project_of(config), flags)
    links = select(chain, given["from_stage"], given["to_stage"], given["only"])
    run = Run(
        chain,
        command_of,
        _say_stage,
        lambda done: _say_done(links.index(done.link) + 1, len(links), done),
        again="celforge run" if chain.project.root == Path.cwd() else f"celforge run {chain.project.root}",
    )
    started = time.monotonic()
    planned = run.plan(links)
    answer = _plan_json(chain, planned)
    is_json: bool = given["json"]
    if given["plan"]:
        if is_json:
            console.write_json(answer)
        else:
            _show_plan(chain, planned)
        run.check(planned)
        return
    has_work = any(one.state != "up to date" for one in planned)
    if has_work and not is_json:
        _show_plan(chain, planned)
        console.write()
    code = 0
    try:
        code = int(run.carry_out(links))
    except PipelineError as error:
        code = int(error.exit_code)
        answer["error"] = str(error)
        raise
    finally:
        seconds = time.monotonic() - started
        answer |= {
            "stages": [one.as_json() for one in run.done],
            "exit_code": code,
            "seconds": round(seconds, 3),
        }
        if is_json:
            console.write_json(answer)
        elif run.done:
            _show_summary(chain, run.done, len(links), seconds)
    click.get_current_context().exit(code)


def _plan_json(chain: Chain, planned: Sequence[Planned]) -> dict[str, Any]:
    return {
        "project": str(chain.project.root),
        "plan": [one.as_json() for one in planned],
        "left_out": dict(chain.left_out),
        "forecast": forecast(chain, planned),
    }


# The plan


def _show_plan(chain: Chain, planned: Sequence[Planned]) -> None:
    console.write(f"plan for {chain.project.root}")
    left_out = chain.left_out if len(planned) == len(chain.links) else {}  # else they were not asked for
    names = [*(one.link.name for one in planned), *left_out]
    width = max(map(len, names))
    for one in planned:
        _write_row(one.link.name, width, _planned_text(one))
    for name, why in left_out.items():
        _write_row(name, width, f"left out: {why}")
    for line in _forecast_lines(forecast(chain, planned)):
        _write_wrapped(line, "  ")


def _planned_text(one: Planned) -> str:
    if one.state == "up to date":
        return one.state
    unit = {"extract": "video", "train": "step"}.get(one.link.command, "picture")
    takes = []
    if one.items:
        takes.append(f"{one.items:,} {unit}{'' if one.items == 1 else 's'}")
    if one.seconds is not None:
        takes.append(f"about {duration(one.seconds)}")
    if one.state == "perhaps":
        return "; ".join(one.reasons)
    how = f" ({', '.join(takes)})" if takes else ""
    return f"runs{how}: {'; '.join(one.reasons)}"


def _forecast_lines(found: Mapping[str, Any]) -> Iterator[str]:
    unknown = found["seconds_unknown"]
    most = "up to " if found["is_at_most"] else ""
    known = f"{most}about {duration(found['seconds'])}" if found["seconds"] else ""
    if known or unknown:
        yield f"time: {_with_unknown(known, unknown)}"
    unknown = found["bytes_unknown"]
    known = f"about {format_bytes(found['bytes'])}" if found["bytes"] else "" if unknown else "little"
    yield f"disk: {_with_unknown(known, unknown)}; {format_bytes(found['bytes_free'])} are free"


def _with_unknown(known: str, unknown: Sequence[str]) -> str:
    if not unknown:
        return known
    if not known and len(unknown) > 3:
        return "unknown, as nothing was measured yet"
    return f"{known}{', and ' if known else ''}unknown for {', '.join(unknown)}, not measured yet"


def duration(seconds: float) -> str:
    """A time for people: `12 s`, `3 min`, `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# On the way


def _say_stage(number: int, total: int, link: Link, reasons: Sequence[str]) -> None:
    LOG.info("[%d/%d] %s: %s", number, total, link.name, "; ".join(reasons))


def _say_done(number: int, total: int, done: Done) -> None:
    at = f"[{number}/{total}] {done.link.name}"
    if done.is_skipped:
        LOG.info("%s: up to date", at)
    else:
        result = f": {done.record.result}" if done.record.result else ""
        LOG.info("%s done in %s%s", at, duration(done.seconds), result)


# The end


def _show_summary(chain: Chain, done: Sequence[Done], total: int, seconds: float) -> None:
    worked = [one for one in done if not one.is_skipped]
    if worked:
        width = max(len(one.link.name) for one in worked)
        for one in worked:
            failed = f", {one.record.failed:,} FAILED" if one.record.failed else ""
            text = f"{one.record.result or 'done'}{failed}, {duration(one.seconds)}"
            _write_row(one.link.name, width, text)
    found = [(RESULTS[link.command], path) for link, path in _made(chain, done)]
    for name, path in found:
        console.write(f"{name:<7} {path}")
    _say_end(chain, done, total, seconds)


def _say_end(chain: Chain, done: Sequence[Done], total: int, seconds: float) -> None:
    worked = [one for one in done if not one.is_skipped]
    for one in done:
        if one.link.command == "check" and not one.record.result.startswith(NOTHING_FOUND):
            console.write(f"what check found, and what to do: celforge check {one.link.folder}")
    failed = [one.link.name for one in done if one.record.exit_code]
    if failed:
        _write_wrapped(
            f"{', '.join(failed)} ended with failed items or errors: the log names each, also in "
            f"{chain.project.state_folder / 'logs'}"
        )
    if not worked and len(done) == total:
        console.write(f"nothing to do: {_stages(total)} up to date ({seconds:.1f} s)")
        return
    fresh = len(done) - len(worked)
    also = f", {_stages(fresh)} up to date" if fresh else ""
    console.write(f"{len(worked)} of {_stages(total)} done{also}, in {duration(seconds)}")


def _stages(number: int) -> str:
    return f"{number} stage{'' if number == 1 else 's'}"


def _made(chain: Chain, done: Sequence[Done]) -> Iterator[tuple[Link, Path]]:
    """What there is to look at or to use, in the order of the stages."""
    for one in done:
        link, root = one.link, chain.project.root
        if link.command not in RESULTS:
            continue
        named = [root / path for path in one.record.made]
        if link.command == "train":
            named = [path for path in named if path.stem == link.name.partition(".")[2]] or named[-1:]
        elif link.made is not None:
            named = [link.made]
        yield from ((link, path) for path in named if path.exists())


def _write_row(name: str, width: int, text: str) -> None:
    console.write(
        textwrap.fill(
            text,
            WIDTH,
            initial_indent=f"  {name:<{width}}  ",
            subsequent_indent=" " * (width + 4),
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def _write_wrapped(text: str, indent: str = "") -> None:
    lines = textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False
    )
    console.write(lines)


command = click.Command(
    "run",
    params=[
        click.Argument(["config"], type=click.Path(path_type=Path), required=False),
        *click_options(Settings),
        click.Option(["--plan"], is_flag=True, help="Show the plan, and do nothing."),
        click.Option(["--from", "from_stage"], metavar="STAGE", help="Begin with this stage."),
        click.Option(["--to", "to_stage"], metavar="STAGE", help="End with this stage."),
        click.Option(
            ["--only"],
            multiple=True,
            metavar="STAGE",
            help="This stage alone; again for more. An entry [[train]] is called train.NAME.",
        ),
        json_option(),
    ],
    callback=_run,
    help=__doc__,
    short_help=(__doc__ or "").splitlines()[0],
)
