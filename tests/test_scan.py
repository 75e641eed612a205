import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import scan
from pipeline.catalog import Catalog
from pipeline.made_folders import mark_made
from pipeline.media_names import kind_of
from pipeline.project import Project
from pipeline.scan import index_folder, media_files, note_made, survey

OLD_NS = 1_600_000_000_123_456_789


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / ".celforge").mkdir()
    return Project(tmp_path)


@pytest.fixture
def catalog(project: Project) -> Iterator[Catalog]:
    with Catalog.open(project.catalog_path) as opened:
        yield opened


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    names: list[str] = []
    original = scan.hash_file

    def counting(path: Path) -> str:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(scan, "hash_file", counting)
    return names


def put(path: Path, data: bytes, mtime_ns: int = OLD_NS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def index(catalog: Catalog, project: Project, folder: Path | None = None) -> list[str]:
    assert index_folder(catalog, project, folder or project.root, ("image",), workers=2) == []
    return [file.relative for file in media_files(catalog, project, folder or project.root, ("image",))]


def test_pictures_at_any_depth_are_found_in_natural_order(project: Project, catalog: Catalog) -> None:
    for name in ("b/10.png", "b/9.PNG", "a.webp", "b/c/d/é 猫.jpeg", "b/notes.txt", "b/v.mkv"):
        put(project.root / name, name.encode())
    assert index(catalog, project) == ["a.webp", "b/9.PNG", "b/10.png", "b/c/d/é 猫.jpeg"]
    assert index(catalog, project, project.root / "b" / "c") == ["b/c/d/é 猫.jpeg"]


def test_folders_that_celforge_filled_are_met_only_when_given(project: Project, catalog: Catalog) -> None:
    for name in ("frames/a.png", "dataset/1/a.png", "dataset/b.png"):
        put(project.root / name, b"a")
    (write,) = mark_made(project.root / "dataset", "arrange")
    put(write.path, write.content.encode())
    assert index(catalog, project) == ["frames/a.png"]
    assert survey(catalog, project, project.root, ("image",)).made == ["dataset"]
    assert index(catalog, project, project.root / "dataset") == ["dataset/1/a.png", "dataset/b.png"]
    assert index(catalog, project, project.root / "dataset/1") == ["dataset/1/a.png"]
    assert index(catalog, project) == ["frames/a.png"]  # known by now, and passed over all the same
    assert survey(catalog, project, project.root, ("image",)).gone == 0
    assert not list(mark_made(project.root / "dataset", "arrange"))


def test_hidden_files_and_litter_are_passed_over(project: Project, catalog: Catalog) -> None:
    for name in (".hidden/a.png", "__MACOSX/a.png", "@eaDir/a.png", "._a.png", "keep/a.png"):
        put(project.root / name, b"1")
    assert index(catalog, project) == ["keep/a.png"]


def test_unchanged_files_are_not_read_again(project: Project, catalog: Catalog, hashed: list[str]) -> None:
    put(project.root / "a.png", b"1")
    put(project.root / "b.png", b"2")
    index(catalog, project)
    assert sorted(hashed) == ["a.png", "b.png"]
    hashed.clear()
    index(catalog, project)
    assert hashed == []
    put(project.root / "b.png", b"3", OLD_NS + 1)
    index(catalog, project)
    assert hashed == ["b.png"]


def test_a_file_written_this_very_moment_is_read_again_next_time(
    project: Project, catalog: Catalog, hashed: list[str]
) -> None:
    now = scan.time.time_ns()
    path = put(project.root / "a.png", b"1", now)
    index(catalog, project)
    put(path, b"2", now)  # same size, same mtime: only its bytes differ
    (relative,) = index(catalog, project)
    assert hashed == ["a.png", "a.png"]
    (file,) = media_files(catalog, project, project.root, ("image",))
    assert file.content == "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35"  # sha256 of "2"
    assert relative == "a.png"


def test_what_is_known_follows_a_file_that_is_moved_and_renamed(project: Project, catalog: Catalog) -> None:
    path = put(project.root / "ep01" / "a.png", b"1")
    index(catalog, project)
    (before,) = media_files(catalog, project, project.root, ("image",))
    catalog.set_fact(before.id, "characters", ["sabine"], "hand", by_hand=True)
    (project.root / "best").mkdir()
    path.rename(project.root / "best" / "sabine smiles.png")
    assert index(catalog, project) == ["best/sabine smiles.png"]
    (after,) = media_files(catalog, project, project.root, ("image",))
    assert after.id == before.id
    assert catalog.fact(after.id, "characters") == ["sabine"]
    assert catalog.rows("SELECT COUNT(*) FROM paths").fetchone() == (1,)


def test_what_is_known_of_a_deleted_file_is_there_when_it_comes_back(
    project: Project, catalog: Catalog, hashed: list[str]
) -> None:
    path = put(project.root / "a.png", b"1")
    index(catalog, project)
    path.unlink()
    assert index(catalog, project) == []
    assert survey(catalog, project, project.root, ("image",)).gone == 0  # it is known to be gone
    put(path, b"1")
    hashed.clear()
    assert index(catalog, project) == ["a.png"]
    assert hashed == []


def test_a_deleted_folder_is_noticed(project: Project, catalog: Catalog) -> None:
    path = put(project.root / "ep01" / "a.png", b"1")
    put(project.root / "ep02" / "b.png", b"2")
    index(catalog, project)
    path.unlink()
    path.parent.rmdir()
    assert survey(catalog, project, project.root, ("image",)).gone == 1
    assert index(catalog, project) == ["ep02/b.png"]


def test_two_files_of_the_same_bytes_are_one_content(project: Project, catalog: Catalog) -> None:
    put(project.root / "a.png", b"1")
    put(project.root / "b.png", b"1")
    index(catalog, project)
    first, second = media_files(catalog, project, project.root, ("image",))
    assert first.id == second.id
    assert catalog.present_paths(first.id) == ["a.png", "b.png"]


def test_the_survey_writes_nothing_and_counts_what_changed(project: Project, catalog: Catalog) -> None:
    put(project.root / "same.png", b"1")
    put(project.root / "changed.png", b"2")
    gone = put(project.root / "gone.png", b"3")
    index(catalog, project)
    put(project.root / "changed.png", b"22")
    put(project.root / "new.png", b"4")
    gone.unlink()
    for _ in range(2):
        found = survey(catalog, project, project.root, ("image",))
        assert (found.unchanged, found.changed, found.new, found.gone) == (1, 1, 1, 1)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_links_to_files_are_read_and_links_to_folders_are_not_followed(
    project: Project, catalog: Catalog
) -> None:
    put(project.root / "real" / "a.png", b"1")
    (project.root / "linked.png").symlink_to(project.root / "real" / "a.png")
    (project.root / "loop").symlink_to(project.root)
    (project.root / "broken.png").symlink_to(project.root / "nowhere.png")
    problems = index_folder(catalog, project, project.root, ("image",))
    assert [problem.path.name for problem in problems] == ["broken.png"]
    files = media_files(catalog, project, project.root, ("image",))
    assert [file.relative for file in files] == ["linked.png", "real/a.png"]


@pytest.mark.skipif(os.name == "nt", reason="Windows names are always text")
def test_a_name_that_is_not_utf8_is_a_problem_and_the_others_are_read(
    project: Project, catalog: Catalog
) -> None:
    bad = os.fsencode(project.root) + b"/caf\xe9.png"
    with open(bad, "wb") as file:
        file.write(b"1")
    put(project.root / "good.png", b"2")
    (problem,) = index_folder(catalog, project, project.root, ("image",))
    assert "not valid UTF-8" in problem.reason
    assert len(media_files(catalog, project, project.root, ("image",))) == 1


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is closed to this user")
def test_a_closed_folder_is_a_problem_and_its_pictures_are_not_taken_for_deleted(
    project: Project, catalog: Catalog
) -> None:
    put(project.root / "closed" / "a.png", b"1")
    index(catalog, project)
    (project.root / "closed").chmod(0)
    try:
        (problem,) = index_folder(catalog, project, project.root, ("image",))
        assert "cannot be read" in problem.reason
        assert len(media_files(catalog, project, project.root, ("image",))) == 1
    finally:
        (project.root / "closed").chmod(0o700)


def test_a_folder_that_vanishes_while_it_is_read_is_a_problem(
    project: Project, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(project.root / "ep01" / "a.png", b"1")
    index(catalog, project)
    original = os.scandir

    def failing(path: Path) -> object:
        if Path(path).name == "ep01":
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", failing)
    (problem,) = index_folder(catalog, project, project.root, ("image",))
    assert problem.reason == "folder cannot be read: Permission denied"
    assert len(media_files(catalog, project, project.root, ("image",))) == 1


def test_being_asked_to_stop_keeps_what_was_hashed(project: Project, catalog: Catalog) -> None:
    for number in range(40):
        put(project.root / f"{number}.png", str(number).encode())

    class StopError(Exception):
        pass

    asked = iter(range(100))

    def check_stop() -> None:
        if next(asked) == 5:
            raise StopError

    with pytest.raises(StopError):
        index_folder(catalog, project, project.root, ("image",), check_stop=check_stop)
    assert len(media_files(catalog, project, project.root, ("image",))) == 5
    assert len(index(catalog, project)) == 40


def test_files_of_our_own_are_known_without_reading_them(
    project: Project, catalog: Catalog, hashed: list[str]
) -> None:
    put(project.root / "a.png", b"a")
    content = hashlib.sha256(b"a").hexdigest()
    catalog.add_media(content, "image", 1)
    note_made(catalog, project, {"a.png": content, "gone.png": content})
    assert index(catalog, project) == ["a.png"]
    assert hashed == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "image"),
        ("A.JPG", "image"),
        (".a.png", "image"),
        ("a.tar.Webp", "image"),
        ("a.mkv", "video"),
        (".png", None),
        ("..png", None),
        ("folder/.png", None),
        ("a.png.txt", None),
        ("png", None),
        ("a.", None),
    ],
)
def test_pictures_and_videos_are_told_by_their_suffix(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind
