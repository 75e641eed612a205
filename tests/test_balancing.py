"""Weights over a tree: the worked example, the ancestor's formula restated, and rules that hold for any tree."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.balancing import (
    Balanced,
    Bounds,
    Leaf,
    balance_compatible,
    balance_exact,
    fill,
    multiply_text,
    rounded_up,
    share_out,
    shares,
    weight_tree,
)
from pipeline.errors import SettingsError
from pipeline.folder_weights import WeightRules, read_weights

# The example of anime_screenshot_pipeline's documentation.
EXAMPLE = {"1_character": 3.0, "class1": 4.0, "*class2": 6.0}
EXAMPLE_SHARES = {
    "1_character/class1": 0.3,
    "1_character/class2": 0.45,
    "others/class1": 0.2,
    "others/class3": 0.05,
}


def leaves_of(images: dict[str, int], fixed: dict[str, float] | None = None) -> list[Leaf]:
    return [Leaf(path, count, (fixed or {}).get(path)) for path, count in images.items()]


def by_path(balanced: list[Balanced]) -> dict[str, float]:
    return {one.leaf.path: one.multiply for one in balanced}


def test_the_worked_example() -> None:
    root = weight_tree(leaves_of(dict.fromkeys(EXAMPLE_SHARES, 10)), WeightRules(EXAMPLE))
    assert shares(root) == pytest.approx(EXAMPLE_SHARES)


def test_the_worked_example_as_multiply_txt() -> None:
    images = {
        "1_character/class1": 100,
        "1_character/class2": 30,
        "others/class1": 7,
        "others/class3": 400,
    }
    leaves = leaves_of(images)
    root = weight_tree(leaves, WeightRules(EXAMPLE))
    found = balance_compatible(leaves, root, min_multiply=1, max_multiply=100)
    texts = {one.leaf.path: multiply_text(one.multiply, compatible=True) for one in found}
    # 0.3/100 : 0.45/30 : 0.2/7 : 0.05/400 = 0.003 : 0.015 : 0.0285714 : 0.000125
    assert texts == {
        "1_character/class1": "24.0",
        "1_character/class2": "100.0",  # 120, cut
        "others/class1": "100.0",  # 228.57, cut
        "others/class3": "1.0",
    }


def test_own_pictures_share_with_the_folders_below_by_the_folders_own_weight() -> None:
    leaves = leaves_of({"a": 5, "a/b": 5, "a/c": 5})
    assert shares(weight_tree(leaves, WeightRules({"a": 2}))) == pytest.approx(
        {"a": 0.5, "a/b": 0.25, "a/c": 0.25}
    )


def test_pictures_at_the_top_of_a_tree() -> None:
    assert shares(weight_tree(leaves_of({"": 3, "x": 1}), WeightRules())) == {"": 0.5, "x": 0.5}


@pytest.mark.parametrize(
    ("multiply", "compatible", "text"),
    [
        (1.0, True, "1.0"),
        (2.35, True, "2.35"),
        (1.0, False, "1"),
        (2.5, False, "2.5"),
        (1 / 3, False, "0.333333"),
    ],
)
def test_how_a_multiply_is_written(multiply: float, compatible: bool, text: str) -> None:
    assert multiply_text(multiply, compatible=compatible) == text


@pytest.mark.parametrize(
    ("multiply", "high", "written"),
    [
        (54 / 13, 100, 4.153847),
        (1 / 3, 100, 0.333334),
        (0.1, 100, 0.1),
        (0.1 + 0.2, 100, 0.3),  # 0.30000000000000004
        (2.9999999999999, 100, 3.0),
        (3.0000000000001, 100, 3.0),
        (2.9999994, 2.9999994, 2.9999994),
        (0.0, 100, 0.000001),
    ],
)
def test_an_exact_multiply_is_rounded_up_but_never_over_the_cap(
    multiply: float, high: float, written: float
) -> None:
    assert rounded_up(multiply, high) == written


def test_ten_times_a_tenth_is_one_for_a_trainer_too() -> None:
    leaves = [Leaf("a", 10)]
    (one,) = balance_exact(leaves, weight_tree(leaves, WeightRules()), Bounds(0.01, 100), 1)
    assert sum([0.1] * 10) < 1
    assert one.multiply == 0.100001
    assert sum([one.multiply] * 10) >= 1


def test_rounding_is_half_to_even_in_compatible_mode() -> None:
    """1 : 2.125 in exact binary numbers; 2.125 becomes 2.12, not 2.13."""
    leaves = leaves_of({"a": 17, "b": 8})
    found = balance_compatible(leaves, weight_tree(leaves, WeightRules()), min_multiply=1, max_multiply=100)
    assert by_path(found) == {"a": 1.0, "b": 2.12}


# Rules for any tree

PARTS = st.lists(st.sampled_from("abcd"), min_size=0, max_size=3).map("/".join)
TREES = st.dictionaries(PARTS, st.integers(1, 500), min_size=1, max_size=9)
WEIGHTS = st.dictionaries(st.sampled_from([*"abcd", "*b", "a/*"]), st.floats(0.1, 20), max_size=4)


@given(TREES, WEIGHTS, st.none() | st.floats(0.5, 10))
def test_shares_add_up_to_one(
    images: dict[str, int], weights: dict[str, float], temperature: float | None
) -> None:
    leaves = leaves_of(images)
    found = shares(weight_tree(leaves, WeightRules(weights), temperature))
    assert found.keys() == images.keys()
    assert math.fsum(found.values()) == pytest.approx(1)
    assert found == shares(weight_tree(leaves[::-1], WeightRules(weights), temperature))


@given(TREES, WEIGHTS)
def test_compatible_is_the_ancestors_formula(images: dict[str, int], weights: dict[str, float]) -> None:
    """Restated from its description: p / n over the least, times min, two digits, then the cap."""
    leaves = leaves_of(images)
    root = weight_tree(leaves, WeightRules(weights))
    part = shares(root)
    each = {path: part[path] / count for path, count in images.items()}
    least = min(each.values())
    found = by_path(balance_compatible(leaves, root, min_multiply=1, max_multiply=100))
    for path, value in each.items():
        assert found[path] == pytest.approx(min(round(value / least, 2), 100), abs=0.0101)
    assert min(found.values()) == 1


@given(TREES, WEIGHTS)
def test_exact_without_a_cap_is_compatible(images: dict[str, int], weights: dict[str, float]) -> None:
    leaves = leaves_of(images)
    root = weight_tree(leaves, WeightRules(weights))
    exact = by_path(balance_exact(leaves, root, Bounds(1, 1e9)))
    compatible = by_path(balance_compatible(leaves, root, min_multiply=1, max_multiply=1e9))
    for path, multiply in exact.items():
        assert multiply == pytest.approx(compatible[path], abs=0.0051, rel=1e-9)


@given(TREES, WEIGHTS, st.floats(0.2, 3), st.floats(3, 20), st.floats(0.1, 30))
def test_a_target_is_met_and_bounds_are_kept(
    images: dict[str, int], weights: dict[str, float], low: float, high: float, times: float
) -> None:
    leaves = leaves_of(images)
    count = sum(images.values())
    root = weight_tree(leaves, WeightRules(weights))
    totals = fill(root, times * count, Bounds(low, high))
    assert math.fsum(totals.values()) == pytest.approx(min(max(times, low), high) * count)
    for path, total in totals.items():
        assert low * (1 - 1e-9) <= total / images[path] <= high * (1 + 1e-9)


@given(TREES, WEIGHTS, st.floats(0.2, 2), st.floats(2, 9), st.floats(0.3, 8))
def test_what_meets_no_bound_keeps_its_proportions_at_every_folder(
    images: dict[str, int], weights: dict[str, float], low: float, high: float, times: float
) -> None:
    """The rule: among those that share one parent, parts are as the weights, but for parts that are full
    (all below at the cap) or at their least (all below at the floor).
    """
    leaves = leaves_of(images)
    root = weight_tree(leaves, WeightRules(weights))
    totals = fill(root, times * sum(images.values()), Bounds(low, high))
    waiting = [root]
    while waiting:
        node = waiting.pop()
        free = []
        for child in node.children:
            got = math.fsum(part_of(child, totals))
            count = child.num_images
            if low * count * (1 + 1e-6) < got < high * count * (1 - 1e-6):
                free.append(got / child.weight)
        assert not free or max(free) == pytest.approx(min(free), rel=1e-6)
        waiting += node.children


def part_of(node: object, totals: dict[str, float]) -> list[float]:
    leaf = node.leaf  # type: ignore[attr-defined]
    if leaf is not None:
        return [totals[leaf.path]]
    return [part for child in node.children for part in part_of(child, totals)]  # type: ignore[attr-defined]


@given(
    st.lists(st.tuples(st.floats(0.1, 9), st.floats(0, 5), st.floats(0, 50)), min_size=1, max_size=8),
    st.floats(0, 1),
)
def test_parts_add_up_within_bounds(rows: list[tuple[float, float, float]], where: float) -> None:
    weights, lows = [row[0] for row in rows], [row[1] for row in rows]
    highs = [low + more for _, low, more in rows]
    total = sum(lows) + where * (sum(highs) - sum(lows))
    parts = share_out(total, weights, lows, highs)
    assert math.fsum(parts) == pytest.approx(total)
    assert all(low <= part <= high for low, part, high in zip(lows, parts, highs, strict=True))


def test_a_cap_is_made_good_by_its_siblings_first() -> None:
    """a holds 2 pictures of x, which may not take a quarter; a keeps its half of all draws nevertheless."""
    leaves = leaves_of({"a/x": 2, "a/y": 100, "b": 100})
    found = by_path(balance_exact(leaves, weight_tree(leaves, WeightRules()), Bounds(1, 5)))
    assert found == pytest.approx({"a/x": 5, "a/y": 1, "b": 1.1})
    cut = by_path(
        balance_compatible(leaves, weight_tree(leaves, WeightRules()), min_multiply=1, max_multiply=5)
    )
    assert cut == {"a/x": 5, "a/y": 1, "b": 2}  # the ancestor: b gets twice what a gets


def test_a_fixed_multiply_stays_and_the_others_share_the_rest() -> None:
    leaves = leaves_of({"a": 10, "b": 10, "c": 10}, fixed={"a": 2.0})
    root = weight_tree(leaves, WeightRules({"b": 3}))
    found = by_path(balance_exact(leaves, root, Bounds(0.01, 100), target_images=60))
    assert found == pytest.approx({"a": 2, "b": 3, "c": 1})


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(None, {"a": 0.5, "b": 0.5}), (1.0, {"a": 0.9, "b": 0.1}), (2.0, {"a": 0.75, "b": 0.25})],
)
def test_temperature(temperature: float | None, expected: dict[str, float]) -> None:
    """900 and 100 pictures: square roots are 30 and 10."""
    root = weight_tree(leaves_of({"a": 900, "b": 100}), WeightRules(), temperature)
    assert shares(root) == pytest.approx(expected)


def test_two_thousand_folders_with_caps() -> None:
    leaves = leaves_of({f"{n % 7}/{n % 50}/{n}": 1 + n * n % 997 for n in range(2000)})
    root = weight_tree(leaves, WeightRules())
    found = balance_exact(leaves, root, Bounds(1, 20))
    assert min(one.multiply for one in found) == 1
    assert max(one.multiply for one in found) == 20


# The file of weights


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("a,2\n*b,3\n", {"a": 2.0, "x/ab": 3.0, "c": 1.0, "x/a": 2.0}),
        ("pattern,weight\n1_character,3\n", {"1_character": 3.0, "pattern": 1.0}),
        ("\ufeff# note\n\n a , 0.5 \n", {"a": 0.5}),
        ('"a, b",4\n', {"a, b": 4.0}),
        ("1_character/*,2\n", {"1_character/x": 2.0, "1_character": 1.0}),
        ("*/1_character/*,2\n", {"1_character/x": 2.0, "y/1_character/x/z": 2.0}),
        ("*,9\nb,2\n", {"b": 2.0, "a": 9.0, "": 1.0}),
    ],
)
def test_weights_by_name_then_by_pattern(tmp_path: Path, text: str, weights: dict[str, float]) -> None:
    path = tmp_path / "weights.csv"
    path.write_text(text, encoding="utf-8")
    rules = read_weights(path)
    assert {folder: rules.weight(folder) for folder in weights} == weights


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a,0\n", "line 1: a weight must be a number above 0"),
        (b"a,1\nb,heavy\n", "line 2"),
        (b"a,nan\n", "line 1"),
        (b"a\n", "must hold a name or pattern and a weight"),
        (b"a,1,2\n", "must hold a name"),
        (b"a,1\na,2\n", "a second time"),
        (b"\xff\xfea", "not UTF-8"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "weights.csv"
    path.write_bytes(data)
    with pytest.raises(SettingsError, match=words):
        read_weights(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_weights(tmp_path / "none.csv")
