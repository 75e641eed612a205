import json
import multiprocessing
import sys
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from pipeline.errors import InputError, LockedError, SettingsError
from pipeline.project import Project, find_project, load_toml, locked, section_of


def test_the_nearest_project_at_or_above_a_folder_is_found(tmp_path: Path) -> None:
    deep = tmp_path / "anime" / "frames" / "ep01"
    deep.mkdir(parents=True)
    assert find_project(deep).root == deep
    (tmp_path / ".celforge").mkdir()
    assert find_project(deep).root == tmp_path
    (tmp_path / "anime" / "celforge.toml").touch()
    assert find_project(deep).root == tmp_path / "anime"


def test_a_missing_folder_says_which_part_exists(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder") as caught:
        find_project(tmp_path / "frmaes" / "ep01")
    assert str(tmp_path) in caught.value.hint


def test_a_file_given_as_a_folder_names_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match="is a file") as caught:
        find_project(tmp_path / "a.png")
    assert caught.value.hint.endswith(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[job]\nworkers = = 3", "line 2, column 11"),
        ("[dedup]\n", 'did you mean "dedupe"?'),
        ("workers = 3\n", "outside every section"),
    ],
)
def test_broken_toml_names_file_and_place(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "celforge.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_toml(path, {"job": None, "dedupe": None})
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


def test_toml_saved_by_notepad_is_read(tmp_path: Path) -> None:
    path = tmp_path / "celforge.toml"
    path.write_bytes("[job]\nmax_failures = '5'\n".encode("utf-8-sig").replace(b"\n", b"\r\n"))
    assert load_toml(path, {"job": None}) == {"job": {"max_failures": "5"}}


def test_toml_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "celforge.toml"
    path.write_bytes("[job] # é".encode("latin-1"))
    with pytest.raises(SettingsError, match="not UTF-8"):
        load_toml(path, {"job": None})


def test_a_list_of_tables_where_one_is_meant_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"must be written \[job\]"):
        section_of({"job": [{}]}, "job", Path("celforge.toml"))


def _hold(root: Path, held: Event, release: Event) -> None:
    sys.argv = ["celforge", "dedupe", "frames"]
    with locked(Project(root)):
        held.set()
        release.wait(20)


def test_a_second_process_is_told_who_works_there_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, held, release))
    holder.start()
    try:
        assert held.wait(20)
        with pytest.raises(LockedError) as caught, locked(Project(tmp_path)):
            pass
        assert "celforge dedupe frames" in str(caught.value)
        assert f"kill {holder.pid}" in str(caught.value)
    finally:
        holder.kill()
        holder.join()
    with locked(Project(tmp_path)):
        assert json.loads((tmp_path / ".celforge" / "lock.json").read_text())["pid"] != holder.pid
    assert not (tmp_path / ".celforge" / "lock.json").exists()
