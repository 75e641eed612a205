import errno
import os
import signal
import threading
import time

import pytest

from pipeline.errors import DiskFullError
from pipeline.workers import Failed, describe, run_in_workers


def halve(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def kill_worker_at_seven(number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("processes", [False, True])
def test_a_failing_item_never_ends_the_others(processes: bool) -> None:
    results = dict(run_in_workers(halve, range(6), 2, processes=processes))
    assert {item: result for item, result in results.items() if item % 2 == 0} == {0: 0, 2: 1, 4: 2}
    assert results[3] == Failed("ValueError", "3 is odd")


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_an_item_that_kills_its_worker_fails_alone() -> None:
    results = dict(run_in_workers(kill_worker_at_seven, range(12), 2, processes=True))
    assert sorted(results) == list(range(12))
    dead = results.pop(7)
    assert isinstance(dead, Failed)
    assert dead.reason == "worker died"
    assert all(results[item] == item for item in results)


def test_only_a_few_items_are_handed_out_ahead() -> None:
    taken: list[int] = []

    def slow(number: int) -> int:
        taken.append(number)
        time.sleep(0.001)
        return number

    for _ in run_in_workers(slow, range(1000), 2):
        break
    assert len(taken) < 20


def test_asked_to_stop_finishes_what_is_in_hand_and_starts_nothing_new() -> None:
    started = threading.Event()
    asked: list[bool] = []

    def work(number: int) -> int:
        started.set()
        time.sleep(0.02)
        return number

    done = []
    for item, _ in run_in_workers(work, range(100), 2, should_stop=lambda: bool(asked)):
        done.append(item)
        asked.append(True)
    assert 1 <= len(done) <= 8


def test_workers_run_side_by_side() -> None:
    barrier = threading.Barrier(3, timeout=10)
    results = dict(run_in_workers(lambda _: barrier.wait() >= 0, range(3), 3))
    assert all(result is True for result in results.values())


def test_an_error_is_described_by_a_countable_reason() -> None:
    assert describe(FileNotFoundError(errno.ENOENT, "No such file or directory", "a.png")).reason == (
        "no such file or directory"
    )
    assert describe(OSError(errno.ENOSPC, "No space left on device")).is_disk_full
    assert describe(DiskFullError("full")).is_disk_full
    assert describe(KeyError("x")).reason == "KeyError"
