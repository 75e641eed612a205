"""Tables of characters in celforge.toml, and names in folders."""

from pathlib import Path

import pytest

from pipeline.characters import NameBook, characters_of
from pipeline.errors import SettingsError
from pipeline.layouts.character_folders import check_format, folder_below, names_of_folder
from stages.character_forms import caption_parts, embedding_name
from tests.conftest import Celforge

TOML = Path("p") / "celforge.toml"


def characters(**tables: object):
    return characters_of({"characters": tables}, TOML)


def test_a_signature_takes_all_any_and_none() -> None:
    sabine = characters(
        sabine={"all": ["Pink hair", "twintails"], "any": ["hat", "bow"], "none": ["glasses"]}
    )["sabine"]
    assert sabine.matches({"pink_hair", "twintails", "bow"})
    assert not sabine.matches({"pink_hair", "twintails"})
    assert not sabine.matches({"pink_hair", "bow"})
    assert not sabine.matches({"pink_hair", "twintails", "bow", "glasses"})
    assert characters(a={"any": ["hat"]})["a"].matches({"hat"})
    assert not characters(a={"tags": ["a_(x)"]})["a"].matches({"hat"})


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"sabine": {"al": ["x"]}}, ('unknown key "al"', "[characters.sabine]", str(TOML), '"all"')),
        ({"sabine": {"all": "x"}}, ('"all" in [characters.sabine]', "a list, each a text")),
        ({"sabine": ["x"]}, ('"sabine" in [characters]', "[characters.sabine]")),
        ({"all": ["x"]}, ('"all" in [characters]', "must be a table")),
        ({"sabine": {"none": ["x"]}}, ("says only which tags are not there",)),
        ({"a": {"tags": ["x_y"]}, "b": {"tags": ["X y"]}}, ('"x_y" is a tag of a and of', "[characters.b]")),
    ],
)
def test_a_wrong_table_names_file_table_and_key(tables: dict[str, object], expected: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as caught:
        characters(**tables)
    for part in expected:
        assert part in str(caught.value)


def test_config_show_and_init_know_of_characters(celforge: Celforge, tmp_path: Path) -> None:
    celforge("init", tmp_path)
    path = tmp_path / "celforge.toml"
    text = path.read_text()
    assert "# [characters.sabine]\n" in text
    assert celforge("config", "show", tmp_path).exit_code == 0
    path.write_text(text + '\n[characters."初音ミク"]\nall = ["twintails"]\n')
    rows = celforge("config", "show", tmp_path, "--json").json
    (row,) = (row for row in rows if row["section"] == "characters.初音ミク" and row["setting"] == "all")
    assert (row["value"], row["from"]) == (["twintails"], "celforge.toml")
    path.write_text("[character.sabine]\nall = []\n")
    answer = celforge("config", "show", tmp_path)
    assert answer.exit_code == 2
    assert 'did you mean "characters"?' in answer.stderr
    path.write_text('[[characters]]\nname = "x"\n')
    assert "[characters.sabine]" in celforge("config", "show", tmp_path).stderr


def test_an_example_of_init_is_valid_without_its_marks(celforge: Celforge, tmp_path: Path) -> None:
    celforge("init", tmp_path)
    path = tmp_path / "celforge.toml"
    text = path.read_text()
    start = text.index("# [characters.sabine]")
    lines = [
        line[2:]
        for line in text[start:].splitlines()
        if line.startswith(("# [", "# all", "# any", "# tags", "# caption ="))
    ]
    path.write_text("\n".join(lines))
    assert celforge("config", "show", tmp_path).exit_code == 0


def test_names_are_found_in_any_spelling() -> None:
    book = NameBook(characters(sabine={"caption": "sabine_v1"}), ["Mireth"])
    assert book.name("SABINE") == book.name("sabine v1") == "sabine"
    assert book.known("mireth") == "Mireth"
    assert book.known("nobody") is None
    assert book.name("Nobody") == "Nobody"


# Folders


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("1_character/Sabine", ("Sabine",)),
        ("dataset/1_character/Sabine/upper body", ("Sabine",)),
        ("2_characters/Sabine+Mireth", ("Mireth", "Sabine")),
        ("1_character/3_Sabine", ("Sabine",)),
        ("6+_characters", None),
        ("6+_characters/character_others", None),
        ("2_characters/character_others", None),
        ("2_characters/Sabine+unknown", ("Sabine",)),
        ("1_character", None),
        ("10_sabine", ("sabine",)),
        ("3_mireth+sabine", ("mireth", "sabine")),
        ("train/10_sabine girl", ("sabine girl",)),
        ("0_noise", None),
        ("-1_noise", None),
        ("5_初音ミク", ("初音ミク",)),
        ("2_1_character~Sabine", ("Sabine",)),
        ("2_2_characters~Sabine+Mireth~upper", ("Mireth", "Sabine")),
        ("2024_01", None),
        ("ep01", None),
        ("", None),
        ("sabine", None),
        ("known", ("known",)),
        ("known+sabine", None),
    ],
)
def test_folders_name_characters(folder: str, names: tuple[str, ...] | None) -> None:
    assert names_of_folder(folder, (), lambda text: text if text == "known" else None) == names


@pytest.mark.parametrize(
    ("format", "folder", "names"),
    [
        ("*/character", "ep01/sabine", ("sabine",)),
        ("*/character", "ep01/sabine/deeper", None),
        ("*/character/*", "n/Sabine+Mireth/x", ("Mireth", "Sabine")),
        ("**/character", "a/b/c/2_sabine", ("sabine",)),
        ("character/**", "sabine/a/b", ("sabine",)),
        ("character/**", "sabine", ("sabine",)),
        ("character", "others", None),
        ("*/character", "sabine", None),
    ],
)
def test_a_format_says_which_folder(format: str, folder: str, names: tuple[str, ...] | None) -> None:
    assert names_of_folder(folder, check_format(format)) == names


def test_unicode_names_of_two_forms_are_one() -> None:
    assert (
        names_of_folder("1_character/e\u0301mi") == names_of_folder("1_character/\u00e9mi") == ("\u00e9mi",)
    )


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("*/charcter", 'did you mean "character"?'),
        ("*/x", "must be *, ** or character"),
        ("*/*", "must say once"),
        ("character/character", "once"),
    ],
)
def test_a_wrong_format_is_refused(format: str, expected: str) -> None:
    with pytest.raises(SettingsError, match="format") as caught:
        check_format(format)
    assert expected in str(caught.value)


def test_the_folder_given_names_nobody() -> None:
    assert folder_below("10_x/sabine", "10_x") == "sabine"
    assert folder_below("10_x2/sabine", "10_x") == "10_x2/sabine"
    assert folder_below("10_x", "10_x") == ""
    assert folder_below("a/b", ".") == "a/b"


# Forms


@pytest.mark.parametrize(
    ("name", "parts", "embedding"),
    [
        ("sabine", ["sabine"], "sabine"),
        ("hatsune_miku", ["hatsune miku"], "hatsune_miku"),
        ("mireth|casual|cape+boots|none|staff", ["mireth casual", "cape boots", "staff"], "mireth"),
        ("mireth|_armoured", ["mireth_armoured"], "mireth_armoured"),
        ("mireth|none|cape", ["mireth", "cape"], "mireth"),
        ("Aoba Mai", ["Aoba Mai"], "Aoba_Mai"),
    ],
)
def test_a_name_with_parts_becomes_parts_of_a_caption(name: str, parts: list[str], embedding: str) -> None:
    assert caption_parts(name) == parts
    assert embedding_name(name) == embedding
