"""Exports: byte for byte on a small tree, and read again by the rules of each trainer, restated here."""

import json
import os
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import noise, saved

from pipeline.exporting.examples import Example, ExampleFolder
from pipeline.exporting.formats import FORMATS, How
from pipeline.job import open_job
from pipeline.layouts.everydream import FolderSettings
from tests.conftest import Celforge

TO = ["kohya-json", "imagefolder", "onetrainer", "ai-toolkit", "diffusion-pipe"]
FOLDERS = [
    ExampleFolder(
        ("1_character", "Sabine"),
        "/d/1_character/Sabine",
        (
            Example("a.png", Fraction(2), "sabine, 1girl", ".txt", ("1girl", "long_hair"), {"rating": "g"}),
            Example("b.jpg", Fraction(2), "Sabine stands in the rain.", ".txt", ("1girl",), {}),
        ),
        FolderSettings(multiply=Fraction(2), cond_dropout=0.1, flip_p=0.5, shuffle_tags=True),
    ),
    ExampleFolder((), "/d", (Example('猫 "x".webp', Fraction(1), "", "", ("cat_ears", "^_^")),)),
]


def exported(to: str, folders: list[ExampleFolder] = FOLDERS, **changes: Any) -> dict[str, str]:
    how = {
        "root": "/d",
        "location": "/e/",
        "resolution_px": 512,
        "fractions": "split",
        "seed": 0,
        "adds_tags": False,
        "absolute": True,
    } | changes
    return dict(FORMATS[to](folders, How(**how)).files)


def notes(to: str, folders: list[ExampleFolder] = FOLDERS) -> str:
    how = How("/d", "/e/", 512, "split", 0, adds_tags=False, absolute=True)
    return "\n".join(FORMATS[to](folders, how).notes)


# Byte for byte


def test_kohya_json_byte_for_byte() -> None:
    assert exported("kohya-json") == {
        "metadata/2_1_character~Sabine.json": """{
 "/d/1_character/Sabine/a.png": {
  "tags": "sabine, 1girl"
 },
 "/d/1_character/Sabine/b.jpg": {
  "caption": "Sabine stands in the rain."
 }
}
""",
        "metadata/1__root.json": """{
 "/d/猫 \\"x\\".webp": {
  "tags": "cat ears, ^_^"
 }
}
""",
        "dataset.toml": """[[datasets]]
resolution = 512
enable_bucket = true

  [[datasets.subsets]]
  image_dir = "/d/1_character/Sabine"
  metadata_file = "/e/metadata/2_1_character~Sabine.json"
  num_repeats = 2
  caption_dropout_rate = 0.1
  flip_aug = true
  shuffle_caption = true
  keep_tokens = 1

  [[datasets.subsets]]
  image_dir = "/d"
  metadata_file = "/e/metadata/1__root.json"
  num_repeats = 1
""",
    }


def test_imagefolder_byte_for_byte() -> None:
    assert exported("imagefolder") == {
        "metadata.jsonl": '{"file_name": "1_character/Sabine/a.png", "text": "sabine, 1girl", '
        '"tags": ["1girl", "long_hair"], "rating": "g", "repeats": 2}\n'
        '{"file_name": "1_character/Sabine/b.jpg", "text": "Sabine stands in the rain.", '
        '"tags": ["1girl"], "rating": null, "repeats": 2}\n'
        '{"file_name": "猫 \\"x\\".webp", "text": "", "tags": ["cat_ears", "^_^"], "rating": null, "repeats": 1}\n'
    }


def test_ai_toolkit_byte_for_byte() -> None:
    assert exported("ai-toolkit", FOLDERS[:1]) == {
        "datasets.yaml": """# Put this in place of datasets: in the process of an ai-toolkit job.
datasets:
- folder_path: /d/1_character/Sabine
  caption_ext: txt
  num_repeats: 2
  resolution:
  - 512
  caption_dropout_rate: 0.1
  shuffle_tokens: true
  keep_tokens: 1
  flip_x: true
"""
    }


