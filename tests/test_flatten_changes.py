"""The command `celforge flatten`: its outputs, the way back from each, and what a person did meanwhile."""

import os
import tomllib
from pathlib import Path

import pytest

from pipeline.catalog import Catalog
from pipeline.names import path_key
from tests.conftest import Celforge
from tests.oracles.trainers import everydream_multiplicity, kohya_folders, kohya_toml, total
from tests.pictures import noise
from tests.trees import build, look

TREE = {
    "1_character/Asuka/a.png": "a",
    "1_character/Asuka/a.txt": "1girl, red",
    "1_character/Asuka/multiply.txt": "2",
    "2_characters/Asuka+Rei/b.png": "b",
    "2_characters/Asuka+Rei/b.txt": "2girls",
}
SMALL_FILES = {
    "A/a.png": "a",
    "A/a.txt": "asuka, red",
    "A/cond_dropout.txt": "0.1",
    "A/flip_p.txt": "0.5",
    "A/shuffle_tags.txt": "",
    "A/local.yaml": "multiply: 3\nrating: 0.4\n",
    "A/multiply.txt": "2",
    "B/b.png": "b",
    "B/b.txt": "rei",
    "B/batch_id.txt": "night",
    "B/loss_scale.txt": "0.5",
    "global.yaml": "flip_p: 0.2\n",
}


def subsets(path: Path) -> dict[str, dict[str, object]]:
    (dataset,) = tomllib.loads(path.read_text())["datasets"]
    return {os.path.basename(one["image_dir"]): one for one in dataset["subsets"]}


# Beside the tree


def test_the_toml_names_the_folders_of_the_untouched_tree(tmp_path: Path, celforge: Celforge) -> None:
    root = build(tmp_path / "set", TREE)
    before = look(root)
    answer = celforge("flatten", root)
    assert answer.exit_code == 0
    path = tmp_path / "set-kohya/dataset.toml"
    assert f"made: {path}" in answer.stdout
    assert look(root) == before
    assert tomllib.loads(path.read_text())["general"] == {"caption_extension": ".txt"}
    assert subsets(path) == {
        "Asuka": {"image_dir": str(root / "1_character/Asuka"), "num_repeats": 2},
        "Asuka+Rei": {"image_dir": str(root / "2_characters/Asuka+Rei"), "num_repeats": 1},
    }


def test_in_a_project_the_output_is_its_kohya_folder(tmp_path: Path, celforge: Celforge) -> None:
    build(tmp_path, {"celforge.toml": "", **{f"dataset/{name}": text for name, text in TREE.items()}})
    assert celforge("flatten", tmp_path / "dataset").exit_code == 0
    assert (tmp_path / "kohya/dataset.toml").is_file()


def test_small_files_become_kohyas_keys_and_what_has_no_equal_is_named(
    tmp_path: Path, celforge: Celforge
) -> None:
    root = build(tmp_path / "set", SMALL_FILES)
    answer = celforge("flatten", root)
    found = subsets(tmp_path / "set-kohya/dataset.toml")
    assert found["A"] == {
        "image_dir": str(root / "A"),
        "num_repeats": 3,
        "caption_dropout_rate": 0.1,
        "flip_aug": True,
        "shuffle_caption": True,
        "keep_tokens": 1,
    }
    assert found["B"] == {"image_dir": str(root / "B"), "num_repeats": 1, "flip_aug": True}
    for text in (
        "batch_id has no equal",
        "loss_scale has no equal",
        "rating has no equal",
        "flip_p other than 0.5",
    ):
        assert text in answer.stderr
    assert celforge("flatten", root, "--json").json["warnings"]


def test_small_files_come_back_verbatim(tmp_path: Path, celforge: Celforge) -> None:
    root = build(tmp_path / "set", SMALL_FILES)
    before = look(root)
    celforge("flatten", root, "--in-place")
    assert (root / "3_A/local.yaml").read_text() == SMALL_FILES["A/local.yaml"]
    celforge("flatten", root, "--revert")
    assert look(root) == before


def test_a_fraction_in_the_toml_is_the_folder_and_a_few_links(tmp_path: Path, celforge: Celforge) -> None:
    files = {f"A/{number}.png": str(number) for number in range(10)}
    root = build(tmp_path / "set", {"A/multiply.txt": "2.4", "A/3.txt": "three", **files})
    celforge("flatten", root)
    output = tmp_path / "set-kohya"
    seen = kohya_toml(output / "dataset.toml")
    assert sorted(sum(numbers) for numbers in seen.values()) == [2] * 6 + [3] * 4
    linked = [name for name in os.listdir(output / "1_A") if name.endswith(".png")]
    assert all((output / "1_A" / name).samefile(root / "A" / name) for name in linked)
    assert len(linked) == 4


