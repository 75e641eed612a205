"""Kohya trees of others, taken in as EveryDream trees."""

from pathlib import Path

from tests.conftest import Celforge
from tests.trees import build, look


def test_a_strangers_kohya_tree_is_taken_in_when_asked(tmp_path: Path, celforge: Celforge) -> None:
    files = {
        "3_a_b/x.png": "x",
        "1_plain/y.png": "y",
        "2_x~y/z.png": "z",
        "0_off/o.png": "o",
        "notes/n.png": "n",
    }
    root = build(tmp_path / "set", files)
    answer = celforge("flatten", root, "--import-kohya")
    assert answer.exit_code == 0
    assert {key: entry[1] for key, entry in look(root).items() if entry[0] == "file"} == {
        "a_b/x.png": b"x", "a_b/multiply.txt": b"3\n", "plain/y.png": b"y", "x/y/z.png": b"z",
        "x/y/multiply.txt": b"2\n", "0_off/o.png": b"o", "notes/n.png": b"n",
    }  # fmt: skip
    assert "0_off" in answer.stderr
    celforge("undo", root)
    assert {key: entry[1] for key, entry in look(root).items() if entry[0] == "file"} == {
        key: text.encode() for key, text in files.items()
    }


def test_two_numbers_of_one_name_keep_their_whole_names(tmp_path: Path, celforge: Celforge) -> None:
    root = build(tmp_path / "set", {"3_x/a.png": "a", "2_x/b.png": "b"})
    answer = celforge("flatten", root, "--import-kohya")
    assert (root / "3_x/multiply.txt").read_text() == "3\n"
    assert (root / "2_x/multiply.txt").read_text() == "2\n"
    assert "keep their whole name" in answer.stderr


def test_our_own_flat_tree_is_not_taken_in_as_a_strangers(tmp_path: Path, celforge: Celforge) -> None:
    root = build(tmp_path / "set", {"1_character/Asuka/a.png": "a", "B/b.png": "b"})
    celforge("flatten", root, "--in-place")
    assert celforge("flatten", root, "--import-kohya").exit_code == 2
    (root / ".flatten.json").unlink()
    assert celforge("flatten", root, "--import-kohya").exit_code == 0
    assert (root / "1_character/Asuka/a.png").is_file()
