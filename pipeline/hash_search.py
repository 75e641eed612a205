"""Every pair of 64-bit hashes within a Hamming distance, exactly, without comparing each with each.

Cut the 64 bits into blocks. Two hashes at a distance of at most `radius` differ, in at least one block i, in
no more than r_i bits, whenever the r_i sum to radius - blocks + 1 (the pigeonhole principle; Norouzi, Punjani
and Fleet 2012, section 3.1, tightened). So each block is an index: hashes lie in it by their bits of it, and
every hash looks in the places that differ from its own in up to r_i bits, and what it finds there is counted
out in full. Equal hashes are collapsed first: a thousand black frames are one.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

BITS = 64
MANY = 300_000  # hashes from which three blocks beat four
_AT_ONCE = 1 << 21  # candidates expanded at a time, per thread


@dataclass(frozen=True, slots=True)
class Block:
    """Bits `low` to `low + width - 1`, in which candidates differ by up to `radius` bits."""

    low: int
    width: int
    radius: int

    def keys(self, hashes: Hashes) -> NDArray[np.int32]:
        """The bits of this block, as numbers."""
        mask = np.uint64((1 << self.width) - 1)
        return ((hashes >> np.uint64(self.low)) & mask).astype(np.int32)

    def masks(self) -> NDArray[np.int32]:
        """Every change of up to `radius` bits, none first."""
        found = [
            sum(1 << bit for bit in bits)
            for count in range(self.radius + 1)
            for bits in combinations(range(self.width), count)
        ]
        return np.array(found, np.int32)


def blocks_for(radius: int, num_hashes: int) -> list[Block]:
    """How to cut the bits: few and wide blocks where there are many hashes, more where the radius is large.

    Raises:
        ValueError: a radius that is not in 0 to 16.
    """
    if not 0 <= radius <= 16:
        raise ValueError(f"radius must lie in 0 to 16, got {radius}")
    count = 3 if num_hashes >= MANY else 4
    while radius - count + 1 > 3 * count:  # more than 3 bits in a block: too many places to look in
        count += 1
    count = min(count, radius + 1)  # a block with less than 0 bits of difference finds nothing
    widths = [BITS // count + (index < BITS % count) for index in range(count)]
    if widths[0] > 22:  # a table of more than 4 million places is slower than more blocks
        count, widths = 3, [22, 21, 21]
    spare = max(0, radius - count + 1)
    radii = [spare // count + (index < spare % count) for index in range(count)]
    lows = [sum(widths[:index]) for index in range(count)]
    return [Block(*one) for one in zip(lows, widths, radii, strict=True)]


@dataclass(frozen=True, slots=True)
class Shelf:
    """Hashes sorted by their bits of one block: neighbours in memory look in neighbouring places."""

    order: NDArray[np.int32]  # of the hashes as they were given
    hashes: Hashes
    keys: NDArray[np.int32]

    @classmethod
    def of(cls, hashes: Hashes, block: Block) -> "Shelf":
        """Sort by key."""
        keys = block.keys(hashes)
        order = np.argsort(keys, kind="stable").astype(np.int32)
        return cls(order, hashes[order], keys[order])

    def starts(self, block: Block) -> NDArray[np.int32]:
        """Where each key begins: those with key k are at `starts[k]` to `starts[k + 1] - 1`."""
        counts = np.bincount(self.keys, minlength=1 << block.width)
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def near_pairs(hashes: Hashes, radius: int, *, threads: int = 1) -> tuple[Places, Places, NDArray[np.uint8]]:
    """Every pair within `radius` bits of each other, once.

    Args:
        hashes: distinct, [n]; see `collapse`.
        radius: 0 to 16.

    Returns: first, second, distance in bits, [pairs] each; first < second; sorted.

    Raises:
        ValueError: equal hashes, or a radius out of bounds.
    """
    if len(np.unique(hashes)) < len(hashes):
        raise ValueError("equal hashes must be collapsed first")
    return _search(hashes, hashes, radius, threads, is_self=True)


def near_matches(
    queries: Hashes, hashes: Hashes, radius: int, *, threads: int = 1
) -> tuple[Places, Places, NDArray[np.uint8]]:
    """Every (query, hash) within `radius` bits of each other; neither need be distinct.

    Returns: place in `queries`, place in `hashes`, distance in bits, [matches] each; sorted.
    """
    return _search(queries, hashes, radius, threads, is_self=False)


def collapse(hashes: Hashes) -> tuple[Hashes, Places]:
    """Distinct hashes in rising order, and for each of `hashes` its place among them."""
    distinct, places = np.unique(hashes, return_inverse=True)
    return distinct, places.astype(np.int64)


def distances(a: Hashes, b: Hashes) -> NDArray[np.uint8]:
    """Bits in which hashes differ, element by element."""
    bits: NDArray[np.uint8] = np.bitwise_count(a ^ b)
    return bits


def _search(
    queries: Hashes, hashes: Hashes, radius: int, threads: int, *, is_self: bool
) -> tuple[Places, Places, NDArray[np.uint8]]:
    size = np.int64(max(1, len(hashes)))
    codes: list[Places] = []
    if len(queries) and len(hashes):
        with ThreadPoolExecutor(max(1, threads)) as pool:
            for block in blocks_for(radius, len(hashes)):
                shelf = Shelf.of(hashes, block)
                look = _Look(
                    shelf if is_self else Shelf.of(queries, block),
                    shelf,
                    shelf.starts(block),
                    radius,
                    is_self,
                )
                codes.append(_distinct(list(pool.map(look, _pieces(block, threads)))))
    found = _distinct(codes)
    left, right = found // size, found % size
    return left, right, distances(queries[left], hashes[right])


def _pieces(block: Block, threads: int) -> list[NDArray[np.int32]]:
    """The changes to look for, in parts of about equal work for threads."""
    masks = block.masks()
    return [part for part in np.array_split(masks, min(len(masks), 4 * max(1, threads))) if len(part)]


@dataclass(frozen=True, slots=True)
class _Look:
    """One block of one search, called with some of the changes to look for."""

    queries: Shelf
    hashes: Shelf
    starts: NDArray[np.int32]
    radius: int
    is_self: bool

    def __call__(self, masks: NDArray[np.int32]) -> Places:
        """Codes, query * number of hashes + hash, of what lies within the radius, distinct."""
        size = np.int64(len(self.hashes.hashes))
        found = []
        for mask in masks:
            for left, right in self._near(int(mask)):
                left, right = self.queries.order[left], self.hashes.order[right]
                if self.is_self:
                    left, right = np.minimum(left, right), np.maximum(left, right)
                found.append(left * size + right)
        return _distinct(found)

    def _near(self, mask: int) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """Places on the two shelves of pairs whose keys differ by `mask`; with `is_self` each pair once."""
        wanted, who = self.queries.keys ^ np.int32(mask), None
        if self.is_self and mask:
            # key ^ mask leads from one of a pair to the other: only the one whose top changed bit is 0 looks
            who = np.flatnonzero(self.queries.keys & (1 << (mask.bit_length() - 1)) == 0).astype(np.int32)
            wanted = wanted[who]
        starts = self.starts[wanted]
        counts = self.starts[wanted + 1] - starts
        filled = np.flatnonzero(counts).astype(np.int32)
        starts, counts = starts[filled], counts[filled]
        for left, right in _expand(filled if who is None else who[filled], starts, counts):
            is_near = distances(self.queries.hashes[left], self.hashes.hashes[right]) <= self.radius
            if self.is_self and not mask:
                is_near &= left < right
            yield left[is_near], right[is_near]


def _expand(
    who: NDArray[np.int32], starts: NDArray[np.int32], counts: NDArray[np.int32]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """(asking, found) for every place from `starts` on, `counts` of them, a bounded number at a time."""
    ends = np.cumsum(counts, dtype=np.int64)
    begin = 0
    while begin < len(who):
        done = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _AT_ONCE, side="right")))
        part = counts[begin:end]
        first = (starts[begin:end] - np.cumsum(part, dtype=np.int32) + part).astype(np.int32)
        found = (np.repeat(first, part) + np.arange(int(part.sum()))).astype(np.int32)
        yield np.repeat(who[begin:end], part), found
        begin = end


def _distinct(codes: list[Places]) -> Places:
    filled = [one for one in codes if len(one)]
    return np.unique(np.concatenate(filled)) if filled else np.empty(0, np.int64)
