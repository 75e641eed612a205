import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from crashing import KILLED, points, run_until_line

from pipeline.catalog import Catalog, MediaFile
from pipeline.errors import (
    DiskFullError,
    ExitCode,
    InterruptedRunError,
    JournalError,
    SettingsError,
    TooManyFailuresError,
)
from pipeline.exchange import export_lines
from pipeline.job import Job, JobSettings, open_job
from pipeline.journal import apply_plan, list_journals
from pipeline.mapped import ResultWriter
from pipeline.plan import Drop, Move, Place, Plan, SetOutcome
from pipeline.report import failure_limit
from tests.conftest import Celforge

MAP_KILLS, APPLY_KILLS = 40, 24
OLD_NS = 1_600_000_000_123_456_789


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve files that are taken for pictures, one of them twice."""
    made = tmp_path / "frames"
    for number in range(12):
        path = made / f"ep{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"picture {min(number, 10)}".encode())
        os.utime(path, ns=(OLD_NS, OLD_NS))
    return made


def measure(file: MediaFile) -> int:
    return len(file.path.read_bytes())


def refuse_odd(file: MediaFile) -> int:
    number = int(file.path.stem)
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


def known(folder: Path) -> list[str]:
    """All that the catalogue knows, without times."""
    with Catalog.open(folder / ".celforge" / "catalog.sqlite3", read_only=True) as catalog:
        return list(export_lines(catalog, with_history=False))


def map_all(
    folder: Path, function: Callable[[MediaFile], object] = measure, **settings: str
) -> list[tuple[str, object]]:
    with open_job(folder, "probe", job_settings=JobSettings(workers=2, **settings)) as job:  # type: ignore[arg-type]
        mapped = job.map(function, job.images(), step="probe.size", key={"version": 1})
        job.settle_all(mapped.files, "kept")
        return [(file.relative, value) for file, value in mapped]


def test_results_come_in_the_order_of_the_files_each_content_worked_on_once(folder: Path) -> None:
    seen: list[str] = []

    def counting(file: MediaFile) -> int:
        seen.append(file.content)
        return measure(file)

    results = map_all(folder, counting)
    assert [name for name, _ in results] == [
        *("ep0/0.png", "ep0/3.png", "ep0/6.png", "ep0/9.png"),
        *("ep1/1.png", "ep1/4.png", "ep1/7.png", "ep1/10.png"),
        *("ep2/2.png", "ep2/5.png", "ep2/8.png", "ep2/11.png"),
    ]
    assert dict(results)["ep1/10.png"] == dict(results)["ep2/11.png"] == 10
    assert len(seen) == 11


def test_a_result_is_safe_before_the_next_is_there(folder: Path) -> None:
    done: list[int] = []

    def waiting(file: MediaFile) -> int:
        deadline = time.monotonic() + 5
        while sum('"result"' in line for line in known(folder)) < len(done):
            assert time.monotonic() < deadline, "the results before this one were not committed"
            time.sleep(0.005)
        done.append(file.id)
        return file.id

    with open_job(folder, "probe", job_settings=JobSettings(workers=1)) as job:
        job.map(waiting, job.images()[:5], step="probe.wait", key={})
        assert not job.failures
    assert len(done) == 5


def test_results_of_one_moment_share_a_transaction_and_the_last_ones_are_not_held_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0, 100.01, 100.02, 100.04, 100.06, 100.07]
    monkeypatch.setattr("pipeline.mapped.time.monotonic", lambda: clock[0])

    def num_safe() -> int:
        return sum('"result"' in line for line in known(folder))

    with open_job(folder, "probe") as job:
        files, step_id = job.images()[:6], job.catalog.step_id("probe.size", {})
        assert step_id is not None
        with ResultWriter(job.catalog, step_id, job.run_id, "probe") as writer:
            seen = []
            for file in files:
                writer.add(file, 1)
                seen.append(num_safe())
                clock[:-1] = clock[1:]
        assert seen == [1, 1, 1, 1, 5, 5]
        assert num_safe() == 6


def test_what_is_known_is_not_worked_out_again_even_after_moves(folder: Path) -> None:
    before = dict(map_all(folder))
    (folder / "ep0").rename(folder / "moved")

    def never(file: MediaFile) -> int:
        raise AssertionError(file.relative)

    after = dict(map_all(folder, never))
    assert after["moved/3.png"] == before["ep0/3.png"]


def test_another_key_is_worked_out_anew(folder: Path) -> None:
    map_all(folder)
    with open_job(folder, "probe") as job:
        mapped = job.map(lambda file: "new", job.images(), step="probe.size", key={"version": 2})
        assert {value for _, value in mapped} == {"new"}


def test_work_made_stale_by_other_settings_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "celforge")
    map_all(folder)
    assert "worked on again" not in caplog.text
    with open_job(folder, "probe") as job:
        job.map(measure, job.images(), step="probe.size", key={"version": 2})
    assert (
        "probe.size: the settings are not those of the last time, so 11 images are worked on again"
        in caplog.text
    )


def test_a_dry_run_never_finishes_what_a_killed_run_left_open(folder: Path) -> None:
    map_all(folder)
    plan = Plan("arrange", [Move(Path("ep0"), Path("best")), Move(Path("ep1"), Path("rest"))])
    asked = iter([False, True])
    with pytest.raises(InterruptedRunError), open_job(folder, "arrange") as job:
        apply_plan(plan, folder, folder / ".celforge", job.catalog, should_stop=lambda: next(asked))
    half_done = snapshot(folder)
    with pytest.raises(JournalError, match="was cut off"), open_job(folder, "arrange", is_dry_run=True):
        pass
    assert snapshot(folder) == half_done
    with open_job(folder, "probe"):
        pass
    assert (folder / "rest" / "1.png").is_file()


def test_a_failing_item_is_noted_and_the_others_go_on(folder: Path) -> None:
    with open_job(folder, "probe") as job:
        mapped = job.map(refuse_odd, job.images(), step="probe.odd", key={})
        assert [value for _, value in mapped] == [0, 6, 4, 10, 2, 8, 10]
        report = job.report()
    assert report.exit_code is ExitCode.FAILED_ITEMS
    assert report.counts["failed", "ValueError"] == 5
    assert report.failures[0].detail == "3 is odd"


def test_a_failed_item_is_tried_again_and_its_failure_forgotten(folder: Path) -> None:
    map_all(folder, refuse_odd)
    assert any('"outcome":"failed"' in line for line in known(folder))
    assert len(map_all(folder, lambda file: 1)) == 12
    assert not any('"outcome":"failed"' in line for line in known(folder))


def test_more_failures_than_allowed_end_the_run_and_keep_what_succeeded(folder: Path) -> None:
    with pytest.raises(
        TooManyFailuresError, match=r"failed items: 3, more than --max-failures 2.*ValueError"
    ):
        map_all(folder, refuse_odd, max_failures="2")
    assert any('"result"' in line for line in known(folder))


@pytest.mark.parametrize(
    ("text", "total", "most"),
    [("0", 1000, 0), ("7", 1000, 7), ("10%", 1000, 100), ("10%", 20, 10), ("0%", 1000, 0), ("100%", 50, 50)],
)
def test_max_failures_is_a_number_or_a_share(text: str, total: int, most: int) -> None:
    assert failure_limit(text, total).most == most


@pytest.mark.parametrize("text", ["", "-1", "x", "101%", "-5%", "1.5", "%", "nan%"])
def test_max_failures_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="max_failures"):
        failure_limit(text, 10)


def test_a_full_disk_ends_the_run_as_one_error(folder: Path) -> None:
    def full(file: MediaFile) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError):
        map_all(folder, full)
    assert len(map_all(folder)) == 12


def test_a_signal_finishes_the_items_in_hand_and_the_next_run_goes_on(folder: Path) -> None:
    sent: list[int] = []

    def interrupting(file: MediaFile) -> int:
        if not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        return measure(file)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedRunError) as caught:
        map_all(folder, interrupting)
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGTERM) is before
    done = sum('"result"' in line for line in known(folder))
    assert 1 <= done < 11
    assert len(map_all(folder)) == 12


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_second_signal_ends_the_process_at_once(folder: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from pipeline.console import set_up_logging
from pipeline.job import open_job
set_up_logging(verbose=False, quiet=False)
def slow(file):
    print("started", flush=True)
    time.sleep(60)
with open_job(Path(sys.argv[1]), "probe") as job:
    job.map(slow, job.images(), step="probe.slow", key={})
"""
    command = [sys.executable, "-c", code, folder]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert any(b"once more" in line for line in child.stderr)
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 130
    finally:
        child.kill()
        child.communicate()


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_killed_at_any_line_of_a_map_the_next_run_ends_as_if_nothing_happened(folder: Path) -> None:
    modules = {"job.py", "mapped.py", "catalog.py", "scan.py", "workers.py", "project.py"}
    whole = folder.with_name("whole") / "frames"
    shutil.copytree(folder, whole)
    code, total = run_until_line(lambda: map_all(whole), modules, None)
    assert (code, total > 1000) == (0, True)
    expected = known(whole)
    killed = 0
    for line in points(total, MAP_KILLS, seed=1):
        copy = folder.with_name(f"at {line}") / "frames"
        shutil.copytree(folder, copy)
        code, _ = run_until_line(lambda copy=copy: map_all(copy), modules, line)
        killed += code == KILLED
        map_all(copy)
        assert known(copy) == expected, f"killed at line {line}"
        shutil.rmtree(copy.parent)
    assert killed >= 32


