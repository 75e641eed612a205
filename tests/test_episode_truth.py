"""The choice on whole composed episodes, against the truth beside them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.extraction import chosen_frames
from pipeline.frame_choice import Decision, FrameChooser
from pipeline.video import VideoReader

# Cuts found by PySceneDetect 0.7.2 (OpenCV backend), of 24 each in the truth, and cuts found that are none.
# Best of its detectors: HashDetector(min_scene_len=6); with fewest false ones: AdaptiveDetector(min_scene_len=6).
# benchmarks/cuts.py runs all of them.
PEER_FOUND = {"dev_E01": 21, "dev_E02": 22}
PEER_FALSE = {"dev_E01": 0, "dev_E02": 0}
INVISIBLE_CUTS = {
    "dev_E01": {223},
    "dev_E02": set(),
}  # between two shots of one picture, by the truth's own word

BOX_PX = 15
DISTINCT_LEVELS = (
    5.0  # by more than this over a box two drawings differ; a codec moves their means by up to 2
)
VISIBLE_LEVELS = 8.0  # by more than this a mouth of 10 px is seen to differ


@dataclass(frozen=True)
class Watched:
    """An episode gone through once."""

    truth: dict[str, Any]
    kept: list[Decision]
    cuts: list[int]
    picture_of: dict[int, int]  # frame -> number of the held picture it shows
    wanted: set[int]  # pictures that must be kept


@pytest.fixture(scope="module", params=["dev_E01", "dev_E02"])
def watched(request: pytest.FixtureRequest) -> tuple[str, Watched]:
    folder = Path(__file__).parents[2] / "shared" / "testdata" / "video"
    if not folder.is_dir():
        pytest.skip("the shared test data is not beside this checkout")
    truth = json.loads((folder / f"{request.param}.json").read_text(encoding="utf-8"))
    drawing_at = {
        frame: (number, drawing_of(shot["holds"], place))
        for number, shot in enumerate(truth["shots"])
        for place, (first, last) in enumerate(shot["holds"])
        for frame in range(first, last + 1)
    }
    middles = {(first + last) // 2 for shot in truth["shots"] for first, last in shot["holds"]}
    shown: dict[tuple[int, int], list[NDArray[np.uint8]]] = {}
    chooser, kept = FrameChooser(), []
    with VideoReader(folder / f"{request.param}.mp4", threads=2) as reader:
        for decision, frame in chosen_frames(reader, chooser):
            if decision.is_kept:
                kept.append(decision)
            if frame.index in middles:
                shown.setdefault(drawing_at[frame.index], []).append(frame.rgb())
    kept.sort(key=lambda one: one.index)
    number_of, wanted = numbered(shown, frames_of(truth))
    picture_of = {frame: number_of[drawing] for frame, drawing in drawing_at.items()}
    return request.param, Watched(truth, kept, chooser.cuts, picture_of, wanted)


def drawing_of(holds: list[list[int]], place: int) -> int:
    """Mouths go A-B-C on threes, or A-B for six frames and three: which drawing a hold shows."""
    if len(holds) == 1:
        return 0
    first, second = (last - first for first, last in holds[:2])
    return place % (3 if first == second else 2)


def frames_of(truth: dict[str, Any]) -> dict[tuple[int, int], tuple[int, int]]:
    """Drawing -> frames of its longest hold, and of all."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for number, shot in enumerate(truth["shots"]):
        for place, (first, last) in enumerate(shot["holds"]):
            key, length = (number, drawing_of(shot["holds"], place)), last - first + 1
            longest, total = found.get(key, (0, 0))
            found[key] = max(longest, length), total + length
    return found


def numbered(
    shown: dict[tuple[int, int], list[NDArray[np.uint8]]], frames: dict[tuple[int, int], tuple[int, int]]
) -> tuple[dict[tuple[int, int], int], set[int]]:
    """Number the drawings that differ, from full frames in colour: nothing of the code under test.

    Wanted are those held for 6 frames, or for 6 in all that are seen to differ from every other.
    """
    pictures: list[NDArray[np.float32]] = []
    number_of, wanted = {}, set()
    for drawing, copies in shown.items():
        mean = np.mean(copies, axis=0, dtype=np.float32)
        apart = [largest_change(other, mean) for other in pictures]
        nearest = int(np.argmin(apart)) if apart else 0
        if not apart or apart[nearest] > DISTINCT_LEVELS:
            nearest = len(pictures)
            pictures.append(mean)
            longest, total = frames[drawing]
            if longest >= 6 or (total >= 6 and min(apart, default=255.0) > VISIBLE_LEVELS):
                wanted.add(nearest)
        number_of[drawing] = nearest
    return number_of, wanted


def largest_change(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    if abs(a[::9, ::9] - b[::9, ::9]).max() > 120:
        return 255.0  # another scene, without looking closer
    return float(cv2.blur(cv2.absdiff(a, b), (BOX_PX, BOX_PX)).mean(axis=2).max())


def test_every_held_picture_is_kept_and_none_twice(watched: tuple[str, Watched]) -> None:
    _, seen = watched
    shown = [seen.picture_of[one.index] for one in seen.kept if one.index in seen.picture_of]
    assert len(seen.wanted) >= 15
    once = [number for number in seen.wanted if shown.count(number) == 1]
    assert len(once) >= 0.98 * len(seen.wanted), {n: shown.count(n) for n in seen.wanted if n not in once}
    assert len(shown) - len(set(shown)) <= 0.03 * len(seen.kept)


def test_no_frame_of_a_fade_is_kept(watched: tuple[str, Watched]) -> None:
    _, seen = watched
    fades = [(shot["first"], shot["last"]) for shot in seen.truth["shots"] if shot["kind"] == "fade_out"]
    assert fades
    assert [one.index for one in seen.kept if any(a <= one.index <= b for a, b in fades)] == []


def test_moving_shots_give_a_few_frames_each(watched: tuple[str, Watched]) -> None:
    _, seen = watched
    for shot in seen.truth["shots"]:
        if shot.get("camera") in ("pan", "zoom") and not repeats(seen.truth, shot):
            inside = [one for one in seen.kept if shot["first"] <= one.index <= shot["last"]]
            seconds = (shot["last"] - shot["first"] + 1) / seen.truth["fps"]
            assert 1 <= len(inside) <= 1 + 2 * seconds, shot["first"]


def repeats(truth: dict[str, Any], shot: dict[str, Any]) -> bool:
    number = truth["shots"].index(shot)
    return any(number == later for later, _ in truth["same_picture"])


def test_cuts_are_found_better_than_by_pyscenedetect(watched: tuple[str, Watched]) -> None:
    name, seen = watched
    truth, found = set(seen.truth["cuts"]), set(seen.cuts)
    assert truth - found <= INVISIBLE_CUTS[name]
    assert len(found & truth) >= PEER_FOUND[name]
    assert len(found - truth) <= PEER_FALSE[name]
