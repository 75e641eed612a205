"""Metadata that other tools leave beside a picture: found, and read into our own names, never run.

| file | written by |
| --- | --- |
| `.<stem>_meta.json` | waifuc, and today's anime_screenshot_pipeline |
| `<stem>.json` | the first scripts of anime_screenshot_pipeline |
| `<name>.tags`, `<stem>.tags`, `.processed_tags`, `.characters` | the same: names with commas |
| `.txt`, `.tags` or `.info` of `character:`, `general:`, `rating:` lines | imgbrd-grabber |

A `.txt` of any other shape is a caption and is left alone. Names and tags keep the spelling of the file.
waifuc writes what JSON cannot hold as pickled Python objects: such a field is refused, the rest is read.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import SidecarError
from pipeline.media_names import IMAGE_SUFFIXES
from pipeline.settings import Json
from pipeline.sidecar_fields import PICKLE_MARK, FieldError, facts_of_field, plain_text

MAX_BYTES = 4 << 20  # of a sidecar; waifuc's largest, with a whole booru post in it, are near 20 kB

_LIST_SUFFIXES = (".tags", ".processed_tags", ".characters")
_TEXT_SUFFIXES = (".txt", ".info")
_GRABBER_LINE = re.compile(
    r"(characters?|copyright|artist|general|tags|meta|species|rating|score|fav_count|md5|source|id|date)"
    r":(?:[ \t]+(.*))?"
)
_ONLY_PIPELINE = {"current_path", "image_size", "processed_tags", "dropped_character_tags", "type", "site"}


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a file beside a picture says about it."""

    path: Path
    tool: str  # "waifuc", "anime_screenshot_pipeline", "anime_screenshot_pipeline_v1" or "grabber"
    facts: dict[str, Json] = field(default_factory=dict)  # by our names: see the table in sidecar_fields
    ignored: dict[str, str] = field(default_factory=dict)  # field: why it was not taken
    namesakes: tuple[str, ...] = ()  # other pictures it may be about as well: it is named by the stem alone


def find_sidecars(image_path: Path) -> list[Path]:
    """Files beside a picture that may be its sidecars, by their names; the most telling first."""
    name, stem = image_path.name, image_path.stem
    names = [f".{stem}_meta.json", f"{stem}.json", f"{name}.tags"]
    names += [stem + suffix for suffix in _LIST_SUFFIXES]
    names += [start + suffix for suffix in _TEXT_SUFFIXES for start in (name, stem)]
    return [path for path in map(image_path.with_name, names) if path.is_file()]


def read_sidecar(sidecar_path: Path, image_path: Path) -> Sidecar | None:
    """Read one sidecar of a picture; None where it is a caption, or is about another picture of that stem.

    Raises:
        SidecarError: not to be opened, larger than 4 MiB, not text, broken or deeply nested JSON, or JSON
            that is no object.
    """
    is_shared = not sidecar_path.name.startswith(image_path.name)
    namesakes = _namesakes(image_path) if is_shared else ()
    found = _fields_of(sidecar_path)
    if found is None:
        return None
    tool, fields = found
    if fields.get("filename") in namesakes:
        return None
    if fields.get("filename") == image_path.name:
        namesakes = ()
    facts: dict[str, Json] = {}
    ignored: dict[str, str] = {}
    for name, value in fields.items():
        _take(facts, ignored, name, value)
    origin = facts.get("origin")
    if isinstance(origin, Mapping) and Path(str(origin["name"])).stem == image_path.stem:
        del facts["origin"]  # it was always this picture
    return Sidecar(sidecar_path, tool, facts, ignored, namesakes)


def is_sidecar_text(text: str) -> bool:
    """Say whether a text is one of imgbrd-grabber's fields, not a caption."""
    return bool(_grabber_fields(text))


def _fields_of(path: Path) -> tuple[str, dict[str, object]] | None:
    """(tool, fields) as they stand in the file; None for a caption."""
    text = _text_of(path)
    if path.suffix == ".json":
        fields = _object_of(text, path)
        if not path.name.endswith("_meta.json"):
            return "anime_screenshot_pipeline_v1", fields
        return ("anime_screenshot_pipeline" if _ONLY_PIPELINE & set(fields) else "waifuc"), fields
    if grabber := _grabber_fields(text):
        return "grabber", grabber
    if path.suffix in _LIST_SUFFIXES:
        return "anime_screenshot_pipeline", {path.suffix[1:]: text}
    return None


def _take(facts: dict[str, Json], ignored: dict[str, str], name: str, value: object) -> None:
    """Add what one field says to the facts; where two fields tell one fact, the first stays."""
    label = plain_text(name)[:80]
    try:
        found = facts_of_field(name, value)
    except FieldError as error:
        ignored[label] = str(error)
        return
    for fact, content in found.items():
        earlier = facts.get(fact)
        if fact not in facts:
            facts[fact] = content
        elif fact in ("faces", "source") and isinstance(earlier, Mapping) and isinstance(content, Mapping):
            facts[fact] = {**earlier, **content}  # told by several fields
        elif earlier != content:
            ignored[label] = f"another field says other {fact}"


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SidecarError(f"{path} cannot be opened: {(error.strerror or 'unknown').lower()}") from error
    if len(data) > MAX_BYTES:
        raise SidecarError(f"{path} is larger than {MAX_BYTES >> 20} MiB", hint="move it away")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SidecarError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _object_of(text: str, path: Path) -> dict[str, object]:
    try:
        # NaN becomes null: no JSON that we write can hold it
        found = json.loads(text, parse_constant=lambda _: None)
    except RecursionError:
        raise SidecarError(f"{path} is nested too deeply to be read") from None
    except ValueError as error:
        text = str(error)[:200]
        raise SidecarError(f"{path} is not JSON: {text}", hint="mend it or move it away") from error
    if not isinstance(found, dict):
        raise SidecarError(f"{path} should hold a JSON object, found {type(found).__name__}")
    if PICKLE_MARK in found:
        raise SidecarError(f"{path} is a pickled Python object, which is never read")
    return found


def _grabber_fields(text: str) -> dict[str, object]:
    """Fields by their names; empty unless every line is of Grabber's shape."""
    fields: dict[str, object] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _GRABBER_LINE.fullmatch(line)
        if match is None:
            return {}
        # %general% are the tags; the word has another meaning in JSON
        fields["tags" if match[1] == "general" else match[1]] = match[2] or None
    return fields


def _namesakes(image_path: Path) -> tuple[str, ...]:
    """Names of other pictures with the same stem in the same folder."""
    own = image_path.name.casefold()
    others = (image_path.with_name(image_path.stem + suffix) for suffix in sorted(IMAGE_SUFFIXES))
    return tuple(other.name for other in others if other.name.casefold() != own and other.is_file())
