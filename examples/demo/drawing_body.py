"""Bodies, limbs and outfits, in the units of drawing_head (the chin at 1.1, the soles at 9.7)."""

from dataclasses import dataclass

import numpy as np
from drawing_head import SKIN, SKIN_INK, SKIN_SHADE, Tones, tones
from drawing_pen import Colour, Pen, both, oval, smooth
from numpy.typing import NDArray

Spot = tuple[float, float]

# Elbow and wrist of the arm on the picture's right, then on its left as if it were on the right.
DOWN = ((1.36, 3.15), (1.42, 4.35))
ARMS: dict[str, tuple[tuple[Spot, Spot], tuple[Spot, Spot]]] = {
    "standing": (DOWN, DOWN),
    "arms up": (((1.98, 1.2), (1.75, -0.35)), ((1.98, 1.2), (1.75, -0.35))),
    "waving": (((1.9, 2.6), (2.05, 1.15)), DOWN),
    "hand on hip": (((2.0, 2.95), (1.0, 3.8)), DOWN),
    "arms behind back": (((1.5, 2.95), (0.9, 3.9)), ((1.5, 2.95), (0.9, 3.9))),
    "sitting": (((1.36, 3.15), (0.55, 4.3)), ((1.36, 3.15), (0.55, 4.3))),
}
TORSO = both(
    [
        (0, 1.5),
        (0.5, 1.62),
        (1.02, 1.82),
        (1.0, 2.4),
        (0.78, 3.3),
        (0.86, 3.8),
        (1.02, 4.4),
        (0.9, 4.75),
        (0, 4.85),
    ]
)
TORSO_SHADE = [(0.35, 1.4), (0.75, 2.6), (0.5, 3.3), (0.65, 5), (1.4, 5), (1.4, 1.4)]


@dataclass(frozen=True)
class Sleeve:
    """How an arm is dressed: share of its length, widths at shoulder and cuff, colours."""

    length: float
    top: float
    cuff: float
    cloth: Tones
    trim: Colour | None = None


