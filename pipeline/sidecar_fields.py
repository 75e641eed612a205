"""What each field of a foreign sidecar means, by our names.

| fact | content | fields |
| --- | --- | --- |
| characters, copyright, artist | names | the same, character, tag_string_... of a booru post |
| tags | {tag: probability or null} | tags, general of Grabber, tag_string_general |
| processed_tags, dropped_character_tags | tags the other tool left, and took out | the same |
| caption, rating, site, md5, url | text | the same; source of Grabber is a url |
| image_type, description | text | type, general |
| score, fav_count | number of votes | the same |
| source | {"video": name, "time_s", "index": frame} | video_file, time, index |
| origin | {"name"} of the picture it was cut from or was before | path |
| crop | {"type", "score"} | crop |
| is_cropped | true or false | cropped |
| faces | {"num_faces", "boxes", "height_ratio"} | n_faces, facepos, fh_ratio |
| num_people | whole number; 6 for "many", which means six or more | n_people |

Boxes are [left, top, right, bottom] in 0 to 1 of the picture. Shapes of the fields:
deepghs/waifuc:waifuc/model/item.py, cyber-meow/anime_screenshot_pipeline:anime2sd/waifuc_customize.py,
scripts_v1/detect_faces.py and scripts_v1/augment_metadata.py.
"""

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress

from pipeline.settings import Json

MAX_NAMES = 2_000  # in one list: more is no description of a picture
MAX_TAGS = 20_000  # with probabilities: a tagger may write every tag it knows
MAX_TEXT_LETTERS = 20_000

PICKLE_MARK = "__type"  # waifuc writes {"__type": class, "base64": pickle}
_RATINGS = {"g": "general", "s": "sensitive", "q": "questionable", "e": "explicit"}  # Danbooru's letters
_NOBODY = {"unknown", "ood", "anonymous"}  # what those tools write for "not known"
_MANY_PEOPLE = 6
_BOORU_TAGS = {"general": "tags", "character": "characters", "copyright": "copyright", "artist": "artist"}


class FieldError(ValueError):
    """A field is not taken; its text says why."""


def facts_of_field(name: str, value: object) -> dict[str, Json]:
    """Facts, by our names, that one field of a sidecar holds.

    Raises:
        FieldError: nothing is taken from it.
    """
    if _is_pickled(value):
        raise FieldError("a pickled value, never read")
    if value is None or value in ("", [], {}):
        raise FieldError("empty")
    if isinstance(value, Mapping) and any(str(key).startswith("tag_string") for key in value):
        return _booru_post(name, value)
    reader = _READERS.get(name)
    if reader is None:
        raise FieldError("no equal here")
    fact, read = reader
    try:
        return {fact: read(value)}
    except FieldError as error:
        raise FieldError(f"not understood: {error}") from None


def _is_pickled(value: object) -> bool:
    """Say whether waifuc's mark of a pickled value is anywhere inside."""
    left = [value]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            if PICKLE_MARK in node:
                return True
            left.extend(node.values())
        elif isinstance(node, list):
            left.extend(node)
    return False


def plain_text(text: str) -> str:
    """Text on one line, without control characters and lone surrogates, which files and databases refuse."""
    readable = text.encode("utf-8", "ignore").decode("utf-8")
    return " ".join("".join(sign if sign.isprintable() else " " for sign in readable).split())