def tidy_up(folder: Path) -> None:
    """A stage that moves a folder, drops pictures and notes why."""
    with open_job(folder, "dedupe", job_settings=JobSettings(workers=1)) as job:
        files = [file for file in job.images() if file.path.stem in ("1", "4", "8")]
        moves = [Move(Path("ep0"), Path("best"))] if (folder / "ep0").exists() else []
        drops = [Drop(Path(file.relative), "same picture") for file in files]
        notes = [SetOutcome(file.content, "dedupe", "dropped", "same picture", "") for file in files]
        job.apply(Plan("dedupe", [*moves, *drops, *notes]))


APPLYING = {
    "job.py",
    "journal.py",
    "steps.py",
    "moved_paths.py",
    "records.py",
    "relocate.py",
    "files.py",
    "renaming.py",
    "catalog.py",
}


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_killed_at_any_line_of_an_apply_the_same_command_finishes_it_or_undo_takes_it_back(
    folder: Path, celforge: Celforge
) -> None:
    map_all(folder)
    start = snapshot(folder)
    whole = folder.with_name("whole") / "frames"
    shutil.copytree(folder, whole)
    _, total = run_until_line(lambda: tidy_up(whole), APPLYING, None)
    finished, after = snapshot(whole), known(whole)
    assert finished != start
    killed = 0
    for line in points(total, APPLY_KILLS, seed=2):
        again, undone = (folder.with_name(f"{line} {name}") / "frames" for name in ("again", "undone"))
        shutil.copytree(folder, again)
        code, _ = run_until_line(lambda again=again: tidy_up(again), APPLYING, line)
        killed += code == KILLED
        shutil.copytree(again, undone, symlinks=True)
        tidy_up(again)
        assert (snapshot(again), known(again)) == (finished, after), f"killed at line {line}, run again"
        if list_journals(undone / ".celforge"):
            assert celforge("undo", undone).exit_code == 0
        assert snapshot(undone) == start, f"killed at line {line}, taken back"
        shutil.rmtree(again.parent)
        shutil.rmtree(undone.parent)
    assert killed >= 20


