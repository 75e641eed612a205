"""Caption files on disk: whose they are, what they say, and what a person's edit of one says about a picture.

A caption is ours when its bytes are ones that celforge wrote for that picture, or for that place. Every other
one is a person's, or another tool's: it is read into the catalogue, and never overwritten unasked.
"""

import codecs
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.actions import SetFact
from pipeline.catalog import Catalog, Fact, MediaFile, join, split
from pipeline.layouts.captions import SUFFIXES, looks_like_tags, parse_caption, tag_key
from pipeline.names import path_key
from pipeline.sidecars import is_sidecar_text

CAPTION, TAGS, CHARACTERS = "caption", "tags", "characters"  # facts
CAPTIONER, HAND = "caption", "hand"  # who says so
MAX_BYTES = 1 << 20  # of a caption; more is another kind of file


@dataclass(frozen=True, slots=True)
class CaptionFile:
    """A caption file beside a picture.

    Args:
        text: without byte order mark and outer white space; None where it cannot be read as a caption.
        problem: why not, in short.
        is_ours: celforge wrote it, and nobody changed it since.
    """

    path: Path
    sha256: str
    text: str | None
    problem: str
    is_ours: bool

    @property
    def is_edited(self) -> bool:
        """Whether a person or another tool wrote it, and it can be read."""
        return not self.is_ours and bool(self.text)


def caption_paths(image_path: Path) -> dict[str, Path]:
    """Where captions of a picture lie, by suffix."""
    return {suffix: image_path.with_suffix(suffix) for suffix in SUFFIXES}


@dataclass(slots=True)
class Spellings:
    """Finds `a.TXT` and `A.txt` where `a.txt` is looked for: on Windows and macOS they are one file."""

    _folders: dict[str, dict[str, str]] = field(default_factory=dict)  # folder: {key: name}, captions only

    def other(self, path: Path) -> Path | None:
        """A file whose name differs in letter case or accents only.

        Raises:
            OSError: the folder cannot be listed.
        """
        folder = str(path.parent)
        if folder not in self._folders:
            names = (name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES))
            self._folders[folder] = {path_key(name): name for name in names}
        name = self._folders[folder].get(path_key(path.name), path.name)
        return None if name == path.name else path.with_name(name)


def read_captions(
    catalog: Catalog, file: MediaFile, spellings: Spellings, facts: Mapping[str, Sequence[Fact]]
) -> dict[str, CaptionFile]:
    """The caption files beside a picture, by suffix; one in another spelling is a person's.

    Args:
        facts: what is known of the picture, its captions among it.

    Raises:
        OSError: one is there and cannot be read.
    """
    found = {}
    for suffix, wanted in caption_paths(file.path).items():
        path: Path | None = wanted
        try:
            data = _read_start(wanted)
        except FileNotFoundError:
            if (path := spellings.other(wanted)) is None:
                continue
            data = _read_start(path)
        caption = _caption_file(catalog, file, path or wanted, data)
        if path != wanted or is_word_of_a_person(caption.text, facts):
            caption = replace(caption, is_ours=False)
        found[suffix] = caption
    return found


def is_word_of_a_person(text: str | None, facts: Mapping[str, Sequence[Fact]]) -> bool:
    """Whether a person said this caption after celforge wrote its last one.

    celforge may have written the very same words once, in a run that `celforge undo` took back.
    """
    told = facts.get(CAPTION, ())
    by_hand = [fact.run_id or 0 for fact in told if fact.by_hand and fact.value == text]
    written = [fact.run_id or 0 for fact in told if fact.source == CAPTIONER]
    return bool(by_hand) and max(by_hand) > max(written, default=-1)


def _read_start(path: Path) -> bytes:
    with path.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)


def _caption_file(catalog: Catalog, file: MediaFile, path: Path, data: bytes) -> CaptionFile:
    sha256 = hashlib.sha256(data).hexdigest()
    if len(data) > MAX_BYTES:
        with path.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        return CaptionFile(path, sha256, None, "too long for a caption", is_ours=False)
    text, problem = decode_caption(data)
    subjects = written_subjects(file, path)
    is_ours = any(catalog.is_ours(one, sha256) for one in subjects)
    if not is_ours and text is not None and data != text.encode("utf-8"):
        # an editor that only added a byte order mark or a line's end changed nothing
        plain = text_sha256(text)
        is_ours = any(catalog.is_ours(one, plain) for one in subjects)
    return CaptionFile(path, sha256, text, problem, is_ours)


def decode_caption(data: bytes) -> tuple[str | None, str]:
    """(text, why it has none): UTF-8, with or without byte order mark, or UTF-16 with one."""
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = data.decode(encoding).strip()
    except UnicodeDecodeError:
        return None, "not UTF-8"
    if "\0" in text:
        return None, "not text"
    if text and is_sidecar_text(text):
        return None, "a list of fields, not a caption: see celforge catalog sidecars"
    return text, "" if text else "empty"


