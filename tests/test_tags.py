"""`celforge tags`: counting, searching and editing by the word that counts."""

import io
import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from pipeline.catalog import Catalog
from pipeline.charts import ROW_PX
from pipeline.job import open_job
from pipeline.project import find_project
from pipeline.tagging.chart import DARK, LIGHT, SCALE, TOP_PX, png_chart, svg_chart
from pipeline.tagging.edits import Edits, edited, read_pair
from pipeline.tagging.search import TagBook, split_words
from tests.conftest import Celforge

PICTURES = {
    "ep01/a.png": {"solo": 0.9, "long_hair": 0.8, "^_^": 0.7},
    "ep01/b.png": {"solo": 0.6, "smile": 0.5},
    "ep02/deep/c.png": {"long_hair": 0.9, "short_hair": 0.4, 'a"quote': 0.5, "-_-": 0.3},
    "ep02/d.png": {},
    "e.png": None,  # never tagged
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "frames"
    for number, path in enumerate(PICTURES):
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(made / path)
    with open_job(made, "tag") as job:
        for file in job.images():
            tags = PICTURES[file.relative]
            if tags is not None:
                job.set_fact(file, "tags", tags, source="wd")
                job.set_fact(file, "rating", "general" if tags else "explicit", source="wd")
            if file.relative.endswith("a.png"):
                job.set_fact(file, "tags", {"solo": 0.1, "older": 0.1}, source="an older tagger")
                job.catalog.rows("UPDATE facts SET run_id = NULL WHERE source = 'an older tagger'")
                job.set_fact(file, "characters", ["Sabine"], source="hand", by_hand=True)
            if file.relative.endswith("b.png"):
                job.set_fact(file, "character_tags", {"sabine_(tale)": 0.9}, source="wd")
    return made


def found(folder: Path, query: str) -> list[str]:
    project = find_project(folder)
    with Catalog.open(project.catalog_path, read_only=True) as catalog:
        book = TagBook(catalog, project, folder, query)
        paths = book.paths(media_id for media_id, _ in book.rows([]))
    return sorted(path.split("/")[-1][0] for places in paths.values() for path in places)


@pytest.mark.parametrize(
    ("query", "letters"),
    [
        ("", "abcde"),
        ("solo", "ab"),
        ("solo -smile", "a"),
        ('"long hair"', "ac"),
        ("long_hair", "ac"),
        ("*_hair -ep01", "ac"),  # no tag of that name: a folder is asked for by folder:
        ("-*_hair", "bde"),
        ("quote", ""),
        ("tag:-_-", "c"),
        ("-tag:-_-", "abde"),
        ("^_^", "a"),
        ("older", ""),
        ("char:sabine", "a"),
        ("char:sabine*", "ab"),
        ("folder:ep02", "cd"),
        ("folder:ep02/deep", "c"),
        ("-folder:ep*", "e"),
        ("rating:explicit", "d"),
        ("tags>2", "ac"),
        ("tags=0", "de"),
        ("tags=0 rating:*", "d"),
        ("tags<=2 tags>0", "b"),
        ("source:w*", "abcd"),
        ("by:hand", ""),
    ],
)
def test_all_words_of_a_search_must_hold(folder: Path, query: str, letters: str) -> None:
    assert "".join(found(folder, query)) == letters


def test_a_search_stays_below_the_folder_given(folder: Path) -> None:
    assert found(folder / "ep02", "long_hair") == ["c"]


def test_captions_are_found_by_their_tokens(folder: Path) -> None:
    with open_job(folder, "caption") as job:
        long_one, short_one = job.images()[:2]
        job.set_fact(long_one, "caption", "smile, " * 40)  # two tokens each: the word and the comma
        job.set_fact(short_one, "caption", "smile")
    assert found(folder, "tokens>75") == found(folder, "tokens=80") == [Path(long_one.relative).stem]
    assert found(folder, "tokens=1") == [Path(short_one.relative).stem]


def test_quotes_keep_spaces_and_nothing_else_is_special() -> None:
    assert split_words('a "b c" -"d e" it\'s #1 \\o/') == ["a", "b c", "-d e", "it's", "#1", "\\o/"]


@pytest.mark.parametrize(("query", "said"), [('"a', "not closed"), ("by:me", "by:hand")])
def test_a_search_that_cannot_be_answered_says_so(
    celforge: Celforge, folder: Path, query: str, said: str
) -> None:
    answer = celforge("tags", folder, "--search", query)
    assert answer.exit_code == 2
    assert said in answer.stderr


def test_counts_are_of_pictures_by_the_word_that_counts(celforge: Celforge, folder: Path) -> None:
    answer = celforge("tags", folder, "--json").json
    assert (answer["pictures"], answer["tagged"], answer["names"]) == (5, 4, 7)
    assert answer["tags"][:3] == [
        {"tag": "long_hair", "pictures": 2},
        {"tag": "solo", "pictures": 2},
        {"tag": "-_-", "pictures": 1},
    ]
    assert celforge("tags", folder, "--category", "rating", "--json").json["tags"] == [
        {"tag": "general", "pictures": 3},
        {"tag": "explicit", "pictures": 1},
    ]
    assert celforge("tags", folder, "--category", "characters", "--json").json["tags"] == [
        {"tag": "Sabine", "pictures": 1}
    ]
    text = celforge("tags", folder, "--top", 1).stdout
    assert "long_hair" in text
    assert "smile" not in text


def test_tags_beside_another_are_counted_with_their_lift(celforge: Celforge, folder: Path) -> None:
    answer = celforge("tags", folder, "--beside", "long hair", "--json").json
    assert answer["pictures"] == 2
    rows = {row["tag"]: row for row in answer["beside"]}
    assert rows["solo"] == {"tag": "solo", "pictures": 1, "share": 0.5, "lift": 1.25}  # 1*5 / (2*2)
    assert "long_hair" not in rows


def test_reading_leaves_the_folder_as_it_was(celforge: Celforge, folder: Path) -> None:
    def state() -> dict[Path, int]:  # SQLite keeps files beside its own while a catalogue is read
        paths = [path for path in folder.rglob("*") if ".celforge" not in path.parts]
        journals = list((folder / ".celforge").glob("journals/*"))
        return {path: path.stat().st_mtime_ns for path in [*paths, *journals]}

    before = state()
    for arguments in (
        [],
        ["--files"],
        ["--beside", "solo"],
        ["--of", folder / "e.png"],
        ["--add", "x", "--dry-run"],
    ):
        assert celforge("tags", folder, *arguments).exit_code == 0
    assert state() == before


def test_edits_are_previewed_made_and_taken_back(celforge: Celforge, folder: Path) -> None:
    edit = ("--search", "solo", "--rename", "solo=alone", "--remove", "sm*", "--add", "my_tag")
    preview = celforge("tags", folder, *edit, "--dry-run", "--json").json
    assert preview["pictures_changed"] == 2
    assert preview["changes"][0] == {"picture": "ep01/a.png", "change": "+alone +my_tag -solo"}
    assert found(folder, "alone") == []
    answer = celforge("tags", folder, *edit, "--json")
    assert answer.json["tags_removed"] == {"solo": 2, "smile": 1}
    assert found(folder, "alone my_tag by:hand") == ["a", "b"]
    celforge("tags", folder, "--search", "folder:ep01", "--remove", "*")
    emptied = celforge("tags", folder, "--of", folder / "ep01" / "b.png", "--json").json
    assert [(one["tag"], one["source"]) for one in emptied if one["counts"] and one["kind"] == "tags"] == [
        ("(none)", "hand")
    ]
    celforge("undo", folder)
    shown = celforge("tags", folder, "--of", folder / "ep01" / "b.png", "--json").json
    by_hand = {row["tag"]: row["probability"] for row in shown if row["by_hand"]}
    assert by_hand == {"alone": 0.6, "my_tag": None}
    machine = [row for row in shown if row["kind"] == "tags" and not row["by_hand"]]
    assert {row["tag"] for row in machine} == {"solo", "smile"}
    assert not any(row["counts"] for row in machine)
    assert machine[0]["date"].startswith("20")
    assert celforge("undo", folder).exit_code == 0
    assert found(folder, "solo") == ["a", "b"]
    assert found(folder, "by:hand") == []


def test_an_edit_reaches_pictures_that_no_tagger_saw(celforge: Celforge, folder: Path) -> None:
    assert celforge("tags", folder, "--search", "tags=0", "--add", "empty").exit_code == 0
    assert found(folder, "empty") == ["d", "e"]


def test_an_edit_that_changes_nothing_leaves_nothing_to_undo(celforge: Celforge, folder: Path) -> None:
    answer = celforge("tags", folder, "--remove", "not there", "--json")
    assert (answer.exit_code, answer.json["pictures_changed"]) == (0, 0)
    assert "nothing to take back" in celforge("undo", folder).stderr


def test_forgetting_hands_tags_back_to_the_tagger_and_undo_brings_them_back(
    celforge: Celforge, folder: Path
) -> None:
    before = found(folder, "solo")
    celforge("tags", folder, "--rename", "solo=alone")
    celforge("tags", folder, "--search", "tags=0", "--add", "empty")
    preview = celforge("tags", folder, "--forget", "tags", "--search", "alone", "--dry-run", "--json")
    assert preview.json["forgotten"] == {"tags": len(before), "characters": 0, "caption": 0}
    assert found(folder, "alone") == before  # a dry run changes nothing
    shown = celforge("tags", folder, "--forget", "tags", "--search", "alone", "--dry-run").stdout
    assert "alone" in shown
    assert "-> " in shown
    answer = celforge("tags", folder, "--forget", "tags", "--search", "alone", "--json")
    assert answer.exit_code == 0
    assert answer.json["forgotten"]["tags"] == len(before)
    assert (found(folder, "alone"), found(folder, "solo")) == ([], before)
    assert found(folder, "empty") == ["d", "e"]  # others stay edited
    assert celforge("undo", folder).exit_code == 0
    assert (found(folder, "alone"), found(folder, "solo")) == (before, [])


def test_forgetting_what_nobody_said_changes_nothing(celforge: Celforge, folder: Path) -> None:
    answer = celforge("tags", folder, "--forget", "tags", "--forget", "caption", "--json")
    assert (answer.exit_code, answer.json["forgotten"]) == (0, {"tags": 0, "characters": 0, "caption": 0})
    assert found(folder, "char:Sabine") == ["a"]
    answer = celforge("tags", folder, "--forget", "characters", "--json")
    assert answer.json["forgotten"]["characters"] == 1
    assert found(folder, "char:Sabine") == []


def test_forgetting_twice_is_nothing_the_second_time(celforge: Celforge, folder: Path) -> None:
    celforge("tags", folder, "--add", "x")
    assert celforge("tags", folder, "--forget", "tags", "--json").json["forgotten"]["tags"] == 5
    assert celforge("tags", folder, "--forget", "tags", "--json").json["forgotten"]["tags"] == 0


def test_edits_of_one_picture() -> None:
    tags = {"grin": 0.4, "smile": 0.9, "long_hair": 0.5, "x": None}
    assert edited(tags, Edits(replaced=(("grin", ("smile",)),))) == {
        "smile": 0.9,
        "long_hair": 0.5,
        "x": None,
    }
    assert edited(tags, Edits(replaced=(("long hair", ("hair", "long")),)))["hair"] == 0.5
    assert edited(tags, Edits(removed=("*",), added=("y", "y"))) == {"y": None}
    assert edited(tags, Edits(added=("smile",))) == tags


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("a=b", ("a", ("b",))),
        ("a=b, c", ("a", ("b", "c"))),
        ("=_==happy", ("=_=", ("happy",))),
        ("happy=>=_=", ("happy", ("=_=",))),
    ],
)
def test_pairs_may_hold_an_equals_sign(text: str, pair: tuple[str, tuple[str, ...]]) -> None:
    assert read_pair(text, "--rename") == pair


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rename", "a"],
        ["--rename", "=b"],
        ["--rename", "a=b,c"],
        ["--replace", "a="],
        ["--dry-run"],
        ["--forget", "tags", "--add", "x"],
        ["--of", "missing.png"],
    ],
)
def test_wrong_options_are_refused_with_a_hint(
    celforge: Celforge, folder: Path, arguments: list[str]
) -> None:
    answer = celforge("tags", folder, *arguments)
    assert answer.exit_code == 2
    assert "try:" in answer.stderr


