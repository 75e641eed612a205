"""caption: what is written beside pictures, and what of a person's is never touched."""

import json
import os
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from crashing import KILLED, points, run_until_line
from described import captions, described, draw, fact

from pipeline.catalog import Catalog
from pipeline.cli import cli, run
from pipeline.clip_tokens import count_tokens
from tests.conftest import Celforge

SOLO = {"1girl": 0.99, "solo": 0.98}


def one(celforge: Celforge, root: Path, facts: dict[str, Any], *flags: object) -> str:
    """The caption of a single picture."""
    described(celforge, root, {"a.png": facts})
    answer = celforge("caption", root, *flags)
    assert answer.exit_code == 0, answer.stderr
    return (root / "a.txt").read_bytes().decode("utf-8")


# What a caption says


def test_tags_stand_by_probability_with_the_number_of_people_first(
    celforge: Celforge, tmp_path: Path
) -> None:
    tags = {"smile": 0.5, "blue_sky": 0.9, "1girl": 0.4, "solo": 0.3, "^_^": 0.7, "grass": None}
    assert one(celforge, tmp_path, {"tags": tags}) == "solo, 1girl, grass, blue sky, ^_^, smile"


def test_fields_stand_in_the_ancestor_s_order(celforge: Celforge, tmp_path: Path) -> None:
    facts = {
        "tags": {"smile": 0.9},
        "characters": ["hatsune_miku", "mireth|casual|cape"],
        "copyright": ["vocaloid", "my_series"],
        "artist": ["some_one", "unknown"],
        "rating": "explicit",
        "image_type": "screenshots",
        "num_people": 2,
        "crop": {"type": "head", "score": 0.9},
    }
    flags = [f"--{name}-prob=1" for name in ("num-people", "copyright", "artist")]
    assert one(celforge, tmp_path, facts, *flags) == (
        "2people, hatsune miku, mireth casual, cape, from vocaloid, from my series, screenshots, by some one, "
        "explicit, head cropped, smile"
    )


def test_by_default_series_artist_and_other_ratings_stay_out(celforge: Celforge, tmp_path: Path) -> None:
    facts = {
        "tags": {"smile": 0.9},
        "copyright": ["x"],
        "artist": ["y"],
        "rating": "general",
        "num_people": 6,
    }
    assert one(celforge, tmp_path, facts) == "smile"
    celforge("caption", tmp_path, "--ratings", "general", "--num-people-prob", "1")
    assert captions(tmp_path) == {"a.txt": "6+people, general, smile"}


def test_order_separator_and_what_a_trainer_keeps(celforge: Celforge, tmp_path: Path) -> None:
    facts = {"tags": {"smile": 0.9, "a,b;c": 0.8}, "characters": ["sabine"], "image_type": "anime"}
    flags = ("--order", "image_type", "--order", "characters", "--order", "tags", "--separator", "; ")
    kept = ("--trigger-words", "mystyle", "--keep-tokens-separator", "|||", "--keep-before", "characters")
    assert one(celforge, tmp_path, facts, *flags, *kept) == "mystyle; anime ||| sabine; smile; a,b c"


def test_trigger_words_stand_first_and_once(celforge: Celforge, tmp_path: Path) -> None:
    facts = {"tags": {"smile": 0.9, "my_style": 0.8, "sabine": 0.7}, "characters": ["sabine"]}
    flags = ("--trigger-words", "my style", "--trigger-words", "second")
    assert one(celforge, tmp_path, facts, *flags) == "my style, second, sabine, smile"
    answer = celforge("caption", tmp_path, *flags, "--json")
    assert answer.json["keep_tokens"] == 3
    assert answer.json["tags_left_out"] == {"said by another part": 2}


def test_a_character_is_called_as_celforge_toml_says(celforge: Celforge, tmp_path: Path) -> None:
    (tmp_path / "celforge.toml").write_text('[characters.sabine]\ncaption = "sab_v1"\n')
    assert one(celforge, tmp_path, {"characters": ["sabine"], "tags": {"smile": 1}}) == "sab_v1, smile"


def test_nothing_is_escaped(celforge: Celforge, tmp_path: Path) -> None:
    assert one(celforge, tmp_path, {"tags": {"ganyu_(genshin_impact)": 0.9}}) == "ganyu (genshin impact)"


def test_unicode_is_written_as_utf_8_without_a_mark(celforge: Celforge, tmp_path: Path) -> None:
    draw(tmp_path / "x.png", 0)
    assert one(celforge, tmp_path, {"characters": ["初音ミク"], "tags": {"été": 0.9}}) == "初音ミク, été"


