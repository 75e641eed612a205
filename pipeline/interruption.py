"""SIGINT and SIGTERM: the first asks to finish the item in hand, the second ends the process at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.console import LOG
from pipeline.errors import ExitCode, InterruptedRunError


class Interruption:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.is_asked = False

    def check(self) -> None:
        """Stop here if asked.

        Raises:
            InterruptedRunError: asked; everything done so far is saved.
        """
        if self.is_asked:
            raise InterruptedRunError(
                "interrupted; what is done is saved", hint="run the same command again to go on"
            )

    def _ask(self, _signal: int, _frame: FrameType | None) -> None:
        if self.is_asked:
            os._exit(ExitCode.INTERRUPTED)  # every file and record is safe against this, as against kill -9
        self.is_asked = True
        LOG.warning("finishing what is in hand; once more to stop at once")


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Catch both signals while a command works; other threads than the main one get an idle Interruption."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before: list[tuple[int, Callable[[int, FrameType | None], object] | int | None]] = []
    for caught in (signal.SIGINT, signal.SIGTERM):
        before.append((caught, signal.signal(caught, interruption._ask)))
    try:
        yield interruption
    finally:
        for number, handler in before:
            signal.signal(number, handler)
