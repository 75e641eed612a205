"""`celforge check`: one test a trap. Here: captions and names."""

import os
import sys
from pathlib import Path

import pytest
from pictures import noise, saved
from trainer_trees import EVERYDREAM, KOHYA, PIC, Checker, Content, detail, found, plant

from tests.conftest import Celforge


@pytest.fixture
def look(celforge: Celforge, tmp_path: Path) -> Checker:
    return Checker(celforge, tmp_path / "tree")


# Which caption it gets


def test_trap_caption_extension(look: Checker) -> None:
    texts = {name.replace(".caption", ".txt"): content for name, content in KOHYA.items()}
    answer = look(texts)
    assert found(answer) == [("caption-extension", "1_aoba"), ("caption-extension", "3_mai")]
    assert [one["count"] for one in answer["findings"]] == [1, 2]
    assert answer["reading"]["kohya"]["folders"][0]["captions"] == 0
    told = look(texts, "--caption-extension", ".txt")
    assert told["findings"] == []
    assert told["reading"]["kohya"]["folders"][0]["captions"] == 2


def test_a_caption_extension_without_its_full_stop_is_refused(celforge: Celforge, tmp_path: Path) -> None:
    answer = celforge("check", plant(tmp_path, KOHYA), "--caption-extension", "txt")
    assert answer.exit_code == 2
    assert "write .txt" in answer.stderr


@pytest.mark.parametrize(
    ("trainer", "says"), [("kohya", 'kohya trains on "mai"'), ("everydream", 'EveryDream2 trains on "m1"')]
)
def test_trap_no_captions(look: Checker, trainer: str, says: str) -> None:
    files = {name: content for name, content in KOHYA.items() if name.endswith(".png") and "aoba" not in name}
    answer = look(files, "--for", trainer)
    assert found(answer) == [("no-captions", ".")]
    assert answer["findings"][0]["count"] == 2
    assert detail(answer, "no-captions") == f"3_mai/m1.png: {says}"


def test_trap_missing_caption(look: Checker) -> None:
    answer = look(KOHYA | {"3_mai/ep01 x_3.png": PIC}, "--for", "both")
    assert found(answer) == [("missing-caption", "3_mai/ep01 x_3.png")]
    assert detail(answer, "missing-caption") == 'kohya trains on "mai" and EveryDream2 trains on "ep01 x"'


def test_trap_borrowed_caption(celforge: Celforge, tmp_path: Path) -> None:
    """Five parts between _ in the whole path: the last four are left out."""
    folder = plant(tmp_path / "tree", KOHYA | {"3_mai/m1_10_20_30_40.png": PIC})
    answer = celforge("check", folder, "--json").json
    assert found(answer) == [("borrowed-caption", "3_mai/m1_10_20_30_40.png")]
    assert detail(answer, "borrowed-caption") == "kohya takes m1.caption"


def test_trap_name_cut_at_underscore(look: Checker) -> None:
    assert found(look({"a b_01.png": PIC, "c.png": PIC})) == [
        ("no-captions", "."),
        ("name-cut-at-underscore", "a b_01.png"),
    ]


def test_trap_no_class_tokens(look: Checker) -> None:
    assert look.kohya({"5_/p.png": PIC, "5_/q.png": PIC, "5_/q.caption": "q"}) == [
        ("missing-caption", "5_/p.png"),
        ("no-class-tokens", "5_"),
    ]


@pytest.mark.parametrize("text", ["", "\n", "  \n\t"])
def test_trap_empty_caption(look: Checker, text: str) -> None:
    assert look.everydream({"mai/m1.txt": text}) == [("empty-caption", "mai/m1.txt")]


@pytest.mark.parametrize(
    ("text", "says"), [("mai\nsmile", "it has 2 lines"), ("\nmai", "its first line is empty")]
)
def test_trap_caption_cut_at_line(look: Checker, text: str, says: str) -> None:
    answer = look(KOHYA | {"3_mai/m1.caption": text})
    assert found(answer) == [("caption-cut-at-line", "3_mai/m1.caption")]
    assert detail(answer, "caption-cut-at-line") == says
    assert found(look({"3_mai/m1.caption": text}, "--for", "everydream")) == []


