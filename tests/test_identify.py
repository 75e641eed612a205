"""identify: names from folders and from tags; nothing guessed, a person's word first."""

from pathlib import Path
from typing import Any

import pytest
from described import described, draw, fact

from pipeline.catalog import Catalog
from stages.identify import CONFLICT, FOLDERS, TAGS, UNNAMED, Verdict, Word, count_people, decide
from tests.conftest import Celforge

CONFIG = """
[characters.Sabine]
all = ["pink hair", "twintails"]
none = ["glasses"]
[characters.Mireth]
any = ["fox ears"]
tags = ["mireth_(demo)"]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "celforge.toml").write_text(CONFIG)
    return tmp_path


def by_hand(root: Path, content: str, names: list[str]) -> None:
    with Catalog.open(root / ".celforge" / "catalog.sqlite3") as catalog:
        media_id = catalog.media_id(content)
        assert media_id is not None
        catalog.set_fact(media_id, "characters", names, "hand", by_hand=True)


def named(root: Path, contents: dict[str, str]) -> dict[str, Any]:
    return {name: fact(root, content, "characters") for name, content in contents.items()}


# Pure


@pytest.mark.parametrize(
    ("tags", "num_people", "expected"),
    [
        (set(), None, None),
        ({"solo"}, None, 1),
        ({"1girl", "1boy"}, None, 2),
        ({"2girls", "multiple_girls"}, None, 99),
        ({"3girls"}, None, 3),
        ({"6+girls"}, None, 99),
        ({"multiple_boys"}, None, 99),
        ({"0_0", "boys"}, None, None),
        ({"2girls"}, 1, 1),
        ({"1girl"}, 6, 99),
    ],
)
def test_people_are_counted_by_the_fact_else_by_tags(
    tags: set[str], num_people: int | None, expected: int | None
) -> None:
    assert count_people(tags, num_people) == expected


@pytest.mark.parametrize(
    ("folders", "tags", "earlier", "prefer", "reason", "names"),
    [
        (Word(("A",)), Word(("A",)), None, "nobody", FOLDERS, ("A",)),
        (Word(("A",)), Word(), None, "nobody", FOLDERS, ("A",)),
        (Word(), Word(("B",)), None, "nobody", TAGS, ("B",)),
        (Word(), Word(), None, "nobody", UNNAMED, ()),
        (Word(("A",)), Word(("B",)), None, "nobody", CONFLICT, ()),
        (Word(("A",)), Word(("B",)), None, "folders", FOLDERS, ("A",)),
        (Word(("A",)), Word(("B",)), None, "tags", TAGS, ("B",)),
        (Word(("A",)), Word(), None, "tags", FOLDERS, ("A",)),
        (Word(("A",)), Word(problem="two"), None, "nobody", CONFLICT, ()),
        (Word(("A",)), Word(problem="two"), None, "folders", FOLDERS, ("A",)),
        (Word(("A",)), None, (TAGS, ("B",)), "nobody", CONFLICT, ()),
        (Word(), None, (TAGS, ("B",)), "nobody", TAGS, ("B",)),
    ],
)
def test_ways_are_joined(
    folders: Word, tags: Word | None, earlier: Any, prefer: str, reason: str, names: tuple[str, ...]
) -> None:
    words = {FOLDERS: folders} | ({TAGS: tags} if tags is not None else {})
    verdict = decide(words, earlier, prefer)
    assert (verdict.reason, verdict.names) == (reason, names)
    assert isinstance(verdict, Verdict)


# The command


def test_names_come_from_folders(celforge: Celforge, root: Path) -> None:
    contents = described(
        celforge,
        root,
        {
            "1_character/Sabine/a.png": {},
            "2_characters/Mireth+Sabine/b.png": {},
            "10_kaorin/c.png": {},
            "1_character/character_others/d.png": {},
            "ep01/e.png": {},
            "sabine/f.png": {},
        },
    )
    answer = celforge("identify", root, "--from-folders", "--json")
    assert answer.exit_code == 0
    assert named(root, contents) == {
        "1_character/Sabine/a.png": ["Sabine"],
        "2_characters/Mireth+Sabine/b.png": ["Mireth", "Sabine"],
        "10_kaorin/c.png": ["kaorin"],
        "1_character/character_others/d.png": None,
        "ep01/e.png": None,
        "sabine/f.png": ["Sabine"],  # a name of celforge.toml, in its spelling there
    }
    assert answer.json["unnamed"] == ["1_character/character_others/d.png", "ep01/e.png"]
    assert answer.json["pictures_by_character"] == {"Sabine": 2, "Mireth+Sabine": 1, "kaorin": 1}
    counts = {row["reason"]: row["files"] for row in answer.json["counts"]}
    assert counts == {"by folder": 4, "unnamed": 2}


def test_names_come_from_signatures_and_character_tags(celforge: Celforge, root: Path) -> None:
    solo = {"1girl": 0.9, "solo": 0.9}
    looks = {"pink_hair": 0.5, "twintails": 0.6}
    contents = described(
        celforge,
        root,
        {
            "a.png": {"tags": solo | looks},
            "b.png": {"tags": solo | looks | {"glasses": 0.4}},
            "c.png": {"tags": solo, "character_tags": {"mireth_(demo)": 0.9}},
            "d.png": {"tags": solo, "character_tags": {"hatsune_miku": 0.9}},
            "e.png": {"tags": {"2girls": 0.9, "fox_ears": 0.8} | looks},
            "f.png": {"tags": solo | looks | {"fox_ears": 0.8}},
            "g.png": {"tags": looks | {"fox_ears": 0.8}},
            "h.png": {},
        },
    )
    answer = celforge("identify", root, "--by-tags", "--json")
    assert named(root, contents) == {
        **dict.fromkeys(["b.png", "d.png", "f.png", "g.png", "h.png"]),
        "a.png": ["Sabine"],
        "c.png": ["Mireth"],
        "e.png": ["Mireth", "Sabine"],
    }
    assert answer.json["conflicts"] == [
        "f.png: by tags: tags name Mireth+Sabine, number of people: 1",
        "g.png: by tags: tags name Mireth+Sabine, number of people: unknown",
    ]
    assert answer.json["character_tags_without_a_table"] == {"hatsune_miku": 1}
    celforge("identify", root, "--by-tags", "--all-character-tags")
    assert fact(root, contents["d.png"], "characters") == ["hatsune_miku"]


def test_ways_that_disagree_are_listed_and_nothing_is_named(celforge: Celforge, root: Path) -> None:
    contents = described(
        celforge, root, {"1_character/Mireth/a.png": {"tags": {"solo": 1, "pink_hair": 1, "twintails": 1}}}
    )
    answer = celforge("identify", root, "--from-folders", "--by-tags", "--json")
    assert answer.json["conflicts"] == ["1_character/Mireth/a.png: by folder Mireth; by tags Sabine"]
    assert "not named, by folder Mireth; by tags Sabine" in answer.stderr
    assert list(named(root, contents).values()) == [None]
    celforge("identify", root, "--from-folders", "--by-tags", "--prefer", "tags")
    assert list(named(root, contents).values()) == [["Sabine"]]


def test_an_earlier_run_of_the_other_way_is_not_overruled_in_silence(celforge: Celforge, root: Path) -> None:
    contents = described(
        celforge, root, {"1_character/Mireth/a.png": {"tags": {"solo": 1, "pink_hair": 1, "twintails": 1}}}
    )
    celforge("identify", root, "--by-tags")
    for _ in range(2):
        answer = celforge("identify", root, "--from-folders", "--json")
        assert answer.json["conflicts"] == ["1_character/Mireth/a.png: by folder Mireth; by tags Sabine"]
        assert list(named(root, contents).values()) == [["Sabine"]]
    celforge("identify", root, "--from-folders", "--prefer", "folders")
    assert list(named(root, contents).values()) == [["Mireth"]]


def test_a_person_s_word_counts_over_every_machine_s(celforge: Celforge, root: Path) -> None:
    contents = described(celforge, root, {"1_character/Mireth/a.png": {}})
    by_hand(root, contents["1_character/Mireth/a.png"], ["Kaorin"])
    answer = celforge("identify", root, "--from-folders", "--json")
    assert list(named(root, contents).values()) == [["Kaorin"]]
    assert answer.json["overruled_by_a_person"] == ["1_character/Mireth/a.png: Mireth, a person says Kaorin"]
    assert answer.json["pictures_by_character"] == {"Kaorin": 1}


def test_names_of_an_import_stay(celforge: Celforge, root: Path) -> None:
    contents = described(celforge, root, {"ep01/a.png": {"characters": ["Aoba"]}}, source="waifuc")
    answer = celforge("identify", root, "--from-folders", "--json")
    assert answer.json["unnamed"] == []
    assert list(named(root, contents).values()) == [["Aoba"]]


def test_copies_of_one_picture_must_agree(celforge: Celforge, root: Path) -> None:
    for folder in ("1_character/Sabine", "1_character/Mireth", "ep01"):
        draw(root / folder / "a.png", 1)
    answer = celforge("identify", root, "--from-folders", "--json")
    (text, *_) = answer.json["conflicts"]
    assert text.endswith("lies in folders of Mireth and of Sabine")
    (root / "1_character" / "Mireth" / "a.png").unlink()
    assert celforge("identify", root, "--from-folders", "--json").json["pictures_by_character"] == {
        "Sabine": 2
    }


def test_a_dry_run_shows_names_and_writes_none_and_undo_takes_them_back(
    celforge: Celforge, root: Path
) -> None:
    contents = described(celforge, root, {"1_character/Mireth/a.png": {}})
    answer = celforge("identify", root, "--from-folders", "--dry-run", "--json")
    assert answer.json["planned"] == [
        {
            "action": "name",
            "picture": "1_character/Mireth/a.png",
            "characters": "nobody -> Mireth",
            "reason": "by folder",
        }
    ]
    assert list(named(root, contents).values()) == [None]
    celforge("identify", root, "--from-folders")
    assert list(named(root, contents).values()) == [["Mireth"]]
    assert celforge("undo", root).exit_code == 0
    assert list(named(root, contents).values()) == [None]


def test_a_second_run_changes_nothing(celforge: Celforge, root: Path) -> None:
    described(celforge, root, {"1_character/Mireth/a.png": {}, "b.png": {}})
    celforge("identify", root, "--from-folders")
    assert celforge("identify", root, "--from-folders", "--dry-run", "--json").json["planned"] == []
    assert len(celforge("undo", root, "--list", "--json").json) == 1


def test_a_name_that_is_not_true_any_more_goes(celforge: Celforge, root: Path) -> None:
    contents = described(celforge, root, {"a.png": {"tags": {"solo": 1, "pink_hair": 1, "twintails": 1}}})
    celforge("identify", root, "--by-tags")
    (root / "celforge.toml").write_text('[characters.Sabine]\nall = ["blue hair"]\n')
    answer = celforge("identify", root, "--by-tags", "--json")
    assert fact(root, contents["a.png"], "characters") == []
    assert answer.json["unnamed"] == ["a.png"]


def test_how_must_be_said_and_formats_must_be_right(celforge: Celforge, root: Path) -> None:
    draw(root / "a.png", 1)
    answer = celforge("identify", root)
    assert answer.exit_code == 2
    assert "--from-folders" in answer.stderr
    answer = celforge("identify", root, "--from-folders", "--folder-format", "*/charcter")
    assert answer.exit_code == 2
    assert 'did you mean "character"' in answer.stderr
    (root / "celforge.toml").write_text('[characters.Sabine]\nal = ["blue hair"]\n')
    answer = celforge("identify", root, "--from-folders")
    assert answer.exit_code == 2
    assert 'did you mean "all"' in answer.stderr


def test_a_folder_without_pictures_is_refused(celforge: Celforge, root: Path) -> None:
    assert celforge("identify", root, "--from-folders").exit_code == 2


def test_a_format_names_the_folder(celforge: Celforge, root: Path) -> None:
    contents = described(celforge, root, {"ep01/aoba/a.png": {}, "ep01/b.png": {}})
    celforge("identify", root, "--from-folders", "--folder-format", "*/character")
    assert named(root, contents) == {"ep01/aoba/a.png": ["aoba"], "ep01/b.png": None}
