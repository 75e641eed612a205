"""What is to be done so that a tree holds each picture in its folder, and nothing of a person's is lost.

The catalogue remembers where each picture was put (fact `arranged`). What a person did in the tree since
is told from that: a picture that lies elsewhere was moved by hand and stays there, one that is gone was taken
out by hand and stays out, a caption of other bytes was edited by hand and is never replaced. Files that
arrange did not put there are never touched.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.actions import Action, Drop, Move, Place, PlaceFolder, RemoveFolder, SetFact, SetOutcome, Write
from pipeline.catalog import join, split
from pipeline.files import How
from pipeline.made_folders import mark_made
from pipeline.tree_names import pattern_of, sidecar_name, sidecars_by_picture
from pipeline.tree_state import TreeState

STAGE = "arrange"
ARRANGED = "arranged"  # fact: where a picture was put, one source a tree
HASHED_BYTES = 1 << 20  # a larger sidecar is known by size and mtime

Hand = Literal["", "moved", "removed"]


@dataclass(frozen=True, slots=True)
class Record:
    """Where a picture was put. Paths are relative to the project, with forward slashes.

    Args:
        source: where it lay outside the tree.
        sidecars: pattern of each file that was put beside it -> its mark (`mark_of`).
        hand: what a person did with it since.
    """

    path: str
    source: str
    how: str
    sidecars: Mapping[str, str] = field(default_factory=dict)
    hand: Hand = ""

    def as_json(self) -> dict[str, Any]:
        """As the catalogue keeps it."""
        return {
            "path": self.path,
            "source": self.source,
            "how": self.how,
            "sidecars": dict(self.sidecars),
            "hand": self.hand,
        }


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture and where it belongs.

    Args:
        content: sha256 of its bytes, hex.
        source: where it lies outside the tree; None where it does not.
        folder: below the tree, "" is its top.
        name: its file name there, where that is free.
        why_out: why it does not belong into the tree; empty when it does.
    """

    content: str
    source: str | None
    folder: str
    name: str
    why_out: str = ""


