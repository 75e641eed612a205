import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.catalog import MIGRATIONS, Catalog, below
from pipeline.errors import CatalogError, DiskFullError

CONTENT = "ab" * 32


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path / "catalog.sqlite3") as opened:
        yield opened


def test_a_catalogue_is_in_wal_mode_with_a_busy_timeout(catalog: Catalog) -> None:
    assert catalog.rows("PRAGMA journal_mode").fetchone() == ("wal",)
    assert catalog.rows("PRAGMA busy_timeout").fetchone()[0] >= 5000
    assert catalog.rows("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_a_catalogue_of_a_newer_celforge_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    Catalog.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    before = path.read_bytes()
    with pytest.raises(CatalogError, match="schema 999") as caught:
        Catalog.open(path)
    assert "newer celforge" in caught.value.hint
    assert path.read_bytes() == before


def test_a_damaged_catalogue_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    path.write_bytes(b"not a database, at all" * 100)
    with pytest.raises(CatalogError, match="damaged") as caught:
        Catalog.open(path)
    assert "untouched" in caught.value.hint


def test_a_catalogue_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 7")
    with pytest.raises(CatalogError, match="not made by celforge"):
        Catalog.open(path)


def test_reading_only_makes_no_file(tmp_path: Path) -> None:
    with Catalog.open(tmp_path / "catalog.sqlite3", read_only=True) as empty:
        assert empty.media_id(CONTENT) is None
    assert list(tmp_path.iterdir()) == []


def test_an_older_schema_is_brought_up_to_date_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalog.sqlite3"
    with Catalog.open(path) as old:
        old.add_media(CONTENT, "image", 3)
    added = "CREATE TABLE extra (a INTEGER); INSERT INTO extra SELECT COUNT(*) FROM media;"
    monkeypatch.setattr("pipeline.catalog.MIGRATIONS", (*MIGRATIONS, added))
    for _ in range(2):
        with Catalog.open(path) as new:
            assert new.rows("SELECT a FROM extra").fetchall() == [(1,)]


def test_a_failed_migration_leaves_the_old_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalog.sqlite3"
    Catalog.open(path).close()
    with monkeypatch.context() as patch:
        broken = "CREATE TABLE extra (a INTEGER); INSERT INTO nowhere VALUES (1);"
        patch.setattr("pipeline.catalog.MIGRATIONS", (*MIGRATIONS, broken))
        with pytest.raises(CatalogError):
            Catalog.open(path)
    with Catalog.open(path) as old:
        assert old.rows("SELECT name FROM sqlite_master WHERE name = 'extra'").fetchall() == []


def test_a_transaction_is_all_or_nothing(catalog: Catalog) -> None:
    with pytest.raises(ZeroDivisionError), catalog.transaction():
        catalog.add_media(CONTENT, "image", 3)
        _ = 1 / 0
    assert catalog.media_id(CONTENT) is None


def test_nested_transactions_join_the_outermost(catalog: Catalog) -> None:
    with pytest.raises(ZeroDivisionError), catalog.transaction():
        with catalog.transaction():
            catalog.add_media(CONTENT, "image", 3)
        _ = 1 / 0
    assert catalog.media_id(CONTENT) is None


def test_a_full_disk_keeps_what_was_there(catalog: Catalog) -> None:
    media_id = catalog.add_media(CONTENT, "image", 3)
    catalog.rows(f"PRAGMA max_page_count = {catalog.rows('PRAGMA page_count').fetchone()[0] + 2}")
    run_id = catalog.start_run("hash", ".", {}, "0")
    step_id = catalog.step_id("hash", {})
    assert step_id is not None
    catalog.add_result(step_id, media_id, b"before", run_id)
    with pytest.raises(DiskFullError) as caught:
        catalog.add_result(step_id, media_id, b"x" * 1_000_000, run_id)
    assert "run the same command again" in caught.value.hint
    assert catalog.results(step_id, [media_id]) == {media_id: b"before"}


def test_results_of_other_settings_are_other_results(catalog: Catalog) -> None:
    media_id = catalog.add_media(CONTENT, "image", 3)
    run_id = catalog.start_run("hash", ".", {}, "0")
    small, large = catalog.step_id("hash", {"size": 32}), catalog.step_id("hash", {"size": 64})
    assert small is not None
    assert large is not None
    assert small == catalog.step_id("hash", {"size": 32})
    catalog.add_result(small, media_id, {"bits": [1, None, "é"]}, run_id)
    assert catalog.known_results(small) == {media_id}
    assert catalog.known_results(large) == set()
    assert catalog.results(small, [media_id, 99]) == {media_id: {"bits": [1, None, "é"]}}
    assert catalog.step_id("hash", {"size": 99}, create=False) is None


def test_a_persons_word_counts_over_every_machine_and_the_newest_machine_over_the_older(
    catalog: Catalog,
) -> None:
    media_id = catalog.add_media(CONTENT, "image", 3)
    runs = [catalog.start_run("identify", ".", {}, "0") for _ in range(2)]
    catalog.set_fact(media_id, "characters", ["b"], "by-tags", run_id=runs[1])
    catalog.set_fact(media_id, "characters", ["a"], "by-face", run_id=runs[0])
    assert catalog.fact(media_id, "characters") == ["b"]
    catalog.set_fact(media_id, "characters", ["mine"], "hand", by_hand=True, run_id=runs[0])
    catalog.set_fact(media_id, "characters", ["c"], "by-tags", run_id=runs[1])
    assert catalog.fact(media_id, "characters") == ["mine"]
    assert [fact.source for fact in catalog.facts(media_id, "characters")] == ["hand", "by-tags", "by-face"]
    catalog.clear_fact(media_id, "characters", "hand")
    assert catalog.fact(media_id, "characters") == ["c"]


def test_outcomes_and_facts_can_be_put_back_as_they_were(catalog: Catalog) -> None:
    media_id = catalog.add_media(CONTENT, "image", 3)
    run_id = catalog.start_run("dedupe", ".", {}, "0")
    catalog.set_outcome(media_id, "dedupe", "kept", run_id=run_id)
    before = catalog.read_outcome(CONTENT, "dedupe")
    catalog.set_outcome(media_id, "dedupe", "dropped", "same picture", "of a.png", run_id)
    catalog.write_outcome(CONTENT, "dedupe", before)
    assert catalog.read_outcome(CONTENT, "dedupe") == before
    catalog.write_outcome(CONTENT, "dedupe", None)
    assert catalog.read_outcome(CONTENT, "dedupe") is None

    catalog.set_fact(media_id, "tags", {"1girl": 0.5}, "wd", run_id=run_id)
    fact = catalog.read_fact(CONTENT, "tags", "wd")
    catalog.write_fact(CONTENT, "tags", "wd", None)
    assert catalog.read_fact(CONTENT, "tags", "wd") is None
    catalog.write_fact(CONTENT, "tags", "wd", fact)
    assert catalog.read_fact(CONTENT, "tags", "wd") == fact


def test_an_unknown_content_cannot_get_an_outcome(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match="no content"):
        catalog.write_outcome("cd" * 32, "dedupe", None)


def test_a_text_is_ours_only_for_the_picture_we_wrote_it_for(catalog: Catalog) -> None:
    catalog.note_written(CONTENT, "11" * 32)
    assert catalog.is_ours(CONTENT, "11" * 32)
    assert not catalog.is_ours(CONTENT, "22" * 32)
    assert not catalog.is_ours("cd" * 32, "11" * 32)


def test_below_takes_a_folder_and_what_is_deeper_and_no_namesake(catalog: Catalog) -> None:
    media_id = catalog.add_media(CONTENT, "image", 3)
    for folder in ("", "a", "a/b", "a b", "a%", "ab", "a0", "a-"):
        catalog.rows("INSERT INTO paths VALUES (?, 'x.png', ?, 3, 3, 0)", (folder, media_id))
    condition, parameters = below("a")
    found = catalog.rows(f"SELECT folder FROM paths WHERE {condition} ORDER BY folder", parameters)
    assert [row[0] for row in found] == ["a", "a/b"]
    condition, parameters = below(".")
    assert len(catalog.rows(f"SELECT 1 FROM paths WHERE {condition}", parameters).fetchall()) == 8


def test_two_processes_write_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    with Catalog.open(path) as first, Catalog.open(path) as second:
        first.add_media("aa" * 32, "image", 1)
        second.add_media("bb" * 32, "image", 1)
        assert first.media_id("bb" * 32) == second.media_id("bb" * 32)
