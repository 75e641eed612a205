"""`celforge check`: one test a trap. Here: pictures, buckets, and what each trainer reads."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.trainers import everydream_multiplicity, kohya_folders, total
from pictures import animation, exif, jpeg_with_exif, noise, saved
from PIL import Image
from trainer_trees import (
    EVERYDREAM,
    KOHYA,
    Checker,
    Content,
    detail,
    everydream_reads,
    found,
    kohya_reads,
    plant,
)

from pipeline.layouts.everydream import read_tree
from pipeline.lint.captions import presence_findings
from pipeline.lint.reading import Reading, kohya_subsets, read_as_everydream, read_as_kohya
from tests.conftest import Celforge


@pytest.fixture
def look(celforge: Celforge, tmp_path: Path) -> Checker:
    return Checker(celforge, tmp_path / "tree")


def with_picture(tree: dict[str, Content], name: str, data: Content) -> dict[str, Content]:
    """A tree with one more picture, captioned."""
    folder, suffix = ("3_mai", ".caption") if tree is KOHYA else ("mai", ".txt")
    return tree | {f"{folder}/{name}": data, f"{folder}/{name.partition('.')[0]}{suffix}": "x"}


def test_trap_corrupt_picture(look: Checker) -> None:
    whole = saved(noise(512, 512), "PNG")
    answer = look(with_picture(EVERYDREAM, "x.png", b"<html>"))
    assert found(answer) == [("corrupt-picture", "mai/x.png")]
    assert detail(answer, "corrupt-picture") == "not a picture"
    cut = with_picture(EVERYDREAM, "x.png", whole[:-5000])
    assert found(look(cut)) == []
    answer = look({}, "--decode", "whole")
    assert detail(answer, "corrupt-picture") == "truncated"
    assert answer["failures"] == []
    assert found(look({}, "--decode", "none")) == []
    assert found(look({})) == [("corrupt-picture", "mai/x.png")], "what is known stays known"
    assert found(look({"mai/x.png": whole})) == []


def test_many_corrupt_pictures_do_not_end_the_check(look: Checker) -> None:
    broken = {
        f"mai/x{number}.{suffix}": f"{suffix} {number}" for number in range(30) for suffix in ("png", "txt")
    }
    assert [trap for trap, _ in look.everydream(broken)] == ["corrupt-picture"] * 30


def test_trap_too_small(look: Checker) -> None:
    answer = look(with_picture(EVERYDREAM, "x.png", (320, 180)))
    assert found(answer) == [("too-small", "mai/x.png")]
    assert detail(answer, "too-small") == "320x180, enlarged 2.13 times to 640x384"
    assert look.everydream({"mai/x.png": (640, 384)}) == []


def test_trap_extreme_aspect(look: Checker) -> None:
    answer = look(with_picture(EVERYDREAM, "x.png", (2048, 300)))
    assert found(answer) == [("extreme-aspect", "mai/x.png")]
    assert detail(answer, "extreme-aspect") == "2048x300: 41% is cut away"


def test_trap_bucket_limit(look: Checker, tmp_path: Path) -> None:
    large = {name: (1024, 1024) if content == (512, 512) else content for name, content in KOHYA.items()}
    answer = look(large | {"3_mai/x.png": (1920, 1080), "3_mai/x.caption": "x"}, "--resolution", "1024")
    assert found(answer) == [("bucket-limit", "3_mai/x.png")]
    assert detail(answer, "bucket-limit") == "1024x576 instead of 1344x768"
    subsets = "".join(
        f"[[datasets.subsets]]\nimage_dir='{look.folder / name}'\n" for name in ("3_mai", "1_aoba")
    )
    config = f"[[datasets]]\nresolution = 1024\nmax_bucket_reso = 2048\n{subsets}"
    answer = look({"d.toml": config})
    assert found(answer) == []
    assert [row["bucket"] for row in answer["reading"]["kohya"]["buckets"]] == ["1024x1024", "1344x768"]


@pytest.mark.parametrize("orientation", [3, 6])
def test_trap_turned_by_exif(look: Checker, orientation: int) -> None:
    data = jpeg_with_exif(noise(640, 384), exif(orientation))
    answer = look(with_picture(KOHYA, "x.jpg", data), "--for", "both")
    assert found(answer) == [("turned-by-exif", "3_mai/x.jpg")]
    sizes = {trainer: {row["bucket"] for row in one["buckets"]} for trainer, one in answer["reading"].items()}
    assert "640x384" in sizes["kohya"]
    assert ("384x640" if orientation == 6 else "640x384") in sizes["everydream"]
    assert found(look({}, "--for", "everydream")) == []


def test_trap_transparent_and_trap_alpha_channel(look: Checker) -> None:
    through = Image.new("RGBA", (512, 512), (9, 9, 9, 255))
    solid = saved(through, "PNG")
    through.putpixel((3, 3), (9, 9, 9, 254))
    files = with_picture(EVERYDREAM, "x.png", saved(through, "PNG")) | {"mai/y.png": solid, "mai/y.txt": "y"}
    assert found(look(files)) == [("alpha-channel", "mai/x.png"), ("alpha-channel", "mai/y.png")]
    assert found(look({}, "--decode", "whole")) == [("transparent", "mai/x.png")]
    assert found(look({})) == [("transparent", "mai/x.png")], "what is known stays known"


def test_trap_alpha_channel(look: Checker) -> None:
    image = saved(Image.new("RGBA", (512, 512)), "PNG")
    answer = look(with_picture(EVERYDREAM, "x.png", image))
    assert answer["exit_code"] == 0
    assert found(answer) == [("alpha-channel", "mai/x.png")]


def test_trap_deep_colour(look: Checker) -> None:
    """And what it says of trainers is so: Pillow's conversion cuts."""
    image = Image.fromarray(np.full((512, 512), 300, np.uint16))
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert found(look(with_picture(EVERYDREAM, "x.png", saved(image, "PNG")))) == [
        ("deep-colour", "mai/x.png")
    ]


