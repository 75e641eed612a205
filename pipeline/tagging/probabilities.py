"""Probabilities as they are kept, and what is made of them afterwards: thresholds, MCut, several taggers.

Kept are those of at least KEPT_FROM, as bytes: the outputs' numbers (uint32, little endian, rising), then
their probabilities (float16, a step of 0.0005 between 0.5 and 1). All else is decided later, without a model.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.tagging.labels import CATEGORIES, Labels

KEPT_FROM = 0.01  # a threshold below this cannot be answered
LEAST_OF_CHARACTERS = 0.15  # MCut's floor for characters
DIGITS = 4  # of a probability in a fact

Combine = Literal["max", "mean", "vote"]
FACTS: Mapping[str, str] = {
    "general": "tags",
    "character": "character_tags",
    "copyright": "copyright",
    "artist": "artist",
    "meta": "meta_tags",
    "rating": "rating",
}
GENERAL, RATING = CATEGORIES.index("general"), CATEGORIES.index("rating")
_FACT_OF = [FACTS[category] for category in CATEGORIES]
_LISTED = (CATEGORIES.index("copyright"), CATEGORIES.index("artist"))  # names without probabilities

Numbers = NDArray[np.integer]
Shares = NDArray[np.float32]
Column = tuple[Numbers, Numbers, Shares]  # picture, rising, place and probability of each tag


def pack(probabilities: NDArray[np.floating]) -> bytes:
    """The bytes that are kept of one picture's probabilities, [num_tags], each 0 to 1."""
    numbers = np.flatnonzero(probabilities >= KEPT_FROM).astype("<u4")
    return bytes(numbers.tobytes() + probabilities[numbers].astype("<f2").tobytes())


def unpack(data: bytes) -> tuple[Numbers, Shares]:
    """The outputs' numbers, rising, and their probabilities."""
    count = len(data) // 6
    numbers = np.frombuffer(data, "<u4", count)
    return numbers, np.frombuffer(data, "<f2", count, 4 * count).astype(np.float32)


def mcut_threshold(values: Shares, *, least: float = 0.0) -> float:
    """Where to cut by the largest gap: the middle of it (Largeron, Moulin and Gery 2012, "MCut").

    Args:
        values: probabilities of one category, in any order; what is not kept counts as 0.
        least: never cut lower.
    """
    if not len(values):
        return 1.0
    falling = np.append(np.sort(values)[::-1], np.float32(0))
    gaps = falling[:-1] - falling[1:]
    at = int(np.argmax(gaps))
    return max(float(falling[at] + falling[at + 1]) / 2, least)


@dataclass(frozen=True, slots=True)
class Rule:
    """Which tags of a tagger are taken.

    Attributes:
        thresholds: by category, for tags without one of their own.
        overrides: by category: what a person asked for, instead of both.
        by_tag: a person's threshold for one tag.
        by_mcut: categories cut by MCut instead.
        categories: those that are wanted.
    """

    thresholds: Mapping[str, float]
    overrides: Mapping[str, float]
    by_tag: Mapping[str, float]
    by_mcut: tuple[str, ...]
    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reader:
    """A tagger among others.

    Attributes:
        places: number of each of its tags among those of all taggers.
        limits: least probability of every tag of all taggers; NaN where MCut decides, infinity for none.
    """

    labels: Labels
    places: Numbers
    limits: Shares
    has_mcut: bool


def thresholds_of(labels: Labels, rule: Rule) -> Shares:
    """The least probability that each tag must have, [num_tags]."""
    chosen = np.full(len(labels), np.inf, np.float32)
    for number, category in enumerate(CATEGORIES):
        if category not in rule.categories or category == "rating":
            continue
        of_category = labels.categories == number
        if category in rule.by_mcut:
            chosen[of_category] = np.nan
            continue
        usual = np.float32(rule.thresholds.get(category, rule.thresholds["general"]))
        values = np.where(np.isnan(labels.thresholds), usual, labels.thresholds)
        if category in rule.overrides:
            values = np.full(len(labels), rule.overrides[category], np.float32)
        chosen[of_category] = values[of_category]
    for index, name in enumerate(labels.names):
        if name in rule.by_tag and not np.isinf(chosen[index]):  # infinite: of a kind that is not wanted
            chosen[index] = rule.by_tag[name]
    return chosen


@dataclass(frozen=True, slots=True)
class Selection:
    """What is taken of one picture.

    Attributes:
        texts: facts by name, as `canonical_json` writes them; empty ones left out.
    """

    texts: dict[str, str]
    num_tags: int  # general ones
    rating: str | None