def test_diffusion_pipe_byte_for_byte() -> None:
    assert exported("diffusion-pipe", FOLDERS[:1], resolution_px=768) == {
        "dataset.toml": """resolutions = [768]
enable_ar_bucket = true
min_ar = 0.5
max_ar = 2.0
num_ar_buckets = 7

[[directory]]
path = "/d/1_character/Sabine"
num_repeats = 2
"""
    }


def test_onetrainer_byte_for_byte() -> None:
    assert exported("onetrainer", FOLDERS[:1]) == {
        "concepts.json": """[
    {
        "__version": 2,
        "name": "1_character/Sabine",
        "path": "/d/1_character/Sabine",
        "seed": 533722262,
        "enabled": true,
        "type": "STANDARD",
        "include_subdirectories": false,
        "balancing": 2,
        "balancing_strategy": "REPEATS",
        "loss_weight": 1.0,
        "image": {
            "enable_random_flip": true
        },
        "text": {
            "prompt_source": "sample",
            "enable_tag_shuffling": true,
            "tag_delimiter": ",",
            "keep_tags_count": 1
        }
    }
]
"""
    }


# What is said


def test_what_has_no_equal_is_said() -> None:
    odd = ExampleFolder(
        ("x",),
        "/d/x",
        (Example("a.bmp", Fraction(5, 2), "a", ".caption"), Example("b.png", Fraction(1), "b", ".txt")),
        FolderSettings(
            cond_dropout=0.2, flip_p=0.1, loss_scale=0.5, batch_id="b", others=frozenset({"rating"})
        ),
        others=("local.yaml", "notes.txt"),
    )
    text = notes("diffusion-pipe", [odd])
    for said in (
        "cond_dropout has no equal there: x",
        "flip_p has no equal there: x",
        "loss_scale has no equal there: x",
        "batch_id has no equal there: x",
        "rating has no equal there",
        "takes these files for pictures; move them away: x/local.yaml",
        "captions are read from .txt files only: x",
        "the mean of their folder: x",
        "repeats are whole numbers here (+14.3 % in all)",
    ):
        assert said in text
    assert "notes.txt" not in text
    assert "not read there: .bmp (1)" in notes("ai-toolkit", [odd])
    assert "two suffixes" in notes("ai-toolkit", [odd])
    assert "chance of one half: x" in notes("onetrainer", [odd])
    assert "not read" not in notes("onetrainer", [odd])
    assert "batch_id has no equal" in notes("kohya-json", [odd])
    assert "pictures without a caption file" in notes("diffusion-pipe")


def test_a_plain_tree_needs_no_notes() -> None:
    plain = ExampleFolder(("a",), "/d/a", (Example("a.png", Fraction(3), "a", ".txt"),))
    for to in TO:
        assert notes(to, [plain]) == ("" if to != "imagefolder" else notes("imagefolder", [plain]))


def test_a_keep_separator_in_captions_is_told_to_kohya() -> None:
    folder = ExampleFolder(
        ("a",), "/d/a", (Example("a.png", Fraction(1), "sabine ||| 1girl, smile", ".txt"),)
    )
    files = exported("kohya-json", [folder])
    (subset,) = tomllib.loads(files["dataset.toml"])["datasets"][0]["subsets"]
    assert subset["keep_tokens_separator"] == "|||"
    assert json.loads(files["metadata/1_a.json"])["/d/a/a.png"] == {"tags": "sabine ||| 1girl, smile"}


def test_sentences_get_the_tags_of_the_catalogue_on_request() -> None:
    files = exported("kohya-json", adds_tags=True)
    entries = json.loads(files["metadata/2_1_character~Sabine.json"])
    assert entries["/d/1_character/Sabine/b.jpg"] == {
        "caption": "Sabine stands in the rain.",
        "tags": "1girl",
    }
    assert entries["/d/1_character/Sabine/a.png"] == {"tags": "sabine, 1girl"}


