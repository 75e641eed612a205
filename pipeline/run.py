"""`celforge run`: carries the stages of a project out through their own commands, one after the other, and
trainings side by side where that is asked for.

Each stage is called as a person would call it, with --json, and says itself what it did. Before it begins
its record is opened, after it ended the record is closed: a kill at any moment leaves an open one, and the
stage is called again.
"""

import contextlib
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import click

import pipeline
from pipeline.catalog import Catalog
from pipeline.chain import Chain, Link, first_free
from pipeline.chain_plan import FILLS_DISK, Planned, after_of, count_items, judge, make_plan
from pipeline.chain_state import (
    Disk,
    Record,
    inputs_of,
    inputs_read,
    last_run,
    outcome_of,
    read_records,
    write_record,
)
from pipeline.command_table import COMMANDS
from pipeline.console import LOG
from pipeline.errors import ExitCode, InterruptedRunError, LockedError, PipelineError, SettingsError
from pipeline.interruption import interruptible
from pipeline.project import Project
from pipeline.side_by_side import PROGRAM, Beside

POLL_S = 0.1
NUMBERS: Mapping[str, Mapping[str, str]] = {  # of a stage's report, what its line shows, and as what
    "extract": {"videos": "videos read", "frames_kept": "frames kept", "frames_in_place": "in place"},
    "arrange": {"in_the_tree": "in the tree"},
    "balance": {"images": "images", "images_seen_in_an_epoch": "seen in an epoch"},
    "check": {"found": ""},
    "report": {"pictures_shown": "pictures shown"},
    "train": {"steps": "steps"},
}
KEPT: Mapping[str, str] = {  # what a file that a stage is done with means to a person
    "ingest": "pictures read",
    "tag": "pictures tagged",
    "identify": "pictures looked at",
    "caption": "captions in place",
}


class StageError(PipelineError):
    """A stage of the chain failed or was stopped; the message names it, the hint says how to go on."""

    def __init__(self, place: str, error: PipelineError, again: str) -> None:
        again = f"go on with: {again}"
        is_stopped = error.exit_code == ExitCode.INTERRUPTED
        hint = f"{error.hint}; then {again}" if error.hint and not is_stopped else again
        if "--" in error.hint and not is_stopped:
            hint += " (in celforge.toml --accept-changes is accept_changes = true, and so on)"
        super().__init__(f"{place}: {error.message}", hint=hint)
        self.exit_code = error.exit_code


@dataclass(frozen=True, slots=True)
class Done:
    """How one stage ended."""

    link: Link
    is_skipped: bool  # up to date
    record: Record
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "stage": self.link.name,
            "state": "up to date" if self.is_skipped else "done",
            "exit_code": self.record.exit_code,
            "failed": self.record.failed,
            "result": self.record.result,
            "made": self.record.made,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class _Begun:
    """A stage at work, and what there was before it."""

    link: Link
    opened: Record
    items: int | None
    inputs: dict[str, str]
    pictures: set[str]
    size_before: int
    started: float


