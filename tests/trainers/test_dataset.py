"""What is read of every layout, against the trainers' rules stated a second time, and literal cases."""

import json
import os
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from oracles import trainers as oracle
from pictures import draw, exif, jpeg_with_exif, noise, unreadable_pictures
from PIL import Image
from trainer_trees import EVERYDREAM, KOHYA, Content, everydream_reads, kohya_reads, plant

from pipeline.catalog import Catalog
from pipeline.errors import InputError, SettingsError
from pipeline.layouts.buckets import Bucket, kohya_buckets
from pipeline.report import Failure
from pipeline.settings import options_of
from trainers import picture_facts
from trainers.caption_rules import draw_caption, plain_caption
from trainers.data_settings import CAPTION_LENGTHS
from trainers.dataset import DataSettings, Example, TrainingData, read_training_data

PIC = (512, 512)
SETTINGS = DataSettings()


def read(path: Path, files: dict[str, Content] | None = None, **settings: object) -> TrainingData:
    plant(path, files or {})
    chosen = replace(SETTINGS, **settings)  # type: ignore[arg-type]
    return read_training_data(path, chosen, count_tokens=lambda text: len(text.split()), workers=1)


def by_name(data: TrainingData) -> dict[str, Example]:
    return {one.name: one for one in data.examples}


def captions(data: TrainingData) -> dict[str, str]:
    return {one.name: plain_caption(one.caption) for one in data.examples}


# EveryDream


def test_an_everydream_tree_is_read_as_everydream_reads_it(tmp_path: Path) -> None:
    data = read(tmp_path, {**EVERYDREAM, "aoba/.hidden/h.png": PIC, "aoba/no caption_1.png": PIC})
    told = {
        path: (Fraction(str(multiply)), caption) for path, multiply, caption in everydream_reads(tmp_path)
    }
    assert {f"{one.concept}/{one.name}" for one in data.examples} == set(told)
    for one in data.examples:
        repeats, caption = told[f"{one.concept}/{one.name}"]
        assert one.repeats == repeats
        expected = (tmp_path / caption).read_text() if caption else "no caption"
        assert plain_caption(one.caption) == expected
    assert data.images_per_epoch == oracle.everydream_multiplicity(tmp_path)
    assert data.layout == "everydream"


def test_the_small_files_of_a_folder_count_for_it_and_before_the_settings(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "a/1.png": PIC,
        "a/cond_dropout.txt": "0.25",
        "a/flip_p.txt": "0.5",
        "a/loss_scale.txt": "0.75",
        "a/shuffle_tags.txt": "",
        "a/batch_id.txt": "pair",
        "a/multiply.txt": "0.4",
        "a/below/2.png": PIC,
        "b/3.png": PIC,
        "b/cond_dropout.txt": "0",
        "b/local.yaml": "flip_p: 0.125\nmultiply: 3",
        "c/global.yaml": "loss_scale: 2\ncond_dropout: 0.5",
        "c/deep/4.png": PIC,
    }
    one = by_name(read(tmp_path, files, conditional_dropout=0.08, flip_p=0.01))
    found = {
        name: (
            str(x.repeats),
            x.conditional_dropout,
            x.flip_p,
            x.loss_scale,
            x.batch_id,
            x.caption.rules.shuffle,
        )
        for name, x in one.items()
    }
    assert found == {
        "1.png": ("2/5", 0.25, 0.5, 0.75, "pair", True),
        "2.png": ("1", 0.08, 0.01, 1.0, "", False),
        "3.png": ("3", 0.0, 0.125, 1.0, "", False),
        "4.png": ("1", 0.5, 0.01, 2.0, "", False),
    }


