"""sync: captions edited by hand, tags in them, and folder moves, as a person's word."""

import json
from pathlib import Path
from typing import Any

import pytest
from described import captions, described, draw, fact

from pipeline.catalog import Catalog
from tests.conftest import Celforge

TAGS = {"1girl": 0.99, "smile": 0.9, "long_hair": 0.8, "hair": 0.7, "^_^": 0.6}


@pytest.fixture
def root(tmp_path: Path, celforge: Celforge) -> Path:
    (tmp_path / "celforge.toml").write_text(
        '[characters.Sabine]\ncaption = "sabine_v1"\n[characters.Mireth]\n'
    )
    described(celforge, tmp_path, {"1_character/Sabine/a.png": {"tags": TAGS}, "ep01/b.png": {"tags": TAGS}})
    celforge("identify", tmp_path, "--from-folders")
    celforge("caption", tmp_path, "--prune", "minimal")
    return tmp_path


A = "1_character/Sabine/a"


def content(root: Path, name: str) -> str:
    import hashlib

    return hashlib.sha256((root / name).read_bytes()).hexdigest()


def known(root: Path, name: str, what: str) -> Any:
    return fact(root, content(root, name), what)


def test_nothing_changed_is_nothing_taken_in(celforge: Celforge, root: Path) -> None:
    answer = celforge("sync", root, "--json")
    assert answer.exit_code == 0
    assert answer.json["captions_read"] == answer.json["characters_from_folders"] == 0
    assert (root / f"{A}.txt").read_text() == "sabine_v1, 1girl, smile, long hair, ^_^"


def test_an_edited_caption_adds_and_removes_tags_and_characters(celforge: Celforge, root: Path) -> None:
    (root / f"{A}.txt").write_text("sabine_v1, Mireth, 1girl, long hair, blue sky, ^_^")
    preview = celforge("sync", root, "--dry-run", "--json").json
    assert preview["planned"] == [
        {
            "picture": f"{A}.png",
            "what": "caption",
            "change": "+Mireth, +blue sky, -smile",
            "reason": "edited by hand",
        }
    ]
    assert known(root, f"{A}.png", "characters") == ["Sabine"]
    answer = celforge("sync", root, "--json")
    assert answer.json["tags_removed"] == {"smile": 1}
    assert known(root, f"{A}.png", "caption") == "sabine_v1, Mireth, 1girl, long hair, blue sky, ^_^"
    # "hair" was left out by us, not by the person, and stays known
    assert known(root, f"{A}.png", "tags") == {
        "1girl": 0.99,
        "long_hair": 0.8,
        "hair": 0.7,
        "^_^": 0.6,
        "blue_sky": None,
    }
    assert known(root, f"{A}.png", "characters") == ["Sabine", "Mireth"]
    assert celforge("sync", root, "--json").json["captions_read"] == 0


def test_a_name_taken_out_of_a_caption_is_no_character_any_more(celforge: Celforge, root: Path) -> None:
    (root / f"{A}.txt").write_text("1girl, smile, long hair, ^_^")
    celforge("sync", root)
    assert known(root, f"{A}.png", "characters") == []
    assert known(root, f"{A}.png", "tags") == TAGS


def test_a_caption_of_another_tool_is_read_whole(celforge: Celforge, root: Path) -> None:
    draw(root / "new.png", 99)
    (root / "new.txt").write_text("Sabine V1, 1girl, Long Hair, ganyu \\(genshin impact\\), ^_^\n")
    celforge("sync", root)
    assert known(root, "new.png", "characters") == ["Sabine"]
    assert list(known(root, "new.png", "tags")) == ["1girl", "^_^", "ganyu_(genshin_impact)", "long_hair"]


def test_sentences_are_a_caption_and_no_tags(celforge: Celforge, root: Path) -> None:
    (root / f"{A}.txt").write_text("A girl with long hair smiles at the camera, eyes closed.")
    celforge("sync", root)
    assert known(root, f"{A}.png", "caption") == "A girl with long hair smiles at the camera, eyes closed."
    assert known(root, f"{A}.png", "tags") == TAGS
    assert known(root, f"{A}.png", "characters") == ["Sabine"]


def test_a_second_edit_is_read_beside_the_first(celforge: Celforge, root: Path) -> None:
    path = root / f"{A}.txt"
    path.write_text("sabine_v1, 1girl, long hair, ^_^, hat")
    celforge("sync", root)
    path.write_text("sabine_v1, 1girl, long hair, ^_^, hat, tree")
    answer = celforge("sync", root, "--json")
    assert (answer.json["tags_added"], answer.json["tags_removed"]) == ({"tree": 1}, {})
    assert set(known(root, f"{A}.png", "tags")) == {"1girl", "long_hair", "hair", "^_^", "hat", "tree"}


def test_faces_are_shown_as_captions_write_them(celforge: Celforge, root: Path) -> None:
    (root / f"{A}.txt").write_text("sabine_v1, 1girl, smile, long hair, ^_^, >_<, o_o")
    assert "tags added: >_< 1, o_o 1\n" in celforge("sync", root).stdout


