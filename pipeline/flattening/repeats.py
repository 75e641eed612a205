"""Whole numbers of repeats from the fractions of multiply.txt.

`split` keeps fractions exactly: of 100 pictures with 2.4, forty get 3 repeats and sixty get 2. Which ones is
drawn from the seed and their names, so that it is the same on every run and every machine.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Fractions = Literal["split", "round", "floor", "ceil", "scale"]


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures that share one multiply: those of a folder, mostly.

    Args:
        units: pictures that stay together, because they share a sidecar; mostly one each.
    """

    where: str
    multiply: Fraction
    units: Sequence[tuple[str, ...]]

    @property
    def num_images(self) -> int:
        """How many pictures it has."""
        return sum(map(len, self.units))

    @property
    def multiplicity(self) -> Fraction:
        """How often its pictures are seen in one pass."""
        return self.multiply * self.num_images


def assign(
    groups: Sequence[Group], fractions: Fractions, *, seed: int, max_scale: int
) -> tuple[list[dict[str, int]], int]:
    """Repeats of every picture of every group, and the factor that all of them were multiplied by.

    Only `split` gives 0 to a picture, and never to a whole group; only `scale` has a factor above 1.
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
    rest = math.floor(sum(wanted, Fraction())) - sum(least)
    remainders = [value - low for value, low in zip(wanted, least, strict=True)]
    order = sorted(range(len(wanted)), key=lambda index: (-remainders[index], index))
    for index in order[: max(0, rest)]:
        if remainders[index] > 0:
            least[index] += 1
    return least


def _all(group: Group, repeats: int) -> dict[str, int]:
    return {name: repeats for unit in group.units for name in unit}


def _split(group: Group, total: int, seed: int) -> dict[str, int]:
    if not group.units:
        return {}
    low, left = divmod(total, group.num_images)
    repeats = _all(group, low)
    if not left:
        return repeats
    passed_over: list[tuple[str, ...]] = []
    for unit in sorted(group.units, key=lambda unit: _draw(seed, group.where, unit[0])):
        if not left:
            return repeats
        if len(unit) > left:
            passed_over.append(unit)
            continue
        left -= len(unit)
        repeats.update(dict.fromkeys(unit, low + 1))
    if left:  # only namesakes are left: rather once too often than never
        smallest = min(passed_over, key=len)
        repeats.update(dict.fromkeys(smallest, low + 1))
    return repeats


def _draw(seed: int, where: str, name: str) -> bytes:
    text = f"{seed}\0{where}\0{name}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()