def limb(spots: list[Spot], widths: list[float]) -> NDArray[np.float64]:
    """The outline of a limb through spots with half widths there."""
    middle = smooth(spots, closed=False, steps=8)
    wide = np.interp(np.linspace(0, 1, len(middle)), np.linspace(0, 1, len(widths)), widths)
    along = np.gradient(middle, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / np.maximum(np.hypot(*along.T), 1e-6)[:, None]
    return np.concatenate([middle + across * wide[:, None], (middle - across * wide[:, None])[::-1]])


def _arm(pen: Pen, side: int, elbow: Spot, wrist: Spot, sleeve: Sleeve, *, open_hand: bool) -> None:
    spots = [(side * 0.86, 2.02), (side * elbow[0], elbow[1]), (side * wrist[0], wrist[1])]
    along = np.subtract(spots[2], spots[1])
    along = along / np.hypot(*along)
    _hand(pen, np.array(spots[2]), along, side, open_hand=open_hand)
    arm = limb(spots, [0.26, 0.24, 0.2, 0.17])
    pen.shape(arm, SKIN, SKIN_INK, (arm + (side * 0.18, 0.05), SKIN_SHADE))
    if not sleeve.length:
        return
    path = smooth(spots, closed=False, steps=8)
    count = max(3, round(len(path) * sleeve.length))
    cloth = limb(
        [tuple(p) for p in path[:count:2]] + [tuple(path[count - 1])],
        [sleeve.top, (sleeve.top + sleeve.cuff) / 2, sleeve.cuff],
    )
    pen.shape(cloth, sleeve.cloth.base, sleeve.cloth.ink, (cloth + (side * 0.2, 0.08), sleeve.cloth.shade))
    if sleeve.trim:
        end = limb([tuple(path[count - 2]), tuple(path[count - 1])], [sleeve.cuff, sleeve.cuff * 1.05])
        pen.shape(end, sleeve.trim, sleeve.cloth.ink)


def _hand(
    pen: Pen, wrist: NDArray[np.float64], along: NDArray[np.float64], side: int, *, open_hand: bool
) -> None:
    across = np.array([-along[1], along[0]])
    if open_hand:
        for spread, length in ((-0.26, 0.62), (-0.09, 0.72), (0.08, 0.7), (0.24, 0.6)):
            tip = wrist + along * length + across * spread * 1.2
            root = wrist + along * 0.2 + across * spread * 0.7
            finger = limb([tuple(root), tuple(tip)], [0.1, 0.075])
            pen.shape(finger, SKIN, SKIN_INK, width=0.8)
        thumb = limb(
            [tuple(wrist + along * 0.1), tuple(wrist + along * 0.36 - across * side * 0.42)], [0.1, 0.07]
        )
        pen.shape(thumb, SKIN, SKIN_INK, width=0.8)
    palm = [
        wrist - along * 0.1 + across * 0.16,
        wrist + along * 0.2 + across * 0.24,
        wrist + along * (0.36 if open_hand else 0.5) + across * 0.12,
        wrist + along * (0.36 if open_hand else 0.5) - across * 0.12,
        wrist + along * 0.2 - across * 0.22,
        wrist - along * 0.1 - across * 0.16,
    ]
    pen.shape(smooth([tuple(p) for p in palm]), SKIN, SKIN_INK, width=0.8)


def _leg_spots(side: int, *, sitting: bool) -> list[Spot]:
    if sitting:
        return [(side * 0.55, 4.7), (side * 0.62, 5.5), (side * 0.62, 6.6), (side * 0.6, 7.9)]
    return [(side * 0.5, 4.4), (side * 0.52, 6.0), (side * 0.5, 7.4), (side * 0.48, 9.2)]


def _legs(pen: Pen, *, sitting: bool, sock: Tones | None, height: float, shoe: Colour) -> None:
    for side in (-1, 1):
        spots = _leg_spots(side, sitting=sitting)
        leg = limb(spots, [0.47, 0.4, 0.3, 0.31, 0.2])
        pen.shape(leg, SKIN, SKIN_INK, (leg + (side * 0.22, 0), SKIN_SHADE))
        foot = spots[3]
        if sock:
            path = smooth(spots, closed=False, steps=8)
            wide = np.interp(
                np.linspace(0, 1, len(path)), np.linspace(0, 1, 5), [0.48, 0.41, 0.32, 0.33, 0.23]
            )
            start = round(len(path) * (1 - height))
            cover = limb(
                [tuple(p) for p in path[start::2]] + [tuple(path[-1])], list(wide[start::2]) + [0.22]
            )
            pen.shape(cover, sock.base, sock.ink, (cover + (side * 0.22, 0), sock.shade))
        tone = tones(shoe)
        sole = smooth(
            [
                (foot[0] - 0.26, foot[1] - 0.12),
                (foot[0], foot[1] - 0.2),
                (foot[0] + 0.26, foot[1] - 0.12),
                (foot[0] + side * 0.1 + 0.34, foot[1] + 0.36),
                (foot[0] + side * 0.1, foot[1] + 0.5),
                (foot[0] + side * 0.1 - 0.34, foot[1] + 0.36),
            ]
        )
        pen.shape(sole, tone.base, tone.ink)


def _skirt(
    pen: Pen,
    cloth: Tones,
    top: float,
    bottom: float,
    wide: float,
    *,
    folds: int = 5,
    trim: Colour | None = None,
) -> NDArray[np.float64]:
    outline = smooth(
        both(
            [
                (0, top),
                (0.8, top, 1),
                (wide * 0.8, (top + bottom) / 2),
                (wide, bottom, 1),
                (wide * 0.5, bottom + 0.16),
                (0, bottom + 0.2),
            ]
        )
    )
    pen.shape(
        outline,
        cloth.base,
        cloth.ink,
        (
            smooth([(0.3, top), (wide * 0.45, bottom + 0.5), (wide * 1.4, bottom + 0.5), (wide, top)]),
            cloth.shade,
        ),
    )
    for i in range(1, folds):
        share = i / folds * 2 - 1
        pen.ink(
            np.array([(0.75 * share, top + 0.3), (wide * share * 0.97, bottom + 0.15)]), cloth.ink, width=0.7
        )
    if trim:
        hem = smooth(
            [(-wide * 0.97, bottom - 0.22), (0, bottom - 0.04), (wide * 0.97, bottom - 0.22)], closed=False
        )
        pen.ink(hem, trim, width=2.0)
    return outline


def _torso(pen: Pen, cloth: Tones) -> None:
    pen.shape(smooth(TORSO), cloth.base, cloth.ink, (smooth(TORSO_SHADE), cloth.shade))


NAVY, CREAM, RED, GOLD = (
    tones((44, 62, 128)),
    tones((250, 248, 244)),
    tones((222, 40, 52)),
    tones((250, 196, 60)),
)
ORANGE, DENIM, LILAC, MINT = (
    tones((250, 146, 36)),
    tones((62, 104, 178)),
    tones((172, 78, 170)),
    tones((120, 222, 196)),
)
STEEL, BLACK, STRIPE = tones((178, 192, 212)), tones((48, 44, 62)), tones((255, 120, 100))


def _serafuku(pen: Pen, *, sitting: bool) -> None:
    _torso(pen, CREAM)
    _skirt(pen, NAVY, 3.5, 5.5, 1.5 if not sitting else 1.7, folds=7)
    collar = smooth(
        both(
            [
                (0, 2.75, 1),
                (0.42, 2.05),
                (0.62, 1.45, 1),
                (0.95, 1.72),
                (1.12, 2.1),
                (0.9, 2.6, 1),
                (0.5, 2.65),
            ]
        )
    )
    del collar
    for side in (-1, 1):
        flap = smooth(
            [
                (side * 0.42, 1.4, 1),
                (side * 1.0, 1.75),
                (side * 1.06, 2.25, 1),
                (side * 0.5, 2.7),
                (side * 0.04, 3.0, 1),
                (side * 0.2, 2.2),
            ]
        )
        pen.shape(flap, NAVY.base, NAVY.ink)
        pen.ink(
            smooth([(side * 0.93, 2.2), (side * 0.45, 2.56), (side * 0.16, 2.7)], closed=False),
            (255, 255, 255),
            width=0.8,
        )
        pen.shape(
            smooth([(0, 2.8), (side * 0.42, 2.58), (side * 0.5, 3.0), (side * 0.1, 3.0)]), RED.base, RED.ink
        )
        pen.shape(
            smooth([(side * 0.02, 2.95), (side * 0.3, 3.6, 1), (side * 0.08, 3.5), (side * 0.02, 3.3)]),
            RED.base,
            RED.ink,
        )
    pen.shape(oval(0, 2.9, 0.14, 0.16), RED.base, RED.ink)


def _hoodie(pen: Pen, *, sitting: bool) -> None:
    _skirt(pen, tones((70, 74, 96)), 3.9, 5.25, 1.08, folds=2)
    body = smooth(both([(0, 1.5), (0.55, 1.6), (1.1, 1.86), (1.2, 2.7), (1.22, 4.2), (1.1, 4.6), (0, 4.7)]))
    pen.shape(
        body,
        ORANGE.base,
        ORANGE.ink,
        (smooth([(0.5, 1.4), (0.8, 3), (0.7, 5), (1.6, 5), (1.6, 1.4)]), ORANGE.shade),
    )
    pen.ink(smooth([(-1.16, 4.25), (0, 4.38), (1.16, 4.25)], closed=False), ORANGE.ink, width=0.7)
    pen.shape(
        smooth(both([(0, 3.2), (0.5, 3.2, 1), (0.82, 3.95, 1), (0.75, 4.2), (0, 4.25)])),
        ORANGE.shade,
        ORANGE.ink,
        width=0.7,
    )
    hood = smooth(
        both([(0, 2.25), (0.5, 1.95), (0.62, 1.35), (1.15, 1.5), (1.12, 2.0), (0.6, 2.45), (0, 2.6)])
    )
    pen.shape(hood, ORANGE.base, ORANGE.ink)
    for side in (-1, 1):
        pen.ink(np.array([(side * 0.24, 2.45), (side * 0.28, 3.1)]), (255, 250, 236), width=1.6)


def _kimono(pen: Pen, *, sitting: bool) -> None:
    end = 7.6 if sitting else 9.0
    robe = smooth(
        both(
            [
                (0, 1.5),
                (0.55, 1.6),
                (1.06, 1.84),
                (1.02, 2.6),
                (0.92, 3.4),
                (1.08, 4.6),
                (1.1, 6.5),
                (1.0, end, 1),
                (0, end + 0.06),
            ]
        )
    )
    pen.shape(
        robe,
        LILAC.base,
        LILAC.ink,
        (smooth([(0.4, 1.4), (0.55, 3.4), (0.6, 9.5), (1.6, 9.5), (1.6, 1.4)]), LILAC.shade),
    )
    pen.ink(smooth([(0.1, 4.4), (0.3, 6.5), (0.15, end)], closed=False), LILAC.ink, width=0.8)
    for x, y in ((-0.6, 5.4), (0.62, 6.3), (-0.45, 7.2), (0.55, 8.2), (-0.7, 8.5), (0.62, 5.0)):
        if y < end - 0.3:
            pen.fill(oval(x, y, 0.2, 0.2), (255, 214, 232))
            pen.fill(oval(x, y, 0.08, 0.08), GOLD.base)
    pen.shape(
        smooth([(-0.62, 1.5, 1), (-0.4, 1.42, 1), (0.42, 3.0, 1), (0.12, 3.0, 1)]), CREAM.base, LILAC.ink
    )
    pen.shape(
        smooth([(0.62, 1.5, 1), (0.4, 1.42, 1), (-0.42, 3.0, 1), (-0.12, 3.0, 1)]), CREAM.base, LILAC.ink
    )
    pen.shape(
        smooth(both([(0, 2.95), (0.94, 2.9, 1), (0.96, 4.0, 1), (0, 4.08)])),
        GOLD.base,
        GOLD.ink,
        (smooth([(0.45, 2.8), (0.5, 4.2), (1.2, 4.2), (1.2, 2.8)]), GOLD.shade),
    )
    pen.ink(np.array([(-0.94, 3.48), (0.94, 3.48)]), RED.base, width=2.0)


def _sundress(pen: Pen, *, sitting: bool) -> None:
    pen.shape(smooth(TORSO), SKIN, SKIN_INK, (smooth(TORSO_SHADE), SKIN_SHADE))
    _skirt(pen, MINT, 3.3, 6.3 if not sitting else 6.0, 1.75, folds=4, trim=(255, 255, 255))
    top = smooth(both([(0, 2.25), (0.5, 2.1), (0.82, 2.2, 1), (0.95, 2.6), (0.78, 3.4, 1), (0, 3.45)]))
    pen.shape(top, MINT.base, MINT.ink, (smooth([(0.4, 2), (0.5, 3.6), (1.2, 3.6), (1.2, 2)]), MINT.shade))
    for side in (-1, 1):
        pen.ink(np.array([(side * 0.6, 2.2), (side * 0.66, 1.66)]), MINT.base, width=3.2)
    pen.ink(np.array([(-0.78, 3.35), (0.78, 3.35)]), (255, 255, 255), width=3.0)


def _armor(pen: Pen, *, sitting: bool) -> None:
    _skirt(pen, tones((190, 40, 60)), 3.6, 5.4, 1.35, folds=3)
    pen.shape(smooth(TORSO), STEEL.base, STEEL.ink, (smooth(TORSO_SHADE), STEEL.shade))
    for side in (-1, 1):
        pen.shape(
            smooth(
                [
                    (side * 0.3, 3.7, 1),
                    (side * 0.95, 3.6),
                    (side * 1.35, 4.5),
                    (side * 1.25, 5.1, 1),
                    (side * 0.75, 5.2),
                    (side * 0.5, 4.6),
                ]
            ),
            STEEL.base,
            STEEL.ink,
            (oval(side * 1.3, 4.9, 0.5, 0.9), STEEL.shade),
        )
        pen.ink(
            smooth(
                [(side * 0.1, 2.0), (side * 0.8, 2.4), (side * 0.78, 2.9), (side * 0.1, 3.15)], closed=False
            ),
            STEEL.ink,
            width=0.8,
        )
        pen.clipped(
            smooth(TORSO),
            smooth([(side * 0.35 - 0.12, 2.1), (side * 0.35 + 0.1, 2.1), (side * 0.35, 2.9)]),
            (240, 246, 255),
        )
    pen.shape(
        smooth(both([(0, 1.35), (0.55, 1.4), (0.66, 1.75), (0.3, 2.05), (0, 2.15)])), GOLD.base, GOLD.ink
    )
    pen.ink(np.array([(0, 2.15), (0, 3.5)]), GOLD.base, width=2.0)
    pen.shape(smooth(both([(0, 3.4), (0.8, 3.35, 1), (0.86, 3.72, 1), (0, 3.85)])), GOLD.base, GOLD.ink)


def _maid(pen: Pen, *, sitting: bool) -> None:
    _torso(pen, BLACK)
    _skirt(pen, BLACK, 3.4, 6.1, 1.8, folds=2, trim=(255, 255, 255))
    pen.shape(
        smooth(both([(0, 3.5), (0.6, 3.5, 1), (1.05, 5.0), (1.0, 5.6), (0.5, 5.85), (0, 5.9)])),
        CREAM.base,
        CREAM.ink,
        (smooth([(0.3, 3.4), (0.5, 6), (1.5, 6), (1.5, 3.4)]), CREAM.shade),
    )
    pen.shape(
        smooth(
            both(
                [
                    (0, 2.3),
                    (0.45, 2.25, 1),
                    (0.62, 1.75, 1),
                    (0.86, 1.8, 1),
                    (0.66, 2.6),
                    (0.6, 3.5, 1),
                    (0, 3.5),
                ]
            )
        ),
        CREAM.base,
        CREAM.ink,
    )
    pen.ink(np.array([(-0.8, 3.5), (0.8, 3.5)]), CREAM.base, width=2.6)
    for side in (-1, 1):
        pen.shape(
            smooth([(side * 0.5, 1.4, 1), (side * 0.7, 1.75, 1), (side * 0.1, 2.05, 1), (side * 0.02, 1.85)]),
            CREAM.base,
            CREAM.ink,
        )
        pen.shape(
            smooth([(0, 2.05), (side * 0.34, 1.85), (side * 0.38, 2.35), (side * 0.05, 2.2)]),
            RED.base,
            RED.ink,
            width=0.8,
        )


def _overalls(pen: Pen, *, sitting: bool) -> None:
    _torso(pen, CREAM)
    for y in (1.95, 2.35, 2.75):
        pen.clipped(
            smooth(TORSO), np.array([(-1.2, y), (1.2, y), (1.2, y + 0.18), (-1.2, y + 0.18)]), STRIPE.base
        )
    if sitting:
        for side in (-1, 1):
            leg = limb(_leg_spots(side, sitting=True)[:3], [0.56, 0.52, 0.46])
            pen.shape(leg, DENIM.base, DENIM.ink, (leg + (side * 0.3, 0), DENIM.shade))
    else:
        for side in (-1, 1):
            leg = limb(_leg_spots(side, sitting=False), [0.58, 0.5, 0.44, 0.42, 0.42])
            pen.shape(leg, DENIM.base, DENIM.ink, (leg + (side * 0.3, 0), DENIM.shade))
            pen.ink(
                np.array([(side * 0.48 - 0.4, 8.8), (side * 0.48 + 0.4, 8.8)]), (170, 200, 236), width=1.6
            )
    hips = smooth(
        both(
            [
                (0, 2.6),
                (0.6, 2.55, 1),
                (0.68, 3.2),
                (0.86, 3.5),
                (1.08, 4.4),
                (1.02, 5.0, 1),
                (0.1, 5.2, 1),
                (0, 5.0),
            ]
        )
    )
    pen.shape(
        hips, DENIM.base, DENIM.ink, (smooth([(0.4, 2.5), (0.5, 5.3), (1.4, 5.3), (1.4, 2.5)]), DENIM.shade)
    )
    pen.shape(
        smooth(both([(0, 2.85), (0.36, 2.85, 1), (0.36, 3.3), (0, 3.42)])), DENIM.shade, DENIM.ink, width=0.7
    )
    for side in (-1, 1):
        pen.shape(
            smooth(
                [(side * 0.42, 2.75, 1), (side * 0.62, 2.75, 1), (side * 0.8, 1.7, 1), (side * 0.58, 1.62, 1)]
            ),
            DENIM.base,
            DENIM.ink,
        )
        pen.shape(oval(side * 0.52, 2.7, 0.11, 0.11), GOLD.base, GOLD.ink, width=0.7)


WEAR = {
    "serafuku": _serafuku,
    "hoodie": _hoodie,
    "kimono": _kimono,
    "sundress": _sundress,
    "armor": _armor,
    "maid": _maid,
    "overalls": _overalls,
}
SLEEVES = {
    "serafuku": Sleeve(0.42, 0.36, 0.42, CREAM, (44, 62, 128)),
    "hoodie": Sleeve(1.0, 0.4, 0.34, ORANGE, (214, 110, 24)),
    "kimono": Sleeve(0.95, 0.36, 0.8, LILAC, (255, 214, 232)),
    "sundress": Sleeve(0.0, 0, 0, MINT),
    "armor": Sleeve(1.0, 0.3, 0.3, STEEL, (250, 196, 60)),
    "maid": Sleeve(0.95, 0.36, 0.27, BLACK, (255, 255, 255)),
    "overalls": Sleeve(0.42, 0.36, 0.36, CREAM, (255, 120, 100)),
}
LEGS: dict[str, tuple[Tones | None, float, Colour]] = {
    "serafuku": (tones((40, 40, 56)), 0.55, (104, 58, 44)),
    "hoodie": (CREAM, 0.28, (226, 60, 60)),
    "kimono": (CREAM, 0.2, (170, 60, 60)),
    "sundress": (None, 0.0, (236, 178, 110)),
    "armor": (STEEL, 0.6, (140, 152, 176)),
    "maid": (CREAM, 0.7, (40, 36, 50)),
    "overalls": (CREAM, 0.2, (226, 180, 50)),
}


def draw_body(pen: Pen, outfit: str, pose: str) -> None:
    """Everything below the head but the arms that lie in front of it: see `draw_arms`."""
    sitting = pose == "sitting"
    if sitting:
        wood = tones((176, 122, 78))
        for side in (-1, 1):
            pen.shape(
                np.array([(side * 1.5, 5.2), (side * 1.9, 5.2), (side * 1.9, 8.3), (side * 1.5, 8.3)]),
                wood.shade,
                wood.ink,
            )
        pen.shape(np.array([(-2.2, 4.7), (2.2, 4.7), (2.2, 5.3), (-2.2, 5.3)]), wood.base, wood.ink)
    if pose == "arms behind back":
        draw_arms(pen, outfit, pose)
    sock, height, shoe = LEGS[outfit]
    _legs(pen, sitting=sitting, sock=sock, height=height, shoe=shoe)
    neck = smooth(
        [
            (-0.3, 0.85, 1),
            (0.3, 0.85, 1),
            (0.32, 1.45),
            (0.75, 1.75, 1),
            (0, 2.4, 1),
            (-0.75, 1.75, 1),
            (-0.32, 1.45),
        ]
    )
    pen.shape(
        neck,
        SKIN,
        SKIN_INK,
        (smooth([(-0.5, 0.9), (0.5, 0.9), (0.32, 1.35), (0.0, 1.5), (-0.3, 1.3)]), SKIN_SHADE),
    )
    if outfit == "sundress":
        WEAR[outfit](pen, sitting=sitting)
        pen.fill(
            smooth(
                [(-0.28, 1.1), (0.28, 1.1), (0.3, 1.5), (0.5, 1.75), (0, 1.95), (-0.5, 1.75), (-0.3, 1.5)]
            ),
            SKIN,
        )
        return
    WEAR[outfit](pen, sitting=sitting)


def draw_arms(pen: Pen, outfit: str, pose: str) -> None:
    """Both arms, sleeves and hands; over the head if they are raised."""
    for side, (elbow, wrist) in zip((1, -1), ARMS[pose], strict=True):
        _arm(pen, side, elbow, wrist, SLEEVES[outfit], open_hand=wrist[1] < 2)
    if outfit == "armor":
        for side in (-1, 1):
            pen.shape(
                smooth(
                    [
                        (side * 0.62, 1.9),
                        (side * 0.95, 1.55),
                        (side * 1.4, 1.75),
                        (side * 1.55, 2.35, 1),
                        (side * 1.05, 2.4),
                    ]
                ),
                STEEL.base,
                STEEL.ink,
                (oval(side * 1.4, 2.3, 0.4, 0.3), STEEL.shade),
            )
