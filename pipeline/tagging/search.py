"""What a person asks for in a search, word by word, and which pictures answer.

    solo -"long hair" char:sabine folder:ep01 rating:general tags>30 by:hand

All words must hold. A leading - turns one round; quotes keep spaces together; * and ? stand for any letters;
underscores and spaces are the same. A word without a known beginning is a tag, and `tag:` says so where it
would be misread (`tag:-_-`).
"""

import fnmatch
import json
import operator
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.catalog import Catalog, below
from pipeline.errors import SettingsError
from pipeline.project import Project

WORD_FACTS: dict[str, tuple[str, ...]] = {  # the facts in which a word looks for its name
    "tag": ("tags",),
    "char": ("characters", "character_tags"),
    "copyright": ("copyright",),
    "artist": ("artist",),
    "meta": ("meta_tags",),
    "rating": ("rating",),
    "type": ("image_type",),
}
_COMPARE = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "=": operator.eq,
}
_COUNTED = re.compile(r"(tags|tokens)(>=|<=|>|<|=)(\d+)")
# the word that counts: a person's, then the newest machine's
_COUNTING = """(SELECT {column} FROM facts WHERE media_id = here.media_id AND name = '{name}'
               ORDER BY by_hand DESC, run_id DESC, source LIMIT 1)"""

Values = dict[str, str | None]  # fact name -> JSON text of the value that counts; what it was asked for
Test = Callable[[int, Values], bool]


@dataclass(frozen=True, slots=True)
class Word:
    """One condition."""

    facts: tuple[str, ...]  # what it reads
    test: Test


class TagBook:
    """The tags of the pictures below a folder, as the catalogue knows them; nothing is written."""

    def __init__(self, catalog: Catalog, project: Project, folder: Path, query: str = "") -> None:
        self._catalog = catalog
        self._below, self._parameters = below(project.relative(folder))
        self._words = [self._word(text) for text in split_words(query)]

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, Values]]:
        """(media id, values) of every picture that answers, for facts of these names."""
        wanted = list(dict.fromkeys([*names, *(name for word in self._words for name in word.facts)]))
        columns = "".join(f", {_column(name)}" for name in wanted)
        sql = f"""WITH here AS (SELECT DISTINCT media_id FROM paths JOIN media ON media.id = media_id
                                WHERE NOT is_gone AND kind = 'image' AND {self._below})
                  SELECT media_id{columns} FROM here"""
        tests = [word.test for word in self._words]
        for media_id, *found in self._catalog.rows(sql, self._parameters):
            values = dict(zip(wanted, found, strict=True))
            if all(test(media_id, values) for test in tests):
                yield media_id, values

    def paths(self, media_ids: Iterable[int]) -> dict[int, list[str]]:
        """Where some contents lie below the folder."""
        sql = f"""SELECT media_id, folder, name FROM paths
                  WHERE NOT is_gone AND {self._below} AND media_id IN (SELECT value FROM json_each(:ids))
                  ORDER BY folder, name"""
        found: dict[int, list[str]] = {}
        rows = self._catalog.rows(sql, {**self._parameters, "ids": json.dumps(list(media_ids))})
        for media_id, folder, name in rows:
            found.setdefault(media_id, []).append(f"{folder}/{name}" if folder else name)
        return found

    def _word(self, text: str) -> Word:
        if text.startswith("-") and len(text) > 1:
            word = self._word(text[1:])
            return Word(word.facts, lambda media_id, values: not word.test(media_id, values))
        if match := _COUNTED.fullmatch(text):
            return _counted(*match.groups())
        head, is_pair, name = text.partition(":")
        if is_pair and name and head == "folder":
            inside = self._ids_in_folder(name)
            return Word((), lambda media_id, _: media_id in inside)
        if is_pair and name and head in ("by", "source"):
            return _said_by(head, name)
        if is_pair and name and head in WORD_FACTS:
            return _named(WORD_FACTS[head], name)
        return _named(WORD_FACTS["tag"], text)

    def _ids_in_folder(self, pattern: str) -> set[int]:
        """Contents that lie in a folder of this name, or of this path, at any depth."""
        sql = "SELECT DISTINCT folder FROM paths WHERE NOT is_gone"
        matching = [folder for (folder,) in self._catalog.rows(sql) if _is_in_folder(folder, pattern)]
        sql = """SELECT DISTINCT media_id FROM paths
                 WHERE NOT is_gone AND folder IN (SELECT value FROM json_each(?))"""
        return {row[0] for row in self._catalog.rows(sql, (json.dumps(matching),))}


def _column(name: str) -> str:
    if name in ("tags source", "tags by_hand"):
        name, column = name.split(" ")
        return _COUNTING.format(column=column, name=name)
    return _COUNTING.format(column="value", name=name)


def split_words(query: str) -> list[str]:
    """The words of a query; what stands in double quotes stays together.

    Raises:
        SettingsError: a quote that is not closed.
    """
    reader = shlex.shlex(query, posix=True)
    reader.whitespace_split, reader.quotes, reader.escape, reader.commenters = True, '"', "", ""
    try:
        return list(reader)
    except ValueError as error:
        raise SettingsError(f'the search {query} has a " that is not closed', hint="close it") from error


def _counted(what: str, sign: str, number: str) -> Word:
    """By the number of tags, or of CLIP tokens of the caption; a picture without a caption has none."""
    compare, wanted = _COMPARE[sign], int(number)
    if what == "tags":
        return Word(("tags",), lambda _, values: compare(len(json.loads(values["tags"] or "{}")), wanted))
    from pipeline.clip_tokens import count_tokens

    return Word(
        ("caption",),
        lambda _, values: compare(count_tokens(json.loads(values["caption"] or '""')), wanted),
    )


def _said_by(head: str, name: str) -> Word:
    if head == "source":
        return Word(
            ("tags source",), lambda _, values: fnmatch.fnmatchcase(values["tags source"] or "", name)
        )
    if name != "hand":
        raise SettingsError(f"by:{name} is not known", hint="by:hand; a tagger is found by source:NAME")
    return Word(("tags by_hand",), lambda _, values: bool(values["tags by_hand"]))


def _named(facts: tuple[str, ...], name: str) -> Word:
    if facts == ("tags",) and not set(name) & set("*?["):
        needles = [
            start + json.dumps(spelling, ensure_ascii=False) + ":"
            for spelling in spellings(name)
            for start in "{,"  # the value is canonical JSON: a key follows nothing else
        ]
        return Word(facts, lambda _, values: any(needle in (values["tags"] or "") for needle in needles))
    matches = matcher(name)
    return Word(
        facts,
        lambda _, values: any(matches(one) for fact in facts for one in names_in(values[fact])),
    )


def spellings(name: str) -> list[str]:
    """A name with underscores and with spaces."""
    return list(dict.fromkeys((name.replace(" ", "_"), name.replace("_", " "), name)))


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a name is meant: capitals, underscores and spaces make no difference, * and ? are wild."""
    wanted = re.compile(fnmatch.translate(_plain(pattern)))
    return lambda name: wanted.match(_plain(name)) is not None


def _plain(name: str) -> str:
    return name.replace(" ", "_").casefold()


def names_in(value: str | None) -> list[str]:
    """The names that a fact's JSON text holds: keys, members, or the text itself."""
    if value is None:
        return []
    found: Any = json.loads(value)
    return [found] if isinstance(found, str) else [str(one) for one in found]


def _is_in_folder(folder: str, pattern: str) -> bool:
    parts = folder.split("/")
    heads = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    return any(fnmatch.fnmatchcase(one.casefold(), pattern.casefold().strip("/")) for one in (*parts, *heads))
