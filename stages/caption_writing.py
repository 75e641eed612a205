"""Which caption file is written, and which is somebody's and stays.

One picture has one caption: a file of the other suffix that celforge wrote is dropped, one that a person
wrote stands for the picture.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.actions import Action, Drop, SetFact, Write, action_row
from pipeline.caption_files import (
    CAPTION,
    CAPTIONER,
    CaptionFile,
    Edit,
    Spellings,
    caption_paths,
    is_word_of_a_person,
    last_caption,
    note_written,
    read_captions,
    read_edit,
    text_sha256,
)
from pipeline.caption_lines import JSONL_NAME, Lines
from pipeline.catalog import Fact, MediaFile
from pipeline.errors import InputError, PipelineError
from pipeline.job import Job
from pipeline.scan import hash_file
from stages.caption_text import Composed

PREVIEW_LETTERS = 300
WRITTEN, UNCHANGED, KEPT = "written", "unchanged", "edited by hand, kept"
Facts = dict[str, list[Fact]]
Compose = Callable[[MediaFile, Facts], Composed]


class NoCaptionError(PipelineError):
    """Nothing is known of a picture that a caption could say."""

    reason = "nothing to write"


class SharedCaptionError(PipelineError):
    """Two pictures would share one caption file."""

    reason = "shares its caption file"


@dataclass(slots=True)
class Tally:
    """What the report says of captions, counted while they go by: they themselves are not held."""

    reasons: Counter[str] = field(default_factory=Counter)  # why tags were left out
    tokens: Counter[int] = field(default_factory=Counter)  # captions by their number of tokens
    fixed: Counter[int] = field(default_factory=Counter)  # and by how many parts are not to be shuffled

    def add(self, composed: Composed) -> None:
        """Count one caption."""
        self.reasons.update(one.reason for one in composed.dropped)
        self.tokens[composed.tokens] += 1
        self.fixed[len(composed.caption.fixed)] += 1

    @property
    def median_tokens(self) -> int:
        """The lower one of the two in the middle."""
        middle = (self.tokens.total() - 1) // 2
        for tokens, count in sorted(self.tokens.items()):
            if middle < count:
                return tokens
            middle -= count
        return 0


@dataclass(slots=True)
class Writer:
    """Collects what is to be written beside each picture.

    Args:
        suffix: of the caption file; empty for lines of JSON.
        name_of: the character that a part of a caption names.
    """

    job: Job
    suffix: str
    is_overwriting: bool
    compose: Compose
    name_of: Callable[[str], str | None]
    separator: str
    keep_separator: str
    shared: Mapping[str, str]
    actions: list[Action] = field(default_factory=list)
    texts: list[tuple[MediaFile, Path, str]] = field(default_factory=list)
    outcomes: dict[str, list[MediaFile]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    edits: int = 0
    problems: list[str] = field(default_factory=list)
    lines: Lines | None = None  # of captions.jsonl
    planned: set[Path] = field(default_factory=set)  # files that are written or dropped
    blank: list[tuple[MediaFile, list[str]]] = field(default_factory=list)  # and its captions of earlier runs
    spellings: Spellings = field(default_factory=Spellings)
    side_texts: dict[str, str] = field(default_factory=dict)  # path below the root: text

    def take(self, places: Sequence[MediaFile], facts: Facts) -> None:
        """Decide on one content, which may lie at several places."""
        composed: Composed | None = None
        for file in places:
            if file.relative in self.shared and self.suffix:
                other = self.shared[file.relative]
                hint = "rename one of them"
                self.job.fail(
                    file, SharedCaptionError(f"{file.relative} and {other} share a caption", hint=hint)
                )
                continue
            try:
                found = read_captions(self.job.catalog, file, self.spellings, facts)
            except OSError as error:
                self.job.fail(file, NoCaptionError(f"{file.relative}: its caption: {error.strerror}"))
                continue
            theirs = [one for one in found.values() if not one.is_ours]
            if theirs and self._take_theirs(file, theirs, facts):
                continue
            if self._take_their_line(file, facts):
                continue
            if composed is None:
                composed = self.compose(file, facts)
            if composed.text:
                self._write(file, found, composed, facts)
            else:
                self.blank.append((file, [one.path.name for one in found.values()]))

    def _take_theirs(self, file: MediaFile, theirs: Sequence[CaptionFile], facts: Facts) -> bool:
        """Read captions that are not ours; returns whether they stay."""
        for one in theirs:
            if one.is_edited:
                assert one.text is not None
                self._note_edit(file, one.text, facts)
            elif one.problem:
                self.problems.append(f"{one.path.name} beside {file.relative}: {one.problem}")
        if self.is_overwriting:
            return False
        self.outcomes.setdefault(KEPT, []).append(file)
        if self.lines is not None and theirs[0].is_edited:
            self.lines.set(self._inside(file), str(theirs[0].text))
        return True

    def _take_their_line(self, file: MediaFile, facts: Facts) -> bool:
        """Read a line of captions.jsonl that is not ours; returns whether it stays."""
        stands = self.lines.texts.get(self._inside(file)) if self.lines is not None else None
        if stands is None:
            return False
        is_ours = self.job.catalog.is_ours(file.content, text_sha256(stands))
        if is_ours and not is_word_of_a_person(stands, facts):
            return False
        self._note_edit(file, stands, facts)
        if self.is_overwriting:
            return False
        self.outcomes.setdefault(KEPT, []).append(file)
        return True

    def _note_edit(self, file: MediaFile, text: str, facts: Facts) -> None:
        edit: Edit = read_edit(file, text, facts, self.name_of, self.separator, self.keep_separator)
        self.edits += bool(edit.actions)
        for action in edit.actions:
            self.actions.append(action)
            fact = Fact(action.name, action.value, action.source, action.by_hand, self.job.run_id)
            others = (one for one in facts.get(action.name, ()) if one.source != action.source)
            facts[action.name] = [fact, *others]

    def _write(
        self, file: MediaFile, found: Mapping[str, CaptionFile], composed: Composed, facts: Facts
    ) -> None:
        text = composed.text
        self.tally.add(composed)
        own = caption_paths(file.path).get(self.suffix)  # none, where all captions lie in one file
        is_dropping = False
        for one in found.values():
            if one.path != own and one.path not in self.planned:
                self.planned.add(one.path)
                where = JSONL_NAME if own is None else own.name
                self.actions.append(Drop(one.path, f"the caption is in {where} now"))
                is_dropping = True
        if self.lines is not None:
            self.texts.append((file, file.path, text))
            is_new = self.lines.set(self._inside(file), text)
        else:
            is_new = self._plan_file(file, found.get(self.suffix), text)
        state = WRITTEN if is_new or is_dropping else UNCHANGED
        told = next((one.value for one in facts.get(CAPTION, ()) if one.source == CAPTIONER), None)
        if told != text or last_caption(facts) != text:
            self.actions.append(SetFact(file.content, CAPTION, text, CAPTIONER))
            fact = Fact(CAPTION, text, CAPTIONER, by_hand=False, run_id=self.job.run_id)
            facts[CAPTION] = [*(one for one in facts.get(CAPTION, ()) if one.source != CAPTIONER), fact]
        self.outcomes.setdefault(state, []).append(file)

    def finish(self, files: Sequence[MediaFile]) -> None:
        """Say which pictures have nothing to be written, and plan captions.jsonl.

        Raises:
            InputError: nothing is known of any picture.
        """
        if self.blank and not self.tally.tokens and KEPT not in self.outcomes:
            hint = "tag the pictures or name their characters first: celforge identify"
            raise InputError(f"nothing is known of any picture in {self.job.folder}", hint=hint)
        for file, stand in self.blank:
            hint = "tag it or name its characters first"
            stays = f"; {' and '.join(stand)} of an earlier time stays" if stand else ""
            self.job.fail(file, NoCaptionError(f"nothing is known of {file.relative}{stays}", hint=hint))
        if self.lines is not None:
            write = self.lines.plan([self._inside(file) for file in files])
            self.actions += [] if write is None else [write]

    def _plan_file(self, file: MediaFile, stands: CaptionFile | None, text: str) -> bool:
        """Plan the caption file of a picture, once for all copies beside each other; whether it changes."""
        target = caption_paths(file.path)[self.suffix]
        if stands is not None and stands.path != target:
            stands = None  # of another spelling: dropped
        if stands is None or stands.text != text or not stands.is_ours:
            self.texts.append((file, target, text))
        if target not in self.planned and (stands is None or stands.text != text):
            self.planned.add(target)
            self.actions.append(Write(target, text, expects=None if stands is None else stands.sha256))
        return target in self.planned

    def _inside(self, file: MediaFile) -> str:
        return file.path.relative_to(self.job.folder).as_posix()

    def preview(self) -> Iterator[dict[str, str]]:
        """What --dry-run shows: each file with its text, each edit that is read."""
        for action in self.actions:
            if isinstance(action, SetFact) and not action.by_hand:
                continue
            row = action_row(action)
            if isinstance(action, Write):
                row["reason"] = str(action.content)[:PREVIEW_LETTERS]
            where = row["destination"] or row["source"]
            path = where.removeprefix(f"{self.job.root}{os.sep}")
            yield {"action": row["action"], "file": path, "text": row["reason"]}

    def note_texts(self) -> None:
        """Remember what is about to be written, so that a killed run never takes it for a person's."""
        note_written(self.job.catalog, self.texts)
        for subject, text in self.side_texts.items():
            self.job.catalog.note_written(subject, text_sha256(text))


def plan_side_file(path: Path, text: str, is_ours: Callable[[str], bool], *, overwrite: bool) -> Write | None:
    """Write a file that is no caption (core tags and the like), unless a person changed the one there.

    Args:
        is_ours: whether celforge wrote a file of this sha256.
    """
    if not path.exists():
        return Write(path, text)
    found = hash_file(path)
    if found == text_sha256(text) or not (overwrite or is_ours(found)):
        return None
    return Write(path, text, expects=found)
