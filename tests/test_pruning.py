"""Redundant tags, implications, looks, core tags: by literal cases and by hand-counted examples."""

import csv
import gzip
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SettingsError
from stages.core_tags import (
    CoreTags,
    Counts,
    categorize,
    core_file_text,
    embedding_file_text,
    read_core_file,
    wildcard_text,
)
from stages.pruning import (
    ALIAS,
    IMPLIED,
    REDUNDANT,
    REFUSED,
    Dropped,
    load_implications,
    load_looks,
    prune,
    read_tag_list,
    shorter_tags,
)

TABLE = load_implications()


def kept(*tags: str) -> list[str]:
    return list(prune(tags, TABLE).kept)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["ear", "tears"], ["ear", "tears"]),  # the ancestor's plain substring drops ear
        (["hat", "that", "hatsune_miku"], ["hat", "that", "hatsune_miku"]),
        (["hair", "long_hair"], ["long_hair"]),
        (["long_hair", "very_long_hair", "hair"], ["very_long_hair"]),
        (["dress", "white_dress"], ["white_dress"]),
        (["dress", "dress_shirt"], ["dress", "dress_shirt"]),
        (["cat", "cat_ears"], ["cat", "cat_ears"]),
        (["sitting", "sitting_on_chair"], ["sitting_on_chair"]),
        (["umbrella", "holding_umbrella"], ["holding_umbrella"]),
        (["bow", "bow_(weapon)"], ["bow", "bow_(weapon)"]),
        (["hat", "no_hat"], ["hat", "no_hat"]),
        (["hat", "unworn_witch_hat"], ["hat", "unworn_witch_hat"]),
        (["^_^", "_", "smile"], ["^_^", "smile"]),
    ],
)
def test_redundant_by_words_never_by_letters(tags: list[str], expected: list[str]) -> None:
    assert [tag for tag in kept(*tags) if tag] == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["cat_ears", "animal_ears"], ["cat_ears"]),
        (["animal_ears"], ["animal_ears"]),
        (
            ["absurdly_long_hair", "long_hair"],
            ["absurdly_long_hair"],
        ),  # over very_long_hair, which is not there
        (["3girls", "multiple_girls"], ["3girls"]),
        (["katana", "weapon"], ["katana"]),
        (["kimono", "japanese_clothes", "obi"], ["kimono", "obi"]),
    ],
)
def test_implied_tags_go_also_over_several_steps(tags: list[str], expected: list[str]) -> None:
    assert kept(*tags) == expected


def test_what_was_dropped_is_told_with_its_reason() -> None:
    pruned = prune(
        ["cat_ears", "animal ears", "long hair", "hair", "watermark", "twin_tails", "twintails"],
        TABLE,
        frozenset({"watermark"}),
    )
    assert pruned.kept == ("cat_ears", "long_hair", "twintails")
    assert pruned.dropped == [
        Dropped("watermark", REFUSED),
        Dropped("twintails", ALIAS, "twintails"),
        Dropped("animal_ears", IMPLIED, "cat_ears"),
        Dropped("hair", REDUNDANT, "long_hair"),
    ]


def test_without_a_table_only_refused_tags_go() -> None:
    assert prune(["hair", "long_hair", "text"], None, frozenset({"text"})).kept == ("hair", "long_hair")


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "hair",
                "long_hair",
                "very_long_hair",
                "cat_ears",
                "animal_ears",
                "sitting",
                "sitting_on_lap",
                "smile",
            ]
        ),
        unique=True,
    )
)
def test_every_dropped_tag_is_still_said_by_one_that_stays(tags: list[str]) -> None:
    pruned = prune(tags, TABLE)
    said = {other for tag in pruned.kept for other in (*shorter_tags(tag), *TABLE.implies.get(tag, ()))}
    assert {one.tag for one in pruned.dropped} <= said
    assert set(pruned.kept).isdisjoint(said)


def test_the_table_holds_real_tags_of_danbooru(shared_testdata: Path) -> None:
    path = shared_testdata / "tags" / "danbooru_tagcomplete.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    names = {row[0] for row in rows}
    meant = {alias: row[0] for row in rows for alias in row[3].split(",")}
    source = Path(__file__).parents[1] / "stages" / "tag_implications.toml"
    table = tomllib.loads(source.read_text(encoding="utf-8"))
    for tag, others in table["implies"].items():
        assert {tag, *others} <= names, tag
    for alias, tag in table["aliases"].items():
        assert meant.get(alias) == tag, alias


def test_nothing_implies_itself() -> None:
    assert [tag for tag, others in TABLE.implies.items() if tag in others] == []