def test_an_empty_line_at_the_end_is_no_second_line(look: Checker) -> None:
    assert look.kohya({"3_mai/m1.caption": "mai, smile\n\n"}) == []


def test_lines_are_alternatives_where_a_subset_says_so(look: Checker, tmp_path: Path) -> None:
    folder = tmp_path / "tree" / "3_mai"
    config = f"[[datasets]]\n[[datasets.subsets]]\nimage_dir='{folder}'\nenable_wildcard = true\n"
    files = {name: content for name, content in KOHYA.items() if "mai" in name}
    assert found(look(files | {"3_mai/m1.caption": "mai\nmai, hat", "d.toml": config})) == []


def test_trap_caption_bom(look: Checker) -> None:
    assert look.everydream({"mai/m1.txt": b"\xef\xbb\xbfmai"}) == [("caption-bom", "mai/m1.txt")]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("mai, caf\u00e9".encode("cp1252"), "its encoding is not certain"),
        ("\u821e, \u7b11\u9854".encode("cp932"), "its encoding is not certain"),
        ("mai, smile".encode("utf-16"), "it is UTF-16"),
        ("mai".encode("utf-32"), "it is UTF-32"),
        (b"\xef\xbb\xbfmai \xff", "its encoding is not certain"),
        ("mai".encode("utf-16") + b"x", "its encoding is not certain"),
    ],
)
def test_trap_caption_not_utf8(look: Checker, data: bytes, says: str) -> None:
    answer = look(EVERYDREAM | {"mai/m1.txt": data})
    assert found(answer) == [("caption-not-utf8", "mai/m1.txt")]
    assert detail(answer, "caption-not-utf8") == says


def test_trap_token_overflow(look: Checker) -> None:
    """CLIP knows `smile` as one token, and a comma is one: 38 smiles and 37 commas are 75."""
    exactly = ", ".join(["smile"] * 38)
    assert look.everydream({"mai/m1.txt": exactly}) == []
    answer = look({"mai/m1.txt": f"{exactly}, hat"})
    assert found(answer) == [("token-overflow", "mai/m1.txt")]
    assert detail(answer, "token-overflow") == "77 tokens"
    assert found(look({}, "--max-tokens", "77")) == []
    assert found(look({}, "--max-tokens", "76")) == [("token-overflow", "mai/m1.txt")]


def test_only_the_first_line_is_counted_for_kohya(look: Checker) -> None:
    text = "mai\n" + ", ".join(["smile"] * 60)
    assert look.kohya({"3_mai/m1.caption": text}) == [("caption-cut-at-line", "3_mai/m1.caption")]


def test_trap_two_captions(look: Checker) -> None:
    assert look.everydream({"mai/m1.caption": "another"}) == [("two-captions", "mai/m1.txt")]
    assert look.everydream({"mai/m1.caption": "mai, smile\n"}) == []


def test_trap_same_stem(look: Checker) -> None:
    answer = look(EVERYDREAM | {"mai/m1.jpg": saved(noise(512, 512), "JPEG")})
    assert found(answer) == [("same-stem", "mai/m1.jpg")]
    assert detail(answer, "same-stem") == "also m1.png"


def test_trap_caption_named_after_file(look: Checker) -> None:
    assert look.everydream({"mai/x.png": PIC, "mai/x.png.txt": "x"}) == [
        ("missing-caption", "mai/x.png"),
        ("caption-named-after-file", "mai/x.png.txt"),
    ]


def test_metadata_of_a_downloader_is_no_caption(look: Checker) -> None:
    assert look.everydream({"mai/m1.png.txt": "character: mai\ngeneral: smile\nrating: safe\n"}) == []


