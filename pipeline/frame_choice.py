"""Which frames of a video are worth keeping, decided as they stream by: small grey grids in, decisions out.

A picture is a run of frames that differ by no more than noise (animation holds a drawing for two, three or a
hundred frames). Each distinct picture that is held long enough is kept once, by its sharpest frame; what
moves all the time gives a frame now and then; cuts part shots. Decisions come a few frames late, as a flash
and a cross-fade only show afterwards. The same samples always give the same decisions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.grids import (
    BASE_LEVELS,
    BOX_AREA,
    BoxSums,
    FloatGrid,
    Grid,
    changes_less,
    is_flat,
    is_same,
    motion_extent,
    thumb,
    tolerance,
)
from pipeline.picture_kinds import kind_of_picture
from pipeline.picture_memory import PictureMemory
from pipeline.shots import LOOK_AHEAD, FrameWindow, Measured, Sample

FLASH_FRAMES = 4  # a flat picture between two cuts, no longer than this, is a flash
ANCHOR_FRAMES = 4  # first frames of a run, whose mean it is measured against
MOST_PENDING = 8  # short pictures waiting; each holds a full frame
PENDING_S = 1.0
SLOW_EXCESS = Fraction(2)  # of the frame after a run: what goes over into the next picture bit by bit is less
DRIFT_EXCESS = Fraction(3, 5)  # of the last frame of a run over its first ones, where a camera moves slowly
MOVE_EXTENT = 0.15  # of the picture: a camera move that shows enough that is new

Skippable = Literal["black", "white", "title", "flash", "fade"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one frame; every frame gets exactly one."""

    index: int
    time_s: float
    is_kept: bool
    reason: str
    shot: int  # counts from 1
    grid: Grid | None = None  # of a kept frame: its picture, for later comparison


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What counts as worth keeping."""

    hold_s: float = 0.195  # a picture shown this long is always kept once; 5 frames at 24 fps
    motion_interval_s: float = 0.5  # between frames of what never holds still
    base_levels: float = BASE_LEVELS  # smallest mean change of a box that is another picture
    most_per_shot: int | None = None  # spread over the shot
    has_memory: bool = True  # pictures that come again are dropped
    skip: frozenset[str] = frozenset()  # of Skippable: never kept, not even as the only frame of a shot


@dataclass(slots=True)
class _Run:
    """Frames of one picture, in a row or, once merged, in several."""

    start_s: float
    end_s: float
    grid: Grid  # mean of the first frames
    total: NDArray[np.uint16]  # their sum
    num_summed: int
    tolerated: BoxSums
    best: Sample
    num_frames: int = 1
    num_fading: int = 0
    is_flash: bool = False
    begins_slowly: bool = False  # the picture before went over into it bit by bit
    ends_slowly: bool = False
    drifts: bool = False
    held_s: float = 0.0
    last: Grid | None = None
    thumb: FloatGrid | None = None  # once it waits
    most_tolerated: int = 0  # of any box, the same

    @property
    def is_fading(self) -> bool:
        return 2 * self.num_fading > self.num_frames


@dataclass(slots=True)
class _Shot:
    number: int
    start_s: float
    first_index: int
    last_grid: Grid | None = None  # of the newest kept picture
    last_s: float = 0.0  # when a frame was last taken or refused, or the start of the shot
    kept_s: float = -1e9  # time of the newest kept frame
    has_picture: bool = False
    pending: list[_Run] = field(default_factory=list)
    newest: _Run | None = None  # closed last
    resort: _Run | None = None  # kept when the shot has nothing better
    held_back: list[Decision] = field(default_factory=list)  # while most_per_shot may still thin them


class FrameChooser:
    """Feed samples in order; take decisions as they come, then `finish`."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.cuts: list[int] = []  # index of the first frame after each cut
        self._window = FrameWindow()
        self._memory = PictureMemory()
        self._run: _Run | None = None
        self._shot: _Shot | None = None
        self._flash_until = -1
        self._next = 0  # position in the window counted from the first sample ever
        self._decided: list[Decision] = []

    def push(self, sample: Sample) -> list[Decision]:
        """Take the next frame in; gives what is decided by now."""
        self._window.push(sample)
        if self._window.num_pushed > LOOK_AHEAD:
            self._process()
        return self._take_decided()

    def finish(self) -> list[Decision]:
        """No more frames: decide on all that wait."""
        while self._next < self._window.num_pushed:
            self._process()
        if self._run is not None and self._shot is not None:
            frames = max(1, self._run.num_frames)
            typical_s = (self._run.end_s - self._run.start_s) / max(1, frames - 1)
            self._close_run(self._run.end_s + typical_s)
            self._close_shot()
        return self._take_decided()

    def _take_decided(self) -> list[Decision]:
        decided, self._decided = self._decided, []
        return decided

    # One frame

    def _process(self) -> None:
        position = self._next
        self._next += 1
        one = self._window.at(position)
        assert one is not None
        if self._shot is None:
            self._shot = _Shot(1, one.sample.time_s, position, last_s=one.sample.time_s)
        is_flash = position < self._flash_until
        if not is_flash and position != self._flash_until and self._window.is_cut(position):
            length = self._window.flash_length(position)
            if length:
                self._flash_until = position + length
                is_flash = True
            else:
                self._start_shot(position, one)
        self._add_to_run(
            one,
            is_flash=is_flash,
            is_fading=not is_flash and self._window.is_fading(position, self._shot.first_index),
        )

    def _start_shot(self, position: int, one: Measured) -> None:
        assert self._shot is not None
        if position - self._shot.first_index < FLASH_FRAMES and self.cuts:
            if self._run is not None and is_flat(self._run.grid):
                self._run.is_flash = True  # between two shots
            return
        self._close_run(one.sample.time_s)
        self._close_shot()
        self.cuts.append(one.sample.index)
        self._shot = _Shot(self._shot.number + 1, one.sample.time_s, position, last_s=one.sample.time_s)

    def _add_to_run(self, one: Measured, *, is_flash: bool, is_fading: bool) -> None:
        run = self._run
        belongs = run is not None and run.is_flash == is_flash and is_same(run.grid, one.grid, run.tolerated)
        if not belongs or run is None:
            ends_slowly = run is not None and changes_less(run.grid, one.grid, run.tolerated, SLOW_EXCESS)
            self._close_run(one.sample.time_s, ends_slowly=ends_slowly)
            tolerated = tolerance(one.grid, self._window.noise, self.rules.base_levels)
            time_s = one.sample.time_s
            total = one.grid.astype(np.uint16)
            self._run = _Run(time_s, time_s, one.grid, total, 1, tolerated, one.sample, is_flash=is_flash)
            self._run.num_fading = int(is_fading)
            self._run.begins_slowly = ends_slowly
            return
        run.num_frames += 1
        run.num_fading += is_fading
        run.end_s = one.sample.time_s
        run.last = one.grid
        if run.num_summed < ANCHOR_FRAMES:
            run.num_summed += 1
            run.total += one.grid
            run.grid = (run.total // run.num_summed).astype(np.uint8)
        if one.sample.sharpness > run.best.sharpness:
            run.best, worse = one.sample, run.best
        else:
            worse = one.sample
        self._drop_sample(worse, "held")

    # One picture

    def _close_run(self, end_s: float, *, ends_slowly: bool = False) -> None:
        run, self._run = self._run, None
        if run is None or self._shot is None:
            return
        run.held_s = end_s - run.start_s
        run.ends_slowly = ends_slowly
        run.drifts = self._is_drifting(run)
        kind = kind_of_picture(run.grid) if self.rules.skip else None
        if kind is not None and kind in self.rules.skip:
            self._drop(run, kind)
        elif not run.is_flash and (run.is_fading or self._is_end_of_fade(run)):
            self._drop_beginning_of_fade()
            self._put_last(run, "fade")
        elif run.is_flash or (run.held_s < self.rules.hold_s and is_flat(run.grid)):
            self._put_last(run, "flash")
        elif run.held_s >= self.rules.hold_s:
            self._offer(run, "held")
        else:
            self._add_pending(run, end_s)
        self._shot.newest = run
        self._expire(end_s)

    def _is_end_of_fade(self, run: _Run) -> bool:
        """Whether a short picture that comes out of a fade goes with it; only asked for by `skip`."""
        assert self._shot is not None
        newest = self._shot.newest
        is_asked = "fade" in self.rules.skip and run.held_s < self.rules.hold_s
        return is_asked and newest is not None and newest.is_fading

    def _drop_beginning_of_fade(self) -> None:
        """A short picture just before a fade goes with it, when `skip` asks for that."""
        shot = self._shot
        assert shot is not None
        if "fade" in self.rules.skip and shot.pending and shot.pending[-1] is shot.newest:
            self._drop(shot.pending.pop(), "fade")

    def _offer(self, run: _Run, reason: str) -> None:
        """Keep a picture unless it is known."""
        shot = self._shot
        assert shot is not None
        grid = run.grid
        if self.rules.has_memory and self._memory.holds(grid, self._window.noise):
            shot.has_picture = True
            self._drop(run, "same picture")
        elif self._is_small_move(run, grid, reason):
            shot.has_picture = True
            self._drop(run, "small movement")
        else:
            self._keep(run, grid, reason)

    def _is_drifting(self, run: _Run) -> bool:
        """Whether a run is a part of a slow movement.

        The first frames that a codec writes of a new picture differ from the later ones as well; but those
        end by a leap. Of the last run before a cut the one before it tells.
        """
        assert self._shot is not None
        if run.last is None or changes_less(run.grid, run.last, run.tolerated, DRIFT_EXCESS):
            return False
        newest = self._shot.newest
        return run.ends_slowly or (run.begins_slowly and newest is not None and newest.drifts)

    def _is_small_move(self, run: _Run, grid: Grid, reason: str) -> bool:
        """Whether a picture in motion shows too little that a kept one does not."""
        shot = self._shot
        assert shot is not None
        if reason == "held" and not run.drifts:
            return False
        if shot.last_grid is not None:
            extent = motion_extent(shot.last_grid, grid)
            if extent is not None:
                return extent < MOVE_EXTENT
        return self.rules.has_memory and self._memory.holds_moved(grid, MOVE_EXTENT)

    def _add_pending(self, run: _Run, end_s: float) -> None:
        """A picture too short to be sure of: wait whether it comes again, or nothing better does.

        One that comes by a leap, changes a little, and goes by a leap is one picture: a codec may write its
        first frames coarsely.
        """
        shot = self._shot
        assert shot is not None
        grid, run.thumb, run.most_tolerated = run.grid, thumb(run.grid), int(run.tolerated.max())
        for other in shot.pending:
            settles = (
                other is shot.newest and run.begins_slowly and not (other.begins_slowly or run.ends_slowly)
            )
            is_like = _may_be_same(other, run.thumb) and is_same(other.grid, grid, other.tolerated)
            if settles or is_like:
                self._merge(other, run)
                if other.held_s >= self.rules.hold_s:
                    shot.pending.remove(other)
                    self._offer(other, "held")
                return
        shot.pending.append(run)
        if end_s - shot.last_s >= self.rules.motion_interval_s:
            apart_s = self.rules.motion_interval_s / 2
            fresh = [one for one in shot.pending if one.best.time_s >= shot.kept_s + apart_s]
            best = max(fresh or shot.pending, key=_worth)
            shot.pending.remove(best)
            shot.last_s = end_s
            self._offer(best, "motion")
            for other in [other for other in shot.pending if other.num_frames == 1]:
                shot.pending.remove(other)
                self._drop(other, "motion")
        elif len(shot.pending) > MOST_PENDING:
            worst = min(shot.pending[:-1], key=_worth)
            shot.pending.remove(worst)
            self._drop(worst, "motion")

    def _merge(self, run: _Run, other: _Run) -> None:
        run.held_s += other.held_s
        run.end_s = other.end_s
        run.num_frames += other.num_frames
        if other.best.sharpness > run.best.sharpness:
            run.best, other.best = other.best, run.best
        self._drop_sample(other.best, "held")

    def _expire(self, now_s: float) -> None:
        assert self._shot is not None
        for run in [run for run in self._shot.pending if now_s - run.end_s > PENDING_S]:
            if len(self._shot.pending) == 1 and not self._shot.has_picture:
                return
            self._shot.pending.remove(run)
            self._drop(run, "motion")

    def _put_last(self, run: _Run, reason: Literal["flash", "fade"]) -> None:
        """A picture that is kept only when its shot has no other."""
        shot = self._shot
        assert shot is not None
        worse: _Run | None = run
        if reason not in self.rules.skip and (shot.resort is None or _worth(run) > _worth(shot.resort)):
            worse, shot.resort = shot.resort, run
        if worse is not None:
            self._drop(worse, "flash" if worse.is_flash else reason)

    # One shot

    def _close_shot(self) -> None:
        shot = self._shot
        assert shot is not None
        if not shot.has_picture:
            self._offer_best_left(shot)
        for run in shot.pending:
            self._drop(run, "motion")
        if shot.resort is not None:
            self._drop(shot.resort, "flash" if shot.resort.is_flash else "fade")
        self._decided += shot.held_back

    def _offer_best_left(self, shot: _Shot) -> None:
        if shot.pending:
            best = max(shot.pending, key=_worth)
            shot.pending.remove(best)
            self._offer(best, "only picture of its shot")
        elif shot.resort is not None:
            best, shot.resort = shot.resort, None
            self._offer(best, "only picture of its shot")

    # Decisions

    def _keep(self, run: _Run, grid: Grid, reason: str) -> None:
        shot = self._shot
        assert shot is not None
        shot.last_grid, shot.has_picture = grid, True
        shot.last_s = max(shot.last_s, run.end_s)
        shot.kept_s = run.best.time_s
        if self.rules.has_memory:
            self._memory.add(grid)
        decision = Decision(run.best.index, run.best.time_s, True, reason, shot.number, grid)
        if self.rules.most_per_shot is None:
            self._decided.append(decision)
            return
        shot.held_back.append(decision)
        if len(shot.held_back) > self.rules.most_per_shot:
            surplus = _most_crowded(shot.held_back)
            del shot.held_back[surplus.position]
            self._decided.append(
                Decision(surplus.decision.index, surplus.decision.time_s, False, "shot is full", shot.number)
            )

    def _drop(self, run: _Run, reason: str) -> None:
        self._drop_sample(run.best, reason)

    def _drop_sample(self, sample: Sample, reason: str) -> None:
        assert self._shot is not None
        self._decided.append(Decision(sample.index, sample.time_s, False, reason, self._shot.number))


@dataclass(frozen=True, slots=True)
class _Crowded:
    position: int
    decision: Decision


def _most_crowded(decisions: Sequence[Decision]) -> _Crowded:
    """The one whose loss leaves the others most evenly spread in time; never the first."""
    if len(decisions) < 3:
        return _Crowded(len(decisions) - 1, decisions[-1])
    gaps = [after.time_s - before.time_s for before, after in zip(decisions, decisions[2:], strict=False)]
    position = 1 + int(np.argmin(gaps))
    return _Crowded(position, decisions[position])


def _may_be_same(run: _Run, thumb: FloatGrid) -> bool:
    """Quick to say no: a part of a thumb cannot differ by more than the worst box in it."""
    assert run.thumb is not None
    return bool(np.abs(run.thumb - thumb).max() * BOX_AREA <= run.most_tolerated + BOX_AREA)


def _worth(run: _Run) -> tuple[float, float]:
    """Settled before sharp."""
    return (round(run.held_s, 3), run.best.sharpness)
