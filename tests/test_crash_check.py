"""Kill `check --fix` at every note of its journal and at lines between: running it again mends the rest, undo gives
every byte back.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.journal import list_journals
from tests.conftest import Celforge
from tests.crashing import KILLED, at_note, points, run_until_line
from tests.trees import Tree, build, look

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

MODULES = (
    "check.py",
    "mending.py",
    "journal.py",
    "records.py",
    "steps.py",
    "content_steps.py",
    "files.py",
    "renaming.py",
)
START = {
    "mai/a.Png": "not opened",
    "mai/a.txt": "\ufeffmai, smile",
    "mai/b.jfif": "not opened",
    "mai/b.jfif.txt": "mai, hat",
    "mai/c.png": "not opened",
    "mai/c.txt": "mai",
    "mai/deep/d.png": "not opened",
    "mai/deep/d.txt": "mai",
    "mai/deep/multiply.txt.txt": "2",
    "aoba/Multiply.TXT": "\ufeff3",
    "aoba/a.png": "not opened",
    "aoba/a.txt": "aoba",
}
MENDED = {"mai/a.png", "mai/b.jpg", "mai/b.txt", "mai/deep/multiply.txt", "aoba/multiply.txt"}


@pytest.fixture
def mend(celforge: Celforge, tmp_path: Path) -> Callable[[], None]:
    def work() -> None:
        flags = ("--fix", "--decode", "none", "--for", "both", "--copy-captions", "caption")
        assert celforge("check", tmp_path / "tree", *flags).exit_code in (0, 3)

    return work


def planted(root: Path) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    return build(root, START)


def mended_in_one_go(root: Path, mend: Callable[[], None]) -> tuple[Tree, Tree]:
    before = look(planted(root), times=False)
    mend()
    after = look(root, times=False)
    assert before.keys() >= {"mai/a.Png"}
    assert after.keys() >= MENDED
    assert after["mai/a.txt"][1] == after["mai/a.caption"][1] == b"mai, smile"
    assert after["mai/b.caption"][1] == b"mai, hat"
    assert after["aoba/multiply.txt"][1] == b"3"
    return before, after


def check_what_is_left(
    root: Path, mend: Callable[[], None], celforge: Celforge, states: tuple[Tree, Tree], *, again: bool
) -> None:
    """Run it again, or take it back, and compare; a kill before the journal was there left nothing to do."""
    before, after = states
    is_begun = bool(list_journals(root / ".celforge"))
    if again or not is_begun:
        assert is_begun or look(root, times=False) == before
        mend()
        assert look(root, times=False) == after
    assert celforge("undo", root).exit_code == 0
    assert look(root, times=False) == before


@pytest.mark.parametrize("is_after", [False, True])
def test_killed_at_any_note_of_the_journal(
    tmp_path: Path, celforge: Celforge, mend: Callable[[], None], is_after: bool
) -> None:
    root = tmp_path / "tree"
    states = mended_in_one_go(root, mend)
    number = 1
    while (code := at_note(number, after=is_after)(lambda: (planted(root), mend()))) != 0:
        assert code == KILLED
        check_what_is_left(root, mend, celforge, states, again=bool(number % 2))
        number += 1
    assert number > len(MENDED), "every step was met"


def test_killed_in_the_middle_of_a_step(tmp_path: Path, celforge: Celforge, mend: Callable[[], None]) -> None:
    root = tmp_path / "tree"
    states = mended_in_one_go(root, mend)
    planted(root)
    code, lines = run_until_line(mend, MODULES, None)
    assert code == 0
    for number, line in enumerate(points(lines, 16, seed=7)):
        planted(root)
        assert run_until_line(mend, MODULES, line)[0] == KILLED
        check_what_is_left(root, mend, celforge, states, again=bool(number % 2))


def test_an_undo_that_is_killed_goes_on(tmp_path: Path, celforge: Celforge, mend: Callable[[], None]) -> None:
    root = tmp_path / "tree"
    before, _ = mended_in_one_go(root, mend)
    number = 1
    while True:
        planted(root)
        mend()
        if at_note(number, after=bool(number % 2))(lambda: celforge("undo", root)) == 0:
            break
        if not list_journals(root / ".celforge")[-1].is_undone:
            assert celforge("undo", root).exit_code == 0
        assert look(root, times=False) == before
        number += 1
    assert number > len(MENDED)
