"""Cuts, flashes and fades, told from a short window of frames; positions count samples from 0."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.grids import (
    BOX_AREA,
    Grid,
    box_change,
    distance,
    halved,
    mean_and_median_change,
    mean_and_variance,
    mean_change,
    shift_between,
    structure_distance,
    variance_of_difference,
)

COARSE_CELLS = 160  # across, about: enough to tell scenes apart
LOOK_AHEAD = 6  # frames seen before one is decided on
CUT_DISTANCE = 0.45  # structure distance of neighbouring frames; pans stay below 0.3
FADE_MONOTONY = 0.9  # net change over summed change in a window; 1 is a pure fade, pans stay below 0.8
FADE_LEVELS = 3.0  # least net change of the mean over the window
FLASH_RETURN = 0.3  # of a cut's distance: the picture before is back
NOISE_FRAMES = 48
MOST_NOISE_LEVELS = 4.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the choice needs to know of one frame."""

    index: int  # counts up by one
    time_s: float
    grid: Grid  # uint8, [height, width], full range
    sharpness: float  # higher is sharper; any unit


@dataclass(slots=True)
class Measured:
    """A sample with what sets it apart from the one before."""

    sample: Sample
    coarse: Grid  # of about `COARSE_CELLS`
    mean: float
    variance: float
    change: float = 0.0  # mean absolute difference to the frame before, levels
    noise: float = 0.0  # median box change to the frame before, levels
    distance: float = 0.0  # structure distance to the frame before

    @property
    def grid(self) -> Grid:
        """The sample's."""
        return self.sample.grid


class FrameWindow:
    """The newest frames, and `LOOK_AHEAD` frames to each side of the one that is decided on."""

    def __init__(self) -> None:
        self.num_pushed = 0
        self._window: deque[Measured] = deque(maxlen=2 * LOOK_AHEAD + 2)
        self._noises: deque[float] = deque(maxlen=NOISE_FRAMES)
        self.noise = 0.0  # median box change between calm frames of the newest scene, in levels

    def push(self, sample: Sample) -> None:
        """Take the next frame in."""
        self._window.append(self._measure(sample))
        self.num_pushed += 1
        # of the calmest quarter of frames, as what moves or fades is no noise
        calm = sorted(self._noises)[len(self._noises) // 4] if self._noises else 0.0
        self.noise = min(MOST_NOISE_LEVELS, calm)

    def _measure(self, sample: Sample) -> Measured:
        coarse = sample.grid if sample.grid.shape[1] < 1.5 * COARSE_CELLS else halved(sample.grid)
        one = Measured(sample, coarse, *mean_and_variance(coarse))
        if not self._window:
            return one
        before = self._window[-1]
        variance = variance_of_difference(coarse, before.coarse, one.mean - before.mean)
        one.distance = structure_distance(before.mean, before.variance, one.mean, one.variance, variance)
        one.change, one.noise = mean_and_median_change(before.sample.grid, sample.grid)
        if one.distance >= CUT_DISTANCE:
            self._noises.clear()  # every scene has its own
        else:
            self._noises.append(one.noise)
        return one

    def at(self, position: int) -> Measured | None:
        """A measured frame by its position, if the window still or already holds it."""
        offset = position - (self.num_pushed - len(self._window))
        return self._window[offset] if 0 <= offset < len(self._window) else None

    def _around(self, position: int, before: int, after: int) -> Iterator[Measured]:
        for other in range(position - before, position + after + 1):
            found = self.at(other)
            if found is not None and other != position:
                yield found

    def is_cut(self, position: int) -> bool:
        """Say whether a new scene begins with a frame: neither a pan nor one step of a fade explains it."""
        one, before = self.at(position), self.at(position - 1)
        if one is None or before is None or one.distance < CUT_DISTANCE:
            return False
        after = self.at(position + 1)
        calmer = min(before.change, after.change if after is not None else 0.0)
        if one.change < 1.5 * calmer:
            return False  # one step of a fade, or of motion
        if max((other.distance for other in self._around(position, 5, 5)), default=0.0) < 0.3 * one.distance:
            return True
        return _distance_panned(before.coarse, one.coarse) >= 0.6 * CUT_DISTANCE

    def flash_length(self, position: int) -> int:
        """Frames from a cut until the picture before it is back; 0 when it is not soon."""
        before, one = self.at(position - 1), self.at(position)
        assert before is not None and one is not None
        for length in range(1, LOOK_AHEAD + 1):
            later = self.at(position + length)
            if later is None:
                return 0
            if distance(before.coarse, later.coarse) < FLASH_RETURN * one.distance:
                return length
        return 0

    def is_fading(self, position: int, shot_start: int) -> bool:
        """Whether a frame is part of a cross-fade, or of a fade to or from a plain picture.

        In a fade every cell goes one way: the change over a window is the sum of the changes in it.
        """
        one = self.at(position)
        assert one is not None
        if max(one.change, self._change_after(position)) < 0.6 + self.noise:
            return False
        first, last = self._window_in_shot(position, shot_start)
        if last - first < 4:
            return False
        start, end = self.at(first), self.at(last)
        assert start is not None and end is not None
        net = box_change(start.grid, end.grid)
        net_levels = float(net.mean()) / BOX_AREA
        steps = (self.at(other) for other in range(first + 1, last + 1))
        total = sum(max(0.0, step.change**2 - self.noise**2) ** 0.5 for step in steps if step is not None)
        if net_levels < FADE_LEVELS + self.noise or net_levels < FADE_MONOTONY * total:
            return False
        if float((net > BOX_AREA * (4 + 2 * self.noise)).mean()) < 0.3:
            return False
        from_ends = min(mean_change(one.grid, start.grid), mean_change(one.grid, end.grid))
        if from_ends < 0.04 * net_levels + self.noise * 0.5:
            return False
        right, down, response = shift_between(start.grid, end.grid)
        return response < 0.3 or max(abs(right), abs(down)) < 1.5

    def _change_after(self, position: int) -> float:
        after = self.at(position + 1)
        return after.change if after is not None else 0.0

    def _window_in_shot(self, position: int, shot_start: int) -> tuple[int, int]:
        """First and last position around a frame without a cut between."""
        first = max(position - LOOK_AHEAD, shot_start, self.num_pushed - len(self._window))
        last = position
        while last + 1 < self.num_pushed and last < position + LOOK_AHEAD and not self.is_cut(last + 1):
            last += 1
        return first, last


def _distance_panned(a: Grid, b: Grid) -> float:
    """Structure distance of what two frames share once the shift between them is taken out."""
    height, width = a.shape
    right, down, _ = shift_between(a, b)
    x, y = round(right), round(down)
    if abs(x) > width // 2 or abs(y) > height // 2:
        return distance(a, b)
    seen_a = a[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
    seen_b = b[max(0, y) : height - max(0, -y), max(0, x) : width - max(0, -x)]
    return distance(seen_a, seen_b)
