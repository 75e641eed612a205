"""Kill the process at many lines of an apply and of an undo; everything must come out whole."""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.journal import apply_plan, list_journals, recover, undo_last
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
from tests.crashing import KILLED, points, run_until_line
from tests.trees import FileCatalog, Tree, build, linked, look

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

MODULES = (
    "journal.py",
    "records.py",
    "steps.py",
    "content_steps.py",
    "relocate.py",
    "files.py",
    "renaming.py",
    "touched.py",
)
NUM_POINTS = 40
START = {
    "ep1/a.png": "picture a",
    "ep1/a.txt": "1girl, by hand",
    "ep1/b.png": "picture b",
    "ep1/b.txt": "1boy",
    "ep1/link": "-> b.png",
    "ep2/deep/c.png": "picture c",
    "ep2/deep/c.txt": "c",
    "ep2/none/": "",
    "empty/": "",
    "full/kept.txt": "kept",
    "swap/x": "this was x",
    "swap/y": "this was y",
    "dölt ö.png": "d",
}


class Project:
    """A tree, a second disk where there is one, and a plan that uses everything."""

    def __init__(self, folder: Path, far: Path) -> None:
        self.root = build(folder / "project", START)
        self.far = build(far, {"show/1/e.png": "picture e", "show/1/e.txt": "e", "show/l": "-> 1/e.png"})
        os.link(self.root / "ep1/a.png", self.root / "ep1/a2.png")
        os.chmod(self.root / "ep1/b.txt", 0o640)
        self.state = self.root / ".celforge"
        self.catalog = FileCatalog(self.state / "catalog.json")
        with self.catalog.transaction():
            self.catalog.write_outcome("c1", "dedupe", {"outcome": "kept", "reason": "", "detail": ""})

    def plan(self) -> Plan:
        root, far = self.root, self.far
        old = hashlib.sha256(b"1boy").hexdigest()
        new = hashlib.sha256(b"1boy, solo").hexdigest()
        actions: list[Action] = [
            Place(root / "ep1/a.png", root / "set/1_a/a.png", "hardlink", "arranged", or_copy=True),
            Place(root / "ep1/b.png", root / "set/1_a/b.png", "copy", "arranged"),
            Place(root / "ep1/b.png", root / "set/b link.png", "symlink", "arranged"),
            Write(root / "set/1_a/a.txt", "1girl", "caption"),
            Write(root / "ep1/b.txt", "1boy, solo", "caption", expects=old),
            Write(root / "ep1/b.txt", b"\xff\x00", "caption", expects=new),
            Move(root / "ep1/a.txt", root / "texts/a.txt", "sorted"),
            Move(root / "ep2", root / "series/two", "sorted"),
            Write(root / "series/two/new.txt", "n", "caption"),
            Move(far / "show", root / "series/far", "sorted"),
            Move(root / "dölt ö.png", far / "d.png", "sorted"),
            Move(root / "swap/x", root / "swap/z", "swapped"),
            Move(root / "swap/y", root / "swap/x", "swapped"),
            Move(root / "swap/z", root / "swap/y", "swapped"),
            Drop(root / "ep1/link", "a link"),
            Drop(root / "ep1/a2.png", "same", "as a.png"),
            RemoveFolder(root / "empty"),
            RemoveFolder(root / "full"),
            MakeFolder(root / "made/deep"),
            Move(root / "series/two/deep", root / "made/deep/er", "sorted again"),
            SetOutcome("c1", "dedupe", "dropped", "same"),
            SetFact("c1", "characters", ["Asuka"], "dedupe"),
        ]
        return Plan("arrange", actions)

    def apply(self) -> None:
        apply_plan(self.plan(), self.root, self.state, self.catalog)

    def recover(self) -> None:
        recover(self.root, self.state, self.catalog)

    def undo(self) -> None:
        undo_last(self.root, self.state, self.catalog)

    def look(self, *, times: bool) -> tuple[Tree, Tree, set[frozenset[str]], object]:
        inside = look(self.root, times=times, state=True)
        for name in ("dropped", "undo", ""):  # folders of our own may be there or not
            inside.pop(os.path.join(".celforge", name).rstrip("/"), None)
        return inside, look(self.far, times=times), linked(self.root), self.catalog.rows


@pytest.fixture
def far_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another disk, so that renames to it fail; the same disk where there is no other."""
    for base in (Path("/dev/shm"), Path("/run/shm")):
        if base.is_dir() and os.access(base, os.W_OK) and base.stat().st_dev != tmp_path.stat().st_dev:
            folder = base / f"celforge-test-{os.getpid()}"
            folder.mkdir()
            yield folder
            shutil.rmtree(folder)
            return
    yield tmp_path / "far"


@pytest.fixture
def fresh(tmp_path: Path, far_disk: Path) -> Callable[[], Project]:
    """Make the project anew."""

    def make() -> Project:
        for folder in (tmp_path / "project", far_disk):
            shutil.rmtree(folder, ignore_errors=True)
        far_disk.mkdir()
        return Project(tmp_path, far_disk)

    return make


def crash_points(work: Callable[[], object], seed: int) -> list[int]:
    code, total = run_until_line(work, MODULES, None)
    assert code == 0
    assert total > 1000
    return points(total, NUM_POINTS, seed)


def test_a_killed_apply_is_finished_to_the_same_tree(fresh: Callable[[], Project]) -> None:
    project = fresh()
    project.apply()
    wanted = project.look(times=False)
    for line in crash_points(fresh().apply, seed=1):
        project = fresh()
        assert run_until_line(project.apply, MODULES, line)[0] == KILLED
        project.recover()
        if not list_journals(project.state):
            project.apply()
        assert project.look(times=False) == wanted, line


def test_a_killed_apply_is_taken_back_to_the_first_byte(fresh: Callable[[], Project]) -> None:
    start = fresh().look(times=True)
    for line in crash_points(fresh().apply, seed=2):
        project = fresh()
        assert run_until_line(project.apply, MODULES, line)[0] == KILLED
        if list_journals(project.state):
            project.undo()
        assert project.look(times=True) == start, line


@pytest.mark.parametrize("again", ["undo", "recover"])
def test_a_killed_undo_is_finished_as_undo(fresh: Callable[[], Project], again: str) -> None:
    start = fresh().look(times=True)
    project = fresh()
    project.apply()
    for line in crash_points(project.undo, seed=3)[again == "recover" :: 2]:
        project = fresh()
        project.apply()
        assert run_until_line(project.undo, MODULES, line)[0] == KILLED
        if again == "recover":
            project.recover()
        try:
            project.undo()
        except InputError:
            assert list_journals(project.state)[-1].is_undone
        assert project.look(times=True) == start, line


def test_an_apply_killed_twice_is_still_taken_back(fresh: Callable[[], Project]) -> None:
    start = fresh().look(times=True)
    for first, second in zip(
        crash_points(fresh().apply, 4)[::4], points(1200, NUM_POINTS, 5)[::4], strict=True
    ):
        project = fresh()
        assert run_until_line(project.apply, MODULES, first)[0] == KILLED
        run_until_line(project.recover, MODULES, second)
        if list_journals(project.state):
            project.undo()
        assert project.look(times=True) == start, (first, second)
