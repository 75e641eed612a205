"""An episode that no constant was chosen by: drawn otherwise than the others, and cut to another rhythm.

Whoever changes a constant of the choice of frames may not do so for a failure here: the cause is to be mended.
"""

from collections import Counter
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from videos import HEIGHT, WIDTH, write_video

from pipeline.extraction import chosen_frames
from pipeline.frame_choice import Decision, FrameChooser
from pipeline.video import VideoReader

Picture = NDArray[np.uint8]
Frame = tuple[Picture, str]  # and what it shows: a drawing by its name, "pan", "fade", ...
SIZE = (960, 540)  # smaller, a cell is hardly more than a pixel, and coding errors are no less than a change
MOVING = {"pan", "walk", "zoom", "fight"}


def street(seed: int, width: int = WIDTH) -> Picture:
    """Houses with windows under an evening sky."""
    random = np.random.default_rng(1000 + seed)
    top, bottom = random.integers(30, 230, (2, 1, 3))
    rows = np.linspace(0, 1, HEIGHT)[:, None]
    picture = np.repeat(np.rint(top * (1 - rows) + bottom * rows)[:, None], width, axis=1).astype(np.uint8)
    left = -10
    while left < width:
        right, roof = left + int(random.integers(25, 70)), int(random.integers(20, 120))
        wall, light = ([int(tone) for tone in random.integers(20, 235, 3)] for _ in range(2))
        cv2.rectangle(picture, (left, roof), (right, HEIGHT), wall, -1)
        cv2.rectangle(picture, (left, roof), (right, HEIGHT), (25, 20, 30), 1)
        for y in range(roof + 8, HEIGHT - 8, 16):
            for x in range(left + 6, right - 6, 12):
                if random.random() < 0.6:
                    cv2.rectangle(picture, (x, y), (x + 5, y + 8), light, -1)
        left = right + int(random.integers(0, 12))
    return picture


def with_person(picture: Picture, x: int, *, mouth: int = 0, has_closed_eyes: bool = False) -> Picture:
    """Somebody from the chest up, at a column."""
    drawn = picture.copy()
    shoulders = np.array([[x - 60, HEIGHT], [x - 30, 125], [x + 30, 125], [x + 60, HEIGHT]], np.int32)
    cv2.fillConvexPoly(drawn, shoulders, (50, 70, 130), cv2.LINE_AA)
    cv2.ellipse(drawn, (x, 85), (34, 44), 0, 0, 360, (240, 205, 180), -1, cv2.LINE_AA)
    cv2.ellipse(drawn, (x, 70), (40, 38), 0, 180, 360, (150, 60, 90), -1, cv2.LINE_AA)
    for eye in (x - 14, x + 14):
        cv2.ellipse(
            drawn, (eye, 86), (6, 1 if has_closed_eyes else 8), 0, 0, 360, (40, 60, 40), -1, cv2.LINE_AA
        )
    cv2.ellipse(drawn, (x, 111), (9, 1 + 3 * mouth), 0, 0, 360, (130, 50, 60), -1, cv2.LINE_AA)
    return drawn


def episode() -> Iterator[Frame]:
    """18 s at 24 frames a second."""
    opening = with_person(street(1), 100)
    yield from [(opening, "opening")] * 31
    talk = [with_person(street(2), 210, mouth=mouth) for mouth in (0, 1, 3)]
    for turn in range(16):
        yield from [(talk[turn % 3], f"talk {turn % 3}")] * 3
    sides = with_person(street(3), 80), with_person(street(4), 240, mouth=1)
    for turn in range(4):
        yield from [(sides[turn % 2], f"side {turn % 2}")] * 14
    wide = street(5, WIDTH + 60 * 5)
    yield from ((wide[:, 5 * step : 5 * step + WIDTH], "pan") for step in range(60))
    before, after = street(6), with_person(street(7), 160)
    yield from [(before, "before")] * 20
    for share in np.linspace(0, 1, 16)[1:-1]:
        yield np.rint(before * (1 - share) + after * share).astype(np.uint8), "fade"
    yield from [(after, "after")] * 23
    yield from [(with_person(street(8), 60), "start")] * 9
    for step in range(1, 11):
        yield from [(with_person(street(8), 60 + 18 * step), "walk")] * 2
    room = with_person(street(9), 130)
    white = np.full_like(room, 255)
    yield from [(room, "room")] * 13 + [(white, "flash")] * 2 + [(room, "room")] * 10
    tower = street(10)
    yield from [(tower, "tower")] * 10
    for step in range(1, 41):
        zoom = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 0, 1 + step / 60)
        yield np.asarray(cv2.warpAffine(tower, zoom, (WIDTH, HEIGHT)), np.uint8), "zoom"
    for step in range(16):
        yield with_person(street(40 + step), 40 + 15 * step), "fight"
    for has_closed_eyes, frames in ((False, 20), (True, 7), (False, 12)):
        drawing = with_person(street(11), 170, has_closed_eyes=has_closed_eyes)
        yield from [(drawing, f"closed {has_closed_eyes}")] * frames
    yield from [(opening, "opening")] * 18


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[Decision]]:
    """What each frame shows, and the kept ones."""
    frames = list(episode())
    pictures = (cv2.resize(picture, SIZE, interpolation=cv2.INTER_CUBIC) for picture, _ in frames)
    path = write_video(
        tmp_path_factory.mktemp("episode") / "e.mkv",
        (np.asarray(picture, np.uint8) for picture in pictures),
        options={"crf": "20"},
    )
    with VideoReader(path, threads=2) as reader:
        decided = [decision for decision, _ in chosen_frames(reader, FrameChooser())]
    assert len(decided) == len(frames)
    return [shown for _, shown in frames], [one for one in decided if one.is_kept]


def test_every_held_picture_is_kept_once(watched: tuple[list[str], list[Decision]]) -> None:
    shows, kept = watched
    wanted = {name for name, frames in Counter(shows).items() if frames >= 6} - MOVING - {"fade"}
    assert len(wanted) == 13
    found = Counter(shows[one.index] for one in kept)
    assert sum(found[name] == 1 for name in wanted) >= 0.98 * len(wanted), found
    surplus = sum(number - 1 for name, number in found.items() if name not in MOVING)
    assert surplus <= 0.03 * len(kept), found


def test_nothing_is_kept_of_a_cross_fade_or_a_flash(watched: tuple[list[str], list[Decision]]) -> None:
    shows, kept = watched
    assert [one.index for one in kept if shows[one.index] in ("fade", "flash")] == []


def test_what_moves_gives_a_few_frames(watched: tuple[list[str], list[Decision]]) -> None:
    shows, kept = watched
    found = Counter(shows[one.index] for one in kept)
    for name in MOVING:
        least = 0 if name in ("walk", "zoom") else 1  # they begin with a picture that is held
        assert least <= found[name] <= 1 + 2 * shows.count(name) / 24, found
