"""`celforge flatten` as a person types it; the old command line and whole trees have tests of their own."""

import json
import os
from pathlib import Path

import pytest

from pipeline.catalog import Catalog
from tests.conftest import Celforge
from tests.oracles.trainers import everydream_pass, kohya_folders, kohya_toml, total
from tests.trees import build, look

TREE = {
    "celforge.toml": "",
    "dataset/1_character/Sabine/a.png": "a",
    "dataset/1_character/Sabine/a.txt": "1girl, sabine",
    "dataset/1_character/Sabine/b.png": "b",
    "dataset/1_character/Sabine/multiply.txt": "2.5",
    "dataset/1_character/Sabine/shuffle_tags.txt": "",
    "dataset/2_characters/Mireth+Sabine/c.png": "c",
    "dataset/2_characters/Mireth+Sabine/c.txt": "2girls",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return build(tmp_path / "anime", TREE)


def test_by_default_a_toml_is_written_beside_the_untouched_tree(celforge: Celforge, project: Path) -> None:
    before = look(project / "dataset")
    answer = celforge("flatten", project / "dataset", "--json")
    assert answer.exit_code == 0
    assert look(project / "dataset") == before
    seen = kohya_toml(project / "kohya/dataset.toml")
    assert total(seen) == 2.5 * 2 + 1 == everydream_pass(project / "dataset")
    toml = (project / "kohya/dataset.toml").read_text(encoding="utf-8")
    assert "shuffle_caption = true" in toml
    assert "keep_tokens = 1" in toml
    assert answer.json["repeats"] == 6


@pytest.mark.parametrize("to", ["hardlink", "copy", "symlink"])
def test_folders_of_links_or_copies(celforge: Celforge, project: Path, to: str) -> None:
    assert celforge("flatten", project / "dataset", "--to", to, "--output", project / "flat").exit_code == 0
    seen = kohya_folders(project / "flat")
    assert total(seen) == 6
    (picture,) = project.glob("flat/*/c.png")
    source = project / "dataset/2_characters/Mireth+Sabine/c.png"
    assert picture.is_symlink() == (to == "symlink")
    assert picture.samefile(source) == (to != "copy")
    assert picture.with_suffix(".txt").read_text(encoding="utf-8") == "2girls"


def test_other_commands_pass_the_output_over(celforge: Celforge, project: Path) -> None:
    celforge("flatten", project / "dataset", "--to", "hardlink")
    status = celforge("status", project, "--json").json
    assert status["made_folders"] == ["kohya"]
    assert status["files"][0]["new"] == 3


@pytest.mark.parametrize(
    ("fractions", "repeats"), [("split", 6), ("round", 7), ("floor", 5), ("ceil", 7), ("scale", 12)]
)
def test_fractions(celforge: Celforge, project: Path, fractions: str, repeats: int) -> None:
    """2.5 twice and 1 once; scaled by two they are 5 twice and 2 once."""
    answer = celforge("flatten", project / "dataset", "--fractions", fractions, "--json")
    assert answer.json["repeats"] == repeats
    assert total(kohya_toml(project / "kohya/dataset.toml")) == repeats


def test_max_scale_bounds_the_factor(celforge: Celforge, project: Path) -> None:
    answer = celforge("flatten", project / "dataset", "--fractions", "scale", "--max-scale", "1", "--json")
    assert answer.json["repeats"] == 7


def test_the_seed_chooses_who_gets_one_more(celforge: Celforge, project: Path) -> None:
    def more(seed: int) -> str:
        output = project / f"flat{seed}"
        celforge("flatten", project / "dataset", "--to", "hardlink", "--output", output, "--seed", seed)
        (folder,) = output.glob("3_*")
        return next(path.name for path in folder.glob("*.png"))

    assert {more(seed) for seed in range(8)} == {"a.png", "b.png"}
    assert more(0) == more(0)


def test_in_place_and_back(celforge: Celforge, project: Path) -> None:
    before = look(project / "dataset")
    assert celforge("flatten", project / "dataset", "--in-place", "--separator", "=").exit_code == 0
    assert any("=Sabine" in path.name for path in (project / "dataset").iterdir())
    assert celforge("flatten", project / "dataset").exit_code == 2, "it is flat already"
    assert celforge("flatten", project / "dataset", "--revert").exit_code == 0
    assert look(project / "dataset") == before


def test_undo_takes_it_back_as_well(celforge: Celforge, project: Path) -> None:
    before = look(project / "dataset")
    celforge("flatten", project / "dataset", "--in-place")
    assert celforge("undo", project).exit_code == 0
    assert look(project / "dataset") == before


def test_what_was_added_and_edited_meanwhile_comes_back_too(celforge: Celforge, project: Path) -> None:
    celforge("flatten", project / "dataset", "--in-place")
    (caption,) = project.glob("dataset/*/c.txt")
    caption.write_text("edited by hand", encoding="utf-8")
    caption.with_name("new.png").write_bytes(b"new")
    assert celforge("flatten", project / "dataset", "--revert").exit_code == 0
    home = project / "dataset/2_characters/Mireth+Sabine"
    assert (home / "c.txt").read_text(encoding="utf-8") == "edited by hand"
    assert (home / "new.png").read_bytes() == b"new"


def test_a_caption_edited_in_the_output_comes_back_and_the_tree_keeps_its_own(
    celforge: Celforge, project: Path
) -> None:
    celforge("flatten", project / "dataset", "--to", "copy")
    (caption,) = project.glob("kohya/*/c.txt")
    caption.write_text("edited by hand", encoding="utf-8")
    os.utime(caption, ns=(10**18, 10**18))
    assert celforge("flatten", project / "dataset", "--revert").exit_code == 0
    home = project / "dataset/2_characters/Mireth+Sabine/c.txt"
    assert home.read_text(encoding="utf-8") == "edited by hand"
    dropped = [path.read_text(encoding="utf-8") for path in project.glob(".celforge/dropped/**/c.txt")]
    assert "2girls" in dropped


def test_a_kohya_tree_from_elsewhere_is_taken_in_when_asked(celforge: Celforge, tmp_path: Path) -> None:
    root = build(tmp_path / "tree", {"3_sabine/a.png": "a", "3_sabine/a.caption": "x", "1_others/b.png": "b"})
    assert celforge("flatten", root, "--revert").exit_code == 2
    assert celforge("flatten", root, "--import-kohya").exit_code == 0
    assert (root / "sabine/multiply.txt").read_text(encoding="utf-8").strip() == "3"
    assert (root / "sabine/a.caption").read_text(encoding="utf-8") == "x"


def test_a_tree_that_looks_flat_is_flattened_when_a_person_insists(
    celforge: Celforge, tmp_path: Path
) -> None:
    root = build(tmp_path / "tree", {"3_sabine/a.png": "a", "1_others/b.png": "b"})
    assert celforge("flatten", root, "--in-place").exit_code == 2
    assert celforge("flatten", root, "--in-place", "--even-if-flat").exit_code == 0
    assert (root / "1_3_sabine/a.png").is_file()


def test_a_dry_run_touches_nothing(celforge: Celforge, project: Path) -> None:
    before = look(project)
    answer = celforge("flatten", project / "dataset", "--in-place", "--dry-run", "--json")
    assert answer.exit_code == 0
    assert {row["folder"] for row in answer.json["planned"]} == {
        "1_character/Sabine",
        "2_characters/Mireth+Sabine",
    }
    assert look(project) == before


def test_no_picture_is_hashed_for_it(celforge: Celforge, project: Path) -> None:
    celforge("flatten", project / "dataset", "--to", "hardlink")
    with Catalog.open(project / ".celforge/catalog.sqlite3", read_only=True) as catalog:
        assert catalog.rows("SELECT COUNT(*) FROM media").fetchone() == (0,)


def test_a_folder_whose_name_is_no_text_is_refused_before_anything_moves(
    celforge: Celforge, project: Path
) -> None:
    (project / "dataset" / os.fsdecode(b"\xff")).mkdir()
    before = look(project / "dataset")
    answer = celforge("flatten", project / "dataset", "--in-place")
    assert answer.exit_code == 1
    assert "not valid UTF-8" in answer.stderr
    assert look(project / "dataset") == before


def test_two_ways_at_once_are_refused(celforge: Celforge, project: Path) -> None:
    answer = celforge("flatten", project / "dataset", "--revert", "--import-kohya")
    assert answer.exit_code == 2
    assert "two ways" in answer.stderr
    assert json.loads(celforge("status", project, "--json").stdout)["undo"] is None