@pytest.mark.parametrize(
    "data",
    [
        b"sabine_v1, 1girl, smile, long hair, ^_^\r\n",
        "sabine_v1, 1girl, smile, long hair, ^_^".encode("utf-8-sig"),
    ],
)
def test_a_line_s_end_or_a_mark_is_no_edit(celforge: Celforge, root: Path, data: bytes) -> None:
    (root / f"{A}.txt").write_bytes(data)
    assert celforge("sync", root, "--json").json["captions_read"] == 0


def test_utf_16_of_notepad_is_read_and_other_encodings_are_told(celforge: Celforge, root: Path) -> None:
    (root / f"{A}.txt").write_bytes("sabine_v1, 1girl, smile, long hair, ^_^, 猫".encode("utf-16"))
    (root / "ep01" / "b.txt").write_bytes(b"caf\xe9, smile")
    answer = celforge("sync", root, "--json")
    assert answer.json["tags_added"] == {"猫": 1}
    assert answer.json["unread"] == ["b.txt beside ep01/b.png: not UTF-8"]
    assert (root / "ep01" / "b.txt").read_bytes() == b"caf\xe9, smile"


def test_copies_with_two_edits_are_told_and_not_guessed(celforge: Celforge, root: Path) -> None:
    (root / "copy.png").write_bytes((root / f"{A}.png").read_bytes())
    (root / "copy.txt").write_text("1girl, hat")
    (root / f"{A}.txt").write_text("1girl, tree")
    answer = celforge("sync", root, "--json")
    assert answer.json["unread"] == [f"{A}.png and copy.png: two captions by hand for one picture"]
    assert known(root, f"{A}.png", "tags") == TAGS


def test_a_list_of_fields_is_no_caption(celforge: Celforge, root: Path) -> None:
    (root / f"{A}.txt").write_text("character: sabine\nrating: general\n")
    answer = celforge("sync", root, "--json")
    assert "celforge catalog sidecars" in answer.json["unread"][0]


# Folders


def move(root: Path, source: str, destination: str) -> None:
    (root / destination).parent.mkdir(parents=True, exist_ok=True)
    (root / source).rename(root / destination)


def test_a_picture_moved_to_another_folder_gets_its_name(celforge: Celforge, root: Path) -> None:
    for suffix in (".png", ".txt"):
        move(root, A + suffix, f"1_character/mireth/a{suffix}")
    for _ in range(2):  # looking does not lose what there is to see
        preview = celforge("sync", root, "--dry-run", "--json").json["planned"]
        assert [(row["picture"], row["change"]) for row in preview] == [
            ("1_character/mireth/a.png", "Sabine -> Mireth")
        ]
    celforge("ingest", root)
    assert celforge("sync", root, "--json").json["characters_from_folders"] == 1
    assert known(root, "1_character/mireth/a.png", "characters") == ["Mireth"]
    celforge("identify", root, "--from-folders", "--by-tags")
    assert known(root, "1_character/mireth/a.png", "characters") == ["Mireth"]
    celforge("caption", root, "--prune", "minimal")
    assert captions(root)["1_character/mireth/a.txt"].startswith("Mireth, ")
    celforge("undo", root)
    celforge("undo", root)
    assert celforge("undo", root).exit_code == 0


def test_a_picture_sorted_for_the_first_time_is_named(celforge: Celforge, root: Path) -> None:
    move(root, "ep01/b.png", "1_character/Kaorin/b.png")
    celforge("sync", root)
    assert known(root, "1_character/Kaorin/b.png", "characters") == ["Kaorin"]


def test_a_folder_that_nobody_moved_does_not_overrule_in_silence(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, {"1_character/Sabine/a.png": {"characters": ["Mireth"]}}, source="identify")
    answer = celforge("sync", tmp_path, "--json")
    assert answer.json["differing"] == ["1_character/Sabine/a.png: in the folder of Sabine, known as Mireth"]
    assert known(tmp_path, "1_character/Sabine/a.png", "characters") == ["Mireth"]
    celforge("sync", tmp_path, "--folders", "all")
    assert known(tmp_path, "1_character/Sabine/a.png", "characters") == ["Sabine"]


def test_copies_in_folders_of_two_characters_are_listed(celforge: Celforge, root: Path) -> None:
    (root / "1_character" / "Mireth").mkdir()
    (root / "1_character" / "Mireth" / "a.png").write_bytes((root / f"{A}.png").read_bytes())
    answer = celforge("sync", root, "--json")
    assert len(answer.json["differing"]) == 2
    assert known(root, f"{A}.png", "characters") == ["Sabine"]