@dataclass(slots=True)
class Run:
    """One run over a chain.

    Args:
        command_of: gives the click command of a name.
        on_stage: called with number, total, link and its reasons before a stage begins.
        on_done: called after it.
        again: what to type to go on.
        program: that a training in a process of its own is called by.
    """

    chain: Chain
    command_of: Callable[[str], click.Command]
    on_stage: Callable[[int, int, Link, Sequence[str]], None]
    on_done: Callable[[Done], None]
    again: str = "celforge run"
    program: Sequence[str] = PROGRAM
    done: list[Done] = field(default_factory=list)
    _disk: Disk = field(default_factory=Disk)

    def plan(self, links: Sequence[Link]) -> tuple[Planned, ...]:
        """What would be done; nothing is written."""
        with Catalog.open(self.chain.project.catalog_path, read_only=True) as catalog:
            return make_plan(self.chain, links, read_records(catalog), catalog, self._disk)

    def carry_out(self, links: Sequence[Link]) -> ExitCode:
        """Do what is to be done.

        Returns: 0, or 3 when items failed or errors were found.

        Raises:
            StageError: a stage failed or was interrupted; what is done is kept.
            LockedError: another run works on this project.
        """
        project = self.chain.project
        with (
            _alone(project),
            Catalog.open(project.catalog_path) as catalog,
            contextlib.chdir(project.root),
        ):
            self.check(make_plan(self.chain, links, read_records(catalog), catalog, self._disk))
            for together in self._in_groups(links):
                if len(together) > 1:
                    self._take_together(together, len(links), catalog)
                    continue
                ((number, link),) = together
                try:
                    self._take(number, len(links), link, catalog)
                except (PipelineError, KeyboardInterrupt) as error:
                    failed = error if isinstance(error, PipelineError) else InterruptedRunError("interrupted")
                    raise self._stage_error(number, len(links), link, failed) from error
        has_failures = any(one.record.exit_code for one in self.done)
        return ExitCode.FAILED_ITEMS if has_failures else ExitCode.DONE

    def check(self, planned: Sequence[Planned]) -> None:
        """Refuse what would fail only after hours, before anything is done.

        What is up to date needs nothing any more: a model may have been trained from one that is gone.

        Raises:
            StageError: a setting names a file that is not there, or a stage lacks what it cannot do without.
        """
        with contextlib.chdir(self.chain.project.root):
            for number, one in enumerate(planned, 1):
                if one.state == "up to date":
                    continue
                try:
                    one.link.check()
                except PipelineError as error:
                    place = f"[{number}/{len(planned)}] {one.link.name}"
                    raise StageError(place, error, self.again) from error

    def _stage_error(self, number: int, total: int, link: Link, error: PipelineError) -> StageError:
        return StageError(f"[{number}/{total}] {link.name}", error, self.again)

    def _in_groups(self, links: Sequence[Link]) -> Iterator[Sequence[tuple[int, Link]]]:
        """Links with their numbers: trainings together where they are to work side by side, others alone."""
        at_once = self.chain.trainings_at_once
        numbered = enumerate(links, 1)
        for is_training, group in groupby(numbered, lambda pair: COMMANDS[pair[1].command].has_entries):
            if is_training and at_once > 1:
                yield tuple(group)
            else:
                yield from ((one,) for one in group)

    def _take_together(self, numbered: Sequence[tuple[int, Link]], total: int, catalog: Catalog) -> None:
        """Several trainings, so many at a time; one that fails keeps others from beginning, and lets those
        that work come to their end.

        Raises:
            StageError: one failed, or a stop was asked for; what is done is kept.
        """
        waiting, working = [*numbered], dict[Beside, tuple[int, _Begun]]()
        failed: StageError | None = None
        with interruptible() as interruption:
            is_told = False
            while working or waiting:
                may_begin = failed is None and not interruption.is_asked
                if not may_begin and not working:
                    break
                if interruption.is_asked and not is_told:
                    is_told = True
                    for process in working:
                        process.ask_to_stop()
                if may_begin and len(working) < self.chain.trainings_at_once:
                    pair = first_free(self.chain, waiting, [begun.link for _, begun in working.values()])
                    if pair is not None:
                        waiting.remove(pair)
                        try:
                            begun = self._begin(pair[0], total, pair[1], catalog)
                        except PipelineError as error:
                            failed = self._stage_error(pair[0], total, pair[1], error)
                            continue
                        if begun is not None:
                            working[self._beside(pair[1])] = (pair[0], begun)
                        continue
                for process in [one for one in working if not one.is_working()]:
                    number, begun = working.pop(process)
                    try:
                        code, printed = process.answer()
                        self._finish(begun, code, answer_of(begun.link, printed), catalog)
                    except PipelineError as error:
                        failed = failed or self._stage_error(number, total, begun.link, error)
                time.sleep(POLL_S)
        if failed is None and waiting:
            number, link = waiting[0]
            failed = self._stage_error(number, total, link, InterruptedRunError("interrupted"))
        if failed is not None:
            raise failed

    def _beside(self, link: Link) -> Beside:
        command = [*self.program, link.command, *link.arguments, "--json"]
        share = 1 / self.chain.trainings_at_once
        return Beside(link.name, command, self.chain.project.root, share=share)

    def _take(self, number: int, total: int, link: Link, catalog: Catalog) -> None:
        begun = self._begin(number, total, link, catalog)
        if begun is not None:
            code, answer = _call(self.command_of(link.command), link)
            self._finish(begun, code, answer, catalog)

    def _begin(self, number: int, total: int, link: Link, catalog: Catalog) -> "_Begun | None":
        """Open the record of a stage that has something to do."""
        disk = self._disk
        disk.forget()
        records = read_records(catalog)
        reasons = judge(link, self.chain, records, catalog, disk)
        before = records.get(link.name)
        if not reasons and before is not None:
            self._end(Done(link, True, before))
            return None
        items = count_items(link, self.chain, before, catalog, disk)
        opened = before or Record()
        opened.is_open = True
        write_record(catalog, link.name, opened)
        inputs = inputs_of(link, self.chain, disk, catalog)
        pictures = disk.names(link.folder, "image")
        size_before = self._made_bytes(link)
        self.on_stage(number, total, link, reasons)
        return _Begun(link, opened, items, inputs, pictures, size_before, time.monotonic())

    def _finish(self, begun: "_Begun", code: int, answer: Mapping[str, Any], catalog: Catalog) -> None:
        """Close its record, after it ended."""
        link, disk = begun.link, self._disk
        seconds = time.monotonic() - begun.started
        disk.forget()
        record = self._closed(link, code, answer, begun.opened, catalog)
        grew = not disk.names(link.folder, "image") <= begun.pictures
        record.inputs = inputs_read(link, begun.inputs, record.inputs, grew=grew)
        record.serial = _serial(record, begun.opened, read_records(catalog))
        if begun.items:
            record.seconds_each = seconds / begun.items
            if link.command in FILLS_DISK:
                record.bytes_each = max(0, self._made_bytes(link) - begun.size_before) / begun.items
        write_record(catalog, link.name, record)
        self._end(Done(link, False, record, seconds))

    def _end(self, done: Done) -> None:
        self.done.append(done)
        self.on_done(done)

    def _made_bytes(self, link: Link) -> int:
        return self._disk.listing(link.made).size_bytes if link.made is not None else 0

    def _closed(
        self, link: Link, code: int, answer: Mapping[str, Any], before: Record, catalog: Catalog
    ) -> Record:
        """The record of a stage that ended, with what it reads as it is now."""
        root = self.chain.project.root
        return Record(
            is_open=False,
            version=pipeline.__version__,
            settings=dict(link.settings),
            inputs=inputs_of(link, self.chain, self._disk, catalog),
            after=after_of(link, self.chain, read_records(catalog)),
            run_id=last_run(catalog, link.command),
            exit_code=code,
            failed=len(answer.get("failures", ())),
            outcome=outcome_of(answer),
            result=result_text(link.command, answer),
            made=[_short(root, one) for one in answer.get("made", ())],
            seconds_each=before.seconds_each,
            bytes_each=before.bytes_each,
        )


