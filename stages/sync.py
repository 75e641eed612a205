"""Take in what was changed by hand: captions, tags in them, folders.

Captions that a person or another tool wrote, beside a picture or in captions.jsonl, are read into the
catalogue: what was added to and taken out of the caption that celforge wrote becomes known of the picture,
also for later captions. A picture that was moved to the folder of another character gets that name. Nothing
on disk is changed; --dry-run shows what would be taken in, `celforge undo` takes it back.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.caption_files import (
    HAND,
    Spellings,
    read_captions,
    read_edit,
    shared_captions,
    text_sha256,
)
from pipeline.caption_lines import JSONL_NAME, Lines
from pipeline.catalog import Fact, MediaFile, below, split
from pipeline.characters import NameBook, characters_of_job
from pipeline.errors import InputError, SettingsError
from pipeline.job import Job, Report, no_images
from pipeline.known_facts import all_facts
from pipeline.layouts.captions import DEFAULT_SEPARATOR
from pipeline.layouts.character_folders import (
    FOLDERS_SEEN,
    SEEN_BY,
    check_format,
    folder_below,
    names_of_folder,
)
from pipeline.plan import Plan, SetFact
from pipeline.settings import option

HAS_PLAN = True
CHARACTERS = "characters"
KEEP_SEPARATOR = "|||"

Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [sync] of celforge.toml."""

    captions: bool = option(True, "Read captions that a person or another tool wrote.")
    folders: Literal["moved", "all", "none"] = option(
        "moved",
        "Whose folder names its characters: pictures that were moved, all pictures, or none.",
    )
    folder_format: str = option(
        "",
        "Which folder names the character, such as */character/*; understood by itself when left out.",
        metavar="FORMAT",
        only_if={"folders": ("moved", "all")},
    )
    separator: str = option(
        DEFAULT_SEPARATOR, "What stands between the parts of a caption.", only_if={"captions": (True,)}
    )


def run(job: Job, settings: Settings) -> Report:
    """Read what a person changed, and note it as their word."""
    if not settings.separator.strip():
        raise SettingsError("separator must hold a sign that is no space")
    characters = characters_of_job(job)
    format_parts = check_format(settings.folder_format)
    before = _known_places(job)
    files = job.images()
    if not files and not job.failures:
        raise no_images(job.folder)
    book = NameBook(characters, _known_names(job))
    sync = Sync(job, settings, book, format_parts, before)
    shared = shared_captions(files)
    by_content: dict[int, list[MediaFile]] = {}
    for index, file in enumerate(files):
        by_content.setdefault(file.id, []).append(file)
        if index in shared:
            sync.sharing[file.relative] = shared[index]
    names = ("caption", "tags", CHARACTERS, FOLDERS_SEEN)
    for media_id, facts in all_facts(job.catalog, names, list(by_content)):
        job.check_stop()
        sync.take(by_content[media_id], facts)
    report = job.apply(Plan("sync", sync.actions))
    if job.is_dry_run:
        report.planned = sync.preview
    report.failures = list(job.failures)
    report.values.update(sync.summary())
    return report


def _known_places(job: Job) -> dict[int, set[str]]:
    """Folders in which the catalogue saw each picture last, before the disk is looked at."""
    condition, parameters = below(job.project.relative(job.folder))
    sql = f"SELECT media_id, folder FROM paths WHERE {condition}"
    places: dict[int, set[str]] = {}
    for media_id, folder in job.catalog.rows(sql, parameters):
        places.setdefault(media_id, set()).add(folder)
    return places


def _known_names(job: Job) -> set[str]:
    """Every character that the catalogue names."""
    sql = "SELECT DISTINCT json_each.value FROM facts, json_each(facts.value) WHERE facts.name = 'characters'"
    return {str(row[0]) for row in job.catalog.rows(sql)}


