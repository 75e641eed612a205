"""Settings of a stage: one frozen dataclass gives the flags, the section of celforge.toml and the reference
page.

A field made by `option()` carries its help, bounds and conditions. Values come, later over earlier, from the
default, the stage's section of celforge.toml, and the flags. Unknown keys, wrong types and values out of
bounds are errors that name the file, the key and the nearest right key; a value that has no effect beside the
others warns.
"""

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from pipeline.errors import SettingsError

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
S = TypeVar("S")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def option(
    default: Any,
    help: str,
    *,
    min: float | None = None,
    max: float | None = None,
    metavar: str | None = None,
    only_if: Mapping[str, Iterable[object]] | None = None,
    affects_result: bool = True,
    flag: str = "",
) -> Any:
    """Declare one setting as a dataclass field.

    Args:
        default: the value when nobody says otherwise; its field's annotation gives the type.
        help: one sentence for `--help`, the reference page and celforge.toml.
        min, max: inclusive bounds of a number.
        metavar: what the help shows for the value, such as `SECONDS`.
        only_if: the setting has an effect only while each named setting has one of these values.
        affects_result: False for settings such as the number of workers, which never make a result stale.
        flag: where the field's name is not the one to type: `--for` cannot be a name in Python.
    """
    conditions = {name: tuple(values) for name, values in (only_if or {}).items()}
    metadata = {
        "help": help,
        "min": min,
        "max": max,
        "metavar": metavar,
        "only_if": conditions,
        "affects_result": affects_result,
        "own_flag": flag,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Option:
    """One setting as data, read from a field made by `option()`."""

    name: str
    kind: type  # int, float, str, bool or Path: the type of one value
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    is_multiple: bool = False  # a tuple of values: a repeated flag, a list in TOML
    is_optional: bool = False  # None is allowed
    min: float | None = None
    max: float | None = None
    metavar: str | None = None
    only_if: Mapping[str, tuple[object, ...]] = dataclasses.field(default_factory=dict)
    affects_result: bool = True
    own_flag: str = ""

    @property
    def flag(self) -> str:
        """The long flag, such as `--threshold-bits`."""
        return self.own_flag or "--" + self.name.replace("_", "-")

    @property
    def type_name(self) -> str:
        """The type in a user's words, such as `a whole number from 0 to 64`."""
        if self.choices:
            one = "one of " + ", ".join(self.choices)
        else:
            one = {
                int: "a whole number",
                float: "a number",
                str: "a text",
                bool: "true or false",
                Path: "a path",
            }[self.kind]
        if self.min is not None and self.max is not None:
            one += f" from {self.min:g} to {self.max:g}"
        elif self.min is not None:
            one += f" of at least {self.min:g}"
        elif self.max is not None:
            one += f" of at most {self.max:g}"
        return f"a list, each {one}" if self.is_multiple else one

    def check(self, value: Any, where: str, *, base_folder: Path | None = None) -> Any:
        """Give `value` in the field's type, or say what is wrong with it.

        Args:
            value: from TOML or a flag.
            where: how a message names the place, such as `"threshold_bits" in [dedupe] of celforge.toml`.
            base_folder: what a relative path is relative to.

        Raises:
            SettingsError: wrong type, not a choice, or out of bounds.
        """
        if value is None and self.is_optional:
            return None
        if not self.is_multiple:
            return self._check_one(value, where, base_folder)
        if not isinstance(value, (list, tuple)):
            raise SettingsError(f"{where} must be {self.type_name}, found {_show(value)}")
        return tuple(self._check_one(item, where, base_folder) for item in value)

    def _check_one(self, value: Any, where: str, base_folder: Path | None) -> Any:
        is_right = {
            int: isinstance(value, int) and not isinstance(value, bool),
            float: isinstance(value, (int, float)) and not isinstance(value, bool),
            str: isinstance(value, str),
            bool: isinstance(value, bool),
            Path: isinstance(value, (str, Path)),
        }[self.kind]
        wrong = f"{where} must be {self.type_name}, found {_show(value)}"
        if not is_right:
            raise SettingsError(wrong)
        if self.choices and value not in self.choices:
            near = nearest(str(value), self.choices)
            raise SettingsError(wrong, hint=f'did you mean "{near}"?' if near else "")
        if self.kind in (int, float):
            below = self.min is not None and not value >= self.min
            above = self.max is not None and not value <= self.max
            if below or above or value != value:
                raise SettingsError(wrong)
        if self.kind is Path:
            return (base_folder or Path()) / Path(value).expanduser()
        return self.kind(value)


def options_of(settings_class: type[Any]) -> tuple[Option, ...]:
    """Read the options of a Settings dataclass, in the order they are written.

    Raises:
        TypeError: a field was not made by `option()`, or its type is not one that flags and TOML can give.
    """
    hints = typing.get_type_hints(settings_class)
    return tuple(_read_field(field, hints[field.name]) for field in dataclasses.fields(settings_class))


def _read_field(field: "dataclasses.Field[Any]", hint: Any) -> Option:
    if "help" not in field.metadata:
        raise TypeError(f"{field.name} is not made by option()")
    is_optional = False
    if isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint):
        is_optional = True
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    is_multiple = typing.get_origin(hint) is tuple
    if is_multiple:
        hint = typing.get_args(hint)[0]
    choices: tuple[str, ...] = ()
    if typing.get_origin(hint) is Literal:
        choices, hint = typing.get_args(hint), str
    if hint not in (int, float, str, bool, Path):
        raise TypeError(f"{field.name}: option() does not know the type {hint!r}")
    return Option(
        name=field.name,
        kind=hint,
        default=field.default,
        choices=choices,
        is_multiple=is_multiple,
        is_optional=is_optional,
        **field.metadata,
    )


