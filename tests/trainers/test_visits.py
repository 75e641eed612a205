"""The order of training: laws that hold for any pictures, batch size and seed."""

import math
import time
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.layouts.buckets import Bucket
from trainers.visits import Visit, Visits

SIZES = (Bucket(512, 512), Bucket(384, 640), Bucket(640, 384))
ONE = Fraction(1)


@dataclass(frozen=True)
class Picture:
    repeats: Fraction = ONE
    bucket: Bucket = SIZES[0]
    batch_id: str = ""


REPEATS = st.sampled_from(
    [ONE, Fraction(5, 2), Fraction(1, 3), Fraction(1, 10), Fraction("0.0833"), Fraction(7)]
)
PICTURES = st.lists(
    st.builds(Picture, REPEATS, st.sampled_from(SIZES), st.sampled_from(["", "", "", "a", "b"])),
    min_size=1,
    max_size=8,
)
BATCHES = st.integers(1, 5)
SEEDS = st.integers(0, 2**40)


def first_batches(visits: Visits, epochs: int) -> list[list[Visit]]:
    return [visits.batch(number) for number in range(visits.batches_before(epochs))]


@settings(max_examples=40)
@given(PICTURES, BATCHES, SEEDS, st.integers(1, 7))
def test_every_batch_is_full_and_of_one_bucket(
    pictures: list[Picture], batch_size: int, seed: int, epochs: int
) -> None:
    for batch in first_batches(Visits(pictures, batch_size=batch_size, seed=seed), epochs):
        assert len(batch) == batch_size
        assert len({pictures[visit.example].bucket for visit in batch}) == 1


@settings(max_examples=40)
@given(PICTURES, BATCHES, SEEDS, st.integers(1, 30))
def test_after_k_epochs_a_picture_was_queued_floor_or_ceil_of_k_times_its_repeats(
    pictures: list[Picture], batch_size: int, seed: int, epochs: int
) -> None:
    queued = Visits(pictures, batch_size=batch_size, seed=seed).queued(epochs)
    for picture, count in zip(pictures, queued, strict=True):
        exact = epochs * picture.repeats
        assert count in (math.floor(exact), math.ceil(exact))


@settings(max_examples=40)
@given(PICTURES, BATCHES, SEEDS, st.integers(1, 7))
def test_what_is_queued_is_shown_or_waits_and_nothing_is_shown_twice(
    pictures: list[Picture], batch_size: int, seed: int, epochs: int
) -> None:
    visits = Visits(pictures, batch_size=batch_size, seed=seed)
    shown = [visit for batch in first_batches(visits, epochs) for visit in batch]
    assert len(set(shown)) == len(shown)
    queued = visits.queued(epochs)
    assert len(shown) + visits.waiting(epochs) == sum(queued)
    assert visits.waiting(epochs) <= len({one.bucket for one in pictures}) * (batch_size - 1)
    for example, count in Counter(visit.example for visit in shown).items():
        assert count <= queued[example]
    assert all(visit.visit < queued[visit.example] for visit in shown)


@settings(max_examples=40)
@given(PICTURES, BATCHES, SEEDS)
def test_a_batch_depends_on_its_number_alone(pictures: list[Picture], batch_size: int, seed: int) -> None:
    there = Visits(pictures, batch_size=batch_size, seed=seed)
    forward = [there.batch(number) for number in range(12)]
    back = [
        Visits(pictures, batch_size=batch_size, seed=seed).batch(number) for number in reversed(range(12))
    ]
    assert forward == back[::-1]


@settings(max_examples=40)
@given(PICTURES, BATCHES, SEEDS, st.integers(0, 10_000))
def test_the_epoch_of_a_batch_is_the_one_that_completes_it(
    pictures: list[Picture], batch_size: int, seed: int, number: int
) -> None:
    visits = Visits(pictures, batch_size=batch_size, seed=seed)
    epoch = visits.epoch_of(number)
    assert visits.batches_before(epoch) <= number < visits.batches_before(epoch + 1)


def test_visits_of_a_picture_are_counted_from_0_and_each_comes_once() -> None:
    visits = Visits([Picture(Fraction(5, 2)), Picture(bucket=SIZES[1])], batch_size=3, seed=7)
    shown = [visit for batch in first_batches(visits, 60) for visit in batch]
    # 150 visits of the first fill 50 batches, 60 of the second 20
    assert sorted(one.visit for one in shown if one.example == 0) == list(range(150))
    assert sorted(one.visit for one in shown if one.example == 1) == list(range(60))


