"""A plan: what a stage wants done, as data, checked as a whole before anything is touched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.actions import (
    Action,
    CatalogWriter,
    Drop,
    MakeFolder,
    Move,
    MoveFiles,
    MoveFolders,
    Place,
    PlaceFolder,
    Relink,
    RemoveFolder,
    RowAction,
    SetFact,
    SetOutcome,
    Write,
    action_rows,
)
from pipeline.errors import PlanError
from pipeline.preparing import Preparer
from pipeline.steps import RowStep, Step

__all__ = [
    "Action",
    "CatalogWriter",
    "Drop",
    "MakeFolder",
    "Move",
    "MoveFiles",
    "MoveFolders",
    "Place",
    "PlaceFolder",
    "Plan",
    "Relink",
    "RemoveFolder",
    "SetFact",
    "SetOutcome",
    "Write",
    "prepare",
]

SHOWN_PROBLEMS = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions of one stage, carried out in this order, all or none."""

    stage: str
    actions: Sequence[Action]

    def rows(self) -> Iterator[dict[str, str]]:
        """The table that --dry-run prints: action, source, destination, reason."""
        return (row for action in self.actions for row in action_rows(action))

    def problems(self, root: Path) -> list[str]:
        """All that stands against the plan, as the disk is now; empty when it can be carried out."""
        return prepare(self, root, root / ".celforge").problems

    def check(self, root: Path) -> None:
        """Look at everything the plan touches.

        Raises:
            PlanError: it cannot be carried out as it stands; nothing was touched.
        """
        raise_problems(self.stage, self.problems(root))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked plan: its steps, in order, and what stands against it."""

    steps: list[Step]
    rows: list[RowStep]
    problems: list[str]


def prepare(
    plan: Plan,
    root: Path,
    state_folder: Path,
    catalog: CatalogWriter | None = None,
    *,
    run: str = "0",
    run_id: int | None = None,
) -> Prepared:
    """Check a plan against the disk and turn it into steps, folders that must be made included.

    Args:
        catalog: gives the rows as they are now; not asked when left out.
        run: names the folders of what is dropped and of what is overwritten.
        run_id: written into every row of the catalogue.
    """
    preparer = Preparer(root, state_folder, run)
    for action in plan.actions:
        preparer.add(action)
    own = {} if run_id is None else {"run_id": run_id}
    rows = [_row(action, catalog, own) for action in plan.actions if isinstance(action, RowAction)]
    return Prepared(preparer.steps, rows, preparer.problems)


def raise_problems(stage: str, problems: Sequence[str]) -> None:
    """Report all problems of a plan together.

    Raises:
        PlanError: there are some.
    """
    if not problems:
        return
    shown = [*problems[:SHOWN_PROBLEMS]]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown):,} more")
    raise PlanError(
        f"{stage} cannot go on, and has touched nothing; problems: {len(problems):,}\n  " + "\n  ".join(shown)
    )


def _row(action: RowAction, catalog: CatalogWriter | None, own: dict[str, Any]) -> RowStep:
    if isinstance(action, SetOutcome):
        before = catalog.read_outcome(action.content, action.stage) if catalog else None
        after = {"outcome": action.outcome, "reason": action.reason, "detail": action.detail}
        return RowStep("outcome", (action.content, action.stage), before, after | own)
    key = (action.content, action.name, action.source)
    before = catalog.read_fact(*key) if catalog else None
    said = isinstance(action, SetFact) and {"value": action.value, "by_hand": action.by_hand, **own}
    return RowStep("fact", key, before, said or None)
