"""The head of a character: hair in its shapes, face, eyes, mouths and what is worn on the head.

Units: half the width of the face is 1, the origin lies between the eyes' upper lids, y runs down, the chin is
at 1.1. The hair behind the head is drawn before the body, the head after it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from drawing_pen import Colour, Pen, both, flip, mix, oval, smooth

SKIN: Colour = (255, 230, 212)
SKIN_SHADE: Colour = (246, 190, 172)
SKIN_INK: Colour = (110, 50, 54)
LASH: Colour = (46, 26, 40)
WHITE: Colour = (255, 255, 255)

HAIR: dict[str, Colour] = {
    "blonde hair": (252, 214, 92),
    "brown hair": (146, 88, 52),
    "black hair": (58, 54, 70),
    "red hair": (214, 50, 44),
    "pink hair": (255, 150, 190),
    "purple hair": (150, 92, 208),
    "blue hair": (70, 124, 226),
    "green hair": (84, 178, 96),
    "white hair": (236, 236, 246),
}
EYES: dict[str, Colour] = {
    "blue eyes": (40, 130, 236),
    "green eyes": (40, 176, 90),
    "red eyes": (222, 40, 52),
    "purple eyes": (156, 66, 214),
    "yellow eyes": (244, 186, 26),
    "brown eyes": (140, 80, 44),
}


@dataclass(frozen=True)
class Tones:
    """One cel colour: light, base, shade and ink."""

    base: Colour
    shade: Colour
    light: Colour
    ink: Colour


def tones(base: Colour) -> Tones:
    """Shade towards a cool violet, light towards white, ink dark in the colour's own hue."""
    shade = mix(tuple(round(c * 0.78) for c in base), (96, 60, 140), 0.16)  # type: ignore[arg-type]
    ink = mix(tuple(round(c * 0.3) for c in base), (40, 20, 44), 0.4)  # type: ignore[arg-type]
    return Tones(base, shade, mix(base, WHITE, 0.55), ink)


def hair_tones(name: str) -> Tones:
    """The tones of a hair colour."""
    return tones(HAIR[name])


# ---- hair behind the body -------------------------------------------------------------------------------

LONG = both(
    [
        (0, -1.42),
        (0.8, -1.2),
        (1.24, -0.4),
        (1.4, 1.0),
        (1.5, 2.6),
        (1.62, 4.0, 1),
        (1.2, 3.75),
        (1.1, 4.2, 1),
        (0.7, 3.8),
        (0.45, 4.25, 1),
        (0, 3.9),
    ]
)
BOB = both(
    [(0, -1.42), (0.8, -1.2), (1.24, -0.4), (1.36, 0.5), (1.34, 1.15), (1.08, 1.42, 1), (0.8, 1.3), (0, 1.3)]
)
SHORT = both(
    [
        (0, -1.42),
        (0.8, -1.22),
        (1.22, -0.4),
        (1.28, 0.3),
        (1.52, 0.72, 1),
        (1.12, 0.74),
        (1.2, 1.12, 1),
        (0.72, 0.98),
        (0.55, 1.3, 1),
        (0, 1.1),
    ]
)
CAP = both([(0, -1.42), (0.8, -1.2), (1.22, -0.4), (1.14, 0.5), (0.85, 1.1, 1), (0, 1.1)])
TAIL = [
    (1.0, -0.95),
    (1.55, -1.25),
    (2.15, -0.6),
    (2.4, 0.9),
    (2.3, 2.4),
    (1.95, 3.7, 1),
    (1.85, 3.2),
    (1.5, 3.5, 1),
    (1.5, 2.2),
    (1.45, 0.9),
    (1.2, -0.2),
]
TAIL_SHADE = [(1.1, -0.6), (1.6, -0.3), (1.9, 1.0), (1.85, 2.4), (1.7, 3.9), (1.2, 3.6), (1.2, 1)]
PONY = [
    (0.2, -1.15),
    (0.75, -1.95),
    (1.6, -1.85),
    (2.25, -0.9),
    (2.35, 0.6),
    (2.0, 2.2),
    (1.55, 3.1, 1),
    (1.6, 2.3),
    (1.15, 2.5, 1),
    (1.45, 1.2),
    (1.35, -0.1),
    (0.9, -0.9),
]
PONY_SHADE = [(0.6, -1.2), (1.3, -1.15), (1.75, -0.3), (1.8, 1), (1.5, 3.2), (0.9, 2.6), (1.1, 0)]