# kohya's rules: every entry of a subset's JSON, so many times; equal keys of two subsets are one picture


def kohya_sees(toml_text: str, files: dict[str, str]) -> dict[str, int]:
    """Repeats by absolute path; `files` by the path that metadata_file names."""
    seen: dict[str, int] = {}
    for dataset in tomllib.loads(toml_text)["datasets"]:
        metadata_files = [subset["metadata_file"] for subset in dataset["subsets"]]
        assert len(set(metadata_files)) == len(metadata_files), "a metadata file named twice is read once"
        keys: set[str] = set()
        for subset in dataset["subsets"]:
            for key, entry in json.loads(files[subset["metadata_file"]]).items():
                assert key not in keys, "the later subset would take the picture from the earlier"
                assert set(entry) <= {"caption", "tags"}
                keys.add(key)
                path = key if key.startswith("/") else os.path.join(subset["image_dir"], key)
                seen[os.path.normpath(path)] = subset["num_repeats"]
    return seen


@given(
    st.lists(
        st.tuples(
            st.fractions(min_value=Fraction(1, 20), max_value=20, max_denominator=100), st.integers(1, 30)
        ),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_kohya_json_keeps_fractions_in_the_sum(tree: list[tuple[Fraction, int]], absolute: bool) -> None:
    folders = [
        ExampleFolder(
            (f"f{number}",),
            f"/d/f{number}",
            tuple(Example(f"{index}.png", repeats, "a", ".txt") for index in range(count)),
        )
        for number, (repeats, count) in enumerate(tree)
    ]
    location = "/e/" if absolute else ""
    files = exported("kohya-json", folders, absolute=absolute, location=location)
    seen = kohya_sees(files["dataset.toml"], {f"{location}{name}": text for name, text in files.items()})
    exact = [repeats * count for repeats, count in tree]
    assert sum(seen.values()) >= sum(exact) // 1
    assert sum(seen.values()) <= max(sum(exact), sum(max(1, value // 1) for value in exact))
    for path, repeats in seen.items():
        wanted = tree[int(path.split("/f")[1].split("/")[0])][0]
        assert repeats in (wanted // 1, wanted // 1 + 1)


@given(
    st.lists(
        st.text(min_size=1, max_size=8).filter(lambda text: "/" not in text and "\0" not in text), max_size=4
    )
)
@settings(max_examples=25, deadline=None)
def test_any_name_is_read_back_by_independent_parsers(names: list[str]) -> None:
    names = [name.encode("utf-8", "ignore").decode() or "x" for name in dict.fromkeys(names)]
    names = list(dict.fromkeys(names))
    folders = [
        ExampleFolder((name,), f"/d/{name}", (Example("a.png", Fraction(1), name, ".txt"),)) for name in names
    ]
    paths = [f"/d/{name}" for name in names]
    toml = tomllib.loads(exported("diffusion-pipe", folders)["dataset.toml"])
    assert [one["path"] for one in toml.get("directory", [])] == paths
    concepts = json.loads(exported("onetrainer", folders)["concepts.json"])
    assert [one["path"] for one in concepts] == paths
    kohya = tomllib.loads(exported("kohya-json", folders)["dataset.toml"])["datasets"][0].get("subsets", [])
    assert [one["image_dir"] for one in kohya] == paths
    datasets = yaml.safe_load(exported("ai-toolkit", folders)["datasets.yaml"])["datasets"]
    assert [one["folder_path"] for one in datasets] == paths
    lines = [
        json.loads(line) for line in exported("imagefolder", folders)["metadata.jsonl"].split("\n") if line
    ]
    assert [one["file_name"] for one in lines] == [f"{name}/a.png" for name in names]


# The command


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An EveryDream tree: 2.5 of four, and a folder with a sentence."""
    root = tmp_path / "project" / "dataset"
    for number in range(4):
        save(root / "1_character" / "Sabine" / f"{number}.png", seed=number, caption="sabine, 1girl")
    save(root / "others" / "x.png", seed=9, caption="A street at night.")
    (root / "1_character" / "Sabine" / "multiply.txt").write_text("2.5", encoding="utf-8")
    return root


def save(path: Path, *, seed: int, caption: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(saved(noise(16, 12, seed), "PNG"))
    if caption:
        path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")


def project(tree: Path) -> Path:
    (tree.parent / "celforge.toml").touch()
    return tree.parent


def snapshot(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".celforge" not in path.parts
    }


def test_kohya_reads_what_the_command_wrote(celforge: Celforge, tree: Path) -> None:
    out = project(tree) / "exports" / "kohya-json"
    answer = celforge("export", tree)
    assert answer.exit_code == 0, answer.stderr
    files = {str(path): path.read_text(encoding="utf-8") for path in out.rglob("*.json")}
    seen = kohya_sees((out / "dataset.toml").read_text(encoding="utf-8"), files)
    assert sum(seen.values()) == 11
    assert sorted(Path(path).name for path in seen) == ["0.png", "1.png", "2.png", "3.png", "x.png"]
    assert all(Path(path).is_file() for path in seen)


def test_of_a_project_its_dataset_is_exported(celforge: Celforge, tree: Path) -> None:
    save(project(tree) / "frames" / "f.png", seed=30)
    answer = celforge("export", project(tree), "--to", "diffusion-pipe", "--json")
    assert answer.json["pictures"] == 5
    assert answer.json["tree"] == str(tree)


def test_relative_paths_lead_from_the_files_to_the_pictures(celforge: Celforge, tree: Path) -> None:
    out = project(tree) / "out"
    assert celforge("export", tree, "--paths", "relative", "--out", out).exit_code == 0
    subsets = tomllib.loads((out / "dataset.toml").read_text(encoding="utf-8"))["datasets"][0]["subsets"]
    for subset in subsets:
        for key in json.loads((out / subset["metadata_file"]).read_text(encoding="utf-8")):
            assert (out / subset["image_dir"] / key).is_file()
    celforge("export", tree, "--to", "diffusion-pipe", "--paths", "relative", "--out", out / "d")
    for one in tomllib.loads((out / "d" / "dataset.toml").read_text(encoding="utf-8"))["directory"]:
        assert list((out / "d" / one["path"]).glob("*.png"))


def test_hugging_face_finds_every_picture_from_its_file(celforge: Celforge, tree: Path) -> None:
    project(tree)
    assert celforge("export", tree, "--to", "imagefolder").exit_code == 0
    rows = [json.loads(line) for line in (tree / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all((tree / row["file_name"]).is_file() for row in rows)
    assert {row["text"] for row in rows} == {"sabine, 1girl", "A street at night."}
    assert len({tuple(row) for row in rows}) == 1, "every line has the same columns"


def test_facts_become_columns_and_texts(celforge: Celforge, tree: Path) -> None:
    project(tree)
    (tree / "others" / "x.txt").unlink()
    with open_job(tree, "tag") as job:
        for file in job.images():
            job.set_fact(file, "tags", {"long_hair": 0.9}, source="wd")
            job.set_fact(file, "characters", ["sabine"], source="identify")
            job.set_fact(file, "caption", "A street by day.", source="vlm")
    celforge("export", tree, "--to", "imagefolder")
    last = json.loads((tree / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["text"] == "A street by day."
    assert last["tags"] == ["long_hair"]
    assert last["characters"] == ["sabine"]


def test_dry_run_writes_nothing_and_undo_takes_back(celforge: Celforge, tree: Path) -> None:
    root = project(tree)
    before = snapshot(root)
    answer = celforge("export", tree, "--dry-run")
    assert answer.exit_code == 0
    assert "write" in answer.stdout
    assert snapshot(root) == before
    celforge("export", tree)
    assert snapshot(root) != before
    assert celforge("undo", root).exit_code == 0
    assert snapshot(root) == before


def test_again_writes_nothing(celforge: Celforge, tree: Path) -> None:
    project(tree)
    celforge("export", tree)
    assert celforge("export", tree, "--json").json["files_written"] == 0


@pytest.mark.parametrize("to", TO)
def test_nothing_is_written_over_unasked(celforge: Celforge, tree: Path, to: str) -> None:
    root = project(tree)
    assert celforge("export", tree, "--to", to).exit_code == 0
    name = {
        "kohya-json": "exports/kohya-json/dataset.toml",
        "imagefolder": "dataset/metadata.jsonl",
        "onetrainer": "exports/onetrainer/concepts.json",
        "ai-toolkit": "exports/ai-toolkit/datasets.yaml",
        "diffusion-pipe": "exports/diffusion-pipe/dataset.toml",
    }[to]
    (root / name).write_text("mine", encoding="utf-8")
    answer = celforge("export", tree, "--to", to)
    assert answer.exit_code == 1
    assert "--overwrite" in answer.stderr
    assert (root / name).read_text(encoding="utf-8") == "mine"
    assert celforge("export", tree, "--to", to, "--overwrite").exit_code == 0
    assert (root / name).read_text(encoding="utf-8") != "mine"
    celforge("undo", root)
    assert (root / name).read_text(encoding="utf-8") == "mine"


def test_a_kohya_tree_is_exported_by_its_names(celforge: Celforge, tmp_path: Path) -> None:
    save(tmp_path / "3_sabine" / "a.png", seed=1, caption="sabine")
    save(tmp_path / "loose" / "b.png", seed=2, caption="b")
    celforge("export", tmp_path, "--to", "diffusion-pipe", "--layout", "kohya")
    toml = tomllib.loads(
        (tmp_path / "exports" / "diffusion-pipe" / "dataset.toml").read_text(encoding="utf-8")
    )
    assert [(Path(one["path"]).name, one["num_repeats"]) for one in toml["directory"]] == [("3_sabine", 3)]


def test_ai_toolkit_refuses_pictures_below_pictures(celforge: Celforge, tree: Path) -> None:
    root = project(tree)
    save(tree / "1_character" / "x.png", seed=20, caption="x")
    answer = celforge("export", tree, "--to", "ai-toolkit")
    assert answer.exit_code == 2
    assert "celforge flatten" in answer.stderr
    assert not (root / "exports").exists()


def test_a_caption_that_is_no_text_fails_alone(celforge: Celforge, tree: Path) -> None:
    project(tree)
    (tree / "others" / "x.txt").write_bytes(b"caf\xe9")
    answer = celforge("export", tree, "--to", "imagefolder")
    assert answer.exit_code == 3
    assert "not UTF-8" in answer.stderr
    assert len((tree / "metadata.jsonl").read_text(encoding="utf-8").splitlines()) == 4


def test_broken_repeats_stop_the_export(celforge: Celforge, tree: Path) -> None:
    project(tree)
    (tree / "others" / "multiply.txt").write_text("-3", encoding="utf-8")
    answer = celforge("export", tree)
    assert answer.exit_code == 1
    assert 'multiply must be above 0, found "-3"' in answer.stderr


def test_an_empty_folder_is_refused(celforge: Celforge, tmp_path: Path) -> None:
    assert celforge("export", tmp_path).exit_code == 2


def test_metadata_jsonl_elsewhere_is_refused(celforge: Celforge, tree: Path) -> None:
    project(tree)
    answer = celforge("export", tree, "--to", "imagefolder", "--out", tree.parent)
    assert answer.exit_code == 2
    assert "at the top of the pictures" in answer.stderr


def test_settings_without_effect_are_said(celforge: Celforge, tree: Path) -> None:
    project(tree)
    answer = celforge("export", tree, "--to", "onetrainer", "--fractions", "ceil")
    assert "fractions has no effect" in answer.stderr
