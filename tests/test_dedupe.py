"""`celforge dedupe`: copies go, expressions stay, and everything comes back."""

import io
import itertools
import json
import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from crashing import KILLED, points, run_until_line
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from retouched import RETOUCHES, on_white, saved
from tiny_taggers import tagger_model

from pipeline.companions import Companions
from pipeline.embeddings import Embedder, Scale, alike
from pipeline.onnx import IDENTITY_MODEL, open_session
from pipeline.picture_quality import measure
from pipeline.picture_signature import Signature, read_small, reduced, sign
from pipeline.same_picture import Comparison, Raster, compare
from pipeline.star_groups import star_groups
from tests.conftest import Celforge

SIZE = (960, 540)


@cache
def drawn(mouth: int = 0) -> Image.Image:
    """A face before a background; mouths differ in a few hundred pixels. Not to be drawn upon."""
    random = np.random.default_rng(1)
    x = 480
    image = Image.new("RGB", SIZE, (150, 170, 200))
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        left, top = (int(value) for value in random.integers(-80, SIZE, 2))
        wide, high = (int(value) for value in random.integers(30, 260, 2))
        colour = tuple(int(value) for value in random.integers(30, 220, 3))
        draw.rectangle((left, top, left + wide, top + high), colour, outline=(40, 40, 50), width=2)
    draw.ellipse((x - 90, 150, x + 90, 360), (240, 205, 185), outline=(60, 40, 40), width=3)
    for side in (-36, 36):
        draw.ellipse((x + side - 14, 220, x + side + 14, 262), (60, 90, 160), outline=(30, 20, 20), width=3)
    shapes = ((x - 18, 312, x + 18, 316), (x - 18, 306, x + 18, 330), (x - 9, 304, x + 9, 336))
    draw.ellipse(shapes[mouth], (150, 50, 60))
    return image.filter(ImageFilter.GaussianBlur(0.8))


def raster(data: bytes) -> Raster:
    small, width, height = read_small(data, 960)
    return Raster(reduced(small, 640), max(width, height))


def folder_of(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {".celforge", "report"} & set(path.relative_to(folder).parts)
    }


MOUTHS = {f"mouth{number}.png": saved(drawn(number), ".png") for number in range(3)}


# The comparison


def test_mouths_are_other_pictures_in_every_pair_of_files() -> None:
    for first, second in itertools.combinations(range(3), 2):
        for kinds in ((".png", ".png"), ("q75.jpg", ".webp")):
            a, b = (raster(saved(drawn(one), kind)) for one, kind in zip((first, second), kinds, strict=True))
            assert not compare(a, b).is_same


SURE = [name for name in RETOUCHES if name != "much brighter"]  # which cuts off all above 196 levels


def test_a_retouched_file_shows_the_same_picture() -> None:
    original = raster(saved(drawn(), ".png"))
    missed = []
    for name in SURE:
        found = compare(original, raster(saved(RETOUCHES[name](drawn()), "q95.jpg")))
        if not found.is_same:
            missed.append((name, found))
    assert not missed


def test_two_places_of_a_pan_are_two_pictures() -> None:
    wide = drawn().resize((1100, 540))
    first, second = (wide.crop((left, 0, left + 960, 540)) for left in (0, 60))
    assert not compare(raster(saved(first, ".png")), raster(saved(second, ".png"))).is_same


def test_what_was_found_turns_with_its_pictures() -> None:
    found = Comparison(True, 0.5, overlay_in="a", fuller="b")
    assert (found.turned().overlay_in, found.turned().fuller) == ("b", "a")


# Signatures


def test_a_signature_survives_packing_and_files_of_one_picture_hash_alike() -> None:
    one, other = sign(saved(drawn(), ".png")), sign(saved(drawn(), "q75.jpg"))
    assert Signature.unpack(one.pack()) == one
    assert (one.hashes[0] ^ other.hashes[0]).bit_count() <= 3
    assert len(one.pack()) < 16_000


def test_a_mirror_image_has_the_hash_that_was_foretold() -> None:
    mirrored = drawn().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    one, other = sign(saved(drawn(), ".png")), sign(saved(mirrored, ".png"))
    assert (one.mirrored[0] ^ other.hashes[0]).bit_count() <= 1


