"""Kill flatten and its way back before and after every note of the journal, and at lines between; all comes out
whole.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

from pipeline.flattening.runs import How, flatten_beside, flatten_in_place, take_back
from pipeline.job import open_job
from pipeline.journal import list_journals, recover, undo_last
from tests.crashing import KILLED, at_note, points, run_until_line
from tests.trees import Tree, build, look

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

MODULES = (
    "journal.py",
    "records.py",
    "steps.py",
    "folder_steps.py",
    "content_steps.py",
    "relocate.py",
    "files.py",
    "renaming.py",
)
HOW = How(fractions="split", seed=0, max_scale=10, separator="~", is_flat_wanted=False)
START = {
    "A/a.png": "a",
    "A/a.txt": "1girl",
    "A/multiply.txt": "2",
    "A/B/b.png": "b",
    "A/B/link.png": "-> ../a.png",
    "A/none/": "",
    "C/D/1.png": "1",
    "C/D/1.txt": "one",
    "C/D/2.png": "2",
    "C/D/3.png": "3",
    "C/D/multiply.txt": "1.4",
    "r.png": "r",
    "1_A/x.png": "x",
}
NEW = {"1_A~B/b.txt": "new caption", "2_A/a.txt": "edited", "1__root/r.txt": "r"}


class Flat:
    """A tree and what is done to it."""

    def __init__(self, base: Path, step: str) -> None:
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir()
        self.root = build(base / "tree", START)
        self.out = base / "out"
        self.step = step
        if step == "back":
            self._in_place()
            for name, text in NEW.items():
                (self.root / name).write_text(text)
                os.utime(self.root / name, ns=(10**18, 10**18))

    def _in_place(self) -> None:
        with open_job(self.root, "flatten") as job:
            flatten_in_place(job, HOW, writes_toml=True)

    def work(self) -> None:
        if self.step == "in place":
            self._in_place()
            return
        with open_job(self.root, "flatten") as job:
            if self.step == "back":
                take_back(job, None)
            else:
                flatten_beside(job, HOW, "hardlink", self.out)

    def look(self) -> tuple[Tree, Tree]:
        return tuple(_timeless(look(folder)) if folder.exists() else {} for folder in (self.root, self.out))  # type: ignore[return-value]

    @property
    def state(self) -> Path:
        return self.root / ".celforge"

    def is_begun(self) -> bool:
        return any(journal.is_open for journal in list_journals(self.state))


def _timeless(tree: Tree) -> Tree:
    """Without the time of what flatten writes: the TOML's own, and that inside the manifest."""
    for name in {".flatten.json", ".celforge-made", "dataset.toml"} & tree.keys():
        tree[name] = ("file",) if name == ".flatten.json" else tree[name][:2]
    return tree


STEPS = ["in place", "back", "beside"]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_it_is_finished_or_taken_back(tmp_path: Path, step: str) -> None:
    base = tmp_path / "base"
    flat = Flat(base, step)
    start = flat.look()
    flat.work()
    wanted = flat.look()
    assert wanted != start
    for after in (False, True):
        number = 0
        while True:
            number += 1
            flat = Flat(base, step)
            code = at_note(number, after=after)(flat.work)
            if code == 0:
                break
            assert code == KILLED
            if number % 2:
                recover(flat.root, flat.state)
                assert flat.look() == wanted, (number, after)
            elif flat.is_begun():
                undo_last(flat.root, flat.state)
                assert flat.look() == start, (number, after)
        assert number > 6, "every step was met"


@pytest.mark.parametrize("step", STEPS)
def test_killed_in_the_middle_of_a_step_it_is_finished_or_taken_back(tmp_path: Path, step: str) -> None:
    base = tmp_path / "base"
    flat = Flat(base, step)
    start = flat.look()
    code, lines = run_until_line(flat.work, MODULES, None)
    assert code == 0
    wanted = flat.look()
    for number, line in enumerate(points(lines, 12, seed=len(step))):
        flat = Flat(base, step)
        assert run_until_line(flat.work, MODULES, line)[0] == KILLED
        if not flat.is_begun():
            assert flat.look() in (start, wanted), line
        elif number % 2:
            recover(flat.root, flat.state)
            assert flat.look() == wanted, line
        else:
            undo_last(flat.root, flat.state)
            assert flat.look() == start, line


@pytest.mark.parametrize("step", STEPS)
def test_an_undo_that_is_killed_goes_on(tmp_path: Path, step: str) -> None:
    base = tmp_path / "base"
    start = Flat(base, step).look()
    number = 0
    while True:
        number += 1
        flat = Flat(base, step)
        flat.work()
        if at_note(number, after=bool(number % 2))(lambda flat=flat: undo_last(flat.root, flat.state)) == 0:  # type: ignore[misc]
            break
        recover(flat.root, flat.state)
        if not list_journals(flat.state)[-1].is_undone:
            undo_last(flat.root, flat.state)
        assert flat.look() == start, number
    assert number > 4
