"""Which picture is seen when: every batch as a pure function of (seed, pictures, batch size, its number).

A picture with repeats m enters an epoch so often that after k epochs it was queued floor(k m) or ceil(k m)
times, exactly. The visits of an epoch are shuffled within each bucket and strung together to one endless
queue per bucket; a batch is the next `batch_size` visits of one queue. What fills no batch waits in its
queue for the next epoch: every batch is full, nothing is shown more often than its repeats say, no picture
is lost, even in a bucket of one.

Of pictures with the same m, floor(k m + u) counts the visits, where the phases u are spread evenly from 0 to
1 over those pictures in a random order (stratified systematic sampling), so that epochs have equal lengths.
EveryDream2 sweeps a list that never changes instead, which favours what stands first in it.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.layouts.buckets import Bucket
from trainers import draws

Numbers = NDArray[np.int64]

MOST_ORDERS = 64  # shuffled epochs in memory for a bucket whose batches take many epochs


class Visitable(Protocol):
    """What is asked of a picture here."""

    @property
    def repeats(self) -> Fraction:
        """Showings in an epoch."""

    @property
    def bucket(self) -> Bucket:
        """What it is cut to."""

    @property
    def batch_id(self) -> str:
        """What it should share a batch with; empty for nothing."""


class Visit(NamedTuple):
    """One showing of one picture."""

    example: int  # its index in the examples
    visit: int  # how often it was shown before, 0 at first


class SmallBucket(NamedTuple):
    """A bucket that an epoch does not fill a batch of."""

    bucket: Bucket
    num_images: int
    images_per_epoch: Fraction  # repeats counted
    epochs_per_batch: Fraction


class Visits:
    """The order of training.

    Args:
        examples: pictures with repeats above 0.
        concepts: of each; where they are given, every batch holds each concept in proportion.

    Raises:
        ValueError: no examples, a batch size below 1, or repeats that are not above 0.
    """

    def __init__(
        self,
        examples: Sequence[Visitable],
        *,
        batch_size: int,
        seed: int,
        concepts: Sequence[str] | None = None,
    ) -> None:
        if not examples or batch_size < 1:
            raise ValueError(f"{len(examples)} pictures in batches of {batch_size} make no training")
        self.batch_size = batch_size
        self._seed = seed
        self._queues = _queues(examples, batch_size, seed)
        for queue in self._queues if concepts is not None else ():
            assert concepts is not None
            queue.spread([concepts[example] for example in queue.examples])
        self.images_per_epoch = sum((queue.images_per_epoch for queue in self._queues), Fraction(0))
        self._batches_before = lru_cache(64)(self._count_batches)
        self._epoch_batches = lru_cache(2)(self._shuffled_batches)

    @property
    def batches_per_epoch(self) -> float:
        """On average; single epochs differ by a batch or a few, as pictures wait for the next."""
        return float(self.images_per_epoch / self.batch_size)

    def batches_before(self, epoch: int) -> int:
        """Batches that the epochs 0 to `epoch` - 1 complete; the first batch of `epoch` has this number."""
        return self._batches_before(epoch)

    def epoch_of(self, number: int) -> int:
        """The epoch, from 0, in which a batch is completed."""
        rate = self.images_per_epoch / self.batch_size
        low = max(0, int(number / rate) - 2)
        step = 1
        while low and self.batches_before(low) > number:
            low, step = max(0, low - step), 2 * step
        high, step = low + 1, 1
        while self.batches_before(high) <= number:
            low, high, step = high, high + step, 2 * step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.batches_before(middle) > number else (middle, high)
        return low

    def batch(self, number: int) -> list[Visit]:
        """Batch `number`, from 0: `batch_size` visits, all of one bucket."""
        epoch = self.epoch_of(number)
        place = int(self._epoch_batches(epoch)[number - self.batches_before(epoch)])
        for queue in self._queues:
            first, last = (queue.total(k) // self.batch_size for k in (epoch, epoch + 1))
            if place < last - first:
                return queue.batch(first + place, epoch)
            place -= last - first
        raise AssertionError("a batch lies in one of the queues")

    def queued(self, epochs: int) -> list[int]:
        """How often each example enters the queues in so many epochs."""
        counts = np.zeros(sum(len(queue.examples) for queue in self._queues), np.int64)
        for queue in self._queues:
            counts[queue.examples] = queue.counts(epochs)
        return [int(count) for count in counts]

    def waiting(self, epochs: int) -> int:
        """Visits that are queued after so many epochs and wait for a full batch."""
        return sum(queue.total(epochs) % self.batch_size for queue in self._queues)

    def small_buckets(self) -> list[SmallBucket]:
        """Buckets that fill a batch less than once an epoch: trained all the same, over several epochs."""
        return [
            SmallBucket(
                queue.bucket,
                len(queue.examples),
                queue.images_per_epoch,
                self.batch_size / queue.images_per_epoch,
            )
            for queue in self._queues
            if queue.images_per_epoch < self.batch_size
        ]

    def _count_batches(self, epochs: int) -> int:
        return sum(queue.total(epochs) // self.batch_size for queue in self._queues)

    def _shuffled_batches(self, epoch: int) -> Numbers:
        count = self.batches_before(epoch + 1) - self.batches_before(epoch)
        return draws.permutation(count, "batches", self._seed, epoch)


class _Queue:
    """The endless queue of one bucket.

    Args:
        examples: indices of its pictures, [n].
        groups: for each, which of `repeats` it has, [n].
        ranks: for each, its place among all pictures of those repeats, in a random order, [n].
        sizes: for each of `repeats`, how many pictures have it in all buckets.
        batch_ids: for each, a number for EveryDream's batch_id, 0 for none, [n].
    """

    def __init__(
        self,
        bucket: Bucket,
        examples: Numbers,
        groups: Numbers,
        ranks: Numbers,
        repeats: Sequence[Fraction],
        sizes: Sequence[int],
        batch_ids: Numbers,
        batch_size: int,
        seed: int,
    ) -> None:
        self.bucket = bucket
        self.examples = examples
        kinds, self._groups = np.unique(groups, return_inverse=True)
        self._repeats = [repeats[kind] for kind in kinds]
        self._sizes = [sizes[kind] for kind in kinds]
        self._phases = 2 * ranks + 1  # over twice the size of the group: (rank + 1/2) / size
        self._batch_ids = batch_ids if batch_ids.any() else None
        self._batch_size = batch_size
        self._seed = seed
        members = np.bincount(self._groups, minlength=len(kinds))
        self.images_per_epoch = sum(
            (repeat * int(count) for repeat, count in zip(self._repeats, members, strict=True)), Fraction(0)
        )
        self._concepts: Numbers | None = None
        self.total = lru_cache(4096)(self._total)
        spanned = int(batch_size / self.images_per_epoch) + 2  # epochs that one batch may take from
        self._order = lru_cache(min(spanned, MOST_ORDERS))(self._shuffled)

    def spread(self, concepts: Sequence[str]) -> None:
        """Lay the visits of each concept evenly along the queue; to be said before any batch is asked for."""
        numbers = {name: at for at, name in enumerate(sorted(set(concepts)))}
        self._concepts = np.array([numbers[name] for name in concepts], np.int64)

    def counts(self, epochs: int) -> Numbers:
        """floor(epochs * repeats + phase) of each picture, exact whatever the fractions: [n]."""
        whole, least = [], []
        for repeat, size in zip(self._repeats, self._sizes, strict=True):
            product = epochs * repeat.numerator
            rest = product % repeat.denominator
            whole.append(product // repeat.denominator)
            # phase + rest >= 1, with phase = (2 rank + 1) / (2 size)
            least.append(-(-2 * size * (repeat.denominator - rest) // repeat.denominator))
        return np.array(whole)[self._groups] + (self._phases >= np.array(least)[self._groups])

    def _total(self, epochs: int) -> int:
        return int(self.counts(epochs).sum())

    def batch(self, number: int, last_epoch: int) -> list[Visit]:
        """The visits at `number * batch_size` and after."""
        start, stop = number * self._batch_size, (number + 1) * self._batch_size
        found: list[Visit] = []
        epoch = self._epoch_at(start, last_epoch)
        while len(found) < self._batch_size:
            before = self.total(epoch)
            pairs = self._order(epoch)[max(0, start - before) : stop - before]
            found += [Visit(int(example), int(visit)) for example, visit in pairs]
            if len(found) < self._batch_size:
                epoch = self._epoch_at(start + len(found), last_epoch)
        return found

    def _epoch_at(self, position: int, last: int) -> int:
        """The epoch, at most `last`, whose visits hold a position of the queue."""
        if self.total(last) <= position:
            return last
        low, high = 0, last
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.total(middle) > position else (middle, high)
        return low

    def _shuffled(self, epoch: int) -> Numbers:
        """Pairs (example, visit) of one epoch in the order of the queue: [visits, 2]."""
        before, after = self.counts(epoch), self.counts(epoch + 1)
        members = np.repeat(np.arange(len(before)), after - before)
        starts = np.cumsum(after - before) - (after - before)
        visits = before[members] + np.arange(len(members)) - starts[members]
        order = draws.permutation(len(members), "visits", self._seed, str(self.bucket), epoch)
        if self._concepts is not None:
            order = order[self._even_order(self._concepts[members][order], epoch)]
        if self._batch_ids is not None:
            order = self._kept_together(order, self._batch_ids[members], self.total(epoch))
        return np.stack([self.examples[members[order]], visits[order]], axis=1)

    def _even_order(self, concepts: Numbers, epoch: int) -> Numbers:
        """An order in which the n visits of each concept lie 1/n of the epoch apart, from a drawn place on.

        Args:
            concepts: of visits in a random order, which stays within each concept: [visits].
        """
        places = np.empty(len(concepts))
        for concept in np.unique(concepts):
            mine = np.flatnonzero(concepts == concept)
            first = draws.stream("spread", self._seed, str(self.bucket), epoch, int(concept)).random()
            places[mine] = (np.arange(len(mine)) + first) / len(mine)
        return np.argsort(places, kind="stable")

    def _kept_together(self, order: Numbers, batch_ids: Numbers, position: int) -> Numbers:
        """The order with visits of one batch_id moved into as few batches as they need (first fit).

        Args:
            order: of the visits of an epoch, [visits].
            batch_ids: by visit, 0 for none, [visits].
            position: where the epoch begins in the queue.
        """
        edges = range(position - position % self._batch_size, position + len(order), self._batch_size)
        ends = [max(position, edge) for edge in edges] + [position + len(order)]
        bins: list[list[int]] = [[] for _ in pairwise(ends)]
        room = [stop - start for start, stop in pairwise(ends)]
        ids = batch_ids[order]
        units = [
            members[at : at + self._batch_size]
            for one in dict.fromkeys(ids[ids > 0].tolist())
            for members in [order[ids == one].tolist()]
            for at in range(0, len(members), self._batch_size)
        ]
        singles = order[ids == 0].tolist()
        for unit in sorted(units, key=len, reverse=True):
            fits = next((at for at, free in enumerate(room) if free >= len(unit)), None)
            if fits is None:
                singles = unit + singles
                continue
            bins[fits] += unit
            room[fits] -= len(unit)
        for one, free in zip(bins, room, strict=True):
            one += singles[:free]
            singles = singles[free:]
        return np.array([visit for one in bins for visit in one], np.int64)


def _queues(examples: Sequence[Visitable], batch_size: int, seed: int) -> list[_Queue]:
    ratios = [(one.repeats.numerator, one.repeats.denominator) for one in examples]  # quicker to hash
    kinds = {ratio: index for index, ratio in enumerate(sorted(set(ratios)))}
    repeats = [Fraction(*ratio) for ratio in kinds]
    if min(repeats) <= 0:
        raise ValueError(f"repeats must be above 0, found {min(repeats)}")
    groups = np.array([kinds[ratio] for ratio in ratios], np.int64)
    ranks = _ranks(examples, groups, seed)
    names = {name: at for at, name in enumerate(sorted({one.batch_id for one in examples} | {""}))}
    batch_ids = np.array([names[one.batch_id] for one in examples], np.int64)
    sizes = np.bincount(groups).tolist()
    members: dict[Bucket, list[int]] = {}
    for index, one in enumerate(examples):
        members.setdefault(one.bucket, []).append(index)
    return [
        _Queue(
            bucket,
            indices := np.array(members[bucket], np.int64),
            groups[indices],
            ranks[indices],
            repeats,
            sizes,
            batch_ids[indices],
            batch_size,
            seed,
        )
        for bucket in sorted(members)
    ]


def _ranks(examples: Sequence[Visitable], groups: Numbers, seed: int) -> Numbers:
    """The place of each picture among those of its group, in a random order: [n]."""
    order = draws.permutation(len(examples), "phases", seed)
    order = order[np.argsort(groups[order], kind="stable")]
    starts = np.cumsum(np.bincount(groups)) - np.bincount(groups)
    ranks = np.empty(len(examples), np.int64)
    ranks[order] = np.arange(len(examples)) - starts[groups[order]]
    return ranks