SVG = "{http://www.w3.org/2000/svg}"


def test_a_chart_is_whole_xml_with_both_lights_and_replaces_only_itself(
    celforge: Celforge, folder: Path, tmp_path: Path
) -> None:
    chart = tmp_path / "chart.svg"
    assert celforge("tags", folder, "--chart", chart).exit_code == 0
    assert celforge("tags", folder, "--chart", chart, "--top", 3).exit_code == 0
    text = chart.read_text(encoding="utf-8")
    names = [element.text for element in ET.fromstring(text).iter(f"{SVG}title")]
    assert names == ["long_hair: 2 · 40.0 %", "solo: 2 · 40.0 %", "-_-: 1 · 20.0 %"]
    assert "prefers-color-scheme: dark" in text
    chart.write_text("<svg>mine</svg>")
    answer = celforge("tags", folder, "--chart", chart)
    assert answer.exit_code == 2
    assert chart.read_text() == "<svg>mine</svg>"


def test_a_chart_as_png_is_light_or_dark_and_replaces_only_itself(
    celforge: Celforge, folder: Path, tmp_path: Path
) -> None:
    chart = tmp_path / "chart.PNG"
    corners = []
    for flags in ((), ("--dark",)):
        assert celforge("tags", folder, "--chart", chart, *flags).exit_code == 0
        with Image.open(chart) as image:
            corners.append(image.getpixel((0, 0)))
    assert corners == [(255, 255, 255), (0x12, 0x16, 0x1D)]
    Image.new("RGB", (4, 4)).save(chart)
    mine = chart.read_bytes()
    assert celforge("tags", folder, "--chart", chart).exit_code == 2
    assert chart.read_bytes() == mine
    for flags in (
        ("--dark",),
        ("--chart", tmp_path / "x.svg", "--dark"),
        ("--chart", tmp_path / "x.jpg"),
        ("--chart", tmp_path / "no" / "x.png"),
    ):
        answer = celforge("tags", folder, *flags)
        assert answer.exit_code == 2
        assert "try:" in answer.stderr


