"""arrange: where pictures go, and that nothing a person did in the tree is lost."""

import hashlib
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.arranging import is_alike
from pipeline.errors import InputError
from pipeline.job import open_job
from pipeline.made_folders import MARK
from tests.conftest import Celforge
from tests.crashing import KILLED, points, run_until_line
from tests.trees import build, linked, look

FEW = ("--min-images-per-combination", 1)
Facts = Mapping[str, Mapping[str, Any]]  # path -> facts


def project(root: Path, names: Mapping[str, Sequence[str]], captions: bool = True) -> Path:
    """Pictures (any bytes will do) by path, with their characters and captions."""
    files = {}
    for path in names:
        files[path] = f"picture {path}"
        if captions:
            files[f"{path.rpartition('.')[0]}.txt"] = f"caption of {path}"
    build(root, files)
    know(root, {path: {"characters": list(characters)} for path, characters in names.items()})
    return root


def know(root: Path, facts: Facts) -> None:
    with open_job(root, "identify") as job:
        for file in job.images():
            for name, value in facts.get(file.relative, {}).items():
                job.set_fact(file, name, value)


def tree(root: Path, top: str = "dataset") -> dict[str, str]:
    """Every file of the tree with its text, without the mark of what celforge made; links are followed."""
    return {
        path.relative_to(root / top).as_posix(): path.read_text()
        for path in sorted((root / top).rglob("*"))
        if path.is_file() and path.name != MARK
    }


TWO_EPISODES = {
    "frames/ep01/0001.png": ["sabine"],
    "frames/ep01/0002.png": ["sabine", "mireth"],
    "frames/ep02/0001.png": ["mireth", "sabine"],
    "frames/ep02/0003.png": [],
}


@pytest.mark.parametrize("how", ["hardlink", "copy", "symlink", "move"])
def test_commands_given_the_project_pass_the_tree_over_unless_it_holds_the_only_copies(
    celforge: Celforge, tmp_path: Path, how: str
) -> None:
    project(tmp_path, TWO_EPISODES)
    celforge("arrange", tmp_path, "--how", how)
    made = celforge("status", tmp_path, "--json").json["made_folders"]
    assert made == ([] if how == "move" else ["dataset"])


def test_pictures_go_to_their_characters_with_captions(tmp_path: Path, celforge: Celforge) -> None:
    project(tmp_path, TWO_EPISODES)
    answer = celforge("arrange", tmp_path, *FEW)
    assert answer.exit_code == 0, answer.stderr
    assert tree(tmp_path) == {
        "0_characters/character_others/0003.png": "picture frames/ep02/0003.png",
        "0_characters/character_others/0003.txt": "caption of frames/ep02/0003.png",
        "1_character/sabine/ep01_0001.png": "picture frames/ep01/0001.png",
        "1_character/sabine/ep01_0001.txt": "caption of frames/ep01/0001.png",
        "2_characters/mireth+sabine/0002.png": "picture frames/ep01/0002.png",
        "2_characters/mireth+sabine/0002.txt": "caption of frames/ep01/0002.png",
        "2_characters/mireth+sabine/ep02_0001.png": "picture frames/ep02/0001.png",
        "2_characters/mireth+sabine/ep02_0001.txt": "caption of frames/ep02/0001.png",
    }
    assert frozenset({"frames/ep01/0001.png", "dataset/1_character/sabine/ep01_0001.png"}) in linked(tmp_path)


def test_a_second_run_does_nothing_and_undo_takes_all_back(tmp_path: Path, celforge: Celforge) -> None:
    before = look(project(tmp_path, TWO_EPISODES))
    celforge("arrange", tmp_path, *FEW)
    after, tree_after = look(tmp_path), tree(tmp_path)
    again = celforge("arrange", tmp_path, *FEW, "--json").json
    assert again["done"] == "nothing: the tree is up to date"
    assert look(tmp_path) == after
    assert len(list((tmp_path / ".celforge/journals").glob("*-arrange*.jsonl*"))) <= 2
    assert "arrange" in celforge("status", tmp_path).stdout
    assert celforge("undo", tmp_path).exit_code == 0
    assert look(tmp_path) == before
    celforge("arrange", tmp_path, *FEW)
    assert tree(tmp_path) == tree_after


