"""Groups of near-duplicates: each a star round one picture, so that a pan, in which every picture is near the
next, never becomes one group.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Member(Generic[T]):
    """A picture of a group, and what it is to the group's first."""

    picture: int
    found: T


def star_groups(
    order: Sequence[int],
    near: Callable[[int, Sequence[int]], Iterable[int]],
    same: Callable[[int, int], T | None],
    fits: Callable[[int, Sequence[int]], bool] = lambda _picture, _members: True,
) -> dict[int, list[Member[T]]]:
    """Take pictures in turn: each joins the first group whose first picture it is the same as, or begins one.

    Args:
        order: the pictures, those that should begin groups first.
        near: of a picture and those that begin groups so far, in their order, the ones worth comparing with.
        same: what the second is to the first where they are the same picture, else None.
        fits: whether nothing speaks against a picture among those of a group that it would join.

    Returns: the groups by the picture that began them, those of one picture too.
    """
    groups: dict[int, list[Member[T]]] = {}
    firsts: list[int] = []
    for picture in order:
        for first in near(picture, firsts):
            found = same(first, picture)
            if found is not None and fits(picture, [one.picture for one in groups[first]]):
                groups[first].append(Member(picture, found))
                break
        else:
            groups[picture] = []
            firsts.append(picture)
    return groups
