"""The search finds exactly the pairs that comparing each with each finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.candidates import neighbours, parts
from pipeline.hash_search import blocks_for, collapse, near_matches, near_pairs


def planted(number: int, seed: int) -> np.ndarray:
    """Random hashes, a third of them a few bits from another one."""
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, number, dtype=np.uint64)
    for place in range(number // 3):
        changed = hashes[place]
        for bit in random.choice(64, int(random.integers(1, 14)), replace=False):
            changed ^= np.uint64(1 << int(bit))
        hashes[number - 1 - place] = changed
    return np.unique(hashes)


def brute(queries: np.ndarray, hashes: np.ndarray, radius: int) -> set[tuple[int, int]]:
    distances = np.bitwise_count(queries[:, None] ^ hashes[None, :])
    return {(int(a), int(b)) for a, b in np.argwhere(distances <= radius)}


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 8, 10, 12])
@pytest.mark.parametrize("threads", [1, 2])
def test_pairs_are_those_of_comparing_each_with_each(radius: int, threads: int) -> None:
    hashes = planted(1200, radius)
    first, second, bits = near_pairs(hashes, radius, threads=threads)
    expected = {(a, b) for a, b in brute(hashes, hashes, radius) if a < b}
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == expected
    assert len(first) == len(expected)
    assert (bits == np.bitwise_count(hashes[first] ^ hashes[second])).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30),
    st.lists(st.integers(0, 63), max_size=10),
    st.integers(0, 12),
)
def test_matches_are_those_of_comparing_each_with_each(
    values: list[int], flips: list[int], radius: int
) -> None:
    hashes = np.array([*values, values[0] ^ sum(1 << bit for bit in set(flips))], np.uint64)
    left, right, _ = near_matches(hashes, hashes, radius)
    assert set(zip(left.tolist(), right.tolist(), strict=True)) == brute(hashes, hashes, radius)


def test_many_hashes_take_three_blocks_and_still_find_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.hash_search.MANY", 10)
    assert [block.radius for block in blocks_for(8, 100)] == [2, 2, 2]
    hashes = planted(600, 3)
    first, second, _ = near_pairs(hashes, 8)
    expected = {(a, b) for a, b in brute(hashes, hashes, 8) if a < b}
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == expected


def test_blocks_cover_every_bit_and_keep_the_pigeonhole_promise() -> None:
    for radius in range(17):
        for number in (10, 1_000_000):
            blocks = blocks_for(radius, number)
            assert sum(block.width for block in blocks) == 64
            assert sum(block.radius for block in blocks) >= radius - len(blocks) + 1


def test_a_radius_out_of_bounds_and_equal_hashes_are_refused() -> None:
    with pytest.raises(ValueError, match="radius"):
        near_pairs(np.array([1, 2], np.uint64), 17)
    with pytest.raises(ValueError, match="collapsed"):
        near_pairs(np.array([1, 1], np.uint64), 2)


def test_five_thousand_equal_hashes_are_one() -> None:
    hashes = [(7,)] * 5000 + [(7 ^ 3,), (2**63,)]
    distinct, places = collapse(np.array([one[0] for one in hashes], np.uint64))
    assert (distinct[places] == [one[0] for one in hashes]).all()
    found = neighbours(hashes, hashes, 4)
    assert found.num_pairs == 3
    assert len(found.starts) == 4


def test_a_crop_is_a_neighbour_by_a_view_in_both_directions_and_parts_keep_apart() -> None:
    whole_and_view = [(0, 0xFF00), (0xFF00, 0xFFFFFFFF0000), (2**64 - 1, 2**64 - 2)]
    found = neighbours(whole_and_view, whole_and_view, 2)
    near = [
        {picture for picture in range(3) if found.group_of[picture] in set(found.near(place))}
        for place in range(3)
    ]
    assert near == [{0, 1}, {0, 1}, {2}]
    assert sorted(map(sorted, parts(found))) == [[0, 1], [2]]
