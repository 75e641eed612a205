"""Show every setting and where it came from.

The whole celforge.toml is checked on the way: unknown sections and keys, wrong types, values out of bounds.
"""

from pathlib import Path
from typing import Any

import click

from pipeline import console
from pipeline.characters import resolve_characters
from pipeline.command_table import CHARACTERS_SECTION, COMMANDS, load, section_names, settings_classes
from pipeline.project import find_project, load_toml, section_of
from pipeline.settings import Json, Resolved, as_json, resolve, toml_text
from pipeline.stage_command import folder_argument, json_option


@click.group("config", help=__doc__)
def command() -> None:
    """The group; its text is the module's."""


def rows_in_force(folder: Path) -> tuple[list[dict[str, Json]], list[str]]:
    """Each setting as {section, setting, value, from}, and what has no effect.

    Raises:
        SettingsError: something in celforge.toml is wrong.
    """
    path = find_project(folder).config_path
    data = load_toml(path, section_names())
    rows: list[dict[str, Json]] = []
    warnings: list[str] = []
    sections: dict[str, Resolved[Any]] = {}
    for section, settings_class in settings_classes().items():
        row = COMMANDS.get(section)
        if row is not None and row.has_entries:
            sections |= load(section).resolve_entries(data, path)
        else:
            sections[section] = resolve(settings_class, section, section_of(data, section, path), path, {})
    characters = resolve_characters(data, path)
    sections |= {f"{CHARACTERS_SECTION}.{name}": one for name, one in characters.items()}
    for section, resolved in sections.items():
        warnings += [f"[{section}] {warning}" for warning in resolved.warnings]
        for name, value in as_json(resolved.settings).items():
            rows.append({"section": section, "setting": name, "value": value, "from": resolved.sources[name]})
    return rows, warnings


def _show(folder: Path, **given: Any) -> None:
    rows, warnings = rows_in_force(folder)
    if given["json"]:
        console.write_json(rows)
    else:
        shown = [{**row, "value": _text(row["value"])} for row in rows]
        console.table(shown)
    for warning in warnings:
        console.LOG.warning("%s", warning)


def _text(value: Json) -> str:
    return toml_text(tuple(value)) if isinstance(value, list) else toml_text(value)


HELP = "Print every setting's value and where it came from: the default, or celforge.toml."
command.add_command(
    click.Command("show", params=[folder_argument(), json_option()], callback=_show, help=HELP)
)