@dataclass(frozen=True, slots=True)
class Resolved(Generic[S]):
    """Settings in force, where each came from, and what has no effect."""

    settings: S
    sources: Mapping[str, str]  # name -> "default", "flag" or the TOML file's name
    warnings: tuple[str, ...]


def resolve(
    settings_class: type[S],
    section: str,
    table: Mapping[str, Any],
    toml_path: Path | None,
    flags: Mapping[str, Any],
    *,
    preset: Mapping[str, Any] | None = None,
    preset_name: str = "",
) -> Resolved[S]:
    """Join default < preset < celforge.toml < flag.

    Args:
        section: name of the TOML section, for messages.
        table: the section's keys and values; empty when there is none.
        toml_path: the file `table` came from.
        flags: what was given on the command line, by field name; only what a person really typed.
        preset: values that stand in for the defaults, by key; empty when there are none.
        preset_name: where they came from, for `sources` and messages.

    Raises:
        SettingsError: unknown key, wrong type, out of bounds.
    """
    options = {one.name: one for one in options_of(settings_class)}
    values = {name: one.default for name, one in options.items()}
    sources = dict.fromkeys(options, "default")
    tables = (
        (preset or {}, preset_name, preset_name, None),
        (table, f"[{section}] of {toml_path}", toml_path.name if toml_path else "default", toml_path),
    )
    for keys, where, source, path in tables:
        for key, value in keys.items():
            if key not in options:
                raise unknown_name("key", key, options, where)
            base_folder = path.parent if path else None
            values[key] = options[key].check(value, f'"{key}" in {where}', base_folder=base_folder)
            sources[key] = source
    for name, value in flags.items():
        values[name] = options[name].check(value, options[name].flag)
        sources[name] = "flag"
    return Resolved(
        settings_class(**values), sources, tuple(_without_effect(options.values(), values, sources))
    )


def _without_effect(
    options: Iterable[Option], values: Mapping[str, Any], sources: Mapping[str, str]
) -> Iterable[str]:
    for one in options:
        if sources[one.name] == "default":
            continue
        for name, allowed in one.only_if.items():
            if values[name] not in allowed:
                wanted = " or ".join(_show(value) for value in allowed)
                yield f"{one.name} has no effect: it needs {name} = {wanted}, which is {_show(values[name])}"


def unknown_name(what: str, name: str, known: Iterable[str], where: str) -> SettingsError:
    """The error for a name nobody knows, with the nearest right one."""
    near = nearest(name, known)
    hint = f'did you mean "{near}"?' if near else f"known: {', '.join(sorted(known))}"
    return SettingsError(f'unknown {what} "{name}" in {where}', hint=hint)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when none is near (difflib ratio of 0.6)."""
    matches = difflib.get_close_matches(name.lower().replace("-", "_"), list(known), n=1)
    return matches[0] if matches else None


def as_json(settings: object, *, only_results: bool = False) -> dict[str, Json]:
    """The settings as plain JSON values.

    Args:
        only_results: leave out what cannot change a result (number of workers and the like).
    """
    values: dict[str, Json] = {}
    for one in options_of(type(settings)):
        if only_results and not one.affects_result:
            continue
        value = getattr(settings, one.name)
        if isinstance(value, tuple):
            values[one.name] = [str(item) if isinstance(item, Path) else item for item in value]
        else:
            values[one.name] = str(value) if isinstance(value, Path) else value
    return values


def digest(values: Json) -> str:
    """sha256, hex, of JSON in canonical form (sorted keys, no spaces): the name of a combination of
    settings.
    """
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()


def canonical_json(values: Json) -> str:
    """The one text for a JSON value: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: NaN or infinity inside.
        TypeError: not JSON.
    """
    return _CANONICAL.encode(values)


def toml_text(value: Any) -> str:
    """`value` as TOML writes it; None, which TOML lacks, as an empty text."""
    if isinstance(value, tuple):
        return "[" + ", ".join(toml_text(item) for item in value) + "]"
    if isinstance(value, Path) or value is None:
        value = str(value) if value else ""
    return json.dumps(value, ensure_ascii=False)


def _show(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else toml_text(value) if _is_plain(value) else repr(value)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, Path, tuple))
