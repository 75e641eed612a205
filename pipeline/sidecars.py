"""Metadata that other tools leave beside a picture: found, and read into our own names, never run.

Formats: `.<stem>_meta.json` of waifuc and anime_screenshot_pipeline, `<stem>.json` of the latter's first
scripts, comma lists in `<name>.tags`, `<stem>.tags`, `<stem>.processed_tags` and `<stem>.characters`, and the
`character:` / `general:` lines that Grabber writes into a `.txt`, `.tags` or `.info` file. A `.txt` of any other
shape is a caption and is left alone. Names and tags are kept in the spelling of the file.

waifuc writes what JSON cannot hold as pickled Python objects: such a field is refused, the rest is read.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import SidecarError
from pipeline.media_names import IMAGE_SUFFIXES
from pipeline.settings import Json
from pipeline.sidecar_fields import Refused, facts_of_field, name_list, plain_text

MAX_BYTES = 4 << 20  # of a sidecar; waifuc's largest, with a whole booru post in it, are near 20 kB

_GRABBER_LINE = re.compile(
    r"(character|characters|copyright|artist|general|tags|meta|species|rating|score|fav_count|md5|source|id|date)"
    r":(?:[ \t]+(.*))?"
)
_ONLY_PIPELINE = {"current_path", "image_size", "processed_tags", "dropped_character_tags", "type", "site"}


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a file beside a picture says about it."""

    path: Path
    tool: str  # "waifuc", "anime_screenshot_pipeline", "anime_screenshot_pipeline v1", "tag list", "grabber"
    facts: dict[str, Json] = field(default_factory=dict)  # by our names: see the table in sidecar_fields
    ignored: list[str] = field(default_factory=list)  # "field: why it was not taken", in the order of the file
    namesakes: tuple[str, ...] = ()  # other pictures it may be about, where it is named by the stem alone


def find_sidecars(image_path: Path) -> list[Path]:
    """Sidecars beside a picture, the fullest first; one that names another picture of that stem is left out."""
    folder, name, stem = image_path.parent, image_path.name, image_path.stem
    sure = [folder / f".{stem}_meta.json", folder / f"{stem}.json"]
    lists = [f"{name}.tags", f"{stem}.tags", f"{stem}.processed_tags", f"{stem}.characters"]
    lines = [f"{name}.txt", f"{stem}.txt", f"{name}.info", f"{stem}.info"]
    found = [path for path in sure if path.is_file() and not _is_about_another(path, image_path)]
    found += [path for path in (folder / name for name in lists) if path.is_file()]
    return found + [path for path in (folder / name for name in lines) if path.is_file() and _is_grabber(path)]


def read_sidecar(sidecar_path: Path, image_path: Path) -> Sidecar:
    """Read one sidecar of a picture.

    Raises:
        SidecarError: not to be opened, larger than 4 MiB, not text, broken or deeply nested JSON, JSON that is
            no object, or a `.txt` that is a caption.
    """
    text = _text_of(sidecar_path)
    others = () if sidecar_path.name.startswith(image_path.name) else _namesakes(image_path)
    facts: dict[str, Json] = {}
    ignored: list[str] = []
    if sidecar_path.suffix == ".json":
        fields = _object_of(text, sidecar_path)
        tool = _json_tool(sidecar_path, fields)
        if _names_another(fields, image_path):
            return Sidecar(sidecar_path, tool, {}, [f"everything: about {fields['filename']}"], others)
        others = () if fields.get("filename") == image_path.name else others
    elif grabber := _grabber_fields(text):
        tool, fields = "grabber", grabber
    elif sidecar_path.suffix in (".tags", ".processed_tags", ".characters"):
        tool, fields = "tag list", {sidecar_path.suffix[1:]: text}
    else:
        raise SidecarError(f"{sidecar_path} is a caption, not a file of fields", hint="leave it to the captions")
    for name, value in fields.items():
        _take(facts, ignored, name, value)
    return Sidecar(sidecar_path, tool, facts, ignored, others)


def _take(facts: dict[str, Json], ignored: list[str], name: str, value: object) -> None:
    """Add what one field says to the facts; the first of two fields for one fact wins."""
    label = plain_text(name)[:80] or "a field without a name"
    try:
        found = facts_of_field(name, value)
    except Refused as refusal:
        ignored.append(f"{label}: {refusal}")
        return
    for fact, content in found.items():
        earlier = facts.get(fact)
        if isinstance(earlier, dict) and isinstance(content, dict):
            facts[fact] = {**content, **earlier}
        elif fact not in facts:
            facts[fact] = content
        elif earlier != content:
            ignored.append(f"{label}: says another {fact} than an earlier field")


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SidecarError(f"{path} cannot be opened: {(error.strerror or 'unknown').lower()}") from error
    if len(data) > MAX_BYTES:
        raise SidecarError(f"{path} is larger than {MAX_BYTES >> 20} MiB", hint="move it away to go on without it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SidecarError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _object_of(text: str, path: Path) -> dict[str, object]:
    try:
        # a NaN becomes null here: no JSON that we write could hold it
        found = json.loads(text, parse_constant=lambda _: None)
    except RecursionError:
        raise SidecarError(f"{path} is nested too deeply to be read") from None
    except ValueError as error:
        raise SidecarError(f"{path} is not JSON: {str(error)[:200]}", hint="mend it or move it away") from error
    if not isinstance(found, dict):
        raise SidecarError(f"{path} should hold an object, found {type(found).__name__}")
    if "__type" in found:
        raise SidecarError(f"{path} is a pickled Python object, which is never loaded")
    return found


def _json_tool(path: Path, fields: dict[str, object]) -> str:
    if not path.name.endswith("_meta.json"):
        return "anime_screenshot_pipeline v1"
    return "anime_screenshot_pipeline" if _ONLY_PIPELINE & set(fields) else "waifuc"


def _grabber_fields(text: str) -> dict[str, object]:
    """Fields by their names; empty unless every line is of Grabber's shape."""
    fields: dict[str, object] = {}
    for line in filter(str.strip, text.splitlines()):
        match = _GRABBER_LINE.fullmatch(line.strip())
        if match is None:
            return {}
        fields[match[1]] = match[2] or ""
    return fields


def _is_grabber(path: Path) -> bool:
    try:
        return bool(_grabber_fields(_text_of(path)))
    except SidecarError:
        return False


def _is_about_another(path: Path, image_path: Path) -> bool:
    """Say whether a JSON sidecar names another picture; a broken one is left for `read_sidecar` to report."""
    if not _namesakes(image_path):
        return False
    try:
        return _names_another(_object_of(_text_of(path), path), image_path)
    except SidecarError:
        return False


def _names_another(fields: dict[str, object], image_path: Path) -> bool:
    return fields.get("filename") in _namesakes(image_path)


def _namesakes(image_path: Path) -> tuple[str, ...]:
    """Names of other pictures with the same stem in the same folder."""
    own = image_path.name.casefold()
    others = (image_path.with_suffix(suffix) for suffix in sorted(IMAGE_SUFFIXES))
    return tuple(other.name for other in others if other.name.casefold() != own and other.is_file())
