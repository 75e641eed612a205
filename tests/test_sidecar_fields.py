import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SidecarError
from pipeline.settings import canonical_json
from pipeline.sidecar_fields import FieldError, facts_of_field, plain_text
from pipeline.sidecars import find_sidecars, read_sidecar

FIELDS = ["characters", "tags", "caption", "score", "crop", "facepos", "time", "path", "n_people", "danbooru"]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(name=st.sampled_from(FIELDS), value=anything)
def test_any_value_gives_facts_that_can_be_stored_or_one_clear_refusal(name: str, value: Any) -> None:
    try:
        facts = facts_of_field(name, value)
    except FieldError as error:
        assert 0 < len(str(error)) < 120
        assert str(error).isprintable()
    else:
        canonical_json(facts).encode("utf-8")
        json.dumps(facts, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "value", "facts"),
    [
        ("path", "D:\\anime\\ep 1\\0001.png", {"origin": {"name": "0001.png"}}),
        ("video_file", "/mnt/ep 1.mkv", {"source": {"video": "ep 1.mkv"}}),
        ("time", 61.5, {"source": {"time_s": 61.5}}),
        ("rating", "q", {"rating": "questionable"}),
        ("rating", "Explicit", {"rating": "explicit"}),
        ("n_people", 2, {"num_people": 2}),
        ("score", "-3", {"score": -3.0}),
        ("tags", {"1girl": 1, "solo": None, " ": 0.5}, {"tags": {"1girl": 1.0, "solo": None}}),
        ("processed_tags", {"smile": 0.9, "hat": 0.4}, {"processed_tags": ["smile", "hat"]}),
        ("characters", [["Aoba", 0.93], ["ood", 0.1]], {"characters": ["Aoba"]}),
        ("characters", ["Aoba|_hair", "Aoba|_hair"], {"characters": ["Aoba|_hair"]}),
        ("artist", "a b,anonymous, c", {"artist": ["a b", "c"]}),
        ("facepos", ["fvp 10 40 fhp 20 55"], {"faces": {"boxes": [[0.2, 0.1, 0.55, 0.4]]}}),
        ("facepos", [[-0.01, 0, 0.5, 1.2]], {"faces": {"boxes": [[0.0, 0.0, 0.5, 1.0]]}}),
        ("crop", {"type": "head", "score": 0.5, "x": 1}, {"crop": {"type": "head", "score": 0.5}}),
        ("caption", "two\nlines\x00 \ud800", {"caption": "two lines"}),
    ],
)
def test_fields_become_our_facts(name: str, value: Any, facts: dict[str, Any]) -> None:
    assert facts_of_field(name, value) == facts


def test_a_booru_post_is_taken_apart_by_kinds_of_tags() -> None:
    post = {
        "tag_string": "1girl hatsune_miku vocaloid somebody",
        "tag_string_general": "1girl smile",
        "tag_string_character": "hatsune_miku",
        "tag_string_copyright": "vocaloid",
        "tag_string_artist": "",
        "rating": "g",
        "score": "many",
        "fav_count": 5,
    }
    assert facts_of_field("danbooru", post) == {
        "site": "danbooru",
        "tags": {"1girl": None, "smile": None},
        "characters": ["hatsune_miku"],
        "copyright": ["vocaloid"],
        "rating": "general",
        "fav_count": 5,
    }


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("tags", {"a": {"__type": "os.system", "base64": "eA=="}}, "a pickled value, never read"),
        ("ccip_feature", {"__type": "numpy.ndarray", "base64": ""}, "a pickled value, never read"),
        ("current_path", "x", "no equal here"),
        ("characters", [], "empty"),
        ("tags", ["a"] * 2001, "not understood: more than 2,000 names"),
        ("crop", 3, "not understood: should be an object with a type and a score, found a number"),
        ("facepos", [[0.5, 0, 0.5, 1]], "not understood: holds a box without an area"),
        ("time", "1e999", "not understood: should be a number, found an endless number"),
        ("video_file", "videos/", "not understood: names a folder, not a file"),
        ("cropped", "yes", "not understood: should be true or false, found text"),
    ],
)
def test_a_refusal_says_why(name: str, value: Any, why: str) -> None:
    with pytest.raises(FieldError) as caught:
        facts_of_field(name, value)
    assert str(caught.value) == why


@given(st.text())
def test_plain_text_is_one_storable_line(text: str) -> None:
    plain = plain_text(text)
    plain.encode("utf-8")
    assert "\n" not in plain
    assert plain == plain.strip() == plain_text(plain)


def test_the_most_telling_sidecar_comes_first_and_other_files_are_left_alone(tmp_path: Path) -> None:
    ours = [".a_meta.json", "a.json", "a.png.tags", "a.tags", "a.processed_tags", "a.characters"]
    for name in [*ours, "b.json", "a.npz", ".b_meta.json", "a.jsonl"]:
        (tmp_path / name).write_text("{}")
    (tmp_path / "a.txt").mkdir()
    assert [path.name for path in find_sidecars(tmp_path / "a.png")] == ours


def test_a_sidecar_named_by_the_stem_alone_tells_which_pictures_it_may_be_about(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "a.tags").write_text("1girl")
    (tmp_path / "a.png.tags").write_text("1girl")
    (tmp_path / ".a_meta.json").write_text('{"filename": "a.png", "rating": "general"}')
    shared, sure, named = (
        read_sidecar(tmp_path / name, tmp_path / "a.png") for name in ("a.tags", "a.png.tags", ".a_meta.json")
    )
    assert shared is not None
    assert sure is not None
    assert named is not None
    assert (shared.namesakes, sure.namesakes, named.namesakes) == (("a.jpg",), (), ())
    assert read_sidecar(tmp_path / ".a_meta.json", tmp_path / "a.jpg") is None


def test_the_first_of_two_fields_for_one_fact_stays(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"character": ["Aoba"], "characters": ["Hifumi"]}')
    sidecar = read_sidecar(tmp_path / "a.json", tmp_path / "a.png")
    assert sidecar is not None
    assert sidecar.facts == {"characters": ["Aoba"]}
    assert sidecar.ignored == {"characters": "another field says other characters"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"__type": "os.system", "base64": "eA=="}', "pickled Python object"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not JSON"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b" " * (5 << 20), "larger than 4 MiB"),
        (b"\xff\xfe{\0}\0", "not UTF-8"),
    ],
    ids=["pickle", "long number", "deep", "large", "UTF-16"],
)
def test_a_hostile_file_is_one_clear_error(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / ".a_meta.json"
    path.write_bytes(data)
    with pytest.raises(SidecarError, match=why) as caught:
        read_sidecar(path, tmp_path / "a.png")
    assert str(path) in str(caught.value)


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"n_people": 1}')
    sidecar = read_sidecar(tmp_path / "a.json", tmp_path / "a.png")
    assert sidecar is not None
    assert sidecar.facts == {"num_people": 1}