@pytest.mark.parametrize(
    ("max_tags", "expected"), [(2, "solo, 1girl"), (3, "solo, 1girl, day"), (0, "solo, 1girl, day, smile")]
)
def test_the_least_sure_tags_go_first(
    celforge: Celforge, tmp_path: Path, max_tags: int, expected: str
) -> None:
    assert (
        one(celforge, tmp_path, {"tags": SOLO | {"smile": 0.5, "day": 0.6}}, "--max-tags", max_tags)
        == expected
    )


def test_a_caption_fits_into_75_tokens_and_wastes_none(celforge: Celforge, tmp_path: Path) -> None:
    tags = {f"tag{number}": 1 - number / 1000 for number in range(60)}
    text = one(celforge, tmp_path, {"tags": tags, "characters": ["sabine"]}, "--max-tags", "0")
    parts = text.split(", ")
    assert parts == ["sabine", *list(tags)[: len(parts) - 1]]
    assert count_tokens(text) <= 75 < count_tokens(f"{text}, {list(tags)[len(parts) - 1]}")
    answer = celforge("caption", tmp_path, "--max-tags", "0", "--max-tokens", "0", "--json")
    assert answer.json["captions_over_75_tokens"] == 1


def test_trigger_words_alone_may_be_too_long_and_that_is_said(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, {"a.png": {"tags": {"smile": 1}}})
    answer = celforge("caption", tmp_path, "--trigger-words", "cat " * 80, "--json")
    assert answer.json["captions_over_75_tokens"] == 1
    assert captions(tmp_path)["a.txt"].count("cat") == 80


# Draws


def many(number: int = 40) -> dict[str, dict[str, Any]]:
    tags = {"day": 0.9, "smile": 0.8, "hat": 0.7, "tree": 0.6, "grass": 0.5}
    return {f"{index:02d}.png": {"tags": tags, "characters": ["sabine"]} for index in range(number)}


def test_draws_depend_on_seed_and_picture_only(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, many())
    flags = ("--characters-prob", "0.5", "--sort", "shuffle")
    celforge("caption", tmp_path, *flags)
    first = captions(tmp_path)
    drawn = sum(text.startswith("sabine") for text in first.values())
    assert 8 <= drawn <= 32  # of 40; outside with a probability below 1 in 10,000
    assert len(set(first.values())) > 10
    for name in ("03.png", "17.png"):
        (tmp_path / name).rename(tmp_path / f"moved {name}")
        (tmp_path / name).with_suffix(".txt").unlink()
    celforge("caption", tmp_path, *flags, "--workers", "1")
    again = captions(tmp_path)
    assert again["moved 03.txt"] == first["03.txt"]
    assert again["05.txt"] == first["05.txt"]
    celforge("caption", tmp_path, *flags, "--seed", "1")
    assert captions(tmp_path) != again


def test_meta_tags_and_descriptions_are_drawn_as_other_fields(celforge: Celforge, tmp_path: Path) -> None:
    said = {"tags": {"smile": 1}, "meta_tags": {"highres": 0.9}, "description": "a girl"}
    described(celforge, tmp_path, {f"{number:02}.png": said for number in range(40)})
    order = [f"--order={name}" for name in ("meta_tags", "description", "tags")]
    celforge("caption", tmp_path, *order, "--meta-tags-prob", "0.5", "--description-prob", "0")
    texts = list(captions(tmp_path).values())
    assert set(texts) == {"highres, smile", "smile"}
    assert 8 <= texts.count("smile") <= 32
    answer = celforge("caption", tmp_path, "--description-prob", "0.5")
    assert answer.exit_code == 2
    assert "description_prob has no effect: order leaves out description" in answer.stderr


def test_a_shuffled_caption_keeps_the_surest_tags(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, many(6))
    celforge("caption", tmp_path, "--sort", "shuffle", "--max-tags", "3")
    for text in captions(tmp_path).values():
        assert set(text.split(", ")) == {"sabine", "day", "smile", "hat"}


def test_the_original_order_is_that_of_the_caption_before(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, {"a.png": {"tags": {"day": 0.9, "smile": 0.8}}})
    (tmp_path / "a.txt").write_text("smile, tree, day")
    celforge("caption", tmp_path, "--overwrite", "--sort", "original")
    assert captions(tmp_path) == {"a.txt": "smile, tree, day"}
    celforge("caption", tmp_path, "--sort", "score")
    assert captions(tmp_path) == {"a.txt": "tree, day, smile"}


# Pruning


def characters_project(celforge: Celforge, root: Path) -> dict[str, str]:
    looks = {"pink_hair": 0.9, "twintails": 0.8, "hat": 0.7}
    pictures: dict[str, dict[str, Any]] = {
        f"s{index}.png": {"characters": ["sabine"], "tags": SOLO | looks | {"smile": 0.6}}
        for index in range(4)
    }
    pictures["rare.png"] = {"characters": ["sabine"], "tags": SOLO | {"fox_ears": 0.9, "closed_eyes": 0.8}}
    pictures["both.png"] = {
        "characters": ["mireth", "sabine"],
        "tags": {"2girls": 0.9, "pink_hair": 0.8, "silver_hair": 0.7, "hat": 0.6},
    }
    pictures["nobody.png"] = {"tags": SOLO | {"pink_hair": 0.9}}
    return described(celforge, root, pictures)