def text_sha256(text: str) -> str:
    """sha256 of a text as we write it, hex."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def written_subjects(file: MediaFile, path: Path) -> tuple[str, str]:
    """What a caption is noted for: the picture, and its own place, should the picture be drawn again."""
    return file.content, join(split(file.relative)[0], path.name)


def note_written(catalog: Catalog, texts: Sequence[tuple[MediaFile, Path, str]]) -> None:
    """Remember texts that are about to be written, before a journal can leave them behind."""
    sql = "INSERT OR IGNORE INTO written VALUES (?, ?)"
    rows = ((one, text_sha256(text)) for file, path, text in texts for one in written_subjects(file, path))
    catalog.execute_many(sql, rows)


def shared_captions(files: Sequence[MediaFile]) -> dict[int, str]:
    """Pictures that other pictures share their caption file with, by index in `files`: the other's path.

    `a.png` and `a.jpg` beside each other both have `a.txt`; on Windows `A.jpg` too. Copies of one picture, in
    one spelling, may share it.
    """
    by_stem: dict[str, list[int]] = {}
    for index, file in enumerate(files):
        stem = file.relative.rpartition(".")[0]
        by_stem.setdefault(path_key(stem), []).append(index)
    shared = {}
    for indices in by_stem.values():
        stems = {files[index].relative.rpartition(".")[0] for index in indices}
        if len(indices) > 1 and (len(stems) > 1 or len({files[index].id for index in indices}) > 1):
            for index in indices:
                other = next(one for one in indices if one != index)
                shared[index] = files[other].relative
    return shared


# What an edit says


@dataclass(slots=True)
class Edit:
    """What a person's caption says about a picture that the catalogue does not know yet."""

    actions: list[SetFact] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The change in a few words."""
        signs = [*(f"+{tag}" for tag in self.added), *(f"-{tag}" for tag in self.removed)]
        return ", ".join(signs) or "its words or their order"


def read_edit(
    file: MediaFile,
    text: str,
    facts: Mapping[str, Sequence[Fact]],
    name_of: Callable[[str], str | None],
    separator: str,
    keep_separator: str = "",
) -> Edit:
    """What a caption that is not ours says, as facts of a person.

    Beside the caption that we wrote last, only what was added and taken away counts: tags that we left out
    ourselves stay known. A caption that was never ours is read whole, if it is a list of tags.

    Args:
        facts: everything said under caption, tags and characters, the word that counts first.
        name_of: the character that a part names, or None.
    """
    edit = Edit()
    if any(fact.by_hand and fact.value == text for fact in facts.get(CAPTION, ())):
        return edit
    edit.actions.append(SetFact(file.content, CAPTION, text, HAND, by_hand=True))
    earlier = last_caption(facts)
    now = {tag_key(part): part for part in parse_caption(text, separator, keep_separator).parts}
    if not looks_like_tags(now.values()):
        return edit
    before = parse_caption(earlier or "", separator, keep_separator).parts
    known = {tag_key(part): part for part in before}
    edit.added = [part for key, part in now.items() if key not in known]
    edit.removed = [part for key, part in known.items() if key not in now]
    _edit_tags(edit, file, facts, name_of, is_whole=earlier is None)
    _edit_characters(edit, file, facts, name_of)
    return edit


def last_caption(facts: Mapping[str, Sequence[Fact]]) -> str | None:
    """The caption that stood beside the picture last: ours, or a person's that was read."""
    told = [fact for fact in facts.get(CAPTION, ()) if fact.by_hand or fact.source == CAPTIONER]
    newest = max(told, key=lambda fact: fact.run_id or 0, default=None)
    return None if newest is None else str(newest.value)


def _edit_tags(
    edit: Edit,
    file: MediaFile,
    facts: Mapping[str, Sequence[Fact]],
    name_of: Callable[[str], str | None],
    *,
    is_whole: bool,
) -> None:
    added = [tag_key(part) for part in edit.added if name_of(part) is None]
    removed = {tag_key(part) for part in edit.removed if name_of(part) is None}
    said = facts.get(TAGS, ())
    tags: dict[str, Any] = dict(said[0].value) if said else {}
    keys = {tag_key(tag) for tag in tags}
    if is_whole:  # the list is the person's; a tagger's probability of what is in it stays known
        removed = keys - set(added)
    kept = {tag: prob for tag, prob in tags.items() if tag_key(tag) not in removed}
    new = {tag: None for tag in added if tag not in keys}
    if new or len(kept) != len(tags):
        edit.actions.append(SetFact(file.content, TAGS, kept | new, HAND, by_hand=True))


def _edit_characters(
    edit: Edit,
    file: MediaFile,
    facts: Mapping[str, Sequence[Fact]],
    name_of: Callable[[str], str | None],
) -> None:
    added = [name for part in edit.added if (name := name_of(part)) is not None]
    removed = {name for part in edit.removed if (name := name_of(part)) is not None}
    said = facts.get(CHARACTERS, ())
    names = list(said[0].value) if said else []
    wanted = [name for name in names if name not in removed]
    wanted += [name for name in added if name not in wanted]
    if wanted != names:
        edit.actions.append(SetFact(file.content, CHARACTERS, wanted, HAND, by_hand=True))
