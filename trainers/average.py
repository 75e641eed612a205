"""Average model files into one: step files of a run, or several runs.

\b
    celforge average models/sabine/sabine-step0000[246]000.safetensors --out sabine-average.safetensors
    celforge average models/sabine --decay 0.5 --out sabine-average.safetensors

FILES are adapters of one shape, or full checkpoints as single files; a folder stands for the step files of
its run and its last one. Files of one run are put in the order of their steps. Of adapters the factors are
averaged, which is near the average of their changes for files of one run; how near is said. --exact averages
the changes themselves, and makes a LoCon whose rank is that of all files together. The same files give the
same bytes.
"""

from pathlib import Path
from typing import Any

import click

from pipeline import console
from pipeline.errors import SettingsError
from pipeline.stage_command import json_option


def _weights(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in text.split(",")) if text else ()
    except ValueError as error:
        raise SettingsError(
            f'--weights must be numbers with commas between, found "{text}"', hint="for instance 1,1,2"
        ) from error


def _average(files: tuple[Path, ...], out: Path, **given: Any) -> None:
    from trainers.averaging import average_files

    report = average_files(
        files,
        out,
        weights=_weights(given["weights"]),
        decay=given["decay"],
        is_exact=given["exact"],
        precision=given["precision"],
        overwrite=given["overwrite"],
    )
    if given["json"]:
        console.write_json(report.as_json())
        return
    for line in report.lines():
        console.write(line)


command = click.Command(
    "average",
    params=[
        click.Argument(["files"], nargs=-1, required=True, type=click.Path(path_type=Path)),
        click.Option(["--out"], required=True, type=click.Path(path_type=Path), help="The file to write."),
        click.Option(["--weights"], metavar="W,W", help="Weights of the files; all alike else."),
        click.Option(
            ["--decay"],
            type=click.FloatRange(0, 1, min_open=True),
            default=1.0,
            show_default=True,
            help="Weight of a file over that of the next one: below 1 the newest counts most.",
        ),
        click.Option(["--exact"], is_flag=True, help="Average the changes of adapters, not their factors."),
        click.Option(
            ["--precision"],
            type=click.Choice(["fp16", "bf16", "fp32"]),
            help="Numbers of the file; those of the files when left out, and fp16 with --exact.",
        ),
        click.Option(["--overwrite"], is_flag=True, help="Write over a file that is there."),
        json_option(),
    ],
    callback=_average,
    help=__doc__,
    short_help=(__doc__ or "").splitlines()[0],
)