@pytest.mark.parametrize("is_dark", [False, True])
def test_bars_of_a_png_are_as_long_as_their_counts(is_dark: bool) -> None:
    data = png_chart("t", "", [("a", 40), ("y" * 200, 10)], 50, is_dark=is_dark)
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    fill = tuple(bytes.fromhex((DARK if is_dark else LIGHT)["fill"][1:]))
    rows = (pixels == fill).all(axis=2).sum(axis=1)
    first, second = (
        rows[(TOP_PX + ROW_PX * row) * SCALE : (TOP_PX + ROW_PX * (row + 1)) * SCALE].max() for row in (0, 1)
    )
    assert first == pytest.approx(4 * second, rel=0.02)


def test_names_in_a_chart_cannot_break_it() -> None:
    counts = [("<b>\x01&", 3), ("y" * 90, 1), ("\u521d\u97f3", 1)]
    tree = ET.fromstring(svg_chart('a "title" & more', "<x>", counts, 4))
    assert [element.text for element in tree.iter(f"{SVG}title")] == [
        "<b>\ufffd&: 3 · 75.0 %",
        "y" * 90 + ": 1 · 25.0 %",
        "\u521d\u97f3: 1 · 25.0 %",
    ]
    assert png_chart('a "title" & more', "<x>", counts, 4, is_dark=False).startswith(b"\x89PNG")
    ET.fromstring(svg_chart("nothing", "", [], 0))
    png_chart("nothing", "", [], 0, is_dark=False)
    assert "1 · &lt;0.1 %" in svg_chart("t", "", [("rare", 1)], 9_999)


def test_the_models_of_the_tests_come_from_their_script(tmp_path: Path) -> None:
    import sys

    script = Path(__file__).with_name("tiny_taggers.py")
    subprocess.run([sys.executable, script, tmp_path / "models"], check=True)
    made = {
        path.name: sorted(file.name for file in path.iterdir()) for path in (tmp_path / "models").iterdir()
    }
    assert made["wd"] == ["model.onnx", "selected_tags.csv"]
    assert json.loads((tmp_path / "models" / "cl" / "tag_mapping.json").read_text())["7"]["tag"] == "null"