class Selector:
    """Turns the kept probabilities of pictures, of one tagger or several, into facts.

    Many pictures at a time: one after the other spends most of its time between numpy and Python. Tags are
    numbered ("places") in the order in which JSON text names them.
    """

    def __init__(self, taggers: Sequence[tuple[Labels, Rule]], combine: Combine) -> None:
        self._combine = combine
        self._rating_wanted = any("rating" in rule.categories for _, rule in taggers)
        known: dict[tuple[str, int], tuple[str, int]] = {}  # tag: its spelling, how early it was named
        keys = [
            [(name.replace(" ", "_"), int(category)) for name, category in _tags(labels)]
            for labels, _ in taggers
        ]
        for (labels, _), own in zip(taggers, keys, strict=True):
            for key, name in zip(own, labels.names, strict=True):
                known.setdefault(key, (name, len(known)))
        order = sorted(known, key=lambda key: (known[key][0], key[1]))
        number_of = {key: place for place, key in enumerate(order)}
        self._names = [known[key][0] for key in order]
        self._json = [json.dumps(name, ensure_ascii=False) for name in self._names]
        self._named_at = np.array([known[key][1] for key in order], np.int64)
        self._categories = np.array([category for _, category in order], np.int8)
        self._knows = np.zeros((len(taggers), len(order)), bool)
        self._readers: list[Reader] = []
        for row, ((labels, rule), own) in enumerate(zip(taggers, keys, strict=True)):
            places = np.array([number_of[key] for key in own], np.int64)
            limits = np.full(len(order), np.inf, np.float32)
            limits[places] = thresholds_of(labels, rule)
            self._readers.append(Reader(labels, places, limits, bool(np.isnan(limits).any())))
            self._knows[row, places] = True
        named = [key for key in keys[0] if key[1] >= 0]
        # then nothing has to be joined, which takes most of the time
        self._is_plain = len(taggers) == 1 and len(named) == len(set(named))

    def select(self, kept: Sequence[Sequence[bytes]]) -> list[Selection]:
        """What is taken of each picture.

        Args:
            kept: for each picture what `pack` gave, one for each tagger.
        """
        table = self._table(kept)
        tags = self._texts(table, len(kept))
        ratings = self._ratings(table, len(kept))
        chosen = []
        for (texts, num_tags), rating in zip(tags, ratings, strict=True):
            if rating is not None:
                texts["rating"] = self._json[rating]
            name = None if rating is None else self._names[rating]
            chosen.append(Selection(texts, num_tags, name))
        return chosen

    def _table(self, kept: Sequence[Sequence[bytes]]) -> "Table":
        """Every tag that any tagger kept of any picture, with its probability and whether it is taken."""
        columns = [
            self._column(reader, [of_picture[row] for of_picture in kept])
            for row, reader in enumerate(self._readers)
        ]
        if self._is_plain:
            pictures, places, shares = columns[0]
            taken = shares >= self._limits(self._readers[0], columns[0], pictures, places)
            return Table(pictures, places, shares, shares, taken)
        num_places = len(self._names)
        found = [pictures * num_places + places for pictures, places, _ in columns]
        joined, at = np.unique(np.concatenate(found), return_inverse=True)
        pictures, places = joined // num_places, joined % num_places
        values = np.zeros((len(columns), len(joined)), np.float32)
        thresholds = np.zeros_like(values)
        start = 0
        for row, (reader, column) in enumerate(zip(self._readers, columns, strict=True)):
            shares = column[2]
            values[row, at[start : start + len(shares)]] = shares
            thresholds[row] = self._limits(reader, column, pictures, places)
            start += len(shares)
        taken, means = self._joined(values, thresholds, self._knows[:, places])
        return Table(pictures, places, means, values.sum(0), taken)

    def _column(self, reader: Reader, data: Sequence[bytes]) -> Column:
        """Of one tagger: picture, place and probability of each tag that it kept."""
        counts = np.array([len(one) // 6 for one in data], np.int64)
        numbers, shares = unpack(
            b"".join(one[: 4 * (len(one) // 6)] for one in data)
            + b"".join(one[4 * (len(one) // 6) :] for one in data)
        )
        return np.repeat(np.arange(len(data)), counts), reader.places[numbers], shares

    def _limits(self, reader: Reader, column: Column, pictures: Numbers, places: Numbers) -> Shares:
        """The least probability that each of some tags must have with one tagger; infinity for none."""
        limits = reader.limits[places]
        if not reader.has_mcut or not len(pictures):
            return limits
        kept_in, kept_at, shares = column
        categories = self._categories[kept_at]
        cuts = np.zeros((int(pictures[-1]) + 1, len(CATEGORIES)))
        edges = np.searchsorted(kept_in, np.arange(len(cuts) + 1))
        for picture, (start, end) in enumerate(pairwise(edges.tolist())):
            for number, category in enumerate(CATEGORIES):
                least = LEAST_OF_CHARACTERS if category == "character" else 0.0
                own = shares[start:end][categories[start:end] == number]
                cuts[picture, number] = mcut_threshold(own, least=least)
        is_open = np.isnan(limits)
        limits[is_open] = cuts[pictures[is_open], self._categories[places[is_open]]]
        return limits

    def _joined(
        self, values: Shares, thresholds: Shares, knows: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], Shares]:
        """Which tags are taken, and with which probability; [num_taggers, num_tags] each."""
        num_knowing = np.maximum(knows.sum(0), 1)
        passes = (values >= thresholds) & knows
        mean = (values * knows).sum(0) / num_knowing
        if self._combine == "max":
            return np.asarray(passes.any(0)), values.max(0)
        if self._combine == "vote":
            return np.asarray(passes.sum(0) * 2 > num_knowing), mean
        limits = np.where(knows, thresholds, 0).sum(0) / num_knowing
        return np.asarray(mean >= limits), mean

    def _texts(self, table: "Table", num_pictures: int) -> list[tuple[dict[str, str], int]]:
        """For each picture its facts but the rating, and the number of its general tags."""
        categories = self._categories[table.places]
        chosen = np.flatnonzero(table.taken & (categories != RATING) & (categories >= 0))
        categories = categories[chosen]
        by_name, by_share = table.places[chosen].astype(np.float64), -table.shares[chosen]
        order = np.lexsort((np.where(np.isin(categories, _LISTED), by_share, by_name), categories))
        order = order[np.argsort(table.pictures[chosen[order]], kind="stable")]
        chosen, categories = chosen[order], categories[order]
        pictures, places = table.pictures[chosen], table.places[chosen].tolist()
        shares = np.rint(table.shares[chosen].astype(np.float64) * 10**DIGITS).astype(np.int64).tolist()
        changes = np.flatnonzero(np.diff(pictures) | np.diff(categories)) + 1
        edges = [0, *changes.tolist(), len(chosen)] if len(chosen) else [0]
        found: list[tuple[dict[str, str], int]] = [({}, 0) for _ in range(num_pictures)]
        for start, end in pairwise(edges):
            picture, category = int(pictures[start]), int(categories[start])
            names = itemgetter(*places[start:end], -1)(self._json)[:-1]  # a loop of C, for one name as well
            texts, num_tags = found[picture]
            if category in _LISTED:
                texts[_FACT_OF[category]] = "[" + ",".join(names) + "]"
                continue
            pairs = map(str.__add__, names, map(_share_text, shares[start:end]))
            texts[_FACT_OF[category]] = "{" + ",".join(pairs) + "}"
            found[picture] = texts, end - start if category == GENERAL else num_tags
        return found

    def _ratings(self, table: "Table", num_pictures: int) -> list[int | None]:
        """The place of each picture's likeliest rating; of equal ones the first of the label file."""
        found: list[int | None] = [None] * num_pictures
        if not self._rating_wanted:
            return found
        rows = np.flatnonzero(self._categories[table.places] == RATING)
        places = table.places[rows]
        order = np.lexsort((self._named_at[places], -table.sums[rows], table.pictures[rows]))
        pictures = table.pictures[rows[order]]
        firsts = np.flatnonzero(np.diff(pictures, prepend=-1))
        for picture, place in zip(pictures[firsts].tolist(), places[order[firsts]].tolist(), strict=True):
            found[picture] = place
        return found


@lru_cache(1 << 15)
def _share_text(parts: int) -> str:
    """What follows the name of a tag in JSON, for a probability in parts of 10 ** DIGITS."""
    return f":{parts / 10**DIGITS!r}"


@dataclass(frozen=True, slots=True)
class Table:
    """Tags of many pictures, [num_rows] each; those of one picture stand together or apart.

    Attributes:
        shares: of all taggers together; `sums` are added up instead.
    """

    pictures: Numbers
    places: Numbers
    shares: Shares
    sums: Shares
    taken: NDArray[np.bool_]


def _tags(labels: Labels) -> Iterator[tuple[str, int]]:
    return zip(labels.names, labels.categories.tolist(), strict=True)
