"""Lists of other trainers taken in: facts by content, trees by hard links, and round trips with export."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from pictures import noise, saved

from pipeline.catalog import Catalog
from pipeline.errors import InputError
from pipeline.foreign_sets import read_foreign_set
from pipeline.layouts import everydream
from tests.conftest import Celforge


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(saved(noise(16, 12, seed), "PNG"))
    return path


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def known(root: Path) -> dict[str, dict[str, Any]]:
    """Facts by path: {path: {name: value}}, with the source under "source"."""
    with Catalog.open(root / ".celforge" / "catalog.sqlite3", read_only=True) as catalog:
        sql = """SELECT folder, paths.name, facts.name, value, source FROM paths JOIN facts USING (media_id)
                 WHERE NOT is_gone"""
        found: dict[str, dict[str, Any]] = {}
        for folder, name, fact, value, source in catalog.rows(sql):
            one = found.setdefault(f"{folder}/{name}".strip("/"), {})
            one[fact] = json.loads(value)
            one["source"] = source
        return found


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number, name in enumerate(("a/0.png", "a/1.png", "b/0.png")):
        save(tmp_path / "pictures" / name, number)
    return tmp_path / "pictures"


# Each shape of a list


def test_everydreams_json(celforge: Celforge, pictures: Path) -> None:
    source = write(
        pictures / "list.json",
        [
            {"image": "a/0.png", "caption": "sabine in the rain"},
            {"image": "a/1.png", "main_prompt": "mika", "tags": ["1girl", {"tag": "long hair", "weight": 2}]},
        ],
    )
    answer = celforge("import-dataset", pictures, "--source", source)
    assert answer.exit_code == 0, answer.stderr
    assert known(pictures) == {
        "a/0.png": {"caption": "sabine in the rain", "source": "everydream"},
        "a/1.png": {"caption": "mika", "tags": {"1girl": None, "long_hair": None}, "source": "everydream"},
    }


def test_kohyas_metadata_with_keys_of_every_kind(celforge: Celforge, pictures: Path, tmp_path: Path) -> None:
    source = write(
        tmp_path / "meta.json",
        {
            str(pictures / "a" / "0.png"): {"caption": "a street", "tags": "night, city lights"},
            "a/1.png": {"tags": "1girl"},
            "b/0": {"caption": "by stem"},
        },
    )
    answer = celforge("import-dataset", pictures, "--source", source, "--images", pictures)
    assert answer.exit_code == 0, answer.stderr
    assert known(pictures) == {
        "a/0.png": {"caption": "a street", "tags": {"night": None, "city_lights": None}, "source": "kohya"},
        "a/1.png": {"tags": {"1girl": None}, "source": "kohya"},
        "b/0.png": {"caption": "by stem", "source": "kohya"},
    }


def test_kohyas_toml_with_caption_files_and_with_metadata(celforge: Celforge, pictures: Path) -> None:
    (pictures / "a" / "0.txt").write_text("from a file\n", encoding="utf-8")
    write(pictures / "meta.json", {"0.png": {"tags": "mika"}})
    source = write(
        pictures / "dataset.toml",
        """
        [general]
        caption_extension = ".txt"
        [[datasets]]
          [[datasets.subsets]]
          image_dir = "a"
          num_repeats = 3
          class_tokens = "sabine"
        [[datasets]]
          [[datasets.subsets]]
          image_dir = "b"
          metadata_file = "meta.json"
          num_repeats = 2
        """,
    )
    found = read_foreign_set(source)
    assert [(one.path.name, one.text, one.repeats) for one in found.pictures] == [
        ("0.png", "from a file", 3),
        ("1.png", "sabine", 3),
        ("0.png", "mika", 2),
    ]
    assert celforge("import-dataset", pictures, "--source", source).exit_code == 0
    assert known(pictures)["a/0.png"]["caption"] == "from a file"


def test_json_lines_of_kohya_and_of_hugging_face(pictures: Path) -> None:
    kohya = write(pictures / "k.jsonl", '{"image_path": "a/0.png", "caption": "c", "tags": "x, y"}\n\n')
    (one,) = read_foreign_set(kohya).pictures
    assert (one.caption, one.tags, one.text) == ("c", ("x", "y"), "c, x, y")
    face = write(pictures / "h.jsonl", '{"file_name": "a/0.png", "text": "c", "tags": ["x"], "repeats": 2.5}')
    (one,) = read_foreign_set(face).pictures
    assert (one.text, one.tags, one.repeats) == ("c", ("x",), Fraction(5, 2))


def test_a_list_from_windows_is_found(pictures: Path) -> None:
    source = write(pictures / "list.json", [{"image": "a\\0.png", "caption": "c"}])
    assert read_foreign_set(source).pictures[0].path == pictures / "a" / "0.png"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("broken.json", "{"),
        ("number.json", "3"),
        ("config.json", '{"datasets": []}'),
        ("broken.toml", "a = "),
        ("broken.jsonl", '{"file_name": "a"}\n{'),
        ("deep.json", "[" * 100_000),
    ],
)
def test_what_is_no_list_is_refused(celforge: Celforge, pictures: Path, name: str, text: str) -> None:
    source = write(pictures / name, text)
    with pytest.raises(InputError):
        read_foreign_set(source)
    assert celforge("import-dataset", pictures, "--source", source).exit_code == 2


def test_a_list_in_place_of_the_folder_is_the_source(
    celforge: Celforge, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pictures / "meta.json", {"0.png": {"tags": "mika"}})
    monkeypatch.chdir(pictures)
    one = celforge(
        "import-dataset", pictures, "--source", "meta.json", "--images", pictures / "a", "--dry-run", "--json"
    )
    other = celforge("import-dataset", "meta.json", "--images", pictures / "a", "--dry-run", "--json")
    assert other.exit_code == one.exit_code, other.stderr
    assert {**other.json, "seconds": 0} == {**one.json, "seconds": 0}


def test_a_missing_list_and_no_list(celforge: Celforge, pictures: Path) -> None:
    assert celforge("import-dataset", pictures, "--source", pictures / "no.json").exit_code == 2
    answer = celforge("import-dataset", pictures)
    assert answer.exit_code == 2
    assert "--source" in answer.stderr
    answer = celforge("import-dataset", pictures, "--source", pictures / "no.json", "--no-facts")
    assert answer.exit_code == 2


def test_odd_entries_are_named_and_the_others_taken(celforge: Celforge, pictures: Path) -> None:
    entries = [
        {"image": "a/0.png", "caption": "good", "multiply": "many"},
        {"caption": "no image"},
        "text",
        {"image": "a/gone.png", "caption": "x"},
        {"image": "a/1.png", "caption": 3, "tags": {"a": 1}, "multiply": -1},
    ]
    source = write(pictures / "list.json", entries)
    answer = celforge("import-dataset", pictures, "--source", source, "--json")
    assert answer.exit_code == 3
    assert [one["path"] for one in answer.json["failures"]] == [
        "a/0.png",
        "entry 2",
        "entry 3",
        "a/1.png",
        str(pictures / "a" / "gone.png"),
    ]
    assert known(pictures) == {"a/0.png": {"caption": "good", "source": "everydream"}}


# Facts


def test_pictures_elsewhere_are_known_by_their_content(
    celforge: Celforge, pictures: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere" / "renamed.png"
    copy.parent.mkdir()
    copy.write_bytes((pictures / "b" / "0.png").read_bytes())
    save(tmp_path / "elsewhere" / "new.png", 99)
    entries = [{"image": name, "caption": f"of {name}"} for name in ("renamed.png", "new.png")]
    source = write(tmp_path / "elsewhere" / "list.json", entries)
    answer = celforge("import-dataset", pictures, "--source", source)
    assert answer.exit_code == 3
    assert "--tree" in answer.stderr
    assert known(pictures) == {"b/0.png": {"caption": "of renamed.png", "source": "everydream"}}


def test_a_persons_word_stays_above(celforge: Celforge, pictures: Path) -> None:
    from pipeline.job import open_job

    with open_job(pictures, "hand") as job:
        file = job.images()[0]
        job.set_fact(file, "caption", "by hand", source="hand", by_hand=True)
    source = write(pictures / "list.json", [{"image": "a/0.png", "caption": "imported"}])
    celforge("import-dataset", pictures, "--source", source)
    with Catalog.open(pictures / ".celforge" / "catalog.sqlite3", read_only=True) as catalog:
        assert catalog.fact(file.id, "caption") == "by hand"


def test_facts_are_taken_back_by_undo(celforge: Celforge, pictures: Path) -> None:
    source = write(pictures / "list.json", [{"image": "a/0.png", "caption": "x"}])
    celforge("import-dataset", pictures, "--source", source)
    assert celforge("undo", pictures).exit_code == 0
    assert known(pictures) == {}


# Trees


def trained(root: Path) -> dict[str, tuple[Fraction, str]]:
    return {
        one.path.relative_to(root).as_posix(): (one.multiply, one.caption) for one in everydream.images(root)
    }


def test_a_tree_has_links_captions_and_repeats(celforge: Celforge, pictures: Path, tmp_path: Path) -> None:
    entries = [
        {"image": "a/0.png", "caption": "zero", "multiply": 2.5},
        {"image": "a/1.png", "main_prompt": "one", "tags": ["1girl"], "multiply": 2.5},
        {"image": "b/0.png", "caption": "two"},
    ]
    source = write(pictures / "list.json", entries)
    project = tmp_path / "project"
    project.mkdir()
    answer = celforge("import-dataset", project, "--source", source, "--tree", "dataset")
    assert answer.exit_code == 0, answer.stderr
    assert trained(project / "dataset") == {
        "a/0.png": (Fraction(5, 2), "zero"),
        "a/1.png": (Fraction(5, 2), "one, 1girl"),
        "b/0.png": (Fraction(1), "two"),
    }
    assert (project / "dataset" / "a" / "0.png").samefile(pictures / "a" / "0.png")
    celforge("ingest", project)
    assert known(project)["dataset/a/1.png"]["tags"] == {"1girl": None}
    assert celforge("undo", project).exit_code == 0
    assert not (project / "dataset").exists()
    assert (pictures / "a" / "0.png").is_file()


def test_repeats_of_one_picture_stand_beside_it(celforge: Celforge, pictures: Path) -> None:
    entries = [{"image": f"a/{number}.png", "caption": "x", "multiply": number + 1} for number in range(2)]
    save(pictures / "a" / "2.png", 7)
    entries.append({"image": "a/2.png", "caption": "x", "multiply": 2})
    source = write(pictures / "list.json", entries)
    celforge("import-dataset", pictures, "--source", source, "--tree", "t", "--no-facts")
    assert {name: repeats for name, (repeats, _) in trained(pictures / "t").items()} == {
        "0.png": 1,
        "1.png": 2,
        "2.png": 2,
    }
    assert (pictures / "t" / "multiply.txt").read_text(encoding="utf-8") == "2\n"


def test_several_captions_of_one_picture_become_several_links(celforge: Celforge, pictures: Path) -> None:
    entries = [{"image": "a/0.png", "caption": caption} for caption in ("first", "second")]
    source = write(pictures / "list.json", entries)
    assert celforge("import-dataset", pictures, "--source", source, "--tree", "t").exit_code == 0
    assert [caption for _, caption in trained(pictures / "t").values()] == ["second", "first"]
    assert known(pictures)["a/0.png"]["caption"] == "first"


def test_a_dry_run_leaves_no_trace(celforge: Celforge, pictures: Path, tmp_path: Path) -> None:
    source = write(pictures / "list.json", [{"image": "a/0.png", "caption": "x"}])
    project = tmp_path / "project"
    project.mkdir()
    answer = celforge("import-dataset", project, "--source", source, "--tree", "t", "--dry-run")
    assert answer.exit_code == 0
    assert "hardlink" in answer.stdout
    assert [path.name for path in project.iterdir()] == [".celforge"]
    assert known(project) == {}


@pytest.mark.parametrize("name", ["a/b", "..", "con", "x.", "a:b"])
def test_a_tree_needs_a_name_that_works_everywhere(celforge: Celforge, pictures: Path, name: str) -> None:
    source = write(pictures / "list.json", [{"image": "a/0.png", "caption": "x"}])
    assert celforge("import-dataset", pictures, "--source", source, "--tree", name).exit_code == 2


def test_a_tree_never_joins_another(celforge: Celforge, pictures: Path) -> None:
    source = write(pictures / "list.json", [{"image": "a/0.png", "caption": "x"}])
    answer = celforge("import-dataset", pictures, "--source", source, "--tree", "a")
    assert answer.exit_code == 2
    assert "exists already" in answer.stderr


# Round trips


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "from" / "dataset"
    texts = {
        "1_character/Sabine/0.png": "sabine, 1girl",
        "1_character/Sabine/1.png": "sabine, 1girl, ^_^",
        "1_character/Sabine/2.png": "sabine, smile",
        "others/猫 x.png": "A street at night, with cats.",
    }
    for number, (name, caption) in enumerate(texts.items()):
        save(root / name, number).with_suffix(".txt").write_text(caption, encoding="utf-8")
    write(root / "1_character" / "Sabine" / "multiply.txt", "2.5")
    write(root.parent / "celforge.toml", "")
    return root


@pytest.mark.parametrize(
    ("to", "name"),
    [("kohya-json", "exports/kohya-json/dataset.toml"), ("imagefolder", "dataset/metadata.jsonl")],
)
def test_export_then_import_gives_the_same_training(
    celforge: Celforge, tree: Path, tmp_path: Path, to: str, name: str
) -> None:
    assert celforge("export", tree, "--to", to).exit_code == 0
    project = tmp_path / "to"
    project.mkdir()
    answer = celforge("import-dataset", project, "--source", tree.parent / name, "--tree", "dataset")
    assert answer.exit_code == 0, answer.stderr
    before, after = trained(tree), trained(project / "dataset")
    assert {path: caption for path, (_, caption) in after.items()} == {
        path: caption for path, (_, caption) in before.items()
    }
    total = sum(repeats for repeats, _ in before.values())
    assert sum(repeats for repeats, _ in after.values()) == (total if to == "imagefolder" else total // 1)


def test_import_then_export_gives_the_same_bytes(celforge: Celforge, tree: Path) -> None:
    celforge("export", tree, "--paths", "relative")
    first = {path.name: path.read_bytes() for path in (tree.parent / "exports").rglob("*.json")}
    source = tree.parent / "exports" / "kohya-json" / "dataset.toml"
    celforge("import-dataset", tree.parent, "--source", source, "--tree", "again")
    answer = celforge("export", tree.parent / "again", "--paths", "relative", "--out", tree.parent / "second")
    assert answer.exit_code == 0, answer.stderr
    assert {path.name: path.read_bytes() for path in (tree.parent / "second").rglob("*.json")} == first