def test_dry_run_touches_nothing(tmp_path: Path, celforge: Celforge) -> None:
    before = look(project(tmp_path, TWO_EPISODES))
    answer = celforge("arrange", tmp_path, *FEW, "--dry-run", "--json")
    planned = [row["destination"] for row in answer.json["planned"] if row["action"] == "hardlink"]
    assert str(tmp_path / "dataset/1_character/sabine/ep01_0001.png") in planned
    assert look(tmp_path) == before


@pytest.mark.parametrize("how", ["hardlink", "copy", "symlink", "move"])
def test_every_way_into_the_tree_and_back(tmp_path: Path, celforge: Celforge, how: str) -> None:
    before = look(project(tmp_path, TWO_EPISODES))
    assert celforge("arrange", tmp_path, *FEW, "--how", how).exit_code == 0
    picture = tmp_path / "dataset/1_character/sabine/ep01_0001.png"
    assert picture.read_text() == "picture frames/ep01/0001.png"
    assert picture.is_symlink() == (how == "symlink")
    assert (tmp_path / "frames/ep01/0001.png").exists() == (how != "move")
    assert (picture.stat().st_nlink == 2) == (how == "hardlink")
    after = look(tmp_path)
    assert celforge("arrange", tmp_path, *FEW, "--how", how, "--json").json["done"].startswith("nothing")
    assert look(tmp_path) == after
    assert celforge("undo", tmp_path).exit_code == 0
    assert look(tmp_path) == before


def test_a_disk_without_reflinks_is_found_out_before_anything_is_touched(
    tmp_path: Path, celforge: Celforge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object, **__: object) -> None:
        raise InputError("no reflinks here")

    monkeypatch.setattr("pipeline.files._reflink", cannot)
    before = look(project(tmp_path, TWO_EPISODES))
    answer = celforge("arrange", tmp_path, *FEW, "--how", "reflink")
    assert answer.exit_code == 2
    assert "--how copy" in answer.stderr
    assert look(tmp_path) == before
    assert celforge("arrange", tmp_path, *FEW, "--how", "copy").exit_code == 0


def test_moved_pictures_follow_corrected_names(tmp_path: Path, celforge: Celforge) -> None:
    """The source is gone by then: the tree holds the only file."""
    project(tmp_path, {"in/a.png": ["sabin"], "in/b.png": ["sabin"]})
    celforge("arrange", tmp_path, *FEW, "--how", "move")
    know(tmp_path, {f"dataset/1_character/sabin/{name}.png": {"characters": ["sabine"]} for name in "ab"})
    answer = celforge("arrange", tmp_path, *FEW, "--how", "move", "--json").json
    assert answer["done"] == {"moved": 2}
    assert set(tree(tmp_path)) == {
        f"1_character/sabine/{name}" for name in ("a.png", "a.txt", "b.png", "b.txt")
    }
    assert not (tmp_path / "dataset/1_character/sabin").exists()


def test_names_corrected_and_episodes_added(tmp_path: Path, celforge: Celforge) -> None:
    project(tmp_path, {"ep1/0001.png": ["sabin"], "ep1/0002.png": ["mireth"]})
    celforge("arrange", tmp_path, *FEW)
    project(tmp_path, {"ep2/0001.png": ["sabine"]})
    know(tmp_path, {"ep1/0001.png": {"characters": ["sabine"]}})
    answer = celforge("arrange", tmp_path, *FEW, "--json").json
    assert answer["done"] == {"moved": 1, "placed": 1, "captions placed": 1}
    assert sorted(tree(tmp_path)) == [
        "1_character/mireth/0002.png",
        "1_character/mireth/0002.txt",
        "1_character/sabine/0001.png",
        "1_character/sabine/0001.txt",
        "1_character/sabine/ep2_0001.png",
        "1_character/sabine/ep2_0001.txt",
    ]
    assert not (tmp_path / "dataset/1_character/sabin").exists()


