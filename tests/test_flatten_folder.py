"""flatten_folder: where the script of anime_screenshot_pipeline worked, the same names; and its twenty faults, one
test each.
"""

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli import run
from stages.flatten_folder import command
from tests.conftest import Answer
from tests.oracles.trainers import kohya_folders, total
from tests.trees import build, look

FlattenFolder = Callable[..., Answer]


@pytest.fixture
def flatten_folder() -> FlattenFolder:
    """Run the command line as a person would, in this process."""

    def call(*arguments: object) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(command, ["--src_dir", *(str(argument) for argument in arguments)])
        return Answer(int(code), out.getvalue(), err.getvalue())

    return call


def names(root: Path) -> list[str]:
    return sorted(name for name in os.listdir(root) if name[0] != ".")


def test_where_the_ancestor_works_the_names_are_its_names(
    tmp_path: Path, flatten_folder: FlattenFolder
) -> None:
    files = {
        "1_character/AobaMai/a.png": "a", "1_character/AobaMai/multiply.txt": "2.4",
        "1_character/_leading/a.png": "a", "1_character/with space/a.png": "a", "2_characters/A+B/a.png": "a",
        "2_characters/A+B/multiply.txt": "3.6", "6+_characters/100%/a.png": "a", "dotted.name/a.png": "a",
        "core_tag.json": "{}",
    }  # fmt: skip
    root = build(tmp_path / "tree", files)
    before = look(root)
    assert flatten_folder(root).exit_code == 0
    assert names(root) == [
        "1_1_character~_leading", "1_1_character~with space", "1_6+_characters~100%", "1_dotted.name",
        "2_1_character~AobaMai", "4_2_characters~A+B", "core_tag.json",
    ]  # fmt: skip
    assert flatten_folder(root, "--revert").exit_code == 0
    assert look(root) == before


def test_the_separator_is_the_persons(tmp_path: Path, flatten_folder: FlattenFolder) -> None:
    root = build(tmp_path / "tree", {"A/B/a.png": "a"})
    assert flatten_folder(root, "--separator", "-").exit_code == 0
    assert names(root) == ["1_A-B"]
    wrong = flatten_folder(root, "--separator", "/")
    assert wrong.exit_code == 2
    assert "Windows does not allow" in wrong.stderr


def test_a_tree_that_the_ancestor_flattened_comes_back(tmp_path: Path, flatten_folder: FlattenFolder) -> None:
    files = {
        "2_1_character~A/a.png": "a",
        "2_1_character~A/multiply.txt": "2.5",
        "1_1_character~B/b.png": "b",
        "1_C/c.png": "c",
    }
    root = build(tmp_path / "tree", files)
    answer = flatten_folder(root, "--revert")
    assert answer.exit_code == 0, answer.stderr
    assert {key for key, entry in look(root).items() if entry[0] == "file"} == {
        "1_character/A/a.png", "1_character/A/multiply.txt", "1_character/B/b.png", "C/c.png",
    }  # fmt: skip
    assert (root / "1_character/A/multiply.txt").read_text() == "2.5"


# The twenty faults


@pytest.mark.parametrize(("multiply", "repeats"), [("2.5", 3), ("3.5", 4), ("2.4", 2), ("4.5", 5)])
def test_01_halves_are_rounded_up_not_to_even(
    tmp_path: Path, flatten_folder: FlattenFolder, multiply: str, repeats: int
) -> None:
    root = build(tmp_path / "tree", {"x/A/a.png": "a", "x/A/multiply.txt": multiply})
    assert "error: " in flatten_folder(root).stdout
    assert names(root) == [f"{repeats}_x~A"]


@pytest.mark.parametrize("multiply", ["0.4", "0.5", "0.01"])
def test_02_a_folder_never_becomes_zero(tmp_path: Path, flatten_folder: FlattenFolder, multiply: str) -> None:
    root = build(tmp_path / "tree", {"x/A/a.png": "a", "x/A/multiply.txt": multiply})
    assert flatten_folder(root).exit_code == 0
    assert names(root) == ["1_x~A"]


def test_03_pictures_in_a_folder_in_the_middle_are_flattened_and_come_back(
    tmp_path: Path, flatten_folder: FlattenFolder
) -> None:
    root = build(tmp_path / "tree", {"A/a.png": "a", "A/multiply.txt": "2", "A/B/b.png": "b"})
    before = look(root)
    assert flatten_folder(root).exit_code == 0
    assert names(root) == ["1_A~B", "2_A"]
    assert total(kohya_folders(root)) == 3
    assert flatten_folder(root, "--revert").exit_code == 0
    assert look(root) == before


@pytest.mark.parametrize("litter", [".thumbs", "@eaDir", "__MACOSX"])
def test_04_litter_in_a_leaf_does_not_make_it_a_middle(
    tmp_path: Path, flatten_folder: FlattenFolder, litter: str
) -> None:
    root = build(tmp_path / "tree", {"A/B/a.png": "a", f"A/B/{litter}/t.png": "t"})
    before = look(root)
    flatten_folder(root)
    assert names(root) == ["1_A~B"]
    assert (root / "1_A~B" / litter / "t.png").is_file()
    flatten_folder(root, "--revert")
    assert look(root) == before


