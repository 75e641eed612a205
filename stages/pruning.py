"""Which tags a caption can do without, and why: refused ones, what others say already, a character's looks.

Tags are compared by `tag_key`. Nothing is ever compared by plain letters: `ear` stays beside `tears`.
"""

import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.errors import SettingsError
from pipeline.layouts.captions import KNOWN_TAGS, tag_key
from pipeline.settings import unknown_name

REFUSED, REDUNDANT, IMPLIED, ALIAS = "on the blacklist", "in a longer tag", "implied", "an alias"

# "sitting on chair" is a way of sitting; "dress shirt" is no dress, so the first words alone say nothing.
_PREPOSITIONS = frozenset(
    {
        *(
            "on",
            "in",
            "at",
            "with",
            "over",
            "under",
            "behind",
            "between",
            "against",
            "of",
            "to",
            "from",
            "by",
        ),
        *("through", "around", "above", "below", "near"),
    }
)
_DENIALS = frozenset({"no", "not", "without", "unworn", "missing"})


@dataclass(frozen=True, slots=True)
class Dropped:
    """A tag that was left out."""

    tag: str
    reason: str  # the same words for all of its kind
    detail: str = ""  # by which tag, of which character


@dataclass(frozen=True, slots=True)
class Implications:
    """What tags say beside themselves."""

    implies: Mapping[str, frozenset[str]]  # everything, also by several steps
    aliases: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Pruned:
    """Tags that stay, in their order, and those that do not."""

    kept: tuple[str, ...]
    dropped: list[Dropped] = field(default_factory=list)


def prune(
    tags: Iterable[str], implications: Implications | None, blacklist: Collection[str] = frozenset()
) -> Pruned:
    """Leave out refused tags, and those that other tags of the picture say already.

    Args:
        tags: in any spelling.
        implications: None leaves redundant tags as they are.
        blacklist: by `tag_key`.
    """
    dropped: list[Dropped] = []
    kept: dict[str, None] = {}
    aliases = implications.aliases if implications else {}
    for tag in tags:
        key = tag_key(tag)
        meant = aliases.get(key, key)
        if key in blacklist or meant in blacklist:
            dropped.append(Dropped(tag, REFUSED))
        elif meant in kept:
            dropped.append(Dropped(tag, ALIAS, meant))
        else:
            kept[meant] = None
    if implications is None:
        return Pruned(tuple(kept), dropped)
    said: dict[str, tuple[str, str]] = {}
    implies = implications.implies
    for key in kept:
        for other in shorter_tags(key):
            if other in kept:
                said.setdefault(other, (REDUNDANT, key))
        for other in implies.get(key, ()):
            if other in kept:
                said.setdefault(other, (IMPLIED, key))
    dropped += [Dropped(key, *said[key]) for key in kept if key in said]
    return Pruned(tuple(key for key in kept if key not in said), dropped)


@lru_cache(KNOWN_TAGS)
def shorter_tags(key: str) -> frozenset[str]:
    """The tags that a tag says by its own words: its last words, and its first ones before a preposition.

    `very_long_hair` says `long_hair` and `hair`, `sitting_on_chair` says `sitting`. `dress_shirt` does not
    say `dress`, `bow_(weapon)` does not say `bow`, `no_hat` does not say `hat`.
    """
    words = key.split("_")
    if "(" in key or not all(words) or words[0] in _DENIALS:
        return frozenset()
    ends = {"_".join(words[at:]) for at in range(1, len(words))}
    starts = {"_".join(words[:at]) for at in range(1, len(words)) if words[at] in _PREPOSITIONS}
    return frozenset(ends | starts)


def load_implications(own_path: Path | None = None) -> Implications:
    """The table that comes with celforge, and a person's own over it.

    Raises:
        SettingsError: the own table cannot be read, or has another form.
    """
    table = tomllib.loads(files("stages").joinpath("tag_implications.toml").read_text("utf-8"))
    if own_path is not None:
        own = _read_table(own_path)
        for name in ("implies", "aliases"):
            table[name] |= {tag_key(key): value for key, value in own.get(name, {}).items()}
    implies = {tag_key(key): tuple(map(tag_key, values)) for key, values in table["implies"].items()}
    closed = {key: frozenset(_reached(key, implies)) for key in implies}
    aliases = {tag_key(key): tag_key(value) for key, value in table["aliases"].items() if value}
    return Implications(closed, aliases)


def _reached(key: str, implies: Mapping[str, Sequence[str]]) -> set[str]:
    """What a tag implies by any number of steps; never itself."""
    reached: set[str] = set()
    waiting = [key]
    while waiting:
        for other in implies.get(waiting.pop(), ()):
            if other not in reached and other != key:
                reached.add(other)
                waiting.append(other)
    return reached


def _read_table(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"the table of implications {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}", hint="mend that line") from error
    for name, rows in table.items():
        if name not in ("implies", "aliases"):
            raise unknown_name("section", name, ("implies", "aliases"), str(path))
        if not isinstance(rows, dict):
            raise SettingsError(f'"{name}" in {path} must be a table')
        for key, value in rows.items():
            is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
            if not (is_list if name == "implies" else isinstance(value, str)):
                what = "a list of tags" if name == "implies" else "a tag"
                raise SettingsError(f'"{key}" in [{name}] of {path} must be {what}')
    return table


def read_tag_list(path: Path) -> frozenset[str]:
    """Tags of a text file, one a line, by `tag_key`; what follows a `#` and a space is left out.

    Raises:
        SettingsError: it cannot be read, or is not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SettingsError(f"the tag list {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8: {error}", hint="save it again as UTF-8") from error
    words = (line.partition("# ")[0].strip().rstrip(",") for line in lines)
    return frozenset(tag_key(word) for word in words if word)


# A character's looks


@dataclass(frozen=True, slots=True)
class Looks:
    """Which tags say how a character looks, by levels of difficulty (stages/character_looks.toml)."""

    never: frozenset[tuple[str, ...]]
    last: frozenset[tuple[str, ...]]
    first: frozenset[tuple[str, ...]]

    def has(self, key: str) -> bool:
        """Say whether a tag, by `tag_key`, is one of them."""
        words = _words(key)
        if words in self.never:
            return False
        ends = any(words[at:] in self.last for at in range(len(words)))
        return ends or any(words[:at] in self.first for at in range(1, len(words) + 1))


def load_looks(difficulties: range) -> Looks:
    """The tags of some levels, such as `range(0, 2)`: hair and eyes, then horns and tails."""
    table = tomllib.loads(files("stages").joinpath("character_looks.toml").read_text("utf-8"))
    levels = [table["levels"][at] for at in difficulties if at < len(table["levels"])]
    never = frozenset(map(_words, table["never"]))
    last, first = (
        frozenset(_words(text) for level in levels for text in level[side]) for side in ("last", "first")
    )
    return Looks(never, last, first)


def _words(text: str) -> tuple[str, ...]:
    return tuple(map(_singular, tag_key(text).split("_")))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
