"""Lists of pictures that other trainers read: EveryDream's JSON, kohya's TOML and JSON, JSON lines.

| file | shape |
| --- | --- |
| EveryDream JSON | a list of {"image", "caption" or "main_prompt" and "tags", "multiply"} |
| kohya dataset TOML | subsets with image_dir, num_repeats and caption files, or with a metadata_file |
| kohya metadata JSON | {picture: {"caption", "tags"}}; pictures by path, or by name without its suffix |
| JSON lines | {"image_path" or "file_name", "caption" or "text", "tags", "repeats"} a line |

They are strangers' data: texts and numbers are taken, everything else is passed over.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import InputError
from pipeline.layouts import kohya
from pipeline.layouts.captions import DEFAULT_SEPARATOR, SUFFIXES, parts_of
from pipeline.layouts.everydream import PICTURE_SUFFIXES, READ_SUFFIXES
from pipeline.training_set import Record, read_caption

Tool = Literal["everydream", "kohya", "imagefolder"]


@dataclass(frozen=True, slots=True)
class ForeignPicture:
    """One entry of a list.

    Args:
        path: absolute; it may be missing.
        caption: sentences, or whatever the caption file holds.
        tags: those told apart from the caption, in their order.
        has_tags_in_text: the trainer joins them to the caption; else they only tell of the picture.
    """

    path: Path
    caption: str
    tags: tuple[str, ...]
    repeats: Fraction = Fraction(1)
    has_tags_in_text: bool = True

    @property
    def text(self) -> str:
        """What its trainer trains on: the caption, then the tags."""
        tags = self.tags if self.has_tags_in_text or not self.caption else ()
        return DEFAULT_SEPARATOR.join(part for part in (self.caption, *tags) if part)


@dataclass(slots=True)
class ForeignSet:
    """A list of pictures, and what of it could not be read, as (entry, reason)."""

    tool: Tool
    pictures: list[ForeignPicture] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)


def read_foreign_set(path: Path, images_folder: Path | None = None) -> ForeignSet:
    """Read a list by its suffix and shape.

    Args:
        images_folder: what relative paths are relative to; the list's own folder when left out.

    Raises:
        InputError: no such file, or none of the known shapes.
    """
    base = images_folder or path.parent
    if path.suffix.lower() == ".toml":
        return _kohya_toml(path)
    text = _text(path)
    if path.suffix.lower() == ".jsonl":
        return _json_lines(path, text, base)
    data = _json(path, text)
    if isinstance(data, list):
        return _everydream(data, base)
    if isinstance(data, dict) and not ("datasets" in data and isinstance(data["datasets"], list)):
        found = ForeignSet("kohya")
        _metadata(found, data, base, Fraction(1))
        return found
    hint = "give EveryDream's list, kohya's metadata JSON or its dataset TOML, or JSON lines"
    raise InputError(f"{path} is no list of pictures that is known here", hint=hint)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}", hint="save it again as UTF-8") from error


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error


# EveryDream


def _everydream(data: Sequence[Any], base: Path) -> ForeignSet:
    found = ForeignSet("everydream")
    for number, entry in enumerate(data, 1):
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not entry["image"]:
            found.problems.append((f"entry {number}", 'should be an object with "image"'))
            continue
        caption = _line(entry.get("main_prompt")) or _line(entry.get("caption"))
        tags = tuple(_tags(entry.get("tags")))
        repeats = _repeats(found, entry["image"], entry.get("multiply", 1))
        found.pictures.append(ForeignPicture(_join(base, entry["image"]), caption, tags, repeats))
    return found


# kohya


def _kohya_toml(path: Path) -> ForeignSet:
    _text(path)  # names a file that is not there, or not UTF-8
    found = ForeignSet("kohya")
    for subset in kohya.read_toml(path):
        if "metadata_file" in subset.options:
            metadata_path = path.parent / str(subset.options["metadata_file"])
            data = _json(metadata_path, _text(metadata_path))
            if isinstance(data, dict):
                _metadata(found, data, Path(subset.image_dir), Fraction(subset.num_repeats))
            else:
                found.problems.append((str(metadata_path), "should be an object of pictures"))
        else:
            _caption_files(found, subset)
    return found


def _caption_files(found: ForeignSet, subset: kohya.Subset) -> None:
    try:
        names = subset.images()
    except OSError as error:
        found.problems.append((subset.image_dir, f"cannot be read: {error.strerror}"))
        return
    for name in names:
        path = Path(os.path.abspath(os.path.join(subset.image_dir, name)))
        caption_path = path.with_suffix(subset.caption_extension)
        is_there = caption_path.suffix in SUFFIXES and caption_path.is_file()
        caption_name = caption_path.name if is_there else None
        record = Record((), str(path.parent), name, Fraction(subset.num_repeats), caption_name)
        text, problem = read_caption(record)
        if problem:
            found.problems.append((str(caption_path), problem))
        caption = subset.class_tokens if text is None else _line(text)
        found.pictures.append(ForeignPicture(path, caption, (), record.repeats))


def _metadata(found: ForeignSet, data: Mapping[str, Any], base: Path, repeats: Fraction) -> None:
    for key, entry in data.items():
        if not isinstance(entry, dict):
            found.problems.append((key, "should be an object with a caption or tags"))
            continue
        path = _join(base, key)
        if path.suffix.lower() not in PICTURE_SUFFIXES or not path.exists():
            path = _by_stem(path)
        tags = tuple(_tags(entry.get("tags")))
        found.pictures.append(ForeignPicture(path, _line(entry.get("caption")), tags, repeats))


def _by_stem(path: Path) -> Path:
    """The picture of a key without its suffix, as older scripts of kohya write it; else the path as it is."""
    for suffix in sorted(PICTURE_SUFFIXES | READ_SUFFIXES):
        candidate = path.with_name(path.name + suffix)
        if candidate.exists():
            return candidate
    return path


# JSON lines


def _json_lines(path: Path, text: str, base: Path) -> ForeignSet:
    lines = [(number, _json(path, line)) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    is_hugging_face = any(isinstance(row, dict) and "file_name" in row for _, row in lines)
    found = ForeignSet("imagefolder" if is_hugging_face else "kohya")
    for number, row in lines:
        name = (row.get("file_name") or row.get("image_path")) if isinstance(row, dict) else None
        if not isinstance(name, str) or not name:
            found.problems.append((f"line {number}", 'should hold "file_name" or "image_path"'))
            continue
        caption = _line(row.get("text")) or _line(row.get("caption"))
        repeats = _repeats(found, name, row.get("repeats", 1))
        tags = tuple(_tags(row.get("tags")))
        picture = ForeignPicture(_join(base, name), caption, tags, repeats, not is_hugging_face)
        found.pictures.append(picture)
    return found


# Values


def _join(base: Path, name: str) -> Path:
    """A path of the list, absolute; a list from Windows may use backslashes."""
    if os.sep == "/" and "\\" in name and not (base / name).exists():
        name = name.replace("\\", "/")
    return Path(os.path.abspath(base / name))


def _line(value: object) -> str:
    """A text on one line; "" for anything else."""
    return " ".join(value.split()) if isinstance(value, str) else ""


def _tags(value: object) -> Iterator[str]:
    """Tags of a text with commas, or of a list of texts or of {"tag": text}."""
    if isinstance(value, str):
        yield from parts_of(value)
    elif isinstance(value, list):
        for one in value:
            if tag := _line(one.get("tag") if isinstance(one, dict) else one):
                yield tag


def _repeats(found: ForeignSet, name: str, value: object) -> Fraction:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not 0 < value < 1e6:  # type: ignore[operator]
        found.problems.append(
            (name, f"repeats should be a number above 0, found {str(value)[:40]}; 1 is taken")
        )
        return Fraction(1)
    return Fraction(str(value))
