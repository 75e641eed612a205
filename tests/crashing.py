"""Run code in a child process that is killed, as by `kill -9`, when it comes to its n-th line in the
code under test.
"""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

from pipeline.records import Log

KILLED = -signal.SIGKILL if os.name != "nt" else 1


def run_until_line(work: Callable[[], object], modules: Collection[str], line: int | None) -> tuple[int, int]:
    """Fork; in the child, run `work` and count executed lines of some modules; SIGKILL the child at one of
    them.

    Args:
        modules: names of files in which lines count, such as `job.py`.
        line: which line kills, from 1; None for none.

    Returns: (exit code of the child, lines counted; 0 when it was killed).
    """
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # 3.12 warns of fork beside threads; none holds a lock here
        child = os.fork()
    if child == 0:
        os.close(read_end)
        _run_child(work, modules, line, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        counted = int(pipe.read() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), counted


def _run_child(
    work: Callable[[], object], modules: Collection[str], line: int | None, write_end: int
) -> None:
    count = 0
    counts: dict[str, bool] = {}  # of a file's path: every call of anything comes by here

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if event == "call":
            path = frame.f_code.co_filename
            if path not in counts:
                counts[path] = os.path.basename(path) in modules
            return trace if counts[path] else None
        if event == "line":
            count += 1
            if count == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        threading.settrace(trace)
        sys.settrace(trace)
        work()
        sys.settrace(None)
        os.write(write_end, str(count).encode())
        code = 0
    finally:
        os._exit(code)


def dying_at(number: int, call: Callable[..., object], *, after: bool) -> Callable[..., None]:
    """A function in whose n-th call the process is killed, before or after what it does."""
    count = 0

    def counted(*arguments: object) -> None:
        nonlocal count
        count += 1
        if count == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        call(*arguments)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return counted


def at_note(number: int, *, after: bool) -> Callable[[Callable[[], object]], int]:
    """Run something in a child that is killed at its n-th note in the log; gives the exit code."""

    def run(work: Callable[[], object]) -> int:
        noted = dying_at(number, Log.append, after=after)

        def patched() -> None:
            Log.append = noted  # type: ignore[method-assign]
            work()

        return run_until_line(patched, (), None)[0]

    return run


def points(total: int, wanted: int, seed: int) -> list[int]:
    """`wanted` lines of `total`, one drawn from each of as many equal stretches."""
    import random

    rng = random.Random(seed)
    width = total / wanted
    return [min(total, 1 + int(width * (part + rng.random()))) for part in range(wanted)]
