"""Captions from visit to visit: kohya's and EveryDream2's rules as literal cases, and laws of the draws."""

from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.caption_rules import (
    CaptionRules,
    CaptionSource,
    draw_caption,
    draw_flip,
    plain_caption,
    split_parts,
)


@dataclass(frozen=True)
class Picture:
    caption: CaptionSource
    content: str = "c0ffee"
    conditional_dropout: float = 0.0
    flip_p: float = 0.0


def plain(text: str, **rules: object) -> str:
    return plain_caption(CaptionSource(text, replace(CaptionRules(), **rules)))  # type: ignore[arg-type]


def drawn(
    text: str, count: int = 400, *, source: CaptionSource | None = None, **rules: object
) -> Counter[str]:
    picture = Picture(source or CaptionSource(text, replace(CaptionRules(), **rules)))  # type: ignore[arg-type]
    return Counter(draw_caption(picture, visit, seed=1) for visit in range(count))


@pytest.mark.parametrize(
    ("text", "rules", "expected"),
    [
        ("a, b", {}, "a, b"),
        ("a,b ,  c", {}, "a,b ,  c"),  # kohya touches nothing where nothing is varied
        ("first line\nsecond", {}, "first line"),
        ("a, b", {"prefix": "anime,", "suffix": "best"}, "anime, a, b best"),
        ("", {"prefix": "sabine"}, "sabine"),
        ("a;;;b, c", {"secondary_separator": ";;;"}, "a,b, c"),
        ("mai ||| hat, smile ||| end", {"keep_tokens_separator": "|||"}, "mai, hat, smile, end"),
        ("{red|blue} hat", {"wildcards": True}, "red hat"),
        ("{{a}} {red|blue}", {"wildcards": True}, "{a} red"),
        ("{red|blue} hat", {}, "{red|blue} hat"),
        ("one\n\ntwo", {"wildcards": True, "prefix": "p"}, "p one"),
    ],
)
def test_a_caption_without_draws(text: str, rules: dict[str, object], expected: str) -> None:
    assert plain(text, **rules) == expected


@pytest.mark.parametrize(
    ("text", "rules", "expected"),
    [
        ("a, b, c", {}, ([], ["a", "b", "c"], [])),
        ("a, b, c", {"keep_tokens": 2}, (["a", "b"], ["c"], [])),
        ("a, b ||| c, d", {"keep_tokens": 1, "keep_tokens_separator": "|||"}, (["a", "b"], ["c", "d"], [])),
        ("a|||b, c|||d, e", {"keep_tokens_separator": "|||"}, (["a"], ["b", "c"], ["d", "e"])),
        ("a, b, c", {"keep_tokens": 1, "keep_tokens_separator": "|||"}, (["a"], ["b", "c"], [])),
        ("a. b. c", {"separator": ".", "keep_tokens": 1}, (["a"], ["b", "c"], [])),
        ("a,, b,", {}, ([], ["a", "b"], [])),
    ],
)
def test_parts_fall_into_fixed_flexible_and_end(
    text: str, rules: dict[str, object], expected: tuple[list[str], list[str], list[str]]
) -> None:
    assert split_parts(text, replace(CaptionRules(), **rules)) == expected  # type: ignore[arg-type]


def test_the_flexible_parts_come_in_every_order_equally_often() -> None:
    found = drawn("mai, a, b, c", 1200, shuffle=True, keep_tokens=1)
    assert len(found) == 6
    assert all(text.startswith("mai, ") for text in found)
    assert all(140 < count < 260 for count in found.values())  # 200 each; 4.6 standard deviations


def test_a_fixed_end_stays_at_the_end() -> None:
    found = drawn("a ||| b, c ||| d", shuffle=True, keep_tokens_separator="|||")
    assert set(found) == {"a, b, c, d", "a, c, b, d"}


def test_parts_behind_the_secondary_separator_move_as_one() -> None:
    found = drawn("a, b;;;c", shuffle=True, secondary_separator=";;;")
    assert set(found) == {"a, b,c", "b,c, a"}


def test_tags_are_dropped_at_their_rate_and_fixed_ones_never() -> None:
    found = drawn("mai, a, b", 4000, tag_dropout=0.25, keep_tokens=1)
    assert set(found) == {"mai, a, b", "mai, a", "mai, b", "mai"}
    kept = sum(count for text, count in found.items() if ", a" in text)
    assert 2870 < kept < 3130  # 3000; 4.7 standard deviations