@pytest.mark.parametrize(
    ("flags", "single", "both", "rare", "nobody"),
    [
        ((), "hat, smile", "silver hair, hat", "fox ears, closed eyes", "pink hair"),
        (
            ("--prune", "none"),
            "pink hair, twintails, hat, smile",
            "pink hair, silver hair, hat",
            "fox ears, closed eyes",
            "pink hair",
        ),
        (("--prune", "all"), "hat, smile", "hat", "closed eyes", "pink hair"),
        (
            ("--prune", "all", "--drop-difficulty", "1"),
            "hat, smile",
            "hat",
            "fox ears, closed eyes",
            "pink hair",
        ),
        (
            ("--drop-difficulty", "0"),
            "pink hair, twintails, hat, smile",
            "pink hair, silver hair, hat",
            "fox ears, closed eyes",
            "pink hair",
        ),
        (("--drop-all-core",), "smile", "silver hair", "fox ears, closed eyes", "pink hair"),
        (
            ("--core-frequency", "0.81"),
            "pink hair, twintails, hat, smile",
            "pink hair, silver hair, hat",
            "fox ears, closed eyes",
            "pink hair",
        ),
    ],
)
def test_looks_are_left_to_the_name(
    celforge: Celforge, tmp_path: Path, flags: tuple[str, ...], single: str, both: str, rare: str, nobody: str
) -> None:
    characters_project(celforge, tmp_path)
    celforge("caption", tmp_path, *flags)
    texts = captions(tmp_path)
    assert texts["s0.txt"] == f"sabine, solo, 1girl, {single}"
    assert texts["both.txt"] == f"mireth, sabine, 2girls, {both}"
    assert texts["rare.txt"] == f"sabine, solo, 1girl, {rare}"
    assert texts["nobody.txt"] == f"solo, 1girl, {nobody}"


def test_a_picture_of_one_name_and_two_people_tells_nothing_of_the_character(
    celforge: Celforge, tmp_path: Path
) -> None:
    described(
        celforge,
        tmp_path,
        {
            "a.png": {"characters": ["sabine"], "tags": SOLO | {"pink_hair": 0.9}},
            "b.png": {"characters": ["sabine"], "tags": {"2girls": 0.9, "pink_hair": 0.9, "blue_hair": 0.9}},
            "c.png": {"characters": ["sabine"], "tags": {"blue_eyes": 0.9}, "num_people": 2},
        },
    )
    answer = celforge("caption", tmp_path, "--core-frequency", "0.1", "--json")
    assert answer.json["core_tags"] == {"sabine": ["pink hair"]}


def test_what_a_core_tag_says_goes_with_it(celforge: Celforge, tmp_path: Path) -> None:
    pictures: dict[str, dict[str, Any]] = {
        f"{index}.png": {"characters": ["m"], "tags": {"very_long_hair": 0.9, "long_hair": 0.9}}
        for index in range(4)
    }
    pictures["x.png"] = {"characters": ["m"], "tags": {"long_hair": 0.9, "smile": 0.8}}
    described(celforge, tmp_path, pictures)
    celforge("caption", tmp_path)
    assert captions(tmp_path)["x.txt"] == "m, smile"


def test_the_blacklist_counts_in_every_mode(celforge: Celforge, tmp_path: Path) -> None:
    listed = tmp_path / "refused.txt"
    listed.write_text("Text Focus\n")
    facts = {"tags": {"smile": 0.9, "text_focus": 0.8, "day": 0.7}}
    assert (
        one(celforge, tmp_path, facts, "--prune", "none", "--blacklist", "day", "--blacklist-file", listed)
        == "smile"
    )


def test_core_tags_of_a_file_count_over_counting(celforge: Celforge, tmp_path: Path) -> None:
    characters_project(celforge, tmp_path)
    core = tmp_path / "mine.json"
    core.write_text('{"sabine": {"kept": [], "dropped": ["hat"], "emb_init": []}}')
    celforge("caption", tmp_path, "--core-tags", core)
    assert captions(tmp_path)["s0.txt"] == "sabine, solo, 1girl, pink hair, twintails, smile"
    core.write_text('{"sabin": {"dropped": ["hat"]}}')
    answer = celforge("caption", tmp_path, "--core-tags", core, "--json")
    assert answer.json["warnings"] == [f"{core} names sabin, who is in no picture: sabine?"]
    core.write_text('{"sabine": {"dropped": ["hat"]}}')
    answer = celforge("caption", tmp_path, "--core-tags", core, "--prune", "minimal", "--json")
    assert answer.json["warnings"] == [
        "core_tags has no effect: prune is minimal, and no file of core tags is written"
    ]