def _serial(record: Record, before: Record, records: Mapping[str, Record]) -> int:
    """The serial of a record: that of before where nothing came of running again."""
    same = ("version", "settings", "inputs", "after", "exit_code", "outcome")
    if before.serial and all(getattr(record, name) == getattr(before, name) for name in same):
        return before.serial
    return max((one.serial for one in records.values()), default=0) + 1


def _call(command: click.Command, link: Link) -> tuple[int, dict[str, Any]]:
    """Call a command with --json. Returns: its exit code, and what it printed.

    Raises:
        PipelineError: it failed.
    """
    arguments = list(link.arguments)
    if any(isinstance(one, click.Argument) and one.name == "folder" for one in command.params):
        arguments.append(str(link.folder))
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            code = command.main([*arguments, "--json"], prog_name=link.command, standalone_mode=False)
    except click.ClickException as error:
        raise SettingsError(error.format_message()) from error
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise PipelineError(f"{place}{(error.strerror or str(error)).lower()}") from error
    return int(code or 0), answer_of(link, printed.getvalue())


def answer_of(link: Link, printed: str) -> dict[str, Any]:
    """What a stage printed. What a trainer's plan finds odd is logged, which it does not do itself."""
    answer: dict[str, Any] = json.loads(printed)
    plan = answer.get("plan")
    for problem in plan.get("problems", ()) if isinstance(plan, dict) else ():
        LOG.warning("%s: %s", link.name, problem)
    return answer


def result_text(command: str, answer: Mapping[str, Any]) -> str:
    """What a stage did, in a few words: `120 kept, 13 dropped, 1 failed`."""
    counts: dict[str, int] = {}
    for row in answer.get("counts", ()):
        counts[row["outcome"]] = counts.get(row["outcome"], 0) + int(row["files"])
    if "kept" in counts:
        counts = {KEPT.get(command, "kept"): counts.pop("kept"), **counts}
    parts = [f"{count:,} {outcome}" for outcome, count in counts.items()]
    for name, words in NUMBERS.get(command, {}).items():
        value = answer.get(name)
        if isinstance(value, dict):
            parts += [f"{number:,} {key}" for key, number in value.items()]
        elif value is not None:
            parts.append(f"{value:,} {words}")
    return ", ".join(parts)


def _short(root: Path, path: str) -> str:
    absolute = Path(path)
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path


@contextlib.contextmanager
def _alone(project: Project) -> Iterator[None]:
    from filelock import FileLock, Timeout  # as in project.py

    project.state_folder.mkdir(exist_ok=True)
    lock = FileLock(project.state_folder / "run.lock", timeout=0.2)
    try:
        lock.acquire()
    except Timeout:
        hint = "wait for it to end; celforge status shows what is done"
        raise LockedError(f"another `celforge run` works on {project.root}", hint=hint) from None
    try:
        yield
    finally:
        lock.release()
