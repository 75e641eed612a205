"""Sampling weights over a tree of folders, and the `multiply` of each that makes a trainer see them so.

The folders below a folder, and its own pictures where it holds some, share what it gets in proportion to
their weights; a picture of a folder that gets p and holds n pictures is seen p/n of the time. `compatible`
turns this into multiplies as anime_screenshot_pipeline does (balancing), where a cap simply cuts. `exact`
keeps caps and floors without breaking the proportions around them: what one folder may not take, or has to
take, is made good by those that share with it, in proportion, before anything outside notices.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from pipeline.folder_weights import WeightRules
from pipeline.names import natural_key

EXACT_DIGITS = 6
COMPATIBLE_DIGITS = 2
STEPS = 1_000_000  # of the last digit in 1
STEP = 1 / STEPS
HALVINGS = 100  # of the search for the shortest epoch, at most
CLOSE = 1e-13  # relative; no multiply of six digits can tell the difference


@dataclass(frozen=True, slots=True)
class Leaf:
    """The pictures of one folder.

    Args:
        path: below the tree, with forward slashes; "" is the tree's own folder.
        num_images: at least 1.
        fixed: a multiply that stays as it is, or None.
    """

    path: str
    num_images: int
    fixed: float | None = None


@dataclass(slots=True)
class Node:
    """A folder, or the pictures directly in one; what shares one parent's part."""

    path: str
    weight: float
    leaf: Leaf | None = None
    children: list["Node"] = field(default_factory=list)

    @property
    def num_images(self) -> int:
        """Pictures in it, at any depth."""
        return self.leaf.num_images if self.leaf else sum(child.num_images for child in self.children)


@dataclass(frozen=True, slots=True)
class Balanced:
    """What one folder gets.

    Args:
        share: its part of all draws by the weights alone, 0 to 1.
        multiply: as it is written.
        note: why the multiply is another than the share asks for: "at the cap", "at the floor", "by hand".
    """

    leaf: Leaf
    share: float
    multiply: float
    note: str = ""

    @property
    def exposures(self) -> float:
        """How often its pictures are seen in one epoch, together."""
        return self.multiply * self.leaf.num_images


def weight_tree(leaves: Sequence[Leaf], rules: WeightRules, temperature: float | None = None) -> Node:
    """Folders with pictures below them, as nodes; folders without any have no part.

    Args:
        temperature: T; the weight of everything is multiplied by (number of its pictures)^(1/T), the usual
            sampling of unequal corpora (arXiv:1901.07291, section 3.1, with alpha = 1/T): 1 keeps the numbers
            as they are, more is nearer to equal parts. None gives equal parts.
    """
    root = Node("", rules.weight(""))
    nodes = {"": root}
    for leaf in sorted(leaves, key=lambda leaf: natural_key(leaf.path)):
        parts = leaf.path.split("/") if leaf.path else []
        for depth in range(len(parts)):
            path = "/".join(parts[: depth + 1])
            if path not in nodes:
                nodes[path] = Node(path, rules.weight(path))
                nodes["/".join(parts[:depth])].children.append(nodes[path])
        nodes[leaf.path].children.append(Node(leaf.path, nodes[leaf.path].weight, leaf))
    if temperature is not None:
        for node in nodes.values():
            for child in node.children:
                child.weight *= child.num_images ** (1 / temperature)
    return root


def shares(root: Node) -> dict[str, float]:
    """The part of all draws that each folder's own pictures get, by path; they add up to 1."""
    found: dict[str, float] = {}
    waiting = [(root, 1.0)]
    while waiting:
        node, part = waiting.pop()
        if node.leaf is not None:
            found[node.path] = part
            continue
        weights = np.array([child.weight for child in node.children])
        parts = part * (weights / np.sum(weights))
        waiting += zip(node.children, (float(one) for one in parts), strict=True)
    return found


