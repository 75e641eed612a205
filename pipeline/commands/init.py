"""Write a commented celforge.toml.

Every setting of every stage is in it with its help and its default, commented out: take the # away from what
you want to change.
"""

import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from pipeline import console
from pipeline.characters import EXAMPLE, SUMMARY, CharacterSettings
from pipeline.command_table import CHARACTERS_SECTION, COMMANDS, settings_classes
from pipeline.errors import InputError
from pipeline.files import write_atomic
from pipeline.flags import effect_note
from pipeline.project import CONFIG_NAME, STATE_FOLDER, existing_folder
from pipeline.settings import options_of, toml_text
from pipeline.stage_command import folder_argument

HEAD = f"""\
# {CONFIG_NAME}: settings of every stage of celforge in this folder and below it.
# A line without its # counts over the default, a flag on the command line counts over this file.
# See what is in force, and where it came from, with: celforge config show
"""


def config_text() -> str:
    """A celforge.toml with every setting at its default, commented out."""
    parts = [HEAD]
    for section, settings_class in settings_classes().items():
        summary = COMMANDS[section].summary if section in COMMANDS else "What every stage shares."
        is_entry = section in COMMANDS and COMMANDS[section].has_entries
        note = " One entry for each; write it out to have one." if is_entry else ""
        heading = f"# [[{section}]]" if is_entry else f"[{section}]"
        parts.append(f"\n# {summary}{note}\n{heading}\n")
        parts += _options_text(settings_class)
    parts.append(f"\n# {SUMMARY}\n# [{CHARACTERS_SECTION}.{EXAMPLE}]\n")
    parts += _options_text(CharacterSettings)
    return "".join(parts)


def _options_text(settings_class: type) -> Iterator[str]:
    for one in options_of(settings_class):
        text = f"{one.help}{effect_note(one)} ({one.type_name})"
        yield textwrap.fill(text, 110, initial_indent="# ", subsequent_indent="# ") + "\n"
        yield f"# {one.name} = {toml_text(one.default)}\n"


def _init(folder: Path) -> None:
    folder = existing_folder(folder)
    path = folder / CONFIG_NAME
    if path.exists():
        raise InputError(
            f"{path} is there already", hint="edit it, or move it away first; nothing was written"
        )
    (folder / STATE_FOLDER).mkdir(exist_ok=True)
    write_atomic(path, config_text())
    console.write(f"made: {path}")


command = click.Command("init", params=[folder_argument()], callback=_init, help=__doc__)
