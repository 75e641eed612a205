"""Run one function over many items in threads or processes, a bounded number at a time; a failing item never
ends the others.
"""

import errno
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from pipeline.errors import DiskFullError

Item = TypeVar("Item")
T = TypeVar("T")

AHEAD = 3  # items handed out for each worker, so that none waits for the main thread


@dataclass(frozen=True, slots=True)
class Failed:
    """Why an item has no result."""

    reason: str  # short, the same for all of its kind
    detail: str
    is_disk_full: bool = False


def run_in_workers(
    function: Callable[[Item], T],
    items: Sequence[Item],
    workers: int,
    *,
    processes: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    ahead_items: int = 0,
    on_quiet: Callable[[], None] = lambda: None,
    quiet_s: float | None = None,
) -> Iterator[tuple[Item, T | Failed]]:
    """Yield (item, result or Failed) as they are done, in any order.

    Args:
        ahead_items: hand out at least so many items before their results are asked for.
        on_quiet: called, in the caller's thread, when an item is waited for and none was done for `quiet_s`
            seconds.
        should_stop: asked before an item is handed out; the items in hand are finished and yielded.
        processes: a worker that dies (out of memory, crash in a decoder) fails only the item that kills it.
    """
    remaining = iter(items)
    most = max(workers * AHEAD, ahead_items)

    def wait_for(in_hand: Collection[Future[T | Failed]]) -> Collection[Future[T | Failed]]:
        done = wait(in_hand, timeout=quiet_s, return_when=FIRST_COMPLETED).done
        if not done:
            on_quiet()
            done = wait(in_hand, return_when=FIRST_COMPLETED).done
        return done

    while True:
        lost: list[Item] = []
        yield from _run(function, remaining, workers, most, processes, should_stop, wait_for, lost)
        if not lost:
            return
        # Which item killed its worker is not known: each gets a process of its own, the others go on after.
        for item in lost:
            if should_stop():
                return
            alone: list[Item] = []
            yield from _run(function, iter([item]), 1, 1, processes, should_stop, wait_for, alone)
            for dead in alone:
                detail = "its worker process died: out of memory, or a crash in a decoder; try --workers 1"
                yield dead, Failed("worker died", detail)


def _run(
    function: Callable[[Item], T],
    items: Iterator[Item],
    workers: int,
    most_in_hand: int,
    processes: bool,
    should_stop: Callable[[], bool],
    wait_for: Callable[[Collection[Future[T | Failed]]], Collection[Future[T | Failed]]],
    lost: list[Item],
) -> Iterator[tuple[Item, T | Failed]]:
    with _executor(workers, processes) as pool:
        in_hand: dict[Future[T | Failed], Item] = {}
        while True:
            if not should_stop() and not lost:
                for item in islice(items, most_in_hand - len(in_hand)):
                    try:
                        in_hand[pool.submit(_isolated, function, item)] = item
                    except BrokenExecutor:
                        lost.append(item)
                        break
            elif not lost:
                for future in [future for future in in_hand if future.cancel()]:
                    del in_hand[future]
            if not in_hand:
                return
            for future in wait_for(in_hand):
                item = in_hand.pop(future)
                try:
                    result = future.result()
                except BrokenExecutor:
                    lost.append(item)
                else:
                    yield item, result


def _executor(workers: int, processes: bool) -> Executor:
    if not processes:
        return ThreadPoolExecutor(workers)
    import multiprocessing  # slow to import, and every stage's --help comes through here
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")  # fork copies locks whose threads the child lacks
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides


def _isolated(function: Callable[[Item], T], item: Item) -> T | Failed:
    """The one place where any error of an item becomes a record instead of ending the run."""
    try:
        return function(item)
    except Exception as error:
        return describe(error)


def describe(error: Exception) -> Failed:
    """The reason and the detail that a person is shown for an error of one item."""
    is_disk_full = isinstance(error, DiskFullError) or getattr(error, "errno", None) in (
        errno.ENOSPC,
        errno.EDQUOT,
    )
    if isinstance(error, OSError) and error.strerror:
        return Failed(error.strerror.lower(), str(error), is_disk_full)
    reason = getattr(error, "reason", None) or type(error).__name__
    return Failed(str(reason), str(error) or type(error).__name__, is_disk_full)
