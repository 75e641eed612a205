"""Export and import what is known about the images.

The catalogue lies in .celforge/catalog.sqlite3 and travels with its folder; these commands are for backups,
for merging the work of two machines, and for what other tools wrote beside their pictures.
"""

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import click

from pipeline import console
from pipeline.catalog import Catalog, MediaFile
from pipeline.errors import InputError, SidecarError
from pipeline.exchange import export_lines, import_lines
from pipeline.files import write_atomic
from pipeline.job import Job, Report, open_job
from pipeline.project import find_project
from pipeline.sidecars import Sidecar, find_sidecars, read_sidecar
from pipeline.stage_command import folder_argument, json_option, show_report

LINES_SUFFIX = ".jsonl"


@click.group("catalog", help=__doc__)
def command() -> None:
    """The group; its text is the module's."""


def _export(folder: Path, output: Path | None, history: bool, results: bool) -> None:
    with Catalog.open(find_project(folder).catalog_path, read_only=True) as catalog:
        lines = export_lines(catalog, with_history=history, with_results=results)
        if output is None:
            for line in lines:
                console.write(line)
            return
        text = "".join(f"{line}\n" for line in lines)
    if not output.parent.is_dir():
        raise InputError(f"there is no folder {output.parent}", hint="make it first")
    write_atomic(output, text)
    console.write(f"made: {output}")


command.add_command(
    click.Command(
        "export",
        params=[
            folder_argument(),
            click.Option(
                ["-o", "--output"], type=click.Path(path_type=Path), help="File to write; else stdout."
            ),
            click.Option(
                ["--history/--no-history"], default=True, help="Include runs: times, settings, versions."
            ),
            click.Option(
                ["--results/--no-results"], default=True, help="Include cached work: hashes, probabilities."
            ),
        ],
        callback=_export,
        help="Write the catalogue as JSON lines, sorted: the same bytes for the same knowledge.",
    )
)


def _import(source: Path, folder: Path, **given: Any) -> None:
    with open_job(folder, "import") as job, _lines(source) as lines:
        imported = import_lines(job.catalog, lines, str(source))
    if given["json"]:
        console.write_json(asdict(imported))
        return
    for name, count in asdict(imported).items():
        console.write(f"{count:>9,} {name.replace('_', ' ')}")


@contextlib.contextmanager
def _lines(source: Path) -> Iterator[Iterable[str]]:
    if str(source) == "-":
        yield sys.stdin
        return
    try:
        file: TextIO = source.open(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}") from error
    with file:
        yield file


command.add_command(
    click.Command(
        "import",
        params=[
            click.Argument(["source"], type=click.Path(path_type=Path)),
            folder_argument(),
            json_option(),
        ],
        callback=_import,
        help="""Merge SOURCE, made by `celforge catalog export` (or - for stdin), into FOLDER's catalogue.

        Pictures are found by their content, wherever they lie. What a person said here is never replaced.""",
    )
)


def import_sidecars(job: Job) -> Report:
    """Note as facts what other tools wrote beside the pictures below the job's folder.

    What a person said in this project stays above it: sidecars are a machine's word.
    """
    files = job.images()
    ignored: Counter[str] = Counter()
    found: Counter[str] = Counter()
    with job.progress(len(files), "image", title="sidecars") as bar:
        for file in files:
            job.check_stop()
            with job.catalog.transaction():
                job.catalog.clear_outcome(file.id, job.stage)
                for sidecar in _sidecars_of(job, file):
                    found[sidecar.tool] += 1
                    ignored.update(f"{name}: {_kind(why)}" for name, why in sidecar.ignored.items())
                    for name, value in sidecar.facts.items():
                        job.set_fact(file, name, value, source=sidecar.tool)
            bar.advance()
    return job.report(
        pictures=len(files), sidecars=dict(found.most_common()), ignored=dict(ignored.most_common())
    )


def _kind(why: str) -> str:
    """The part of a reason that is the same for all of its kind."""
    return why.partition(", found")[0]


def _sidecars_of(job: Job, file: MediaFile) -> list[Sidecar]:
    """What lies beside a picture, the most telling last, so that its word stays; failures are noted."""
    sidecars = []
    for path in reversed(find_sidecars(file.path)):
        try:
            sidecar = read_sidecar(path, file.path)
        except SidecarError as error:
            job.fail(file, error)
        else:
            if sidecar is not None:
                sidecars.append(sidecar)
    return sidecars


def _sidecars(folder: Path, **given: Any) -> None:
    started = time.monotonic()
    with open_job(folder, "sidecars") as job:
        report = import_sidecars(job)
    show_report(report, seconds=time.monotonic() - started, is_json=given["json"])
    click.get_current_context().exit(report.exit_code)


command.add_command(
    click.Command(
        "sidecars",
        params=[folder_argument(), json_option()],
        callback=_sidecars,
        help="""Take in what other tools wrote beside the pictures of FOLDER.

        Read are waifuc's and anime_screenshot_pipeline's metadata (its first version and today's) and
        imgbrd-grabber's text files. Pickled values inside them are never read.""",
    )
)