def test_trap_cmyk(look: Checker) -> None:
    data = saved(Image.new("CMYK", (512, 512), (0, 99, 99, 0)), "JPEG")
    assert found(look(with_picture(EVERYDREAM, "x.jpg", data))) == [("cmyk", "mai/x.jpg")]


def test_trap_animated(look: Checker) -> None:
    answer = look(with_picture(EVERYDREAM, "x.webp", animation("WEBP")), "--ignore", "too-small")
    assert found(answer) == [("animated", "mai/x.webp")]
    assert detail(answer, "animated") == "3 frames"


def test_trap_wrong_suffix(look: Checker) -> None:
    answer = look(with_picture(EVERYDREAM, "x.jpg", saved(noise(512, 512), "PNG")))
    assert found(answer) == [("wrong-suffix", "mai/x.jpg")]
    assert detail(answer, "wrong-suffix") == "a PNG file named .jpg"


# What each trainer reads


def test_the_summary_for_a_person(celforge: Celforge, tmp_path: Path) -> None:
    shown = celforge("check", plant(tmp_path, EVERYDREAM)).stdout
    assert "EveryDream2 reads 3 of 3 pictures, 3 with a caption; an epoch shows 6" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["mai", "2", "2.5", "5", "2"] in rows
    assert ["512x512", "1.00", "3", "6"] in rows
    assert "found: errors 0, warnings 0, notes 0" in shown


def test_a_resolution_that_everydream_has_no_buckets_for_is_said(celforge: Celforge, tmp_path: Path) -> None:
    shown = celforge("check", plant(tmp_path, EVERYDREAM), "--resolution", "1216").stdout
    assert "EveryDream2 has no buckets at 1216, and stops: it has them at 256, 320, " in shown
    shown = celforge("check", tmp_path, "--resolution", "640").stdout
    assert "buckets at 640" in shown
    assert "640x640" in shown


NAMES = st.sampled_from(["mai", "2_mai", "0_x", "-1_y", "3_", "1.5_z", "7", " 4_w", "x_1"])
FILES = st.sampled_from(
    [
        "a.png",
        "b.PNG",
        "c.Png",
        "d.jpg",
        "e.jfif",
        "f.webp",
        "g.bmp",
        "h.gif",
        ".i.png",
        "j.JPEG",
        "a.txt",
        "a.caption",
        "b.txt",
        "c.caption",
        "d.txt",
        "multiply.txt",
    ]
)
TREES = st.lists(st.tuples(st.lists(NAMES, max_size=2), FILES), min_size=1, max_size=12)
NUMBERS = [b"0.5", b"2\r\n", b"0", b"\xef\xbb\xbf2.5", "2.5".encode("utf-16"), b"2\n3", b"2,5", b"\xb2", b""]


@given(TREES, st.sampled_from([".txt", ".caption"]), st.sampled_from(NUMBERS))
@settings(max_examples=100, deadline=None)
def test_the_reading_is_that_of_the_rules_stated_a_second_time(
    places: list[tuple[list[str], str]], extension: str, number: bytes
) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for parts, name in places:
            path = folder.joinpath(*parts, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(number if name == "multiply.txt" else b"0.5")
        tree = read_tree(folder)
        kohya = read_as_kohya(tree, kohya_subsets(tree, None, extension))
        everydream = read_as_everydream(tree)
        list(presence_findings(tree, [kohya, everydream]))
        assert as_read(kohya) == expected(kohya_reads(folder, extension))
        assert as_read(everydream) == expected(everydream_reads(folder))
        if number == NUMBERS[0]:  # the others are what flatten reads as they were meant, or refuses
            assert everydream.exposures == everydream_multiplicity(folder)
        if not any(name.startswith(".") for _, name in places):
            assert kohya.exposures == total(kohya_folders(folder))


def as_read(reading: Reading) -> dict[str, tuple[float, ...]]:
    return {row["folder"]: (row["pictures"], row["exposures"], row["captions"]) for row in reading.rows()}


def expected(rules: Iterable[tuple[str, float, str | None]]) -> dict[str, tuple[float, ...]]:
    """Pictures, exposures and captions by folder."""
    found: dict[str, list[float]] = {}
    for path, repeats, caption in rules:
        row = found.setdefault(path.rpartition("/")[0] or ".", [0, 0, 0])
        row[0] += 1
        row[1] += repeats
        row[2] += caption is not None
    return {folder: tuple(row) for folder, row in found.items()}
