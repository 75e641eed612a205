"""What a stage did, for a person and for a machine; and how many failures are too many."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.catalog import Catalog, below
from pipeline.errors import ExitCode, SettingsError, TooManyFailuresError
from pipeline.made_folders import MadeFolders
from pipeline.project import Project

FEW_FAILURES = 10  # a share given by --max-failures never stops a run below this many


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that could not be worked on."""

    path: str
    reason: str  # short, the same for all of its kind
    detail: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of equal keys: the first for a person, all of them for `--json` where it has a key."""

    title: str
    rows: Sequence[Mapping[str, Any]]
    key: str = ""  # under which `--json` has the rows; left out of it when empty
    most_shown: int = 60  # rows that a person is shown


@dataclass(frozen=True, slots=True)
class Details:
    """What is too long to be read: for `--json` only."""

    values: Mapping[str, Any]


Part = Table | Details | str  # a line is for a person only


@dataclass(slots=True)
class Report:
    """What a stage did: the same for a person (text) and a machine (`--json`)."""

    stage: str
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # (outcome, reason) -> files
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # said in the log already
    values: dict[str, Any] = field(default_factory=dict)  # the stage's own results, in the order to show
    made: list[Path] = field(default_factory=list)  # what to open or to use next
    planned: list[dict[str, str]] | None = None  # --dry-run: the plan's rows
    parts: list[Part] = field(default_factory=list)  # what comes before the values, in this order
    found_errors: bool = False  # what was looked at is not as it should be

    @property
    def exit_code(self) -> ExitCode:
        """3 when items failed or errors were found, else 0."""
        return ExitCode.FAILED_ITEMS if self.failures or self.found_errors else ExitCode.DONE


def outcome_counts(
    catalog: Catalog, project: Project, folder: Path, stage: str | None = None
) -> Iterator[tuple[str, str, int]]:
    """(outcome, reason, number of files) for what lies below a folder, or lay there last; kept ones first."""
    top = project.relative(folder) if folder != project.root else ""
    condition, parameters = below(top)
    places = catalog.rows(f"SELECT DISTINCT folder FROM paths WHERE {condition}", parameters)
    made = MadeFolders(project.root, top)
    parameters |= {
        "stage": stage or "",
        "made": json.dumps([place for (place,) in places if made.holds(place)]),
    }
    sql = f"""SELECT outcome, reason, COUNT(*) FROM paths AS place JOIN outcomes USING (media_id)
              WHERE stage = :stage AND {condition}
              AND folder NOT IN (SELECT value FROM json_each(:made)) AND NOT (is_gone AND EXISTS (
                  SELECT 1 FROM paths WHERE paths.media_id = place.media_id AND NOT is_gone))
              GROUP BY outcome, reason
              ORDER BY outcome = 'failed', outcome = 'dropped', COUNT(*) DESC, reason"""
    yield from catalog.rows(sql, parameters)


@dataclass(slots=True)
class FailureLimit:
    """Counts failed items, and ends the run when there are more than allowed."""

    most: int
    text: str
    _seen: int = 0

    def count(self, failures: Sequence[Failure]) -> None:
        """Count one more failed item.

        Raises:
            TooManyFailuresError: it was one too many.
        """
        self._seen += 1
        if self._seen <= self.most:
            return
        commonest, _ = Counter(failure.reason for failure in failures).most_common(1)[0]
        hint = "see to them, or allow more: --max-failures 100%"
        raise TooManyFailuresError(
            f"failed items: {self._seen:,}, more than --max-failures {self.text}; most of them: {commonest}",
            hint=hint,
        )


def failure_limit(text: str, total: int) -> FailureLimit:
    """Read --max-failures: a number of items, or a share of `total`.

    Raises:
        SettingsError: neither.
    """
    with suppress(ValueError):
        if text.endswith("%") and 0 <= (share := float(text[:-1])) <= 100:
            return FailureLimit(max(FEW_FAILURES, int(total * share / 100)) if share else 0, text)
        if not text.endswith("%") and (most := int(text)) >= 0:
            return FailureLimit(most, text)
    raise SettingsError(f'max_failures must be a number or a share such as 10%, found "{text}"')
