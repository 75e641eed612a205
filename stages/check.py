"""Find what a trainer would read wrongly or not at all, before it does.

Works on any tree: EveryDream folders with multiply.txt, kohya's N_name folders, a kohya dataset TOML, or
plain folders of pictures and captions. Says what kohya's scripts and EveryDream2 would really read, and names
each trap with what to do. Errors give exit code 3. Nothing is changed unless --fix is given.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import SettingsError
from pipeline.job import Job, Report
from pipeline.plan import Plan
from pipeline.report import Details, Part, Table
from pipeline.settings import option

if TYPE_CHECKING:
    from pipeline.lint.look import Asked, Looked
    from pipeline.lint.mending import Mending
    from pipeline.lint.show import Group

HAS_PLAN = True
ROWS_SHOWN = 12  # of folders and of buckets; --json has all
TITLES = {"kohya": "kohya", "everydream": "EveryDream2"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [check] of celforge.toml."""

    trainer: Literal["auto", "kohya", "everydream", "both"] = option(
        "auto", "Whose reading rules count; auto goes by what the tree looks like.", flag="--for"
    )
    decode: Literal["none", "header", "whole"] = option(
        "header",
        "Open no picture, read headers, or decode whole pictures, which finds truncated ones.",
    )
    resolution: int = option(
        512, "Side in pixels of the square that pictures are trained at.", min=128, max=4096
    )
    caption_extension: str = option(
        ".caption", "Suffix of captions that kohya is started with (its --caption_extension).", metavar=".EXT"
    )
    dataset_config: Path | None = option(
        None,
        "A kohya dataset TOML; one that lies in the folder itself is found without this.",
        metavar="FILE",
    )
    max_tokens: int = option(
        75,
        "Tokens of a caption that are read: 75, or with kohya's --max_token_length 150 or 225.",
        min=1,
        max=1000,
    )
    ignore: tuple[str, ...] = option((), "Pass over a trap, by its name.", metavar="TRAP")
    strict: bool = option(False, "Warnings give exit code 3 too.", affects_result=False)
    examples: int = option(
        3, "Places shown of each trap; --json lists all.", min=0, max=10_000, affects_result=False
    )
    fix: bool = option(
        False, "Mend what can be mended safely; `celforge undo` takes it back.", affects_result=False
    )
    copy_captions: Literal["none", "txt", "caption"] = option(
        "none",
        "Write a copy of every caption with this suffix beside it, where there is none.",
        only_if={"fix": (True,)},
        affects_result=False,
    )
    from_encoding: str | None = option(
        None,
        "What captions are in that are not UTF-8, such as cp932 or cp1252; they are saved as UTF-8.",
        metavar="NAME",
        only_if={"fix": (True,)},
        affects_result=False,
    )


def run(job: Job, settings: Settings) -> Report:
    """Check the job's folder, and mend what was asked for."""
    from pipeline.lint.look import look
    from pipeline.lint.traps import known_traps

    ignored = known_traps(settings.ignore, "--ignore")
    asked = _asked(settings)
    looked = look(job, asked)
    mending = None
    report = job.report()
    if settings.fix:
        mending = _mend(looked, settings, ignored)
        report = job.apply(Plan("check", mending.actions))
        if mending.actions and not job.is_dry_run:
            job.failures.clear()
            looked = look(job, asked)
    elif job.is_dry_run:
        job.warn("--dry-run shows what --fix would change: give both")
    _tell(job, report, looked, settings, ignored, mending)
    return report


def _asked(settings: Settings) -> "Asked":
    from pipeline.lint.look import Asked

    extension = settings.caption_extension
    if not extension.startswith(".") or len(extension) < 2:
        hint = f"write .{extension.lstrip('.') or 'txt'}"
        raise SettingsError(f'caption_extension must begin with a full stop, found "{extension}"', hint=hint)
    if settings.from_encoding is not None:
        try:
            codecs.lookup(settings.from_encoding)
        except LookupError:
            hint = "such as cp932 (Japanese Windows), cp1252 (Western Windows), gb18030, euc_kr"
            raise SettingsError(f'there is no encoding "{settings.from_encoding}"', hint=hint) from None
    if settings.dataset_config is not None and not settings.dataset_config.is_file():
        raise SettingsError(f"there is no file {settings.dataset_config}", hint="give a kohya dataset TOML")
    return Asked(
        settings.trainer,
        settings.decode,
        settings.resolution,
        extension,
        settings.dataset_config,
        settings.max_tokens,
        settings.from_encoding,
    )