def test_parts_can_be_left_out(celforge: Celforge, root: Path) -> None:
    move(root, A + ".png", "1_character/Mireth/a.png")
    (root / "ep01" / "b.txt").write_text("1girl, hat")
    answer = celforge("sync", root, "--folders", "none", "--no-captions", "--json")
    assert answer.json["captions_read"] == answer.json["characters_from_folders"] == 0
    answer = celforge("sync", root, "--no-captions", "--folder-format", "*/character", "--json")
    assert answer.json["characters_from_folders"] == 1


def test_another_separator_and_wrong_ones(celforge: Celforge, root: Path) -> None:
    draw(root / "new.png", 99)
    (root / "new.txt").write_text("1girl; blue sky")
    celforge("sync", root, "--separator", "; ")
    assert set(known(root, "new.png", "tags")) == {"1girl", "blue_sky"}
    assert celforge("sync", root, "--separator", " ").exit_code == 2


def test_nothing_on_disk_is_changed(celforge: Celforge, root: Path) -> None:
    (root / f"{A}.txt").write_text("1girl, hat")
    before = captions(root)
    celforge("sync", root)
    assert captions(root) == before
    assert celforge("undo", root).exit_code == 0
    assert known(root, f"{A}.png", "tags") == TAGS


def test_a_folder_without_pictures_is_refused(celforge: Celforge, tmp_path: Path) -> None:
    assert celforge("sync", tmp_path).exit_code == 2


# captions.jsonl


def test_a_line_of_captions_jsonl_edited_by_hand_is_read_back(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, {"e/a.png": {"tags": TAGS}, "b.png": {"tags": TAGS}})
    celforge("caption", tmp_path, "--format", "jsonl", "--prune", "minimal")
    path = tmp_path / "captions.jsonl"
    assert celforge("sync", tmp_path, "--json").json["captions_read"] == 0
    edited = path.read_text().replace(
        '"e/a.png", "caption": "1girl, smile', '"e/a.png", "caption": "1girl, hat'
    )
    assert edited != path.read_text()
    path.write_text(edited)
    inside = celforge("sync", tmp_path / "e", "--dry-run", "--json").json  # the file lies above that folder
    assert [row["change"] for row in inside["planned"]] == ["+hat, -smile"]
    answer = celforge("sync", tmp_path, "--json")
    assert (answer.json["captions_read"], answer.json["tags_removed"]) == (1, {"smile": 1})
    tags = known(tmp_path, "e/a.png", "tags")
    assert "smile" not in tags
    assert "hat" in tags
    assert known(tmp_path, "b.png", "tags") == TAGS
    assert path.read_text() == edited
    assert celforge("sync", tmp_path, "--json").json["captions_read"] == 0


def test_a_captions_jsonl_that_is_not_understood_is_listed_and_ends_nothing(
    celforge: Celforge, root: Path
) -> None:
    (root / "captions.jsonl").write_text("{broken\n")
    (root / f"{A}.txt").write_text("sabine_v1, 1girl, long hair, ^_^")
    answer = celforge("sync", root, "--json")
    assert answer.exit_code == 0
    assert answer.json["captions_read"] == 1
    assert ["line 1 of" in text for text in answer.json["unread"]] == [True]


def test_two_edits_of_one_picture_in_two_places_are_listed(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, {"a.png": {"tags": TAGS}})
    (tmp_path / "a.txt").write_text("red, green")
    (tmp_path / "captions.jsonl").write_text('{"image_path": "a.png", "caption": "blue, yellow"}\n')
    answer = celforge("sync", tmp_path, "--json")
    assert answer.json["captions_read"] == 0
    assert "two captions by hand" in answer.json["unread"][0]


def test_the_characters_in_force_are_saved_with_the_run(celforge: Celforge, root: Path) -> None:
    celforge("sync", root)
    with Catalog.open(root / ".celforge" / "catalog.sqlite3", read_only=True) as catalog:
        rows = catalog.rows("SELECT stage, settings FROM runs ORDER BY id").fetchall()
    saved = {stage: json.loads(settings).get("characters") for stage, settings in rows}
    assert set(saved) == {"ingest", "tag", "identify", "caption", "sync"}
    for stage in ("identify", "caption", "sync"):
        assert saved[stage]["Sabine"] == {
            "all": [],
            "any": [],
            "none": [],
            "tags": [],
            "caption": "sabine_v1",
        }
        assert set(saved[stage]) == {"Sabine", "Mireth"}


def test_a_picture_is_handed_back_to_the_tagger_as_the_page_of_tags_says(
    celforge: Celforge, root: Path
) -> None:
    path = root / f"{A}.txt"
    before = path.read_text()
    path.write_text("Mireth, hat")
    celforge("sync", root)
    assert known(root, f"{A}.png", "characters") == ["Mireth"]
    celforge("caption", root, "--overwrite", "--prune", "minimal")
    celforge("tags", root, "--forget", "tags", "--forget", "characters", "--forget", "caption")
    celforge("caption", root, "--prune", "minimal")
    assert known(root, f"{A}.png", "characters") == ["Sabine"]
    assert path.read_text() == before
