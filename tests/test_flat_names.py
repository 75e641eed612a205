"""Names of flat folders by themselves: read back without a manifest, valid on every disk, never two alike."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.layouts.flat_names import FlatNames, decode, encode, split_prefix
from pipeline.names import name_problem, path_key

PARTS = st.lists(
    st.one_of(
        st.sampled_from(
            ["A", "a", "A~B", "~", "~~", "A%7EB", "%25", "%", "100%", "_root", "con", "aux.x", "x.", " ", "a_", "é"]
        ),
        st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=4),
    ).filter(lambda name: name not in (".", "..")),
    max_size=4,
)  # fmt: skip
SEPARATORS = st.sampled_from(["~", "-", "+", "__", "~_"])


@settings(max_examples=300)
@given(parts=PARTS, separator=SEPARATORS)
@example(parts=["A%7EB"], separator="~")
@example(parts=["_root"], separator="~")
@example(parts=["a_", "b"], separator="__")
def test_a_path_is_read_back_from_its_name_alone(parts: list[str], separator: str) -> None:
    text = encode(parts, separator)
    assert decode(text, separator) == tuple(parts)
    assert name_problem(f"1_{text}") is None


@settings(max_examples=100)
@given(
    paths=st.lists(PARTS, max_size=8, unique_by=tuple),
    numbers=st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
@example(paths=[["a"], ["A"]], numbers=[1] * 8)
@example(paths=[["A~B"], ["A", "B"], ["A%7EB"]], numbers=[0] * 8)
def test_names_differ_on_every_disk_and_say_their_repeats(paths: list[list[str]], numbers: list[int]) -> None:
    flat = FlatNames("~")
    names = [flat.add(number, parts) for number, parts in zip(numbers, paths, strict=False)]
    assert len(set(map(path_key, names))) == len(paths)
    for number, name in zip(numbers, names, strict=False):
        assert name_problem(name) is None
        said = split_prefix(name)
        assert (said[0] if said else 0) == number  # kohya passes a folder without a number over
        assert said is None or number


def test_a_name_too_long_is_cut_and_says_so() -> None:
    long, other = ["x" * 200, "y" * 100], ["x" * 200, "y" * 99 + "z"]
    flat = FlatNames("~")
    names = [flat.add(2, parts) for parts in (long, other)]
    assert len(set(names)) == 2
    for name in names:
        assert name_problem(name) is None
        assert decode(name.removeprefix("2_"), "~") is None  # rather than a path that was not
