"""The characters of a project: tables of celforge.toml, one each, that several stages read.

    [characters.sabine]
    all = ["pink hair", "twintails"]     # a picture with these tags shows her
    none = ["glasses"]
    tags = ["sabine_(demo)"]             # and so does a tagger's own tag
    caption = "sabine_v1"                # how captions call her

Unknown keys and wrong types are errors that name the file, the key and the nearest right key.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command_table import CHARACTERS_SECTION, section_names
from pipeline.errors import SettingsError
from pipeline.layouts.captions import tag_key
from pipeline.names import path_key
from pipeline.project import load_toml
from pipeline.settings import Resolved, as_json, canonical_json, option, resolve

if TYPE_CHECKING:
    from pipeline.job import Job

SECTION = CHARACTERS_SECTION
SUMMARY = "The characters, one table each: what identify and caption know of them."
EXAMPLE = "sabine"


@dataclass(frozen=True, kw_only=True, slots=True)
class CharacterSettings:
    """A table [characters.NAME] of celforge.toml."""

    all: tuple[str, ...] = option((), "Tags that a picture of the character has, all of them.")
    any: tuple[str, ...] = option((), "Tags of which a picture of the character has at least one.")
    none: tuple[str, ...] = option((), "Tags that no picture of the character has.")
    tags: tuple[str, ...] = option((), "A tagger's own tags for the character.")
    caption: str = option("", "How captions call the character; the name where it is empty.")

    @property
    def has_signature(self) -> bool:
        """Whether tags tell the character."""
        return bool(self.all or self.any)


@dataclass(frozen=True, slots=True)
class Character:
    """A character, with tags in the spelling by which they are compared."""

    name: str
    settings: CharacterSettings
    all: frozenset[str]
    any: frozenset[str]
    none: frozenset[str]

    @property
    def caption(self) -> str:
        """How captions call the character."""
        return self.settings.caption or self.name

    def matches(self, tags: Collection[str]) -> bool:
        """Say whether tags (by `tag_key`) are those of the signature; never without one."""
        return (
            self.settings.has_signature
            and self.all.issubset(tags)
            and (not self.any or not self.any.isdisjoint(tags))
            and self.none.isdisjoint(tags)
        )


def resolve_characters(
    data: Mapping[str, Any], toml_path: Path | None
) -> dict[str, Resolved[CharacterSettings]]:
    """Each table [characters.NAME] with where its values come from.

    Args:
        data: the whole celforge.toml.

    Raises:
        SettingsError: an unknown key, a wrong type, a signature that says only what is not there, or one
            tagger's tag for two characters.
    """
    tables = data.get(SECTION, {})
    if not isinstance(tables, dict):
        hint = f"write a table for each: [{SECTION}.{EXAMPLE}]"
        raise SettingsError(f"[[{SECTION}]] in {toml_path} must be tables with names", hint=hint)
    resolved = {}
    owners: dict[str, str] = {}
    for name, table in tables.items():
        where = f"[{SECTION}.{name}] of {toml_path}"
        if not isinstance(table, dict):
            hint = f"write a table for each: [{SECTION}.{EXAMPLE}]"
            raise SettingsError(f'"{name}" in [{SECTION}] of {toml_path} must be a table', hint=hint)
        one: Resolved[CharacterSettings] = resolve(
            CharacterSettings, f"{SECTION}.{name}", table, toml_path, {}
        )
        if one.settings.none and not one.settings.has_signature:
            hint = "add all = [...] or any = [...]"
            raise SettingsError(f"{where} says only which tags are not there", hint=hint)
        for tag in map(tag_key, one.settings.tags):
            if owners.setdefault(tag, name) != name:
                raise SettingsError(f'"{tag}" is a tag of {owners[tag]} and of {where}')
        resolved[name] = one
    return resolved


def characters_of(data: Mapping[str, Any], toml_path: Path | None) -> dict[str, Character]:
    """The characters of a celforge.toml, by name.

    Raises:
        SettingsError: as `resolve_characters`.
    """
    return {
        name: Character(
            name, one.settings, *(frozenset(map(tag_key, tags)) for tags in _signature(one.settings))
        )
        for name, one in resolve_characters(data, toml_path).items()
    }


def characters_of_job(job: "Job") -> dict[str, Character]:
    """The characters of a job's project; they are saved with the run, as its other settings are.

    Raises:
        SettingsError: as `resolve_characters`.
    """
    toml_path = job.project.config_path
    characters = characters_of(load_toml(toml_path, section_names()), toml_path)
    said = canonical_json({name: as_json(one.settings) for name, one in characters.items()})
    sql = "UPDATE runs SET settings = json_set(settings, ?, json(?)) WHERE id = ?"
    job.catalog.rows(sql, (f"$.{SECTION}", said, job.run_id))
    return characters


def _signature(one: CharacterSettings) -> tuple[tuple[str, ...], ...]:
    return one.all, one.any, one.none


class NameBook:
    """Names as the project writes them: `SABINE` in a folder or a caption is the character `sabine`."""

    def __init__(self, characters: Mapping[str, Character], others: Collection[str] = ()) -> None:
        self._names: dict[str, str] = {}
        for name in others:
            self._names.setdefault(_loose(name), name)
        for name, one in characters.items():
            self._names[_loose(name)] = name
            self._names[_loose(one.caption)] = name

    def known(self, text: str) -> str | None:
        """The character that a text names, or None."""
        return self._names.get(_loose(text))

    def name(self, text: str) -> str:
        """The character that a text names; a new one is called as the text says."""
        return self._names.get(_loose(text), text)


def _loose(text: str) -> str:
    return path_key(tag_key(text))