def test_a_dropped_caption_is_empty_at_its_rate() -> None:
    picture = Picture(CaptionSource("mai", CaptionRules(prefix="p")), conditional_dropout=0.08)
    empty = sum(draw_caption(picture, visit, seed=3) == "" for visit in range(10_000))
    assert 675 < empty < 925  # 800; 4.6 standard deviations


def test_wildcards_are_drawn_evenly_and_with_every_line_the_prefix() -> None:
    found = drawn("{red|blue} hat\nno hat", 900, wildcards=True, prefix="mai,")
    assert set(found) == {"mai, red hat", "mai, blue hat", "mai, no hat"}
    assert 380 < found["mai, no hat"] < 520  # 450; 4.6 standard deviations


def test_weighted_tags_are_drawn_by_weight_until_the_caption_is_full() -> None:
    rules = CaptionRules(shuffle=True, keep_tokens=1)
    source = CaptionSource("mai, aa, bb, cc", rules, weights=(8.0, 1.0, 0.0), max_characters=7)
    found = drawn("", 1800, source=source)
    assert set(found) == {"mai, aa", "mai, bb"}  # the weight 0 never, two tags never fit
    assert 1535 < found["mai, aa"] < 1665  # 8 of 9


def test_pictures_are_mirrored_at_their_rate() -> None:
    picture = Picture(CaptionSource("", CaptionRules()), flip_p=0.3)
    flips = sum(draw_flip(picture, visit, seed=5) for visit in range(4000))
    assert 1065 < flips < 1335
    assert not any(draw_flip(replace(picture, flip_p=0.0), visit, seed=5) for visit in range(50))
    assert all(draw_flip(replace(picture, flip_p=1.0), visit, seed=5) for visit in range(50))


TEXTS = st.lists(st.sampled_from(["a", "b", "long hair", "{x|y}", "c;;;d", "|||"]), max_size=8).map(", ".join)


@given(TEXTS, st.integers(0, 2**40), st.integers(0, 10**6), st.integers(0, 4))
def test_a_draw_depends_on_seed_content_and_visit_alone(text: str, seed: int, visit: int, keep: int) -> None:
    rules = CaptionRules(shuffle=True, tag_dropout=0.3, keep_tokens=keep, wildcards=True)
    picture = Picture(CaptionSource(text, rules), conditional_dropout=0.1)
    first = draw_caption(picture, visit, seed=seed)
    for other in (visit + 1, 0, 7):
        draw_caption(picture, other, seed=seed)
    assert draw_caption(picture, visit, seed=seed) == first


@given(TEXTS, st.integers(0, 50))
def test_shuffling_loses_and_adds_no_part(text: str, visit: int) -> None:
    rules = CaptionRules(shuffle=True, keep_tokens_separator="|||")
    fixed, flexible, end = split_parts(text, rules)
    picture = Picture(CaptionSource(text, rules))
    parts = [part for part in draw_caption(picture, visit, seed=0).split(", ") if part]
    assert sorted(parts) == sorted(fixed + flexible + end)
    assert parts[: len(fixed)] == fixed
    assert parts[len(parts) - len(end) :] == end


def test_pictures_seeds_and_visits_have_draws_of_their_own() -> None:
    rules = CaptionRules(shuffle=True)
    picture = Picture(CaptionSource(", ".join("abcdefgh"), rules))
    cases = [(picture, 0, 0), (picture, 1, 0), (picture, 0, 1), (replace(picture, content="beef"), 0, 0)]
    assert len({draw_caption(one, visit, seed=seed) for one, visit, seed in cases}) == 4


def test_draws_stay_the_same_from_version_to_version() -> None:
    """A run resumed under a later version must draw as it would have drawn."""
    picture = Picture(CaptionSource("a, b, c, d, e", CaptionRules(shuffle=True, tag_dropout=0.2)), flip_p=0.5)
    assert [draw_caption(picture, visit, seed=42) for visit in range(3)] == FROZEN_CAPTIONS
    assert [draw_flip(picture, visit, seed=42) for visit in range(8)] == FROZEN_FLIPS


FROZEN_CAPTIONS = ["b, e, d, a, c", "e, a, c, d", "e, d, c, a"]
FROZEN_FLIPS = [False, True, True, False, True, False, True, True]
