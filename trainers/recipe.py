"""Take recipes of kohya's scripts and EveryDream2 in, and write them out again.

    celforge recipe import train.sh

`import` makes a [[train]] of celforge.toml; `export` makes a command of kohya's scripts or EveryDream2's
train.json of one. What means something else there, or has no equal, is named, never dropped.
"""

import json
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from pipeline import console
from pipeline.command_table import section_names
from pipeline.errors import InputError, SettingsError
from pipeline.files import write_atomic, write_new
from pipeline.project import CONFIG_NAME, DATASET, entries_of, existing_folder, find_project, load_toml
from pipeline.stage_command import json_option
from trainers.recipe_everydream import import_everydream, read_json
from trainers.recipe_everydream_export import export_everydream
from trainers.recipe_kohya import import_kohya
from trainers.recipe_kohya_export import as_command, as_config, export_kohya
from trainers.recipe_notes import WEIGHTS, Note, Recipe, entry_text
from trainers.recipe_text import CommandLine, read_command, read_config
from trainers.train import planned_runs
from trainers.train_settings import SECTION, Settings

_HEADINGS = {
    "no equal": "without an equal: it would have done this",
    "differs": "differs, or stands here otherwise",
    "not needed": "not needed",
}


@click.group("recipe", help=__doc__)
def command() -> None:
    """The group; its text is the module's."""


# Import


def read_recipe(source: Path) -> Recipe:
    """The recipe in a file, whichever trainer's it is; `-` is stdin.

    Raises:
        InputError: it cannot be read, or is no recipe.
    """
    folder = Path() if str(source) == "-" else source.absolute().parent
    if source.suffix.lower() == ".json":
        recipe = import_everydream(read_json(source), folder)
    else:
        recipe = _read_text(_text(source), source, folder)
    recipe.find_files((Path(), folder))
    return recipe


def _read_text(text: str, source: Path, folder: Path) -> Recipe:
    if source.suffix.lower() == ".toml":
        data = read_config(text, str(source))
        if "datasets" in data:
            raise InputError(
                f"{source} is a dataset TOML, no recipe",
                hint=f"train takes it as it is: celforge train loha --data {source}",
            )
        return import_kohya(CommandLine("", options=data), folder)
    command_line = read_command(text, str(source))
    if command_line.script == "train.py":  # EveryDream2's
        options = {name: _from_text(value) for name, value in command_line.options.items()}
        path = Path(folder, str(options.get("config", "train.json")))
        below = read_json(path) if path.is_file() else {}
        return import_everydream(below | options, path.parent if path.is_file() else folder)
    return import_kohya(command_line, folder)


def _from_text(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _text(source: Path) -> str:
    if str(source) == "-":
        return sys.stdin.read()
    try:
        return source.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{source} cannot be read: {error.strerror}", hint="give a .sh, .bat, .toml or .json"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not UTF-8", hint="save it again as UTF-8") from error


def _import(source: Path, folder: Path, **given: Any) -> None:
    recipe = read_recipe(source)
    if given["name"]:
        recipe.values["name"] = given["name"]
    entry = recipe.entry()
    text = entry_text(entry, recipe.notes, source="stdin" if str(source) == "-" else source.name)
    path = existing_folder(folder) / CONFIG_NAME
    whole = _with_entry(path, text, str(entry.get("name") or entry["kind"]))
    if not given["dry_run"]:
        write_atomic(path, whole)
    if given["json"]:
        console.write_json(
            {"entry": entry, "notes": _rows(recipe.notes), "made": None if given["dry_run"] else str(path)}
        )
        return
    console.write(text.rstrip("\n"))
    _show(recipe.notes)
    if given["dry_run"]:
        console.write("nothing was written (--dry-run)")
        return
    console.write(f"made: [[{SECTION}]] in {path}")
    console.write(f"next: celforge train {entry.get('name') or entry['kind']} --dry-run")


def _with_entry(path: Path, text: str, name: str) -> str:
    """celforge.toml with one more entry at its end; nothing else of it changes.

    Raises:
        SettingsError: it is not valid, has an entry of that name, or one `[train]`.
    """
    data = load_toml(path if path.is_file() else None, section_names())
    for one in entries_of(data, SECTION, path):
        if (one.get("name") or one.get("kind") or "loha") == name:
            raise SettingsError(
                f'{path} has a [[{SECTION}]] "{name}" already',
                hint="give another name: --name NAME; nothing was written",
            )
    before = path.read_bytes().decode("utf-8-sig") if path.is_file() else ""
    if before:
        newline = "\r\n" if "\r\n" in before else "\n"
        before = before.rstrip() + 2 * newline
        text = text.replace("\n", newline)
    try:
        tomllib.loads(before + text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"no entry can be added to {path}: {error}",
            hint=f"write [[{SECTION}]] instead of [{SECTION}] there",
        ) from error
    return before + text


