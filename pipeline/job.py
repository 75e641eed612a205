"""What a stage works with: the folder, the catalogue, workers, a bar. `map` is cached and resumable, `apply`
can be taken back.

A stage asks `job.images()`, maps a function over them, decides, and hands a plan to `job.apply`. It never
opens the catalogue's file, never draws a bar and never catches an error of an item: that is done here, once.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pipeline
from pipeline import console
from pipeline.batches import BatchWork, run_in_batches
from pipeline.catalog import Catalog, MediaFile, Outcome
from pipeline.console import LOG
from pipeline.errors import (
    DiskFullError,
    ExitCode,
    InputError,
    InterruptedRunError,
    JournalError,
    PipelineError,
)
from pipeline.files import disk_full_as_error
from pipeline.interruption import Interruption, interruptible
from pipeline.journal import apply_plan, list_journals, recover
from pipeline.mapped import COMMIT_EVERY_S, Mapped, ResultWriter, first_of_each
from pipeline.media_names import Kind
from pipeline.moved_paths import follow
from pipeline.plan import Plan
from pipeline.project import Project, find_project, locked
from pipeline.report import Failure, Report, failure_limit, outcome_counts
from pipeline.scan import Problem, index_folder, media_files
from pipeline.settings import Json, as_json, option
from pipeline.workers import Failed, describe, run_in_workers

__all__ = ["Failure", "Job", "JobSettings", "Report", "no_images", "open_job"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSettings:
    """Settings that every stage shares; section [job] of celforge.toml."""

    workers: int = option(
        0,
        "Workers that read and decode; 0 takes one for each processor core.",
        min=0,
        max=256,
        affects_result=False,
    )
    max_failures: str = option(
        "10%",
        "Failed items, as a number or a share, after which a run stops (a share never below 10 items).",
        metavar="N|N%",
        affects_result=False,
    )


class Job:
    """One run of one stage on one folder. Made by `open_job`."""

    def __init__(
        self,
        project: Project,
        folder: Path,
        stage: str,
        catalog: Catalog,
        *,
        run_id: int,
        settings: JobSettings,
        is_dry_run: bool,
        interruption: Interruption,
    ) -> None:
        self.project = project
        self.folder = folder  # absolute: what the command was given
        self.stage = stage
        self.catalog = catalog
        self.run_id = run_id
        self.is_dry_run = is_dry_run
        self.workers = settings.workers or os.cpu_count() or 1
        self.failures: list[Failure] = []
        self.found_errors = False  # set by a stage that looks for errors: the exit code is then 3
        self.warnings: list[str] = []
        self._max_failures = settings.max_failures
        self._interruption = interruption

    @property
    def root(self) -> Path:
        """The project's folder, which paths in the catalogue are relative to."""
        return self.project.root

    # What there is to work on

    def images(self, *folders: Path) -> list[MediaFile]:
        """Every picture at or below the folder, in natural order; new and changed files are hashed first.

        Args:
            folders: others of the project than the job's own, one after the other; each path comes once.
        """
        found = [file for folder in folders or (self.folder,) for file in self._media("image", folder)]
        return list({file.relative: file for file in found}.values())

    def videos(self) -> list[MediaFile]:
        """Every video at or below the folder, in natural order; new and changed files are hashed first."""
        return self._media("video", self.folder)

    def _media(self, kind: Kind, folder: Path) -> list[MediaFile]:
        with self.progress(None, kind, title="reading") as bar:
            problems = index_folder(
                self.catalog,
                self.project,
                folder,
                (kind,),
                workers=self.workers,
                on_hashed=bar.advance,
                check_stop=self.check_stop,
            )
        for problem in problems:
            self._note_problem(problem)
        return media_files(self.catalog, self.project, folder, (kind,))

    def _note_problem(self, problem: Problem) -> None:
        LOG.warning("%s: %s", problem.path, problem.reason)
        self.failures.append(Failure(str(problem.path), "cannot be read", problem.reason))

    # Work on each of them

    def map(
        self,
        function: Callable[[MediaFile], T],
        files: Sequence[MediaFile],
        *,
        step: str,
        key: Mapping[str, Json],
        unit: str = "image",
        processes: bool = False,
        bar: console.Counter | None = None,
    ) -> Mapped[T]:
        """Apply a function to every content once, ever: what is known already is not worked out again.

        Results are saved as they come, so a killed run loses at most what the workers have in hand, and the
        last twentieth of a second of what goes faster than that. An item that raises is noted as failed with
        its reason, and tried again by the next run.

        Args:
            function: gives a JSON value or bytes; runs in threads, or in other processes, several at once.
            files: may hold one content at several paths.
            step: name of the work, such as `dedupe.hash`.
            key: everything that may change the result: settings, version of the code, sha256 of a model.
            unit: one item in the singular, for the bar.
            processes: run in processes (pure Python work) instead of threads (decoding, numpy and OpenCV
                release the GIL); `function` must then be one that pickle can name.
            bar: progress that `function` itself advances, where one item takes minutes; else each item is a
                step of a bar of its own.

        Returns: (file, result) of those that have one, in the order of `files`.

        Raises:
            InterruptedRunError: asked to stop; what is done is saved.
            TooManyFailuresError: more than --max-failures.
            DiskFullError: no room for the results.
        """
        run = partial(run_in_workers, function, workers=self.workers, processes=processes)
        return self._mapped(run, files, step, key, unit, bar)

    def map_batches(
        self,
        open_work: Callable[[], BatchWork[MediaFile, T]],
        files: Sequence[MediaFile],
        *,
        step: str,
        key: Mapping[str, Json],
        unit: str = "image",
    ) -> Mapped[T]:
        """Like `map`, for a model that works on batches: kept, resumed and reported the same way.

        Args:
            open_work: loads the model; called only when there is something to do.

        Raises:
            DeviceError: as `open_work` and the model raise it; what is done is saved.
        """

        def run(items: Sequence[MediaFile], **asked: Any) -> Iterator[tuple[MediaFile, T | Failed]]:
            return run_in_batches(open_work(), items, self.workers, **asked) if items else iter(())

        return self._mapped(run, files, step, key, unit, None)

    def _mapped(
        self,
        run: Callable[..., Iterator[tuple[MediaFile, T | Failed]]],
        files: Sequence[MediaFile],
        step: str,
        key: Mapping[str, Json],
        unit: str,
        bar: console.Counter | None,
    ) -> Mapped[T]:
        step_id = self.catalog.step_id(step, dict(key))
        assert step_id is not None
        known = self.catalog.known_results(step_id)
        todo = first_of_each([file for file in files if file.id not in known])
        self._say_what_is_stale(step, step_id, todo, unit)
        limit = failure_limit(self._max_failures, len(todo))
        own_bar = self.progress(len(todo), unit, title=step) if bar is None else nullcontext()
        writer = ResultWriter(self.catalog, step_id, self.run_id, self.stage)
        with own_bar as steps, writer as results:
            asked = {"should_stop": self._is_asked, "on_quiet": results.flush, "quiet_s": COMMIT_EVERY_S}
            for file, result in run(items=todo, **asked):
                if not isinstance(result, Failed):
                    results.add(file, result)
                    known.add(file.id)
                elif result.reason != InterruptedRunError.__name__:  # broken off by `check_stop`: tried again
                    self._fail(file, result)
                    limit.count(self.failures)
                if steps is not None:
                    steps.advance()
        self.check_stop()
        return Mapped(self.catalog, step_id, [file for file in files if file.id in known])

    def _say_what_is_stale(self, step: str, step_id: int, todo: Sequence[MediaFile], unit: str) -> None:
        stale = self.catalog.count_superseded(step_id, [file.id for file in todo]) if todo else 0
        if stale:
            text = "%s: the settings are not those of the last time, so %s %ss are worked on again"
            LOG.info(text, step, f"{stale:,}", unit)

    def fail(self, file: MediaFile, error: PipelineError) -> None:
        """Note that a file could not be worked on, for work that `map` does not do; the run goes on."""
        self._fail(file, describe(error))

    def _fail(self, file: MediaFile, failed: Failed) -> None:
        if failed.is_disk_full:
            raise DiskFullError(failed.detail)
        detail = failed.detail.replace(str(file.path), file.relative)
        others = [path for path in self.catalog.present_paths(file.id) if path != file.relative]
        also = f" (and {len(others):,} more files of the same bytes)" if others else ""
        LOG.warning("%s%s", detail if file.relative in detail else f"{file.relative}: {detail}", also)
        self.failures += [Failure(path, failed.reason, detail) for path in (file.relative, *others)]
        self.catalog.set_outcome(file.id, self.stage, "failed", failed.reason, detail, self.run_id)

    # What becomes of them

    def settle(self, file: MediaFile, outcome: Outcome, reason: str = "", detail: str = "") -> None:
        """Note how this stage ended for a file."""
        self.catalog.set_outcome(file.id, self.stage, outcome, reason, detail, self.run_id)

    def settle_all(self, files: Iterable[MediaFile], outcome: Outcome, reason: str = "") -> None:
        """Note how this stage ended for many files, all or nothing."""
        rows = ((file.id, self.stage, outcome, reason, "", self.run_id) for file in files)
        with self.catalog.transaction():
            self.catalog.execute_many("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?)", rows)

    def set_fact(
        self, file: MediaFile, name: str, value: Json, *, source: str | None = None, by_hand: bool = False
    ) -> None:
        """Note what is known about a file.

        Args:
            source: who says so; the stage when left out.
        """
        self.catalog.set_fact(file.id, name, value, source or self.stage, by_hand=by_hand, run_id=self.run_id)

    def apply(self, plan: Plan) -> Report:
        """Carry a plan out, journalled, so that it can be finished after a kill and taken back by `celforge
        undo`.

        Under --dry-run nothing is touched and the report shows the plan.

        Raises:
            PlanError: it cannot be carried out as it stands; nothing was touched.
            InterruptedRunError: asked to stop; the same command again finishes it.
            DiskFullError: no room; the same command again finishes it.
        """
        report = self.report()
        if self.is_dry_run:
            plan.check(self.root)
            report.planned = list(plan.rows())
            return report
        if plan.actions:
            with self.progress(len(plan.actions), "step", title="applying") as bar:
                journal = apply_plan(
                    plan,
                    self.root,
                    self.project.state_folder,
                    self.catalog,
                    run_id=self.run_id,
                    on_step=bar.advance,
                    should_stop=self._is_asked,
                )
            if journal is not None:
                follow(self.catalog, self.root, journal)
        return report

    # What is said about it

    def report(self, **values: Any) -> Report:
        """The stage's outcomes for the files below the folder, its failures, and values of its own."""
        report = Report(
            self.stage,
            failures=list(self.failures),
            warnings=list(self.warnings),
            values=values,
            found_errors=self.found_errors,
        )
        for outcome, reason, count in outcome_counts(self.catalog, self.project, self.folder, self.stage):
            report.counts[outcome, reason] = count
        return report

    def warn(self, message: str) -> None:
        """Tell the person something that may surprise them; `--json` has it too."""
        LOG.warning("%s", message)
        self.warnings.append(message)

    def progress(
        self, total: int | None, unit: str, *, title: str | None = None
    ) -> AbstractContextManager[console.Counter]:
        """A bar for work that `map` does not do."""
        return console.progress(title or self.stage, total, unit)

    def _is_asked(self) -> bool:
        return self._interruption.is_asked

    def check_stop(self) -> None:
        """Stop here if SIGINT or SIGTERM came.

        Raises:
            InterruptedRunError: one came.
        """
        self._interruption.check()


