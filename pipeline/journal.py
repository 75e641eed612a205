"""Carry a plan out so that it can be finished after a kill, and taken back.

The journal is on the disk before the first file is touched; then one step follows the other, each noted in
the log once it is done. After a kill only the first step without a note is in doubt, and the disk tells
whether it was done. After a power cut the disk may know of more steps than the log: they are told apart the
same way, since the log is synced before a step touches a path that an earlier one touched (`Touched`).
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.actions import CatalogWriter, RowAction
from pipeline.errors import InputError, InterruptedRunError, JournalError
from pipeline.files import disk_full_as_error, is_disk_full, remove_partials, safe_name
from pipeline.folder_steps import MoveFilesStep, MoveFoldersStep, RelinkStep
from pipeline.plan import SHOWN_PROBLEMS, Plan, prepare, raise_problems
from pipeline.records import Journal, Log, Steps, list_journals, next_number, write_journal
from pipeline.renaming import sync_folder
from pipeline.steps import (
    Made,
    MakeFolderStep,
    MoveStep,
    RemoveFolderStep,
    RowStep,
    Site,
    Step,
    StepError,
)
from pipeline.touched import Touched
from pipeline.tree import FutureTree
from pipeline.trial_links import link_problems

__all__ = ["Journal", "apply_plan", "list_journals", "recover", "undo_last"]

FEW = 64  # syncs, up to which files and folders are synced by themselves; above, all disks at once
OnStep = Callable[[], object]
ShouldStop = Callable[[], bool]


def apply_plan(
    plan: Plan,
    root: Path,
    state_folder: Path,
    catalog: CatalogWriter | None = None,
    *,
    run_id: int | None = None,
    on_step: OnStep = lambda: None,
    should_stop: ShouldStop = lambda: False,
) -> Journal | None:
    """Check a plan, write its journal, carry it out.

    Args:
        run_id: noted in the rows of the catalogue that change.
        on_step: called once for each action of the plan.
        should_stop: asked between two steps.

    Returns: the journal; None when the plan asks for nothing that is not so already.

    Raises:
        PlanError: it cannot be carried out as it stands; nothing was touched.
        InterruptedRunError, DiskFullError: `recover` finishes the journal, `undo_last` takes it back.
        JournalError: files changed meanwhile, or an earlier journal is open.
    """
    for journal in list_journals(state_folder):
        if journal.is_open:
            raise JournalError(f"{journal.name} was cut off", hint=_BOTH_WAYS)
    with disk_full_as_error(state_folder, plan.stage):
        for name in ("journals", "dropped"):
            (state_folder / name).mkdir(parents=True, exist_ok=True)
    number = next_number(state_folder)
    name = f"{number:06d}-{safe_name(plan.stage, max_bytes=100)}"
    prepared = prepare(plan, root, state_folder, catalog, run=name, run_id=run_id)
    raise_problems(plan.stage, prepared.problems)
    raise_problems(plan.stage, link_problems(prepared.steps, root, state_folder / "journals"))
    if not prepared.steps and not prepared.rows:
        return None
    if prepared.rows and catalog is None:
        raise ValueError("a plan that changes the catalogue needs one")
    journal = write_journal(state_folder, name, number, plan.stage, prepared.steps, prepared.rows)
    for _ in range(_num_needless(plan, prepared.steps)):
        on_step()
    return _Run(journal, root, state_folder, catalog, on_step, should_stop).forward(
        prepared.steps, prepared.rows
    )


def recover(
    root: Path,
    state_folder: Path,
    catalog: CatalogWriter | None = None,
    *,
    on_step: OnStep = lambda: None,
    should_stop: ShouldStop = lambda: False,
) -> list[Journal]:
    """Finish what a killed run left open: a run is carried on to its end, an undo too.

    Returns: the journals that were finished.

    Raises:
        JournalError: it cannot be carried on, because files changed since.
    """
    remove_partials(state_folder / "journals")
    finished = []
    for journal in list_journals(state_folder):
        run = _Run(journal, root, state_folder, catalog, on_step, should_stop)
        if journal.status == "open":
            steps = Steps(journal)
            finished.append(run.forward(steps, steps.rows(), is_resumed=True))
        elif journal.status == "undoing":
            finished.append(run.backward(force=False))
    return finished


def undo_last(
    root: Path,
    state_folder: Path,
    catalog: CatalogWriter | None = None,
    *,
    force: bool = False,
    on_step: OnStep = lambda: None,
    should_stop: ShouldStop = lambda: False,
) -> Journal:
    """Take back the last run that was not, also one that was cut off; do not call `recover` before.

    Args:
        force: go on where files changed since; those are kept below `.celforge/dropped/undo-<number>/`.

    Returns: the journal; its notes say what was left or kept.

    Raises:
        InputError: there is nothing to take back.
        JournalError: files changed since; nothing was touched.
    """
    remove_partials(state_folder / "journals")
    for journal in reversed(list_journals(state_folder)):
        if not journal.is_undone:
            return _Run(journal, root, state_folder, catalog, on_step, should_stop).backward(force=force)
    raise InputError(f"there is nothing to take back in {root}")


_BOTH_WAYS = "run the same command again to finish it, or take it back: celforge undo"


class _Run:
    """One journal being carried out or taken back."""

    def __init__(
        self,
        journal: Journal,
        root: Path,
        state_folder: Path,
        catalog: CatalogWriter | None,
        on_step: OnStep,
        should_stop: ShouldStop,
    ) -> None:
        self._journal = journal
        self._catalog = catalog
        self._on_step = on_step
        self._should_stop = should_stop
        self._kept_folder = state_folder / "undo" / journal.name
        aside = state_folder / "dropped" / f"undo-{journal.number:06d}"
        self._site = Site(Path(os.path.realpath(root)), aside)
        self._changed_folders: set[str] | None = None  # None: too many to sync each by itself

    # Forward

    def forward(
        self, steps: Sequence[Step] | Steps, rows: Sequence[RowStep], *, is_resumed: bool = False
    ) -> Journal:
        """Do every step that is not done, then the rows, then note the end."""
        with disk_full_as_error(self._site.root, self._journal.name), Log(self._journal) as log:
            log.sync()
            sync_folder(self._journal.path.parent)
            self._choose_sync(steps)
            self._do_steps(steps, log, is_resumed=is_resumed)
            self._sync_all()
            self._write_rows(rows, log)
            log.mark("end")
        return replace(self._journal, status="applied")

    def _do_steps(self, steps: Sequence[Step] | Steps, log: Log, *, is_resumed: bool) -> None:
        touched = Touched()
        in_doubt = is_resumed
        for index, step in enumerate(steps):
            if index in log.done:
                self._count(step)
                continue
            self._stop_if_asked()
            if touched.meets(step):
                log.sync()
            with self._errors_told(index, "stopped", f"put that right, then {_BOTH_WAYS}"):
                state = step.state(self._site) if is_resumed else "before"
                if in_doubt and state != "changed":
                    step.clean(self._site)
                    in_doubt = state != "before"
                made = _do(step, state, self._site)
            log.append({"done": index, **made})
            self._count(step)

    def _write_rows(self, rows: Sequence[RowStep], log: Log) -> None:
        if rows and "catalog" not in log.marks:
            assert self._catalog is not None, "a journal that changes the catalogue needs one"
            with self._catalog.transaction():
                for row in rows:
                    _write_row(self._catalog, row, row.after)
            log.append({"catalog": True})
        for _ in rows:
            self._on_step()

    # Backward

    def backward(self, *, force: bool) -> Journal:
        """Take back every step that is done, newest first, after looking whether that is possible."""
        steps = Steps(self._journal)
        with disk_full_as_error(self._site.root, self._journal.name), Log(self._journal) as log:
            self._site.force = force or bool(log.marks.get("force"))
            self._choose_sync(steps)
            if "end" not in log.marks and "undoing" not in log.marks:
                self._settle_forward(steps, log)
            if "undoing" in log.marks:
                self._settle_backward(steps, log)
            self._refuse_if_changed(steps, log)
            log.mark("undoing", force=self._site.force)
            self._restore_rows(steps.rows(), log)
            self._undo_steps(steps, log)
            self._sync_all()
            with suppress(OSError):  # what could not be put back stays
                self._kept_folder.rmdir()
            log.mark("undone_all")
        return replace(self._journal, status="undone", notes=tuple(self._site.notes))

    def _settle_forward(self, steps: Steps, log: Log) -> None:
        """Find out which steps of a cut-off run were done without a note."""
        for index, step in enumerate(steps):
            if index in log.done:
                continue
            with self._errors_told(index, "cannot be taken back", _FORCE):
                state = step.state(self._site)
                if state == "changed":
                    self._site.tell_or_fail(f"{_names(step, self._site)}: cannot tell whether this was done")
                    break
                step.clean(self._site)
                if state == "before":
                    break
                if state == "half":
                    step.finish(self._site)
                log.append({"done": index, **step.seen(self._site)})
        log.sync()

    def _settle_backward(self, steps: Steps, log: Log) -> None:
        """Find out which steps of a cut-off undo were taken back without a note."""
        for index in _to_undo(log):
            step = steps[index]
            with self._errors_told(index, "cannot be taken back", _FORCE):
                state = step.state(self._site)
                if state != "changed":
                    step.clean(self._site)
                if state == "half" and isinstance(step, MoveStep | MoveFilesStep | MoveFoldersStep):
                    step.undo(self._site, log.done[index])
                elif state != "before":
                    break
            log.append({"undone": index})
        log.sync()

    def _refuse_if_changed(self, steps: Steps, log: Log) -> None:
        tree = FutureTree(str(self._site.root))
        problems = []
        for index in _to_undo(log):
            with self._errors_told(index, "cannot be taken back", _FORCE):
                problem = steps[index].foresee_undo(tree, self._site, log.done[index])
            if problem:
                problems.append(problem)
        if not problems or self._site.force:
            return
        shown = problems[:SHOWN_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown):,} more")
        raise JournalError(
            f"{self._journal.name} cannot be taken back; files changed since: {len(problems):,}\n  "
            + "\n  ".join(shown)
            + "\n",
            hint=_FORCE,
        )

    def _undo_steps(self, steps: Steps, log: Log) -> None:
        touched = Touched()
        for index in _to_undo(log):
            self._stop_if_asked()
            step = steps[index]
            if touched.meets(step):
                log.sync()
            with self._errors_told(
                index, "stopped", f"put that right and run celforge undo again, or {_FORCE}"
            ):
                step.undo(self._site, log.done[index])
            log.append({"undone": index})
            self._count(step)

    def _restore_rows(self, rows: Sequence[RowStep], log: Log) -> None:
        """Put rows back, except those that somebody wrote since."""
        if rows and "catalog_undone" not in log.marks:
            assert self._catalog is not None, "a journal that changes the catalogue needs one"
            with self._catalog.transaction():
                for row in reversed(rows):
                    if _is_as_written(_read_row(self._catalog, row), row.after):
                        _write_row(self._catalog, row, row.before)
            log.append({"catalog_undone": True})
        for _ in rows:
            self._on_step()

    # Both ways

    def _count(self, step: Step) -> None:
        if not (isinstance(step, MakeFolderStep) and step.is_implied):
            self._on_step()

    def _stop_if_asked(self) -> None:
        if self._should_stop():
            raise InterruptedRunError(f"{self._journal.name} was interrupted", hint=_BOTH_WAYS)

    @contextmanager
    def _errors_told(self, index: int, what: str, hint: str) -> Iterator[None]:
        try:
            yield
        except (StepError, InputError, OSError) as error:
            if isinstance(error, OSError):
                with disk_full_as_error(self._site.root, f"{self._journal.name}, step {index + 1:,}"):
                    if is_disk_full(error):
                        raise
            why = error.message if isinstance(error, InputError) else _told(error)
            where = f"{self._journal.name} {what} at step {index + 1:,} of {self._journal.num_steps:,}"
            raise JournalError(f"{where}: {why}", hint=hint) from error

    def _choose_sync(self, steps: Iterable[Step]) -> None:
        """See how what is done is put on the disk: file by file, or all disks at once at the end.

        A rename of a folder is on the disk once the folders above it are: thousands of them need a few syncs,
        and need not wait for what other programs write.
        """
        self._changed_folders = _changed_folders(steps)
        self._site.sync = self._changed_folders is not None or sys.platform == "win32"

    def _sync_all(self) -> None:
        """Wait until all that was done is on the disk."""
        if sys.platform == "win32":
            return  # each file was synced by itself; names are journalled by the system
        if self._changed_folders is None:
            os.sync()
            return
        for folder in map(self._site.path, sorted(self._changed_folders)):
            if folder.is_dir():
                sync_folder(folder)


_MOVES_NAMES = (MoveStep, MoveFoldersStep, MakeFolderStep, RemoveFolderStep, RelinkStep)
_FORCE = "keep what was changed and take back the rest: celforge undo --force"


def _changed_folders(steps: Iterable[Step]) -> set[str] | None:
    """Stored paths of the folders whose entries change, under all their names; None where syncing these, and
    the files that are written, one by one would take more than a few syncs.
    """
    folders: set[str] = set()
    num_syncs = 0  # of steps that see to it themselves: a file and its folder, or two folders
    for step in steps:
        num_syncs += 0 if isinstance(step, _MOVES_NAMES) else 2
        folders.update(map(os.path.dirname, step.paths()))
        for move in step.moves() if isinstance(step, MoveFoldersStep) else (step,):
            if isinstance(move, MoveStep) and move.source in folders:
                folders.add(move.destination)
        if num_syncs + len(folders) > FEW:
            return None
    return folders


def _do(step: Step, state: str, site: Site) -> Made:
    if state == "before":
        return step.do(site)
    if state == "changed":
        raise StepError(f"{_names(step, site)} changed since the plan was made")
    if state == "half":
        step.finish(site)
    return step.seen(site)


def _to_undo(log: Log) -> list[int]:
    return sorted(log.done.keys() - log.undone, reverse=True)


def _names(step: Step, site: Site) -> str:
    return " and ".join(str(site.path(stored)) for stored in step.paths())


def _num_needless(plan: Plan, steps: Sequence[Step]) -> int:
    """How many actions need no step, such as making a folder that exists."""
    asked = sum(not isinstance(action, RowAction) for action in plan.actions)
    return asked - sum(not (isinstance(step, MakeFolderStep) and step.is_implied) for step in steps)


def _read_row(catalog: CatalogWriter, row: RowStep) -> dict[str, Any] | None:
    if row.table == "outcome":
        content, stage = row.key
        return catalog.read_outcome(content, stage)
    content, name, source = row.key
    return catalog.read_fact(content, name, source)


def _write_row(catalog: CatalogWriter, row: RowStep, values: Mapping[str, Any] | None) -> None:
    if row.table == "outcome":
        content, stage = row.key
        catalog.write_outcome(content, stage, values)
    else:
        content, name, source = row.key
        catalog.write_fact(content, name, source, values)


def _is_as_written(found: Mapping[str, Any] | None, written: Mapping[str, Any] | None) -> bool:
    if found is None or written is None:
        return found is written
    return all(found.get(key) == value for key, value in written.items())


def _told(error: OSError | StepError) -> str:
    """An error of a step, or of the system, in a sentence."""
    if isinstance(error, StepError):
        return str(error)
    path = error.filename2 or error.filename or "a file"
    if isinstance(error, PermissionError):
        return f"{path} may not be changed: it is open in another program, or it or its folder is read-only"
    if isinstance(error, FileNotFoundError):
        return f"{path} is not there any more"
    return f"{path}: {error.strerror}"
