"""`celforge check --fix`: what it mends is not found again, and undo gives every byte back."""

import sys
from pathlib import Path

import pytest
from pictures import noise, saved
from trainer_trees import EVERYDREAM, KOHYA, PIC, Checker, Content, bytes_below, found, plant

from pipeline.lint.traps import traps
from tests.conftest import Celforge

JPEG = saved(noise(512, 512), "JPEG")
BROKEN: dict[
    str, tuple[dict[str, Content], dict[str, Content], str]
] = {  # trap: (tree, what is added, flags)
    "suffix-case": (KOHYA, {"3_mai/x.Jpg": JPEG, "3_mai/x.caption": "x"}, ""),
    "format-not-read": (KOHYA, {"3_mai/x.jfif": JPEG, "3_mai/x.caption": "x"}, ""),
    "hidden-extension": (EVERYDREAM, {"aoba/deep/multiply.txt.txt": "2"}, ""),
    "control-file-case": (EVERYDREAM, {"aoba/deep/Multiply.TXT": "2"}, ""),
    "control-file-bom": (EVERYDREAM, {"aoba/deep/multiply.txt": b"\xef\xbb\xbf2"}, ""),
    "caption-bom": (EVERYDREAM, {"mai/m1.txt": "\ufeffmai, 笑顔\r\n"}, ""),
    "caption-not-utf8": (EVERYDREAM, {"mai/m1.txt": "mai, 笑顔".encode("utf-16")}, ""),
    "caption-named-after-file": (EVERYDREAM, {"mai/x.png": PIC, "mai/x.png.txt": "x"}, ""),
    "caption-extension": (
        {name.replace(".caption", ".txt"): content for name, content in KOHYA.items()},
        {},
        "--copy-captions caption",
    ),
}


@pytest.fixture
def look(celforge: Celforge, tmp_path: Path) -> Checker:
    return Checker(celforge, tmp_path / "tree")


@pytest.mark.parametrize("trap", BROKEN)
def test_fix_mends_and_undo_gives_every_byte_back(look: Checker, celforge: Celforge, trap: str) -> None:
    tree, added, flags = BROKEN[trap]
    assert trap in {name for name, _ in found(look(tree | added))}
    before = bytes_below(look.folder)
    planned = celforge("check", look.folder, "--fix", "--dry-run", *flags.split())
    assert "nothing was touched" in planned.stdout
    assert bytes_below(look.folder) == before
    answer = look({}, "--fix", *flags.split())
    assert answer["findings"] == []
    assert answer["exit_code"] == 0
    assert answer["mended"][trap] >= 1
    assert bytes_below(look.folder) != before
    assert found(look({})) == []
    assert look({}, "--fix", *flags.split())["mended"] == {}
    assert celforge("undo", look.folder).exit_code == 0
    assert bytes_below(look.folder) == before


def test_all_that_is_mended_is_tested_here() -> None:
    assert {trap.name for trap in traps().values() if trap.mended} | {"caption-extension"} == set(BROKEN)


def test_what_is_mended_says_the_same(look: Checker) -> None:
    look(
        EVERYDREAM | {"mai/m1.txt": "\ufeffmai, 笑顔\r\n", "mai/m2.txt": "hat, 帽子".encode("utf-16")},
        "--fix",
    )
    assert (look.folder / "mai" / "m1.txt").read_bytes() == "mai, 笑顔\r\n".encode()
    assert (look.folder / "mai" / "m2.txt").read_bytes() == "hat, 帽子".encode()


def test_a_caption_of_another_encoding_is_saved_as_it_is_told(look: Checker) -> None:
    files = EVERYDREAM | {"mai/m1.txt": "mai, 笑顔".encode("cp932")}
    assert found(look(files, "--fix")) == [("caption-not-utf8", "mai/m1.txt")]
    assert (look.folder / "mai" / "m1.txt").read_bytes() == "mai, 笑顔".encode("cp932")
    assert found(look({}, "--fix", "--from-encoding", "cp932")) == []
    assert (look.folder / "mai" / "m1.txt").read_bytes() == "mai, 笑顔".encode()


def test_a_caption_that_is_not_of_the_encoding_told_is_left_alone(look: Checker) -> None:
    data = b"mai \x81"  # half a character of Shift JIS
    answer = look(EVERYDREAM | {"mai/m1.txt": data}, "--fix", "--from-encoding", "cp932")
    assert found(answer) == [("caption-not-utf8", "mai/m1.txt")]
    assert (look.folder / "mai" / "m1.txt").read_bytes() == data