def _mend(looked: "Looked", settings: Settings, ignored: frozenset[str]) -> "Mending":
    from pipeline.lint.mending import Mending

    mending = Mending(looked.tree, fallback=settings.from_encoding)
    mending.add(one for one in looked.findings if one.trap not in ignored)
    if settings.copy_captions != "none":
        mending.copy_captions(f".{settings.copy_captions}")
    return mending


def _tell(
    job: Job,
    report: Report,
    looked: "Looked",
    settings: Settings,
    ignored: frozenset[str],
    mending: "Mending | None",
) -> None:
    from pipeline.lint.show import as_json, counts, grouped, lines_of

    groups = grouped([one for one in looked.findings if one.trap not in ignored])
    number = counts(groups)
    job.found_errors = bool(number["error"] or (settings.strict and number["warning"]))
    report.found_errors = job.found_errors
    report.failures = list(job.failures)
    for reading in looked.readings:
        report.parts += _reading_parts(looked, reading, settings)
    report.parts += [*lines_of(groups, examples=settings.examples), ""]
    report.values["found"] = {f"{severity}s": count for severity, count in number.items()}
    passed_over = grouped([one for one in looked.findings if one.trap in ignored])
    if passed_over:
        report.values["passed_over"] = {group.trap.name: group.count for group in passed_over}
    if mending is not None:
        report.values["to_mend" if job.is_dry_run else "mended"] = dict(mending.counts)
    elif hint := _mend_hint(groups):
        report.parts.append(hint)
    readings = {one.trainer: _as_json(looked, one, settings) for one in looked.readings}
    report.parts.append(Details({"reading": readings, **as_json(groups)}))


def _mend_hint(groups: "Sequence[Group]") -> str:
    names = [group.trap.name for group in groups if group.trap.mended]
    return f"--fix mends {', '.join(names)}; --fix --dry-run shows how" if names else ""


def _reading_parts(looked: "Looked", reading: Any, settings: Settings) -> list[Part]:
    from pipeline.lint.reading import plain
    from pipeline.lint.show import plural

    rows = reading.rows()
    captions = sum(row["captions"] for row in rows)
    title = TITLES[reading.trainer]
    there_are = plural(looked.num_pictures + reading.num_outside, "picture")
    parts: list[Part] = [
        f"{title} reads {reading.num_pictures:,} of {there_are},"
        f" {captions:,} with a caption; an epoch shows {plain(reading.exposures):,}"
    ]
    parts.append(Table("", rows, most_shown=ROWS_SHOWN))
    buckets = looked.buckets.get(reading.trainer, [])
    if buckets:
        with_flag = " with --enable_bucket" if reading.trainer == "kohya" else ""
        parts.append(Table(f"buckets at {settings.resolution}{with_flag}", buckets, most_shown=ROWS_SHOWN))
    elif reading.folders and settings.decode != "none":
        parts.append(_no_buckets(title, settings.resolution))
    return parts


def _no_buckets(title: str, resolution_px: int) -> str:
    from pipeline.layouts.buckets import everydream_resolutions

    known = ", ".join(map(str, everydream_resolutions()))
    return (
        f"{title} has no buckets at {resolution_px}, and stops: it has them at {known}, "
        "and takes the next step of 64 below what it is given"
    )


def _as_json(looked: "Looked", reading: Any, settings: Settings) -> dict[str, Any]:
    from pipeline.lint.reading import plain

    return {
        "pictures": reading.num_pictures,
        "pictures_in_tree": looked.num_pictures,
        "pictures_outside": reading.num_outside,
        "exposures": plain(reading.exposures),
        "folders": reading.rows(),
        "resolution": settings.resolution,
        "buckets": looked.buckets.get(reading.trainer),
    }