def test_a_table_of_ones_own_counts_over_ours(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[implies]\n"cat ears" = []\n"sabine hat" = ["red ribbon"]\n[aliases]\n"twin_tails" = ""\n'
    )
    table = load_implications(own)
    assert prune(["cat_ears", "animal_ears", "sabine_hat", "red_ribbon"], table).kept == (
        "cat_ears",
        "animal_ears",
        "sabine_hat",
    )
    assert prune(["twin_tails", "twintails"], table).kept == ("twin_tails", "twintails")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[implys]\n", 'did you mean "implies"?'),
        ('[implies]\na = "b"\n', "must be a list of tags"),
        ("[aliases]\na = 1\n", "must be a tag"),
        ("implies = 3\n", "must be a table"),
        ("[implies\n", "not valid TOML"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, text: str, expected: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(SettingsError, match=r"own\.toml") as caught:
        load_implications(own)
    assert expected in str(caught.value)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_implications(tmp_path / "none.toml")


def test_a_list_of_tags_may_have_a_mark_remarks_and_any_spelling(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffSimple background\r\n\r\nhair#1\n# whole line\nlong_hair, # remark\n".encode())
    assert read_tag_list(path) == {"simple_background", "hair#1", "long_hair"}
    path.write_bytes(b"caf\xe9")
    with pytest.raises(SettingsError, match="not UTF-8"):
        read_tag_list(path)


# Looks


@pytest.mark.parametrize(
    ("tag", "level"),
    [
        ("pink_hair", 0),
        ("very_long_hair", 0),
        ("green_eyes", 0),
        ("twintail", 0),
        ("low_twintails", 0),
        ("hair_between_eyes", 0),
        ("dark-skinned_female", 0),
        ("short_hair_with_long_locks", 0),
        ("cat_ears", 1),
        ("demon_horns", 1),
        ("fox_tail", 1),
        ("mole_under_eye", 1),
        ("closed_eyes", None),
        ("wet_hair", None),
        ("hair_ornament", None),
        ("school_uniform", None),
        ("tears", None),
        ("smile", None),
    ],
)
def test_looks_by_level(tag: str, level: int | None) -> None:
    levels = [at for at in range(2) if load_looks(range(at, at + 1)).has(tag)]
    assert levels == ([] if level is None else [level])
    assert load_looks(range(0)).has(tag) is False


# Core tags, counted by hand


def test_core_tags_of_five_pictures() -> None:
    counts = Counts()
    for tags in (
        ["pink_hair", "smile", "hat"],
        ["pink_hair", "hat", "1girl"],
        ["pink_hair", "green_eyes"],
        ["pink_hair", "green_eyes", "school_uniform"],
        ["school_uniform", "smile"],
    ):
        counts.add("sabine", tags)
    # of 5: pink hair 4, hat 2, green eyes 2, uniform 2, smile 2 (a word of the scene), 1girl 1
    assert counts.core(0.4) == {"sabine": ("pink_hair", "green_eyes", "hat", "school_uniform")}
    assert counts.core(0.41) == {"sabine": ("pink_hair",)}
    assert counts.core(0.8) == {"sabine": ("pink_hair",)}
    assert counts.core(0.81) == {"sabine": ()}


def test_core_tags_fall_into_kept_dropped_and_those_of_an_embedding() -> None:
    core = {
        "mireth": ("silver_hair", "fox_ears", "cape"),
        "mireth|casual": ("silver_hair", "hoodie", "fox_ears", "fang"),
    }
    parts = categorize(core, load_looks(range(1)), load_looks(range(1, 2)))
    assert parts["mireth"] == CoreTags(("cape",), ("silver_hair",), ("fox_ears",))
    # the fang is not on all forms of mireth, so it starts no embedding and stays in captions
    assert parts["mireth|casual"] == CoreTags(("hoodie", "fang"), ("silver_hair",), ("fox_ears",))
    assert parts["mireth"].left_out == {"silver_hair", "fox_ears"}
    assert categorize(core, None, load_looks(range(1, 2)))["mireth"].kept == ()


def test_the_files_are_those_of_the_ancestor() -> None:
    core = {
        "mireth|_dark": CoreTags(("school_uniform",), ("silver_hair",), ("fox_ears",)),
        "b": CoreTags((), (), ()),
    }
    assert json.loads(core_file_text(core)) == {
        "mireth|_dark": {"kept": ["school uniform"], "dropped": ["silver hair"], "emb_init": ["fox ears"]},
        "b": {"kept": [], "dropped": [], "emb_init": []},
    }
    assert json.loads(embedding_file_text(core, {"screenshots", "booru", "fanart"})) == {
        "mireth_dark": ["fox ears"],
        "b": [],
        "booru": ["masterpiece"],
        "fanart": [],
        "screenshots": ["anime screencap"],
    }

    def prompt(name: str, tags: object) -> str:
        return ", ".join([name, *tags])  # type: ignore[misc]

    assert (
        wildcard_text(core, prompt, with_dropped=False) == "mireth|_dark\nmireth|_dark, school_uniform\nb\n"
    )
    assert (
        wildcard_text(core, prompt, with_dropped=True)
        == "mireth|_dark\nmireth|_dark, silver_hair, fox_ears, school_uniform\nb\n"
    )


def test_core_tags_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "core_tag.json"
    core = {"mireth": CoreTags(("school_uniform", "^_^"), ("silver_hair",), ("fox_ears",))}
    path.write_text(core_file_text(core), encoding="utf-8-sig")
    assert read_core_file(path) == core
    path.write_text('{"sabine": ["pink hair"]}')
    assert read_core_file(path)["sabine"].left_out == {"pink_hair"}
    for text in ("[]", "{", '{"a": {"drop": []}}', '{"a": 3}', '{"a": {"kept": [1]}}'):
        path.write_text(text)
        with pytest.raises(SettingsError, match="holds no core tags"):
            read_core_file(path)