def test_05_pictures_in_the_root_only(tmp_path: Path, flatten_folder: FlattenFolder) -> None:
    root = build(tmp_path / "tree", {"a.png": "a", "a.txt": "1girl", "multiply.txt": "3"})
    before = look(root)
    assert flatten_folder(root).exit_code == 0
    assert sorted(os.listdir(root / "3__root")) == ["a.png", "a.txt"]
    flatten_folder(root, "--revert")
    assert look(root) == before


def test_06_pictures_in_the_root_beside_folders_are_trained_and_loose_files_stay(
    tmp_path: Path, flatten_folder: FlattenFolder
) -> None:
    root = build(tmp_path / "tree", {"a.png": "a", "core_tag.json": "{}", "A/b.png": "b"})
    flatten_folder(root)
    assert names(root) == ["1_A", "1__root", "core_tag.json"]
    assert total(kohya_folders(root)) == 2


def test_07_a_separator_in_a_name_comes_back(tmp_path: Path, flatten_folder: FlattenFolder) -> None:
    root = build(tmp_path / "tree", {"A~B/a.png": "a"})
    before = look(root)
    flatten_folder(root)
    flatten_folder(root, "--revert")
    assert look(root) == before


def test_08_names_that_would_become_one_stay_two(tmp_path: Path, flatten_folder: FlattenFolder) -> None:
    root = build(tmp_path / "tree", {"A~B/a.png": "1", "A/B/a.png": "2"})
    before = look(root)
    assert flatten_folder(root).exit_code == 0
    assert names(root) == ["1_A%7EB", "1_A~B"]
    flatten_folder(root, "--revert")
    assert look(root) == before


def test_09_a_second_run_is_refused(tmp_path: Path, flatten_folder: FlattenFolder) -> None:
    root = build(tmp_path / "tree", {"c/A/a.png": "a", "c/A/multiply.txt": "2"})
    flatten_folder(root)
    before = look(root)
    again = flatten_folder(root)
    assert again.exit_code == 2
    assert "flattened already" in again.stderr
    assert look(root) == before


def test_09_a_tree_that_looks_flat_is_refused_until_a_person_insists(
    tmp_path: Path, flatten_folder: FlattenFolder
) -> None:
    root = build(tmp_path / "tree", {"3_asuka/a.png": "a", "1_rei/b.png": "b"})
    before = look(root)
    assert flatten_folder(root).exit_code == 2
    assert look(root) == before
    assert flatten_folder(root, "--even-if-flat").exit_code == 0
    assert names(root) == ["1_1_rei", "1_3_asuka"]


def test_09_folders_by_number_of_characters_are_not_flat(
    tmp_path: Path, flatten_folder: FlattenFolder
) -> None:
    root = build(tmp_path / "tree", {"1_character/a.png": "a", "2_characters/b.png": "b"})
    assert flatten_folder(root).exit_code == 0
    assert names(root) == ["1_1_character", "1_2_characters"]


@pytest.mark.parametrize(
    "files",
    [
        {"1_character/AobaMai/a.png": "a"},
        {"1_character/a.png": "a", "2_characters/b.png": "b"},
        {"3_asuka/a.png": "a"},
    ],
)
def test_10_revert_of_a_tree_that_was_not_flattened_is_refused(
    tmp_path: Path, flatten_folder: FlattenFolder, files: dict[str, str]
) -> None:
    root = build(tmp_path / "tree", files)
    before = look(root)
    answer = flatten_folder(root, "--revert")
    assert answer.exit_code == 2
    assert "--import-kohya" in answer.stderr
    assert look(root) == before


def test_11_the_name_of_the_folder_inside_the_tree_harms_nothing(
    tmp_path: Path, flatten_folder: FlattenFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "w", {"A/w/a.png": "a", "data/w/A/b.png": "b"})
    monkeypatch.chdir(tmp_path)
    before = look(tmp_path / "w")
    assert flatten_folder("w").exit_code == 0
    assert names(tmp_path / "w") == ["1_A~w", "1_data~w~A"]
    flatten_folder("w", "--revert")
    assert look(tmp_path / "w") == before


@pytest.mark.parametrize("multiply", ["-3", "0", "abc", "", "inf", "nan", "2,5", "1e400"])
def test_12_13_a_multiply_that_cannot_be_is_refused_before_anything_moves(
    tmp_path: Path, flatten_folder: FlattenFolder, multiply: str
) -> None:
    root = build(tmp_path / "tree", {"A/a.png": "a", "B/b.png": "b", "B/multiply.txt": multiply})
    before = look(root)
    answer = flatten_folder(root)
    assert answer.exit_code == 1
    assert "multiply.txt" in answer.stderr
    assert f'"{multiply}"' in answer.stderr
    assert look(root) == before


