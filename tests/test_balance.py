"""balance: what it writes, what it leaves alone, what it says."""

import os
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.job import open_job
from tests.conftest import Celforge
from tests.crashing import KILLED, points, run_until_line
from tests.oracles.trainers import everydream_pass, everydream_pass_of_floats
from tests.trees import build, look


def make_tree(root: Path, counts: dict[str, int]) -> Path:
    """A tree with some pictures in each folder; any bytes will do."""
    files = {f"{folder}/{n}.png": f"{folder} {n}" for folder, count in counts.items() for n in range(count)}
    return build(root, {name.lstrip("/"): text for name, text in files.items()})


def multiplies(root: Path) -> dict[str, str]:
    return {
        path.parent.relative_to(root).as_posix(): path.read_bytes().decode()
        for path in sorted(root.rglob("multiply.txt"))
        if ".celforge" not in path.parts
    }


EXAMPLE = {"1_character/class1": 10, "1_character/class2": 10, "others/class1": 10, "others/class3": 10}
WEIGHTS = "1_character,3\nclass1,4\n*class2,6\n"


def test_the_worked_example_by_the_ancestors_csv(tmp_path: Path, celforge: Celforge) -> None:
    make_tree(tmp_path, EXAMPLE)
    (tmp_path / "weights.csv").write_text(WEIGHTS)
    answer = celforge(
        "balance", tmp_path, "--mode", "compatible", "--weight-csv", tmp_path / "weights.csv", "--json"
    )
    assert answer.exit_code == 0, answer.stderr
    assert {row["folder"]: row["wanted"] for row in answer.json["folders"]} == {
        "1_character/class1": 30.0,
        "1_character/class2": 45.0,
        "others/class1": 20.0,
        "others/class3": 5.0,
    }
    assert multiplies(tmp_path) == {
        "1_character/class1": "6.0",
        "1_character/class2": "9.0",
        "others/class1": "4.0",
        "others/class3": "1.0",
    }


def test_folders_of_few_pictures_are_named_with_the_flag_that_holds_them(
    tmp_path: Path, celforge: Celforge
) -> None:
    """By default two pictures beside two hundred are seen a hundred times each, as by the ancestor."""
    make_tree(tmp_path, {"mai": 2, "aoba": 200, "hazuki": 20})
    answer = celforge("balance", tmp_path, "--json").json
    assert multiplies(tmp_path) == {"mai": "100", "aoba": "1", "hazuki": "10"}
    (warning,) = answer["warnings"]
    assert "more than 10 times in one epoch: 1: mai (pictures: 2, each 100 times)" in warning
    assert "--max-multiply 10" in warning
    held = celforge("balance", tmp_path, "--max-multiply", "10", "--json").json
    assert multiplies(tmp_path)["mai"] == "10"
    assert held["warnings"] == []


def test_a_second_run_does_nothing_and_undo_takes_all_back(tmp_path: Path, celforge: Celforge) -> None:
    before = look(make_tree(tmp_path, {"a": 5, "b": 1}))
    celforge("balance", tmp_path)
    after = look(tmp_path)
    assert multiplies(tmp_path) == {"a": "1", "b": "5"}
    celforge("balance", tmp_path)
    assert look(tmp_path) == after
    assert celforge("undo", tmp_path).exit_code == 0
    assert look(tmp_path) == before
    assert celforge("undo", tmp_path).exit_code == 2  # there was one change only


def test_dry_run_touches_nothing(tmp_path: Path, celforge: Celforge) -> None:
    before = look(make_tree(tmp_path, {"a": 5, "b": 1}))
    answer = celforge("balance", tmp_path, "--dry-run", "--json").json
    assert [row["action"] for row in answer["planned"]] == ["write"] * 3
    assert answer["folders"][1]["multiply"] == 5.0
    assert look(tmp_path) == before
    celforge("balance", tmp_path)  # what a dry run thought of is no person's word
    assert multiplies(tmp_path) == {"a": "1", "b": "5"}