def test_files_of_core_tags_wildcards_and_embeddings(celforge: Celforge, tmp_path: Path) -> None:
    characters_project(celforge, tmp_path)
    flags = (
        "--core-tag-file",
        "--wildcard-file",
        "all",
        "--embedding-file",
        "--embedding-min-difficulty",
        "0",
    )
    answer = celforge("caption", tmp_path, *flags, "--trigger-words", "my style", "--json")
    assert json.loads((tmp_path / "core_tag.json").read_text()) == {
        "sabine": {
            "kept": ["hat"],
            "dropped": ["pink hair", "twintails"],
            "emb_init": ["pink hair", "twintails"],
        }
    }
    assert json.loads((tmp_path / "emb_init.json").read_text()) == {"sabine": ["pink hair", "twintails"]}
    assert (
        tmp_path / "wildcard.txt"
    ).read_text() == "my style, sabine\nmy style, sabine, pink hair, twintails, hat\n"
    assert answer.json["embedding_names_that_are_words_of_clip"] == ["sabine"]
    (tmp_path / "wildcard.txt").write_text("mine\n")
    answer = celforge("caption", tmp_path, "--wildcard-file", "kept", "--core-tag-file")
    assert "wildcard.txt was changed by hand and stays" in answer.stderr
    assert (tmp_path / "wildcard.txt").read_text() == "mine\n"
    celforge("caption", tmp_path, "--wildcard-file", "kept", "--overwrite")
    assert (tmp_path / "wildcard.txt").read_text() == "sabine\nsabine, hat\n"


def test_why_tells_what_was_left_out_and_writes_nothing(celforge: Celforge, tmp_path: Path) -> None:
    tags = SOLO | {
        "long_hair": 0.9,
        "hair": 0.8,
        "cat_ears": 0.7,
        "animal_ears": 0.6,
        "text": 0.5,
        "hat": 0.4,
    }
    described(celforge, tmp_path, {"a.png": {"characters": ["sabine"], "tags": tags}})
    flags = ("--blacklist", "text", "--max-tags", "2", "--drop-difficulty", "1")
    told = celforge("caption", tmp_path, *flags, "--why", tmp_path / "a.png", "--json").json
    assert told["caption"] == "sabine, solo, 1girl"
    assert told["left_out"] == {
        "text": "on the blacklist",
        "hair": "in a longer tag: long hair",
        "animal ears": "implied: cat ears",
        "long hair": "a core tag: sabine",
        "cat ears": "a core tag: sabine",
        "hat": "beyond max_tags",
    }
    assert told["known"]["characters"] == "['sabine'] (tagger)"
    assert told["on_disk"] == {}
    assert captions(tmp_path) == {}
    celforge("caption", tmp_path)
    assert celforge("caption", tmp_path, "--why", tmp_path / "a.png", "--json").json["on_disk"] == {
        "a.txt": "'sabine, solo, 1girl, text, hat' (celforge's)"
    }
    (tmp_path / "a.txt").write_text("mine")
    assert celforge("caption", tmp_path, "--why", tmp_path / "a.png", "--json").json["on_disk"] == {
        "a.txt": "'mine' (a person's or another tool's: stays)"
    }
    answer = celforge("caption", tmp_path, "--why", tmp_path / "b.png")
    assert answer.exit_code == 2
    assert "is not a picture below" in answer.stderr


# Templates and captioners


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{characters}[ from {copyright}], {tags}", "my style, sabine and mireth from my series, smile, day"),
        ("{characters}[ by {artist}][, {rating}]", "my style, sabine and mireth"),
        ("a picture of {num_people}: {tags}.", "my style, a picture of 2 people: smile, day."),
    ],
)
def test_a_template_makes_sentences(celforge: Celforge, tmp_path: Path, template: str, expected: str) -> None:
    facts = {
        "tags": {"smile": 0.9, "day": 0.8},
        "characters": ["sabine", "mireth"],
        "copyright": ["my_series"],
        "num_people": 2,
    }
    assert one(celforge, tmp_path, facts, "--template", template, "--trigger-words", "my style") == expected


@pytest.mark.parametrize("template", ["{charcters}", "no field", "{tags", "[{tags}", "{tags}]", "[[{tags}]]"])
def test_a_wrong_template_is_refused(celforge: Celforge, tmp_path: Path, template: str) -> None:
    draw(tmp_path / "a.png", 0)
    answer = celforge("caption", tmp_path, "--template", template)
    assert answer.exit_code == 2
    assert "template" in answer.stderr


CAPTIONER = """
import sys
from pathlib import Path
name = Path(sys.argv[1]).name
with open(sys.argv[0] + ".log", "a") as log:
    log.write(name + "\\n")
if name == "b.png":
    sys.exit("no memory left")
print(f"a drawing called {name}\\n  on two lines")
"""


