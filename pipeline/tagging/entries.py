"""Entries of taggers.toml, and tagger.toml beside a local model: a tagger as data, checked key by key."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pipeline.errors import InputError, SettingsError
from pipeline.settings import Json, unknown_name
from pipeline.tagging.labels import CATEGORIES, Format
from pipeline.tagging.pixels import WHITE, Colour, Fit, Recipe, Resampling, fits_as_json

BASES = "bases"
FOLDER_ENTRY = "tagger.toml"
_BACKGROUNDS: Mapping[str, Colour] = {"white": WHITE, "black": (0, 0, 0)}
_PILLOW_NUMBERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


@dataclass(frozen=True, slots=True)
class FilePin:
    """What is known of a file beforehand."""

    sha256: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One tagger, as it is described.

    Attributes:
        recipe: None where `preprocess_file` says it.
        output: the model's output that holds the tags, by name or number.
        thresholds: by category; `general` counts for those that are not named.
    """

    name: str
    repo: str
    revision: str | None
    files: Mapping[str, FilePin]
    model: str
    labels: str
    label_format: Format
    categories_file: str | None
    thresholds_file: str | None
    preprocess_file: str | None
    recipe: Recipe | None
    size_px: int
    output: str | int
    activation: Literal["none", "sigmoid"]
    thresholds: Mapping[str, float]
    licence: str
    is_gated: bool


_KEYS: Mapping[str, Any] = {
    "base": str,
    "repo": str,
    "revision": str,
    "files": dict,
    "model": str,
    "labels": str,
    "label_format": get_args(Format),
    "categories_file": str,
    "thresholds_file": str,
    "preprocess_file": str,
    "fit": ("pad", "letterbox", "stretch"),
    "colour": list,
    "resampling": get_args(Resampling),
    "size_px": int,
    "layout": ("NHWC", "NCHW"),
    "channels": ("RGB", "BGR"),
    "value_range": (1, 255),
    "mean": list,
    "std": list,
    "output": (str, int),
    "activation": ("none", "sigmoid"),
    "thresholds": dict,
    "licence": str,
    "gated": bool,
}


def read_entries(path: Path) -> dict[str, Entry]:
    """Every tagger of a taggers.toml by name.

    Raises:
        SettingsError: an unknown key, a wrong value, or a key that is missing.
    """
    data = _load(path)
    bases = data.pop(BASES, {})
    return {name: _entry(name, table, bases, path) for name, table in data.items()}


def read_folder_entry(folder: Path, bases_path: Path) -> Entry | None:
    """The entry that a folder's own tagger.toml describes, or None when it has none.

    Raises:
        SettingsError: as `read_entries`.
    """
    path = folder / FOLDER_ENTRY
    if not path.is_file():
        return None
    return _entry(folder.name, _load(path), _load(bases_path)[BASES], path)


def base_entry(name: str, base: str, bases_path: Path, **values: Any) -> Entry:
    """An entry out of one of the bases and some keys."""
    return _entry(name, {"base": base, **values}, _load(bases_path)[BASES], bases_path)


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {error}", hint="mend it; nothing was run") from error


def _entry(name: str, table: Mapping[str, Any], bases: Mapping[str, Any], path: Path) -> Entry:
    where = f"[{name}] of {path}"
    base = table.get("base")
    if base is not None and base not in bases:
        raise unknown_name("base", str(base), bases, where)
    merged = {**(bases[base] if base else {}), **table}
    for key, value in merged.items():
        _check(key, value, where)
    for key in ("model", "labels", "label_format"):
        if key not in merged:
            raise SettingsError(
                f'{where} lacks "{key}"', hint=f'add it, or a base: base = "{next(iter(bases))}"'
            )
    thresholds = {"general": 0.35, **merged.get("thresholds", {})}
    for category in thresholds:
        if category not in CATEGORIES:
            raise unknown_name("category", category, CATEGORIES, where)
    files = {
        file: FilePin(pin.get("sha256"), pin.get("bytes")) for file, pin in merged.get("files", {}).items()
    }
    preprocess_file = merged.get("preprocess_file") if "fit" not in table else None
    return Entry(
        name=name,
        repo=merged.get("repo", ""),
        revision=merged.get("revision"),
        files=files,
        model=merged["model"],
        labels=merged["labels"],
        label_format=merged["label_format"],
        categories_file=merged.get("categories_file"),
        thresholds_file=merged.get("thresholds_file"),
        preprocess_file=preprocess_file,
        recipe=None if preprocess_file else _recipe(merged),
        size_px=merged.get("size_px", 0),
        output=merged.get("output", 0),
        activation=merged.get("activation", "none"),
        thresholds=thresholds,
        licence=merged.get("licence", "not told"),
        is_gated=merged.get("gated", False),
    )