def test_a_multiply_by_hand_stays_and_the_others_go_by_it(tmp_path: Path, celforge: Celforge) -> None:
    make_tree(tmp_path, {"a": 10, "b": 10, "c": 10})
    (tmp_path / "a/multiply.txt").write_bytes(b"2\r\n")
    answer = celforge("balance", tmp_path, "--target-images", 60, "--json").json
    assert answer["left_as_they_were_by_hand"] == ["a (multiply.txt)"]
    assert multiplies(tmp_path) == {"a": "2\r\n", "b": "2", "c": "2"}
    (tmp_path / "b/multiply.txt").write_text("1")  # ours, edited
    celforge("balance", tmp_path, "--target-images", 60)
    assert multiplies(tmp_path) == {"a": "2\r\n", "b": "1", "c": "3"}
    celforge("balance", tmp_path, "--target-images", 60, "--overwrite")
    assert multiplies(tmp_path) == {"a": "2", "b": "2", "c": "2"}
    celforge("undo", tmp_path)
    assert multiplies(tmp_path) == {"a": "2\r\n", "b": "1", "c": "3"}


def test_a_yaml_file_speaks_over_multiply_txt(tmp_path: Path, celforge: Celforge) -> None:
    make_tree(tmp_path, {"a": 10, "b": 10})
    (tmp_path / "a/local.yaml").write_text("multiply: 3\n")
    answer = celforge("balance", tmp_path, "--target-images", 40, "--json").json
    assert answer["left_as_they_were_by_hand"] == ["a (yaml)"]
    assert multiplies(tmp_path) == {"b": "1"}


@pytest.mark.parametrize("text", ["many", "0", "-3", ""])
def test_a_multiply_that_says_nothing_stops_the_run(tmp_path: Path, celforge: Celforge, text: str) -> None:
    make_tree(tmp_path, {"a": 10, "b": 5})
    (tmp_path / "a/multiply.txt").write_text(text)
    before = look(tmp_path)
    answer = celforge("balance", tmp_path)
    assert answer.exit_code == 2
    assert "multiply.txt" in answer.stderr
    assert look(tmp_path) == before
    assert celforge("balance", tmp_path, "--overwrite").exit_code == 0
    assert multiplies(tmp_path) == {"a": "1", "b": "2"}


def test_folders_without_pictures_have_no_part(tmp_path: Path, celforge: Celforge) -> None:
    make_tree(tmp_path, {"a": 4, "b/c": 4})
    build(tmp_path, {"empty/": "", "texts/notes.txt": "x", "b/.hidden/1.png": "x"})
    celforge("balance", tmp_path)
    assert multiplies(tmp_path) == {"a": "1", "b/c": "1"}


def test_our_multiply_leaves_a_folder_that_has_no_pictures_any_more(
    tmp_path: Path, celforge: Celforge
) -> None:
    make_tree(tmp_path, {"a": 1, "b": 4, "c": 1})
    celforge("balance", tmp_path)
    (tmp_path / "a/0.png").unlink()
    (tmp_path / "c/0.png").unlink()
    (tmp_path / "c/multiply.txt").write_text("7")  # by hand
    celforge("balance", tmp_path)
    assert multiplies(tmp_path) == {"b": "1", "c": "7"}


def test_a_project_is_balanced_in_its_dataset(tmp_path: Path, celforge: Celforge) -> None:
    build(tmp_path, {"frames/a.png": "a", "frames/b.png": "b", "frames/c.png": "c"})
    with open_job(tmp_path, "identify") as job:
        for file, names in zip(job.images(), (["sabine"], ["sabine"], ["mireth", "sabine"]), strict=True):
            job.set_fact(file, "characters", names)
    celforge("arrange", tmp_path, "--min-images-per-combination", 1)
    answer = celforge("balance", tmp_path, "--json").json
    assert multiplies(tmp_path) == {
        "dataset/1_character/sabine": "1",
        "dataset/2_characters/mireth+sabine": "2",
    }
    assert answer["characters"] == [
        {"character": "sabine", "images": 3, "exposures": 4.0, "percent": 100.0, "each": 1.33},
        {"character": "mireth", "images": 1, "exposures": 2.0, "percent": 50.0, "each": 2.0},
    ]
    assert (
        celforge("arrange", tmp_path, "--min-images-per-combination", 1, "--json")
        .json["done"]
        .startswith("nothing")
    )


def test_a_target_out_of_reach_is_said(tmp_path: Path, celforge: Celforge) -> None:
    make_tree(tmp_path, {"a": 10, "b": 10})
    answer = celforge("balance", tmp_path, "--target-images", 1000, "--max-multiply", 3, "--json").json
    assert answer["images_seen_in_an_epoch"] == 60.0
    assert "out of reach" in answer["target_images"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--min-multiply", 5, "--max-multiply", 2], "is above max_multiply"),
        (["--weight-csv", "nowhere.csv"], "cannot be read"),
    ],
)
def test_wrong_wishes_are_refused(
    tmp_path: Path, celforge: Celforge, arguments: list[Any], words: str
) -> None:
    before = look(make_tree(tmp_path, {"a": 1}))
    answer = celforge("balance", tmp_path, *arguments)
    assert answer.exit_code == 2
    assert words in answer.stderr
    assert look(tmp_path) == before