def test_a_combination_gets_its_folder_once_it_has_enough(tmp_path: Path, celforge: Celforge) -> None:
    project(tmp_path, {f"ep1/{n}.png": ["a", "b"] for n in range(2)})
    answer = celforge("arrange", tmp_path, "--min-images-per-combination", 3, "--json").json
    assert answer["too_few_for_a_folder"] == ["a+b (2)"]
    assert {row["folder"] for row in answer["folders"]} == {"2_characters/character_others"}
    project(tmp_path, {"ep2/9.png": ["a", "b"]})
    celforge("arrange", tmp_path / "ep2", "--min-images-per-combination", 3)  # ep1 still counts, and moves
    assert sorted(tree(tmp_path)) == [
        f"2_characters/a+b/{name}" for name in ("0.png", "0.txt", "1.png", "1.txt", "9.png", "9.txt")
    ]


def test_pictures_dropped_by_dedupe_stay_out_and_leave(tmp_path: Path, celforge: Celforge) -> None:
    project(tmp_path, {"a.png": ["x"], "b.png": ["x"], "c.png": ["x"]})
    settle(tmp_path, "a.png", "dedupe", "dropped", "near duplicate")
    answer = celforge("arrange", tmp_path, *FEW, "--json").json
    assert answer["left_out"] == {"dropped by dedupe: near duplicate": 1}
    assert "1_character/x/a.png" not in tree(tmp_path)
    settle(tmp_path, "b.png", "dedupe", "dropped", "near duplicate")
    (tmp_path / "dataset/1_character/x/b.txt").unlink()
    (tmp_path / "dataset/1_character/x/b.txt").write_text("weeks of work")
    assert celforge("arrange", tmp_path, *FEW, "--json").json["done"] == {"dropped": 1}
    assert sorted(tree(tmp_path)) == ["1_character/x/c.png", "1_character/x/c.txt"]
    kept = list((tmp_path / ".celforge/dropped").rglob("b.txt"))
    assert [path.read_text() for path in kept] == ["weeks of work"]
    settle(tmp_path, "b.png", "dedupe", "kept", "")
    assert celforge("arrange", tmp_path, *FEW, "--json").json["done"]["placed"] == 1


def settle(root: Path, relative: str, stage: str, outcome: Any, reason: str) -> None:
    with open_job(root, stage) as job:
        (file,) = [file for file in job.images() if file.relative == relative]
        job.settle(file, outcome, reason)


def test_unreadable_pictures_stay_out(tmp_path: Path, celforge: Celforge) -> None:
    project(tmp_path, {"a.png": ["x"], "b.png": ["x"]})
    settle(tmp_path, "a.png", "ingest", "failed", "truncated")
    answer = celforge("arrange", tmp_path, *FEW, "--json").json
    assert answer["left_out"] == {"failed by ingest: truncated": 1}
    assert sorted(tree(tmp_path)) == ["1_character/x/b.png", "1_character/x/b.txt"]


# What a person does in the tree


@pytest.fixture
def arranged(tmp_path: Path, celforge: Celforge) -> Path:
    """Two pictures of one character, put into the tree as copies, so that edits do not reach the sources."""
    project(tmp_path, {"in/a.png": ["sabine"], "in/b.png": ["sabine"], "in/c.png": ["mireth"]})
    assert celforge("arrange", tmp_path, *FEW, "--how", "copy").exit_code == 0
    return tmp_path


def again(celforge: Celforge, root: Path, *more: object) -> Any:
    answer = celforge("arrange", root, *FEW, "--how", "copy", "--json", *more)
    assert answer.exit_code == 0, answer.stderr
    return answer.json


