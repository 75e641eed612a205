"""Folders and names of an arranged tree: literal cases, and rules that hold for any name."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SettingsError
from pipeline.folder_format import (
    OTHERS,
    FolderFormat,
    Known,
    character_folder,
    folder_name,
    one_spelling,
    parse_format,
)
from pipeline.names import name_problem, path_key
from pipeline.tree_names import distinct_names, pattern_of, sidecar_name, sidecars_by_picture, stem_key


def folder(form: str, known: Known, **options: int) -> str:
    layout = FolderFormat(parse_format(form), **({"min_images": 1} | options))
    return layout.folders([known])[0]


@pytest.mark.parametrize(
    ("form", "known", "expected"),
    [
        ("n_characters/character", Known(), "0_characters/character_others"),
        ("n_characters/character", Known(("b",)), "1_character/b"),
        ("n_characters/character", Known(("b", "a", "b")), "2_characters/a+b"),
        ("n_characters", Known(tuple("abcdef")), "6+_characters"),
        ("n_characters", Known(tuple("abcde")), "5_characters"),
        ("character", Known(("a" * 60, "b" * 60)), OTHERS),
        ("character", Known(("\N{HIRAGANA LETTER A}" * 99,)), OTHERS),  # 297 bytes
        ("character", Known(("sabine|short hair|uniform",)), "sabine"),
        ("character_string", Known(("sabine|short hair|uniform",)), "sabine_short hair_uniform"),
        ("n_people", Known(num_people=1), "1_person"),
        ("n_people", Known(num_people=0), "0_people"),
        ("n_people", Known(num_people=6), "6+_people"),
        ("n_people", Known(), "unknown_people"),
        ("n_faces", Known(num_faces=1), "1_face"),
        ("fh_ratio", Known(face_height_ratio=0.0), "face_height_ratio_0-25"),
        ("fh_ratio", Known(face_height_ratio=0.2499), "face_height_ratio_0-25"),
        ("fh_ratio", Known(face_height_ratio=0.25), "face_height_ratio_25-50"),
        ("fh_ratio", Known(face_height_ratio=1.0), "face_height_ratio_75-100"),
        ("image_type/folder", Known(image_type="booru", folder="ep 1/b"), "booru/ep 1/b"),
        ("", Known(("a",)), ""),
    ],
)
def test_folders_by_level(form: str, known: Known, expected: str) -> None:
    assert folder(form, known) == expected


def test_rare_combinations_are_counted_over_all_pictures() -> None:
    pictures = [Known(("a",)), Known(("b", "a")), Known(("a", "b")), Known()]
    layout = FolderFormat(("character",), min_images=2)
    assert layout.folders(pictures) == [OTHERS, "a+b", "a+b", OTHERS]
    assert dict(layout.rare_combinations(pictures)) == {"a": 1}


def test_a_wrong_level_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="unknown level"):
        parse_format("n_characters/charcter")


NAMES = st.text(min_size=1, max_size=40).filter(lambda text: text.strip(" _|") != "")


@given(NAMES)
def test_any_name_is_a_folder_on_every_disk(name: str) -> None:
    found = folder_name(name)
    assert name_problem(found) is None
    assert not found.startswith(".")
    assert "+" not in found


@given(st.text(alphabet='abc :?*"<>|+.\u3042', min_size=1, max_size=20).map(str.strip).filter(bool))
def test_folder_names_read_back(name: str) -> None:
    found = folder_name(name)
    if "-" not in found:  # not shortened by a hash
        assert unicodedata.normalize("NFKC", found) == unicodedata.normalize("NFKC", name)


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_the_order_of_names_does_not_matter(names: list[str]) -> None:
    assert character_folder(tuple(names)) == character_folder(tuple(names[::-1]))


def test_one_spelling_prefers_what_is_there_then_what_is_common() -> None:
    folders = ["x/Aoba", "x/aoba", "x/aoba", "y"]
    assert one_spelling(folders) == {"x/Aoba": "x/aoba", "x/aoba": "x/aoba", "y": "y"}
    assert one_spelling(folders, ["x/Aoba"])["x/aoba"] == "x/Aoba"


# File names

PATHS = st.lists(
    st.lists(st.sampled_from(["a", "A", "b", "ep1", "ep1_a", "\u3042"]), min_size=1, max_size=3)
    .map("/".join)
    .flatmap(lambda stem: st.sampled_from([".png", ".jpg"]).map(lambda suffix: stem + suffix)),
    unique=True,
    max_size=12,
)


def test_names_get_as_many_folders_as_it_takes() -> None:
    paths = ["ep1/1.png", "ep2/1.png", "ep2/2.png", "s2/ep2/1.png"]
    assert distinct_names(paths) == ["ep1_1.png", "ep2_1.png", "2.png", "s2_ep2_1.png"]


@given(PATHS)
def test_no_two_pictures_share_a_stem(paths: list[str]) -> None:
    names = distinct_names(paths)
    assert len({stem_key(name) for name in names}) == len(paths)
    assert all(name_problem(name) is None for name in names)
    assert names == distinct_names(paths)
    assert [name.rpartition(".")[2] for name in names] == [path.rpartition(".")[2] for path in paths]


def test_files_beside_a_picture() -> None:
    names = ["a.png", "a.txt", "a.png.tags", ".a_meta.json", "a_0512x0512_sd.npz", "b.txt", "multiply.txt"]
    found = sidecars_by_picture(names)
    assert found == {"a.png": [".a_meta.json", "a.png.tags", "a.txt", "a_0512x0512_sd.npz"]}
    patterns = [pattern_of(name, "a.png") for name in found["a.png"]]
    assert patterns == [".*_meta.json", "*.png.tags", "*.txt", "*_0512x0512_sd.npz"]
    assert [sidecar_name(pattern, "ep1_a.png") for pattern in patterns] == [
        ".ep1_a_meta.json",
        "ep1_a.png.tags",
        "ep1_a.txt",
        "ep1_a_0512x0512_sd.npz",
    ]


def test_a_dot_in_a_stem_does_not_mix_captions_up() -> None:
    names = ["E_00-12-34.jpg", "E_00-12-34.500.jpg", "E_00-12-34.txt", "E_00-12-34.500.txt"]
    assert sidecars_by_picture(names) == {
        "E_00-12-34.jpg": ["E_00-12-34.txt"],
        "E_00-12-34.500.jpg": ["E_00-12-34.500.txt"],
    }


def test_names_of_one_key_are_one_folder() -> None:
    assert path_key("Café") == path_key("CAFE\u0301")
    assert one_spelling(["Café", "cafe\u0301"])["Café"] == one_spelling(["Café", "cafe\u0301"])["cafe\u0301"]