def balance_compatible(
    leaves: Sequence[Leaf], root: Node, *, min_multiply: float, max_multiply: float
) -> list[Balanced]:
    """Multiplies as anime_screenshot_pipeline writes them, to the last bit: the least is `min_multiply`, all
    are rounded to two digits, half to even, then cut at `max_multiply`. A fixed one stays as it is.
    """
    part = shares(root)
    each = np.array([part[leaf.path] for leaf in leaves]) / np.array([leaf.num_images for leaf in leaves])
    wanted = each / np.min(each) * min_multiply
    written = np.minimum(np.around(wanted, COMPATIBLE_DIGITS), max_multiply)
    found = []
    for leaf, multiply in zip(leaves, written, strict=True):
        note = "cut at the cap" if multiply == max_multiply and leaf.fixed is None else ""
        if leaf.fixed is not None:
            multiply, note = leaf.fixed, "by hand"
        found.append(Balanced(leaf, part[leaf.path], float(multiply), note))
    return found


@dataclass(frozen=True, slots=True)
class Bounds:
    """Least and most multiply of every folder that is not fixed."""

    low: float
    high: float


def balance_exact(
    leaves: Sequence[Leaf], root: Node, bounds: Bounds, target_images: float | None = None
) -> list[Balanced]:
    """Multiplies that keep caps and floors, and all proportions that these leave free.

    Args:
        bounds: of multiplies. Without a target the floor is what the least multiply comes to.
        target_images: pictures seen in one epoch; the nearest number that the bounds allow.
    """
    part = shares(root)
    if target_images is None:
        totals = _shortest_epoch(root, part, leaves, bounds)
    else:
        totals = fill(root, target_images, bounds)
    found = []
    for leaf in leaves:
        multiply = totals[leaf.path] / leaf.num_images
        note = ""
        if leaf.fixed is not None:
            multiply, note = leaf.fixed, "by hand"
        elif math.isclose(multiply, bounds.high):
            note = "at the cap"
        elif target_images is not None and math.isclose(multiply, bounds.low):
            note = "at the floor"
        written = multiply if note == "by hand" else rounded_up(multiply, bounds.high)
        found.append(Balanced(leaf, part[leaf.path], written, note))
    return _with_whole_sum(found, bounds)


def rounded_up(multiply: float, high: float) -> float:
    """The number with six digits at or above a multiply, but for the cap itself.

    EveryDream2 shows the whole part of the sum over all pictures in an epoch: a number rounded down would
    cost a picture wherever that sum is whole (14 pictures of 54 / 14 are 54). Rounded up, a million pictures
    are less than one too many. The last bits, which are errors of the reckoning, do not count.
    Never 0, which EveryDream2 takes for 1.
    """
    steps = math.ceil(round(multiply * STEPS, 4))
    return min(max(steps, 1) / STEPS, high)


def _with_whole_sum(found: list[Balanced], bounds: Bounds) -> list[Balanced]:
    """The same, or one folder by the last digit higher: as long as a trainer that adds up floats, picture by
    picture, comes to less than the sum is (ten times 0.1 are 0.9999999999999999).
    """
    exact = sum(Fraction(str(one.multiply)) * one.leaf.num_images for one in found)
    added = sum(multiply for one in found for multiply in [one.multiply] * one.leaf.num_images)
    can_grow = [
        one
        for one in found
        if one.leaf.fixed is None and one.multiply + STEP <= bounds.high and one.multiply % 1
    ]
    if added >= math.floor(exact) or not can_grow:
        return found
    largest = max(can_grow, key=lambda one: one.leaf.num_images)
    more = replace(largest, multiply=round(largest.multiply + STEP, EXACT_DIGITS))
    return [more if one is largest else one for one in found]


def _shortest_epoch(
    root: Node, part: Mapping[str, float], leaves: Sequence[Leaf], bounds: Bounds
) -> dict[str, float]:
    """The least draws an epoch for which no free folder's multiply lies below the floor, else without one."""
    free = [leaf for leaf in leaves if leaf.fixed is None]
    upward = _Shares(root, Bounds(0.0, bounds.high))
    if not free:
        return upward.fill(0.0)

    def least(total: float) -> float:
        totals = upward.fill(total)
        return min(totals[leaf.path] / leaf.num_images for leaf in free)

    enough = bounds.low / min(part[leaf.path] / leaf.num_images for leaf in free)
    has_fixed = len(free) < len(leaves)
    while has_fixed and least(enough) < bounds.low and enough < 1e15:
        enough *= 2
    if not has_fixed and all(enough * part[leaf.path] / leaf.num_images <= bounds.high for leaf in leaves):
        return upward.fill(enough)  # no cap is met
    low, high = 0.0, enough
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if high - low <= high * CLOSE:
            break
        low, high = (low, middle) if least(middle) >= bounds.low else (middle, high)
    return upward.fill(high)