def test_a_picture_moved_by_hand_stays_there(arranged: Path, celforge: Celforge) -> None:
    here, there = arranged / "dataset/1_character/sabine", arranged / "dataset/best of"
    there.mkdir()
    (here / "a.png").rename(there / "a.png")
    (here / "a.txt").rename(there / "a.txt")
    answer = again(celforge, arranged)
    assert answer["by_hand"] == {"moved by hand: they stay there": 1}
    assert "best of/a.txt" in tree(arranged)
    assert "1_character/sabine/a.png" not in tree(arranged)
    know(arranged, {"in/a.png": {"characters": ["mireth"]}})
    assert again(celforge, arranged)["by_hand"] == {"moved by hand: they stay there": 1}
    (there / "a.png").rename(arranged / "dataset/1_character/mireth/a.png")  # where it belongs: ours again
    assert "by_hand" not in again(celforge, arranged)
    assert (arranged / "dataset/1_character/mireth/a.txt").read_text() == "caption of in/a.png"
    know(arranged, {"in/a.png": {"characters": ["sabine"]}})
    assert again(celforge, arranged)["done"] == {"moved": 1}
    assert (here / "a.png").exists()


def test_a_caption_left_behind_follows_its_picture(arranged: Path, celforge: Celforge) -> None:
    here = arranged / "dataset/1_character/sabine"
    (here / "a.txt").write_text("edited")
    (here / "a.png").rename(here / "favourite.png")
    again(celforge, arranged)
    assert (here / "favourite.txt").read_text() == "edited"
    assert not (here / "a.txt").exists()


def test_a_picture_taken_out_by_hand_stays_out(arranged: Path, celforge: Celforge) -> None:
    picture = arranged / "dataset/1_character/sabine/a.png"
    picture.unlink()
    for _ in range(2):
        assert again(celforge, arranged)["by_hand"] == {"taken out by hand: they stay out": 1}
        assert not picture.exists()
    assert again(celforge, arranged, "--put-back")["done"] == {"placed": 1}
    assert picture.exists()
    assert "by_hand" not in again(celforge, arranged)


