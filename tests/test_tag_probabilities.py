"""Thresholds, MCut and several taggers, by vectors that a person can work out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.settings import canonical_json
from pipeline.tagging.labels import CATEGORIES, Labels, read_labels
from pipeline.tagging.probabilities import KEPT_FROM, Rule, Selector, mcut_threshold, pack, unpack

ALL = CATEGORIES
NAN = float("nan")


def labels(*tags: tuple[str, str], own: list[float] | None = None) -> Labels:
    numbers = np.array([CATEGORIES.index(category) for _, category in tags], np.int8)
    return Labels(tuple(name for name, _ in tags), numbers, np.array(own or [NAN] * len(tags), np.float32))


def rule(general: float = 0.35, character: float = 0.85, **changes: Any) -> Rule:
    thresholds = {"general": general, "character": character}
    return Rule(
        **{
            "thresholds": thresholds,
            "overrides": {},
            "by_tag": {},
            "by_mcut": (),
            "categories": ALL,
            **changes,
        }
    )


def facts(known: Labels, values: list[float], of: Rule) -> dict[str, Any]:
    return told(Selector([(known, of)], "mean"), values)


def told(selector: Selector, *values: list[float]) -> dict[str, Any]:
    """The facts of one picture, beside others that must not meddle with it."""
    picture = [pack(np.array(one)) for one in values]
    full, empty = [pack(np.ones(len(one))) for one in values], [b"" for _ in values]
    selection = selector.select([full, picture, empty, full])[1]
    assert selector.select([picture]) == [selection]
    for name, text in selection.texts.items():
        assert text == canonical_json(json.loads(text)), name
    found = {name: json.loads(text) for name, text in selection.texts.items()}
    assert selection.num_tags == len(found.get("tags", {}))
    assert selection.rating == found.get("rating")
    return found


TWO = labels(
    ("solo", "general"), ("smile", "general"), ("eileen", "character"), ("safe", "rating"), ("odd", "rating")
)


def test_bytes_keep_every_probability_that_a_threshold_can_ask_for() -> None:
    values = np.random.default_rng(0).random(70_000).astype(np.float32) ** 4
    numbers, shares = unpack(pack(values))
    assert np.array_equal(numbers, np.flatnonzero(values >= KEPT_FROM))
    assert np.abs(shares - values[numbers]).max() < 0.0005
    assert unpack(pack(np.zeros(5)))[0].size == 0


def test_each_category_has_its_threshold_and_the_likeliest_rating_wins() -> None:
    found = facts(TWO, [0.36, 0.34, 0.84, 0.3, 0.6], rule())
    assert found == {"tags": {"solo": pytest.approx(0.36, abs=1e-3)}, "rating": "odd"}
    found = facts(TWO, [0.36, 0.35, 0.86, 0.3, 0.2], rule())
    assert list(found["tags"]) == ["smile", "solo"]
    assert list(found["character_tags"]) == ["eileen"]
    assert found["rating"] == "safe"


def test_a_tags_own_threshold_comes_before_its_categorys_and_a_persons_before_both() -> None:
    known = labels(("solo", "general"), ("smile", "general"), own=[0.9, NAN])
    values = [0.8, 0.4]
    assert list(facts(known, values, rule())["tags"]) == ["smile"]
    assert list(facts(known, values, rule(overrides={"general": 0.7}))["tags"]) == ["solo"]
    assert list(facts(known, values, rule(by_tag={"smile": 0.5, "solo": 0.1}))["tags"]) == ["solo"]


def test_a_category_that_is_not_wanted_is_left_out_even_when_a_tag_of_it_is_named() -> None:
    wanted = rule(categories=("general",), by_tag={"eileen": 0.1})
    assert facts(TWO, [0.9, 0.1, 0.99, 0.9, 0.1], wanted) == {"tags": {"solo": pytest.approx(0.9, abs=1e-3)}}


@pytest.mark.parametrize(
    ("values", "least", "threshold"),
    [
        ([0.9, 0.2, 0.8, 0.3], 0.0, 0.55),  # the gap from 0.8 to 0.3
        ([0.9], 0.0, 0.45),  # all others count as 0
        ([0.2, 0.1], 0.15, 0.15),  # by the gap 0.15 or 0.05, but never below the floor
        ([0.02], 0.15, 0.15),
        ([], 0.0, 1.0),
    ],
)
def test_mcut_cuts_in_the_middle_of_the_largest_gap(
    values: list[float], least: float, threshold: float
) -> None:
    assert mcut_threshold(np.array(values, np.float32), least=least) == pytest.approx(threshold, abs=1e-6)


def test_mcut_cuts_each_category_of_each_picture_by_itself() -> None:
    known = labels(
        ("a", "general"), ("b", "general"), ("c", "general"), ("x", "character"), ("y", "character")
    )
    cut = rule(by_mcut=("general", "character"))
    found = facts(known, [0.2, 0.19, 0.03, 0.12, 0.02], cut)
    assert list(found["tags"]) == ["a", "b"]
    assert "character_tags" not in found  # 0.12 lies below the floor of 0.15
    assert list(facts(known, [0.9, 0.3, 0.2, 0.16, 0.02], cut)["character_tags"]) == ["x"]


def several(combine: Any, *values: list[float]) -> dict[str, Any]:
    one = labels(("solo", "general"), ("smile", "general"), ("safe", "rating"), ("odd", "rating"))
    other = labels(
        ("smile", "general"),
        ("only here", "general"),
        ("solo", "general"),
        ("safe", "rating"),
        ("odd", "rating"),
    )
    taggers = [(one, rule(0.5)), (other, rule(0.3))][: len(values)]
    return told(Selector(taggers, combine), *values)


def test_the_mean_of_taggers_is_held_against_the_mean_of_their_thresholds() -> None:
    found = several("mean", [0.6, 0.6, 0.9, 0.1], [0.1, 0.35, 0.25, 0.2, 0.95])
    assert found["tags"] == {  # solo: 0.425 of 0.4; smile: 0.35 of 0.4; only here: known to one
        "solo": pytest.approx(0.425, abs=1e-3),
        "only here": pytest.approx(0.35, abs=1e-3),
    }
    assert found["rating"] == "safe"  # 1.1 against 1.05


def test_any_tagger_is_enough_for_max_and_more_than_half_for_vote() -> None:
    values = [0.6, 0.6, 0.9, 0.1], [0.1, 0.2, 0.35, 0.2, 0.6]
    assert several("max", *values)["tags"] == {
        "solo": pytest.approx(0.6, abs=1e-3),
        "smile": pytest.approx(0.6, abs=1e-3),
    }
    assert list(several("vote", *values)["tags"]) == ["solo"]


def test_a_tag_that_a_tagger_found_below_what_is_kept_counts_as_zero() -> None:
    assert "tags" not in several("mean", [0.7, 0.0, 0.9, 0.0], [0.0, 0.0, 0.005, 0.9, 0.0])
    found = several("mean", [0.9, 0.0, 0.9, 0.0], [0.0, 0.0, 0.005, 0.9, 0.0])
    assert found["tags"] == {"solo": pytest.approx(0.45, abs=1e-3)}  # held against 0.4


def test_artists_and_series_are_names_the_likeliest_first() -> None:
    known = labels(("b", "artist"), ("a", "artist"), ("c", "artist"), ("x", "copyright"), ("b", "general"))
    found = facts(known, [0.5, 0.4, 0.9, 0.8, 0.6], rule())
    assert (found["artist"], found["copyright"]) == (["c", "b", "a"], ["x"])
    assert found["tags"] == {"b": pytest.approx(0.6, abs=1e-3)}


def test_of_equally_likely_ratings_the_first_of_the_label_file_counts() -> None:
    known = labels(("safe", "rating"), ("odd", "rating"), ("bad", "rating"))
    assert facts(known, [0.25, 0.5, 0.5], rule()) == {"rating": "odd"}
    assert facts(known, [0.5, 0.5, 0.5], rule(categories=("general",))) == {}


def test_a_tag_named_twice_by_a_label_file_is_one_tag() -> None:
    known = labels(("a b", "general"), ("c", "general"), ("a_b", "general"))
    assert list(facts(known, [0.5, 0.6, 0.7], rule())["tags"]) == ["a b", "c"]


def test_a_csv_reads_every_tag_as_text(tmp_path: Path) -> None:
    path = tmp_path / "selected_tags.csv"
    path.write_text(
        'tag_id,name,category,count\n1,null,0,5\n2,nan,0,5\n3,1,4,5\n4,"a,b",9,5\n5,NA,5,1\n',
        encoding="utf-8-sig",
    )
    found = read_labels(path, "csv")
    assert found.names == ("null", "nan", "1", "a,b", "NA")
    assert [CATEGORIES[number] for number in found.categories] == [
        "general",
        "general",
        "character",
        "rating",
        "meta",
    ]
    assert np.isnan(found.thresholds).all()


def test_thresholds_and_categories_of_other_files_fill_what_a_csv_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("tag_id,name,category,best_threshold\n1,solo,0,0.7\n2,eileen,77,\n")
    (tmp_path / "categories.json").write_text('[{"category": 77, "name": "character"}]')
    (tmp_path / "thresholds.csv").write_text("category,name,threshold\n0,general,0.2\n77,character,0.6\n")
    found = read_labels(
        tmp_path / "tags.csv",
        "csv",
        categories_path=tmp_path / "categories.json",
        thresholds_path=tmp_path / "thresholds.csv",
    )
    assert found.thresholds.tolist() == pytest.approx([0.7, 0.6])
    assert CATEGORIES[found.categories[1]] == "character"


def test_holes_in_a_mapping_are_no_tags(tmp_path: Path) -> None:
    path = tmp_path / "tag_mapping.json"
    path.write_text(
        json.dumps({"2": {"tag": "solo", "category": "General"}, "0": {"tag": "x", "category": "Quality"}})
    )
    found = read_labels(path, "mapping")
    assert found.names == ("x", "", "solo")
    assert facts(found, [0.9, 0.9, 0.9], rule())["tags"].keys() == {"solo"}
    assert facts(found, [0.9, 0.9, 0.9], rule())["meta_tags"].keys() == {"x"}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("csv", "a,b\n1,2\n"),
        ("csv", ""),
        ("csv", "tag_id,name,category\n1,x,123\n"),
        ("mapping", "[1, 2]"),
        ("mapping", '{"0": {"tag": "x", "category": "Mood"}}'),
        ("metadata", "{}"),
        ("metadata", "not json"),
    ],
)
def test_a_label_file_of_another_kind_is_named(tmp_path: Path, form: Any, text: str) -> None:
    path = tmp_path / "labels"
    path.write_text(text)
    with pytest.raises(InputError, match="labels") as caught:
        read_labels(path, form)
    assert caught.value.hint
