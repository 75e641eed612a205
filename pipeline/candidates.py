"""Which pictures are worth comparing, by their hashes: over the whole set, exactly, without n x n work.

A picture is near another when its hash is within some bits of one of the other's views
(`picture_signature.VIEWS`): crops are found by the view that they were cut like. Pictures of equal hashes
are one in the search.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.hash_search import Hashes, collapse, near_matches


@dataclass(frozen=True, slots=True)
class Neighbours:
    """For each distinct hash, the distinct hashes near it, itself among them."""

    group_of: NDArray[np.int64]  # [pictures]: place of its hash among the distinct ones
    starts: NDArray[np.int64]
    others: NDArray[np.int64]
    num_pairs: int

    def near(self, picture: int) -> Iterator[int]:
        """Places of the distinct hashes near a picture's."""
        group = self.group_of[picture]
        return iter(self.others[self.starts[group] : self.starts[group + 1]].tolist())


def neighbours(
    hashes: Sequence[Sequence[int]], views: Sequence[Sequence[int]], radius: int, *, threads: int = 1
) -> Neighbours:
    """Find the neighbours of every picture, in both directions.

    Args:
        hashes: of each picture, the hash of the whole first, [pictures, views].
        views: those that are looked up; `hashes` again, or the hashes of the mirror images.
        radius: bits.
    """
    whole: Hashes = np.array([one[0] for one in hashes], np.uint64)
    asked: Hashes = np.array([list(one) for one in views], np.uint64).reshape(len(whole), -1)
    distinct, group_of = collapse(whole)
    queries, query_of = collapse(asked.ravel())
    left, right, _ = near_matches(queries, distinct, radius, threads=threads)
    # query -> groups of the pictures that have that view
    owner = np.repeat(group_of, asked.shape[1])
    order = np.argsort(query_of, kind="stable")
    owner, bounds = owner[order], np.searchsorted(query_of[order], np.arange(len(queries) + 1))
    counts = (bounds[1:] - bounds[:-1])[left]
    offsets = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    first = owner[np.repeat(bounds[:-1][left], counts) + offsets] if len(left) else np.empty(0, np.int64)
    second = np.repeat(right, counts)
    size = np.int64(max(1, len(distinct)))
    own = np.arange(len(distinct))
    codes = np.unique(
        np.concatenate([first * size + second, second * size + first, own * size + own]).astype(np.int64)
    )
    groups = codes // size
    starts = np.searchsorted(groups, np.arange(len(distinct) + 1))
    return Neighbours(group_of, starts, codes % size, (len(codes) - len(distinct)) // 2)


def parts(*found: Neighbours) -> list[list[int]]:
    """Pictures that hang together through neighbours, as lists of places; each can be worked on by itself."""
    if not found or not len(found[0].group_of):
        return []
    leader = np.arange(len(found[0].starts) - 1)

    def top(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = int(leader[place])
        return place

    for one in found:
        sources = np.repeat(np.arange(len(one.starts) - 1), np.diff(one.starts))
        for source, other in zip(sources.tolist(), one.others.tolist(), strict=True):
            first, second = top(source), top(other)
            if first != second:
                leader[max(first, second)] = min(first, second)
    members: dict[int, list[int]] = {}
    for picture, group in enumerate(found[0].group_of.tolist()):
        members.setdefault(top(group), []).append(picture)
    return list(members.values())
