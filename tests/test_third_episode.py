"""The choice on a small episode composed here, on whose truth no threshold was chosen."""

from collections import Counter
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest
from videos import FPS, HEIGHT, WIDTH, Picture, plain, write_video

from pipeline.extraction import chosen_frames
from pipeline.frame_choice import Decision, FrameChooser
from pipeline.video import VideoReader


@dataclass
class Episode:
    """Frames, and for each the name of the held picture that it shows, or of what it is a part of."""

    frames: list[Picture] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)

    def hold(self, name: str, picture: Picture, num_frames: int) -> None:
        self.frames += [picture] * num_frames
        self.shown += [name] * num_frames

    def cut(self) -> None:
        self.cuts.append(len(self.frames))


def room(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Picture:
    """Straight walls, windows and furniture in flat tones with dark lines."""
    random = np.random.default_rng(seed)
    page = np.empty((2 * height, 2 * width, 3), np.uint8)
    page[:] = random.integers(60, 220, 3)
    page[2 * height * 2 // 3 :] = random.integers(30, 160, 3)
    for _ in range(16):
        left, top = int(random.integers(2 * width)), int(random.integers(2 * height))
        corner = (left + int(random.integers(20, 160)), top + int(random.integers(20, 120)))
        tone = tuple(int(value) for value in random.integers(30, 230, 3))
        cv2.rectangle(page, (left, top), corner, tone, -1)
        cv2.rectangle(page, (left, top), corner, (25, 20, 30), 2, cv2.LINE_AA)
    return np.asarray(cv2.resize(page, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def person(behind: Picture, x: int, *, mouth: int = 0, arm: int = 0, tone: int = 200) -> Picture:
    """A person at x: `mouth` 0 to 2 opens it, `arm` in degrees raises it."""
    page = cv2.resize(behind, (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_CUBIC)
    x *= 2
    cv2.rectangle(page, (x - 60, 230), (x + 60, 360), (tone, 90, 110), -1)
    reach = np.deg2rad(arm)
    hand = (x + 50 + round(90 * np.cos(reach)), 250 - round(90 * np.sin(reach)))
    cv2.line(page, (x + 50, 250), hand, (235, 200, 180), 16, cv2.LINE_AA)
    cv2.ellipse(page, (x, 150), (62, 76), 0, 0, 360, (240, 210, 190), -1, cv2.LINE_AA)
    for side in (-24, 24):
        cv2.ellipse(page, (x + side, 140), (8, 13), 0, 0, 360, (50, 60, 90), -1, cv2.LINE_AA)
    cv2.ellipse(page, (x, 188), (17, (2, 8, 15)[mouth]), 0, 0, 360, (130, 40, 60), -1, cv2.LINE_AA)
    return np.asarray(cv2.resize(page, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)


def compose() -> Episode:
    """24 s: held poses on ones, twos and threes, mouths, a pan, a zoom, a cross-fade, a flash, A-B-A-B."""
    made = Episode()
    kitchen, street, school, roof = (room(seed) for seed in (901, 902, 903, 904))
    made.hold("kitchen", kitchen, 31)
    made.cut()
    for cycle in range(9):  # mouths on threes
        mouth = (0, 1, 2, 1)[cycle % 4]
        made.hold(f"talk {mouth}", person(street, 110, mouth=mouth), 3)
    made.hold("talk 0", person(street, 110), 14)
    made.cut()
    for step, arm in enumerate(range(-60, 61, 10)):  # an arm rises on twos, then on ones
        made.hold("rising", person(school, 170, arm=arm, tone=120), 2 if step < 6 else 1)
    made.hold("arm up", person(school, 170, arm=70, tone=120), 23)
    made.cut()
    for turn in range(6):  # a dialogue: A-B-A-B, each in a shot of its own
        one = ("answer A", person(roof, 90, tone=60)), ("answer B", person(kitchen, 230, tone=90))
        made.hold(*one[turn % 2], 17 + turn)
        made.cut()
    wide = room(905, 2 * WIDTH)
    for left in range(0, 192, 3):
        made.hold("pan", wide[:, left : left + WIDTH], 1)
    made.cut()
    still = room(906)
    for step in range(40):
        left, top = 1.2 * step, 0.675 * step
        window = np.array([[left, top], [WIDTH - left, top], [left, HEIGHT - top]], np.float32)
        whole = np.array([[0, 0], [WIDTH, 0], [0, HEIGHT]], np.float32)
        turn = cv2.getAffineTransform(window, whole)
        made.hold("zoom", np.asarray(cv2.warpAffine(still, turn, (WIDTH, HEIGHT)), np.uint8), 1)
    made.cut()
    first, second = person(room(907), 200, tone=40), person(room(908), 80, tone=230)
    made.hold("before the fade", first, 26)
    for step in range(1, 16):
        made.hold("cross-fade", cv2.addWeighted(first, 1 - step / 16, second, step / 16, 0), 1)  # type: ignore[arg-type]
    made.hold("after the fade", second, 26)
    made.cut()
    struck = person(room(909), 150, arm=20)
    made.hold("struck", struck, 19)
    made.hold("flash", plain(255), 2)
    made.hold("struck", struck, 21)
    made.cut()
    for number, arm in enumerate((0, 45, 90)):  # poses held for 6, 7 and 8 frames
        made.hold(f"pose {arm}", person(room(910), 140, arm=arm), 6 + number)
    made.cut()
    made.hold("kitchen", kitchen, 24)
    return made


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Episode, list[Decision], list[int]]:
    made = compose()
    path = write_video(tmp_path_factory.mktemp("third") / "ep.mkv", made.frames, options={"crf": "20"})
    chooser = FrameChooser()
    with VideoReader(path) as reader:
        kept = [decision for decision, _ in chosen_frames(reader, chooser) if decision.is_kept]
    return made, kept, chooser.cuts


MOVING = {"rising", "pan", "zoom", "cross-fade", "flash"}


def test_each_held_picture_is_kept_once(chosen: tuple[Episode, list[Decision], list[int]]) -> None:
    made, kept, _ = chosen
    shown = [made.shown[one.index] for one in kept]
    wanted = {name for name, frames in Counter(made.shown).items() if name not in MOVING and frames >= 6}
    counts = {name: shown.count(name) for name in wanted}
    assert len(wanted) == 13  # mouths on threes among them: coding errors of so small a video hide none
    assert sum(count == 1 for count in counts.values()) >= 0.98 * len(wanted), counts
    assert sum(max(0, count - 1) for count in counts.values()) <= 0.03 * len(kept), counts


def test_nothing_of_a_cross_fade_or_a_flash_is_kept(
    chosen: tuple[Episode, list[Decision], list[int]],
) -> None:
    made, kept, _ = chosen
    assert not {made.shown[one.index] for one in kept} & {"cross-fade", "flash"}


def test_moves_give_a_few_frames(chosen: tuple[Episode, list[Decision], list[int]]) -> None:
    made, kept, _ = chosen
    shown = [made.shown[one.index] for one in kept]
    for name in ("pan", "zoom"):
        assert 1 <= shown.count(name) <= 1 + 2 * made.shown.count(name) / FPS, name


def test_cuts_are_those_that_were_made(chosen: tuple[Episode, list[Decision], list[int]]) -> None:
    made, _, found = chosen
    assert found == made.cuts