@contextmanager
def open_job(
    folder: Path,
    stage: str,
    settings: object | None = None,
    *,
    job_settings: JobSettings | None = None,
    is_dry_run: bool = False,
) -> Iterator[Job]:
    """Lock the project of `folder`, finish what a killed run left open, and note the run in the catalogue.

    Args:
        stage: the verb.
        settings: the stage's Settings, kept with the run.

    Raises:
        LockedError: another process works there.
        InputError: no such folder, or it may not be written.
    """
    project = find_project(folder)
    with (
        disk_full_as_error(project.root, "working"),
        locked(project),
        interruptible() as interruption,
        Catalog.open(project.catalog_path) as catalog,
    ):
        _refuse_dry_run_on_open_journal(project, is_dry_run=is_dry_run)
        for finished in recover(project.root, project.state_folder, catalog):
            LOG.warning("finished what an earlier run left open: %s", finished.stage)
            if finished.status == "applied":
                follow(catalog, project.root, finished)
        kept = {"job": as_json(job_settings or JobSettings()), stage: as_json(settings) if settings else {}}
        where = project.relative(Path(os.path.abspath(folder)))
        run_id = catalog.start_run(stage, where, kept, pipeline.__version__)
        job = Job(
            project,
            Path(os.path.abspath(folder)),
            stage,
            catalog,
            run_id=run_id,
            settings=job_settings or JobSettings(),
            is_dry_run=is_dry_run,
            interruption=interruption,
        )
        with _log_of(job), _run_noted(job):
            LOG.debug("settings: %s", kept)
            yield job