def test_the_yaml_file_of_a_picture_counts_before_its_folder(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "a/multiply.txt": "2",
        "a/cond_dropout.txt": "0.5",
        "a/1.png": PIC,
        "a/1.yaml": "main_prompt: mai\ntags: [hat, {tag: smile, weight: 3}]\nmultiply: 0.5\ncond_dropout: 0\n"
        "shuffle_tags: true\nloss_scale: -1\nflip_p: 1\nbatch_id: x",
        "a/2.png": PIC,
        "a/2.txt": "plain",
    }
    data = read(tmp_path, files)
    first, second = by_name(data)["1.png"], by_name(data)["2.png"]
    assert (first.repeats, first.conditional_dropout, first.loss_scale) == (Fraction(1, 2), 0.0, -1.0)
    assert (first.flip_p, first.batch_id, first.caption.rules.shuffle) == (1.0, "x", True)
    assert plain_caption(first.caption) == "mai, hat, smile"
    assert first.caption.weights == (1.0, 3.0)
    assert (second.repeats, second.conditional_dropout) == (Fraction(2), 0.5)
    assert data.problems == ()


def test_the_main_prompt_of_everydream_stays_in_front(tmp_path: Path) -> None:
    data = read(tmp_path, {"a/1.png": PIC, "a/1.txt": "mai, a, b, c"}, shuffle=True)
    drawn = Counter(draw_caption(data.examples[0], visit, seed=0) for visit in range(100))
    assert len(drawn) == 6
    assert all(text.startswith("mai, ") for text in drawn)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("multiply.txt", "0", "above 0"),
        ("multiply.txt", "1,5", "write 1.5"),
        ("cond_dropout.txt", "often", "must be a number"),
        ("cond_dropout.txt", "8", "from 0 to 1"),
        ("local.yaml", "colour: red", "colour"),
    ],
)
def test_broken_small_files_are_problems_and_change_nothing(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    data = read(tmp_path, {"a/1.png": PIC, "a/1.txt": "mai", f"a/{name}": content})
    assert len(data.problems) == 1
    assert said in data.problems[0]
    assert data.examples[0].repeats == 1
    assert data.examples[0].conditional_dropout == (1.0 if content == "8" else 0.0)


def test_a_folder_of_plain_pictures_is_read(tmp_path: Path) -> None:
    data = read(tmp_path, {"x_1.png": PIC, "y.png": PIC, "y.txt": "mai"})
    assert (data.layout, captions(data)) == ("plain", {"x_1.png": "x", "y.png": "mai"})
    assert data.problems == (
        f'1 pictures have no caption file and are trained with their names ({tmp_path / "x_1.png"}: "x"); '
        "write captions, or give --no-captions-from-names",
    )
    assert captions(read(tmp_path, captions_from_names=False))["x_1.png"] == ""


def test_the_tree_of_a_project_is_taken_and_what_celforge_made_is_not_met_twice(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "frames/1.png": PIC,
        "dataset/1_character/mai/1.png": PIC,
        "celforge.toml": "",
    }
    data = read(tmp_path, files)
    assert [(one.concept, one.name) for one in data.examples] == [("1_character/mai", "1.png")]
    other = read(tmp_path / "two", {"p/1.png": PIC, "made/.celforge-made": "", "made/1.png": PIC})
    assert [one.concept for one in other.examples] == ["p"]
    assert "passed over 1 folders" in other.notes[0]


# kohya


def test_kohyas_parent_folder_is_read_as_kohya_reads_it(tmp_path: Path) -> None:
    data = read(tmp_path, {**KOHYA, "1_aoba/a_2.png": PIC})
    told = {path: (repeats, caption) for path, repeats, caption in kohya_reads(tmp_path, ".caption")}
    assert {f"{one.concept}/{one.name}" for one in data.examples} == set(told)
    for one in data.examples:
        repeats, caption = told[f"{one.concept}/{one.name}"]
        assert one.repeats == repeats
        assert plain_caption(one.caption) == ((tmp_path / caption).read_text() if caption else "aoba")
    assert data.layout == "kohya"
    assert "name of their folder" in data.problems[0]


def test_kohyas_leaf_folder_is_read_alone_and_said(tmp_path: Path) -> None:
    plant(tmp_path, KOHYA)
    data = read(tmp_path / "3_mai")
    assert (data.layout, data.images_per_epoch, len(data.examples)) == ("kohya leaf", 6, 2)
    assert str(tmp_path) in data.notes[0]


@pytest.mark.parametrize("name", ["2_characters", "1_character"])
def test_counts_of_characters_are_no_repeats(tmp_path: Path, name: str) -> None:
    assert read(tmp_path / name, {"1.png": PIC}).images_per_epoch == 1


def test_folders_that_kohya_passes_over_are_named(tmp_path: Path) -> None:
    data = read(tmp_path, {**KOHYA, "0_off/x.png": PIC, "plain/y.png": PIC}, layout="kohya")
    assert len(data.examples) == 3
    assert ["0_off" in said or "plain" in said for said in data.problems] == [True, True]
    mixed = read(tmp_path)
    assert any("named" in said or "look like folders of kohya's" in said for said in mixed.problems)


def test_txt_counts_before_caption_and_an_extension_that_is_asked_for_alone(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "1_a/1.png": PIC,
        "1_a/1.txt": "one\ntwo",
        "1_a/1.caption": "three",
        "1_a/1.x": "four",
    }
    assert captions(read(tmp_path, files)) == {"1.png": "one"}
    assert captions(read(tmp_path, caption_extension=".caption")) == {"1.png": "three"}
    assert captions(read(tmp_path, caption_extension=".x")) == {"1.png": "four"}
    assert read(tmp_path, wildcards=True).examples[0].caption.text == "one\ntwo"


def test_a_cut_face_has_the_caption_of_its_picture(tmp_path: Path) -> None:
    files: dict[str, Content] = {"1_a/ep_1_10_20_30_40.png": PIC, "1_a/ep_1.txt": "mai"}
    assert captions(read(tmp_path, files)) == {"ep_1_10_20_30_40.png": "mai"}


TOML = """
[general]
caption_extension = ".txt"
shuffle_caption = true
max_bucket_reso = 1024

[[datasets]]
resolution = [768, 768]
keep_tokens = 1
  [[datasets.subsets]]
  image_dir = "one"
  num_repeats = 3
  class_tokens = "mai"
  caption_dropout_rate = 0.1
  flip_aug = true
  keep_tokens = 2
  [[datasets.subsets]]
  image_dir = "two"
  shuffle_caption = false
  caption_tag_dropout_rate = 0.2
  caption_prefix = "anime,"
  keep_tokens_separator = "|||"
  enable_wildcard = true

[[datasets]]
  [[datasets.subsets]]
  image_dir = "one"
"""
TOML_FILES: dict[str, Content] = {
    "one/1.png": PIC,
    "two/2.png": PIC,
    "two/2.txt": "a ||| b",
    "two/deep/3.png": PIC,
}


def test_a_dataset_toml_gives_each_subset_its_own_options(tmp_path: Path) -> None:
    data = read(
        tmp_path, {**TOML_FILES, "sets.toml": TOML}, conditional_dropout=0.5, secondary_separator=";;;"
    )
    first, second, third = data.examples
    rules = first.caption.rules
    assert (first.name, first.repeats, first.conditional_dropout, first.flip_p) == ("1.png", 3, 0.1, 0.5)
    assert (rules.shuffle, rules.keep_tokens, rules.secondary_separator) == (True, 2, ";;;")
    assert (plain_caption(first.caption), first.bucket) == ("mai", Bucket(768, 768))
    rules = second.caption.rules
    assert (second.conditional_dropout, rules.shuffle, rules.keep_tokens) == (0.5, False, 1)
    assert (rules.tag_dropout, rules.keep_tokens_separator, rules.wildcards) == (0.2, "|||", True)
    assert plain_caption(second.caption) == "anime, a, b"
    assert (third.name, third.repeats, third.bucket) == ("1.png", 1, Bucket(512, 512))
    assert data.images_per_epoch == 5
    assert any("max_bucket_reso" in note and "no effect" in note for note in data.notes)
    assert any("sets.toml" in note for note in data.notes)


def test_without_buckets_every_picture_is_cut_to_one_size(tmp_path: Path) -> None:
    wide = (1536, 384)
    data = read(tmp_path / "tree", {"1.png": PIC, "2.png": wide}, resolution_px=64, buckets=False)
    assert {one.bucket for one in data.examples} == {Bucket(64, 64)}
    toml = (
        "[general]\nenable_bucket = false\n"
        '[[datasets]]\nresolution = [128, 64]\n[[datasets.subsets]]\nimage_dir = "a"\n'
        '[[datasets]]\nenable_bucket = true\nresolution = 512\n[[datasets.subsets]]\nimage_dir = "b"\n'
    )
    data = read(tmp_path / "kohya", {"a/1.png": PIC, "b/2.png": wide, "d.toml": toml})
    assert [one.bucket for one in data.examples] == [Bucket(128, 64), Bucket(1024, 256)]
    assert not any("enable_bucket" in note for note in data.notes)


def test_a_dataset_toml_repeats_as_kohya_does(tmp_path: Path) -> None:
    text = TOML.replace('"one"', f'"{(tmp_path / "one").as_posix()}"').replace(
        '"two"', f'"{(tmp_path / "two").as_posix()}"'
    )
    data = read(tmp_path, {**TOML_FILES, "sets.toml": text})
    told = oracle.kohya_toml(tmp_path / "sets.toml")
    assert data.images_per_epoch == oracle.total(told)
    assert sorted(one.name for one in data.examples) == sorted(name for name in told for _ in told[name])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("shuffle_captions = true", "did you mean shuffle_caption"),
        ('shuffle_caption = "yes"', "must be true or false"),
        ("caption_dropout_rate = 8", "from 0 to 1"),
        ("resolution = 'big'", "one number or two"),
    ],
)
def test_keys_that_cannot_be_meant_are_problems(tmp_path: Path, key: str, said: str) -> None:
    toml = (
        f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"\n[[datasets.subsets]]\nimage_dir = "b"\n{key}\n'
    )
    data = read(tmp_path, {"a/1.png": PIC, "b/2.png": PIC, "d.toml": toml, "a/1.txt": "x", "b/2.txt": "x"})
    assert len(data.problems) == 1
    assert said in data.problems[0]


