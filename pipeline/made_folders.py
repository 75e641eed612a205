"""Folders that celforge itself fills with links to or copies of a project's pictures: trees, reports, grids.

A mark in such a folder says so. A command that is given a folder above it passes it over, so that the same
picture is not met twice, as itself and as its own duplicate; a command that is given the folder itself, or
one inside, works on it as on any other. Where a plan wrote the mark, undo takes it away with the folder.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.actions import Write

MARK = ".celforge-made"


def mark_made(folder: Path, stage: str) -> Iterator[Write]:
    """What a plan that fills `folder` asks for besides: the mark, unless it is there."""
    if not (folder / MARK).exists():
        text = (
            f"Made by `celforge {stage}` from files that lie elsewhere. "
            "Commands that are given a folder above this one pass it over.\n"
        )
        yield Write(folder / MARK, text, "marks what celforge made")


class MadeFolders:
    """Answers whether paths lie in a marked folder somewhere below `top`; each folder is looked at once.

    Args:
        root: of the project.
        top: what the command was given, relative to the root, "" for the root itself.
    """

    def __init__(self, root: Path, top: str) -> None:
        self._root = root
        self._known = dict.fromkeys((top, *_parents(top)), False)

    def holds(self, folder: str) -> bool:
        """Say whether a folder, relative to the root, is marked or lies in one that is."""
        if folder not in self._known:
            parent = folder.rpartition("/")[0]
            self._known[folder] = self.holds(parent) or (self._root / folder / MARK).is_file()
        return self._known[folder]


def _parents(folder: str) -> Iterator[str]:
    if folder:
        for parent in PurePosixPath(folder).parents:
            yield "" if str(parent) == "." else str(parent)