@pytest.mark.parametrize("to", ["hardlink", "copy", "symlink"])
def test_folders_of_links_hold_captions_too(tmp_path: Path, celforge: Celforge, to: str) -> None:
    root = build(tmp_path / "set", TREE)
    assert celforge("flatten", root, "--to", to).exit_code == 0
    output = tmp_path / "set-kohya"
    assert sorted(os.listdir(output / "2_1_character~Asuka")) == ["a.png", "a.txt", "multiply.txt"]
    assert (output / "2_1_character~Asuka/a.txt").read_text() == "1girl, red"
    assert (output / "2_1_character~Asuka/a.png").samefile(root / "1_character/Asuka/a.png") == (to != "copy")
    assert total(kohya_folders(output)) == total(kohya_toml(output / "dataset.toml")) == 3


def test_an_output_is_brought_up_to_date_by_what_changed_only(tmp_path: Path, celforge: Celforge) -> None:
    root = build(tmp_path / "set", TREE)
    output = tmp_path / "set-kohya"
    celforge("flatten", root, "--to", "hardlink")
    assert "is up to date" in celforge("flatten", root, "--to", "hardlink").stdout
    (root / "1_character/Asuka/multiply.txt").write_text("5")
    (root / "2_characters/Asuka+Rei/c.png").write_text("c")
    (output / "1_2_characters~Asuka+Rei/own.txt").write_text("a person's")
    answer = celforge("flatten", root, "--to", "hardlink")
    assert {name for name in os.listdir(output) if name[0] != "."} == {
        "1_2_characters~Asuka+Rei", "5_1_character~Asuka", "dataset.toml",
    }  # fmt: skip
    assert "own.txt" in answer.stderr
    assert sorted(os.listdir(output / "1_2_characters~Asuka+Rei")) == ["b.png", "b.txt", "c.png", "own.txt"]
    assert total(kohya_toml(output / "dataset.toml")) == 5 + 2


def test_a_toml_that_was_edited_is_left(tmp_path: Path, celforge: Celforge) -> None:
    root = build(tmp_path / "set", TREE)
    celforge("flatten", root)
    path = tmp_path / "set-kohya/dataset.toml"
    path.write_text(path.read_text() + "# mine\n")
    (root / "1_character/Asuka/multiply.txt").write_text("5")
    assert "was edited and is left as it is" in celforge("flatten", root).stderr
    assert path.read_text().endswith("# mine\n")


def test_revert_brings_what_was_done_in_the_output_to_the_tree(tmp_path: Path, celforge: Celforge) -> None:
    root = build(tmp_path / "set", {**TREE, "1_character/Asuka/d.png": "d", "1_character/Asuka/e.txt": "e"})
    celforge("flatten", root, "--to", "copy")
    flat = tmp_path / "set-kohya/2_1_character~Asuka"
    (flat / "d.txt").write_text("new caption")
    (flat / "a.txt").write_text("edited caption")
    (flat / "e.txt").write_text("edited there")
    (root / "1_character/Asuka/e.txt").write_text("and here as well")
    (flat / "a_0512x0512_sd.npz").write_text("cache")
    (flat / "d.png").unlink()
    answer = celforge("flatten", root, "--revert", "--json")
    assert (answer.json["added"], answer.json["edited"], answer.json["deleted"]) == (1, 1, 1)
    tree = root / "1_character/Asuka"
    assert (tree / "d.txt").read_text() == "new caption"
    assert (tree / "a.txt").read_text() == "edited caption"
    assert (tree / "e.txt").read_text() == "and here as well"
    assert (tree / "d.png").read_text() == "d"
    assert not (tree / "a_0512x0512_sd.npz").exists()
    assert not flat.exists()
    dropped = {path.name: path.read_text() for path in (root / ".celforge/dropped").rglob("*.txt")}
    assert dropped["e.txt"] == "edited there", "nothing is destroyed"
    assert dropped["a.txt"] == "1girl, red"
    assert any("changed in the output and in the tree" in text for text in answer.json["warnings"])


@pytest.mark.parametrize("where", ["set/inside", "."])
def test_an_output_in_the_tree_or_around_it_is_refused(
    tmp_path: Path, celforge: Celforge, where: str
) -> None:
    root = build(tmp_path / "set", TREE)
    assert celforge("flatten", root, "--output", tmp_path / where).exit_code == 2


