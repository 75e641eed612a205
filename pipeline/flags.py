"""Options of a Settings dataclass as click options, and back: only what a person typed comes back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.settings import Option, options_of, toml_text


def click_options(settings_class: type) -> list[click.Option]:
    """One click option for each setting; without a default of its own, so that celforge.toml can stand
    between.
    """
    return [_click_option(one) for one in options_of(settings_class)]


def typed_flags(settings_class: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values that were really typed, by setting's name."""
    names = (one.name for one in options_of(settings_class))
    return {name: given[name] for name in names if given.get(name) not in (None, ())}


def take_flags(settings_class: type, given: dict[str, Any]) -> dict[str, Any]:
    """Like `typed_flags`, and removes the settings' names from `given`."""
    typed = typed_flags(settings_class, given)
    for one in options_of(settings_class):
        given.pop(one.name, None)
    return typed


def _click_option(one: Option) -> click.Option:
    names = [one.flag, one.name]
    if one.kind is bool:
        names[0] = f"{one.flag}/--no-{one.flag[2:]}"
    return click.Option(
        names,
        type=_click_type(one),
        default=None,
        multiple=one.is_multiple,
        metavar=one.metavar,
        help=one.help + effect_note(one),
        show_default=_shown_default(one),
    )


def _click_type(one: Option) -> click.ParamType[Any] | None:
    if one.choices:
        return click.Choice(one.choices)
    if one.kind is int:
        return click.IntRange(
            None if one.min is None else int(one.min), None if one.max is None else int(one.max)
        )
    if one.kind is float:
        return click.FloatRange(one.min, one.max)
    if one.kind is Path:
        return click.Path(path_type=Path)
    return None if one.kind is bool else click.STRING


def _shown_default(one: Option) -> str | bool:
    if one.default in (None, ()):
        return False
    if one.kind is bool:
        return "on" if one.default else "off"
    return toml_text(one.default).strip('"')


def effect_note(one: Option) -> str:
    """When a setting has an effect, in words; empty when always."""
    note = " and ".join(_condition(name.replace("_", "-"), values) for name, values in one.only_if.items())
    return f" Only {note}." if note else ""


def _condition(name: str, values: tuple[object, ...]) -> str:
    if values == ("",):
        return f"without {name}"
    return f"with {name} {' or '.join(toml_text(value).strip(chr(34)) for value in values)}"