def test_trap_orphan_caption(look: Checker) -> None:
    assert look.everydream({"mai/gone.txt": "mai", "mai/README.txt": "x", "mai/m1_meta.txt": "x"}) == [
        ("orphan-caption", "mai/gone.txt")
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="other disks cannot hold both")
@pytest.mark.parametrize(
    ("first", "second"), [("c1", "C1"), ("e\u0301x", "\u00e9x")], ids=["letter case", "accents"]
)
def test_trap_case_collision(look: Checker, first: str, second: str) -> None:
    files = {
        f"mai/{stem}.{suffix}": content
        for stem in (first, second)
        for suffix, content in (("png", PIC), ("txt", "x"))
    }
    assert sorted(look.everydream(files)) == [
        ("case-collision", f"mai/{min(first, second)}.png"),
        ("case-collision", f"mai/{min(first, second)}.txt"),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="other disks cannot hold both")
def test_trap_case_collision_of_folders(look: Checker) -> None:
    assert look.everydream({"Mai/x.png": PIC, "Mai/x.txt": "x"}) == [("case-collision", "Mai")]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot hold them")
@pytest.mark.parametrize("name", ["a:b", "what?", "con", "COM1   ", "end."])
def test_trap_unsafe_name(look: Checker, name: str) -> None:
    assert look.everydream({f"mai/{name}.png": PIC, f"mai/{name}.txt": "x"}) == [
        *([("unsafe-name", f"mai/{name}.png"), ("unsafe-name", f"mai/{name}.txt")] if name != "end." else []),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot hold them")
def test_trap_unsafe_name_of_a_folder(look: Checker) -> None:
    assert look.everydream({"end./x.png": PIC, "end./x.txt": "x"}) == [("unsafe-name", "end.")]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes")
def test_trap_name_not_utf8(look: Checker) -> None:
    plant(look.folder, EVERYDREAM)
    with open(os.fsencode(look.folder / "mai") + b"/\xff.log", "wb"):
        pass
    answer = look({})
    assert [one["trap"] for one in answer["findings"]] == ["name-not-utf8"]


def test_trap_namesake(look: Checker) -> None:
    answer = look(EVERYDREAM | {"aoba/m1.png": PIC, "aoba/m1.txt": "x"})
    assert found(answer) == [("namesake", "aoba/m1")]
    assert detail(answer, "namesake") == "also mai"
    assert answer["exit_code"] == 0


def test_trap_stale_latents(look: Checker) -> None:
    added: dict[str, Content] = {"3_mai/m1_0512x0512_sd.npz": b"x", "3_mai/m2_0512x0512_sdxl.npz": b"x"}
    assert look.kohya(added) == []
    os.utime(look.folder / "3_mai" / "m2.png", (4e9, 4e9))
    answer = found(look({}))
    assert answer == [("stale-latents", "3_mai/m2.png")]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads everything")
def test_trap_unreadable(look: Checker) -> None:
    plant(look.folder, EVERYDREAM)
    (look.folder / "mai" / "m1.txt").chmod(0)
    assert found(look({})) == [("unreadable", "mai/m1.txt")]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_trap_unreadable_by_a_link_that_leads_nowhere(look: Checker) -> None:
    plant(look.folder, {name: content for name, content in EVERYDREAM.items() if name != "mai/m1.txt"})
    (look.folder / "mai" / "m1.txt").symlink_to("nowhere")
    assert found(look({})) == [("unreadable", "mai/m1.txt")]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_trap_unreadable_picture_behind_a_dead_link(look: Checker) -> None:
    plant(look.folder, EVERYDREAM)
    (look.folder / "mai" / "dead.png").symlink_to("nowhere")
    for decode in ("none", "header"):
        answer = look({}, "--decode", decode)
        assert found(answer) == [("unreadable", "mai/dead.png")]
        assert answer["failures"] == []
    assert look({}, "--ignore", "unreadable")["exit_code"] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot hold it")
def test_a_name_of_two_lines_is_shown_on_one(celforge: Celforge, tmp_path: Path) -> None:
    plant(tmp_path, EVERYDREAM | {"mai/a\nb.png": PIC, "mai/a\nb.txt": "x"})
    assert "mai/a\\nb.png: it holds" in celforge("check", tmp_path).stdout