def test_a_program_describes_pictures_once(celforge: Celforge, tmp_path: Path) -> None:
    program, log = tmp_path / "tool.py", tmp_path / "tool.py.log"
    program.write_text(CAPTIONER)
    root = tmp_path / "pictures"
    contents = described(celforge, root, {"a.png": {"tags": {"smile": 1}}, "b.png": {"tags": {"day": 1}}})
    flags = (
        "--captioner",
        f'"{sys.executable}" "{program}" {{image}}',
        "--template",
        "{description}[. {tags}]",
    )
    answer = celforge("caption", root, *flags)
    assert answer.exit_code == 3
    assert "no memory left" in answer.stderr
    assert captions(root)["a.txt"] == "a drawing called a.png on two lines. smile"
    assert fact(root, contents["a.png"], "description") == "a drawing called a.png on two lines"
    with Catalog.open(root / ".celforge" / "catalog.sqlite3") as catalog:
        (said,) = catalog.facts(catalog.media_id(contents["a.png"]) or 0, "description")
    assert said.source == f"captioner {Path(sys.executable).name}"
    celforge("caption", root, *flags)
    assert sorted(log.read_text().split()) == ["a.png", "b.png", "b.png"]  # a failed one is asked again
    program.write_text(CAPTIONER.replace("drawing", "picture"))
    celforge("caption", root, *flags)
    assert captions(root)["a.txt"] == "a picture called a.png on two lines. smile"