def fill(root: Node, total: float, bounds: Bounds) -> dict[str, float]:
    """Share a number of draws over the tree: at each folder in proportion to the weights, as far as what lies
    below can take it and no less than it must.

    Returns: draws of each folder's own pictures, by path; they add up to `total`, or to the nearest sum that
        the bounds allow.
    """
    return _Shares(root, bounds).fill(total)


class _Shares:
    """A tree with what each folder must and can take, which is asked many times."""

    def __init__(self, root: Node, bounds: Bounds) -> None:
        self._root = root
        self._bounds = bounds
        self._parts: dict[int, _Parts] = {}
        self._limits = self._limit(root)

    def fill(self, total: float) -> dict[str, float]:
        """As `fill`."""
        found: dict[str, float] = {}
        waiting = [(self._root, min(max(total, self._limits[0]), self._limits[1]))]
        while waiting:
            node, draws = waiting.pop()
            if node.leaf is not None:
                found[node.path] = draws
            elif len(node.children) == 1:
                waiting.append((node.children[0], draws))
            else:
                waiting += zip(node.children, self._parts[id(node)].share_out(draws), strict=True)
        return found

    def _limit(self, node: Node) -> tuple[float, float]:
        """Least and most draws of a node and of all below it."""
        if node.leaf is not None:
            fixed = node.leaf.fixed
            low, high = (self._bounds.low, self._bounds.high) if fixed is None else (fixed, fixed)
            return low * node.leaf.num_images, high * node.leaf.num_images
        lows, highs = zip(*map(self._limit, node.children), strict=True)
        if len(node.children) > 1:
            self._parts[id(node)] = _Parts([child.weight for child in node.children], lows, highs)
        return math.fsum(lows), math.fsum(highs)


def share_out(
    total: float, weights: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> list[float]:
    """Parts t * weight, each held between its low and its high, with the t for which they add up to `total`.

    Those that meet no bound are in proportion to their weights. `total` must lie between the sums of bounds.
    """
    return _Parts(weights, lows, highs).share_out(total)


class _Parts:
    """Weights with bounds; the sum of all parts grows in straight pieces with t, from turn to turn."""

    def __init__(self, weights: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> None:
        self._weights, self._lows, self._highs = (
            np.array(values, dtype=np.float64) for values in (weights, lows, highs)
        )
        bounds = (self._lows / self._weights, self._highs / self._weights)
        self._turns = np.unique(np.concatenate(bounds))  # every t at which a part meets a bound

    def share_out(self, total: float) -> list[float]:
        """As `share_out`."""
        begin, end = 0, len(self._turns) - 1
        while end - begin > 1:
            middle = (begin + end) // 2
            begin, end = (middle, end) if self._sum(self._turns[middle]) <= total else (begin, middle)
        level, above = self._turns[begin], self._turns[end]
        sum_below, sum_above = self._sum(level), self._sum(above)
        if sum_above > sum_below:
            level += (above - level) * min(1.0, max(0.0, (total - sum_below) / (sum_above - sum_below)))
        return [float(part) for part in self._at(level)]

    def _at(self, level: float) -> "np.ndarray":
        return np.minimum(np.maximum(level * self._weights, self._lows), self._highs)

    def _sum(self, level: float) -> float:
        return float(np.sum(self._at(level)))


def multiply_text(multiply: float, *, compatible: bool) -> str:
    """What is written to multiply.txt: `2.35`, `1.0` as anime_screenshot_pipeline does, or `1`."""
    if compatible:
        return str(multiply)
    return f"{multiply:.{EXACT_DIGITS}f}".rstrip("0").rstrip(".")
