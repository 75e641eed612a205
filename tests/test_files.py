import errno
import os
import sqlite3
import stat
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import DiskFullError, InputError
from pipeline.files import (
    How,
    disk_full_as_error,
    format_bytes,
    is_ignored_name,
    name_problem,
    natural_key,
    partial_path,
    path_key,
    place,
    remove_partials,
    remove_tree,
    safe_name,
    write_atomic,
    write_new,
)
from pipeline.renaming import rename_all_new, rename_new

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="a matter of POSIX disks")
OLD = 10**18 + 123_456_789
names_of = lambda folder: sorted(path.name for path in folder.iterdir())  # noqa: E731 - one word in many tests


def full_disk(*_: object, **__: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Writing


def test_a_written_file_holds_the_bytes_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.txt", "1girl,\r\nsolo é\n")
    write_atomic(tmp_path / "b.bin", b"\x00\xff", sync=False)
    assert (tmp_path / "a.txt").read_bytes() == "1girl,\r\nsolo é\n".encode()
    assert (tmp_path / "b.bin").read_bytes() == b"\x00\xff"
    assert names_of(tmp_path) == ["a.txt", "b.bin"]


@posix_only
def test_a_replaced_file_keeps_its_permissions_and_a_new_one_follows_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    mask = os.umask(0o027)
    try:
        write_atomic(path, "old")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    write_atomic(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_writing_breaks_a_hard_link_and_leaves_the_other_name_alone(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.txt", "old")
    os.link(tmp_path / "a.txt", tmp_path / "b.txt")
    write_atomic(tmp_path / "a.txt", "new")
    assert (tmp_path / "b.txt").read_text() == "old"


@posix_only
def test_writing_over_a_link_replaces_the_link(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.txt", "old")
    (tmp_path / "link").symlink_to("a.txt")
    write_atomic(tmp_path / "link", "new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("length", [255, 250])
def test_a_file_with_the_longest_name_can_be_written(tmp_path: Path, length: int) -> None:
    name = ("é" * (length // 2)).ljust(length - length // 2, "x")
    write_atomic(tmp_path / name, "x")
    assert names_of(tmp_path) == [name]


def test_new_files_are_never_written_over_one_that_exists(tmp_path: Path) -> None:
    write_new(tmp_path / "a.txt", "old")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names_of(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("call", ["fsync", "open", "replace"])
def test_a_full_disk_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    write_atomic(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(DiskFullError) as error:
        write_atomic(tmp_path / "a.txt", "new")
    monkeypatch.undo()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names_of(tmp_path) == ["a.txt"]
    assert f"writing a.txt in {tmp_path}" in str(error.value)
    assert "free; free some space and run the same command again" in str(error.value)


@posix_only
def test_a_real_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(DiskFullError), disk_full_as_error(tmp_path), open("/dev/full", "wb") as file:
        file.write(b"x" * 100_000)


def test_an_interrupt_while_writing_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a.txt", "new")
    assert names_of(tmp_path) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "full"),
        OSError(errno.EDQUOT, "quota"),
        sqlite3.OperationalError("database or disk is full"),
    ],
)
def test_every_kind_of_full_disk_is_one_error(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(DiskFullError), disk_full_as_error(tmp_path):
        raise error


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EACCES, "no"), sqlite3.OperationalError("database is locked"), ValueError("disk is full")],
)
def test_other_errors_pass_through(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, disk_full_as_error(tmp_path):
        raise error
    assert caught.value is error


# Placing


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"picture")
    path.chmod(0o640)
    os.utime(path, ns=(OLD, OLD))
    return path


def test_a_hard_link_is_the_same_file(picture: Path) -> None:
    assert place(picture, picture.with_name("b.png"), "hardlink") == "hardlink"
    assert picture.samefile(picture.with_name("b.png"))


def test_a_copy_keeps_bytes_time_and_permissions(picture: Path) -> None:
    copy = picture.with_name("b.png")
    assert place(picture, copy, "copy") == "copy"
    assert not picture.samefile(copy)
    assert (copy.read_bytes(), copy.stat().st_mtime_ns) == (b"picture", OLD)
    assert copy.stat().st_mode == picture.stat().st_mode


@posix_only
def test_a_symbolic_link_points_to_the_source(picture: Path) -> None:
    (picture.parent / "deep").mkdir()
    place(picture, picture.parent / "deep/full", "symlink")
    place(picture, picture.parent / "deep/relative", "symlink", relative_link=True)
    assert os.readlink(picture.parent / "deep/full") == str(picture)
    assert os.readlink(picture.parent / "deep/relative") == os.path.join("..", "a.png")


@posix_only
@pytest.mark.parametrize("how", ["hardlink", "copy"])
def test_a_source_that_is_a_link_is_followed(picture: Path, how: How) -> None:
    link = picture.with_name("link")
    link.symlink_to("a.png")
    (picture.parent / "deep").mkdir()
    place(link, picture.parent / "deep/b.png", how)
    assert not (picture.parent / "deep/b.png").is_symlink()
    assert (picture.parent / "deep/b.png").read_bytes() == b"picture"


def test_a_move_takes_the_file_and_its_time_along(picture: Path) -> None:
    place(picture, picture.with_name("b.png"), "move")
    assert names_of(picture.parent) == ["b.png"]
    assert picture.with_name("b.png").stat().st_mtime_ns == OLD


@posix_only
def test_a_move_to_another_disk_is_a_copy_and_then_a_removal(
    picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_renames_out_of(picture, monkeypatch)
    (picture.parent / "far").mkdir()
    place(picture, picture.parent / "far/b.png", "move")
    moved = picture.parent / "far/b.png"
    assert (moved.read_bytes(), moved.stat().st_mtime_ns) == (b"picture", OLD)
    assert not picture.exists()
    assert names_of(picture.parent / "far") == ["b.png"]


@posix_only
def test_a_move_to_a_full_disk_leaves_the_source(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_renames_out_of(picture, monkeypatch)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DiskFullError):
        place(picture, picture.with_name("b.png"), "move")
    assert names_of(picture.parent) == ["a.png"]


def no_renames_out_of(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let renames of one file fail as they do between disks."""
    from pipeline import files

    def rename(source: Path, destination: Path) -> None:
        if source == picture:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename_new(source, destination)

    monkeypatch.setattr(files, "rename_new", rename)


@pytest.mark.parametrize("how", ["hardlink", "copy", "symlink", "reflink", "move"])
@pytest.mark.parametrize("existing", ["file", "empty folder", "broken link"])
def test_nothing_that_exists_is_overwritten(picture: Path, how: How, existing: str) -> None:
    taken = picture.with_name("taken")
    if existing == "file":
        taken.write_bytes(b"theirs")
    elif existing == "empty folder":
        taken.mkdir()
    else:
        taken.symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        place(picture, taken, how, or_copy=True)
    assert names_of(picture.parent) == ["a.png", "taken"]
    assert not taken.is_file() or taken.read_bytes() == b"theirs"


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EINVAL])
def test_where_hard_links_fail_a_copy_is_made_only_if_asked_for(
    picture: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(InputError, match="choose copy instead"):
        place(picture, picture.with_name("b.png"), "hardlink")
    assert names_of(picture.parent) == ["a.png"]
    assert place(picture, picture.with_name("b.png"), "hardlink", or_copy=True) == "copy"


def test_a_reflink_shares_bytes_or_says_that_the_disk_cannot(picture: Path) -> None:
    clone = picture.with_name("b.png")
    try:
        place(picture, clone, "reflink")
    except InputError as error:
        assert "copy instead" in str(error)
        assert names_of(picture.parent) == ["a.png"]
        assert place(picture, clone, "reflink", or_copy=True) == "copy"
    assert (clone.read_bytes(), clone.stat().st_mtime_ns) == (b"picture", OLD)


@pytest.mark.parametrize("has_call", [True, False])
def test_files_of_a_folder_move_together_and_replace_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_call: bool
) -> None:
    if not has_call:
        monkeypatch.setattr("pipeline.renaming._renameat2", lambda: None)
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    names = ["a.png", "\u732b.png", "c.png", "d.png"]
    for name in names:
        (tmp_path / "here" / name).write_text(name)
    (tmp_path / "there" / "c.png").write_text("other")
    with pytest.raises(FileExistsError):
        rename_all_new(tmp_path / "here", tmp_path / "there", names)
    assert sorted(os.listdir(tmp_path / "here")) == ["c.png", "d.png"]
    assert (tmp_path / "there" / "c.png").read_text() == "other"
    (tmp_path / "there" / "c.png").unlink()
    rename_all_new(tmp_path / "here", tmp_path / "there", names[2:])
    assert {path.name: path.read_text() for path in (tmp_path / "there").iterdir()} == {n: n for n in names}
    with pytest.raises(FileNotFoundError):
        rename_all_new(tmp_path / "here", tmp_path / "there", ["gone.png"])


@pytest.mark.parametrize("is_atomic", [True, False])
def test_a_rename_replaces_neither_a_file_nor_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_atomic: bool
) -> None:

    if not is_atomic:
        monkeypatch.setattr("pipeline.renaming._renameat2", lambda: None)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "f").write_text("f")
    for source, destination in (("a", "b"), ("f", "b"), ("a", "f"), ("f", "f")):
        with pytest.raises(FileExistsError):
            rename_new(tmp_path / source, tmp_path / destination)
    with pytest.raises(FileNotFoundError):
        rename_new(tmp_path / "gone", tmp_path / "new")
    rename_new(tmp_path / "a", tmp_path / "A2")
    assert names_of(tmp_path) == ["A2", "b", "f"]


def test_names_that_differ_by_case_are_two_where_the_disk_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("small")
    if (tmp_path / "A.PNG").exists():
        rename_new(tmp_path / "a.png", tmp_path / "A.PNG")
        assert names_of(tmp_path) == ["A.PNG"]
        return
    os.link(tmp_path / "a.png", tmp_path / "A.PNG")
    with pytest.raises(FileExistsError):
        rename_new(tmp_path / "a.png", tmp_path / "A.PNG")
    assert names_of(tmp_path) == ["A.PNG", "a.png"]


def test_leftovers_of_one_file_are_removed_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("a")
    partial_path(tmp_path / "a.png").write_text("half")
    (partial_path(tmp_path / "a.png") / "deep").mkdir(parents=True)
    other = partial_path(tmp_path / "aa.png")
    other.write_text("half")
    assert remove_partials(tmp_path, "a.png") == 2
    assert names_of(tmp_path) == sorted(["a.png", other.name])
    assert remove_partials(tmp_path) == 1
    assert remove_partials(tmp_path / "gone") == 0
    assert names_of(tmp_path) == ["a.png"]


@posix_only
def test_removing_a_tree_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/a.png").write_text("a")
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/link").symlink_to(tmp_path / "theirs")
    (tmp_path / "tree/deep").chmod(0o500)
    remove_tree(tmp_path / "tree")
    assert names_of(tmp_path) == ["theirs"]
    assert names_of(tmp_path / "theirs") == ["a.png"]


# Names


def test_names_sort_as_people_count() -> None:
    wanted = ["a", "a/b", "a b/c", "ep", "Ep02", "ep2", "ep10", "ep10a", "ep10b", "Zoë"]
    mixed = wanted[::-1]
    assert sorted(mixed, key=natural_key) == wanted


def test_digits_of_any_length_sort() -> None:
    assert natural_key("9" * 5000) < natural_key("1" + "0" * 5000)


@given(st.lists(st.text(max_size=8), max_size=6))
def test_any_names_have_one_order(texts: list[str]) -> None:
    ordered = sorted(texts, key=natural_key)
    backwards = sorted(texts, key=natural_key, reverse=True)
    assert backwards == ordered[::-1]


@pytest.mark.parametrize(
    ("first", "second"), [("É.png", "e\u0301.PNG"), ("STRASSE", "straße"), ("Ω", "Ω"), ("\u0390", "\u1fd3")]
)
def test_one_key_for_names_that_some_disk_takes_for_one(first: str, second: str) -> None:
    assert path_key(first) == path_key(second)


@given(st.text())
def test_a_key_is_its_own_key(text: str) -> None:
    assert path_key(path_key(text)) == path_key(text)


@pytest.mark.parametrize(
    "name",
    [
        "a.png",
        "com10",
        "console.txt",
        ".hidden",
        "a b",
        "日本語.png",
        "x" * 255,
        "é" * 127,
        "aux-1",
        "con_.txt",
        "COM",
    ],
)
def test_good_names_have_no_problem(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "empty"),
        (".", "folder itself"),
        ("..", "folder itself"),
        ("a.", "dot or a space"),
        ("a ", "dot or a space"),
        ("CON", "device"),
        ("nul.tar.gz", "device"),
        ("Com1 .txt", "device"),
        ("lpt².png", "device"),
        ("conin$", "device"),
        ("a\tb", "control"),
        ("a\x7f", "control"),
        ("\udcff.png", "not valid Unicode"),
        ("x" * 256, "longer"),
        ("é" * 128, "longer"),
        *((f"a{character}b", "Windows does not allow") for character in '<>:"/\\|?*'),
    ],
)
def test_bad_names_say_why(name: str, problem: str) -> None:
    assert problem in (name_problem(name) or "")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Asuka Langley", "Asuka Langley"),
        ("Re:Zero", "Re_Zero-4d6aa730"),
        ("what?.png", "what_-1288e034.png"),
        ("CON.txt", "_CON-09c8cc7e.txt"),
        ("...", "ab5df625"),
        ("e\u0301", "é"),
    ],
)
def test_safe_names_stay_the_same_from_release_to_release(text: str, name: str) -> None:
    assert safe_name(text) == name


@given(st.text(), st.integers(24, 255))
@example("con .", 24)
@example("e" + "\u0301" * 300, 24)
@example("a?.b?.c", 24)
@example("x" * 24 + ".png", 24)
@example("\ud800", 24)
def test_any_text_gives_a_name_that_works_everywhere(text: str, max_bytes: int) -> None:
    name = safe_name(text, max_bytes=max_bytes)
    assert name_problem(name) is None
    assert len(name.encode()) <= max_bytes
    assert unicodedata.is_normalized("NFC", name)
    assert safe_name(name, max_bytes=max_bytes) == name


@given(st.text(alphabet='ab?:*. "é', max_size=40), st.text(alphabet='ab?:*. "é', max_size=40))
def test_different_texts_never_become_one_name(first: str, second: str) -> None:
    assert (safe_name(first, max_bytes=24) == safe_name(second, max_bytes=24)) == (first == second)


def test_safe_name_refuses_a_length_that_leaves_no_room() -> None:
    with pytest.raises(ValueError, match="24 to 255"):
        safe_name("a", max_bytes=20)


@pytest.mark.parametrize(
    "name", [".git", "@eaDir", "@EADIR", "__MACOSX", "Thumbs.db", "desktop.ini", ".a.0.partial"]
)
def test_what_other_software_leaves_is_ignored(name: str) -> None:
    assert is_ignored_name(name)


@pytest.mark.parametrize("name", ["a.png", "eaDir", "thumbs.png", "_x"])
def test_other_names_are_not_ignored(name: str) -> None:
    assert not is_ignored_name(name)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")],
)
def test_sizes_are_written_for_people(size_bytes: int, text: str) -> None:
    assert format_bytes(size_bytes) == text
