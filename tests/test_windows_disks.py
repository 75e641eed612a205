"""What other disks and Windows refuse, feigned here: it is said before anything is touched, or got round."""

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.files import relative_path, remove_folder
from pipeline.plan import Move, Place, PlaceFolder, Plan
from pipeline.steps import MoveStep
from pipeline.touched import Touched
from tests.conftest import Celforge
from tests.trees import build, look

TREE = {"A/1.png": "1", "A/1.txt": "one", "A/multiply.txt": "2", "B/2.png": "2"}


def refuse(number: int, text: str, **more: Any) -> Any:
    def call(*_: object, **__: object) -> None:
        error = OSError(number, text)
        for name, value in more.items():
            setattr(error, name, value)
        raise error

    return call


@pytest.mark.parametrize(
    ("to", "call", "error", "words"),
    [
        ("hardlink", "link", refuse(errno.EPERM, "Operation not permitted"), "cannot make a hard link"),
        ("symlink", "symlink", refuse(errno.EPERM, "Operation not permitted"), "cannot make a symbolic link"),
        (
            "symlink",
            "symlink",
            refuse(errno.EINVAL, "A required privilege is not held by the client", winerror=1314),
            "Windows does not let this account make symbolic links",
        ),
    ],
    ids=["exfat hard", "exfat symbolic", "no privilege"],
)
def test_links_that_cannot_be_made_are_said_before_anything_is_touched(
    tmp_path: Path,
    celforge: Celforge,
    monkeypatch: pytest.MonkeyPatch,
    to: str,
    call: str,
    error: Any,
    words: str,
) -> None:
    root = build(tmp_path / "set", TREE)
    before = look(root)
    with monkeypatch.context() as disk:
        disk.setattr(os, call, error)
        answer = celforge("flatten", root, "--to", to)
    assert answer.exit_code != 0
    assert words in answer.stderr
    assert "touched nothing" in answer.stderr
    assert ".partial" not in answer.stderr
    assert look(root) == before
    assert not (tmp_path / "set-kohya").exists()
    assert celforge("flatten", root, "--to", "copy").exit_code == 0, "no journal is left open"


def test_an_output_on_another_drive_has_its_way_back(
    tmp_path: Path, celforge: Celforge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No relative path leads from D: to C:, and os.path.relpath says so by a ValueError."""
    root, out = build(tmp_path / "set", TREE), tmp_path / "other" / "kohya"
    out.parent.mkdir()
    before = look(root)

    def relpath(path: Any, start: Any) -> str:
        raise ValueError(f"path is on mount {path!r}, start on mount {start!r}")

    with monkeypatch.context() as drives:
        drives.setattr(os.path, "relpath", relpath)
        assert relative_path(root, out) == str(root)
        for to in ("toml", "symlink"):
            answer = celforge("flatten", root, "--to", to, "--output", out)
            assert answer.exit_code == 0, answer.stderr
            assert (out / "dataset.toml").is_file()
            answer = celforge("flatten", root, "--revert", "--output", out)
            assert answer.exit_code == 0, answer.stderr
            assert not out.exists()
    assert look(root) == before


def test_paths_that_windows_does_not_take_are_said_before_anything_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = build(tmp_path, TREE)
    room = 259 - len(f"{root}{os.sep}")
    monkeypatch.setattr("pipeline.names.takes_long_paths", lambda: False)
    fits, long = "x" * room, "x" * (room + 1)
    temporary = "y" * (room - 26)  # beside it stands .name.0123456789abcdef.partial for a moment

    def problems(*actions: Any) -> list[str]:
        return Plan("test", actions).problems(root)

    assert problems(Move(Path("A"), Path(fits))) == []
    (problem,) = problems(Move(Path("A"), Path(long)))
    assert problem.endswith("has 260 characters, and Windows takes 259 here; see celforge doctor")
    assert problems(Place(Path("A/1.png"), Path(temporary), "copy")) == []
    assert len(problems(Place(Path("A/1.png"), Path(temporary + "y"), "copy"))) == 1
    deep = "z" * (room - 26 - len("/1.png"))
    assert problems(PlaceFolder(Path("A"), Path(deep), ("1.png",), "copy")) == []
    assert len(problems(PlaceFolder(Path("A"), Path(deep + "z"), ("1.png",), "copy"))) == 1
    assert problems(Move(Path("A"), Path(long), as_is=True)) == [], "the disk had that name before"
    monkeypatch.setattr("pipeline.names.takes_long_paths", lambda: True)
    assert problems(Move(Path("A"), Path(long))) == []


def test_steps_outside_the_project_meet_on_windows_too() -> None:
    """Their paths are stored as the system writes them; a folder moved there is above what follows."""
    touched = Touched()
    assert not touched.meets(MoveStep("A", r"D:\kohya\2_A", "folder", ""))
    assert not touched.meets(MoveStep("B", r"D:\kohya\2_B", "folder", ""))
    assert touched.meets(MoveStep("C/1.png", r"d:\kohya\2_A\1.png", "file", ""))


def test_an_empty_folder_that_is_marked_read_only_is_removed_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cloud"
    folder.mkdir(mode=0o555)
    really = Path.rmdir

    def rmdir(path: Path) -> None:
        if not path.stat().st_mode & stat.S_IWRITE:
            raise PermissionError(errno.EACCES, "Access is denied", str(path))
        really(path)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    with pytest.raises(PermissionError):
        remove_folder(folder)
    monkeypatch.setattr("pipeline.files.sys", SimpleNamespace(platform="win32"))
    remove_folder(folder)
    assert not folder.exists()
