import os
import sys
from pathlib import Path

import pytest

from pipeline.errors import PlanError
from pipeline.plan import (
    Action,
    Drop,
    MakeFolder,
    Move,
    Place,
    Plan,
    RemoveFolder,
    SetFact,
    SetOutcome,
    Write,
)
from tests.trees import build, look


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build(
        tmp_path / "project",
        {"a.png": "a", "b.png": "b", "ep/c.png": "c", "ep/c.txt": "tags", "none/": "", "link": "-> a.png"},
    )


def problems(root: Path, *actions: Action) -> list[str]:
    """The problems of a plan, with paths as a person in the root would write them."""
    return [text.replace(f"{root}{os.sep}", "") for text in Plan("test", actions).problems(root)]


@pytest.mark.parametrize(
    ("action", "problem"),
    [
        (Move(Path("gone"), Path("x")), "gone does not exist"),
        (Move(Path("a.png"), Path("b.png")), "b.png exists already"),
        (Move(Path("a.png"), Path("none")), "none exists already"),
        (Move(Path("a.png"), Path("a.png")), "a.png would be moved onto itself"),
        (Move(Path("ep"), Path("ep/in/ep")), "ep/in/ep lies inside ep, which would be moved there"),
        (Move(Path("a.png"), Path("b.png/x")), "b.png is not a folder"),
        (Move(Path("a.png"), Path("B.PNG")), "B.PNG and b.png are one file on Windows and macOS"),
        (Move(Path("a.png"), Path("EP/a.png")), "EP and ep are one file on Windows and macOS"),
        (Move(Path("a.png"), Path("aux.png")), "aux.png: the name is a device name on Windows"),
        (Move(Path("a.png"), Path("x:y/a.png")), "x:y: the name holds :, which Windows does not allow"),
        (
            Move(Path(), Path("../elsewhere")),
            "holds the project's own records and cannot be moved or removed",
        ),
        (Move(Path(".celforge"), Path("x")), ".celforge holds the project's own records"),
        (Place(Path("gone"), Path("x"), "copy"), "gone does not exist"),
        (Place(Path("ep"), Path("x"), "copy"), "ep is not a file"),
        (Place(Path("a.png"), Path("b.png"), "hardlink"), "b.png exists already"),
        (Write(Path("ep/c.txt"), "new"), "ep/c.txt exists already"),
        (Write(Path("ep/c.txt"), "new", expects="0" * 64), "ep/c.txt was edited since it was read"),
        (Write(Path("x.txt"), "new", expects="0" * 64), "x.txt does not exist, and was to be overwritten"),
        (Write(Path("ep"), "new", expects="0" * 64), "ep is a folder, and a file was to be overwritten"),
        (Write(Path("link"), "new", expects="0" * 64), "link is a link, and a file was to be overwritten"),
        (MakeFolder(Path("a.png")), "a.png exists already"),
        (MakeFolder(Path("con")), "con: the name is a device name on Windows"),
        (RemoveFolder(Path("gone")), "gone does not exist"),
        (RemoveFolder(Path("a.png")), "a.png is not a folder"),
        (Drop(Path("gone"), "why"), "gone does not exist"),
    ],
)
def test_what_cannot_be_done_is_told_and_nothing_is_touched(root: Path, action: Action, problem: str) -> None:
    (root / ".celforge").mkdir()
    before = look(root)
    found = problems(root, action)
    assert len(found) == 1
    assert problem in found[0]
    assert look(root) == before


@pytest.mark.parametrize(
    ("actions", "problem"),
    [
        ([Move(Path("a.png"), Path("x")), Move(Path("b.png"), Path("x"))], "x would be made twice"),
        (
            [Move(Path("a.png"), Path("É.png")), Move(Path("b.png"), Path("e\u0301.png"))],
            "e\u0301.png and É.png are one file on Windows and macOS",
        ),
        ([Move(Path("a.png"), Path("x")), Place(Path("a.png"), Path("y"), "copy")], "a.png does not exist"),
        ([Move(Path("ep"), Path("x")), Write(Path("x/c.png"), "w")], "x/c.png exists already"),
        ([Move(Path("ep"), Path("x")), Drop(Path("ep/c.png"), "why")], "ep/c.png does not exist"),
        ([RemoveFolder(Path("none")), RemoveFolder(Path("none"))], "none does not exist"),
        ([Write(Path("x"), "1"), Write(Path("x"), "2", expects="0" * 64)], "x was edited since it was read"),
    ],
)
def test_an_action_is_checked_against_the_tree_that_earlier_ones_leave(
    root: Path, actions: list[Action], problem: str
) -> None:
    assert problems(root, *actions) == [problem]


