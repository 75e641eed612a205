"""Whole numbers of repeats from the fractions of multiply.txt.

`split` keeps fractions exactly: of 100 pictures with 2.4, forty get 3 repeats and sixty get 2. Which ones is
drawn from the seed and their names, so that it is the same on every run and every machine.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

Fractions = Literal["split", "round", "floor", "ceil", "scale"]


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures that share one multiply: those of a folder, mostly.

    Args:
        together: pictures that share a sidecar, and so their repeats, as name to what they share.
    """

    where: str
    multiply: Fraction
    names: Sequence[str]
    together: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_images(self) -> int:
        """How many pictures it has."""
        return len(self.names)

    @property
    def multiplicity(self) -> Fraction:
        """How often its pictures are seen in one pass."""
        return self.multiply * self.num_images


def assign(
    groups: Sequence[Group], fractions: Fractions, *, seed: int, max_scale: int
) -> tuple[list[dict[int, list[str]]], int]:
    """Pictures of every group by their repeats, and the factor that all of them were multiplied by.

    Only `split` gives 0 to a picture, and never to a whole group; only `scale` has a factor above 1.
    Namesakes that share a caption get one number, so that a group of nothing but such pairs cannot have an
    odd sum: where no choice of them makes the sum, it is the next higher one that can be made.
    """
    if fractions != "split":
        scale = best_scale(groups, max_scale) if fractions == "scale" else 1
        how = "round" if fractions == "scale" else fractions
        return [_all(group, whole_repeats(group.multiply * scale, how)) for group in groups], scale
    totals = apportion([group.multiplicity for group in groups], [group.num_images for group in groups])
    return [_split(group, total, seed) for group, total in zip(groups, totals, strict=True)], 1


def whole_repeats(multiply: Fraction, how: Literal["round", "floor", "ceil"]) -> int:
    """The nearest whole number (halves up), the one below or the one above; never below 1."""
    half = Fraction(1, 2)
    whole = {"round": math.floor(multiply + half), "floor": math.floor(multiply), "ceil": math.ceil(multiply)}
    return max(1, whole[how])


def best_scale(groups: Sequence[Group], max_scale: int) -> int:
    """The factor, 1 to `max_scale`, that makes all multiplies together most nearly whole.

    The error is the sum over pictures of |repeats - factor * multiply|, as a share of the sum of
    factor * multiply; of equal errors the smallest factor is taken.
    """

    def error(scale: int) -> Fraction:
        wanted = [(group.num_images, group.multiply * scale) for group in groups]
        off = sum((n * abs(whole_repeats(value, "round") - value) for n, value in wanted), Fraction())
        total = sum((n * value for n, value in wanted), Fraction())
        return off / total if total else Fraction()

    return min(range(1, max_scale + 1), key=lambda scale: (error(scale), scale))


def apportion(wanted: Sequence[Fraction], num_images: Sequence[int]) -> list[int]:
    """Whole numbers next to each wanted one, whose sum is the whole part of the wanted sum.

    The remainders decide who gets the one above (largest first, then in order). No group that has pictures
    gets 0; when that alone is more than the wanted sum, the sum is higher.
    """
    least = [
        max(1, math.floor(value)) if count else 0 for value, count in zip(wanted, num_images, strict=True)
    ]
    if all(value.denominator == 1 for value in wanted):  # most trees, and arithmetic of fractions is slow
        return least
    rest = math.floor(sum(wanted, Fraction())) - sum(least)
    remainders = [value - low for value, low in zip(wanted, least, strict=True)]
    order = sorted(range(len(wanted)), key=lambda index: (-remainders[index], index))
    for index in order[: max(0, rest)]:
        if remainders[index] > 0:
            least[index] += 1
    return least


def _all(group: Group, repeats: int) -> dict[int, list[str]]:
    return {repeats: list(group.names)} if group.names else {}


def _split(group: Group, total: int, seed: int) -> dict[int, list[str]]:
    if not group.names:
        return {}
    low, left = divmod(total, group.num_images)
    if not left:
        return _all(group, low)
    key = hashlib.blake2b(f"{seed}\0{group.where}\0".encode("utf-8", "surrogatepass"), digest_size=16)
    units: dict[str, list[str]] = {}
    for name in group.names:
        units.setdefault(group.together.get(name, name), []).append(name)
    drawn = sorted(units.values(), key=lambda unit: _draw(key, unit[0]))
    more = {name for unit in _chosen(drawn, left) for name in unit}
    parts = {
        low + 1: [name for name in group.names if name in more],
        low: [name for name in group.names if name not in more],
    }
    return {repeats: names for repeats, names in parts.items() if names}


def _draw(key: "hashlib.blake2b", name: str) -> bytes:
    draw = key.copy()
    draw.update(name.encode("utf-8", "surrogatepass"))
    return draw.digest()


def _chosen(drawn: Sequence[list[str]], wanted: int) -> list[list[str]]:
    """Some of the units, those drawn first, that hold so many pictures; the fewest above it if none do.

    A choice of a number of units of each size: as many of each as a walk through the draw would take, or as
    near to that as the sum allows.
    """
    by_size: dict[int, list[list[str]]] = {}
    for unit in drawn:
        by_size.setdefault(len(unit), []).append(unit)
    sizes = sorted(by_size)
    made = [1]  # bit n of the last: some units of the sizes so far hold n pictures
    for size in sizes:
        made.append(_sums(made[-1], size, len(by_size[size])))
    left = wanted
    while not made[-1] >> left & 1:
        left += 1
    walked = _walked(drawn, left)
    chosen: list[list[str]] = []
    for size, below in zip(reversed(sizes), reversed(made[:-1]), strict=True):
        most = min(len(by_size[size]), left // size)
        counts = [count for count in range(most + 1) if below >> (left - count * size) & 1]
        count = min(counts, key=lambda count: abs(count - walked[size]))
        chosen += by_size[size][:count]
        left -= count * size
    return chosen


def _sums(made: int, size: int, count: int) -> int:
    """Sums of those known and of 0 to `count` things of a size, as bits."""
    step = 1
    while count:
        step = min(step, count)
        made |= made << (size * step)
        count -= step
        step *= 2
    return made


def _walked(drawn: Sequence[list[str]], left: int) -> Counter[int]:
    """Units of each size that are taken when one goes through a draw and takes what still fits."""
    taken: Counter[int] = Counter()
    for unit in drawn:
        if len(unit) <= left:
            left -= len(unit)
            taken[len(unit)] += 1
    return taken