def test_an_output_that_holds_something_else_is_refused(tmp_path: Path, celforge: Celforge) -> None:
    root, other = build(tmp_path / "set", TREE), build(tmp_path / "other", {"mine.txt": "mine"})
    before = look(other)
    assert celforge("flatten", root, "--output", other).exit_code == 2
    assert look(other) == before


# In place


def test_what_a_person_did_in_the_flat_tree_stays(tmp_path: Path, celforge: Celforge) -> None:
    root = build(tmp_path / "set", {**TREE, "1_character/Asuka/c.png": "c"})
    celforge("flatten", root, "--in-place")
    flat = root / "2_1_character~Asuka"
    (flat / "c.txt").write_text("new")
    (flat / "a.txt").write_text("edited")
    (root / "1_2_characters~Asuka+Rei/b.png").unlink()
    build(root, {"4_new/n.png": "n"})
    answer = celforge("flatten", root, "--revert")
    assert answer.exit_code == 0
    assert {key for key, entry in look(root).items() if entry[0] == "file"} == {
        "1_character/Asuka/a.png", "1_character/Asuka/a.txt", "1_character/Asuka/c.png", "1_character/Asuka/c.txt",
        "1_character/Asuka/multiply.txt", "2_characters/Asuka+Rei/b.txt", "4_new/n.png",
    }  # fmt: skip
    assert (root / "1_character/Asuka/a.txt").read_text() == "edited"
    for text in ("c.txt", "a.txt", "b.png", "4_new"):
        assert text in answer.stderr


def test_a_number_that_was_changed_by_hand_comes_back_as_multiply(tmp_path: Path, celforge: Celforge) -> None:
    root = build(tmp_path / "set", TREE)
    celforge("flatten", root, "--in-place")
    (root / "2_1_character~Asuka").rename(root / "7_1_character~Asuka")
    (root / "1_2_characters~Asuka+Rei").rename(root / "3_2_characters~Asuka+Rei")
    answer = celforge("flatten", root, "--revert")
    assert (root / "1_character/Asuka/multiply.txt").read_text() == "7\n"
    assert (root / "2_characters/Asuka+Rei/multiply.txt").read_text() == "3\n"
    assert "is 7 now" in answer.stderr
    celforge("undo", root)
    assert (root / "7_1_character~Asuka/multiply.txt").read_text() == "2"


def test_files_that_stand_in_the_way_back_stop_it_before_anything_moves(
    tmp_path: Path, celforge: Celforge
) -> None:
    root = build(tmp_path / "set", TREE)
    celforge("flatten", root, "--in-place")
    build(root, {"1_character/Asuka/a.png": "another one"})
    before = look(root)
    answer = celforge("flatten", root, "--revert")
    assert answer.exit_code == 1
    assert "exists already" in answer.stderr
    assert look(root) == before


def test_undo_takes_back_flatten_and_undo_takes_back_revert(tmp_path: Path, celforge: Celforge) -> None:
    root = build(tmp_path / "set", TREE)
    before = look(root)
    celforge("flatten", root, "--in-place")
    flat = look(root)
    celforge("flatten", root, "--revert")
    assert celforge("undo", root).exit_code == 0
    assert look(root) == flat
    assert celforge("undo", root).exit_code == 0
    assert look(root) == before


def test_revert_twice_says_that_there_is_nothing(tmp_path: Path, celforge: Celforge) -> None:
    root = build(tmp_path / "set", TREE)
    celforge("flatten", root, "--in-place")
    celforge("flatten", root, "--revert")
    assert celforge("flatten", root, "--revert").exit_code == 2


def test_links_lead_where_they_led(tmp_path: Path, celforge: Celforge) -> None:
    files = {
        "A/B/a.png": "a", "A/B/near.png": "-> a.png", "A/B/up.png": "-> ../../C/c.png", "C/c.png": "c",
        "C/whole.png": f"-> {tmp_path / 'set/A/B/a.png'}", "C/out.png": "-> /dev/null",
    }  # fmt: skip
    root = build(tmp_path / "set", files)
    before = look(root)
    celforge("flatten", root, "--in-place")
    assert (root / "1_A~B/up.png").read_text() == "c"
    assert (root / "1_C/whole.png").read_text() == "a"
    assert os.readlink(root / "1_A~B/near.png") == "a.png"
    assert os.readlink(root / "1_C/out.png") == "/dev/null"
    celforge("flatten", root, "--revert")
    assert look(root) == before