def test_13_a_byte_order_mark_does_no_harm(tmp_path: Path, flatten_folder: FlattenFolder) -> None:
    root = build(tmp_path / "tree", {"A/a.png": "a", "A/multiply.txt": "\ufeff3\r\n"})
    assert flatten_folder(root).exit_code == 0
    assert names(root) == ["3_A"]


def test_14_a_folder_without_pictures_is_no_subset(tmp_path: Path, flatten_folder: FlattenFolder) -> None:
    root = build(tmp_path / "tree", {"A/a.png": "a", "logs/x.log": "x"})
    flatten_folder(root)
    assert names(root) == ["1_A", "logs"]


def test_15_empty_folders_stay_and_come_back(tmp_path: Path, flatten_folder: FlattenFolder) -> None:
    root = build(tmp_path / "tree", {"A/B/a.png": "a", "A/empty/": "", "C/D/c.png": "c", "none/deep/": ""})
    os.chmod(root / "C", 0o750)
    before = look(root)
    flatten_folder(root)
    assert names(root) == ["1_A~B", "1_C~D", "A", "none"]
    flatten_folder(root, "--revert")
    assert look(root) == before


def test_16_a_link_to_a_folder_is_not_followed(tmp_path: Path, flatten_folder: FlattenFolder) -> None:
    home = build(tmp_path / "home", {"x.png": "x"})
    root = build(tmp_path / "tree", {"A/a.png": "a", "A/outside": f"-> {home}", "linked": f"-> {home}"})
    before = look(root)
    assert "not followed" in flatten_folder(root).stderr
    assert (home / "x.png").is_file()
    flatten_folder(root, "--revert")
    assert look(root) == before


def test_17_a_loop_of_links_ends(tmp_path: Path, flatten_folder: FlattenFolder) -> None:
    root = build(tmp_path / "tree", {"A/a.png": "a", "A/loop": "-> ..", "A/self": "-> self"})
    before = look(root)
    assert flatten_folder(root).exit_code == 0
    assert (root / "1_A/loop").resolve() == root.resolve()
    flatten_folder(root, "--revert")
    assert look(root) == before


def test_18_a_name_that_would_be_too_long_is_cut_and_comes_back(
    tmp_path: Path, flatten_folder: FlattenFolder
) -> None:
    deep = "/".join(letter * 120 for letter in "abc")
    root = build(tmp_path / "tree", {f"{deep}/a.png": "a", f"{deep}d/a.png": "b"})
    before = look(root)
    assert flatten_folder(root).exit_code == 0
    assert [len(name) <= 255 for name in names(root)] == [True, True]
    flatten_folder(root, "--revert")
    assert look(root) == before


@pytest.mark.parametrize("there", [{"1_A/": ""}, {"1_A/notes.md": "n"}, {"1_A": "a file"}])
def test_19_what_stands_in_the_place_of_a_name_is_never_replaced(
    tmp_path: Path, flatten_folder: FlattenFolder, there: dict[str, str]
) -> None:
    root = build(tmp_path / "tree", {"A/a.png": "a"} | there)
    before = look(root)
    assert flatten_folder(root).exit_code == 0
    assert {key: entry for key, entry in before.items() if not key.startswith("A")}.items() <= look(
        root
    ).items()
    assert total(kohya_folders(root)) == 1
    flatten_folder(root, "--revert")
    assert look(root) == before


def test_20_odd_letters_survive_and_a_name_after_the_number_is_the_path(
    tmp_path: Path, flatten_folder: FlattenFolder
) -> None:
    root = build(tmp_path / "tree", {"_x/ y +.z/a.png": "a"})
    before = look(root)
    flatten_folder(root)
    assert names(root) == ["1__x~ y +.z"]
    flatten_folder(root, "--revert")
    assert look(root) == before


# What is ours


def test_split_is_offered_here_too(tmp_path: Path, flatten_folder: FlattenFolder) -> None:
    files = {f"A/{number}.png": str(number) for number in range(10)}
    root = build(tmp_path / "tree", {"A/multiply.txt": "2.4", **files})
    flatten_folder(root, "--fractions", "split")
    assert {
        name: len([one for one in os.listdir(root / name) if one.endswith(".png")]) for name in names(root)
    } == {
        "2_A": 6,
        "3_A": 4,
    }


def test_a_dry_run_shows_the_table_and_touches_nothing(tmp_path: Path, flatten_folder: FlattenFolder) -> None:
    root = build(tmp_path / "tree", {"A/B/a.png": "a", "A/B/multiply.txt": "2.4"})
    before = look(root)
    answer = flatten_folder(root, "--dry-run", "--json")
    assert answer.json["planned"] == [
        {"folder": "A/B", "images": 1, "multiply": 2.4, "repeats": 2, "error_%": -16.7, "becomes": "2_A~B"}
    ]
    assert look(root) == before


def test_a_folder_without_pictures_is_refused(tmp_path: Path, flatten_folder: FlattenFolder) -> None:
    assert flatten_folder(build(tmp_path / "tree", {"A/": ""})).exit_code == 2
    assert flatten_folder(tmp_path / "nowhere").exit_code == 2


def test_the_console_command_is_declared() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["flatten_folder"] == "stages.flatten_folder:main"