def test_a_bucket_of_one_picture_is_trained_over_several_epochs_and_named() -> None:
    pictures = [Picture()] * 40 + [Picture(bucket=SIZES[2])]
    visits = Visits(pictures, batch_size=8, seed=0)
    (small,) = visits.small_buckets()
    assert (small.bucket, small.num_images, small.epochs_per_batch) == (SIZES[2], 1, 8)
    rare = [batch for batch in first_batches(visits, 16) if batch[0].example == 40]
    assert [sorted(visit.visit for visit in batch) for batch in sorted(rare)] == [
        list(range(8)),
        list(range(8, 16)),
    ]


def test_no_order_is_repeated_from_epoch_to_epoch_or_from_seed_to_seed() -> None:
    pictures = [Picture()] * 32
    order = [
        tuple(visit.example for number in range(8 * epoch, 8 * epoch + 8) for visit in visits.batch(number))
        for seed in range(3)
        for visits in [Visits(pictures, batch_size=4, seed=seed)]
        for epoch in range(3)
    ]
    assert len(set(order)) == 9
    assert all(sorted(one) == list(range(32)) for one in order)


def test_fractions_do_not_make_some_epochs_long_and_others_short() -> None:
    visits = Visits([Picture(Fraction(1, 3))] * 300, batch_size=1, seed=3)
    lengths = [visits.batches_before(epoch + 1) - visits.batches_before(epoch) for epoch in range(9)]
    assert lengths == [100] * 9


def test_fractions_favour_no_place_in_the_list() -> None:
    """EveryDream2 prefers what stands first; here an image of repeats 0.1 is as likely at the end."""
    first_epoch = [
        Visits([Picture(Fraction(1, 10))] * 50, batch_size=1, seed=seed).queued(1) for seed in range(60)
    ]
    front = sum(sum(one[:25]) for one in first_epoch)
    assert 110 < front < 190  # of 300; 4.6 standard deviations of a fair draw around 150


def test_pictures_of_one_batch_id_come_into_one_batch() -> None:
    pictures = [Picture(batch_id="a")] * 3 + [Picture(batch_id="b")] * 2 + [Picture()] * 11
    visits = Visits(pictures, batch_size=4, seed=5)
    for epoch in range(6):
        batches = [visits.batch(number) for number in range(4 * epoch, 4 * epoch + 4)]
        for members in ({0, 1, 2}, {3, 4}):
            assert any(members <= {visit.example for visit in batch} for batch in batches)


def test_a_batch_id_of_more_pictures_than_a_batch_fills_whole_batches() -> None:
    pictures = [Picture(batch_id="a")] * 8 + [Picture()] * 8
    visits = Visits(pictures, batch_size=4, seed=1)
    whole = [batch for batch in first_batches(visits, 1) if all(visit.example < 8 for visit in batch)]
    assert len(whole) == 2


def test_a_late_batch_of_a_large_set_is_there_at_once() -> None:
    repeats = [Fraction(1), Fraction("0.37"), Fraction("2.6")]
    pictures = [Picture(repeats[at % 3], SIZES[at % 3]) for at in range(30_000)]
    began = time.perf_counter()
    visits = Visits(pictures, batch_size=8, seed=1)
    batch = visits.batch(200_000)
    assert len(batch) == 8
    assert time.perf_counter() - began < 5  # a walk through 40 epochs would take minutes


@pytest.mark.parametrize(
    ("pictures", "batch_size"), [([], 1), ([Picture()], 0), ([Picture(Fraction(0)), Picture()], 1)]
)
def test_impossible_orders_are_refused(pictures: list[Picture], batch_size: int) -> None:
    with pytest.raises(ValueError, match=r"pictures in batches|above 0"):
        Visits(pictures, batch_size=batch_size, seed=0)


def test_the_order_stays_the_same_from_version_to_version() -> None:
    """A run resumed under a later version must go on with the pictures that it would have shown."""
    visits = Visits([Picture(Fraction(3, 2))] * 4, batch_size=3, seed=42)
    assert [tuple(one) for number in range(2) for one in visits.batch(number)] == FROZEN


FROZEN = [(1, 0), (2, 0), (3, 1), (3, 0), (1, 1), (0, 0)]
