"""A recipe of another trainer as settings of a [[train]], with a word on what is not simply equal.

Nothing of a recipe is dropped in silence: an option becomes a setting, or a note says what it would have
done.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import SettingsError
from pipeline.settings import Option, options_of, toml_text
from trainers.train_settings import Settings, resolve_train

Weight = Literal["no equal", "differs", "not needed"]
WEIGHTS: tuple[Weight, ...] = ("no equal", "differs", "not needed")
OPTIONS: Mapping[str, Option] = {one.name: one for one in options_of(Settings)}
_PATHS = {name for name, one in OPTIONS.items() if one.kind is Path} | {"base", "vae"}


@dataclass(frozen=True, slots=True)
class Note:
    """What is to be said of one option.

    Args:
        option: in the words of the trainer it comes from.
        weight: nothing here does it; something does, and not quite the same; or nothing is lost without it.
    """

    option: str
    value: Any
    weight: Weight
    text: str


@dataclass(slots=True)
class Recipe:
    """Settings for a [[train]], and notes.

    Args:
        defaults: values that the recipe never said and its trainer takes; written where the preset has
            others.
    """

    values: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def note(self, option: str, value: Any, weight: Weight, text: str) -> None:
        """Say something of an option."""
        self.notes.append(Note(option, value, weight, text))

    def take(self, name: str, value: Any, option: str) -> None:
        """Set a setting, if it takes this value; else a note says why not."""
        one = OPTIONS[name]
        value = int(value) if one.kind is int and isinstance(value, float) and value.is_integer() else value
        try:
            checked = one.check(value, option)
        except SettingsError as error:
            self.note(option, value, "no equal", error.message)
            return
        self.values[name] = str(checked) if isinstance(checked, Path) else checked

    def entry(self) -> dict[str, Any]:
        """Keys and values to write: what was said, and defaults that are not those of the preset.

        Raises:
            SettingsError: they do not go together.
        """
        said = {"kind": self.values.get("kind") or self.defaults["kind"], **self.values}
        resolved, _ = resolve_train({"kind": said["kind"]}, None, {})
        unsaid = {
            name: value
            for name, value in self.defaults.items()
            if name not in said and name in OPTIONS and getattr(resolved.settings, name) != value
        }
        if "epochs" in said:
            unsaid.pop("steps", None)
        entry = said | unsaid
        resolve_train(entry, None, {})
        return {name: entry[name] for name in OPTIONS if name in entry}

    def find_files(self, folders: Iterable[Path]) -> None:
        """Make relative paths absolute by the first folder in which they are; name those that are nowhere."""
        for name in sorted(_PATHS & self.values.keys()):
            given = str(self.values[name])
            if not given or (name in ("base", "vae") and _is_on_hub(given)):
                continue
            places = [Path(folder, given).expanduser() for folder in folders]
            found = next((place for place in places if place.exists()), None)
            if found is not None:
                self.values[name] = str(found.absolute())
            elif name != "out":
                self.note(name, given, "differs", "is not here: write where it lies on this machine")


def _is_on_hub(given: str) -> bool:
    """Whether it is `owner/name` rather than a path; a folder that is there counts as one."""
    parts = given.split("/")
    is_name = len(parts) == 2 and all(parts) and "\\" not in given and not given.startswith((".", "~"))
    return (
        is_name and Path(given).suffix.lower() not in (".safetensors", ".ckpt") and not Path(given).exists()
    )


def entry_text(entry: Mapping[str, Any], notes: Iterable[Note], *, source: str) -> str:
    """A [[train]] with the notes that matter above it, as celforge.toml has it."""
    lines = [f"# from {source}"]
    lines += [
        f"# {one.option}{_value(one.value)}: {one.text}".replace("\n", " ")
        for one in notes
        if one.weight != "not needed"
    ]
    lines.append("[[train]]")
    lines += [f"{name} = {_toml(value)}" for name, value in entry.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    return "" if value in (None, True, "") else f" {value}"


def _toml(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    return toml_text(tuple(value) if isinstance(value, list) else value)