@pytest.mark.parametrize(
    "toml", ["[[datasets", "x = 1", '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"\nnum_repeats = "3"']
)
def test_a_broken_toml_is_refused(tmp_path: Path, toml: str) -> None:
    plant(tmp_path, {"a/1.png": PIC, "d.toml": toml})
    with pytest.raises(InputError, match=r"d\.toml"):
        read(tmp_path / "d.toml")


# Pictures


def test_sizes_are_turned_by_exif_and_buckets_are_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "t.jpg").write_bytes(jpeg_with_exif(Image.new("RGB", (160, 90)), exif(6)))
    data = read(tmp_path, {"w.png": (1920, 1080)})
    found = {one.name: (one.width_px, one.height_px, str(one.bucket)) for one in data.examples}
    assert found == {"t.jpg": (90, 160, "384x640"), "w.png": (1920, 1080, "640x384")}
    assert {one.bucket for one in data.examples} <= set(kohya_buckets(512))
    assert data.summary()["enlarged"] == 1


def test_wide_pictures_keep_their_area_at_1024(tmp_path: Path) -> None:
    """kohya's longest side of 1024 gives a screenshot 1024x576, little more than half the area."""
    (one,) = read(tmp_path, {"w.png": (1920, 1080)}, resolution_px=1024).examples
    assert one.bucket.area_px > 0.9 * 1024 * 1024