def test_a_function_describes_pictures(
    celforge: Celforge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_captioner.py").write_text(
        "def describe(path):\n    return 'drawn: ' + path[-5:]\nnothing = lambda path: ' '\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    root = tmp_path / "pictures"
    described(celforge, root, {"a.png": {"tags": {"smile": 1}}})
    flags = ("--captioner", "my_captioner:describe", "--order", "description", "--order", "tags")
    assert celforge("caption", root, *flags, "--dry-run").exit_code == 0
    assert captions(root) == {}
    celforge("caption", root, *flags)
    assert captions(root) == {"a.txt": "drawn: a.png, smile"}
    assert celforge("caption", root, "--captioner", "my_captioner:nothing", *flags[2:]).exit_code == 3


@pytest.mark.parametrize(
    ("captioner", "expected"),
    [
        ("describe it", "does not say where the picture goes"),
        ("no-such-program-here {image}", "there is no program"),
        ("no_such_module:f", "cannot be imported"),
        ("json:no_such", "has no function"),
    ],
)
def test_a_captioner_that_is_not_there_is_named(
    celforge: Celforge, tmp_path: Path, captioner: str, expected: str
) -> None:
    draw(tmp_path / "a.png", 0)
    answer = celforge("caption", tmp_path, "--captioner", captioner, "--template", "{description}")
    assert answer.exit_code == 2
    assert expected in answer.stderr


def test_a_slow_captioner_is_stopped(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, {"a.png": {"tags": {"smile": 1}}})
    command = f'"{sys.executable}" -c "import time; time.sleep(60)" {{image}}'
    answer = celforge(
        "caption",
        tmp_path,
        "--captioner",
        command,
        "--captioner-timeout-s",
        "0.2",
        "--template",
        "{description}[{tags}]",
    )
    assert answer.exit_code == 3
    assert "took longer than 0.2 s" in answer.stderr


# Whose a file is


HAND = b"mine, all mine"


def test_a_caption_by_hand_is_kept_and_read(celforge: Celforge, tmp_path: Path) -> None:
    contents = described(
        celforge, tmp_path, {"a.png": {"tags": {"smile": 0.9}}, "b.png": {"tags": {"day": 0.9}}}
    )
    celforge("caption", tmp_path)
    (tmp_path / "a.txt").write_bytes(b"smile, my edit")
    for flags in ((), ("--trigger-words", "x"), ("--format", "caption"), ("--format", "jsonl")):
        celforge("caption", tmp_path, *flags)
        assert (tmp_path / "a.txt").read_bytes() == b"smile, my edit"
    assert fact(tmp_path, contents["a.png"], "caption") == "smile, my edit"
    assert fact(tmp_path, contents["a.png"], "tags") == {"smile": 0.9, "my_edit": None}


def test_overwrite_writes_over_it_with_what_the_edit_said_and_undo_brings_it_back(
    celforge: Celforge, tmp_path: Path
) -> None:
    described(celforge, tmp_path, {"a.png": {"tags": {"smile": 0.9, "day": 0.8}}})
    celforge("caption", tmp_path)
    edited = "\ufeffday, tree\r\n".encode()
    (tmp_path / "a.txt").write_bytes(edited)
    celforge("caption", tmp_path, "--overwrite", "--trigger-words", "x")
    assert captions(tmp_path) == {"a.txt": "x, tree, day"}
    assert celforge("undo", tmp_path).exit_code == 0
    assert (tmp_path / "a.txt").read_bytes() == edited
    celforge("caption", tmp_path)
    assert (tmp_path / "a.txt").read_bytes() == edited


@pytest.mark.parametrize("name", ["a.txt", "a.caption"])
def test_a_person_s_words_stay_a_person_s_after_an_overwriting_run_wrote_the_same(
    celforge: Celforge, tmp_path: Path, name: str
) -> None:
    described(celforge, tmp_path, {"a.png": {"tags": {"smile": 0.9}}, "b.png": {"tags": {"day": 1}}})
    (tmp_path / name).write_bytes("tree".encode("utf-16"))
    celforge("sync", tmp_path)  # its only tag is now tree, and celforge writes what stands there
    celforge("caption", tmp_path, "--overwrite")
    assert (tmp_path / "b.txt").read_text() == "day"
    assert celforge("undo", tmp_path).exit_code == 0
    for flags in ((), ("--trigger-words", "x"), ("--format", "caption"), ("--format", "jsonl")):
        celforge("caption", tmp_path, *flags)
        assert (tmp_path / name).read_bytes() == "tree".encode("utf-16"), flags


@pytest.mark.parametrize("name", ["a.TXT", "A.txt", "a.Caption"])
def test_a_caption_in_another_spelling_is_a_person_s_and_ends_nothing(
    celforge: Celforge, tmp_path: Path, name: str
) -> None:
    described(celforge, tmp_path, {"a.png": {"tags": {"smile": 1}}, "b.png": {"tags": {"day": 1}}})
    (tmp_path / name).write_bytes(HAND)
    answer = celforge("caption", tmp_path)
    assert answer.exit_code == 0, answer.stderr
    assert (tmp_path / name).read_bytes() == HAND
    assert sorted(path.name for path in tmp_path.iterdir() if "png" not in path.name) == sorted(
        [".celforge", name, "b.txt"]
    )
    celforge("sync", tmp_path)
    answer = celforge("caption", tmp_path, "--overwrite")
    assert answer.exit_code == 0, answer.stderr
    assert captions(tmp_path)["a.txt"] == "all mine"
    assert not (tmp_path / name).exists()
    celforge("undo", tmp_path)
    assert (tmp_path / name).read_bytes() == HAND


@pytest.mark.parametrize("data", [b"caf\xe9", b"", b" \r\n", b"\x00\x01", b"\xff\xfeX", b"x" * (2 << 20)])
def test_what_cannot_be_read_is_kept_and_told(celforge: Celforge, tmp_path: Path, data: bytes) -> None:
    described(celforge, tmp_path, {"a.png": {"tags": {"smile": 0.9}}})
    (tmp_path / "a.txt").write_bytes(data)
    answer = celforge("caption", tmp_path, "--json")
    assert (tmp_path / "a.txt").read_bytes() == data
    assert len(answer.json["not_understood"]) == 1
    assert celforge("caption", tmp_path, "--overwrite").exit_code == 0
    assert captions(tmp_path) == {"a.txt": "smile"}
    celforge("undo", tmp_path)
    assert (tmp_path / "a.txt").read_bytes() == data


def test_a_caption_of_the_other_suffix_by_hand_stands_for_the_picture(
    celforge: Celforge, tmp_path: Path
) -> None:
    described(celforge, tmp_path, {"a.png": {"tags": {"smile": 0.9}}})
    (tmp_path / "a.caption").write_bytes(HAND)
    celforge("caption", tmp_path)
    assert captions(tmp_path) == {"a.caption": HAND.decode()}
    celforge("caption", tmp_path, "--overwrite", "--prune", "none")
    assert captions(tmp_path / ".celforge" / "dropped").popitem()[1] == HAND.decode()
    assert list(tmp_path.glob("a.*")) == [tmp_path / "a.png", tmp_path / "a.txt"] or {
        *tmp_path.glob("a.*")
    } == {tmp_path / "a.png", tmp_path / "a.txt"}


def test_our_own_caption_changes_its_suffix(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, {"a.png": {"tags": {"smile": 0.9}}})
    celforge("caption", tmp_path)
    celforge("caption", tmp_path, "--format", "caption")
    assert {path.name for path in tmp_path.glob("a.*")} == {"a.png", "a.caption"}
    celforge("undo", tmp_path)
    assert {path.name for path in tmp_path.glob("a.*")} == {"a.png", "a.txt"}


def test_a_caption_of_a_picture_drawn_again_is_still_ours(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, {"a.png": {"tags": {"smile": 0.9}}})
    celforge("caption", tmp_path)
    described(celforge, tmp_path, {"z.png": {}, "a.png": {"tags": {"day": 0.9}}})
    celforge("caption", tmp_path)
    assert captions(tmp_path) == {"a.txt": "day", "z.txt": "smile"}


def test_pictures_that_would_share_a_caption_are_refused(celforge: Celforge, tmp_path: Path) -> None:
    described(
        celforge,
        tmp_path,
        {"a.png": {"tags": {"smile": 1}}, "A.jpg": {"tags": {"day": 1}}, "b.png": {"tags": {"day": 1}}},
    )
    answer = celforge("caption", tmp_path, "--json")
    assert answer.exit_code == 3
    assert {(one["path"], one["reason"]) for one in answer.json["failures"]} == {
        ("a.png", "shares its caption file"),
        ("A.jpg", "shares its caption file"),
    }
    assert captions(tmp_path) == {"b.txt": "day"}
    (tmp_path / "A.jpg").write_bytes((tmp_path / "a.png").read_bytes())  # a copy: one caption says it all
    (tmp_path / "A.jpg").rename(tmp_path / "a.jpg")
    celforge("caption", tmp_path)
    assert captions(tmp_path) == {"a.txt": "smile", "b.txt": "day"}


def test_a_picture_at_two_places_has_the_same_caption_at_both(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, {"x/a.png": {"tags": {"smile": 1, "day": 0.9}}})
    (tmp_path / "y").mkdir()
    os.link(tmp_path / "x" / "a.png", tmp_path / "y" / "b.png")
    celforge("caption", tmp_path, "--sort", "shuffle")
    texts = captions(tmp_path)
    assert texts["x/a.txt"] == texts["y/b.txt"]
    (tmp_path / "y" / "b.txt").write_bytes(HAND)
    celforge("caption", tmp_path, "--trigger-words", "t")
    assert captions(tmp_path)["y/b.txt"] == HAND.decode()
    assert captions(tmp_path)["x/a.txt"].startswith("t, ")


# Lines of JSON


def test_captions_in_one_file_and_a_person_s_lines_in_it(celforge: Celforge, tmp_path: Path) -> None:
    contents = described(
        celforge, tmp_path, {"e/a.png": {"tags": {"smile": 1}}, "b.png": {"tags": {"day": 1}}}
    )
    celforge("caption", tmp_path, "--format", "jsonl")
    path = tmp_path / "captions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [{"image_path": "b.png", "caption": "day"}, {"image_path": "e/a.png", "caption": "smile"}]
    hand = '{"caption":"smile, mine",   "image_path": "e/a.png", "note": 3}'
    gone = '{"image_path": "gone.png", "caption": "x"}'
    path.write_text(f"{json.dumps(rows[0])}\n{hand}\n{gone}\n")
    celforge("caption", tmp_path, "--format", "jsonl", "--trigger-words", "t")
    assert path.read_text().splitlines() == ['{"image_path": "b.png", "caption": "t, day"}', hand, gone]
    assert fact(tmp_path, contents["e/a.png"], "tags") == {"smile": 1, "mine": None}
    celforge("caption", tmp_path, "--format", "jsonl", "--overwrite")
    assert json.loads(path.read_text().splitlines()[1]) == {
        "image_path": "e/a.png",
        "caption": "mine, smile",
        "note": 3,
    }
    path.write_text("not JSON\n")
    answer = celforge("caption", tmp_path, "--format", "jsonl")
    assert answer.exit_code == 2
    assert "line 1 of" in answer.stderr
    assert path.read_text() == "not JSON\n"


# Runs


def test_a_second_run_writes_nothing(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, many(3))
    celforge("caption", tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.txt")}
    answer = celforge("caption", tmp_path, "--json")
    assert [(row["reason"], row["files"]) for row in answer.json["counts"]] == [("unchanged", 3)]
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.txt")}
    assert len(celforge("undo", tmp_path, "--list", "--json").json) == 1


def test_a_dry_run_shows_texts_and_writes_nothing(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, {"a.png": {"tags": {"smile": 1}}})
    answer = celforge("caption", tmp_path, "--dry-run", "--json")
    assert answer.json["planned"] == [{"action": "write", "file": "a.txt", "text": "smile"}]
    assert captions(tmp_path) == {}


def test_pictures_of_which_nothing_is_known(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, {"a.png": {}})
    answer = celforge("caption", tmp_path)
    assert answer.exit_code == 2
    assert "nothing is known of any picture" in answer.stderr
    described(celforge, tmp_path, {"a.png": {}, "b.png": {"tags": {"smile": 1}}})
    answer = celforge("caption", tmp_path, "--json")
    assert answer.exit_code == 3
    assert [one["reason"] for one in answer.json["failures"]] == ["nothing to write"]
    assert captions(tmp_path) == {"b.txt": "smile"}
    celforge("tags", tmp_path, "--remove", "smile")
    described(celforge, tmp_path, {"a.png": {}, "b.png": {}, "c.png": {"tags": {"day": 1}}})
    answer = celforge("caption", tmp_path)
    assert "nothing is known of b.png; b.txt of an earlier time stays" in answer.stderr
    assert captions(tmp_path) == {"b.txt": "smile", "c.txt": "day"}


def test_a_folder_without_pictures_is_refused(celforge: Celforge, tmp_path: Path) -> None:
    answer = celforge("caption", tmp_path)
    assert answer.exit_code == 2
    assert "holds no pictures" in answer.stderr


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--trigger-words", "one, two"), "holds the separator"),
        (("--separator", "  "), "a sign that is no space"),
        (("--keep-tokens-separator", ",|"), "holds the separator itself"),
        (("--order", "tags", "--order", "tags"), "names a field twice"),
        (("--order", "characters", "--keep-tokens-separator", "|||"), "which order leaves out"),
        (("--captioner", "x {image}"), "captioner has no effect"),
        (("--blacklist-file", "none.txt"), "cannot be read"),
        (("--embedding-file", "--embedding-min-difficulty", "2"), "must be below"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    celforge: Celforge, tmp_path: Path, flags: tuple[str, ...], expected: str
) -> None:
    draw(tmp_path / "a.png", 0)
    answer = celforge("caption", tmp_path, *flags)
    assert answer.exit_code == 2
    assert expected in answer.stderr


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere"
)
def test_a_read_only_folder_is_named_and_nothing_is_written(celforge: Celforge, tmp_path: Path) -> None:
    described(celforge, tmp_path, {"a/a.png": {"tags": {"smile": 1}}, "b/b.png": {"tags": {"day": 1}}})
    (tmp_path / "b").chmod(0o555)
    try:
        answer = celforge("caption", tmp_path)
    finally:
        (tmp_path / "b").chmod(0o755)
    assert answer.exit_code == 1
    assert "may not be written" in answer.stderr
    assert captions(tmp_path) == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_a_killed_run_is_finished_by_the_next_and_takes_nothing_for_a_person_s(
    celforge: Celforge, tmp_path: Path
) -> None:
    root = tmp_path / "pictures"
    described(celforge, root, many(4))
    modules = ("caption_writing.py", "caption_files.py", "journal.py", "content_steps.py", "job.py")

    def work() -> None:
        run(cli, ["-q", "caption", str(root), "--overwrite", "--trigger-words", "t"])

    def reset() -> None:
        for name in captions(root):
            (root / name).unlink()
        for index in range(4):
            (root / f"{index:02d}.txt").write_bytes(HAND if index == 3 else b"")
            if index != 3:
                (root / f"{index:02d}.txt").unlink()

    reset()
    _, total = run_until_line(work, modules, None)
    expected = captions(root)
    assert len(expected) == 4
    for line in points(total, 6, seed=5):
        while celforge("undo", root).exit_code == 0:
            pass
        reset()
        code, _ = run_until_line(work, modules, line)
        assert code == KILLED
        answer = celforge("caption", root, "--overwrite", "--trigger-words", "t", "--json")
        assert answer.exit_code == 0, answer.stderr
        assert captions(root) == expected, line
        assert not list(root.rglob("*.partial"))
        assert {row["reason"] for row in answer.json["counts"]} <= {"written", "unchanged"}


CORNERS = ["run", "edit", "undo", "overwrite", "overwrite", "undo"]


@pytest.mark.parametrize("seed", range(4))
def test_no_run_and_no_undo_loses_words_that_were_typed(
    celforge: Celforge, tmp_path: Path, seed: int
) -> None:
    """Any order of runs, edits, overwriting runs and undos: only --overwrite touches a person's words, and the
    undo of it brings them back.
    """
    described(celforge, tmp_path, {"a.png": {"tags": {"smile": 0.9, "day": 0.8}}})
    path, random, typed = tmp_path / "a.txt", Random(seed), set[str]()
    before_overwrite: str | None = None
    for number, what in enumerate(["run", "edit", "run", "undo", "run", *random.choices(CORNERS, k=7)]):
        stood = path.read_text(encoding="utf-8") if path.exists() else None
        if what == "edit":
            path.write_text(f"smile, words {seed} {number}", encoding="utf-8")
            typed.add(path.read_text(encoding="utf-8"))
            before_overwrite = None
            continue
        flags = {"overwrite": ("--overwrite", "--trigger-words", f"x{number}")}.get(what, ())
        answer = celforge("undo" if what == "undo" else "caption", tmp_path, *flags)
        assert what == "undo" or answer.exit_code == 0, answer.stderr
        stands = path.read_text(encoding="utf-8") if path.exists() else None
        if what == "undo" and before_overwrite is not None:
            assert stands == before_overwrite
        elif what != "overwrite" and stood in typed:
            assert stands == stood, (what, number)
        before_overwrite = stood if what == "overwrite" else None