def test_a_folder_without_pictures_is_named(tmp_path: Path, celforge: Celforge) -> None:
    answer = celforge("balance", tmp_path)
    assert answer.exit_code == 2
    assert "holds no pictures" in answer.stderr


def test_a_weight_for_no_folder_is_said(tmp_path: Path, celforge: Celforge) -> None:
    make_tree(tmp_path, {"a": 1})
    (tmp_path / "w.csv").write_text("sabin,3\n")
    assert '"sabin"' in celforge("balance", tmp_path, "--weight-csv", tmp_path / "w.csv").stderr


def test_unused_settings_warn(tmp_path: Path, celforge: Celforge) -> None:
    make_tree(tmp_path, {"a": 1})
    answer = celforge("balance", tmp_path, "--mode", "compatible", "--temperature", 2)
    assert "temperature has no effect" in answer.stderr


# The plot


def test_the_plot_is_sound_and_names_every_folder(tmp_path: Path, celforge: Celforge) -> None:
    make_tree(tmp_path, {"a & <b>": 4, "\u3055\u304f\u3089": 1})
    celforge("balance", tmp_path)
    text = (tmp_path / "report/balance.svg").read_text(encoding="utf-8")
    words = ["".join(one.itertext()) for one in ET.fromstring(text).iter() if one.tag.endswith("text")]
    assert "a & <b>" in words
    assert "\u3055\u304f\u3089" in words
    assert "prefers-color-scheme: dark" in text


def test_a_plot_of_a_persons_own_stays(tmp_path: Path, celforge: Celforge) -> None:
    make_tree(tmp_path, {"a": 4})
    build(tmp_path, {"report/balance.svg": "mine"})
    assert "stays" in celforge("balance", tmp_path).stderr
    assert (tmp_path / "report/balance.svg").read_text() == "mine"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 4), st.randoms(use_true_random=False)
)
def test_everydream_sees_as_many_pictures_as_were_asked_for(
    celforge: Celforge, counts: list[int], times: int, random: Random
) -> None:
    target = times * sum(counts) + random.randint(0, 30)
    with TemporaryDirectory() as folder:
        root = make_tree(Path(folder), {f"{n % 3}/{n}": count for n, count in enumerate(counts)})
        answer = celforge("balance", root, "--target-images", target, "--json")
        assert "target_images" not in answer.json, "no bound is met here"
        assert everydream_pass(root) == target
        assert everydream_pass_of_floats(root) == target


def test_no_picture_is_lost_to_the_last_digit(tmp_path: Path, celforge: Celforge) -> None:
    make_tree(tmp_path, {"a": 54, "b": 14, "c": 7, "d": 13, "e": 31})
    celforge("balance", tmp_path)
    assert everydream_pass(tmp_path) == everydream_pass_of_floats(tmp_path) == 5 * 54
    answer = celforge("flatten", tmp_path, "--dry-run")
    assert "repeats: 270" in answer.stdout
    assert "error: +0 %" in answer.stdout


@pytest.mark.skipif(os.name == "nt", reason="fork")
def test_a_kill_anywhere_is_finished_and_taken_back(tmp_path: Path, celforge: Celforge) -> None:
    def made(name: str) -> Path:
        root = make_tree(tmp_path / name / "tree", {"a": 2, "b": 1})
        celforge("balance", root)
        return make_tree(root, {"b": 4, "c": 1})

    def work(root: Path) -> Any:
        return lambda: celforge("balance", root)

    modules = ("balance.py", "journal.py", "content_steps.py")
    whole = made("whole")
    before = look(whole, times=False)
    code, total = run_until_line(work(whole), modules, None)
    assert code == 0
    after = look(whole, times=False)
    assert multiplies(whole) == {"a": "2", "b": "1", "c": "4"}
    for number, line in enumerate(points(total - total // 10, 8, seed=3)):
        root = made(str(number))
        assert run_until_line(work(root), modules, line)[0] == KILLED
        assert celforge("balance", root).exit_code == 0
        assert look(root, times=False) == after
        celforge("undo", root)
        assert look(root, times=False) == before
