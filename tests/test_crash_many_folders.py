"""Kill flatten, its way back and their undo before and after each rename of the step that moves many folders,
and leave these renames in any order, as a power cut may.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import relocate as relocation
from pipeline.actions import Move, MoveFolders
from pipeline.catalog import Catalog
from pipeline.flattening import together as together_module
from pipeline.flattening.together import together
from pipeline.folder_steps import MoveFoldersStep
from pipeline.journal import list_journals, recover, undo_last
from pipeline.records import Steps
from tests import test_crash_flatten
from tests.conftest import Celforge
from tests.crashing import KILLED, dying_at, run_until_line
from tests.pictures import noise
from tests.test_crash_flatten import Flat
from tests.trees import build, look

pytestmark = test_crash_flatten.pytestmark
STEPS = ["in place", "back"]


@pytest.fixture(autouse=True)
def each_move_is_one_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together_module, "FEW", 0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "sync", lambda: None)


def at_rename(number: int, work: Callable[[], object], *, after: bool) -> int:
    """Run something in a child that is killed at its n-th rename by the journal; gives the exit code."""
    counted = dying_at(number, relocation.rename_new, after=after)

    def patched() -> None:
        relocation.rename_new = counted
        work()

    return run_until_line(patched, (), None)[0]


def steps_of(flat: Flat) -> list[MoveFoldersStep]:
    return [step for step in Steps(list_journals(flat.state)[-1]) if isinstance(step, MoveFoldersStep)]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_rename_it_is_finished_or_taken_back(tmp_path: Path, step: str) -> None:
    base = tmp_path / "base"
    flat = Flat(base, step)
    start = flat.look()
    flat.work()
    assert max(len(one.pairs) for one in steps_of(flat)) > 1
    wanted = flat.look()
    for after in (False, True):
        number = 0
        while True:
            number += 1
            flat = Flat(base, step)
            code = at_rename(number, flat.work, after=after)
            if code == 0:
                break
            assert code == KILLED
            if number % 2 == after:
                recover(flat.root, flat.state)
                assert flat.look() == wanted, (number, after)
            else:
                undo_last(flat.root, flat.state)
                assert flat.look() == start, (number, after)
        assert number > 4, "every folder was met"


@pytest.mark.parametrize("step", STEPS)
def test_an_undo_that_is_killed_goes_on(tmp_path: Path, step: str) -> None:
    base = tmp_path / "base"
    start = Flat(base, step).look()
    number = 0
    while True:
        number += 1
        flat = Flat(base, step)
        flat.work()
        undo = lambda flat=flat: undo_last(flat.root, flat.state)  # type: ignore[misc]  # noqa: E731
        if at_rename(number, undo, after=bool(number % 2)) == 0:
            break
        recover(flat.root, flat.state)
        if not list_journals(flat.state)[-1].is_undone:
            undo_last(flat.root, flat.state)
        assert flat.look() == start, number
    assert number > 4


@pytest.mark.parametrize("step", STEPS)
def test_renames_that_a_power_cut_left_in_another_order_are_told(tmp_path: Path, step: str) -> None:
    base = tmp_path / "base"
    flat = Flat(base, step)
    start = flat.look()
    flat.work()
    wanted = flat.look()
    (many, *_) = (one for one in steps_of(flat) if len(one.pairs) > 1)
    first = 1 + sum(len(one.pairs) for one in steps_of(flat)[: steps_of(flat).index(many)])
    for is_finished in (True, False):
        flat = Flat(base, step)
        assert at_rename(first, flat.work, after=False) == KILLED
        source, destination = many.pairs[-1]
        (flat.root / source).rename(flat.root / destination)
        (recover if is_finished else undo_last)(flat.root, flat.state)
        assert flat.look() == (wanted if is_finished else start)


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_lines_between_it_is_finished_or_taken_back(tmp_path: Path, step: str) -> None:
    test_crash_flatten.test_killed_in_the_middle_of_a_step_it_is_finished_or_taken_back(tmp_path, step)


def test_an_undo_after_changes_names_the_folders_and_touches_nothing(
    tmp_path: Path, celforge: Celforge
) -> None:
    root = build(tmp_path / "set", {f"A/{n}/p.png": "p" for n in range(4)})
    celforge("flatten", root, "--in-place")
    (root / "1_A~1").rename(root / "elsewhere")
    build(root, {"A/3/new.png": "n"})
    before = look(root)
    answer = celforge("undo", root)
    assert answer.exit_code == 1
    assert "A/3 is in the place that" in answer.stderr
    assert "and 1 more folders" in answer.stderr
    assert look(root) == before


def test_a_dry_run_of_the_way_back_shows_each_folder(tmp_path: Path, celforge: Celforge) -> None:
    root = build(tmp_path / "set", {f"A/{n}/p.png": "p" for n in range(4)})
    celforge("flatten", root, "--in-place")
    before = look(root)
    planned = celforge("flatten", root, "--revert", "--dry-run", "--json").json["planned"]
    moves = {(row["source"], row["destination"]) for row in planned if row["action"] == "move"}
    assert moves == {(str(root / f"1_A~{n}"), str(root / "A" / str(n))) for n in range(4)}
    assert look(root) == before


def test_what_is_known_of_pictures_follows_all_folders(tmp_path: Path, celforge: Celforge) -> None:
    for number in range(3):
        (tmp_path / f"set/A/{number}").mkdir(parents=True)
        noise(seed=number).save(tmp_path / f"set/A/{number}/a.png")
    celforge("ingest", tmp_path / "set")
    celforge("flatten", tmp_path / "set", "--in-place")
    with Catalog.open(tmp_path / "set/.celforge/catalog.sqlite3") as catalog:
        rows = catalog.rows("SELECT folder FROM paths WHERE NOT is_gone ORDER BY folder").fetchall()
    assert rows == [("1_A~0",), ("1_A~1",), ("1_A~2",)]


def test_moves_that_share_a_path_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together_module, "FEW", 1)

    def runs(*pairs: tuple[str, str]) -> list[int]:
        found = together([Move(f"/t/{source}", f"/t/{destination}") for source, destination in pairs])
        return [len(one.pairs) if isinstance(one, MoveFolders) else 1 for one in found]

    assert runs(("a/x", "1"), ("a/y", "2"), ("b", "3")) == [3]
    assert runs(("a/x", "1"), ("a", "2")) == [1, 1], "a folder after one that lay in it"
    assert runs(("1", "a"), ("2", "a/x")) == [1, 1], "into a folder that was just moved"
    assert runs(("a", "b"), ("c", "A")) == [1, 1], "a name that became free, on disks that ignore case"
    assert runs(("a", "b"), ("b", "c")) == [1, 1]
    assert runs(("a", "1"), ("b", "2"), ("c", "2/x"), ("d", "3")) == [2, 2]