def test_undo_puts_back_files_and_what_was_known(folder: Path, celforge: Celforge) -> None:
    map_all(folder)
    start, before = snapshot(folder), known(folder)
    tidy_up(folder)
    assert known(folder) != before
    assert celforge("undo", folder).exit_code == 0
    map_all(folder)
    assert (snapshot(folder), known(folder)) == (start, before)
    answer = celforge("undo", folder)
    assert answer.exit_code == 2
    assert "nothing to take back" in answer.stderr


def test_moved_and_linked_files_are_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    map_all(folder)
    link = Place(Path("ep1/7.png"), Path("chosen/7.png"), "hardlink")
    with open_job(folder, "arrange") as job:
        job.apply(Plan("arrange", [Move(Path("ep0"), Path("best")), link]))
    monkeypatch.setattr("pipeline.scan.hash_file", lambda path: pytest.fail(f"{path} was read again"))
    with open_job(folder, "probe") as job:
        names = [file.relative for file in job.images()]
    assert "best/3.png" in names
    assert "chosen/7.png" in names
    assert "ep0/3.png" not in names


def test_a_dry_run_shows_the_plan_and_touches_nothing(folder: Path) -> None:
    map_all(folder)
    start, before = snapshot(folder), known(folder)
    with open_job(folder, "arrange", is_dry_run=True) as job:
        report = job.apply(Plan("arrange", [Move(Path("ep0"), Path("best"), "tidy")]))
    assert report.planned is not None
    assert [(row["source"], row["destination"], row["reason"]) for row in report.planned] == [
        ("ep0", "best", "tidy")
    ]
    assert (snapshot(folder), known(folder)) == (start, before)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file outside .celforge, and the dropped ones, by path and bytes; folders as None."""
    dropped = folder / ".celforge" / "dropped"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if ".celforge" not in path.parts or dropped in path.parents
    }


def test_a_run_is_noted_with_its_settings_and_its_end(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_job(folder, "probe"):
        _ = 1 / 0
    map_all(folder)
    with Catalog.open(folder / ".celforge" / "catalog.sqlite3", read_only=True) as catalog:
        rows = catalog.rows("SELECT stage, exit_code, settings FROM runs ORDER BY id").fetchall()
    assert [row[:2] for row in rows] == [("probe", 1), ("probe", 0)]
    assert '"workers":2' in rows[1][2]


def test_images_below_the_given_folder_only(folder: Path) -> None:
    map_all(folder)
    with open_job(folder / "ep1", "probe") as job:
        assert [file.relative for file in job.images()] == [f"ep1/{n}.png" for n in (1, 4, 7, 10)]
        assert job.root == folder
        assert isinstance(job, Job)


def test_map_lets_a_long_item_advance_a_bar_of_its_own_and_break_off_when_asked(folder: Path) -> None:
    class Bar:
        steps = 0

        def advance(self, count: int = 1) -> None:
            self.steps += count

    bar = Bar()
    with open_job(folder, "probe", job_settings=JobSettings(workers=1)) as job:

        def slow(file: MediaFile) -> int:
            bar.advance(5)
            if file.path.stem == "3":
                job._interruption.is_asked = True
            job.check_stop()
            return 1

        with pytest.raises(InterruptedRunError):
            job.map(slow, job.images(), step="probe.slow", key={}, bar=bar)
        assert not job.failures, "an item that was broken off did not fail"
        job._interruption.is_asked = False
        assert bar.steps % 5 == 0 and bar.steps > 0