def test_unreadable_pictures_are_named_with_a_reason_and_the_others_read(tmp_path: Path) -> None:
    draw(tmp_path, lambda: {name: data for name, (data, _) in unreadable_pictures().items()})
    data = read(tmp_path, {"good.png": PIC, "good.txt": "x"})
    reasons = {Path(one.path).name: one.reason for one in data.unreadable}
    assert {"empty.png", "page.jpg", "bomb.png"} <= set(reasons)
    assert reasons["empty.png"] == "empty file"
    assert "good.png" in by_name(data)
    left = data.without([Failure(str(tmp_path / "cut.png"), "truncated", "")])
    assert len(left.examples) == len(data.examples) - 1
    assert left.unreadable[-1].reason == "truncated"
    with pytest.raises(InputError, match="none of the pictures"):
        data.without([Failure(str(one.path), "", "") for one in data.examples])


def test_captions_that_cannot_be_read_or_are_too_long_are_problems(tmp_path: Path) -> None:
    long = "word " * 80
    files: dict[str, Content] = {
        "1.png": PIC,
        "1.txt": b"caf\xe9",
        "2.png": PIC,
        "2.txt": long,
        "3.png": PIC,
        "3.txt": "",
    }
    data = read(tmp_path, files)
    said = " ".join(data.problems)
    assert "1.txt is not UTF-8" in said
    assert "1 captions have more than 75 tokens" in said
    assert "1 pictures are trained without a caption" in said
    assert "tokens" not in " ".join(read(tmp_path, max_tokens=150).problems)
    assert data.summary()["captions"]["too_long"] == 1


