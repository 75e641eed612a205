"""Core tags: what most pictures of a character have in common, so that its name can come to mean it.

Counted over the pictures on which a character is alone. The files are those of anime_screenshot_pipeline:
`core_tag.json` (every core tag, by what becomes of it), `emb_init.json` (words to start an embedding from),
`wildcard.txt` (a prompt for each character).
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import SettingsError
from pipeline.layouts.captions import tag_key, tag_text
from pipeline.settings import Json
from stages.character_forms import embedding_name
from stages.pruning import Looks

CORE_FILE, EMBEDDING_FILE, WILDCARD_FILE = "core_tag.json", "emb_init.json", "wildcard.txt"

# Words of tags that tell of the picture, its place or the moment: never of the character.
SCENE_WORDS = frozenset(
    {
        *("solo", "girl", "girls", "boy", "boys", "1girl", "1boy", "2girls", "2boys"),
        *("3girls", "3boys", "multiple", "body", "background", "quality", "chibi", "monochrome", "comic"),
        *("looking", "text", "signature", "watermark", "peeking", "focus", "smile", "mouth", "anime"),
        *("screenshot", "screencap", "sky", "wall", "tree", "cloud", "day", "night", "indoors"),
        *("outdoors", "close-up", "window", "curtains", "portrait", "blurry", "standing", "sitting"),
    }
)


@dataclass(slots=True)
class Counts:
    """How often each tag stands on pictures where a character is alone."""

    pictures: Counter[str] = field(default_factory=Counter)
    tags: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, character: str, tags: Iterable[str]) -> None:
        """Count one picture on which only this character is."""
        self.pictures[character] += 1
        self.tags.setdefault(character, Counter()).update(tags)

    def core(self, min_frequency: float) -> dict[str, tuple[str, ...]]:
        """For each character the tags on at least that share of its pictures, the most frequent first."""
        return {
            name: tuple(
                tag
                for tag, count in sorted(self.tags[name].items(), key=lambda row: (-row[1], row[0]))
                if count >= min_frequency * total and not is_scene(tag)
            )
            for name, total in sorted(self.pictures.items())
        }


def is_scene(key: str) -> bool:
    """Say whether a tag tells of the scene and not of who is in it."""
    return not SCENE_WORDS.isdisjoint(key.split("_"))


@dataclass(frozen=True, slots=True)
class CoreTags:
    """The core tags of one character, by what becomes of them."""

    kept: tuple[str, ...]  # stay in captions
    dropped: tuple[str, ...]  # the name says them
    embedding: tuple[str, ...]  # start an embedding; left out of captions as well

    @property
    def left_out(self) -> frozenset[str]:
        """What captions of the character do without."""
        return frozenset(self.dropped + self.embedding)


def categorize(
    core: Mapping[str, Sequence[str]], looks: Looks | None, embedding_looks: Looks
) -> dict[str, CoreTags]:
    """Part core tags into kept, dropped and those for an embedding.

    Forms of one character (`mireth|casual`, `mireth|armour`) share an embedding: only what all of them have
    starts it.

    Args:
        looks: what is dropped; None drops every core tag.
    """
    by_embedding: dict[str, list[set[str]]] = {}
    for name, tags in core.items():
        starts = {tag for tag in tags if embedding_looks.has(tag)}
        by_embedding.setdefault(embedding_name(name), []).append(starts)
    shared = {name: set.intersection(*sets) for name, sets in by_embedding.items()}
    result = {}
    for name, tags in core.items():
        starts = shared[embedding_name(name)]
        dropped = [tag for tag in tags if looks is None or looks.has(tag)]
        kept = [tag for tag in tags if tag not in dropped and tag not in starts]
        result[name] = CoreTags(tuple(kept), tuple(dropped), tuple(tag for tag in tags if tag in starts))
    return result


# Files


def core_file_text(core: Mapping[str, CoreTags]) -> str:
    """`core_tag.json`: {character: {"kept", "dropped", "emb_init"}}, tags as captions write them."""
    table = {
        name: {
            "kept": _texts(one.kept),
            "dropped": _texts(one.dropped),
            "emb_init": _texts(one.embedding),
        }
        for name, one in core.items()
    }
    return json.dumps(table, indent=4, ensure_ascii=False) + "\n"


def embedding_file_text(core: Mapping[str, CoreTags], image_types: Collection[str]) -> str:
    """`emb_init.json`: {name of an embedding: words to start it from}, characters first, then image types."""
    table: dict[str, Json] = {embedding_name(name): _texts(one.embedding) for name, one in core.items()}
    starts = {"screenshots": "anime screencap", "booru": "masterpiece"}
    for image_type in sorted(image_types):
        table.setdefault(image_type, [starts[image_type]] if image_type in starts else [])
    return json.dumps(table, indent=4, ensure_ascii=False) + "\n"


def wildcard_text(
    core: Mapping[str, CoreTags], caption_of: Callable[[str, Sequence[str]], str], *, with_dropped: bool
) -> str:
    """`wildcard.txt`: for each character its name, then its name with its core tags, a prompt a line.

    Args:
        with_dropped: also the tags that captions leave out.
    """
    lines = []
    for name, one in core.items():
        extra = dict.fromkeys((*one.dropped, *one.embedding)) if with_dropped else {}
        tags = [*extra, *(tag for tag in one.kept if tag not in extra)]
        lines += [caption_of(name, ()), *([caption_of(name, tags)] if tags else [])]
    return "".join(f"{line}\n" for line in lines)


def read_core_file(path: Path) -> dict[str, CoreTags]:
    """A core_tag.json, ours, the ancestor's or one changed by hand.

    Raises:
        SettingsError: it cannot be read, or is of another form.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
        assert isinstance(table, dict)
        return {str(name): _read_core(tags) for name, tags in table.items()}
    except OSError as error:
        raise SettingsError(f"the core tags {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AssertionError, AttributeError) as error:
        form = '{"character": {"kept": [], "dropped": [], "emb_init": []}}'
        raise SettingsError(f"{path} holds no core tags: {error or 'another form'}", hint=form) from error


def _read_core(tags: Any) -> CoreTags:
    if isinstance(tags, list):  # of pictures without categories: everything stays out
        tags = {"dropped": tags}
    unknown = set(tags) - {"kept", "dropped", "emb_init"}
    if unknown:
        raise KeyError(f"unknown key {min(unknown)}")
    kept, dropped, starts = (
        tuple(tag_key(tag) for tag in tags.get(name, ())) for name in ("kept", "dropped", "emb_init")
    )
    return CoreTags(kept, dropped, starts)


def _texts(tags: Iterable[str]) -> list[str]:
    return [tag_text(tag) for tag in tags]
