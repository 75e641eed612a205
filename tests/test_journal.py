import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline import journal as journal_module
from pipeline import relocate as relocation
from pipeline.errors import DiskFullError, InputError, InterruptedRunError, JournalError, PlanError
from pipeline.journal import Journal, apply_plan, list_journals, recover, undo_last
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
from pipeline.renaming import rename_new
from tests.trees import FileCatalog, build, linked, look

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="a matter of POSIX disks")
FILES = {
    "a.png": "picture a",
    "a.txt": "1girl",
    "ep/b.png": "picture b",
    "ep/b.txt": "1boy",
    "ep/deep/c.png": "picture c",
    "none/": "",
}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Bench:
    """A project with a few files, and the calls on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / ".celforge"
        self.catalog = FileCatalog(self.state / "catalog.json")
        self.start = look(root)

    def apply(self, *actions: Action, stop_after: int | None = None, stage: str = "test") -> Journal | None:
        asked = 0

        def should_stop() -> bool:
            nonlocal asked
            asked += 1
            return stop_after is not None and asked > stop_after

        plan = Plan(stage, actions)
        return apply_plan(plan, self.root, self.state, self.catalog, run_id=7, should_stop=should_stop)

    def recover(self) -> list[Journal]:
        return recover(self.root, self.state, self.catalog)

    def undo(self, *, force: bool = False) -> Journal:
        return undo_last(self.root, self.state, self.catalog, force=force)

    def names(self) -> set[str]:
        return {name.replace(os.sep, "/") for name in look(self.root)}

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def is_as_at_first(self) -> bool:
        leftovers = look(self.root, state=True).keys() - look(self.root).keys()
        return look(self.root) == self.start and leftovers <= {
            ".celforge",
            os.path.join(".celforge", "dropped"),
            os.path.join(".celforge", "undo"),
        }


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(build(tmp_path / "project", FILES))


# Each action, done and taken back


def test_a_moved_file_keeps_its_bytes_and_time(bench: Bench) -> None:
    time = (bench.root / "a.png").stat().st_mtime_ns
    bench.apply(Move(Path("a.png"), Path("new/deep/x.png"), "sorted"))
    assert bench.names() >= {"new/deep/x.png"}
    assert "a.png" not in bench.names()
    assert (bench.root / "new/deep/x.png").stat().st_mtime_ns == time
    bench.undo()
    assert bench.is_as_at_first()


def test_a_moved_folder_takes_all_that_is_in_it(bench: Bench) -> None:
    bench.apply(Move(Path("ep"), Path("series/one")))
    assert bench.read("series/one/deep/c.png") == "picture c"
    assert "ep" not in bench.names()
    bench.undo()
    assert bench.is_as_at_first()


def test_names_can_be_swapped(bench: Bench) -> None:
    bench.apply(
        Move(Path("a.png"), Path("z")),
        Move(Path("ep/b.png"), Path("a.png")),
        Move(Path("z"), Path("ep/b.png")),
    )
    assert (bench.read("a.png"), bench.read("ep/b.png")) == ("picture b", "picture a")
    bench.undo()
    assert bench.is_as_at_first()


@posix_only
def test_a_change_of_letter_case_is_a_move(bench: Bench) -> None:
    bench.apply(Move(Path("a.png"), Path("A.PNG")), Move(Path("ep"), Path("EP")))
    assert {"A.PNG", "EP/b.png"} <= bench.names()
    bench.undo()
    assert bench.is_as_at_first()


@posix_only
def test_links_are_moved_and_dropped_as_links(bench: Bench) -> None:
    build(bench.root, {"good": "-> ep", "broken": "-> nowhere"})
    bench.start = look(bench.root)
    bench.apply(Move(Path("good"), Path("other")), Drop(Path("broken"), "broken"))
    assert os.readlink(bench.root / "other") == "ep"
    assert os.readlink(bench.state / "dropped/000001-test/broken") == "nowhere"
    assert bench.read("ep/b.png") == "picture b"
    bench.undo()
    assert bench.is_as_at_first()


@pytest.mark.parametrize("how", ["hardlink", "copy"])
def test_a_placed_file_appears_and_goes_again(bench: Bench, how: str) -> None:
    bench.apply(Place(Path("a.png"), Path("set/a.png"), how))  # type: ignore[arg-type]
    assert bench.read("set/a.png") == "picture a"
    assert (bench.root / "a.png").samefile(bench.root / "set/a.png") == (how == "hardlink")
    bench.undo()
    assert bench.is_as_at_first()


@posix_only
def test_a_link_inside_the_project_survives_a_move_of_the_project(bench: Bench, tmp_path: Path) -> None:
    bench.apply(Place(Path("a.png"), Path("set/a.png"), "symlink"))
    bench.root.rename(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere/set/a.png").read_text() == "picture a"
    moved = Bench(tmp_path / "elsewhere")
    moved.undo()
    assert look(moved.root) == bench.start


def test_a_written_file_is_new_and_goes_again(bench: Bench) -> None:
    bench.apply(Write(Path("set/a.txt"), "solo, é\r\n"), Write(Path("set/b.bin"), b"\xff\x00"))
    assert (bench.root / "set/a.txt").read_bytes() == "solo, é\r\n".encode()
    assert (bench.root / "set/b.bin").read_bytes() == b"\xff\x00"
    bench.undo()
    assert bench.is_as_at_first()


@posix_only
def test_an_overwritten_file_comes_back_with_bytes_permissions_and_time(bench: Bench) -> None:
    (bench.root / "a.txt").chmod(0o604)
    os.link(bench.root / "a.txt", bench.root / "ep/other name.txt")
    bench.start, groups = look(bench.root), linked(bench.root)
    bench.apply(
        Write(Path("a.txt"), "1girl, solo", expects=sha256("1girl")),
        Write(Path("a.txt"), "1girl, solo, smile", expects=sha256("1girl, solo")),
    )
    assert bench.read("a.txt") == "1girl, solo, smile"
    assert bench.read("ep/other name.txt") == "1girl"
    assert (bench.root / "a.txt").stat().st_mode & 0o777 == 0o604
    bench.undo()
    assert bench.is_as_at_first()
    assert linked(bench.root) == groups


def test_an_overwritten_file_comes_back_where_hard_links_cannot_be_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    bench.apply(Write(Path("a.txt"), "new", expects=sha256("1girl")))
    bench.undo()
    assert bench.is_as_at_first()


def test_writing_the_same_bytes_again_leaves_the_file_alone(bench: Bench) -> None:
    before = (bench.root / "a.txt").stat()
    bench.apply(Write(Path("a.txt"), "1girl", expects=sha256("1girl")), Write(Path("new.txt"), "solo"))
    after = (bench.root / "a.txt").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    bench.undo()
    assert bench.is_as_at_first()


def test_folders_are_made_and_removed_only_when_empty(bench: Bench) -> None:
    bench.apply(
        MakeFolder(Path("ep")), MakeFolder(Path("x/y")), RemoveFolder(Path("none")), RemoveFolder(Path("ep"))
    )
    assert bench.names() == {*(name.rstrip("/") for name in FILES), "ep", "ep/deep", "x", "x/y"} - {"none"}
    bench.undo()
    assert bench.is_as_at_first()


def test_a_folder_emptied_by_the_plan_is_removed_and_comes_back(bench: Bench) -> None:
    (bench.root / "ep/deep").chmod(0o750)
    bench.start = look(bench.root)
    bench.apply(
        Move(Path("ep/deep/c.png"), Path("c.png")),
        RemoveFolder(Path("ep/deep")),
        Move(Path("c.png"), Path("ep/deep")),
    )
    assert bench.read("ep/deep") == "picture c"
    bench.undo()
    assert bench.is_as_at_first()


def test_a_drop_goes_to_the_run_s_own_folder_under_its_own_path(bench: Bench) -> None:
    bench.apply(Drop(Path("ep/b.png"), "near-duplicate", "of a.png"), Drop(Path("ep/deep"), "folder"))
    dropped = bench.state / "dropped/000001-test/ep"
    assert (dropped / "b.png").read_text() == "picture b"
    assert (dropped / "deep/c.png").read_text() == "picture c"
    bench.undo()
    assert bench.is_as_at_first()


def test_a_file_from_outside_the_project_can_be_dropped(bench: Bench, tmp_path: Path) -> None:
    outside = build(tmp_path / "outside", {"x.png": "x"}) / "x.png"
    bench.apply(Drop(outside, "why"))
    assert not outside.exists()
    assert [path.read_text() for path in bench.state.glob("dropped/*/outside/**/x.png")] == ["x"]
    bench.undo()
    assert outside.read_text() == "x"


def test_two_drops_of_one_path_are_both_kept(bench: Bench) -> None:
    bench.apply(Drop(Path("a.png"), "why"), Move(Path("ep/b.png"), Path("a.png")), Drop(Path("a.png"), "why"))
    dropped = bench.state / "dropped/000001-test"
    assert sorted(path.read_text() for path in dropped.iterdir()) == ["picture a", "picture b"]
    bench.undo()
    assert bench.is_as_at_first()


def test_rows_of_the_catalogue_are_set_and_put_back(bench: Bench) -> None:
    with bench.catalog.transaction():
        bench.catalog.write_fact("c1", "tags", "tag", {"value": ["old"], "by_hand": True, "run_id": 3})
    before = bench.catalog.rows
    bench.apply(
        SetOutcome("c1", "test", "dropped", "dup", "of c2"),
        SetFact("c1", "tags", ["new"], "tag"),
        SetFact("c1", "tags", ["newer"], "tag"),
    )
    assert bench.catalog.rows == {
        "outcome c1 test": {"outcome": "dropped", "reason": "dup", "detail": "of c2", "run_id": 7},
        "fact c1 tags tag": {"value": ["newer"], "by_hand": False, "run_id": 7},
    }
    bench.undo()
    assert bench.catalog.rows == before


def test_undo_leaves_rows_that_somebody_wrote_since(bench: Bench) -> None:
    bench.apply(SetFact("c1", "tags", ["ours"], "tag"), SetFact("c2", "tags", ["ours"], "tag"))
    with bench.catalog.transaction():
        bench.catalog.write_fact("c1", "tags", "tag", {"value": ["theirs"], "by_hand": True})
    bench.undo()
    assert bench.catalog.rows == {"fact c1 tags tag": {"value": ["theirs"], "by_hand": True}}


def test_a_plan_that_asks_for_nothing_new_leaves_no_journal(bench: Bench) -> None:
    assert bench.apply(MakeFolder(Path("ep"))) is None
    assert list_journals(bench.state) == []


def test_a_plan_with_problems_touches_nothing(bench: Bench) -> None:
    with pytest.raises(PlanError):
        bench.apply(Move(Path("a.png"), Path("x")), Move(Path("gone"), Path("y")))
    assert bench.is_as_at_first()
    assert list_journals(bench.state) == []


@posix_only
def test_names_that_are_no_text_go_through_a_journal(bench: Bench) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (bench.root / name).write_text("x")
    except OSError:
        pytest.skip("the disk takes UTF-8 names only")
    bench.start = look(bench.root)
    bench.apply(Move(Path(name), Path("set") / name))
    assert (bench.root / "set" / name).exists()
    bench.undo()
    assert bench.is_as_at_first()


# The journal itself


def test_every_action_of_a_plan_counts_as_one_step(bench: Bench) -> None:
    counts = {"apply": 0, "undo": 0}

    def counter(key: str) -> Callable[[], None]:
        def count() -> None:
            counts[key] += 1

        return count

    actions = [
        Place(Path("a.png"), Path("x/y/a.png"), "copy"),
        MakeFolder(Path("ep")),
        MakeFolder(Path("x/y/z")),
        SetOutcome("c", "test", "kept"),
    ]
    plan = Plan("test", actions)
    apply_plan(plan, bench.root, bench.state, bench.catalog, on_step=counter("apply"))
    undo_last(bench.root, bench.state, bench.catalog, on_step=counter("undo"))
    assert counts == {"apply": 4, "undo": 3}


def test_journals_are_listed_with_their_status_and_taken_back_newest_first(bench: Bench) -> None:
    bench.apply(Move(Path("a.png"), Path("b")), stage="one")
    bench.apply(Move(Path("b"), Path("c")), stage="two")
    assert [(one.name, one.stage, one.status) for one in list_journals(bench.state)] == [
        ("000001-one", "one", "applied"),
        ("000002-two", "two", "applied"),
    ]
    assert bench.undo().stage == "two"
    assert [one.is_undone for one in list_journals(bench.state)] == [False, True]
    assert bench.undo().stage == "one"
    assert bench.is_as_at_first()
    with pytest.raises(InputError, match="nothing to take back"):
        bench.undo()


def test_numbers_are_never_used_again(bench: Bench) -> None:
    bench.apply(Drop(Path("a.png"), "why"))
    shutil.rmtree(bench.state / "journals")
    assert (journal := bench.apply(Drop(Path("a.txt"), "why"))) is not None
    assert journal.number == 2


def test_the_journal_tells_every_step_with_its_reason(bench: Bench) -> None:
    journal = bench.apply(Drop(Path("a.png"), "near-duplicate", "of ep/b.png"), Write(Path("x.txt"), "é"))
    assert journal is not None
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert lines[0]["stage"] == "test"
    assert lines[0]["steps"] == len(lines) - 1
    drop, write = lines[-2:]
    assert (drop["source"], drop["reason"], drop["detail"]) == ("a.png", "near-duplicate", "of ep/b.png")
    assert write["data"] == {"text": "é"}


def test_a_torn_last_line_of_the_log_is_forgotten(bench: Bench) -> None:
    with pytest.raises(InterruptedRunError):
        bench.apply(Move(Path("a.png"), Path("x")), Move(Path("a.txt"), Path("y")), stop_after=1)
    log = bench.state / "journals/000001-test.log"
    log.write_bytes(log.read_bytes()[:-4])
    assert list_journals(bench.state)[0].status == "open"
    bench.recover()
    assert {"x", "y"} <= bench.names()
    bench.undo()
    assert bench.is_as_at_first()


@pytest.mark.parametrize("damage", ["cut", "garbage", "header", "newer"])
def test_a_damaged_journal_is_named_and_nothing_is_touched(bench: Bench, damage: str) -> None:
    journal = bench.apply(Move(Path("a.png"), Path("x")), Move(Path("a.txt"), Path("y")))
    assert journal is not None
    lines = journal.path.read_bytes().splitlines(keepends=True)
    if damage == "cut":
        lines.pop()
    elif damage == "garbage":
        lines[1] = b'{"do": "dance"}\n'
    elif damage == "header":
        lines[0] = b"\0\0\0\n"
    else:
        lines[0] = lines[0].replace(b'"celforge_journal":1', b'"celforge_journal":99')
    journal.path.write_bytes(b"".join(lines))
    before = look(bench.root)
    with pytest.raises(JournalError, match=r"000001-test\.jsonl"):
        bench.undo()
    assert look(bench.root) == before


# Interrupted runs


def test_an_interrupted_run_is_finished_or_taken_back(bench: Bench) -> None:
    moves = [Move(Path("a.png"), Path("x")), Move(Path("a.txt"), Path("y")), Move(Path("ep"), Path("z"))]
    with pytest.raises(InterruptedRunError, match="celforge undo"):
        bench.apply(*moves, stop_after=1)
    assert bench.names() & {"x", "y", "z"} == {"x"}
    assert [one.stage for one in bench.recover()] == ["test"]
    assert {"x", "y", "z"} <= bench.names()
    assert bench.recover() == []
    bench.undo()
    assert bench.is_as_at_first()
    with pytest.raises(InterruptedRunError):
        bench.apply(*moves, stop_after=2)
    bench.undo()
    assert bench.is_as_at_first()


def test_no_plan_begins_while_another_is_open(bench: Bench) -> None:
    with pytest.raises(InterruptedRunError):
        bench.apply(Move(Path("a.png"), Path("x")), stop_after=0)
    with pytest.raises(JournalError, match="was cut off"):
        bench.apply(Move(Path("a.txt"), Path("y")))
    assert bench.is_as_at_first()


def test_an_interrupted_undo_is_finished_as_undo(bench: Bench) -> None:
    bench.apply(Move(Path("a.png"), Path("x")), Move(Path("a.txt"), Path("y")))
    answers = iter([False, True])
    with pytest.raises(InterruptedRunError):
        undo_last(bench.root, bench.state, bench.catalog, should_stop=lambda: next(answers))
    assert list_journals(bench.state)[0].status == "undoing"
    assert {"a.txt", "x"} <= bench.names()
    assert [one.is_undone for one in bench.recover()] == [True]
    assert bench.is_as_at_first()


def test_a_run_that_cannot_be_finished_names_the_file_and_both_ways_out(bench: Bench) -> None:
    with pytest.raises(InterruptedRunError):
        bench.apply(Move(Path("a.png"), Path("x")), Move(Path("a.txt"), Path("y")), stop_after=1)
    (bench.root / "a.txt").rename(bench.root / "elsewhere.txt")
    with pytest.raises(JournalError) as error:
        bench.recover()
    assert str(bench.root / "a.txt") in str(error.value)
    assert "put that right" in error.value.hint
    assert "celforge undo" in error.value.hint
    (bench.root / "elsewhere.txt").rename(bench.root / "a.txt")
    bench.recover()
    assert {"x", "y"} <= bench.names()


def test_a_caption_edited_before_its_turn_is_not_overwritten(bench: Bench) -> None:
    with pytest.raises(InterruptedRunError):
        bench.apply(
            Move(Path("a.png"), Path("x")), Write(Path("a.txt"), "new", expects=sha256("1girl")), stop_after=1
        )
    (bench.root / "a.txt").write_text("by hand")
    with pytest.raises(JournalError, match=r"a\.txt"):
        bench.recover()
    assert bench.read("a.txt") == "by hand"
    with pytest.raises(JournalError, match=r"a\.txt"):
        bench.undo()
    bench.undo(force=True)
    assert bench.read("a.txt") == "by hand"
    assert "a.png" in bench.names()


@pytest.mark.parametrize("torn", [b"", b"1gi\0\0\0"])
def test_a_file_torn_by_a_power_cut_is_written_again(bench: Bench, torn: bytes) -> None:
    with pytest.raises(InterruptedRunError):
        bench.apply(Write(Path("x.txt"), "1girl, solo"), Move(Path("a.png"), Path("y")), stop_after=1)
    (bench.root / "x.txt").write_bytes(torn)
    (bench.state / "journals/000001-test.log").unlink()
    bench.recover()
    assert bench.read("x.txt") == "1girl, solo"
    bench.undo()
    assert bench.is_as_at_first()


def test_a_log_lost_to_a_power_cut_is_read_from_the_disk(bench: Bench) -> None:
    actions = [
        Place(Path("a.png"), Path("set/a.png"), "hardlink"),
        Place(Path("a.png"), Path("set/copy.png"), "copy"),
        Write(Path("a.txt"), "new", expects=sha256("1girl")),
        Move(Path("ep"), Path("series/ep")),
        RemoveFolder(Path("none")),
    ]
    for finish in (bench.recover, bench.undo):
        with pytest.raises(InterruptedRunError):
            bench.apply(*actions, Drop(Path("a.png"), "why"), stop_after=len(actions) + 2)
        for log in (bench.state / "journals").glob("*.log"):
            if b'"end"' not in log.read_bytes() and b"undone_all" not in log.read_bytes():
                log.write_bytes(b"")
        finish()
        if finish == bench.recover:
            assert (bench.read("set/a.png"), bench.read("a.txt")) == ("picture a", "new")
            bench.undo()
        assert bench.is_as_at_first()


def test_the_log_is_synced_before_a_path_is_touched_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.records import Log

    synced = []
    sync = Log.sync
    monkeypatch.setattr(Log, "sync", lambda log: (synced.append(len(log.done)), sync(log))[1])
    bench.apply(
        Move(Path("a.png"), Path("z")),  # step 0
        Move(Path("a.txt"), Path("y")),
        Move(Path("ep/b.png"), Path("a.png")),  # meets step 0
        Place(Path("y"), Path("x"), "copy"),
        Place(Path("y"), Path("w"), "copy"),  # reads what was read: nothing to tell apart
        Move(Path("ep"), Path("v")),  # meets step 2, which was below it
        Write(Path("v/new"), "n"),  # meets step 5, which moved the folder above
    )
    assert synced == [0, 2, 5, 6, 7]


# Full disks and failures in the middle


def failing_at(monkeypatch: pytest.MonkeyPatch, call: str, number: int, code: int) -> None:
    """Let the n-th call of a function of `os` fail."""
    real, calls = getattr(os, call), 0

    def fail(*args: object, **more: object) -> object:
        nonlocal calls
        calls += 1
        if calls >= number:
            raise OSError(code, os.strerror(code))
        return real(*args, **more)

    monkeypatch.setattr(os, call, fail)


@pytest.mark.skipif(sys.platform == "win32", reason="no folder is synced there")
def test_many_moves_of_names_wait_for_their_folders_not_for_every_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """os.sync waits for whatever other programs write; a few folders are synced by themselves."""
    root = build(tmp_path, {f"a/{n}/x.png": "x" for n in range(200)})
    synced: list[str] = []
    monkeypatch.setattr(os, "sync", lambda: synced.append("all"))
    monkeypatch.setattr(journal_module, "sync_folder", lambda path: synced.append(path.name))
    moves = [Move(root / "a" / str(n), root / "b" / str(n)) for n in range(200)]
    apply_plan(Plan("s", moves), root, root / ".celforge")
    assert sorted(synced) == sorted(["journals", root.name, "a", "b"])
    synced.clear()
    undo_last(root, root / ".celforge")
    assert sorted(synced) == sorted([root.name, "a"])  # b is gone again
    synced.clear()
    spread = [Move(root / "a" / str(n) / "x.png", root / "a" / str(n) / "y.png") for n in range(200)]
    apply_plan(Plan("s", spread), root, root / ".celforge")
    assert synced == ["journals", "all"]


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace", "link", "mkdir"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_full_disk_anywhere_leaves_whole_files_and_an_open_journal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    for name in ("journals", "dropped"):
        (bench.state / name).mkdir(parents=True)
    actions = [
        Place(Path("a.png"), Path("s1/a.png"), "hardlink"),
        Place(Path("a.png"), Path("s2/copy.png"), "copy"),
        Write(Path("a.txt"), "new", expects=sha256("1girl")),
        Write(Path("ep/b.txt"), "new", expects=sha256("1boy")),
        Write(Path("s2/new.txt"), "n"),
        Drop(Path("ep/b.png"), "why"),
    ]
    with monkeypatch.context() as patch:
        failing_at(patch, call, number, errno.ENOSPC)
        try:
            bench.apply(*actions)
        except DiskFullError as error:
            assert "the same command again" in error.hint
    assert bench.read("a.txt") in ("1girl", "new")
    assert bench.read("ep/b.txt") in ("1boy", "new")
    if list_journals(bench.state):
        bench.recover()
        assert (bench.read("a.txt"), bench.read("s2/copy.png")) == ("new", "picture a")
        bench.undo()
    assert bench.is_as_at_first()


@posix_only
def test_a_folder_that_turned_read_only_stops_the_run_with_a_clear_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("journals", "dropped"):
        (bench.state / name).mkdir(parents=True)
    with monkeypatch.context() as patch:
        failing_at(patch, "mkdir", 2, errno.EACCES)
        with pytest.raises(JournalError, match="may not be changed: it is open in another program") as error:
            bench.apply(Write(Path("one/x"), "x"), Write(Path("two/y"), "y"))
    assert "celforge undo" in error.value.hint
    bench.recover()
    assert {"one/x", "two/y"} <= bench.names()


# What changed since


def test_undo_refuses_with_a_list_and_touches_nothing(bench: Bench) -> None:
    bench.apply(
        Move(Path("ep"), Path("moved")),
        Place(Path("a.png"), Path("set/link.png"), "hardlink"),
        Place(Path("a.png"), Path("set/copy.png"), "copy"),
        Place(Path("a.png"), Path("set/gone.png"), "copy"),
        Write(Path("new.txt"), "new"),
        Write(Path("a.txt"), "new", expects=sha256("1girl")),
    )
    build(bench.root, {"ep": "in the way"})
    for name in ("set/link.png", "set/copy.png", "set/gone.png"):
        (bench.root / name).unlink()
    build(
        bench.root,
        {"set/link.png": "edited", "set/copy.png": "edited", "new.txt": "edited", "a.txt": "edited"},
    )
    edited = look(bench.root)
    with pytest.raises(JournalError) as error:
        bench.undo()
    assert look(bench.root) == edited
    assert "files changed since: 6" in error.value.message
    for text in ("ep is in the place", "link.png was edited", "copy.png was edited", "gone.png is gone"):
        assert text in error.value.message
    assert "celforge undo --force" in error.value.hint
    journal = bench.undo(force=True)
    aside = bench.state / "dropped/undo-000001"
    assert {name: (aside / name).read_text() for name in ("ep", "set/link.png", "new.txt", "a.txt")} == {
        "ep": "in the way",
        "set/link.png": "edited",
        "new.txt": "edited",
        "a.txt": "edited",
    }
    assert look(bench.root) == bench.start
    assert len(journal.notes) == 6


def test_undo_keeps_the_last_copy_of_a_picture(bench: Bench) -> None:
    bench.apply(
        Place(Path("a.png"), Path("set/link.png"), "hardlink"),
        Place(Path("a.txt"), Path("set/a.txt"), "copy"),
    )
    (bench.root / "a.png").unlink()
    (bench.root / "a.txt").unlink()
    with pytest.raises(JournalError, match="is the only one left"):
        bench.undo()
    bench.undo(force=True)
    aside = bench.state / "dropped/undo-000001/set"
    assert [(aside / name).read_text() for name in ("link.png", "a.txt")] == ["picture a", "1girl"]


def test_undo_takes_a_placed_file_whose_source_was_edited_in_place(bench: Bench) -> None:
    bench.apply(Place(Path("a.png"), Path("set/a.png"), "hardlink"))
    with (bench.root / "a.png").open("ab") as file:
        file.write(b", retouched")
    bench.undo()
    assert bench.read("a.png") == "picture a, retouched"
    assert not (bench.root / "set").exists()


def test_undo_brings_back_the_edit_of_a_moved_file(bench: Bench) -> None:
    bench.apply(Move(Path("a.txt"), Path("texts/a.txt")))
    (bench.root / "texts/a.txt").write_text("by hand")
    bench.undo()
    assert bench.read("a.txt") == "by hand"


def test_undo_leaves_a_folder_of_ours_that_holds_files_by_now(bench: Bench) -> None:
    bench.apply(Write(Path("set/a.txt"), "a"))
    build(bench.root, {"set/theirs.txt": "theirs"})
    journal = bench.undo()
    assert bench.names() >= {"set/theirs.txt"}
    assert "set/a.txt" not in bench.names()
    assert "stays" in journal.notes[0]


def test_a_moved_thing_that_is_gone_stops_the_undo_and_force_goes_on(bench: Bench) -> None:
    bench.apply(Move(Path("a.png"), Path("x")), Move(Path("a.txt"), Path("y")))
    (bench.root / "x").unlink()
    with pytest.raises(JournalError, match="is gone and cannot be moved back"):
        bench.undo()
    assert "y" in bench.names()
    bench.undo(force=True)
    assert "a.txt" in bench.names()


# Another disk


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to and from which nothing can be renamed, as on another disk."""
    far = tmp_path / "far"
    far.mkdir()

    def rename(source: Path, destination: Path) -> None:
        if source.is_relative_to(far) != destination.is_relative_to(far):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename_new(source, destination)

    def half(source: Path, destination: Path) -> bool:
        return relocation.is_same_tree(source, destination)

    monkeypatch.setattr(relocation, "rename_new", rename)
    monkeypatch.setattr("pipeline.steps.is_half_moved", half)
    return far


