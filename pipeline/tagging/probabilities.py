"""Probabilities as they are kept, and what is made of them afterwards: thresholds, MCut, several taggers.

Kept are those of at least KEPT_FROM, as bytes: the outputs' numbers (uint32, little endian, rising), then
their probabilities (float16, a step of 0.0005 between 0.5 and 1). All else is decided later, without a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.settings import Json
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
_LISTS = ("copyright", "artist")  # facts that are names without probabilities
RATING = CATEGORIES.index("rating")

Numbers = NDArray[np.uint32]
Shares = NDArray[np.float32]


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


class Selector:
    """Turns the kept probabilities of one picture, of one tagger or several, into facts."""

    def __init__(self, taggers: Sequence[tuple[Labels, Rule]], combine: Combine) -> None:
        self._combine = combine
        self._rating_wanted = any("rating" in rule.categories for _, rule in taggers)
        known: dict[tuple[str, int], int] = {}
        self._names: list[str] = []
        all_places: list[Numbers] = []
        for labels, _ in taggers:
            places = np.zeros(len(labels), np.uint32)
            for index, (name, category) in enumerate(zip(labels.names, labels.categories, strict=True)):
                key = (name.replace(" ", "_"), int(category))
                if key not in known:
                    known[key] = len(self._names)
                    self._names.append(name)
                places[index] = known[key]
            all_places.append(places)
        self._readers: list[Reader] = []
        self._categories = np.full(len(self._names), -1, np.int8)
        self._knows = np.zeros((len(taggers), len(self._names)), bool)
        for row, ((labels, rule), places) in enumerate(zip(taggers, all_places, strict=True)):
            limits = np.full(len(self._names), np.inf, np.float32)
            limits[places] = thresholds_of(labels, rule)
            self._readers.append(Reader(labels, places, limits, bool(np.isnan(limits).any())))
            self._categories[places] = labels.categories
            self._knows[row, places] = True

    def facts(self, kept: Sequence[bytes]) -> dict[str, Json]:
        """Facts by name, those of every wanted category, empty ones left out.

        Args:
            kept: what `pack` gave, one for each tagger.
        """
        places, values, thresholds = self._table(kept)
        if not len(places):
            return {}
        knows = self._knows[:, places]
        taken, shares = self._joined(values, thresholds, knows)
        categories = self._categories[places]
        chosen = np.flatnonzero(taken & (categories != RATING) & (categories >= 0))
        chosen = chosen[np.argsort(-shares[chosen], kind="stable")]
        rounded = np.round(shares[chosen].astype(np.float64), DIGITS)
        tags: dict[str, dict[str, float]] = {}
        for category in dict.fromkeys(categories[chosen].tolist()):
            of_category = categories[chosen] == category
            names = [self._names[place] for place in places[chosen[of_category]].tolist()]
            tags[FACTS[CATEGORIES[category]]] = dict(zip(names, rounded[of_category].tolist(), strict=True))
        facts: dict[str, Json] = {
            name: list(found) if name in _LISTS else found for name, found in tags.items()
        }
        ratings = np.flatnonzero((categories == RATING) & knows.any(0))
        if self._rating_wanted and len(ratings):
            likeliest = ratings[np.argmax(values[:, ratings].sum(0))]
            facts["rating"] = self._names[places[likeliest]]
        return facts

    def _table(self, kept: Sequence[bytes]) -> tuple[Numbers, Shares, Shares]:
        """Places of the tags that any tagger kept, and probability and threshold of each tagger there."""
        unpacked = [unpack(data) for data in kept]
        found = [reader.places[numbers] for reader, (numbers, _) in zip(self._readers, unpacked, strict=True)]
        is_alone = len(found) == 1  # then its tags need no joining, which takes most of the time
        places = found[0] if is_alone else np.unique(np.concatenate(found))
        if is_alone:
            numbers, shares = unpacked[0]
            limits = self._thresholds_at(self._readers[0], places, numbers, shares)
            return places, shares[None], limits[None]
        values = np.zeros((len(kept), len(places)), np.float32)
        thresholds = np.full((len(kept), len(places)), np.inf, np.float32)
        for row, (reader, (numbers, shares)) in enumerate(zip(self._readers, unpacked, strict=True)):
            values[row, np.searchsorted(places, found[row])] = shares
            thresholds[row] = self._thresholds_at(reader, places, numbers, shares)
        return places, values, thresholds

    def _thresholds_at(self, reader: Reader, places: Numbers, numbers: Numbers, shares: Shares) -> Shares:
        chosen = reader.limits[places]
        if reader.has_mcut:
            for number, category in enumerate(CATEGORIES):
                own = shares[reader.labels.categories[numbers] == number]
                least = LEAST_OF_CHARACTERS if category == "character" else 0.0
                cut = mcut_threshold(own, least=least)
                chosen[np.isnan(chosen) & (self._categories[places] == number)] = cut
        return chosen

    def _joined(
        self, values: Shares, thresholds: Shares, knows: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], Shares]:
        """Which tags are taken, and with which probability; [num_taggers, num_tags] each."""
        if len(values) == 1:  # nothing to join, on the way that most pictures go
            return np.asarray(values[0] >= thresholds[0]), values[0]
        num_knowing = np.maximum(knows.sum(0), 1)
        passes = (values >= thresholds) & knows
        mean = (values * knows).sum(0) / num_knowing
        if self._combine == "max":
            return np.asarray(passes.any(0)), values.max(0)
        if self._combine == "vote":
            return np.asarray(passes.sum(0) * 2 > num_knowing), mean
        limits = np.where(knows, thresholds, 0).sum(0) / num_knowing
        return np.asarray(mean >= limits), mean