def _refuse_dry_run_on_open_journal(project: Project, *, is_dry_run: bool) -> None:
    open_ones = [journal.name for journal in list_journals(project.state_folder) if journal.is_open]
    if is_dry_run and open_ones:
        hint = "finish it by any command without --dry-run, or take it back: celforge undo"
        raise JournalError(f"{open_ones[0]} was cut off, and a dry run would finish it", hint=hint)


def _log_of(job: Job) -> AbstractContextManager[None]:
    folder = job.project.state_folder / "logs"
    folder.mkdir(exist_ok=True)
    return console.log_file(folder / f"{job.run_id:06d}-{job.stage}.log")


@contextmanager
def _run_noted(job: Job) -> Iterator[None]:
    code = ExitCode.FAILED
    try:
        yield
        code = ExitCode.FAILED_ITEMS if job.failures or job.found_errors else ExitCode.DONE
    except PipelineError as error:
        code = error.exit_code
        LOG.debug("%s", error)
        raise
    finally:
        with suppress(PipelineError):  # a full disk must not hide the error that is on its way
            job.catalog.end_run(job.run_id, code)


def no_images(folder: Path) -> InputError:
    """The error for a folder without a single picture."""
    return InputError(
        f"{folder} holds no pictures, at any depth",
        hint="give the folder with your screenshots: png, jpg, webp, avif, bmp, gif",
    )