def test_names_that_are_one_on_other_disks_stay_two(tmp_path: Path, celforge: Celforge) -> None:
    files = {
        f"{name}/{number}.png": name for number, name in enumerate(["aoba", "Aoba", "AOBA", "é", "e\u0301"])
    }
    root = build(tmp_path / "set", files)
    before = look(root)
    assert celforge("flatten", root, "--in-place").exit_code == 0
    flat = [name for name in os.listdir(root) if name[0] == "1"]
    assert len({path_key(name) for name in flat}) == len(flat) == 5
    celforge("flatten", root, "--revert")
    assert look(root) == before


@pytest.mark.parametrize("read_only", ["set/1_character", "set/1_character/Asuka", "set"])
def test_a_folder_that_may_not_be_changed_is_named_before_anything_moves(
    tmp_path: Path, celforge: Celforge, monkeypatch: pytest.MonkeyPatch, read_only: str
) -> None:
    """A folder that changes its parent must itself be writable; told here by what os.access answers."""
    root = build(tmp_path / "set", TREE)
    before = look(root)
    locked = str(tmp_path / read_only)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != locked or not mode & os.W_OK)
    answer = celforge("flatten", root, "--in-place")
    assert answer.exit_code == 1
    assert f"{locked} may not be written" in answer.stderr
    assert look(root) == before


def test_sidecars_travel_with_their_picture_where_a_folder_parts(tmp_path: Path, celforge: Celforge) -> None:
    kinds = [
        ".txt",
        ".caption",
        ".npz",
        ".png.tags",
        "_0512x0512_sd.npz",
        "_te_outputs.npz",
        "-masklabel.png",
    ]
    files = {f"A/p{n}.jpg": str(n) for n in range(8)}
    files |= {f"A/p{n}{kind}": "s" for n in range(8) for kind in kinds if "mask" not in kind}
    files |= {f"A/.p{n}_meta.json": "m" for n in range(8)}
    root = build(tmp_path / "set", {"A/multiply.txt": "1.5", "A/notes.md": "n", **files})
    before = look(root)
    celforge("flatten", root, "--in-place")
    for folder in ("1_A", "2_A"):
        stems = {name[:2] for name in os.listdir(root / folder) if name.endswith(".jpg")}
        owned = {name.lstrip(".")[:2] for name in os.listdir(root / folder) if name[0] in "p."}
        assert stems == owned
        assert len(stems) == 4
    celforge("flatten", root, "--revert")
    assert look(root) == before


# Fractions


@pytest.mark.parametrize(
    ("fractions", "numbers"),
    [("round", [1, 2, 3]), ("floor", [1, 2, 2]), ("ceil", [1, 3, 3]), ("scale", [2, 12, 14])],
)
def test_ways_to_make_whole_numbers(
    tmp_path: Path, celforge: Celforge, fractions: str, numbers: list[int]
) -> None:
    files = {
        "A/a.png": "a",
        "A/multiply.txt": "0.4",
        "B/b.png": "b",
        "B/multiply.txt": "2.4",
        "C/c.png": "c",
        "C/multiply.txt": "2.8",
    }
    root = build(tmp_path / "set", files)
    answer = celforge("flatten", root, "--fractions", fractions, "--in-place")
    assert answer.exit_code == 0
    assert sorted(sum(numbers) for numbers in kohya_folders(root).values()) == numbers
    assert "error: " in answer.stdout
    assert ("scale: 5" in answer.stdout) == (fractions == "scale")


def test_split_keeps_the_sum_of_many_folders_exactly(tmp_path: Path, celforge: Celforge) -> None:
    multiplies = ["0.05", "0.37", "1.01", "2.4", "3.333", "7", "0.999"]
    files = {}
    for number, multiply in enumerate(multiplies):
        files[f"f{number}/multiply.txt"] = multiply
        files |= {f"f{number}/{n}.png": "p" for n in range(40 + number)}
    root = build(tmp_path / "set", files)
    wanted = everydream_multiplicity(root)
    assert wanted.denominator > 1
    celforge("flatten", root, "--in-place")
    assert total(kohya_folders(root)) == wanted // 1


