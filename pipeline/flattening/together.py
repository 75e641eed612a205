"""Moves of many folders that have nothing to do with each other, as one step of the journal."""

import os
from collections.abc import Iterable, Iterator

from pipeline.actions import FileAction, Move, MoveFolders
from pipeline.names import path_key

FEW = 32  # moves, up to which each is a step of its own, which the person sees and can stop at
MANY = 1000  # moves in one step: a line of the journal is read whole


def together(actions: Iterable[FileAction]) -> Iterator[FileAction]:
    """The same actions; moves of folders that follow one another and share no path become one action."""
    run: list[Move] = []
    paths: set[str] = set()
    above: set[str] = set()
    for action in actions:
        if not isinstance(action, Move):
            yield from _one(run)
            run, paths, above = [], set(), set()
            yield action
            continue
        ends = [path_key(os.fspath(end)) for end in (action.source, action.destination)]
        over = {folder for end in ends for folder in _folders_above(end)}
        is_met = not (paths.isdisjoint(ends) and paths.isdisjoint(over) and above.isdisjoint(ends))
        if run and (
            is_met or len(run) == MANY or action.as_is != run[0].as_is or action.reason != run[0].reason
        ):
            yield from _one(run)
            run, paths, above = [], set(), set()
        run.append(action)
        paths.update(ends)
        above.update(over)
    yield from _one(run)


def _one(run: list[Move]) -> Iterator[FileAction]:
    if len(run) <= FEW:
        yield from run
        return
    pairs = tuple((move.source, move.destination) for move in run)
    yield MoveFolders(pairs, run[0].reason, as_is=run[0].as_is)


def _folders_above(path: str) -> Iterator[str]:
    end = path.rfind(os.sep)
    while end > 0:
        yield path[:end]
        end = path.rfind(os.sep, 0, end)