@dataclass(slots=True)
class Arranger:
    """Collects what is to be done, picture by picture.

    Args:
        state: the tree.
        places: content -> paths of its copies in the tree, sorted.
        puts_back: whether what was taken out by hand is put there again.
    """

    root: Path
    state: TreeState
    places: Mapping[str, list[str]]
    how: How
    puts_back: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    by_hand: Counter[str] = field(default_factory=Counter)  # what a person did -> pictures or captions
    folders: Counter[str] = field(default_factory=Counter)  # folder of the project -> pictures arranged there
    _drops: list[Action] = field(default_factory=list)
    _moves: list[Action] = field(default_factory=list)
    _placed: list[tuple[str, str]] = field(default_factory=list)  # (source, path in the tree)
    _writes: list[Action] = field(default_factory=list)
    _notes: list[Action] = field(default_factory=list)
    _beside_sources: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    @property
    def first_source(self) -> str | None:
        """Path of a file that comes into the tree, or None."""
        return self._placed[0][0] if self._placed else None

    def actions(self, *, in_bulk: bool) -> list[Action]:
        """All that is to be done, in the order in which it can be.

        Args:
            in_bulk: folders that are new are made in one step each, which says less of each file.
        """
        emptied = [RemoveFolder(self.root / path, "nothing is left in it") for path in self.state.emptied()]
        placed = self._in_bulk() if in_bulk else self._one_by_one(self._placed)
        is_made_of_others = bool(self._placed) and self.how != "move"
        mark = mark_made(self.root / self.state.top, STAGE) if is_made_of_others else ()
        return [*self._drops, *self._moves, *placed, *self._writes, *emptied, *mark, *self._notes]

    def _in_bulk(self) -> list[Action]:
        new: dict[str, list[tuple[str, str]]] = {}
        single = []
        is_new: dict[str, bool] = {}
        for source, path in self._placed:
            folder, name = split(path)
            if folder not in is_new:
                is_there = os.path.lexists(self.root / folder) or self.state.is_moved_into(folder)
                is_new[folder] = self.how != "move" and not is_there
            if is_new[folder]:
                new.setdefault(folder, []).append((source, name))
            else:
                single.append((source, path))
        top = os.path.commonpath([split(source)[0] for source, _ in self._placed] or [""])
        start = len(top) + 1 if top else 0
        whole = [
            PlaceFolder(
                self.root / top,
                self.root / folder,
                tuple(name for _, name in new[folder]),
                self.how if self.how != "move" else "copy",
                origins=tuple(source[start:] for source, _ in new[folder]),
            )
            for folder in sorted(new)  # a folder comes before those in it
        ]
        return [*whole, *self._one_by_one(single)]

    def _one_by_one(self, pairs: Sequence[tuple[str, str]]) -> list[Action]:
        if self.how != "move":
            return [Place(self.root / source, self.root / path, self.how) for source, path in pairs]
        uses = Counter(source for source, _ in pairs)
        actions: list[Action] = []
        for source, path in pairs:
            uses[source] -= 1  # the last picture that shares a caption gets the file itself
            ends = self.root / source, self.root / path
            actions.append(Place(*ends, "copy") if uses[source] else Move(*ends))
        return actions

    def take(self, one: Picture, record: Record | None) -> None:
        """Plan for one picture."""
        after = self._take_new(one) if record is None else self._take_known(one, record)
        if after != record:
            value = None if after is None else after.as_json()
            self._notes.append(SetFact(one.content, ARRANGED, value, source_of(self.state.top)))
        if after is not None and after.hand != "removed":
            self.folders[split(after.path)[0]] += 1

    # One picture; each gives its record afterwards, None where it is not in the tree by us

    def _take_new(self, one: Picture) -> Record | None:
        if one.why_out or one.source is None:
            return None
        present = self.places.get(one.content)
        if not present:
            return self._put(one)
        wanted = join(self.state.inside(one.folder), one.name)
        if wanted not in present:
            self.by_hand["put there by hand"] += 1
            return None
        self.counts["recognised"] += 1  # the catalogue was lost, or another tool made the tree
        return self._with_sidecars(one, Record(wanted, one.source, self.how))

    def _take_known(self, one: Picture, record: Record) -> Record | None:
        places = self.places.get(one.content, [])
        here = record.path if record.path in places else next(iter(places), None)
        if here is None:
            return self._take_missing(one, record)
        if here != record.path:
            record = self._follow(record, here)
        if record.hand == "moved" and (one.why_out or split(here)[0] != self.state.inside(one.folder)):
            self.by_hand["moved by hand: they stay there"] += 1
            if one.why_out:
                self.by_hand["moved by hand and dropped since: they stay there"] += 1
            return self._with_sidecars(one, record)
        if one.why_out:
            return self._take_out(one, record)
        return self._with_sidecars(one, self._in_its_folder(one, record))

    def _take_missing(self, one: Picture, record: Record) -> Record | None:
        if one.why_out and _is_broken_link(self.root / record.path):
            return self._take_out(one, record)
        if self.state.holds(record.path):
            self.by_hand["replaced by another picture: that stays"] += 1
            return record
        if one.why_out or one.source is None:
            return None
        if self.puts_back or not self.places:
            return self._put(one)
        self.by_hand["taken out by hand: they stay out"] += 1
        return replace(record, hand="removed")

    def _take_out(self, one: Picture, record: Record) -> Record | None:
        folder, name = split(record.path)
        for found in (name, *self.state.sidecars(record.path)):
            path = join(folder, found)
            self.state.leave(path)
            self._drops.append(Drop(self.root / path, one.why_out))
        self.counts["dropped"] += 1
        self._notes.append(SetOutcome(one.content, STAGE, "dropped", one.why_out))
        return None

    def _put(self, one: Picture) -> Record:
        assert one.source is not None
        folder = self.state.inside(one.folder)
        path = join(folder, self.state.free_name(folder, one.name, one.content))
        self._placed.append((one.source, path))
        self.counts["placed"] += 1
        self._notes.append(SetOutcome(one.content, STAGE, "kept"))
        return self._with_sidecars(one, Record(path, one.source, self.how))

    def _in_its_folder(self, one: Picture, record: Record) -> Record:
        """Move a picture, with all that lies beside it, to the folder where it belongs now."""
        folder, name = split(record.path)
        wanted = self.state.inside(one.folder)
        if folder == wanted:
            return replace(record, hand="")
        path = join(wanted, self.state.free_name(wanted, name, one.content))
        self._move(record.path, path, "belongs there now")
        for sidecar in self.state.sidecars(record.path):
            target = sidecar_name(pattern_of(sidecar, name), split(path)[1])
            if not self.state.holds(join(wanted, target)):
                self._move(join(folder, sidecar), join(wanted, target), "beside its picture")
        self.counts["moved"] += 1
        return replace(record, path=path, hand="")

    def _follow(self, record: Record, here: str) -> Record:
        """A picture that a person moved: what was put beside it and stayed behind comes along."""
        folder, name = split(record.path)
        new_folder, new_name = split(here)
        is_alone = not self.state.has_stem(record.path)
        for pattern in record.sidecars if is_alone else ():
            old = join(folder, sidecar_name(pattern, name))
            new = join(new_folder, sidecar_name(pattern, new_name))
            if self.state.holds(old) and not self.state.holds(new):
                self._move(old, new, "its picture was moved by hand")
        return replace(record, path=here, hand="moved")

    # What lies beside it

    def _with_sidecars(self, one: Picture, record: Record) -> Record:
        """Bring captions and other texts up to date with those beside the source; edits by hand win."""
        if one.source is None:
            return record
        folder, name = split(record.path)
        marks = dict(record.sidecars)
        for pattern, source in self._sources_beside(one.source):
            path = join(folder, sidecar_name(pattern, name))
            now = self.state.origin(path)
            known = marks.get(pattern)
            if now is None:
                if known is not None and not self.puts_back:
                    self.by_hand["captions taken out by hand: they stay out"] += 1
                    continue
                marks[pattern] = mark_of(self.root / source)
                self._placed.append((source, path))
                self.counts["captions placed"] += 1
            elif not is_alike(self.root / source, self.root / now):
                wanted, found = mark_of(self.root / source), mark_of(self.root / now)
                if found == known and found != wanted and is_hash(found):
                    content = (self.root / source).read_bytes()
                    self._writes.append(Write(self.root / path, content, "changed beside its source", found))
                    self.counts["captions updated"] += 1
                    marks[pattern] = wanted
                elif found == wanted:
                    marks[pattern] = wanted
                else:
                    self.by_hand["captions edited in the tree: they stay"] += 1
            elif known is None:
                marks[pattern] = mark_of(self.root / source)
        return record if marks == record.sidecars else replace(record, sidecars=marks)

    def _sources_beside(self, source: str) -> Iterator[tuple[str, str]]:
        """(pattern, path) of each file beside a picture outside the tree."""
        folder, name = split(source)
        if folder not in self._beside_sources:
            names: list[str] = []
            with suppress(OSError):
                names = [entry.name for entry in os.scandir(self.root / folder) if entry.is_file()]
            self._beside_sources[folder] = sidecars_by_picture(names)
        for sidecar in self._beside_sources[folder].get(name, []):
            yield pattern_of(sidecar, name), join(folder, sidecar)

    # Actions

    def _move(self, source: str, destination: str, reason: str) -> None:
        self.state.move(source, destination)
        self._moves.append(Move(self.root / source, self.root / destination, reason))


def source_of(top: str) -> str:
    """Who says where a picture was put: one word for each tree."""
    return f"{STAGE}:{top}"


def record_of(value: Mapping[str, Any]) -> Record:
    """A record from the catalogue."""
    return Record(**value)


def mark_of(path: Path) -> str:
    """What tells one state of a sidecar from another: sha256 of its bytes, hex, or size and mtime of a large
    one.
    """
    status = path.stat()
    if status.st_size > HASHED_BYTES:
        return f"{status.st_size}:{status.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_hash(mark: str) -> bool:
    """Whether a mark tells the bytes."""
    return ":" not in mark


def is_alike(first: Path, second: Path) -> bool:
    """Whether two files are one by a link, or have one size and mtime, as a copy has."""
    one, other = first.stat(), second.stat()
    if one.st_ino and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino):  # 0: a disk without them
        return True
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _is_broken_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists()
