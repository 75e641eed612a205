from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.catalog import Catalog
from pipeline.errors import InputError
from pipeline.exchange import Imported, export_lines, import_lines

A, B, NOBODY = "aa" * 32, "bb" * 32, "cc" * 32


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Catalog, Catalog]]:
    """A catalogue that knows something, and an empty one."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(Catalog.open(tmp_path / name)) for name in ("first", "second"))
        run_id = first.start_run("tag", "frames", {"tag": {"threshold": 0.35}}, "0.1.0")
        first.end_run(run_id, 0)
        step_id = first.step_id("tag.wd", {"model": "v3"})
        assert step_id is not None
        for content in (B, A):
            media_id = first.add_media(content, "image", 10)
            first.rows("INSERT INTO paths VALUES ('ep01', ?, ?, 10, 5, 0)", (f"{content[0]}.png", media_id))
            first.set_outcome(media_id, "dedupe", "dropped", "same picture", "of x.png", run_id)
            first.set_fact(media_id, "characters", ["猫 \u2028"], "hand", by_hand=True, run_id=run_id)
            first.set_fact(media_id, "tags", {"1girl": 0.5}, "wd", run_id=run_id)
            first.add_result(step_id, media_id, b"\x00\xff", run_id)
            first.note_written(content, "11" * 32)
        yield first, second


def test_out_and_in_gives_the_same_lines(pair: tuple[Catalog, Catalog]) -> None:
    first, second = pair
    lines = list(export_lines(first))
    imported = import_lines(second, lines, "backup.jsonl")
    assert imported == Imported(contents=2, facts=4, outcomes=2, results=2)
    paths_are_gone_until_seen = [line.replace('"is_gone":false', '"is_gone":true') for line in lines]
    assert list(export_lines(second)) == paths_are_gone_until_seen
    import_lines(second, lines, "backup.jsonl")
    assert list(export_lines(second)) == paths_are_gone_until_seen


def test_without_history_there_is_no_time_and_no_run(pair: tuple[Catalog, Catalog]) -> None:
    first, second = pair
    text = "\n".join(export_lines(first, with_history=False))
    assert '"run"' not in text
    assert "started_at" not in text
    import_lines(second, text.split("\n"), "backup.jsonl")
    media_id = second.media_id(A)
    assert media_id is not None
    assert second.fact(media_id, "characters") == ["猫 \u2028"]


def test_contents_are_sorted_whatever_the_order_they_came_in(pair: tuple[Catalog, Catalog]) -> None:
    lines = [line for line in export_lines(pair[0]) if line.startswith('{"media"')]
    assert A in lines[0]
    assert B in lines[1]


def test_a_persons_word_here_is_not_replaced(pair: tuple[Catalog, Catalog]) -> None:
    first, second = pair
    media_id = second.add_media(A, "image", 10)
    second.set_fact(media_id, "characters", ["mine"], "hand", by_hand=True)
    second.set_fact(media_id, "tags", {"old": 1.0}, "wd")
    imported = import_lines(second, export_lines(first), "backup.jsonl")
    assert imported.kept_by_hand == 1
    assert second.fact(media_id, "characters") == ["mine"]
    assert second.fact(media_id, "tags") == {"1girl": 0.5}


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "[]",
        '{"celforge_catalog":1,',
        '{"strange":{}}',
        '{"media":{"content":"zz"}}',
        '{"media":{"content":"aa","kind":"image","size_bytes":1,"paths":[],"outcomes":[],"facts":[],"written":[]}}',
        f'{{"result":{{"content":"{NOBODY}","step":"s","key":{{}},"value":1}}}}',
        f'{{"result":{{"content":"{A}","step":"s","key":{{}},"base64":"!"}}}}',
    ],
)
def test_a_broken_line_is_named_and_nothing_is_taken_in(pair: tuple[Catalog, Catalog], broken: str) -> None:
    first, second = pair
    lines = [*list(export_lines(first))[:4], broken]
    before = list(export_lines(second))
    with pytest.raises(InputError, match="line 5 is not a catalogue line") as caught:
        import_lines(second, lines, "backup.jsonl")
    assert "catalog export" in caught.value.hint
    assert list(export_lines(second)) == before


@pytest.mark.parametrize("lines", [[], ['{"celforge_catalog":99}'], ["hello"]])
def test_a_file_of_another_kind_is_refused(pair: tuple[Catalog, Catalog], lines: list[str]) -> None:
    with pytest.raises(InputError):
        import_lines(pair[1], lines, "notes.txt")