@dataclass(slots=True)
class Sync:
    """Collects a person's words about each picture."""

    job: Job
    settings: Settings
    book: NameBook
    format_parts: tuple[str, ...]
    before: Mapping[int, set[str]]
    sharing: dict[str, str] = field(default_factory=dict)  # picture: another with the same caption file
    actions: list[SetFact] = field(default_factory=list)
    preview: list[dict[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    differing: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    spellings: Spellings = field(default_factory=Spellings)
    lines: dict[Path, Lines | None] = field(default_factory=dict)  # folder: its captions.jsonl

    def take(self, places: Sequence[MediaFile], facts: dict[str, list[Fact]]) -> None:
        """Take in what is new about one content, which may lie at several places."""
        if self.settings.folders != "none":
            self._take_folder(places, facts)
        if self.settings.captions:
            self._take_caption(places, facts)

    # Folders

    def _take_folder(self, places: Sequence[MediaFile], facts: dict[str, list[Fact]]) -> None:
        folders = sorted({split(file.relative)[0] for file in places})
        seen = facts[FOLDERS_SEEN][0].value if facts.get(FOLDERS_SEEN) else None
        before = seen if seen is not None else sorted(self.before.get(places[0].id, set()) - set(folders))
        found = {names for folder in folders if (names := self._names(folder)) is not None}
        if len(found) == 1:
            is_moved = bool(before) and found.isdisjoint({self._names(folder) for folder in before})
            self._take_names(places, found.pop(), facts, is_moved=is_moved)
        elif found:
            said = " and ".join(sorted(map(_show, found)))
            self.differing += [f"{file.relative}: its copies lie in folders of {said}" for file in places]
            return
        if seen != folders:
            self.actions.append(SetFact(places[0].content, FOLDERS_SEEN, folders, SEEN_BY))

    def _take_names(
        self, places: Sequence[MediaFile], names: Names, facts: dict[str, list[Fact]], *, is_moved: bool
    ) -> None:
        known: Names = tuple(sorted(facts[CHARACTERS][0].value)) if facts.get(CHARACTERS) else ()
        if names == known:
            return
        if known and not is_moved and self.settings.folders != "all":
            if facts[CHARACTERS][0].by_hand:
                return
            text = f"in the folder of {_show(names)}, known as {_show(known)}"
            self.differing += [f"{file.relative}: {text}" for file in places]
            return
        self._note(places[0].content, CHARACTERS, names, facts)
        self.counts["characters_from_folders"] += len(places)
        self._show(places, CHARACTERS, f"{_show(known)} -> {_show(names)}", "its folder")

    def _names(self, folder: str) -> Names | None:
        inside = folder_below(folder, self.job.project.relative(self.job.folder))
        names = names_of_folder(inside, self.format_parts, self.book.known)
        return None if names is None else tuple(sorted({self.book.name(name) for name in names}))

    # Captions

    def _take_caption(self, places: Sequence[MediaFile], facts: dict[str, list[Fact]]) -> None:
        edited = [
            (file, text)
            for file in places
            for text in (*self._edited_texts(file, facts), *self._edited_lines(file))
        ]
        if len({text for _, text in edited}) > 1:
            told = " and ".join(file.relative for file, _ in edited)
            self.unread.append(f"{told}: two captions by hand for one picture")
            return
        for file, text in edited[:1]:
            edit = read_edit(file, text, facts, self.book.known, self.settings.separator, KEEP_SEPARATOR)
            if not edit.actions:
                continue
            for action in edit.actions:
                self._note(action.content, action.name, action.value, facts)
            self.counts["captions_read"] += 1
            self.added.update(edit.added)
            self.removed.update(edit.removed)
            self._show([file], "caption", edit.text, "edited by hand")

    def _edited_texts(self, file: MediaFile, facts: dict[str, list[Fact]]) -> Iterator[str]:
        if file.relative in self.sharing:
            self.unread.append(f"{file.relative}: shares its caption with {self.sharing[file.relative]}")
            return
        try:
            captions = read_captions(self.job.catalog, file, self.spellings, facts)
        except OSError as error:
            reason = f"its caption cannot be read: {error.strerror}"
            self.job.fail(file, InputError(f"{file.relative}: {reason}"))
            return
        for one in captions.values():
            if one.is_edited:
                assert one.text is not None
                yield one.text
            elif not one.is_ours:
                self.unread.append(f"{one.path.name} beside {file.relative}: {one.problem}")

    def _edited_lines(self, file: MediaFile) -> Iterator[str]:
        """What a captions.jsonl above the picture says of it, where celforge did not write that."""
        for folder in file.path.parents:
            if folder not in self.lines:
                self.lines[folder] = self._read_lines(folder)
            lines = self.lines[folder]
            text = lines.texts.get(file.path.relative_to(folder).as_posix(), "") if lines else ""
            if text and not self.job.catalog.is_ours(file.content, text_sha256(text)):
                yield text
            if folder == self.job.root:
                return

    def _read_lines(self, folder: Path) -> Lines | None:
        try:
            return Lines.read(folder / JSONL_NAME, is_overwriting=False)
        except (InputError, OSError) as error:
            self.unread.append(str(error))
            return None

    def _note(self, content: str, name: str, value: Any, facts: dict[str, list[Fact]]) -> None:
        """A person's word; what is read of the same picture later in this run stands on it."""
        value = list(value) if isinstance(value, tuple) else value
        self.actions.append(SetFact(content, name, value, HAND, by_hand=True))
        fact = Fact(name, value, HAND, by_hand=True, run_id=self.job.run_id)
        facts[name] = [fact, *(one for one in facts.get(name, []) if one.source != HAND)]

    def _show(self, places: Sequence[MediaFile], what: str, change: str, reason: str) -> None:
        self.preview += [
            {"picture": file.relative, "what": what, "change": change, "reason": reason} for file in places
        ]

    def summary(self) -> dict[str, Any]:
        """What the report shows."""
        return {
            "captions_read": self.counts["captions_read"],
            "tags_added": dict(self.added.most_common()),
            "tags_removed": dict(self.removed.most_common()),
            "characters_from_folders": self.counts["characters_from_folders"],
            "differing": self.differing,
            "unread": self.unread,
        }


def _show(names: Names) -> str:
    return "+".join(names) or "nobody"