def test_a_tree_that_was_removed_whole_is_made_again(arranged: Path, celforge: Celforge) -> None:
    before = tree(arranged)
    for path in sorted((arranged / "dataset").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    again(celforge, arranged)
    assert tree(arranged) == before


def test_a_caption_edited_in_the_tree_is_never_replaced(arranged: Path, celforge: Celforge) -> None:
    edited, other = (arranged / f"dataset/1_character/sabine/{name}.txt" for name in "ab")
    edited.write_text("edited by hand")
    for name in "ab":
        (arranged / f"in/{name}.txt").write_text(f"new caption of {name}")
    answer = again(celforge, arranged)
    assert answer["by_hand"] == {"captions edited in the tree: they stay": 1}
    assert answer["done"] == {"captions updated": 1}
    assert edited.read_text() == "edited by hand"
    assert other.read_text() == "new caption of b"
    know(arranged, {"in/a.png": {"characters": ["mireth"]}})
    again(celforge, arranged)
    assert (arranged / "dataset/1_character/mireth/a.txt").read_text() == "edited by hand"
    celforge("undo", arranged)
    celforge("undo", arranged)
    assert edited.read_text() == "edited by hand"
    assert other.read_text() == "caption of in/b.png"


def test_an_edit_through_a_hard_link_survives_a_new_caption(tmp_path: Path, celforge: Celforge) -> None:
    """An editor that writes in place changes the source too; then the source gets another file."""
    project(tmp_path, {"in/a.png": ["sabine"]})
    celforge("arrange", tmp_path, *FEW)
    caption = tmp_path / "dataset/1_character/sabine/a.txt"
    caption.write_text("edited in place")
    assert (tmp_path / "in/a.txt").read_text() == "edited in place"
    celforge("arrange", tmp_path, *FEW)
    (tmp_path / "in/a.txt").unlink()
    (tmp_path / "in/a.txt").write_text("made anew")
    answer = celforge("arrange", tmp_path, *FEW, "--json").json
    assert answer["by_hand"] == {"captions edited in the tree: they stay": 1}
    assert caption.read_text() == "edited in place"


def test_captions_that_come_later_are_placed(tmp_path: Path, celforge: Celforge) -> None:
    project(tmp_path, {"in/a.png": ["sabine"]}, captions=False)
    celforge("arrange", tmp_path, *FEW)
    build(
        tmp_path, {"in/a.txt": "late", "in/.a_meta.json": "{}", "in/a.png.tags": "1girl", "in/notes.md": "no"}
    )
    assert celforge("arrange", tmp_path, *FEW, "--json").json["done"] == {"captions placed": 3}
    assert sorted(tree(tmp_path)) == [
        "1_character/sabine/.a_meta.json",
        "1_character/sabine/a.png",
        "1_character/sabine/a.png.tags",
        "1_character/sabine/a.txt",
    ]


def test_files_of_a_person_are_never_touched(arranged: Path, celforge: Celforge) -> None:
    own = {
        "dataset/1_character/sabine/multiply.txt": "3",
        "dataset/1_character/sabine/mine.png": "drawn by hand",
        "dataset/1_character/sabine/mine.txt": "mine",
        "dataset/regularisation/x.png": "other",
    }
    build(arranged, own)
    know(arranged, {f"in/{name}.png": {"characters": ["sabine v2"]} for name in "ab"})
    assert again(celforge, arranged)["done"] == {"moved": 2}
    for path, text in own.items():
        assert (arranged / path).read_text() == text
    assert (arranged / "dataset/1_character/sabine v2/a.txt").read_text() == "caption of in/a.png"


def test_a_picture_that_a_person_put_into_the_tree_is_not_put_there_twice(
    tmp_path: Path, celforge: Celforge
) -> None:
    project(tmp_path, {"in/a.png": ["sabine"]})
    build(tmp_path, {"dataset/own folder/mine.png": "picture in/a.png"})
    answer = celforge("arrange", tmp_path, *FEW, "--json").json
    assert answer["by_hand"] == {"put there by hand": 1}
    assert list(tree(tmp_path)) == ["own folder/mine.png"]


def test_a_picture_put_over_ours_stays(arranged: Path, celforge: Celforge) -> None:
    (arranged / "dataset/1_character/sabine/a.png").write_text("cropped by hand")
    assert again(celforge, arranged)["by_hand"] == {"replaced by another picture: that stays": 1}
    assert (arranged / "dataset/1_character/sabine/a.png").read_text() == "cropped by hand"


def test_pictures_removed_from_their_folder_leave_the_tree(arranged: Path, celforge: Celforge) -> None:
    (arranged / "in/a.png").unlink()
    assert again(celforge, arranged)["done"] == {"dropped": 1}
    assert "1_character/sabine/a.png" not in tree(arranged)
    assert [p.read_text() for p in (arranged / ".celforge/dropped").rglob("a.png")] == ["picture in/a.png"]


def test_a_folder_that_is_gone_takes_nothing_with_it(arranged: Path, celforge: Celforge) -> None:
    """A disk that is not there, or frames deleted for their space, must not empty the tree."""
    before = tree(arranged)
    (arranged / "in").rename(arranged.parent / f"{arranged.name} elsewhere")
    build(arranged, {"new/z.png": "z"})
    answer = again(celforge, arranged)
    assert answer["folders_that_are_gone"] == ["in: 3 pictures of it stay in the tree"]
    assert before.items() <= tree(arranged).items()


def test_a_lost_catalogue_does_not_double_the_tree(arranged: Path, celforge: Celforge) -> None:
    before = tree(arranged)
    for path in sorted((arranged / ".celforge").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    know(arranged, {"in/a.png": {"characters": ["sabine"]}, "in/b.png": {"characters": ["sabine"]}})
    know(arranged, {"in/c.png": {"characters": ["mireth"]}})
    assert again(celforge, arranged)["done"] == {"recognised": 3}
    assert tree(arranged) == before


# Names


def test_names_that_windows_refuses_become_wide_signs(tmp_path: Path, celforge: Celforge) -> None:
    project(tmp_path, {"a.png": ["Re:Zero?"], "b.png": ["CON"], "c.png": [".hack"], "d.png": ["さくら+x"]})
    celforge("arrange", tmp_path, *FEW, "--format", "character")
    folders = {path.split("/")[0] for path in tree(tmp_path)}
    wide = {unicodedata.normalize("NFKC", folder) for folder in folders}
    assert {"Re:Zero?", ".hack", "さくら+x"} <= wide  # they read back
    assert not folders & {"Re:Zero?", ".hack", "さくら+x", "CON"}


def test_names_that_differ_in_letter_case_share_a_folder(tmp_path: Path, celforge: Celforge) -> None:
    project(tmp_path, {"a.png": ["Aoba"], "b.png": ["aoba"], "c.png": ["Aoba"]})
    answer = celforge("arrange", tmp_path, *FEW, "--json")
    assert answer.json["one_folder_on_windows"] == ["1_character/aoba is 1_character/Aoba"]
    assert {path.rpartition("/")[0] for path in tree(tmp_path)} == {"1_character/Aoba"}


def test_pictures_of_one_stem_keep_their_captions_apart(tmp_path: Path, celforge: Celforge) -> None:
    build(tmp_path, {"in/a.png": "one", "in/a.jpg": "two", "in/a.txt": "of both"})
    celforge("arrange", tmp_path, *FEW)
    found = tree(tmp_path)
    stems = {path.rpartition(".")[0] for path in found if not path.endswith(".txt")}
    assert len(stems) == 2
    assert {found[f"{stem}.txt"] for stem in stems} == {"of both"}
    celforge("undo", tmp_path)
    assert celforge("arrange", tmp_path, *FEW, "--how", "move").exit_code == 0
    assert sorted(tree(tmp_path).values()) == ["of both", "of both", "one", "two"]


def test_masks_go_with_their_picture(tmp_path: Path, celforge: Celforge) -> None:
    build(tmp_path, {"in/a.png": "one", "in/a-masklabel.png": "mask"})
    know(tmp_path, {"in/a.png": {"characters": ["x"]}})
    assert celforge("arrange", tmp_path, *FEW, "--json").json["in_the_tree"] == 1
    assert sorted(tree(tmp_path)) == ["1_character/x/a-masklabel.png", "1_character/x/a.png"]


def test_one_content_comes_once_by_the_file_that_has_a_caption(tmp_path: Path, celforge: Celforge) -> None:
    build(tmp_path, {"a/1.png": "same", "b/2.png": "same", "b/2.txt": "told"})
    answer = celforge("arrange", tmp_path, *FEW, "--json").json
    assert answer["left_out"] == {"another file of the same bytes is in the tree": 1}
    assert list(tree(tmp_path).values()) == ["same", "told"]


# Other trees, wrong folders


def test_levels_by_people_faces_and_kind(tmp_path: Path, celforge: Celforge) -> None:
    build(tmp_path, {"ep1/a.png": "a", "ep1/b.png": "b"})
    know(
        tmp_path,
        {
            "ep1/a.png": {
                "num_people": 7,
                "image_type": "screenshots",
                "faces": {"num_faces": 1, "boxes": [[0.1, 0.1, 0.3, 0.4]]},
            }
        },
    )
    celforge("arrange", tmp_path, *FEW, "--format", "image_type/folder/n_people/n_faces/fh_ratio")
    assert sorted(tree(tmp_path)) == [
        "screenshots/ep1/6+_people/1_face/face_height_ratio_25-50/a.png",
        "unknown_type/ep1/unknown_people/unknown_faces/face_height_ratio_unknown/b.png",
    ]


def test_another_tree_of_the_same_pictures(tmp_path: Path, celforge: Celforge) -> None:
    project(tmp_path, {"in/a.png": ["sabine"]})
    celforge("arrange", tmp_path, *FEW)
    answer = celforge("arrange", tmp_path, *FEW, "--out", tmp_path / "flat", "--format", "", "--json").json
    assert answer["in_the_tree"] == 1
    assert answer["left_out"] == {}
    assert sorted(tree(tmp_path, "flat")) == ["a.png", "a.txt"]
    assert celforge("arrange", tmp_path, *FEW, "--json").json["done"].startswith("nothing")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{root}", "--out", "{root}"], "must lie inside the project"),
        (["{root}", "--out", "{root}/.celforge/x"], "must lie inside the project"),
        (["{root}", "--out", "/elsewhere"], "must lie inside the project"),
        (["{root}/in", "--out", "{root}/in"], "lies in the tree that would be made"),
        (["{root}", "--format", "n_charakters"], 'did you mean "n_characters"?'),
        (["{root}", "--format", "character/character"], "holds character twice"),
        (["{root}/empty"], "holds no pictures"),
    ],
)
def test_wrong_wishes_are_refused_before_anything_is_touched(
    tmp_path: Path, celforge: Celforge, arguments: list[str], words: str
) -> None:
    project(tmp_path, {"in/a.png": ["sabine"]})
    (tmp_path / "empty").mkdir()
    before = look(tmp_path)
    answer = celforge("arrange", *(text.replace("{root}", str(tmp_path)) for text in arguments))
    assert answer.exit_code in (1, 2)
    assert words in answer.stderr
    assert look(tmp_path) == before