def draw_back_hair(pen: Pen, shape: str, hair: Tones) -> None:
    """The hair that lies behind neck and shoulders."""
    outline = smooth({"long hair": LONG, "bob cut": BOB, "short hair": SHORT}.get(shape, CAP))
    if shape == "twintails":
        for tail, shade in ((TAIL, TAIL_SHADE), (flip(TAIL), flip(TAIL_SHADE))):
            pen.shape(smooth(tail), hair.base, hair.ink, (smooth(shade), hair.shade))
    if shape == "ponytail":
        pen.shape(smooth(PONY), hair.base, hair.ink, (smooth(PONY_SHADE), hair.shade))
    if shape == "drill hair":
        for side in (-1, 1):
            _drill(pen, side, hair)
    if shape == "double bun":
        for side in (-1, 1):
            pen.shape(
                oval(side * 0.95, -1.2, 0.52, 0.5),
                hair.base,
                hair.ink,
                (oval(side * 0.95, -1.0, 0.5, 0.3), hair.shade),
            )
            pen.ink(
                smooth(
                    [(side * 0.75, -1.35), (side * 1.0, -1.45), (side * 1.2, -1.2), (side * 1.0, -1.0)],
                    closed=False,
                ),
                hair.ink,
                width=0.7,
            )
    pen.shape(outline, hair.shade, hair.ink)


def _drill(pen: Pen, side: int, hair: Tones) -> None:
    """A curl of rolls that grow smaller downwards."""
    rolls = [
        (1.28, 0.15, 0.42),
        (1.42, 0.75, 0.5),
        (1.48, 1.4, 0.48),
        (1.46, 2.0, 0.42),
        (1.4, 2.55, 0.34),
        (1.34, 3.0, 0.24),
    ]
    for x, y, r in reversed(rolls):
        roll = smooth(
            [
                (side * (x - r), y - 0.12),
                (side * x, y - 0.34),
                (side * (x + r), y - 0.3),
                (side * (x + r * 1.05), y + 0.1),
                (side * (x + 0.1), y + 0.42),
                (side * (x - r * 0.9), y + 0.3),
            ]
        )
        pen.shape(
            roll,
            hair.base,
            hair.ink,
            (
                smooth(
                    [
                        (side * (x - r), y + 0.1),
                        (side * (x + r), y - 0.1),
                        (side * (x + r), y + 0.6),
                        (side * (x - r), y + 0.6),
                    ]
                ),
                hair.shade,
            ),
        )


# ---- the face -------------------------------------------------------------------------------------------

FACE = both([(0, -1.0), (0.7, -0.75), (0.97, -0.1), (0.93, 0.42), (0.72, 0.78), (0.3, 1.06), (0, 1.13)])
FACE_SHADE = both([(0, -0.35), (0.45, -0.28), (0.8, -0.1), (1.0, 0.35), (1.3, -0.2), (0.8, -1.2), (0, -1.3)])
FRINGE = [
    (-1.14, 0.5, 1),
    (-1.26, -0.35),
    (-0.85, -1.18),
    (0, -1.45),
    (0.85, -1.18),
    (1.26, -0.35),
    (1.14, 0.5, 1),
    (0.98, 0.1),
    (0.86, -0.42, 1),
    (0.74, -0.08),
    (0.56, 0.16, 1),
    (0.5, -0.2),
    (0.38, -0.5, 1),
    (0.26, -0.12),
    (0.06, 0.2, 1),
    (-0.06, -0.15),
    (-0.16, -0.5, 1),
    (-0.3, -0.1),
    (-0.52, 0.18, 1),
    (-0.64, -0.15),
    (-0.74, -0.48, 1),
    (-0.92, 0.05),
]
LOCK = [
    (0.9, -0.6),
    (1.2, -0.3),
    (1.24, 0.5),
    (1.12, 1.3),
    (0.98, 1.75, 1),
    (0.98, 1.1),
    (0.94, 0.4),
    (0.92, -0.1),
]
SHORT_LOCK = [(0.9, -0.6), (1.2, -0.3), (1.2, 0.3), (1.1, 0.75), (0.95, 0.98, 1), (0.95, 0.5), (0.9, -0.1)]
BOB_LOCK = [
    (0.88, -0.6),
    (1.24, -0.3),
    (1.36, 0.5),
    (1.32, 1.1),
    (1.05, 1.42, 1),
    (0.86, 1.2),
    (0.95, 0.5),
    (0.9, -0.1),
]
SHINE = [
    (-0.98, -0.55, 1),
    (-0.8, -0.78),
    (-0.62, -0.7, 1),
    (-0.45, -0.94),
    (-0.2, -0.82, 1),
    (0.02, -1.0),
    (0.25, -0.84, 1),
    (0.5, -0.92),
    (0.66, -0.7, 1),
    (0.82, -0.76),
    (0.98, -0.55, 1),
    (0.7, -0.98),
    (0, -1.17),
    (-0.7, -0.98),
]