def test_a_picture_scaled_up_resolves_less_than_it_has() -> None:
    small = drawn().resize((240, 135), Image.Resampling.LANCZOS)
    large = small.resize(SIZE, Image.Resampling.LANCZOS)
    assert measure(saved(large, ".png")).resolved_px < measure(saved(drawn(), ".png")).resolved_px
    files = [measure(saved(drawn(), kind)) for kind in ("q60.jpg", "q95.jpg", ".png")]
    ranks = [one.rank(files[2].resolved_px, max(other.sharpness for other in files)) for one in files]
    assert ranks == sorted(ranks)


# Groups and companions


def test_a_chain_of_near_pictures_becomes_stars() -> None:
    groups = star_groups(range(5), lambda _, firsts: firsts, lambda a, b: "near" if abs(a - b) <= 1 else None)
    assert {first: [one.picture for one in group] for first, group in groups.items()} == {
        0: [1],
        2: [3],
        4: [],
    }


@given(st.lists(st.integers(0, 30), unique=True, max_size=15))
def test_every_picture_is_in_one_group_and_same_as_its_first(order: list[int]) -> None:
    groups = star_groups(order, lambda _, firsts: firsts, lambda a, b: True if abs(a - b) <= 3 else None)
    assert sorted([*groups, *(one.picture for group in groups.values() for one in group)]) == sorted(order)
    assert all(abs(first - one.picture) <= 3 for first, group in groups.items() for one in group)
    assert all(abs(a - b) > 3 for a, b in itertools.combinations(groups, 2))


def test_files_belong_to_the_picture_of_their_name_only(tmp_path: Path) -> None:
    names = ["a.png", "a.txt", "a.png.txt", ".a_meta.json", "a_0512x0768_sd.npz", "a-masklabel.png"]
    others = ["a.b.txt", "ab.txt", "a_b.png", "a_b.txt", "notes.json"]
    folder_of(tmp_path, dict.fromkeys([*names, *others], b"x"))
    found = {path.name for path in Companions().of(tmp_path / "a.png")}
    assert found == set(names) - {"a.png"}


@given(st.integers(1, 12), st.integers(0, 100))
def test_vectors_alike_are_those_of_all_products(number: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(number, 4)).astype(np.float32)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    products = unit.astype(np.float32) @ unit.astype(np.float32).T
    expected = {(a, b) for a, b in itertools.combinations(range(number), 2) if products[a, b] >= 0.5}
    assert {(a, b) for a, b, _ in alike(unit, 0.5)} == expected


# The embedding tier: a model whose vector is the mean colour of a picture


def colour_model(path: Path, *, layout: str = "NCHW", batch: int | str = "batch") -> Path:
    unit = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    model = tagger_model(unit, [0.0] * 3, layout=layout, size=16, batch=batch, has_sigmoid=False)
    path.write_bytes(model)
    return path


def halves(colour: tuple[int, int, int], is_upper: bool) -> Image.Image:
    """One half in a colour, the other black: one mean, two pictures."""
    image = Image.new("RGB", (64, 64))
    image.paste(colour, (0, 0, 64, 32) if is_upper else (0, 0, 32, 64))
    return image