@pytest.mark.parametrize(
    "actions",
    [
        [Move(Path("a.png"), Path("z")), Move(Path("b.png"), Path("a.png")), Move(Path("z"), Path("b.png"))],
        [Move(Path("ep"), Path("x/y")), Move(Path("x/y/c.png"), Path("ep/c.png"))],
        [Move(Path("ep/c.png"), Path("c")), Move(Path("ep/c.txt"), Path("t")), RemoveFolder(Path("ep"))],
        [RemoveFolder(Path("none")), Move(Path("ep"), Path("none"))],
        [MakeFolder(Path("ep")), MakeFolder(Path("new/deep")), Write(Path("new/deep/t"), "t")],
        [Write(Path("x"), "1"), Move(Path("x"), Path("y")), Write(Path("x"), "2")],
        [Drop(Path("a.png"), "why"), Move(Path("b.png"), Path("a.png")), Drop(Path("a.png"), "why")],
    ],
)
def test_chains_of_actions_are_no_problem(root: Path, actions: list[Action]) -> None:
    assert problems(root, *actions) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot hold such names")
def test_a_drop_keeps_names_that_no_plan_may_make(root: Path) -> None:
    build(root, {"what?/x.png": "1", "What?/X.png": "2", "what?/X.png": "3"})
    names = ("what?/x.png", "What?/X.png", "what?/X.png")
    assert problems(root, *(Drop(Path(name), "why") for name in names)) == []


def test_a_folder_that_may_not_be_written_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: str(path) != str(root / "ep") and allowed(path, mode)
    )
    assert problems(root, Move(Path("ep/c.png"), Path("x")), Write(Path("ep/new"), "n")) == [
        "ep may not be written"
    ]


def test_hard_links_to_another_disk_are_told_unless_a_copy_will_do(root: Path) -> None:
    far = Path("/dev/shm")
    if not far.is_dir() or far.stat().st_dev == root.stat().st_dev:
        pytest.skip("there is no second disk")
    destination = far / "celforge-test/never/made/a.png"
    assert "lies on another disk" in problems(root, Place(Path("a.png"), destination, "hardlink"))[0]
    assert problems(root, Place(Path("a.png"), destination, "hardlink", or_copy=True)) == []
    assert not (far / "celforge-test").exists()


def test_all_problems_come_in_one_error_with_the_first_ten(root: Path) -> None:
    plan = Plan("dedupe", [Drop(Path(f"gone{number}"), "why") for number in range(13)])
    with pytest.raises(PlanError) as error:
        plan.check(root)
    assert "problems: 13\n" in str(error.value)
    assert "gone9 does not exist" in str(error.value)
    assert "gone10" not in str(error.value)
    assert "and 3 more" in str(error.value)


def test_rows_show_action_source_destination_and_reason() -> None:
    plan = Plan(
        "test",
        [
            Move(Path("a"), Path("b"), "sorted"),
            Place(Path("a"), Path("b"), "hardlink", "arranged"),
            Write(Path("c.txt"), "x", "caption"),
            Write(Path("c.txt"), "x", "caption", expects="0" * 64),
            MakeFolder(Path("d")),
            RemoveFolder(Path("e"), "empty"),
            Drop(Path("f"), "near-duplicate", "of g"),
            SetOutcome("0123456789abcdef", "dedupe", "dropped", "near-duplicate"),
            SetFact("0123456789abcdef", "characters", ["Rei"], "identify"),
        ],
    )
    assert [tuple(row.values()) for row in plan.rows()] == [
        ("move", "a", "b", "sorted"),
        ("hardlink", "a", "b", "arranged"),
        ("write", "", "c.txt", "caption"),
        ("overwrite", "", "c.txt", "caption"),
        ("make folder", "", "d", ""),
        ("remove folder", "e", "", "empty"),
        ("drop", "f", "", "near-duplicate"),
        ("note outcome", "0123456789ab", "dedupe: dropped", "near-duplicate"),
        ("note fact", "0123456789ab", "characters = ['Rei']", ""),
    ]