def draw_head(pen: Pen, shape: str, hair: Tones, eyes: Colour, expression: str, turn: float) -> None:
    """Face and the hair in front of it; `turn` moves the features sideways."""
    face = smooth(FACE)
    for side in (-1, 1):
        pen.shape(oval(side * 0.98, 0.28, 0.13, 0.24), SKIN, SKIN_INK)
    pen.shape(face + (turn * 0.04, 0), SKIN, SKIN_INK, (smooth(FACE_SHADE) + (turn * 0.08, 0), SKIN_SHADE))
    features = pen.moved(turn * 0.17, 0)
    _blush(features, strong=expression == "blush")
    for side in (-1, 1):
        _eye(features, side, eyes, expression, 1 - 0.1 * max(0.0, side * turn))
    features.ink(smooth([(0.01, 0.6), (0.05, 0.66), (-0.02, 0.68)], closed=False), SKIN_INK, width=0.7)
    _mouth(features.moved(turn * 0.02, 0), expression)
    lock = {"short hair": SHORT_LOCK, "bob cut": BOB_LOCK, "double bun": SHORT_LOCK}.get(shape, LOCK)
    front = pen.moved(turn * 0.07, 0)
    for points in (lock, flip(lock)):
        front.shape(smooth(points), hair.base, hair.ink)
    fringe = smooth(FRINGE)
    front.shape(
        fringe,
        hair.base,
        hair.ink,
        (
            smooth(both([(0, -0.25), (0.5, -0.2), (1.3, -0.2), (1.3, 0.6), (0, 0.6)])),
            mix(hair.base, hair.shade, 0.6),
        ),
    )
    front.clipped(fringe, smooth(SHINE), hair.light)
    _brows(features, expression, hair)


def _brows(pen: Pen, expression: str, hair: Tones) -> None:
    rise = {"angry": (-0.02, -0.2), "crying": (-0.26, 0.0), "blush": (-0.22, -0.04)}.get(
        expression, (-0.12, -0.12)
    )
    for side in (-1, 1):
        inner, outer = (side * 0.2, rise[0] + 0.02), (side * 0.66, rise[1])
        middle = ((inner[0] + outer[0]) / 2, (inner[1] + outer[1]) / 2 - 0.06)
        pen.ink(
            smooth([inner, middle, outer], closed=False),
            hair.ink,
            width=1.4 if expression == "angry" else 1.0,
        )