def test_folders_and_links_move_to_another_disk_and_back(bench: Bench, far: Path) -> None:
    build(bench.root, {"ep/link": "-> b.png", "ep/void/": ""})
    (bench.root / "ep/deep").chmod(0o550)
    bench.start = look(bench.root)
    bench.apply(Move(Path("ep"), far / "ep"), Move(Path("a.png"), far / "a.png"))
    assert set(look(far)) >= {"ep/b.png", "ep/deep/c.png", "ep/link", "ep/void", "a.png"}
    assert "ep" not in bench.names()
    bench.undo()
    assert bench.is_as_at_first()
    assert look(far) == {}


def test_a_source_that_changes_while_it_is_copied_stays(
    bench: Bench, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(relocation, "is_same_tree", lambda first, second: False)
        with pytest.raises(JournalError, match="changed while it was copied"):
            bench.apply(Move(Path("ep"), far / "ep"))
    assert bench.read("ep/b.txt") == "1boy"
    assert look(far) == {}
    bench.recover()
    assert (far / "ep/b.txt").read_text() == "1boy"


@pytest.mark.parametrize("finish", ["recover", "undo"])
def test_a_half_moved_folder_is_told_by_its_equal_copy(bench: Bench, far: Path, finish: str) -> None:
    with pytest.raises(InterruptedRunError):
        bench.apply(Move(Path("ep"), far / "ep"), stop_after=0)
    shutil.copytree(bench.root / "ep", far / "ep")
    if finish == "recover":
        bench.recover()
        assert "ep" not in bench.names()
        assert (far / "ep/deep/c.png").read_text() == "picture c"
        bench.undo()
    else:
        bench.undo()
    assert bench.is_as_at_first()
    assert look(far) == {}


def test_a_copy_that_is_not_equal_is_nobody_s_to_remove(bench: Bench, far: Path) -> None:
    with pytest.raises(InterruptedRunError):
        bench.apply(Move(Path("ep"), far / "ep"), stop_after=0)
    shutil.copytree(bench.root / "ep", far / "ep")
    (far / "ep/b.txt").write_text("other")
    with pytest.raises(JournalError):
        bench.recover()
    with pytest.raises(JournalError):
        bench.undo()
    bench.undo(force=True)
    assert (bench.read("ep/b.txt"), (far / "ep/b.txt").read_text()) == ("1boy", "other")


# Anything at all

NAMES = st.sampled_from(["a", "b", "B", "é", "x.png", "x.txt", "日本", "a b"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: Path(*parts))
HOW = st.sampled_from(["hardlink", "copy", "symlink"])
CONTENTS = st.one_of(st.text(max_size=5), st.binary(max_size=5))
ACTIONS = st.lists(
    st.one_of(
        st.builds(Move, PATHS, PATHS),
        st.builds(Place, PATHS, PATHS, HOW),
        st.builds(Write, PATHS, CONTENTS),
        st.builds(Write, PATHS, CONTENTS, expects=st.just("as it is")),
        st.builds(MakeFolder, PATHS),
        st.builds(RemoveFolder, PATHS),
        st.builds(Drop, PATHS, st.just("why")),
    ),
    max_size=12,
)
TREES = st.dictionaries(
    PATHS, st.sampled_from(["file", "other file", "folder", "link", "hard link"]), max_size=10
)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder in memory, where there is one: nothing here is about the disk."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="celforge-test-", dir=base))
    yield folder
    shutil.rmtree(folder)


def any_tree(root: Path, tree: dict[Path, str]) -> None:
    files: list[Path] = []
    for path, kind in tree.items():
        try:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if kind == "folder":
                (root / path).mkdir()
            elif kind == "link":
                (root / path).symlink_to("a")
            elif kind == "hard link" and files:
                os.link(root / files[-1], root / path)
            elif not (root / path).is_dir():
                (root / path).write_text(f"{kind} {len(files)}")
                os.utime(root / path, ns=(10**18, 10**18 + len(files)))
                files.append(path)
        except OSError:  # the path leads through a file, or a link to nowhere
            continue


def possible(actions: list[Action], root: Path) -> list[Action]:
    """The actions that can be carried out one after the other; overwrites expect what is there."""
    kept: list[Action] = []
    contents: dict[Path, str] = {}
    for action in actions:
        if isinstance(action, Write) and action.expects is not None:
            path = root / action.path
            known = contents.get(action.path)
            if known is None and path.is_file():
                known = hashlib.sha256(path.read_bytes()).hexdigest()
            action = Write(action.path, action.content, expects=known)
        if Plan("any", [*kept, action]).problems(root):
            continue
        kept.append(action)
        if isinstance(action, Write):
            data = action.content if isinstance(action.content, bytes) else action.content.encode()
            contents[action.path] = hashlib.sha256(data).hexdigest()
    return kept


@posix_only
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREES, ACTIONS, st.integers(0, 30), st.booleans())
def test_any_plan_on_any_tree_is_taken_back_to_the_first_byte(
    scratch: Path, tree: dict[Path, str], actions: list[Action], stop_after: int, is_recovered: bool
) -> None:
    root = scratch / "any"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    any_tree(root, tree)
    bench, groups = Bench(root), linked(root)
    plan = possible(actions, root)
    try:
        journal = bench.apply(*plan, stop_after=stop_after)
    except InterruptedRunError:
        journal = bench.recover()[0] if is_recovered else list_journals(bench.state)[0]
    if journal is not None:
        bench.undo()
    assert bench.is_as_at_first()
    assert linked(root) == groups


@posix_only
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TREES, ACTIONS, st.integers(0, 30))
@example(
    {},
    [
        Write(Path("b"), ""),
        Place(Path("b"), Path("a"), "hardlink"),
        Write(Path("b"), "", expects="as it is"),  # what it holds already: it stays one file with its link
    ],
    0,
)
def test_any_plan_ends_alike_whether_interrupted_or_not(
    scratch: Path, tree: dict[Path, str], actions: list[Action], stop_after: int
) -> None:
    looks = []
    for stop in (None, stop_after):
        root = scratch / "any"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        any_tree(root, tree)
        bench = Bench(root)
        try:
            bench.apply(*possible(actions, root), stop_after=stop)
        except InterruptedRunError:
            bench.recover()
        looks.append((look(root, times=False), linked(root)))
    assert looks[0] == looks[1]
