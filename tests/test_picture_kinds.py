import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from videos import HEIGHT, WIDTH, luma_of, plain, scene, title_page, with_mouth

from pipeline.picture_kinds import kind_of_picture

Picture = NDArray[np.uint8]
INK, PAPER = (60, 20, 30), 236


def kind_of(picture: Picture) -> str | None:
    return kind_of_picture(np.rint(luma_of(picture)).astype(np.uint8))


@pytest.mark.parametrize(
    ("picture", "kind"),
    [(plain(5), "black"), (plain(250), "white"), (plain(120), None), (scene(4), None)],
)
def test_even_pictures_and_scenes(picture: Picture, kind: str | None) -> None:
    assert kind_of(picture) == kind


def written(*lines: str, size: float, thickness: int, font: int = cv2.FONT_HERSHEY_SIMPLEX) -> Picture:
    page = plain(PAPER)
    for number, line in enumerate(lines):
        (width, height), _ = cv2.getTextSize(line, font, size, thickness)
        place = ((WIDTH - width) // 2, 60 + number * height * 7 // 4)
        cv2.putText(page, line, place, font, size, INK, thickness, cv2.LINE_AA)
    return page


TITLES = {
    "thin": title_page(),
    "small": written("the end", size=0.5, thickness=1),
    "semi-bold": written("ROUTE NINE", size=0.9, thickness=2),
    "bold": written("ROUTE NINE", size=1.2, thickness=4),
    "bolder": written("ROUTE", size=1.8, thickness=7),
    "boldest": written("NINE", size=2.2, thickness=10),
    "slanted": written("Route Nine", size=1.3, thickness=3, font=cv2.FONT_HERSHEY_SCRIPT_COMPLEX),
    "two lines": written("THE LONG", "ROAD HOME", size=1.2, thickness=4),
    "credits": written("director", "A. Name", "music", "B. Other", size=0.6, thickness=1),
}


@pytest.mark.parametrize("name", TITLES)
def test_thin_and_bold_titles_light_and_dark_and_down_the_picture(name: str) -> None:
    page = TITLES[name]
    assert kind_of(page) == kind_of(255 - page) == "title"
    assert kind_of(np.rot90(page)) == "title"


def figure(ground: int, half: int) -> Picture:
    """Head, hair and coat."""
    picture = plain(ground)
    cv2.ellipse(picture, (160, HEIGHT), (half + 8, 5 * half), 0, 180, 360, (60, 60, 120), -1, cv2.LINE_AA)
    cv2.circle(picture, (160, HEIGHT - 6 * half), half, (220, 180, 150), -1, cv2.LINE_AA)
    cv2.ellipse(picture, (160, HEIGHT - 6 * half), (half, half), 0, 180, 360, (40, 30, 20), -1, cv2.LINE_AA)
    return picture


def drawn_in_lines() -> Picture:
    picture = plain(PAPER)
    cv2.circle(picture, (160, 60), 22, INK, 1, cv2.LINE_AA)
    for start, end in (((160, 82), (160, 140)), ((160, 95), (130, 120)), ((160, 95), (190, 120))):
        cv2.line(picture, start, end, INK, 2, cv2.LINE_AA)
    for foot in (135, 185):
        cv2.line(picture, (160, 140), (foot, 175), INK, 2, cv2.LINE_AA)
    return picture


def close_up_on_black() -> Picture:
    picture = plain(4)
    for x in (138, 182):
        cv2.ellipse(picture, (x, 80), (10, 6), 0, 0, 360, (200, 200, 230), -1, cv2.LINE_AA)
        cv2.circle(picture, (x, 80), 4, (90, 40, 30), -1, cv2.LINE_AA)
    cv2.ellipse(picture, (160, 90), (50, 60), 0, 300, 420, (120, 100, 90), 3, cv2.LINE_AA)
    cv2.ellipse(picture, (160, 115), (12, 3), 0, 0, 360, (150, 60, 60), -1, cv2.LINE_AA)
    return picture


def eyes_in_the_dark() -> Picture:
    picture = plain(4)
    for x in (60, 130, 200, 270):
        cv2.ellipse(picture, (x, 90), (18, 8), 0, 0, 360, (250, 240, 120), -1, cv2.LINE_AA)
        cv2.circle(picture, (x, 90), 6, (0, 0, 0), -1, cv2.LINE_AA)
    return picture


def stars(number: int, largest: int, seed: int = 1) -> Picture:
    picture, random = plain(14), np.random.default_rng(seed)
    for x, y in random.integers((WIDTH, HEIGHT), size=(number, 2)):
        level = int(random.integers(120, 255))
        cv2.circle(picture, (int(x), int(y)), int(random.integers(largest + 1)), [level] * 3, -1, cv2.LINE_AA)
    return picture


def moon() -> Picture:
    return np.asarray(cv2.circle(stars(40, 1), (240, 50), 24, (240, 240, 220), -1, cv2.LINE_AA), np.uint8)


def lit_windows() -> Picture:
    picture, random = plain(8), np.random.default_rng(4)
    for y in range(30, 150, 9):
        for x in range(60, 260, 9):
            if random.random() < 0.5:
                picture[y : y + 4, x : x + 3] = (220, 200, 120)
    return picture


def people(height: int) -> Picture:
    """Six of them side by side, as an ending shows the cast."""
    picture, random, ground = plain(PAPER), np.random.default_rng(2), 150
    for x in range(40, 320, 48):
        hair, coat, trousers = ([int(tone) for tone in random.integers(30, 220, 3)] for _ in range(3))
        top, half = ground - height, height // 9
        cv2.circle(picture, (x, top + height // 8), height // 8, hair, -1, cv2.LINE_AA)
        cv2.rectangle(picture, (x - half, top + height // 4), (x + half, top + height * 2 // 3), coat, -1)
        for left, right in ((x - half, x - 2), (x + 2, x + half)):
            cv2.rectangle(picture, (left, top + height * 2 // 3), (right, ground), trousers, -1)
    return picture


def rain() -> Picture:
    picture, random = plain(30), np.random.default_rng(2)
    for x, y in random.integers((WIDTH, HEIGHT), size=(120, 2)):
        cv2.line(picture, (int(x), int(y)), (int(x) - 3, int(y) + 14), (150, 150, 160), 1, cv2.LINE_AA)
    return picture


NO_TITLES = {
    "figure": figure(PAPER, 20),
    "small figure": figure(PAPER, 10),
    "figure on black": figure(4, 20),
    "drawn in lines": drawn_in_lines(),
    "close-up on black": close_up_on_black(),
    "eyes in the dark": eyes_in_the_dark(),
    "some stars": stars(60, 1),
    "many stars": stars(250, 1),
    "large stars": stars(60, 3),
    "moon": moon(),
    "lit windows": lit_windows(),
    "people": people(80),
    "people far away": people(50),
    "rain": rain(),
    "face": with_mouth(plain(PAPER), 2),
}


@pytest.mark.parametrize("name", NO_TITLES)
def test_what_is_drawn_on_a_plain_ground_is_no_title(name: str) -> None:
    assert kind_of(NO_TITLES[name]) is None
    assert kind_of(np.rot90(NO_TITLES[name])) is None
