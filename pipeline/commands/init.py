"""Write a commented celforge.toml.

Every setting of every stage is in it with its help and its default, commented out: take the # away from what
you want to change. `celforge run` takes the file as it is. A folder that is not there yet is made.
"""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from pipeline import console
from pipeline.chain import IMAGES, VIDEOS
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
#
# `celforge run` carries out every stage that has a section here: delete or comment out the [section] of
# one that shall not run. Episodes are looked for in videos/, screenshots in images/. What most people write:
#
#     trigger_words = ["my style"]          in [caption]: how your model will be called
#     [characters.sabine]                   at the end: who is to be known, by her tags
#     [[train]]                             with base = "MODEL": what is trained; without it nothing is
#
# See what would be done: celforge run --plan
"""
CHOSEN: dict[str, dict[str, Any]] = {  # written out, as a stage needs to be told
    "identify": {"by_tags": True},
}
NEXT = """\
put your episodes into {folder}/videos, or screenshots into {folder}/images, look through
{name}, and see what would be done: celforge run {folder} --plan"""


def config_text() -> str:
    """A celforge.toml with every setting at its default, commented out but for what a stage must be told."""
    parts = [HEAD]
    for section, settings_class in settings_classes().items():
        summary = COMMANDS[section].summary if section in COMMANDS else "What every stage shares."
        is_entry = section in COMMANDS and COMMANDS[section].has_entries
        note = " One entry for each; write it out to have one." if is_entry else ""
        heading = f"# [[{section}]]" if is_entry else f"[{section}]"
        parts.append(f"\n# {summary}{note}\n{heading}\n")
        parts += _options_text(settings_class, CHOSEN.get(section, {}))
    parts.append(f"\n# {SUMMARY}\n# [{CHARACTERS_SECTION}.{EXAMPLE}]\n")
    parts += _options_text(CharacterSettings, {})
    return "".join(parts)


def _options_text(settings_class: type, chosen: Mapping[str, Any]) -> Iterator[str]:
    for one in options_of(settings_class):
        text = f"{one.help}{effect_note(one)} ({one.type_name})"
        yield textwrap.fill(text, 110, initial_indent="# ", subsequent_indent="# ") + "\n"
        mark, value = ("", chosen[one.name]) if one.name in chosen else ("# ", one.default)
        yield f"{mark}{one.name} = {toml_text(value)}\n"


def _init(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(parents=True)
    folder = existing_folder(folder)
    path = folder / CONFIG_NAME
    if path.exists():
        raise InputError(
            f"{path} is there already", hint="edit it, or move it away first; nothing was written"
        )
    if not any(folder.iterdir()):
        for name in (VIDEOS, IMAGES):
            (folder / name).mkdir()
    (folder / STATE_FOLDER).mkdir(exist_ok=True)
    write_atomic(path, config_text())
    console.write(f"made: {path}")
    console.write(NEXT.format(folder=folder, name=CONFIG_NAME))


command = click.Command("init", params=[folder_argument()], callback=_init, help=__doc__)