def test_an_unknown_encoding_is_refused(celforge: Celforge, tmp_path: Path) -> None:
    answer = celforge("check", plant(tmp_path, EVERYDREAM), "--fix", "--from-encoding", "klingon")
    assert answer.exit_code == 2
    assert "cp932" in answer.stderr


@pytest.mark.parametrize(
    ("bad", "taken"),
    [
        ("aoba/deep/multiply.txt.txt", "aoba/deep/multiply.txt"),
        ("mai/m1.png.txt", "mai/m1.txt"),
        ("mai/m1.caption.txt", "mai/m1.caption"),
    ],
)
def test_a_name_that_is_taken_is_not_given(look: Checker, bad: str, taken: str) -> None:
    answer = look(EVERYDREAM | {bad: "7", taken: "3"}, "--fix")
    assert answer["mended"] == {}
    assert (look.folder / bad).read_text() == "7"
    assert (look.folder / taken).read_text() == "3"


def test_one_name_is_not_given_twice(look: Checker) -> None:
    files = EVERYDREAM | {"aoba/deep/Multiply.txt": "1", "aoba/deep/multiply.txt.txt": "2"}
    assert sum(look(files, "--fix")["mended"].values()) == (1 if sys.platform == "linux" else 0)
    assert {"1", "2"} <= {path.read_text() for path in (look.folder / "aoba" / "deep").glob("*ulti*")}


def test_a_file_with_two_faults_is_mended_at_once(look: Checker) -> None:
    files = EVERYDREAM | {"mai/x.png": PIC, "mai/x.TXT": "x".encode("utf-16")}
    assert found(look(files, "--fix")) == []
    assert (look.folder / "mai" / "x.txt").read_bytes() == b"x"


def test_what_is_ignored_is_not_mended(look: Checker) -> None:
    files = EVERYDREAM | {"mai/m1.txt": b"\xef\xbb\xbfmai", "aoba/deep/multiply.txt.txt": "1"}
    assert look(files, "--fix", "--ignore", "caption-bom")["mended"] == {"hidden-extension": 1}
    assert (look.folder / "mai" / "m1.txt").read_bytes() == b"\xef\xbb\xbfmai"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_caption_behind_a_link_is_not_written(look: Checker, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_bytes(b"\xef\xbb\xbfmai")
    plant(look.folder, {name: content for name, content in EVERYDREAM.items() if name != "mai/m1.txt"})
    (look.folder / "mai" / "m1.txt").symlink_to(outside)
    assert found(look({}, "--fix")) == [("caption-bom", "mai/m1.txt")]
    assert outside.read_bytes() == b"\xef\xbb\xbfmai"


def test_copies_are_made_only_where_there_is_none(look: Checker) -> None:
    files = EVERYDREAM | {"mai/m1.caption": "mine"}
    look(files, "--fix", "--copy-captions", "caption")
    assert (look.folder / "mai" / "m1.caption").read_text() == "mine"
    assert (look.folder / "mai" / "m2.caption").read_text() == "mai, hat"
    assert not (look.folder / "mai" / "multiply.caption").exists()


def test_copies_of_a_caption_that_is_mended_are_mended(look: Checker) -> None:
    files = EVERYDREAM | {"mai/m1.txt": b"\xef\xbb\xbfmai"}
    assert found(look(files, "--fix", "--copy-captions", "caption")) == []
    assert (look.folder / "mai" / "m1.caption").read_bytes() == b"mai"


def test_a_dry_run_without_fix_says_what_is_missing(celforge: Celforge, tmp_path: Path) -> None:
    answer = celforge("check", plant(tmp_path, EVERYDREAM), "--dry-run")
    assert "--fix" in answer.stderr
    assert "changes planned" not in answer.stdout


def test_copying_without_fix_warns(celforge: Celforge, tmp_path: Path) -> None:
    answer = celforge("check", plant(tmp_path, EVERYDREAM), "--copy-captions", "caption")
    assert "copy_captions has no effect" in answer.stderr
    assert not list(tmp_path.rglob("*.caption"))


def test_pictures_renamed_are_known_without_being_read_again(look: Checker, celforge: Celforge) -> None:
    look(KOHYA | {"3_mai/x.Jpg": JPEG, "3_mai/x.caption": "x"}, "--fix")
    status = celforge("status", look.folder, "--json").json["files"][0]
    assert (status["new"], status["changed"], status["gone"]) == (0, 0, 0)