def _eye(pen: Pen, side: int, colour: Colour, expression: str, narrow: float) -> None:
    """An eye: white, iris in four tones, pupil, two catchlights, lashes."""
    at = pen.moved(side * 0.44, 0.33)

    def place(points: list[tuple[float, ...]]) -> np.ndarray:
        return smooth([(side * p[0] * narrow, *p[1:]) for p in points])

    if expression == "closed eyes":
        at.fill(
            place(
                [
                    (-0.27, 0.02),
                    (-0.14, -0.1),
                    (0.04, -0.14),
                    (0.2, -0.08),
                    (0.34, 0.1, 1),
                    (0.18, 0.01),
                    (0.02, -0.04),
                    (-0.14, -0.02),
                ]
            ),
            LASH,
        )
        return
    wide = 0.9 if expression == "angry" else 1.0
    white = place(
        [
            (-0.25, 0.1),
            (-0.23, -0.18),
            (-0.05, -0.32 * wide),
            (0.16, -0.28 * wide),
            (0.27, -0.06),
            (0.22, 0.2),
            (0.02, 0.31),
            (-0.16, 0.27),
        ]
    )
    at.fill(white, WHITE)
    at.clipped(
        white, place([(-0.4, -0.5), (0.4, -0.5), (0.35, -0.14), (0, -0.17), (-0.3, -0.1)]), (206, 200, 226)
    )
    dark = mix(colour, (30, 14, 50), 0.62)
    for outline, tone in (
        (oval(0, 0.0, 0.2, 0.31), dark),
        (oval(0, 0.06, 0.18, 0.235), mix(colour, dark, 0.35)),
        (oval(0, 0.12, 0.165, 0.165), colour),
        (oval(0, 0.18, 0.115, 0.09), mix(colour, WHITE, 0.55)),
        (oval(0, 0.0, 0.075, 0.12), mix(dark, (10, 4, 20), 0.6)),
    ):
        at.clipped(white, outline, tone)
    at.fill(
        place(
            [
                (-0.29, 0.0, 1),
                (-0.22, -0.24),
                (-0.04, -0.38 * wide),
                (0.18, -0.35 * wide),
                (0.34, -0.14),
                (0.4, -0.16, 1),
                (0.33, 0.06, 1),
                (0.25, -0.1),
                (0.14, -0.24 * wide),
                (-0.04, -0.28 * wide),
                (-0.2, -0.14),
            ]
        ),
        LASH,
    )
    at.ink(
        smooth([(side * 0.22, 0.24), (side * 0.04, 0.33), (side * -0.12, 0.31)], closed=False),
        SKIN_INK,
        width=0.7,
    )
    at.fill(oval(-0.075, -0.13, 0.075, 0.095), WHITE)
    at.fill(oval(0.085, 0.13, 0.04, 0.045), WHITE)
    if expression == "crying":
        at.shape(
            smooth(
                [
                    (-0.13, 0.28, 1),
                    (0.13, 0.28, 1),
                    (0.16, 0.5),
                    (0.14, 0.72),
                    (0.0, 0.8),
                    (-0.14, 0.7),
                    (-0.16, 0.5),
                ]
            ),
            (150, 214, 255),
            (60, 120, 190),
            width=0.7,
        )


def _blush(pen: Pen, *, strong: bool) -> None:
    for side in (-1, 1):
        pen.fill(
            oval(side * 0.6, 0.68, 0.25, 0.14) if strong else oval(side * 0.62, 0.7, 0.17, 0.07),
            (255, 138, 138) if strong else (255, 204, 192),
        )
        if strong:
            for i in (-1, 0, 1):
                x = side * 0.6 + i * 0.12
                pen.ink(np.array([(x + 0.04, 0.6), (x - 0.04, 0.76)]), (206, 60, 74), width=0.7)
    if strong:
        pen.fill(oval(0, 0.62, 0.2, 0.05), (255, 164, 156))


def _mouth(pen: Pen, expression: str) -> None:
    if expression in ("open mouth", "closed eyes"):
        big = 1.0 if expression == "open mouth" else 0.7
        mouth = smooth(
            [
                (-0.2 * big, 0.76, 1),
                (0, 0.79),
                (0.2 * big, 0.76, 1),
                (0.14 * big, 0.76 + 0.2 * big),
                (0, 0.76 + 0.26 * big),
                (-0.14 * big, 0.76 + 0.2 * big),
            ]
        )
        pen.shape(
            mouth,
            (176, 44, 60),
            SKIN_INK,
            (oval(0, 0.76 + 0.27 * big, 0.13, 0.1), (250, 128, 128)),
            width=0.8,
        )
    elif expression == "angry":
        pen.ink(
            smooth([(-0.16, 0.9), (-0.06, 0.82), (0.06, 0.82), (0.16, 0.9)], closed=False),
            SKIN_INK,
            width=1.2,
        )
    elif expression == "crying":
        pen.shape(
            smooth([(-0.16, 0.92), (-0.1, 0.8), (0.1, 0.8), (0.16, 0.92), (0.0, 0.88)]),
            (176, 44, 60),
            SKIN_INK,
            width=0.8,
        )
    elif expression == "blush":
        pen.ink(
            smooth([(-0.14, 0.84), (-0.07, 0.8), (0, 0.85), (0.07, 0.8), (0.14, 0.84)], closed=False),
            SKIN_INK,
        )
    else:
        pen.ink(smooth([(-0.16, 0.79), (-0.06, 0.85), (0.06, 0.85), (0.16, 0.79)], closed=False), SKIN_INK)


# ---- worn on the head -----------------------------------------------------------------------------------


