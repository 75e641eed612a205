"""`celforge check`: one test a trap, on a tree that is clean but for it. Here: what is read, and how often."""

import importlib.util
import sys
from pathlib import Path

import pytest
from pictures import noise, saved
from trainer_trees import EVERYDREAM, KOHYA, PIC, Checker, Content, detail, everydream_reads, found, plant

from pipeline.lint.traps import traps
from tests.conftest import Celforge

ROOT = Path(__file__).parents[1]


@pytest.fixture
def look(celforge: Celforge, tmp_path: Path) -> Checker:
    return Checker(celforge, tmp_path / "tree")


# Clean trees, severities, what is shown


@pytest.mark.parametrize("files", [EVERYDREAM, KOHYA], ids=["everydream", "kohya"])
@pytest.mark.parametrize("decode", ["none", "header", "whole"])
def test_a_clean_tree_gives_nothing_and_0(look: Checker, files: dict[str, Content], decode: str) -> None:
    answer = look(files, "--decode", decode, "--strict")
    assert answer["exit_code"] == 0
    assert answer["findings"] == answer["traps"] == []


@pytest.mark.parametrize(
    ("added", "flags", "code"),
    [
        ({"mai/m1.txt": ""}, (), 3),
        ({"mai/loose.txt": "x"}, (), 0),
        ({"mai/loose.txt": "x"}, ("--strict",), 3),
        ({"aoba/m1.png": PIC, "aoba/m1.txt": "m"}, ("--strict",), 0),
        ({"mai/m1.txt": ""}, ("--ignore", "empty-caption"), 0),
    ],
    ids=["error", "warning", "strict", "note", "ignored"],
)
def test_errors_give_3_warnings_when_asked_and_notes_never(
    look: Checker, added: dict[str, Content], flags: tuple[str, ...], code: int
) -> None:
    assert look(EVERYDREAM | added, *flags)["exit_code"] == code


def test_what_is_ignored_is_still_counted(look: Checker) -> None:
    answer = look(EVERYDREAM | {"mai/m1.txt": ""}, "--ignore", "empty-caption")
    assert answer["findings"] == []
    assert answer["passed_over"] == {"empty-caption": 1}


def test_an_unknown_trap_is_an_error_that_names_the_nearest(celforge: Celforge, tmp_path: Path) -> None:
    plant(tmp_path, EVERYDREAM)
    answer = celforge("check", tmp_path, "--ignore", "emtpy-caption")
    assert answer.exit_code == 2
    assert 'did you mean "empty-caption"?' in answer.stderr


def test_a_thousand_findings_are_one_paragraph(celforge: Celforge, tmp_path: Path) -> None:
    plant(tmp_path, EVERYDREAM)
    for number in range(1000):
        (tmp_path / "mai" / f"loose {number}.txt").write_text("x")
    shown = celforge("check", tmp_path, "--decode", "none").stdout
    assert "orphan-caption: 1,000 captions" in shown
    assert "... and 997 more" in shown
    assert len(shown.splitlines()) < 20
    none = celforge("check", tmp_path, "--decode", "none", "--examples", "0").stdout
    assert "loose 0" not in none


def test_examples_come_from_different_folders(celforge: Celforge, tmp_path: Path) -> None:
    loose = {f"{who}/loose {number}.txt": "x" for who in ("aoba/deep", "mai") for number in range(5)}
    plant(tmp_path, EVERYDREAM | loose)
    shown = celforge("check", tmp_path, "--decode", "none", "--examples", "2").stdout
    assert "aoba/deep/loose 0.txt" in shown
    assert "mai/loose 0.txt" in shown


def test_every_trap_has_a_test_of_its_name() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_check*.py"))
    for trap in traps():
        assert f"def test_trap_{trap.replace('-', '_')}" in pages, trap


