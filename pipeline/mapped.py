"""Results of `Job.map`: written in small transactions as they come, read back while one goes through them."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from pipeline.catalog import Catalog, MediaFile

T = TypeVar("T")

RESULT_CHUNK = 500  # results read from the catalogue at a time
COMMIT_EVERY_S = 0.05


class Mapped(Iterable[tuple[MediaFile, T]]):
    """Results of `Job.map`, read from the catalogue while one goes through them, in the order of the
    files.
    """

    def __init__(self, catalog: Catalog, step_id: int, files: Sequence[MediaFile]) -> None:
        self.files = files  # those that have a result
        self._catalog = catalog
        self._step_id = step_id

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[tuple[MediaFile, T]]:
        for start in range(0, len(self.files), RESULT_CHUNK):
            chunk = self.files[start : start + RESULT_CHUNK]
            values = self._catalog.results(self._step_id, [file.id for file in chunk])
            for file in chunk:
                yield file, values[file.id]


class ResultWriter:
    """Writes the results of one step, those that come within COMMIT_EVERY_S in one transaction; all of them
    when it is left.

    A result that comes later than that after the one before is committed at once: work of some seconds an
    item loses to a kill what is in hand and nothing else. Of a thousand items a second it loses the last
    twice COMMIT_EVERY_S at most, as long as `flush` is called when for that time nothing came. That much work
    is lost for a tenth to a fifth of the processor time of a first ingest of tiny pictures
    (benchmarks/RESULTS.md), and it takes no longer than that to be done again.
    """

    def __init__(self, catalog: Catalog, step_id: int, run_id: int, stage: str) -> None:
        self._catalog = catalog
        self._step_id = step_id
        self._run_id = run_id
        self._stage = stage
        self._failed_before = _failed_ids(catalog, stage)
        self._waiting: list[tuple[MediaFile, Any]] = []
        self._flushed_at = 0.0  # of time.monotonic

    def __enter__(self) -> "ResultWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def add(self, file: MediaFile, result: Any) -> None:
        """Keep a result, in place of a failure that was noted earlier.

        Raises:
            DiskFullError: no room; what was committed before is whole.
        """
        self._waiting.append((file, result))
        if time.monotonic() - self._flushed_at >= COMMIT_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Commit what waits."""
        if self._waiting:
            with self._catalog.transaction():
                for file, result in self._waiting:
                    self._catalog.add_result(self._step_id, file.id, result, self._run_id)
                    if file.id in self._failed_before:
                        self._catalog.clear_outcome(file.id, self._stage)
            self._waiting.clear()
            self._flushed_at = time.monotonic()


def _failed_ids(catalog: Catalog, stage: str) -> set[int]:
    sql = "SELECT media_id FROM outcomes WHERE stage = ? AND outcome = 'failed'"
    return {row[0] for row in catalog.rows(sql, (stage,))}


def first_of_each(files: Sequence[MediaFile]) -> list[MediaFile]:
    """The files without those whose content comes earlier."""
    first = {file.id: file for file in reversed(files)}
    return [file for file in files if first[file.id] is file]
