"""What a plan can ask for, as data: moves, links, copies, texts, folders, drops, notes in the catalogue.

Paths are absolute, or relative to the project's root; thousands of them are quicker made as text.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

AnyPath = Path | str
PlaceHow = Literal["hardlink", "copy", "symlink", "reflink"]


@dataclass(frozen=True, slots=True)
class Move:
    """Give a file, a link or a whole folder another path; folders above the destination are made.

    Args:
        as_is: this disk had the name before: what other systems refuse is not asked.
    """

    source: AnyPath
    destination: AnyPath
    reason: str = ""
    as_is: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Make a file appear at a second path; folders above it are made.

    Args:
        or_copy: where the disk cannot make a hard link or a reflink, make a copy.
    """

    source: Path
    destination: Path
    how: PlaceHow
    reason: str = ""
    or_copy: bool = False


@dataclass(frozen=True, slots=True)
class PlaceFolder:
    """Make a new folder that holds some of the files of another one; it appears whole or not at all.

    Args:
        source: a folder that is there before the plan begins.
        names: files of `source`, or links to files; each keeps its name.
        origins: where each of `names` lies below `source`, where it is called otherwise there or lies deeper;
            with forward slashes, one for each name, or none at all.
        or_copy: where the disk cannot make a hard link or a reflink, make a copy.
    """

    source: Path
    destination: Path
    names: tuple[str, ...]
    how: PlaceHow
    reason: str = ""
    or_copy: bool = False
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MoveFiles:
    """Move some of the entries of a folder into another folder, where each keeps its name.

    Args:
        names: files, links or folders in `source`.
    """

    source: AnyPath
    destination: AnyPath
    names: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MoveFolders:
    """Give many folders other paths, in one step of the journal; folders above the new ones are made.

    Args:
        pairs: (from, to); no path is another one of them, or lies in one.
        as_is: this disk had the names before: what other systems refuse is not asked.
    """

    pairs: tuple[tuple[AnyPath, AnyPath], ...]
    reason: str = ""
    as_is: bool = False


@dataclass(frozen=True, slots=True)
class Relink:
    """Point a symbolic link elsewhere.

    Args:
        target: the new text of the link.
        expects: its text as it is.
    """

    path: Path
    target: str
    expects: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Write:
    """Write a whole file; folders above it are made.

    Args:
        expects: sha256 in hex of the file that is replaced; None means that there must be none.
    """

    path: Path
    content: str | bytes
    reason: str = ""
    expects: str | None = None


@dataclass(frozen=True, slots=True)
class MakeFolder:
    """Make a folder and those above it; one that exists is left as it is.

    Args:
        mode: permission bits; the system's own when left out.
        as_is: this disk had the name before: what other systems refuse is not asked.
    """

    path: AnyPath
    reason: str = ""
    mode: int | None = None
    as_is: bool = False


@dataclass(frozen=True, slots=True)
class RemoveFolder:
    """Remove a folder if it is empty when its turn comes; otherwise it stays."""

    path: AnyPath
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Drop:
    """Move a file or folder to `.celforge/dropped/<run>/`, below which it keeps its relative path."""

    source: Path
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SetOutcome:
    """Note in the catalogue how a stage ended for a content (sha256 of a file's bytes, hex)."""

    content: str
    stage: str
    outcome: str
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SetFact:
    """Note in the catalogue what `source` says about a content; the value is JSON."""

    content: str
    name: str
    value: Any
    source: str
    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class ClearFact:
    """Take out of the catalogue what `source` says about a content under one name."""

    content: str
    name: str
    source: str


FileAction = (
    Move | MoveFiles | MoveFolders | Place | PlaceFolder | Relink | Write | MakeFolder | RemoveFolder | Drop
)
RowAction = SetOutcome | SetFact | ClearFact  # of the catalogue
Action = FileAction | RowAction


class CatalogWriter(Protocol):
    """The catalogue as a journal sees it: rows as plain values, None where there is no row."""

    def read_outcome(self, content: str, stage: str) -> dict[str, Any] | None:
        """How a stage ended for a content."""

    def write_outcome(self, content: str, stage: str, row: Mapping[str, Any] | None) -> None:
        """Put a row in its place; None removes it."""

    def read_fact(self, content: str, name: str, source: str) -> dict[str, Any] | None:
        """What a source says about a content."""

    def write_fact(self, content: str, name: str, source: str, row: Mapping[str, Any] | None) -> None:
        """Put a row in its place; None removes it."""

    def transaction(self) -> AbstractContextManager[None]:
        """All that is written inside is there afterwards, or nothing of it."""
        ...


def action_rows(action: Action) -> Iterator[dict[str, str]]:
    """The lines of an action in the table that --dry-run prints: one, or one for each of many folders."""
    if isinstance(action, MoveFolders):
        for source, destination in action.pairs:
            yield action_row(Move(source, destination, action.reason))
    else:
        yield action_row(action)


def action_row(action: Action) -> dict[str, str]:
    """One line of that table: action, source, destination, reason."""
    assert not isinstance(action, MoveFolders), "a line for each of its folders: action_rows"
    source, destination = "", ""
    match action:
        case Move():
            name, source, destination = "move", str(action.source), str(action.destination)
        case Place():
            name, source, destination = action.how, str(action.source), str(action.destination)
        case PlaceFolder():
            name = f"{action.how} {len(action.names):,} files"
            source, destination = str(action.source), str(action.destination)
        case MoveFiles():
            name = f"move {len(action.names):,} files"
            source, destination = str(action.source), str(action.destination)
        case Relink():
            name, source, destination = "point elsewhere", str(action.path), action.target
        case Write():
            name, destination = ("write" if action.expects is None else "overwrite"), str(action.path)
        case MakeFolder():
            name, destination = "make folder", str(action.path)
        case RemoveFolder():
            name, source = "remove folder", str(action.path)
        case Drop():
            name, source = "drop", str(action.source)
        case SetOutcome():
            name, source, destination = (
                "note outcome",
                action.content[:12],
                f"{action.stage}: {action.outcome}",
            )
        case SetFact():
            name, source, destination = "note fact", action.content[:12], f"{action.name} = {action.value!r}"
        case ClearFact():
            name, source, destination = (
                "forget fact",
                action.content[:12],
                f"{action.name} by {action.source}",
            )
    reason = "" if isinstance(action, SetFact | ClearFact) else action.reason
    return {"action": name, "source": source, "destination": destination, "reason": reason}
