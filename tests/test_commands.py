import os
import re
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from pipeline.command_table import settings_classes
from pipeline.commands.init import CHOSEN
from pipeline.project import Project, entries_of, locked
from pipeline.settings import options_of, toml_text
from tests.conftest import Celforge

OLD_NS = 1_600_000_000_123_456_789


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good pictures, two of them the same, and two broken ones."""
    made = tmp_path / "screens"
    (made / "ep 01").mkdir(parents=True)
    Image.new("RGB", (64, 36), (200, 30, 30)).save(made / "ep 01" / "猫 & Co.png")
    Image.new("RGB", (36, 64), (30, 200, 30)).save(made / "b.JPG", "JPEG")
    (made / "copy.png").write_bytes((made / "ep 01" / "猫 & Co.png").read_bytes())
    (made / "empty.webp").touch()
    (made / "page.png").write_text("<html>")
    for path in made.rglob("*.*"):
        os.utime(path, ns=(OLD_NS, OLD_NS))
    return made


# ingest


def test_ingest_reads_all_names_the_broken_and_ends_with_3(celforge: Celforge, folder: Path) -> None:
    answer = celforge("ingest", folder, "--json")
    assert answer.exit_code == 3
    counts = {(row["outcome"], row["reason"]): row["files"] for row in answer.json["counts"]}
    assert counts == {("kept", ""): 3, ("failed", "empty file"): 1, ("failed", "not a picture"): 1}
    assert sorted(failure["path"] for failure in answer.json["failures"]) == ["empty.webp", "page.png"]
    assert (answer.json["pictures"], answer.json["distinct_contents"]) == (3, 2)
    assert answer.json["formats"] == {"PNG": 2, "JPEG": 1}
    assert answer.json["short_side_px"] == {"smallest": 36, "median": 36, "largest": 36}
    assert "warning: page.png is not a picture" in answer.stderr


def test_ingest_changes_nothing_but_its_own_folder(celforge: Celforge, folder: Path) -> None:
    def look() -> dict[str, tuple[int, int]]:
        files = [path for path in folder.rglob("*") if ".celforge" not in path.parts]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.is_file()}

    before = look()
    celforge("ingest", folder)
    assert look() == before


def test_ingest_again_reads_only_what_is_new_or_failed(
    celforge: Celforge, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = celforge("ingest", folder, "--json").json
    read: list[str] = []
    from stages import ingest

    original = ingest.read_whole
    monkeypatch.setattr(ingest, "read_whole", lambda file: read.append(file.path.name) or original(file))
    again = celforge("ingest", folder, "--json").json
    assert sorted(read) == ["empty.webp", "page.png"]
    unlike = {"seconds": 0, "failures": 0}
    assert {**again, **unlike} == {**first, **unlike}


def test_a_mended_file_is_kept_the_next_time(celforge: Celforge, folder: Path) -> None:
    celforge("ingest", folder)
    Image.new("RGB", (8, 8)).save(folder / "empty.webp")
    Image.new("RGB", (8, 8), (1, 2, 3)).save(folder / "page.png")
    answer = celforge("ingest", folder)
    assert answer.exit_code == 0
    assert "failed" not in answer.stdout


def test_header_mode_misses_a_truncated_file_and_whole_mode_finds_it(
    celforge: Celforge, tmp_path: Path
) -> None:
    whole = tmp_path / "a.png"
    Image.effect_noise((64, 64), 100).save(whole)
    whole.write_bytes(whole.read_bytes()[:2000])
    assert celforge("ingest", tmp_path, "--decode", "header").exit_code == 0
    answer = celforge("ingest", tmp_path)
    assert answer.exit_code == 3
    assert "truncated" in answer.stdout


def test_a_folder_without_pictures_says_what_to_give(celforge: Celforge, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    answer = celforge("ingest", tmp_path)
    assert answer.exit_code == 2
    assert "holds no pictures" in answer.stderr
    assert "png, jpg" in answer.stderr


def test_more_failures_than_allowed_end_with_1(celforge: Celforge, folder: Path) -> None:
    answer = celforge("ingest", folder, "--max-failures", "1")
    assert answer.exit_code == 1
    assert "more than --max-failures 1" in answer.stderr


def test_a_folder_in_use_names_who_works_there(celforge: Celforge, folder: Path) -> None:
    with locked(Project(folder)):
        answer = celforge("ingest", folder)
    assert answer.exit_code == 1
    assert f"kill {os.getpid()}" in answer.stderr
    assert str(folder) in answer.stderr


def test_quiet_says_only_warnings(celforge: Celforge, folder: Path) -> None:
    answer = celforge("-q", "ingest", folder)
    assert all(line.startswith("warning:") for line in answer.stderr.splitlines())


# settings


def test_init_writes_every_setting_and_its_lines_are_valid(celforge: Celforge, tmp_path: Path) -> None:
    assert celforge("init", tmp_path).exit_code == 0
    text = (tmp_path / "celforge.toml").read_text(encoding="utf-8")
    assert {*tomllib.loads(text), "train"} == set(settings_classes())
    is_hidden = re.compile(r"# (\w+ = |\[\[)").match  # what the head shows is indented further
    data = tomllib.loads("\n".join(line[2:] if is_hidden(line) else line for line in text.splitlines()))
    for section, settings_class in settings_classes().items():
        (values,) = entries_of(data, section, None)
        for one in options_of(settings_class):
            chosen = CHOSEN.get(section, {}).get(one.name, one.default)
            if chosen is not None:
                assert toml_text(chosen) == toml_text(values[one.name])
    assert celforge("config", "show", tmp_path).exit_code == 0


def test_init_makes_the_folder(celforge: Celforge, tmp_path: Path) -> None:
    answer = celforge("init", tmp_path / "new" / "my-anime")
    assert answer.exit_code == 0, answer.stderr
    names = {one.name for one in (tmp_path / "new" / "my-anime").iterdir()}
    assert names == {".celforge", "celforge.toml", "images", "videos"}
    (tmp_path / "file").touch()
    assert celforge("init", tmp_path / "file").exit_code != 0


def test_init_never_writes_over_a_file(celforge: Celforge, tmp_path: Path) -> None:
    (tmp_path / "celforge.toml").write_text("# mine")
    answer = celforge("init", tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert answer.exit_code == 2
    assert "nothing was written" in answer.stderr
    assert (tmp_path / "celforge.toml").read_text() == "# mine"


def test_config_show_says_where_each_value_comes_from(celforge: Celforge, tmp_path: Path) -> None:
    (tmp_path / "celforge.toml").write_text("[job]\nworkers = 3\n")
    rows = {
        (row["section"], row["setting"]): row for row in celforge("config", "show", tmp_path, "--json").json
    }
    assert rows["job", "workers"] == {
        "section": "job",
        "setting": "workers",
        "value": 3,
        "from": "celforge.toml",
    }
    assert rows["ingest", "decode"]["from"] == "default"


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("[ingest]\ndecod = 'whole'", 'did you mean "decode"?'),
        ("[ingest]\ndecode = 3", '"decode" in [ingest]'),
        ("[ingset]", 'did you mean "ingest"?'),
        ("[job]\nworkers = 'many'", '"workers" in [job]'),
        ("[job\n", "line 1"),
    ],
)
@pytest.mark.parametrize("command", [["config", "show"], ["ingest"]])
def test_a_wrong_setting_stops_before_anything_runs(
    celforge: Celforge, folder: Path, toml: str, expected: str, command: list[str]
) -> None:
    (folder / "celforge.toml").write_text(toml)
    answer = celforge(*command, folder)
    assert answer.exit_code == 2
    assert expected in answer.stderr
    assert str(folder / "celforge.toml") in answer.stderr
    assert not (folder / ".celforge" / "catalog.sqlite3").exists()


def test_a_flag_counts_over_the_file(celforge: Celforge, folder: Path) -> None:
    (folder / "celforge.toml").write_text("[job]\nmax_failures = '0'\n")
    assert celforge("ingest", folder).exit_code == 1
    assert celforge("ingest", folder, "--max-failures", "9").exit_code == 3


# status


def test_status_counts_files_and_outcomes_and_writes_nothing(celforge: Celforge, folder: Path) -> None:
    celforge("ingest", folder)
    (folder / "b.JPG").rename(folder / "c.jpg")
    Image.new("RGB", (9, 9)).save(folder / "new.png")
    before = (folder / ".celforge" / "catalog.sqlite3").read_bytes()
    status = celforge("status", folder, "--json").json
    assert status["files"] == [{"files": "images", "unchanged": 4, "changed": 0, "new": 2, "gone": 1}]
    assert {"stage": "ingest", "outcome": "kept", "reason": "", "images": 3} in status["stages"]
    assert status["last_runs"][0]["exit_code"] == 3
    assert (folder / ".celforge" / "catalog.sqlite3").read_bytes() == before


def test_status_of_one_folder_counts_only_what_lies_there(celforge: Celforge, folder: Path) -> None:
    celforge("ingest", folder)
    status = celforge("status", folder / "ep 01", "--json").json
    assert status["files"][0]["unchanged"] == 1
    assert [row["images"] for row in status["stages"]] == [1]


def test_status_works_while_another_command_works(celforge: Celforge, folder: Path) -> None:
    celforge("ingest", folder)
    with locked(Project(folder)):
        assert celforge("status", folder).exit_code == 0


def test_status_of_a_folder_that_nobody_touched_makes_nothing(celforge: Celforge, folder: Path) -> None:
    answer = celforge("status", folder)
    assert "no stage has run here yet" in answer.stdout
    assert not (folder / ".celforge").exists()


# catalog


def test_what_is_known_travels_to_another_folder(celforge: Celforge, folder: Path, tmp_path: Path) -> None:
    celforge("ingest", folder)
    backup, other = tmp_path / "backup.jsonl", tmp_path / "other"
    assert celforge("catalog", "export", folder, "-o", backup).exit_code == 0
    other.mkdir()
    (folder / "b.JPG").rename(other / "renamed.jpg")
    answer = celforge("catalog", "import", backup, other, "--json")
    assert answer.exit_code == 0
    assert answer.json["contents"] == 4
    celforge("ingest", other)
    exported = celforge("catalog", "export", other, "--no-history", "--no-results").stdout
    assert '"path":"renamed.jpg"' in exported
    assert "b.JPG" not in exported  # it lies elsewhere now
    assert '"reason":"empty file"' in exported


def test_import_of_something_else_takes_nothing_in(celforge: Celforge, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    answer = celforge("catalog", "import", tmp_path / "notes.txt", folder)
    assert answer.exit_code == 2
    assert "line 1 is not a catalogue line" in answer.stderr


def test_sidecars_become_facts_and_broken_ones_are_named(celforge: Celforge, folder: Path) -> None:
    broken = folder / "b.json"
    (folder / ".copy_meta.json").write_text('{"characters": ["Aoba"], "tags": {"1girl": 0.9}, "x": 1}')
    (folder / "copy.characters").write_text("Hifumi")
    broken.write_text("{")
    answer = celforge("catalog", "sidecars", folder, "--json")
    assert answer.exit_code == 3
    assert answer.json["sidecars"] == {"anime_screenshot_pipeline": 1, "waifuc": 1}
    assert answer.json["ignored"] == {"x: no equal here": 1}
    assert [failure["reason"] for failure in answer.json["failures"]] == ["sidecar not understood"]
    exported = celforge("catalog", "export", folder, "--no-history").stdout
    assert '{"by_hand":false,"name":"characters","source":"waifuc","value":["Aoba"]}' in exported
    assert '"source":"anime_screenshot_pipeline","value":["Hifumi"]' in exported
    celforge("catalog", "sidecars", folder)
    assert celforge("catalog", "export", folder, "--no-history").stdout == exported
    broken.unlink()
    assert celforge("catalog", "sidecars", folder).exit_code == 0
    assert '"failed"' not in celforge("catalog", "export", folder).stdout


# undo


def test_undo_where_nothing_was_done_makes_nothing(celforge: Celforge, folder: Path) -> None:
    answer = celforge("undo", folder)
    assert answer.exit_code == 2
    assert not (folder / ".celforge").exists()
    assert celforge("undo", folder, "--list").stdout == "there is nothing to take back\n"
