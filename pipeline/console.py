"""The terminal: progress bars and log lines on stderr, tables and results on stdout. Nothing else in the
project prints.

rich draws; it is loaded when something is drawn, so that `--help` does not pay for it.
"""

import io
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LOG = logging.getLogger("celforge")
LINE_WITHOUT_TERMINAL = 200  # characters of a table that goes to a file or a pipe
LOG_LINE_EVERY_S = 30.0  # progress without a terminal: one line in a log file this often


class Counter(Protocol):
    """What a piece of work says of its progress."""

    def advance(self, count: int = 1) -> None:
        """So many items more are done."""

    def say(self, text: str) -> None:
        """What shall stand beside the count: a loss, a rate."""


@contextmanager
def progress(title: str, total: int | None, unit: str) -> Iterator[Counter]:
    """A bar with rate and time left on a terminal; else a log line now and then.

    Args:
        total: how many items there are, or None when nobody knows.
        unit: one item in the singular: "image", "frame".
    """
    if not sys.stderr.isatty() or _is_quiet():
        yield _LogCounter(title, total, unit)
        return
    bar = _bar(unit)
    with bar:
        yield _BarCounter(bar, bar.add_task(title, total=total), title)


def _bar(unit: str) -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.3g} {unit}s/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(file=sys.stderr), speed_estimate_period=30)


class _BarCounter:
    def __init__(self, bar: "Progress", task: "TaskID", title: str) -> None:
        self._bar = bar
        self._task = task
        self._title = title

    def advance(self, count: int = 1) -> None:
        self._bar.advance(self._task, count)

    def say(self, text: str) -> None:
        self._bar.update(self._task, description=f"{self._title}  {text}")


class _LogCounter:
    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done = 0
        self._text = ""
        self._started = self._said_at = time.monotonic()

    def say(self, text: str) -> None:
        self._text = f"; {text}"

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._said_at < LOG_LINE_EVERY_S:
            return
        self._said_at = now
        rate = self._done / (now - self._started)
        of = "" if self._total is None else f" of {self._total:,}"
        left = "" if self._total is None else f", {_time_left((self._total - self._done) / rate)} left"
        done = f"{self._done:,}"
        LOG.info("%s: %s%s %ss, %.3g/s%s%s", self._title, done, of, self._unit, rate, left, self._text)


def _time_left(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def set_up_logging(*, verbose: bool, quiet: bool) -> None:
    """Send the project's log to stderr: warnings always, steps unless `quiet`, details when `verbose`.

    The log files of runs have all of it.
    """
    LOG.setLevel(logging.DEBUG)
    LOG.handlers[:] = [handler for handler in LOG.handlers if isinstance(handler, logging.FileHandler)]
    LOG.addHandler(_StderrHandler(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO))
    LOG.propagate = False
    logging.raiseExceptions = False  # a log file on a full disk must not bury the message about it


def _is_quiet() -> bool:
    return any(isinstance(one, _StderrHandler) and one.level > logging.INFO for one in LOG.handlers)


class _StderrHandler(logging.Handler):
    """Plain lines, so that they can be copied into a report; the level is named from warnings on."""

    def emit(self, record: logging.LogRecord) -> None:
        mark = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        sys.stderr.write(printable(f"{mark}{record.getMessage()}\n"))
        sys.stderr.flush()


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Keep a copy of the log in a file while a command runs."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        handler.close()


def write(text: str = "") -> None:
    """One line of result on stdout."""
    sys.stdout.write(printable(text) + "\n")


def write_json(value: object) -> None:
    """A result for machines: JSON on stdout."""
    write(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(rows: Sequence[Mapping[str, Any]], *, title: str = "") -> None:
    """Rows of equal keys as an aligned table on stdout; numbers stand right."""
    if not rows:
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_utf8 = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    lines_of = box.SIMPLE_HEAD if is_utf8 else box.ASCII
    drawn = Table(box=lines_of, pad_edge=False)
    for name in rows[0]:
        is_number = all(isinstance(row[name], (int, float)) for row in rows)
        drawn.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(printable(_cell(value))) for value in row.values()))
    is_terminal = sys.stdout.isatty()
    lines = Console(file=io.StringIO(), width=None if is_terminal else LINE_WITHOUT_TERMINAL)
    lines.print(drawn)
    assert isinstance(lines.file, io.StringIO)
    if title:
        sys.stdout.write(title + "\n")  # by itself, so that a narrow table does not break it
    for line in lines.file.getvalue().splitlines():
        if line.strip():
            sys.stdout.write(line.rstrip() + "\n")


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def printable(text: str) -> str:
    """`text` with control characters and undecodable file names escaped: a name cannot drive the terminal."""
    safe = "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)
    return safe.encode("utf-8", "backslashreplace").decode()
