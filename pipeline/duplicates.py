"""Finds the groups of near-duplicates of a whole set, and the best picture of each."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from pipeline.candidates import Neighbours, neighbours, parts
from pipeline.comparing import Comparer
from pipeline.same_picture import Comparison
from pipeline.star_groups import Member, star_groups

MOST_COMPARED = 200  # pictures that one is compared with: of more, those most like it in light
MOST_MEMBERS = 16  # of a group that a picture is held against before it joins
ALIKE = "alike to the model"


@dataclass(frozen=True, slots=True)
class Found:
    """Why a picture is the same as the one that began its group."""

    comparison: Comparison
    is_mirrored: bool = False
    cosine: float | None = None  # where only the model found it


@dataclass(slots=True)
class Finder:
    """Groups pictures, which are places in the comparer's entries.

    Args:
        order: ranks for which picture begins a group; smaller first.
        radius: bits that hashes may differ by.
        flips: also mirror images.
        model_pairs: of each picture, those that a model finds alike, with their cosine.
    """

    comparer: Comparer
    order: Sequence[object]
    radius: int
    flips: bool = False
    model_pairs: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    workers: int = 1
    _near: list[tuple[Neighbours, bool]] = field(default_factory=list)

    def groups(
        self,
        pictures: Sequence[int],
        on_done: Callable[[int], None] = lambda _: None,
        check_stop: Callable[[], None] = lambda: None,
    ) -> dict[int, list[Member[Found]]]:
        """Star groups of some pictures, by the picture that begins each."""
        places = np.asarray(pictures)
        signatures = [self.comparer.entries[place].signature for place in pictures]
        whole = [one.hashes for one in signatures]
        found = [(neighbours(whole, whole, self.radius, threads=self.workers), False)]
        if self.flips:
            mirrored = [one.mirrored for one in signatures]
            found.append((neighbours(whole, mirrored, self.radius, threads=self.workers), True))
        self._near = found
        local = {int(place): index for index, place in enumerate(places)}
        together = self._parts([one for one, _ in found], local)
        groups: dict[int, list[Member[Found]]] = {}
        with ThreadPoolExecutor(self.workers) as pool:
            work = sorted(together, key=len, reverse=True)
            for part, stars in zip(
                work, pool.map(lambda part: self._stars(part, pictures, local, check_stop), work), strict=True
            ):
                groups.update(stars)
                on_done(len(part))
                check_stop()
        return groups

    def _parts(self, found: Sequence[Neighbours], local: Mapping[int, int]) -> list[list[int]]:
        """Pictures that may be the same by hash or by model, apart from all others; places in this round."""
        together = parts(*found)
        part_of = {index: number for number, part in enumerate(together) for index in part}
        joined = list(range(len(together)))

        def top(number: int) -> int:
            while joined[number] != number:
                number = joined[number]
            return number

        for place, others in self.model_pairs.items():
            for other in others:
                if place in local and other in local:
                    a, b = top(part_of[local[place]]), top(part_of[local[other]])
                    joined[max(a, b)] = min(a, b)
        merged: dict[int, list[int]] = {}
        for number, part in enumerate(together):
            merged.setdefault(top(number), []).extend(part)
        return list(merged.values())

    def _stars(
        self,
        part: Sequence[int],
        pictures: Sequence[int],
        local: Mapping[int, int],
        check_stop: Callable[[], None],
    ) -> dict[int, list[Member[Found]]]:
        if len(part) == 1:
            return {pictures[part[0]]: []}
        order = sorted((pictures[index] for index in part), key=lambda place: self.order[place])  # type: ignore[arg-type,return-value]
        near_firsts = _Firsts(self._near, local)

        def near(picture: int, firsts: Sequence[int]) -> Iterable[int]:
            check_stop()
            near_firsts.take_in(firsts)
            found = near_firsts.near(picture) | (self.model_pairs.get(picture, {}).keys() & set(firsts))
            return self._nearest(picture, sorted(found, key=lambda place: self.order[place]))  # type: ignore[arg-type,return-value]

        return star_groups(order, near, self._same, self._fits)

    def _nearest(self, picture: int, found: Sequence[int]) -> Sequence[int]:
        if len(found) <= MOST_COMPARED:
            return found
        mine = self.comparer.light(picture)
        differences = [float(np.abs(self.comparer.light(one) - mine).mean()) for one in found]
        chosen = sorted(np.argsort(differences, kind="stable")[:MOST_COMPARED].tolist())
        return [found[index] for index in chosen]

    def _fits(self, picture: int, members: Sequence[int]) -> bool:
        """Whether no member that lies on a picture as it is shows another one.

        The first of a group may be a copy so soft, or so bright, that a mouth is lost in it.
        """
        mine = self.comparer.entries[picture].signature
        size = (mine.width_px, mine.height_px)
        for one in members[:MOST_MEMBERS]:
            signature = self.comparer.entries[one].signature
            if (signature.width_px, signature.height_px) == size:
                found = self.comparer.compare(one, picture)
                if found.is_strict and not found.is_same:
                    return False
        return True

    def _same(self, first: int, second: int) -> Found | None:
        cosine = self.model_pairs.get(first, {}).get(second)
        for is_mirrored in (False, True) if self.flips else (False,):
            comparison = self.comparer.compare(first, second, is_mirrored=is_mirrored)
            if comparison.is_same:
                return Found(comparison, is_mirrored)
        return None if cosine is None else Found(Comparison(False, 0.0), cosine=cosine)


class _Firsts:
    """Pictures that began groups, by their hash."""

    def __init__(self, found: Sequence[tuple[Neighbours, bool]], local: Mapping[int, int]) -> None:
        self._found, self._local = found, local
        self._by_group: dict[int, list[int]] = {}
        self._num_taken = 0

    def take_in(self, firsts: Sequence[int]) -> None:
        for first in firsts[self._num_taken :]:
            group = int(self._found[0][0].group_of[self._local[first]])
            self._by_group.setdefault(group, []).append(first)
        self._num_taken = len(firsts)

    def near(self, picture: int) -> set[int]:
        index = self._local[picture]
        return {
            first
            for neighbour, _ in self._found
            for group in neighbour.near(index)
            for first in self._by_group.get(group, ())
        }


def reason(found: Found) -> str:
    """In short, what a picture is to the one it is dropped for."""
    one = found.comparison
    if found.cosine is not None:
        return ALIKE
    words = []
    if found.is_mirrored:
        words.append("mirrored")
    if one.overlay:
        words.append(f"with a {one.overlay} in one of them")
    if one.fuller:
        words.append("cropped")
    if one.is_relit:
        words.append("of other brightness")
    return "same picture" + (f", {', '.join(words)}" if words else "")


def has_overlay(group: Sequence[Member[Found]], first: int) -> Collection[int]:
    """Pictures of a group that have writing or a mark laid over them."""
    marked = {one.picture for one in group if one.found.comparison.overlay_in == "b"}
    return marked | ({first} if any(one.found.comparison.overlay_in == "a" for one in group) else set())


def is_part(group: Sequence[Member[Found]], first: int) -> Collection[int]:
    """Pictures of a group that are crops of another in it."""
    parts_of = {one.picture for one in group if one.found.comparison.fuller == "a"}
    return parts_of | ({first} if any(one.found.comparison.fuller == "b" for one in group) else set())