def _check(key: str, value: Any, where: str) -> None:
    if key not in _KEYS:
        raise unknown_name("key", key, _KEYS, where)
    allowed = _KEYS[key]
    if isinstance(allowed, type):
        is_right = isinstance(value, allowed) and (allowed is bool or not isinstance(value, bool))
    elif all(isinstance(one, type) for one in allowed):
        is_right = type(value) in allowed
    else:
        is_right = value in allowed
    if key in ("mean", "std", "colour"):
        is_right = isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))
    if not is_right:
        raise SettingsError(f'"{key}" in {where} cannot be {value!r}')


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _recipe(merged: Mapping[str, Any]) -> Recipe:
    red, green, blue = merged.get("colour", WHITE)
    fit = Fit(
        merged.get("fit", "pad"),
        resampling=merged.get("resampling", "bicubic"),
        colour=(red, green, blue),
    )
    return Recipe(
        (fit,),
        layout=merged.get("layout", "NHWC"),
        channels=merged.get("channels", "BGR"),
        value_range=merged.get("value_range", 255),
        mean=tuple(merged.get("mean", (0.0, 0.0, 0.0))),
        std=tuple(merged.get("std", (1.0, 1.0, 1.0))),
    )


def read_steps(path: Path) -> Recipe:
    """The recipe in a preprocess.json: its steps under "test" (deepghs/imgutils:imgutils/preprocess).

    Raises:
        InputError: it cannot be read, or asks for a step that is not known.
    """
    try:
        stages = json.loads(path.read_text(encoding="utf-8-sig"))["test"]
        return _recipe_of_stages(stages)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint="download it again") from error
    except (ValueError, KeyError, TypeError) as error:
        hint = f"describe the model by {FOLDER_ENTRY} instead, see the page of celforge tag"
        raise InputError(f"{path} is not understood: {error!r}", hint=hint) from error


def _recipe_of_stages(stages: list[dict[str, Any]]) -> Recipe:
    fits: list[Fit] = []
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    for stage in stages:
        match stage["type"]:
            case "pad_to_size":
                background = stage.get("background_color", "white")
                colour = _BACKGROUNDS[background] if isinstance(background, str) else _three(background)
                size, how = _square(stage["size"]), _filter(stage)
                fits.append(Fit("letterbox", size, how, colour, "round"))
            case "resize" if isinstance(stage["size"], int) or len(stage["size"]) == 1:
                if stage.get("max_size") is not None:
                    raise ValueError("a resize with max_size")
                size = stage["size"] if isinstance(stage["size"], int) else stage["size"][0]
                fits.append(Fit("short_side", size, _filter(stage)))
            case "resize":
                fits.append(Fit("stretch", _square(stage["size"]), _filter(stage)))
            case "center_crop":
                fits.append(Fit("crop", _square(stage["size"])))
            case "normalize":
                mean, std = _three(stage["mean"]), _three(stage["std"])
            case "to_tensor" | "maybe_to_tensor" | "convert_rgb":
                pass  # done for every picture
            case other:
                raise ValueError(f'the step "{other}"')
    return Recipe(tuple(fits), "NCHW", "RGB", 1, mean, std)


def _filter(stage: Mapping[str, Any]) -> Resampling:
    named = stage.get("interpolation", "bilinear")
    name: Any = _PILLOW_NUMBERS[named] if isinstance(named, int) else named
    if name not in get_args(Resampling):
        raise ValueError(f'the interpolation "{name}"')
    return name  # type: ignore[no-any-return]


def _square(size: int | list[int]) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ValueError(f"a size that is not square: {size}")
    return sides.pop()


def _three(values: Any) -> Any:
    return tuple(values) if isinstance(values, list) else (values,) * 3


def recipe_key(recipe: Recipe) -> dict[str, Json]:
    """A recipe as JSON, for the key of cached results."""
    return {
        "fits": list(fits_as_json(recipe.fits)),
        "layout": recipe.layout,
        "channels": recipe.channels,
        "value_range": recipe.value_range,
        "mean": list(recipe.mean),
        "std": list(recipe.std),
    }
