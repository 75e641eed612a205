"""Several captions a picture, and classes of tags that are left out together."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import test_train as given

from pipeline.errors import SettingsError
from trainers.caption_rules import CaptionRules, CaptionSource, draw_caption, plain_caption, plain_captions
from trainers.caption_variants import drawn, files_of, lines_of, suffixes_of, tag_classes
from trainers.data_settings import DataSettings
from trainers.dataset import Example, read_training_data

dataset = given.dataset


@dataclass(frozen=True)
class Picture:
    caption: CaptionSource
    content: str = "c"
    conditional_dropout: float = 0.0
    flip_p: float = 0.0


def visits(source: CaptionSource, count: int = 4000) -> list[str]:
    return [draw_caption(Picture(source), visit, seed=0) for visit in range(count)]


# Classes


def test_a_class_falls_away_as_a_whole_with_its_chance_and_the_rest_stays() -> None:
    rules = CaptionRules(keep_tokens=1, classes=tag_classes(("0.3=*hair, Bangs", "0=smile")))
    found = Counter(visits(CaptionSource("long hair girl, long_hair, smile, bangs, hairband", rules)))
    front = "long hair girl, "
    assert set(found) == {front + "long_hair, smile, bangs, hairband", front + "smile, hairband"}
    assert 1080 < found[front + "smile, hairband"] < 1320  # 1200, four standard deviations


def test_classes_fall_independently_of_each_other_and_of_shuffling() -> None:
    rules = CaptionRules(classes=tag_classes(("0.5=a", "0.5=b")))
    found = Counter(visits(CaptionSource("a, b, c", rules)))
    assert set(found) == {"a, b, c", "b, c", "a, c", "c"}
    assert min(found.values()) > 880  # of 1000 each
    # one more class at the end changes nothing of what is shuffled before
    shuffled = CaptionSource("a, b, c, d", CaptionRules(shuffle=True))
    with_class = replace(shuffled, rules=replace(shuffled.rules, classes=tag_classes(("1=d",))))
    for before, after in zip(visits(shuffled, 50), visits(with_class, 50), strict=True):
        assert [tag for tag in before.split(", ") if tag != "d"] == after.split(", ")


def test_tags_that_move_as_one_fall_one_by_one() -> None:
    rules = CaptionRules(secondary_separator=";;;", classes=tag_classes(("1=red hair, hat",)))
    assert visits(CaptionSource("red hair;;;blue eyes, hat, smile", rules), 1) == ["blue eyes, smile"]


def test_classes_come_from_files_and_a_changed_file_is_another_class(tmp_path: Path) -> None:
    path = tmp_path / "clothes.txt"
    path.write_text("# clothes\nshirt\nschool uniform\n", encoding="utf-8")
    (before,) = tag_classes((f"0.2=@{path}, *dress",))
    assert [before.holds(tag) for tag in ("School_Uniform", "red dress", "dresser", "hat")] == [
        True,
        True,
        False,
        False,
    ]
    path.write_text("shirt\n", encoding="utf-8")
    (after,) = tag_classes((f"0.2=@{path}, *dress",))
    assert repr(before) != repr(after)  # so that a state is not gone on from by mistake


@pytest.mark.parametrize("text", ["hair", "2=hair", "0.3=", "0.3=@nowhere.txt", "x=hair", "0.5= , "])
def test_odd_classes_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="tag_class_dropout"):
        DataSettings(tag_class_dropout=(text,)).check()


# Variants


def test_captions_are_drawn_by_their_weights_and_a_visit_has_always_the_same() -> None:
    source = CaptionSource("tags", CaptionRules(), variants=((3.0, "tags"), (1.0, "A sentence.")))
    found = visits(source)
    assert 2880 < found.count("tags") < 3120  # 3000 of 4000
    assert found == visits(source)
    assert plain_caption(source) == "tags"
    assert plain_captions(source) == ["tags", "A sentence."]


def test_places_between_0_and_1_fall_to_captions_by_their_weights() -> None:
    variants = ((1.0, "a"), (3.0, "b"))
    assert [drawn(variants, place) for place in (0, 0.249, 0.25, 0.999999, 1.0)] == ["a", "a", "b", "b", "b"]


def test_lines_share_the_weight_of_their_file() -> None:
    assert lines_of("3::one\n\n two\n", 2.0) == [(1.5, "one"), (0.5, "two")]
    assert lines_of("0::never\nalways", 1.0) == [(1.0, "always")]
    assert lines_of("0::never", 1.0) == []


def test_the_stem_that_counts_more_is_taken_of_each_suffix() -> None:
    files = {"a.txt", "a_1_2_3_4.txt", "a.caption"}
    suffixes = ((".txt", 1.0), (".caption", 1.0), (".json", 1.0))
    assert files_of(("a", "a_1_2_3_4"), suffixes, files) == ("a_1_2_3_4.txt", "a.caption")


def read(root: Path, **settings: Any) -> dict[str, Example]:
    data = read_training_data(root, DataSettings(**settings), count_tokens=len)
    return {one.name: one for one in data.examples}


@pytest.mark.parametrize("layout", ["everydream", "kohya"])
def test_files_and_lines_of_a_tree_become_captions(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "set" / "2_sabine"
    folder.mkdir(parents=True)
    for number in (1, 2, 3):
        given.draw(folder / f"{number}.png", number)
    (folder / "1.txt").write_text("sabine, smile", encoding="utf-8")
    (folder / "1.natural.txt").write_text("Sabine smiles.\nA girl.", encoding="utf-8")
    (folder / "2.natural.txt").write_text("Iris.", encoding="utf-8")
    suffixes = (".txt=2", ".natural.txt")
    found = read(tmp_path / "set", layout=layout, caption_variant=suffixes, caption_lines=True)
    assert found["1.png"].caption.variants == (
        (2.0, "sabine, smile"),
        (0.5, "Sabine smiles."),
        (0.5, "A girl."),
    )
    assert (found["2.png"].caption.text, found["2.png"].caption.variants) == ("Iris.", ())
    assert found["3.png"].caption.origin == ("name" if layout == "everydream" else "class")
    without = read(tmp_path / "set", layout=layout)
    assert (without["1.png"].caption.text, without["1.png"].caption.variants) == ("sabine, smile", ())


@pytest.mark.parametrize("texts", [("txt",), (".txt=0",), (".txt=x",), (".txt", ".txt=2"), (".txt=inf",)])
def test_odd_variants_are_refused(texts: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="caption_variant"):
        suffixes_of(texts)


def test_one_suffix_and_several_are_not_given_at_once() -> None:
    with pytest.raises(SettingsError, match="both say which files"):
        DataSettings(caption_extension=".txt", caption_variant=(".caption",)).check()


def test_a_long_caption_among_several_is_counted(tmp_path: Path) -> None:
    given.draw(tmp_path / "1.png", 1)
    (tmp_path / "1.txt").write_text(f"short\n{'x' * 90}", encoding="utf-8")
    data = read_training_data(tmp_path, DataSettings(caption_lines=True), count_tokens=len)
    assert data.num_long_captions == 1
