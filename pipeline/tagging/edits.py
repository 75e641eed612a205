"""Changes of tags by hand, on many pictures at once: worked out as data first, then noted through a plan."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.actions import ClearFact, SetFact
from pipeline.catalog import Catalog
from pipeline.errors import SettingsError
from pipeline.known_facts import all_facts
from pipeline.tagging.search import TagBook, matcher

SOURCE = "hand"
Tags = dict[str, float | None]
FORGOTTEN = ("tags", "characters", "caption")  # what a person can hand back to the machines


@dataclass(frozen=True, slots=True)
class Edits:
    """What is to be done to the tags of each picture, in this order.

    Attributes:
        replaced: (tag or pattern, the tags that stand in its place).
    """

    removed: tuple[str, ...] = ()
    replaced: tuple[tuple[str, tuple[str, ...]], ...] = ()
    added: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.removed or self.replaced or self.added)


@dataclass(slots=True)
class Change:
    """The tags of one picture before and after."""

    media_id: int
    before: Tags
    after: Tags

    def text(self) -> str:
        """What changes, such as `+smile -grin`."""
        gone = [f"-{tag}" for tag in self.before if tag not in self.after]
        return " ".join([*(f"+{tag}" for tag in self.after if tag not in self.before), *gone])


@dataclass(slots=True)
class Changes:
    """All changes, and on how many pictures each tag comes and goes."""

    changes: list[Change] = field(default_factory=list)
    come: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)


def read_pair(text: str, option: str) -> tuple[str, tuple[str, ...]]:
    """OLD=NEW or OLD=NEW,NEW; where a tag holds a "=" itself: OLD=>NEW.

    Raises:
        SettingsError: one side is missing.
    """
    old, _, new = text.partition("=>") if "=>" in text else text.rpartition("=")
    names = tuple(name.strip() for name in new.split(",") if name.strip())
    if not old.strip() or not names:
        hint = f"such as {option} grin=smile; write => where a tag holds a = itself"
        raise SettingsError(f'{option} must be OLD=NEW, found "{text}"', hint=hint)
    return old.strip(), names


def edited(tags: Mapping[str, float | None], edits: Edits) -> Tags:
    """The tags of one picture after the edits; a tag that takes another's place keeps its probability."""
    after: Tags = dict(tags)
    for pattern in edits.removed:
        for tag in filter(matcher(pattern), list(after)):
            del after[tag]
    for pattern, names in edits.replaced:
        for tag in filter(matcher(pattern), list(after)):
            probability = after.pop(tag)
            for name in names:
                after[name] = _larger(after.get(name), probability)
    for name in edits.added:
        after.setdefault(name, None)
    return after


def _larger(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return max(known) if known else None


def find_changes(book: TagBook, edits: Edits) -> Changes:
    """What the edits change on the pictures that answer; those without any change are left out."""
    found = Changes()
    for media_id, values in book.rows(["tags"]):
        before: Tags = dict(json.loads(values["tags"] or "{}"))
        after = edited(before, edits)
        if after == before:
            continue
        found.changes.append(Change(media_id, before, after))
        found.come.update(tag for tag in after if tag not in before)
        found.gone.update(tag for tag in before if tag not in after)
    return found


def as_actions(catalog: Catalog, changes: Sequence[Change]) -> Iterator[SetFact]:
    """The changes as notes of a plan: the whole set of tags, as a person's word."""
    wanted = {change.media_id: change.after for change in changes}
    sql = "SELECT id, content FROM media WHERE id IN (SELECT value FROM json_each(?))"
    for media_id, content in catalog.rows(sql, (json.dumps(list(wanted)),)).fetchall():
        yield SetFact(content, "tags", wanted[media_id], SOURCE, by_hand=True)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A person's word that is to be taken out of the catalogue.

    Attributes:
        value: what the person said; `left` what counts afterwards, None for nothing.
    """

    media_id: int
    content: str
    name: str
    source: str
    value: Any
    left: Any

    def text(self) -> str:
        """What changes, such as `characters: Sabine -> Mireth`."""
        return f"{self.name}: {_shown(self.value)} -> {_shown(self.left)}"

    @property
    def action(self) -> ClearFact:
        """The note of a plan."""
        return ClearFact(self.content, self.name, self.source)


def find_words_by_hand(book: TagBook, catalog: Catalog, names: Sequence[str]) -> list[Forgotten]:
    """Everything that persons said under these names about the pictures that answer, in their order."""
    ids = [media_id for media_id, _ in book.rows([])]
    contents = dict(catalog.rows("SELECT id, content FROM media").fetchall()) if ids else {}
    found = []
    for media_id, facts in all_facts(catalog, names, ids):
        for name in names:
            said = facts.get(name, [])
            left = next((one.value for one in said if not one.by_hand), None)
            by_hand = [one for one in said if one.by_hand]
            found += [
                Forgotten(media_id, contents[media_id], name, one.source, one.value, left) for one in by_hand
            ]
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return value
    return ", ".join(map(str, value)) or "none"