SCALES: dict[Scale, list[float]] = {  # of (255, 0, 0)
    "levels": [255, 0, 0],
    "zero-to-one": [1, 0, 0],
    "minus-one-to-one": [1, -1, -1],
    "imagenet": [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225],
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_model_gets_its_pictures_in_its_own_way(tmp_path: Path, scale: Scale, layout: str) -> None:
    session = open_session(colour_model(tmp_path / "model.onnx", layout=layout), "cpu")
    embedder = Embedder(session, scale)
    pixels = np.full((30, 50, 3), (255, 0, 0), np.uint8)
    vector = embedder.embed(np.stack([embedder.prepare(pixels)]))[0]
    expected = np.array(SCALES[scale]) / np.linalg.norm(SCALES[scale])
    assert np.allclose(vector, expected, atol=2e-3)


@pytest.mark.parametrize("batch", ["batch", 2])
def test_what_a_model_finds_alike_goes_and_is_not_worked_out_again(
    celforge: Celforge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int | str
) -> None:
    pictures = {
        "red1.png": halves((200, 0, 0), True),
        "red2.png": halves((200, 0, 0), False),
        "blue.png": halves((0, 0, 200), True),
    }
    folder = folder_of(tmp_path / "set", {name: saved(image, ".png") for name, image in pictures.items()})
    model = colour_model(tmp_path / "colour.onnx", batch=batch)
    options = ("--embedding", model, "--embedding-input", "zero-to-one", "--device", "cpu", "--json")
    assert celforge("dedupe", folder, "--dry-run", "--json").json["dropped_files"] == {}
    dry = celforge("dedupe", folder, "--dry-run", *options)
    assert sum(dry.json["dropped_files"].values()) == 1, dry.stderr

    def fail(*_: object) -> None:
        raise AssertionError("known vectors need no model")

    monkeypatch.setattr("pipeline.onnx.open_session", fail)
    assert celforge("dedupe", folder, *options).exit_code == 0
    left = set(tree(folder))
    assert "blue.png" in left
    assert len(left & {"red1.png", "red2.png"}) == 1


def test_a_model_that_takes_no_pictures_is_refused(celforge: Celforge, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", {"a.png": MOUTHS["mouth0.png"]})
    (tmp_path / "x.onnx").write_bytes(IDENTITY_MODEL)
    answer = celforge("dedupe", folder, "--embedding", tmp_path / "x.onnx", "--device", "cpu")
    assert answer.exit_code == 2
    assert "not RGB pictures" in answer.stderr
    tiers = celforge("dedupe", folder, "--embedding", tmp_path / "x.onnx", "--tier", "pixels")
    assert tiers.exit_code == 2


# The command


def test_copies_go_and_mouths_stay_and_nothing_is_left_for_a_second_run(
    celforge: Celforge, tmp_path: Path
) -> None:
    files = {
        **MOUTHS,
        "ep2/again.png": MOUTHS["mouth0.png"],
        "ep2/again.txt": b"a caption",
        "small.jpg": saved(drawn(1).resize((640, 360)), "q75.jpg"),
        "cut.jpg": saved(drawn(2).crop((30, 20, 930, 525)), "q95.jpg"),
    }
    folder = folder_of(tmp_path / "set", files)
    before = tree(folder)
    answer = celforge("dedupe", folder, "--json")
    assert answer.exit_code == 0, answer.stderr
    # the copy with the caption stays, the bare one goes
    assert set(tree(folder)) == {"ep2/again.png", "ep2/again.txt", "mouth1.png", "mouth2.png"}
    assert answer.json["dropped_files"]["identical bytes"] == 1
    assert answer.json["groups"] == 2
    assert Path(answer.json["made"][0]).read_text(encoding="utf-8").count("<figure") == 4
    again = celforge("dedupe", folder, "--json")
    assert again.json["dropped_files"] == {}
    # what comes back goes again, for the one that stayed; encoded once more, too
    (folder / "new").mkdir()
    (folder / "new" / "renamed.jpg").write_bytes(files["cut.jpg"])
    with Image.open(io.BytesIO(files["small.jpg"])) as small:
        (folder / "new" / "again.webp").write_bytes(saved(small, ".webp"))
    third = celforge("dedupe", folder, "--json")
    assert third.json["dropped_files"] == {"copy of one dropped before": 1, "same picture": 1}
    assert not any((folder / "new").iterdir())
    assert celforge("undo", folder).exit_code == 0
    assert (folder / "new" / "renamed.jpg").read_bytes() == files["cut.jpg"]
    shutil.rmtree(folder / "new")
    assert celforge("undo", folder).exit_code == 0
    assert tree(folder) == before


def test_a_dry_run_touches_nothing_and_writes_a_sheet_where_asked(celforge: Celforge, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", {**MOUTHS, "b.jpg": saved(drawn(0), "q75.jpg")})
    sheet = tmp_path / "groups.html"
    before = tree(folder)
    answer = celforge("dedupe", folder, "--dry-run", "--sheet", sheet, "--json")
    assert [row["source"] for row in answer.json["planned"] if row["action"] == "drop"]
    assert tree(folder) == before
    assert not (folder / "report").exists()
    assert 'class="kept"' in sheet.read_text(encoding="utf-8")
    assert celforge("dedupe", folder, "--dry-run", "--sheet", tmp_path / "x.txt").exit_code == 2


def test_what_is_protected_stays_even_when_it_is_worse(celforge: Celforge, tmp_path: Path) -> None:
    files = {
        "new/big.png": MOUTHS["mouth0.png"],
        "mine/small.jpg": saved(drawn(0).resize((480, 270)), "q60.jpg"),
    }
    folder = folder_of(tmp_path / "set", {**files, "mine/small.txt": b"words"})
    answer = celforge("dedupe", folder / "new", "--protect", folder / "mine", "--json")
    # a project of its own is made by `new`: what to protect must lie in it
    assert answer.exit_code == 2
    (folder / "celforge.toml").write_text("", encoding="utf-8")
    os.rename(folder / "new" / ".celforge", tmp_path / "old state")
    answer = celforge("dedupe", folder / "new", "--protect", folder / "mine", "--json")
    assert answer.exit_code == 0, answer.stderr
    assert set(tree(folder)) == {"celforge.toml", "mine/small.jpg", "mine/small.txt"}


def test_a_caption_by_hand_keeps_its_picture_and_a_lost_one_is_named(
    celforge: Celforge, tmp_path: Path
) -> None:
    files = {"a.png": MOUTHS["mouth0.png"], "b.jpg": saved(drawn(0), "q75.jpg"), "b.txt": b"by hand"}
    folder = folder_of(tmp_path / "set", files)
    assert celforge("dedupe", folder).exit_code == 0
    assert set(tree(folder)) == {"b.jpg", "b.txt"}
    other = folder_of(tmp_path / "other", {**files, "a.txt": b"another by hand"})
    answer = celforge("dedupe", other, "--json")
    assert set(tree(other)) == {"a.png", "a.txt"}
    assert answer.json["captions_dropped"] == 1
    assert "b.jpg" in answer.stderr


def test_a_caption_shared_by_two_pictures_stays_with_the_one_kept(celforge: Celforge, tmp_path: Path) -> None:
    files = {"a.png": MOUTHS["mouth0.png"], "a.jpg": saved(drawn(0), "q75.jpg"), "a.txt": b"both"}
    folder = folder_of(tmp_path / "set", files)
    assert celforge("dedupe", folder).exit_code == 0
    assert set(tree(folder)) == {"a.png", "a.txt"}


def test_hard_links_are_no_copies(celforge: Celforge, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", {"frames/a.png": MOUTHS["mouth0.png"]})
    (folder / "dataset").mkdir()
    os.link(folder / "frames" / "a.png", folder / "dataset" / "a.png")
    assert celforge("dedupe", folder, "--json").json["dropped_files"] == {}


def test_flips_only_on_request_and_lower_tiers_stop_earlier(celforge: Celforge, tmp_path: Path) -> None:
    mirrored = saved(drawn(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT), ".png")
    files = {"a.png": MOUTHS["mouth0.png"], "m.png": mirrored, "same.webp": b"", "near.jpg": b""}
    files["near.jpg"] = saved(drawn(0), "q60.jpg")
    lossless = tmp_path / "x.webp"
    drawn(0).save(lossless, lossless=True)
    files["same.webp"] = lossless.read_bytes()
    folder = folder_of(tmp_path / "set", files)

    def dropped(*options: str) -> dict[str, int]:
        found: dict[str, int] = celforge("dedupe", folder, "--dry-run", "--json", *options).json[
            "dropped_files"
        ]
        return found

    assert dropped("--tier", "bytes") == {}
    assert dropped("--tier", "pixels") == {"identical pixels": 1}
    assert sum(dropped().values()) == 2
    assert sum(dropped("--flips").values()) == 3


def test_a_broken_picture_is_named_and_the_others_go_on(celforge: Celforge, tmp_path: Path) -> None:
    files = {**MOUTHS, "b.jpg": saved(drawn(0), "q75.jpg"), "broken.png": MOUTHS["mouth0.png"][:2000]}
    folder = folder_of(tmp_path / "set", files)
    answer = celforge("dedupe", folder, "--json")
    assert answer.exit_code == 3
    assert [failure["path"] for failure in answer.json["failures"]] == ["broken.png"]
    assert set(tree(folder)) == {*MOUTHS, "broken.png"}


def test_killed_anywhere_the_next_run_ends_the_same_and_undo_restores(
    celforge: Celforge, tmp_path: Path
) -> None:
    small, other = (drawn(mouth).resize((480, 270)) for mouth in range(2))
    files = {"a.png": saved(small, ".png"), "b/a.png": saved(small, ".png"), "b/a.txt": b"x"}
    files |= {"c.jpg": saved(small, "q75.jpg"), "c.json": b"{}", "d.png": saved(other, ".png")}
    whole = folder_of(tmp_path / "whole", files)
    before = tree(whole)
    assert celforge("dedupe", whole).exit_code == 0
    expected = tree(whole)
    assert set(expected) == {"b/a.png", "b/a.txt", "d.png"}
    modules = {"dedupe.py", "duplicate_removal.py", "journal.py", "steps.py", "job.py"}
    counting = folder_of(tmp_path / "counting", files)
    _, lines = run_until_line(lambda: celforge("dedupe", counting), modules, None)
    for number, line in enumerate(points(lines, 5, seed=5)):
        folder = folder_of(tmp_path / f"killed {number}", files)
        code, _ = run_until_line(lambda folder=folder: celforge("dedupe", folder), modules, line)
        assert code == KILLED
        assert celforge("dedupe", folder).exit_code == 0
        assert tree(folder) == expected
        assert celforge("undo", folder).exit_code == 0
        assert tree(folder) == before


# Real pictures


def test_every_expression_of_the_real_ones_stays(
    celforge: Celforge, tmp_path: Path, shared_testdata: Path
) -> None:
    files = {path.name: path.read_bytes() for path in (shared_testdata / "cg").glob("*.jpg")}
    for path in (shared_testdata / "renpy_sprites" / "sylvie").glob("*green*.png"):
        files[path.name] = saved(on_white(path), ".png")
        files[f"copy of {path.stem}.jpg"] = saved(on_white(path), "q75.jpg")
    assert len(files) == 3 + 2 * 4
    folder = folder_of(tmp_path / "set", files)
    assert celforge("dedupe", folder).exit_code == 0
    assert set(tree(folder)) == {name for name in files if not name.startswith("copy")}


def test_mirror_images_of_real_pictures_go_on_request(
    celforge: Celforge, tmp_path: Path, shared_testdata: Path
) -> None:
    files = {}
    for path in (shared_testdata / "cg").glob("*.jpg"):
        with Image.open(path) as image:
            small = image.resize((640, 360))
        files[f"{path.stem}.png"] = saved(small, ".png")
        files[f"mirrored {path.stem}.jpg"] = saved(ImageOps.mirror(small), "q75.jpg")
    folder = folder_of(tmp_path / "set", files)
    assert celforge("dedupe", folder, "--json").json["dropped_files"] == {}
    assert celforge("dedupe", folder, "--flips", "--json").json["dropped_files"] == {
        "same picture, mirrored": 3
    }
    assert {name.split()[0] for name in tree(folder)} == {"concert1.png", "concert2.png", "concert3.png"}


def test_the_sheet_is_whole_html(celforge: Celforge, tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "set & <b>", {"x.png": MOUTHS["mouth0.png"], "y.jpg": saved(drawn(0), "q75.jpg")}
    )
    answer = celforge("dedupe", folder, "--json")
    text = Path(answer.json["made"][0]).read_text(encoding="utf-8")
    assert "set &amp; &lt;b&gt;" in text
    assert 'src="data:image/jpeg;base64,' in text
    assert json.loads(answer.stdout)["groups"] == 1