def test_what_the_catalogue_knows_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, EVERYDREAM)
    for path in tmp_path.rglob("*.png"):
        os.utime(path, (10**9, 10**9))  # a file of this moment is not trusted yet
    first = read(tmp_path)
    monkeypatch.setattr(picture_facts, "probe_image", lambda path: pytest.fail(f"{path} was read again"))
    monkeypatch.setattr(picture_facts, "hash_file", lambda path: pytest.fail(f"{path} was hashed again"))
    second = read(tmp_path)
    assert second.examples == first.examples
    assert len({one.content for one in first.examples}) == 3


def test_a_folder_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_facts, "_is_writable", lambda project: False)
    assert len(read(tmp_path, EVERYDREAM).examples) == 3
    assert not (tmp_path / ".celforge").exists()


def test_faces_of_the_catalogue_and_of_sidecars_keep_the_window_on_them(tmp_path: Path) -> None:
    (tmp_path / "known.png").write_bytes(jpeg_with_exif(noise(1000, 200, 1), b""))
    files: dict[str, Content] = {
        "side.png": (1000, 200),
        ".side_meta.json": json.dumps({"facepos": [[0.05, 0.2, 0.1, 0.6]], "n_faces": 1}),
        "none.png": (1000, 201),
    }
    data = read(tmp_path, files)
    content = by_name(data)["known.png"].content
    with Catalog.open(tmp_path / ".celforge" / "catalog.sqlite3") as catalog:
        media_id = catalog.media_id(content)
        assert media_id is not None
        catalog.set_fact(media_id, "faces", {"num_faces": 1, "boxes": [[0.9, 0.2, 0.95, 0.6]]}, "detect")
    crops = {one.name: one.crop for one in read(tmp_path).examples}
    middle = {one.name: one.crop for one in read(tmp_path, crop="centre").examples}
    assert crops["none.png"] == middle["none.png"]
    assert crops["known.png"][0] > middle["known.png"][0] > crops["side.png"][0]


# Settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_tokens": 100}, "75, 150 or 225"),
        ({"caption_separator": " "}, "caption_separator"),
        ({"caption_extension": "txt"}, "begin with a dot"),
        ({"resolution_px": 64}, "resolution"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        read(tmp_path, {"1.png": PIC}, **settings)


def test_every_setting_is_an_option() -> None:
    assert len(options_of(DataSettings)) == 22
    assert SETTINGS.max_tokens in CAPTION_LENGTHS


@pytest.mark.parametrize("files", [{}, {"notes.txt": "x"}, {"0_off/1.png": PIC}])
def test_a_tree_without_pictures_is_refused(tmp_path: Path, files: dict[str, Content]) -> None:
    with pytest.raises(InputError, match="nothing to train on"):
        read(tmp_path, files, layout="kohya" if "0_off/1.png" in files else "auto")


def test_the_summary_is_json_and_counts(tmp_path: Path) -> None:
    data = read(tmp_path, EVERYDREAM, flip_p=0.5)
    summary = json.loads(json.dumps(data.summary()))
    assert (summary["images"], summary["images_per_epoch"], summary["mirrored"]) == (3, 6, 3)
    assert summary["folders"][1] == {"folder": "mai", "images": 2, "images_per_epoch": 5}
    assert summary["buckets"] == [{"bucket": "512x512", "images": 3, "images_per_epoch": 6}]
    assert summary["captions"]["from_files"] == 3