def _names(value: object) -> list[str]:
    """Names in their order, each once: of a list, or of text with commas."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list):
        raise FieldError(f"should be a list of names, found {_kind(value)}")
    if len(value) > MAX_NAMES:
        raise FieldError(f"more than {MAX_NAMES:,} names")
    names: dict[str, None] = {}
    for part in value:
        # a classifier of the first scripts writes [name, probability]
        name = part[0] if isinstance(part, list) and part else part
        if not isinstance(name, str):
            raise FieldError(f"should be a list of names, found {_kind(name)} in it")
        if (name := plain_text(name)) and name not in _NOBODY:
            names[name] = None
    return list(names)


def _probabilities(value: object) -> dict[str, float | None]:
    """{tag: probability}, None where none is told."""
    if not isinstance(value, dict):
        return dict.fromkeys(_names(value))
    if len(value) > MAX_TAGS:
        raise FieldError(f"more than {MAX_TAGS:,} tags")
    tags = {plain_text(tag): None if prob is None else _share(prob) for tag, prob in value.items()}
    tags.pop("", None)
    return tags


def _tag_names(value: object) -> list[str]:
    return list(_probabilities(value))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise FieldError(f"should be text, found {_kind(value)}")
    if len(value) > MAX_TEXT_LETTERS:
        raise FieldError(f"longer than {MAX_TEXT_LETTERS:,} letters")
    text = plain_text(value)
    if not text:
        raise FieldError("holds no letters")
    return text


def _rating(value: object) -> str:
    text = _text(value).lower()
    return _RATINGS.get(text, text)


def _file_name(value: object) -> str:
    """The name at the end of a path of any system: folders of another machine say nothing."""
    name = re.split(r"[/\\]", _text(value))[-1]
    if not name:
        raise FieldError("names a folder, not a file")
    return name


def _number(value: object) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise FieldError("should be a number, found text") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise FieldError(f"should be a number, found {_kind(value)}")
    return float(value)


def _share(value: object) -> float:
    number = _number(value)
    if not 0 <= number <= 1:
        raise FieldError(f"should be from 0 to 1, found {number:g}")
    return number


def _count(value: object) -> int:
    number = _number(value)
    if number < 0 or not number.is_integer():
        raise FieldError(f"should be a whole number from 0 up, found {number:g}")
    return int(number)


def _seconds(value: object) -> float:
    seconds = _number(value)
    if seconds < 0:
        raise FieldError(f"should be seconds from 0 up, found {seconds:g}")
    return seconds


def _num_people(value: object) -> int:
    return _MANY_PEOPLE if value == "many" else _count(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise FieldError(f"should be true or false, found {_kind(value)}")
    return value


def _crop(value: object) -> dict[str, Json]:
    if not isinstance(value, dict) or not {"type", "score"} & set(value):
        raise FieldError(f"should be an object with a type and a score, found {_kind(value)}")
    crop: dict[str, Json] = {}
    if "type" in value:
        crop["type"] = _text(value["type"])
    if value.get("score") is not None:
        crop["score"] = _share(value["score"])
    return crop


def _face_boxes(value: object) -> list[list[float]]:
    if not isinstance(value, list) or len(value) > MAX_NAMES:
        raise FieldError(f"should be a list of boxes, found {_kind(value)}")
    return [_face_box(box) for box in value]


def _face_box(box: object) -> list[float]:
    """left, top, right, bottom, 0 to 1; detectors overstep the edge a little, which is cut."""
    if isinstance(box, str):
        # the oldest scripts wrote percents: "fvp top bottom fhp left right"
        percents = re.fullmatch(r"fvp (\d{1,3}) (\d{1,3}) fhp (\d{1,3}) (\d{1,3})", plain_text(box))
        if percents is None:
            raise FieldError("holds a box in words that are not known")
        top, bottom, left, right = (int(percent) / 100 for percent in percents.groups())
        box = [left, top, right, bottom]
    if not isinstance(box, list) or len(box) != 4:
        raise FieldError("holds a box that is not four numbers")
    left, top, right, bottom = (min(1.0, max(0.0, _number(side))) for side in box)
    if left >= right or top >= bottom:
        raise FieldError("holds a box without an area")
    return [left, top, right, bottom]


def _booru_post(site: str, post: Mapping[str, object]) -> dict[str, Json]:
    """A booru's own record, as waifuc keeps it under the site's name: tags by kind, apart by spaces."""
    facts: dict[str, Json] = {"site": plain_text(site)}
    for kind, fact in _BOORU_TAGS.items():
        tags = post.get(f"tag_string_{kind}")
        if isinstance(tags, str):
            with suppress(FieldError):
                facts.update(facts_of_field(fact, tags.split()))
    for name in ("rating", "score", "fav_count", "md5"):
        with suppress(FieldError):
            facts.update(facts_of_field(name, post.get(name)))
    return facts


def _kind(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "an endless number"
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")


def _inside(key: str, read: Callable[[object], Json]) -> Callable[[object], Json]:
    """Read a field that is one part of a fact that several fields tell."""
    return lambda value: {key: read(value)}


_READERS: dict[str, tuple[str, Callable[[object], Json]]] = {
    "characters": ("characters", _names),
    "character": ("characters", _names),
    "copyright": ("copyright", _names),
    "artist": ("artist", _names),
    "tags": ("tags", _probabilities),
    "processed_tags": ("processed_tags", _tag_names),
    "dropped_character_tags": ("dropped_character_tags", _tag_names),
    "caption": ("caption", _text),
    "type": ("image_type", _text),
    "general": ("description", _text),
    "rating": ("rating", _rating),
    "site": ("site", _text),
    "md5": ("md5", _text),
    "url": ("url", _text),
    "source": ("url", _text),
    "score": ("score", _number),
    "fav_count": ("fav_count", _count),
    "video_file": ("source", _inside("video", _file_name)),
    "time": ("source", _inside("time_s", _seconds)),
    "index": ("source", _inside("index", _count)),
    "path": ("origin", _inside("name", _file_name)),
    "crop": ("crop", _crop),
    "cropped": ("is_cropped", _truth),
    "n_faces": ("faces", _inside("num_faces", _count)),
    "facepos": ("faces", _inside("boxes", _face_boxes)),
    "fh_ratio": ("faces", _inside("height_ratio", _share)),
    "n_people": ("num_people", _num_people),
}