@pytest.mark.parametrize(
    ("singles", "pairs", "multiply", "views"),
    [
        (1, 1, "1.67", 5),  # three pictures, five views: the pair gets the two more, not the single one
        (2, 3, "1.5", 12),
        (1, 4, "1.9", 17),
        (3, 0, "2.4", 7),
        (0, 2, "1.5", 6),
        (0, 2, "1.25", 6),  # 5 views: two pairs, each with one number, have even sums only
    ],
)
def test_namesakes_that_share_a_caption_do_not_spoil_the_sum(
    tmp_path: Path, celforge: Celforge, singles: int, pairs: int, multiply: str, views: int
) -> None:
    files = {f"A/s{n}.png": "s" for n in range(singles)} | {"A/multiply.txt": multiply}
    for n in range(pairs):
        files |= {f"A/p{n}.png": "p", f"A/p{n}.jpg": "q", f"A/p{n}.txt": "one caption"}
    for seed in range(6):
        root = build(tmp_path / str(seed), files)
        celforge("flatten", root, "--in-place", "--seed", seed)
        seen = kohya_folders(root)
        assert total(seen) == views
        assert all(seen[f"p{n}.png"] == seen[f"p{n}.jpg"] for n in range(pairs))


def test_the_log_is_not_synced_for_each_folder_that_parts(
    tmp_path: Path, celforge: Celforge, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"A/{n}/multiply.txt": "1.5" for n in range(40)}
    files |= {f"A/{n}/{m}.png": "p" for n in range(40) for m in range(2)}
    root = build(tmp_path / "set", files)
    syncs: list[int] = []
    monkeypatch.setattr(os, "fsync", syncs.append)
    celforge("flatten", root, "--in-place")
    assert len(os.listdir(root)) == 80 + 3  # with .celforge, the TOML and the manifest
    celforge("flatten", root, "--revert")
    assert len(syncs) < 40, "80 steps that part folders and 80 that bring them together"


def test_another_seed_draws_other_pictures_and_the_same_seed_the_same(
    tmp_path: Path, celforge: Celforge
) -> None:
    files = {f"A/{number}.png": "p" for number in range(40)}

    def drawn(name: str, seed: int) -> set[str]:
        root = build(tmp_path / name, {"A/multiply.txt": "1.5", **files})
        celforge("flatten", root, "--seed", seed)
        return set(os.listdir(tmp_path / f"{name}-kohya/1_A"))

    assert drawn("one", 0) == drawn("two", 0) != drawn("three", 1)


def test_a_picture_with_a_multiply_of_its_own_gets_its_own_folder(tmp_path: Path, celforge: Celforge) -> None:
    files = {"A/a.png": "a", "A/b.png": "b", "A/b.yaml": "multiply: 4", "A/multiply.txt": "2"}
    root = build(tmp_path / "set", files)
    celforge("flatten", root, "--in-place")
    assert kohya_folders(root) == {"a.png": [2], "b.png": [4]}


# The command


def test_wrong_flags_are_named(tmp_path: Path, celforge: Celforge) -> None:
    root = build(tmp_path / "set", TREE)
    assert celforge("flatten", root, "--revert", "--import-kohya").exit_code == 2
    assert celforge("flatten", root, "--fractions", "half").exit_code == 2
    assert "has no effect" in celforge("flatten", root, "--in-place", "--to", "copy", "--dry-run").stderr
    assert celforge("flatten", root, "--separator", "a").exit_code == 2


def test_nothing_is_hashed_for_it(tmp_path: Path, celforge: Celforge) -> None:
    root = build(tmp_path / "set", TREE)
    celforge("flatten", root, "--in-place")
    with Catalog.open(root / ".celforge/catalog.sqlite3") as catalog:
        assert catalog.rows("SELECT COUNT(*) FROM media").fetchone() == (0,)


def test_what_is_known_of_pictures_follows_them(tmp_path: Path, celforge: Celforge) -> None:
    root = tmp_path / "set"
    folder = root / "1_character/Asuka"
    folder.mkdir(parents=True)
    noise().save(folder / "a.png")
    celforge("ingest", root)
    celforge("flatten", root, "--in-place")
    with Catalog.open(root / ".celforge/catalog.sqlite3") as catalog:
        rows = catalog.rows("SELECT folder, name FROM paths WHERE NOT is_gone").fetchall()
    assert rows == [("1_1_character~Asuka", "a.png")]


def test_namesakes_that_share_a_caption_are_never_left_out_together(
    tmp_path: Path, celforge: Celforge
) -> None:
    files = {
        "A/a.png": "a",
        "A/a.jpg": "a",
        "A/a.txt": "one caption",
        "A/multiply.txt": "0.4",
        "B/b.png": "b",
    }
    root = build(tmp_path / "set", files)
    celforge("flatten", root, "--in-place")
    assert kohya_folders(root) == {"a.png": [1], "a.jpg": [1], "b.png": [1]}
    assert (root / "1_A/a.txt").is_file()
