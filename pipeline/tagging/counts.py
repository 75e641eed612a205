"""How often tags stand on pictures, and beside which others."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from pipeline.settings import Json
from pipeline.tagging.search import TagBook, spellings

COUNTED_FACTS = {
    "general": "tags",
    "character": "character_tags",
    "characters": "characters",
    "copyright": "copyright",
    "artist": "artist",
    "meta": "meta_tags",
    "rating": "rating",
}
READ_TOGETHER = 2_000  # values that are parsed as one text: half the time


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of pictures."""

    pictures: int  # that answer
    tagged: int  # of which this fact is known
    by_name: Counter[str]


def count_names(book: TagBook, fact: str) -> Counts:
    """On how many pictures each name of a fact stands."""
    counts: Counter[str] = Counter()
    pictures = tagged = 0
    texts = (values[fact] for _, values in book.rows([fact]))
    while chunk := list(islice(texts, READ_TOGETHER)):
        pictures += len(chunk)
        known = [text for text in chunk if text is not None]
        tagged += len(known)
        for value in json.loads(f"[{','.join(known)}]"):
            counts.update([value] if isinstance(value, str) else iter(value))
    return Counts(pictures, tagged, counts)


def count_beside(book: TagBook, tag: str) -> tuple[int, Iterator[dict[str, Json]]]:
    """On how many pictures a tag stands, and the tags beside it, the most telling first.

    A row's `lift` is how many times likelier the other tag is beside this one than anywhere: 1 says nothing.
    """
    wanted = set(spellings(tag))
    everywhere: Counter[str] = Counter()
    beside: Counter[str] = Counter()
    pictures = having = 0
    for _, values in book.rows(["tags"]):
        tags = json.loads(values["tags"] or "{}")
        pictures += 1
        everywhere.update(iter(tags))
        if wanted & tags.keys():
            having += 1
            beside.update(iter(tags))
    rows: Iterator[dict[str, Json]] = (
        {
            "tag": name,
            "pictures": count,
            "share": round(count / having, 4),
            "lift": round(count * pictures / (having * everywhere[name]), 2),
        }
        for name, count in sorted(beside.items(), key=lambda one: (-one[1], one[0]))
        if name not in wanted
    )
    return having, rows