def test_pictures_that_lie_only_in_the_tree_are_named(tmp_path: Path, celforge: Celforge) -> None:
    build(tmp_path, {"dataset/a.png": "a"})
    answer = celforge("arrange", tmp_path)
    assert answer.exit_code == 2
    assert "--out" in answer.stderr


# Kills


@pytest.mark.skipif(os.name == "nt", reason="fork")
@pytest.mark.parametrize("is_first", [True, False])
def test_a_kill_anywhere_is_finished_or_taken_back(
    tmp_path: Path, celforge: Celforge, is_first: bool
) -> None:
    """The first run makes whole folders, a later one moves, writes and drops."""

    def made(name: str) -> Path:
        root = project(tmp_path / name, TWO_EPISODES)
        if is_first:
            return root
        celforge("arrange", root, *FEW)
        know(root, {"frames/ep01/0001.png": {"characters": ["iris"]}})
        (root / "frames/ep02/0003.png").unlink()
        (root / "frames/ep01/0002.txt").unlink()
        (root / "frames/ep01/0002.txt").write_text("new caption")
        build(root, {"frames/ep03/7.png": "seven"})
        return root

    def work(root: Path) -> Any:
        return lambda: celforge("arrange", root, *FEW)

    modules = ("journal.py", "arranging.py", "steps.py", "content_steps.py", "folder_steps.py")
    whole = made("whole")
    before = look(whole, times=False)
    code, total = run_until_line(work(whole), modules, None)
    assert code == 0
    after = look(whole, times=False)
    assert after != before
    for number, line in enumerate(points(total - total // 10, 6, seed=5)):
        root = made(str(number))
        assert run_until_line(work(root), modules, line)[0] == KILLED
        is_begun = any((root / ".celforge/journals").glob("000001-*" if is_first else "000002-*"))
        if number % 2:
            assert celforge("arrange", root, *FEW).exit_code == 0
            assert look(root, times=False) == after
        if number % 2 or is_begun:
            assert celforge("undo", root).exit_code == 0
        assert look(root, times=False) == before


def test_the_record_names_bytes_not_paths(tmp_path: Path, celforge: Celforge) -> None:
    project(tmp_path, {"in/a.png": ["sabine"]})
    celforge("arrange", tmp_path, *FEW)
    with open_job(tmp_path, "look") as job:
        media_id = job.catalog.media_id(hashlib.sha256(b"picture in/a.png").hexdigest())
        assert media_id is not None
        record = job.catalog.fact(media_id, "arranged")
    assert record["path"] == "dataset/1_character/sabine/a.png"
    assert record["sidecars"] == {"*.txt": hashlib.sha256(b"caption of in/a.png").hexdigest()}


def test_files_of_a_disk_without_inodes_are_told_apart_by_size_and_time() -> None:
    class Seen:
        def __init__(self, size_bytes: int) -> None:
            self.size_bytes = size_bytes

        def stat(self) -> os.stat_result:
            return os.stat_result((0o100644, 0, 7, 1, 0, 0, self.size_bytes, 0, 0, 0))

    assert not is_alike(Seen(1), Seen(2))  # type: ignore[arg-type]
    assert is_alike(Seen(1), Seen(1))  # type: ignore[arg-type]