def _glasses(pen: Pen, turn: float) -> None:
    at = pen.moved(turn * 0.17, 0)
    for side in (-1, 1):
        frame = smooth(
            [
                (side * 0.1, 0.12),
                (side * 0.45, 0.02),
                (side * 0.84, 0.1),
                (side * 0.82, 0.55),
                (side * 0.5, 0.7),
                (side * 0.14, 0.58),
            ]
        )
        at.ink(frame, (40, 34, 96), width=1.7, closed=True)
    at.ink(np.array([(-0.1, 0.25), (0.1, 0.25)]), (40, 34, 96), width=1.7)


def _bow(pen: Pen, turn: float) -> None:
    red, shade, ink = (226, 34, 52), (160, 16, 54), (80, 6, 30)
    at = pen.moved(0.0, -1.38)
    for side in (-1, 1):
        loop = smooth(
            [
                (side * 0.08, -0.06),
                (side * 0.5, -0.5),
                (side * 0.95, -0.5),
                (side * 0.98, 0.1),
                (side * 0.6, 0.3),
                (side * 0.1, 0.1),
            ]
        )
        at.shape(
            loop,
            red,
            ink,
            (smooth([(side * 0.1, 0.1), (side * 0.6, 0.0), (side * 1.1, 0.0), (side * 0.7, 0.5)]), shade),
        )
    at.shape(oval(0, 0, 0.19, 0.22), red, ink)


def _headphones(pen: Pen, turn: float) -> None:
    dark, ink = (60, 66, 84), (24, 22, 36)
    band = smooth(
        [
            (-1.3, 0.1),
            (-1.25, -0.8),
            (-0.7, -1.5),
            (0, -1.7),
            (0.7, -1.5),
            (1.25, -0.8),
            (1.3, 0.1),
            (1.14, 0.1),
            (1.08, -0.7),
            (0.6, -1.32),
            (0, -1.5),
            (-0.6, -1.32),
            (-1.08, -0.7),
            (-1.14, 0.1),
        ]
    )
    pen.shape(band, dark, ink)
    for side in (-1, 1):
        pen.shape(
            oval(side * 1.22, 0.25, 0.3, 0.46),
            (64, 224, 214),
            ink,
            (oval(side * 1.32, 0.45, 0.3, 0.4), (24, 150, 160)),
        )
        pen.shape(oval(side * 1.26, 0.25, 0.14, 0.24), dark, ink)


def _witch_hat(pen: Pen, turn: float) -> None:
    cloth = tones((74, 52, 118))
    cone = smooth(
        [
            (-1.05, -0.75, 1),
            (-0.75, -1.5),
            (-0.3, -2.2),
            (0.25, -2.75),
            (0.95, -2.85, 1),
            (0.6, -2.3),
            (0.75, -1.5),
            (1.05, -0.75, 1),
        ]
    )
    pen.shape(
        cone, cloth.base, cloth.ink, (smooth([(0.1, -2.4), (1, -3), (1.2, -0.6), (0.4, -0.6)]), cloth.shade)
    )
    pen.shape(
        smooth(
            [(-1.0, -0.95, 1), (0, -0.82), (1.0, -0.95, 1), (0.86, -1.35, 1), (0, -1.22), (-0.86, -1.35, 1)]
        ),
        (244, 180, 40),
        cloth.ink,
    )
    pen.shape(
        smooth(
            [
                (-1.95, -0.5),
                (-1.0, -0.95),
                (0, -1.0),
                (1.0, -0.95),
                (1.95, -0.5),
                (1.0, -0.6),
                (0, -0.62),
                (-1.0, -0.6),
            ]
        ),
        cloth.base,
        cloth.ink,
    )


def _cat_ears(pen: Pen, turn: float) -> None:
    fur = tones((64, 54, 62))
    for side in (-1, 1):
        pen.shape(
            smooth(
                [
                    (side * 0.3, -1.3, 1),
                    (side * 0.75, -1.9),
                    (side * 1.1, -2.15, 1),
                    (side * 1.2, -1.5),
                    (side * 1.1, -0.8, 1),
                ]
            ),
            fur.base,
            fur.ink,
        )
        pen.fill(smooth([(side * 0.55, -1.35), (side * 0.98, -1.9, 1), (side * 1.0, -1.1)]), (255, 164, 184))


ACCESSORY: dict[str, Callable[[Pen, float], None]] = {
    "glasses": _glasses,
    "hair bow": _bow,
    "headphones": _headphones,
    "witch hat": _witch_hat,
    "cat ears": _cat_ears,
}