def _show(notes: Iterable[Note]) -> None:
    ordered = list(notes)
    for weight in WEIGHTS:
        rows = [
            {
                "option": one.option,
                "value": "" if one.value in (None, True) else str(one.value),
                "what": one.text,
            }
            for one in ordered
            if one.weight == weight
        ]
        if rows:
            console.table(rows, title=_HEADINGS[weight])


def _rows(notes: Iterable[Note]) -> list[dict[str, Any]]:
    return [
        {"option": one.option, "value": one.value, "weight": one.weight, "text": one.text} for one in notes
    ]


# Export


def _export(trainer: str, what: str | None, **given: Any) -> None:
    settings = _chosen(what)
    output: Path | None = given["output"]
    if trainer == "everydream":
        files, notes = _everydream_files(settings, output)
    else:
        files, notes = _kohya_files(settings, output)
    if output is not None:
        _write(files)
    if given["json"]:
        console.write_json(
            {"files": {str(path): text for path, text in files.items()}, "notes": _rows(notes)}
        )
        return
    for path, text in files.items():
        console.write(f"made: {path}" if output is not None else text.rstrip("\n"))
    _show(notes)


def _chosen(what: str | None) -> Settings:
    """The one [[train]] that is asked for.

    Raises:
        InputError: several, and none is named.
    """
    _, runs = planned_runs(what, {})
    if len(runs) > 1:
        names = ", ".join(one.resolved.settings.run_name for one in runs)
        raise InputError(f"there are {len(runs)} [[{SECTION}]]", hint=f"name one: {names}")
    return runs[0].resolved.settings


def _kohya_files(settings: Settings, output: Path | None) -> tuple[Mapping[Path, str], list[Note]]:
    script, options, notes = export_kohya(settings)
    suffix = output.suffix.lower() if output else ""
    if suffix == ".toml":
        head = f"# accelerate launch {script} --config_file {output}\n"
        return {output or Path(): head + as_config(options)}, notes
    return {output or Path(): as_command(script, options, is_windows=suffix in (".bat", ".cmd"))}, notes


def _everydream_files(settings: Settings, output: Path | None) -> tuple[Mapping[Path, str], list[Note]]:
    train, optimizer, notes = export_everydream(settings, _images_per_epoch(settings))
    path = output or Path("train.json")
    beside = path.with_name(
        re.sub(r"^train", "optimizer", path.name)
        if path.name.startswith("train")
        else f"optimizer-{path.name}"
    )
    train["optimizer_config"] = beside.name
    return {path: json.dumps(train, indent=2) + "\n", beside: json.dumps(optimizer, indent=2) + "\n"}, notes


def _images_per_epoch(settings: Settings) -> float | None:
    """What an epoch shows, where the data set is there."""
    from pipeline.training_set import read_training_set  # reads pictures' folders: not for --help

    root = settings.data or find_project(Path()).root / DATASET
    if not root.is_dir():
        return None
    return float(sum(one.repeats for one in read_training_set(root, settings.layout).records)) or None


def _write(files: Mapping[Path, str]) -> None:
    """Never over a file that is there.

    Raises:
        InputError: one of them is there, or its folder is not.
    """
    for path in files:
        if path.exists():
            raise InputError(f"{path} is there already", hint="give another name; nothing was written")
        if not path.absolute().parent.is_dir():
            raise InputError(f"there is no folder {path.parent}", hint="make it first")
    for path, text in files.items():
        write_new(path, text)


command.add_command(
    click.Command(
        "import",
        params=[
            click.Argument(["source"], type=click.Path(path_type=Path)),
            click.Argument(["folder"], type=click.Path(path_type=Path), default=Path(), required=False),
            click.Option(
                ["--name"], help="Name of the run, where the recipe's own does not fit.", metavar="NAME"
            ),
            click.Option(
                ["--dry-run"], is_flag=True, help="Show the entry and the notes, and write nothing."
            ),
            json_option(),
        ],
        callback=_import,
        help="""Add the recipe in SOURCE to FOLDER's celforge.toml as a [[train]].

        SOURCE is a .sh, .bat, .ps1 or .txt file that holds a command of kohya's scripts, its config TOML,
        EveryDream2's train.json (with optimizer.json beside it), or - for stdin.""",
    )
)
command.add_command(
    click.Command(
        "export",
        params=[
            click.Argument(["trainer"], type=click.Choice(["kohya", "everydream"])),
            click.Argument(["what"], required=False),
            click.Option(
                ["-o", "--output"],
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="File to write, never over one that is there; else stdout. For kohya .toml gives its "
                "config file, .bat a command of Windows.",
            ),
            json_option(),
        ],
        callback=_export,
        help="""Write a recipe for TRAINER: kohya or everydream.

        WHAT is the name of a [[train]] in celforge.toml, or a kind (lora, locon, loha, full) for its preset;
        the only [[train]] when left out. For everydream optimizer.json is written beside train.json.""",
    )
)