def test_the_table_of_traps_in_the_page_is_not_stale() -> None:
    spec = importlib.util.spec_from_file_location("make_traps", ROOT / "docs" / "make_traps.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    assert page == module.page_with_table(page), "run: make docs"
    assert all(f"| `{name}` |" in page for name in traps())


def test_severities_and_texts_are_whole() -> None:
    for trap in traps().values():
        assert trap.severity in ("error", "warning", "note"), trap.name
        assert set(trap.trainers) <= {"kohya", "everydream"}, trap.name
        assert trap.what.endswith("."), trap.name
        assert trap.fix.endswith("."), trap.name


def test_a_folder_without_pictures_is_refused(celforge: Celforge, tmp_path: Path) -> None:
    answer = celforge("check", tmp_path)
    assert answer.exit_code == 2
    assert "holds no pictures" in answer.stderr


# Which trainer is meant


@pytest.mark.parametrize(
    ("files", "trainers"),
    [
        (EVERYDREAM, ["everydream"]),
        (KOHYA, ["kohya"]),
        ({"a.png": PIC, "a.txt": "a"}, ["everydream"]),
        ({"1_character/a.png": PIC, "1_character/a.txt": "a"}, ["everydream"]),
        ({"1_character/mai/a.png": PIC, "1_character/mai/a.txt": "a"}, ["everydream"]),
        ({"2_1_character~mai/a.png": PIC, "2_1_character~mai/a.txt": "a"}, ["kohya"]),
    ],
    ids=["tree", "flat", "plain", "count of characters", "nested count", "flattened"],
)
def test_auto_tells_trees_apart(look: Checker, files: dict[str, Content], trainers: list[str]) -> None:
    assert list(look(files)["reading"]) == trainers


def test_both_reads_by_both_rules(look: Checker) -> None:
    answer = look(KOHYA, "--for", "both")
    assert list(answer["reading"]) == ["kohya", "everydream"]
    assert answer["findings"] == []
    assert answer["reading"]["kohya"]["exposures"] == 7
    assert answer["reading"]["everydream"]["exposures"] == 3


# What is read at all


def test_trap_nothing_read(look: Checker) -> None:
    assert look.everydream({}, "--for", "kohya") == [("nothing-read", ".")]


def test_trap_leaf_folder(celforge: Celforge, tmp_path: Path) -> None:
    plant(tmp_path, KOHYA)
    answer = celforge("check", tmp_path / "3_mai", "--json").json
    assert found(answer) == [("leaf-folder", ".")]
    assert detail(answer, "leaf-folder") == f"give {tmp_path}"


def test_trap_pictures_at_root(look: Checker) -> None:
    assert look.kohya({"r1.png": PIC, "r1.caption": "r"}) == [("pictures-at-root", ".")]


@pytest.mark.parametrize("name", ["plain", "x_3", "2.5_half"])
def test_trap_folder_not_numbered(look: Checker, name: str) -> None:
    answer = look(KOHYA | {f"{name}/p.png": PIC, f"{name}/p.caption": "p"})
    assert found(answer) == [("folder-not-numbered", name)]
    assert detail(answer, "folder-not-numbered") == ("its number is not whole" if "." in name else "")


@pytest.mark.parametrize("name", ["0_x", "-3_x"])
def test_trap_repeats_below_one(look: Checker, name: str) -> None:
    assert look.kohya({f"{name}/p.png": PIC, f"{name}/p.caption": "p"}) == [("repeats-below-one", name)]


def test_trap_repeats_below_one_in_a_toml(look: Checker, tmp_path: Path) -> None:
    assert found(look(KOHYA | {"d.toml": dataset(tmp_path, {"3_mai": 0, "1_aoba": 1})})) == [
        ("not-in-dataset-config", "3_mai"),
        ("repeats-below-one", "d.toml"),
    ]


def test_trap_nested_pictures(look: Checker) -> None:
    assert look.kohya({"3_mai/deep/p.png": PIC, "3_mai/deep/p.caption": "p"}) == [
        ("nested-pictures", "3_mai/deep")
    ]


def dataset(tmp_path: Path, folders: dict[str, object], more: str = "") -> str:
    """A dataset TOML of these folders and repeats."""
    lines = ["[general]", 'caption_extension = ".caption"', more, "[[datasets]]"]
    for name, repeats in folders.items():
        image_dir = name if name.startswith("/") or name == "relative" else tmp_path / "tree" / name
        lines += ["[[datasets.subsets]]", f"image_dir = '{image_dir}'", f"num_repeats = {repeats}"]
    return "\n".join(lines)


def test_a_clean_toml_gives_nothing(look: Checker, tmp_path: Path) -> None:
    answer = look(
        EVERYDREAM
        | {
            "d.toml": dataset(tmp_path, {"mai": 3, "aoba/deep": 1}, 'caption_extension=".txt"').replace(
                'caption_extension = ".caption"', ""
            )
        }
    )
    assert answer["findings"] == []
    assert answer["reading"]["kohya"]["exposures"] == 7


def test_a_toml_elsewhere_is_taken_by_its_flag(look: Checker, tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text(dataset(tmp_path, {"3_mai": 1}))
    assert found(look(KOHYA, "--dataset-config", tmp_path / "d.toml")) == [
        ("not-in-dataset-config", "1_aoba")
    ]
    assert look(KOHYA)["findings"] == []


@pytest.mark.parametrize(
    ("repeats", "more", "text"),
    [
        (2.5, "", "num_repeats must be a whole number, found 2.5"),
        ('"two"', "", "num_repeats must be a whole number, found 'two'"),
        (1, "shuffel_caption = true", 'did you mean "shuffle_caption"?'),
        (1, "[[datasets", "is not valid TOML"),
    ],
)
def test_trap_dataset_config(look: Checker, tmp_path: Path, repeats: object, more: str, text: str) -> None:
    answer = look(KOHYA | {"d.toml": dataset(tmp_path, {"3_mai": repeats, "1_aoba": 1}, more)})
    assert any(one["trap"] == "dataset-config" and text in one["detail"] for one in answer["findings"])
    assert answer["exit_code"] == 3


def test_trap_dataset_config_names_a_folder_that_is_missing(look: Checker, tmp_path: Path) -> None:
    answer = look(KOHYA | {"d.toml": dataset(tmp_path, {"3_mai": 1, "1_aoba": 1, "9_gone": 1})})
    assert found(answer) == [("dataset-config", "d.toml")]
    assert "there is no folder" in detail(answer, "dataset-config")


def test_trap_subset_twice(look: Checker, tmp_path: Path) -> None:
    config = dataset(tmp_path, {"3_mai": 2, "1_aoba": 1})
    again = f"\n[[datasets.subsets]]\nimage_dir = '{tmp_path / 'tree' / '3_mai'}'\nnum_repeats = 5\n"
    answer = look(KOHYA | {"d.toml": config + again})
    assert found(answer) == [("subset-twice", "d.toml")]
    assert answer["reading"]["kohya"]["exposures"] == 2 * 2 + 1
    answer = look({"d.toml": config + "\n[[datasets]]" + again})
    assert found(answer) == []
    assert answer["reading"]["kohya"]["exposures"] == 2 * 2 + 1 + 2 * 5


def test_trap_not_in_dataset_config(look: Checker, tmp_path: Path) -> None:
    assert found(look(KOHYA | {"d.toml": dataset(tmp_path, {"3_mai": 1})})) == [
        ("not-in-dataset-config", "1_aoba")
    ]


def test_trap_subset_elsewhere(look: Checker, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other"
    plant(elsewhere, {"p.png": PIC, "p.caption": "p"})
    config = dataset(tmp_path, {"3_mai": 1, "1_aoba": 1, str(elsewhere): 1})
    answer = look(KOHYA | {"d.toml": config}, "--fix")
    assert found(answer) == [("subset-elsewhere", str(elsewhere))]
    assert answer["reading"]["kohya"]["exposures"] == 4
    assert (answer["reading"]["kohya"]["pictures"], answer["reading"]["kohya"]["pictures_outside"]) == (4, 1)

    (elsewhere / "p.caption").unlink()
    assert set(found(look({}, "--fix"))) == {
        ("missing-caption", f"{elsewhere}/p.png"),
        ("no-class-tokens", str(elsewhere)),
        ("subset-elsewhere", str(elsewhere)),
    }


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_numbered_link_is_counted_as_kohya_follows_it(look: Checker, tmp_path: Path) -> None:
    plant(tmp_path / "other", {"p.png": PIC, "p.caption": "p"})
    plant(look.folder, KOHYA)
    (look.folder / "5_linked").symlink_to(tmp_path / "other")
    answer = look({})
    assert found(answer) == [("linked-folder", "5_linked")]
    assert answer["reading"]["kohya"]["exposures"] == 7 + 5


def test_trap_relative_image_dir(look: Checker, tmp_path: Path) -> None:
    files = KOHYA | {"relative/p.png": PIC, "relative/p.caption": "p"}
    config = dataset(tmp_path, {"3_mai": 1, "1_aoba": 1, "relative": 1})
    assert found(look(files | {"d.toml": config})) == [("relative-image-dir", "d.toml")]


def test_trap_suffix_case(look: Checker) -> None:
    added: dict[str, Content] = {"3_mai/x.Jpg": saved(noise(512, 512), "JPEG"), "3_mai/x.caption": "x"}
    assert look.kohya(added) == [("suffix-case", "3_mai/x.Jpg")]


def test_trap_suffix_case_of_a_caption(look: Checker) -> None:
    assert look.everydream({"mai/x.PNG": PIC, "mai/x.Txt": "x"}) == [
        ("missing-caption", "mai/x.PNG"),
        ("suffix-case", "mai/x.Txt"),
    ]


@pytest.mark.parametrize("suffix", [".gif", ".tiff", ".avif"])
def test_trap_format_not_read(look: Checker, suffix: str) -> None:
    assert look.everydream({f"mai/x{suffix}": b"x"}, "--decode", "none") == [
        ("format-not-read", f"mai/x{suffix}")
    ]


def test_trap_format_not_read_by_kohya_alone(look: Checker) -> None:
    files = KOHYA | {"3_mai/x.jfif": saved(noise(512, 512), "JPEG"), "3_mai/x.caption": "x"}
    answer = look(files, "--for", "both")
    assert found(answer) == [("format-not-read", "3_mai/x.jfif")]
    assert detail(answer, "format-not-read") == "by kohya"


def test_trap_format_needs_plugin(look: Checker) -> None:
    assert look.kohya({"3_mai/x.avif": b"x"}, "--decode", "none") == [("format-needs-plugin", "3_mai/x.avif")]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_trap_linked_folder(look: Checker, tmp_path: Path) -> None:
    plant(tmp_path / "tree", EVERYDREAM)
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "tree" / "mai")
    assert found(look({})) == [("linked-folder", "link")]


def test_trap_folder_without_pictures(look: Checker) -> None:
    added: dict[str, Content] = {"lucy": None, "logs/a/b.log": "x", "aoba/none": None}
    assert look.everydream(added) == [
        ("folder-without-pictures", name) for name in ("aoba/none", "logs", "lucy")
    ]


def test_trap_character_without_pictures(celforge: Celforge, tmp_path: Path) -> None:
    from pipeline.job import open_job

    plant(tmp_path, EVERYDREAM | {"frames/f1.png": PIC, "frames/f1.txt": "lucy"})
    with open_job(tmp_path, "identify") as job:
        for file in job.images():
            name = {"mai": "mai", "aoba": "aoba", "frames": "lucy"}[file.relative.split("/")[0]]
            job.set_fact(file, "characters", [name])
    answer = celforge("check", tmp_path / "mai", "--json").json
    assert [one["detail"] for one in answer["findings"]] == [
        "aoba: 1 picture elsewhere",
        "lucy: 1 picture elsewhere",
    ]
    assert {one["trap"] for one in answer["findings"]} == {"character-without-pictures"}
    assert celforge("check", tmp_path, "--json").json["findings"] == []


def test_trap_duplicate_picture(look: Checker) -> None:
    same = saved(noise(512, 512), "PNG")
    files: dict[str, Content] = {
        "mai/s.png": same,
        "mai/s.txt": "s",
        "aoba/deep/t.png": same,
        "aoba/deep/t.txt": "s",
    }
    answer = look(EVERYDREAM | files)
    assert found(answer) == [("duplicate-picture", "aoba/deep/t.png")]
    assert detail(answer, "duplicate-picture") == "also mai/s.png"
    (answer,) = [look({"mai/s.txt": "other"})]
    assert detail(answer, "duplicate-picture") == "also mai/s.png; their captions differ"


# How often it is trained


@pytest.mark.parametrize(
    ("text", "trap"),
    [
        ("abc", "multiply-unparsable"),
        ("", "multiply-unparsable"),
        ("inf", "multiply-unparsable"),
        ("nan", "multiply-unparsable"),
        ("1,5", "multiply-unparsable"),
        ("0", "multiply-zero"),
        ("0.0", "multiply-zero"),
        ("-3", "multiply-negative"),
    ],
)
def test_trap_multiply_unparsable_zero_or_negative(look: Checker, text: str, trap: str) -> None:
    assert look.everydream({"mai/multiply.txt": text}) == [(trap, "mai/multiply.txt")]


def test_trap_multiply_unparsable_says_what_to_write(look: Checker) -> None:
    answer = look(EVERYDREAM | {"mai/multiply.txt": "1,5"})
    assert detail(answer, "multiply-unparsable") == 'found "1,5"; write 1.5'


def test_trap_multiply_zero_of_a_yaml(look: Checker) -> None:
    assert look.everydream({"aoba/deep/local.yaml": "multiply: 0"}) == [
        ("multiply-zero", "aoba/deep/local.yaml")
    ]
    assert look.everydream({"aoba/deep/local.yaml": "multiply: 2"}) == []


def test_trap_multiply_negative_of_one_picture(look: Checker) -> None:
    assert look.everydream({"mai/m1.yaml": "multiply: -1"}) == [("multiply-negative", "mai/m1.yaml")]


@pytest.mark.parametrize(
    "name", ["mai/multiply.txt.txt", "mai/m1.txt.txt", "mai/local.yaml.txt", "mai/m1.caption.txt"]
)
def test_trap_hidden_extension(look: Checker, name: str) -> None:
    assert look.everydream({name: "1"}) == [("hidden-extension", name)]


def test_trap_control_file_case(look: Checker) -> None:
    assert look.everydream({"aoba/deep/Multiply.txt": "2"}) == [
        ("control-file-case", "aoba/deep/Multiply.txt")
    ]


@pytest.mark.parametrize("name", ["cond_droput.txt", "mutliply.txt", "flip-p.txt"])
def test_trap_control_file_name(look: Checker, name: str) -> None:
    assert look.everydream({f"mai/{name}": "2"}) == [("control-file-name", f"mai/{name}")]


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf2.5", "2.5".encode("utf-16")])
def test_trap_control_file_bom(look: Checker, data: bytes) -> None:
    answer = look({**EVERYDREAM, "mai/multiply.txt": data})
    assert found(answer) == [("control-file-bom", "mai/multiply.txt")]
    assert answer["reading"]["everydream"]["exposures"] == 3  # 1 for each, as everydream_reads has it
    assert sum(multiply for _, multiply, _ in everydream_reads(look.folder)) == 3


def test_trap_multiply_of_two_lines(look: Checker) -> None:
    answer = look({**EVERYDREAM, "mai/multiply.txt": "2\n3"})
    assert found(answer) == [("multiply-unparsable", "mai/multiply.txt")]
    assert answer["reading"]["everydream"]["exposures"] == 3


def test_trap_control_file_unused(look: Checker) -> None:
    assert look.everydream({"aoba/multiply.txt": "2"}) == [("control-file-unused", "aoba/multiply.txt")]
    assert look.everydream({"aoba/multiply.txt": "2", "aoba/global.yaml": "cond_dropout: 0.1"})[1:] == []


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("mai/flip_p.txt", "half", 'no number: found "half"'),
        ("mai/local.yaml", "multiply: [", "it is not YAML"),
        ("mai/local.yaml", "just a text", "it holds no keys"),
        ("mai/global.yaml", "cond_droput: 0.1", 'did you mean "cond_dropout"?'),
        ("mai/m1.yaml", "flip_p: maybe", 'flip_p: no number: found "maybe"'),
    ],
)
def test_trap_control_file_broken(look: Checker, name: str, text: str, says: str) -> None:
    answer = look(EVERYDREAM | {name: text})
    assert found(answer) == [("control-file-broken", name)]
    assert says in detail(answer, "control-file-broken")


def test_trap_multiply_overridden(look: Checker) -> None:
    assert look.everydream({"mai/local.yaml": "multiply: 4"}) == [("multiply-overridden", "mai/local.yaml")]
    assert look.everydream({"mai/local.yaml": "multiply: 2.50"}) == []


def test_trap_shuffle_tags_lost(look: Checker) -> None:
    assert look.everydream({"global.yaml": "shuffle_tags: true"}) == [("shuffle-tags-lost", "global.yaml")]
