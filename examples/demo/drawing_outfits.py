"""Outfits: what covers torso, legs and arms, in the units of drawing_body."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from drawing_pen import Colour, Outline, Pen, Spot, box, curve, even, flip, limb, mix, oval, shift
from drawing_tones import SKIN, SKIN_INK, SKIN_SHADE, Tones, tones

NAVY, CREAM, RED, GOLD = (
    tones((46, 66, 138)),
    tones((252, 250, 250)),
    tones((226, 40, 54)),
    tones((252, 200, 66)),
)
ORANGE, DENIM, LILAC, MINT = (
    tones((252, 150, 40)),
    tones((66, 110, 188)),
    tones((176, 82, 176)),
    tones((124, 226, 200)),
)
STEEL, BLACK, SHORTS = tones((190, 204, 224)), tones((52, 48, 68)), tones((74, 78, 104))
STRIPE: Colour = (255, 118, 98)


@dataclass(frozen=True)
class Sleeve:
    """How an arm is dressed.

    Attributes:
        length: share of the arm that is covered.
        widths: half widths from shoulder to cuff.
        trim: colour of a band at its end, if it has one; `band` is its share of the arm.
        plate: what lies over the shoulder, if anything does.
    """

    length: float
    widths: tuple[float, ...]
    cloth: Tones
    trim: Colour | None = None
    band: float = 0.08
    plate: Outline | None = None


@dataclass(frozen=True)
class Legs:
    """Socks over a share of the leg's length, and the colour of the shoes."""

    sock: Tones | None
    height: float
    shoe: Colour


# fmt: off
TORSO = even("0,1.6 .5,1.66 1.02,1.84 1.04,2.3 .96,2.75 .72,3.35 .84,3.8 1.02,4.4 .95,4.75! 0,4.85")
SHADE = curve(".55,1.5 .78,2.4 .42,3.3 .6,5 1.6,5 1.6,1.5")
BUST = curve(".86,2.5 .62,2.86 .25,2.84", closed=False)

COLLAR = curve(".42,1.42! .72,1.62 1.06,1.86! 1.1,2.36! .62,2.62 .06,3.08! .18,2.3")
COLLAR_STRIPE = curve(".98,2.26 .52,2.5 .12,2.82", closed=False)
SCARF = curve("0,2.86! .36,2.6 .56,2.86 .42,3.2 .1,3.06!")
SCARF_END = curve("0,3! .22,3.12 .42,3.75! .22,3.62 .1,3.8! .02,3.4")

HOODIE = even("0,1.6 .6,1.68 1.14,1.92 1.22,2.8 1.26,4.1 1.14,4.6! 0,4.72")
HOODIE_HEM = curve("-1.22,4.2 0,4.34 1.22,4.2", closed=False)
POCKET = even("0,3.3 .52,3.3! .86,3.95! .8,4.16 0,4.2")
HOOD = even("0,2.3 .44,2.02 .6,1.4 .86,1.28 1.2,1.62 1.1,2.15 .6,2.5 0,2.66")
HOOD_INSIDE = even("0,2.3 .44,2.02 .6,1.4 .4,1.5 .25,1.9 0,2.1")
SHORT_LEGS = even("0,4.2 1.06,4.2! 1.12,5.35! .12,5.5! 0,5.1")

ROBE = {True: even("0,1.6 .6,1.68 1.04,1.86 1,2.6 .92,3.4 1.15,4.4 1.36,5.0 1.34,5.5 1.05,7.7! 0,7.8"),
        False: even("0,1.6 .6,1.68 1.04,1.86 1,2.6 .92,3.4 1.08,4.6 1.1,6.5 .98,9.1! 0,9.2")}
ROBE_EDGE = curve("-.1,4 .2,5.5 .34,7.6", closed=False)
NECKBAND = curve(".66,1.5! .38,1.4! -.44,3.02! -.1,3.02!")
OBI = even("0,2.95 .92,2.9! .96,4.02! 0,4.1")
OBI_KNOT = even("0,3.3 .18,3.3! .22,3.72! 0,3.76")

DRESS_TOP = even("0,2.28 .3,2.16 .7,2.05! .98,2.4 .94,2.8 .74,3.42! 0,3.5")
STRAP = curve(".52,2.2! .72,2.12! .74,1.72! .6,1.66!")
CHEST = even("0,1.6 .5,1.66 .98,1.82 1.02,2.4 .9,2.8 0,3")

BREAST = even("0,1.9 .5,1.8 .96,1.9 1.02,2.5 .72,3.2 .7,3.5! 0,3.6")
GLOSS = curve("-.72,2.05 -.5,2 -.44,2.4 -.58,2.9 -.72,2.5")
RIDGE = curve(".12,3.1 .6,2.95 .9,2.5", closed=False)
GORGET = even("0,1.32 .5,1.34! .62,1.7 .34,2.02 0,2.12")
TASSET = curve(".34,3.7! .96,3.6! 1.4,4.5 1.36,5.15! .84,5.35 .52,5.0!")
TASSET_LINE = curve(".44,4.3 .9,4.4 1.28,4.2", closed=False)
PAULDRON = curve(".56,1.92 .84,1.56 1.3,1.66 1.56,2.1 1.5,2.5! 1.1,2.36 .7,2.4!")

BIB = even("0,2.35 .46,2.32! .52,3.5! 0,3.5")
FRILL = curve(".46,2.36! .52,1.7! .72,1.68 .98,1.86 .86,2.1 .94,2.4 .76,2.6 .8,2.95 .62,3.1 .6,3.5! .5,3.5!")
APRON = even("0,3.5 .6,3.5! 1.06,4.9 1.02,5.6 .7,5.78 .5,5.72 .28,5.88 0,5.8")
POINTED = curve(".36,1.42! .74,1.7! .14,2.06! .02,1.86")
TIE = curve("0,2.06! .32,1.86 .42,2.1 .34,2.34 .04,2.2!")

HIPS = even("0,2.62 .6,2.56! .66,3.2 .86,3.5 1.1,4.4 1.06,5.1! .1,5.3! 0,5.05")
BIB_POCKET = even("0,2.9 .36,2.88! .36,3.3 0,3.44")
SHOULDER_STRAP = curve(".4,2.78! .64,2.78! .8,1.72! .58,1.64!")
# fmt: on


def _torso(pen: Pen, cloth: Tones) -> None:
    pen.shape(TORSO, cloth.base, cloth.ink, (SHADE, cloth.shade))
    for line in (BUST, flip(BUST)) if pen.fine else ():
        pen.ink(line, mix(cloth.ink, cloth.shade, 0.4), width=0.6)


def _skirt(
    pen: Pen,
    legs: tuple[Spot, ...],
    cloth: Tones,
    span: tuple[float, float],
    wide: float,
    *,
    folds: int,
    trim: Colour | None = None,
) -> None:
    """A skirt with pleats from waist to hem; `trim` colours a band along its hem."""
    top, bottom = span
    if pen.bottom < top:
        return
    if is_sitting(legs):
        _lap(pen, cloth, top, bottom, trim)
        return
    middle = (top + bottom) / 2
    hem = f"{wide},{bottom}! {wide * 0.5},{bottom + 0.16} 0,{bottom + 0.2}"
    outline = even(f"0,{top} .76,{top}! {wide * 0.78},{middle} {hem}")
    pen.shape(outline, cloth.base, cloth.ink)
    for i in range(1, folds):
        share = i / folds * 2 - 1
        fold = np.array(
            [
                (0.74 * share, top + 0.2),
                (wide * share * 0.97, bottom + 0.3),
                (wide * (share + 0.62 / folds), bottom + 0.3),
            ]
        )
        pen.clipped(outline, fold, cloth.shade)
        pen.ink(
            np.array([(0.76 * share, top + 0.25), (wide * share * 0.97, bottom + 0.14)]), cloth.ink, width=0.6
        )
    pen.clipped(
        outline,
        np.array([(0.5, top), (wide * 0.62, bottom + 0.4), (wide * 1.4, bottom + 0.4), (wide, top)]),
        cloth.shade,
    )
    if trim:
        low, edge = bottom + 0.5, wide * 1.2
        below = [(-edge, low), (-edge, bottom - 0.2), (0.0, bottom), (edge, bottom - 0.2), (edge, low)]
        pen.clipped(outline, np.array(below), trim)
    pen.ink(outline, cloth.ink, closed=True)


def is_sitting(legs: tuple[Spot, ...]) -> bool:
    """Whether these are the legs of somebody who sits."""
    return legs[-1][1] < 9


def _lap(pen: Pen, cloth: Tones, top: float, bottom: float, trim: Colour | None) -> None:
    """A skirt over the knees of somebody who sits: its front falls from the knees and lies in shade."""
    hem = 5.75 if bottom < 6 else 6.5
    outline = even(
        f"0,{top} .76,{top}! 1.28,4.2 1.5,4.8 1.52,{hem}! 1.1,{hem + 0.1} .66,{hem} 0,{hem + 0.08}"
    )
    front = curve(f"-1.7,5.15 -.7,5.3 0,5.15 .7,5.3 1.7,5.15 1.7,{hem + 0.4}! -1.7,{hem + 0.4}!")
    pen.shape(outline, cloth.base, cloth.ink, (front, cloth.shade))
    for side in (-1, 1):
        pen.ink(curve(f"{side * 0.12},4.6 {side * 0.08},5.2", closed=False), cloth.ink, width=0.6)
        pen.ink(curve(f"{side * 1.1},5.3 {side * 1.14},{hem}", closed=False), cloth.ink, width=0.6)
    if trim:
        pen.clipped(outline, box(-2, hem - 0.16, 2, hem + 0.4), trim)
    pen.ink(outline, cloth.ink, closed=True)


def _serafuku(pen: Pen, legs: tuple[Spot, ...]) -> None:
    _torso(pen, CREAM)
    _skirt(pen, legs, NAVY, (3.5, 5.6), 1.5, folds=7)
    for side in (-1, 1):
        at = pen.moved(0, 0, wide=side)
        at.shape(COLLAR, NAVY.base, NAVY.ink)
        at.ink(COLLAR_STRIPE, (255, 255, 255), width=0.8)
        at.shape(SCARF_END, RED.base, RED.ink)
        at.shape(SCARF, RED.base, RED.ink, (shift(SCARF, 0.1 * side, 0.16), RED.shade))
    pen.shape(oval(0, 2.96, 0.14, 0.17), RED.base, RED.ink)


def _hoodie(pen: Pen, legs: tuple[Spot, ...]) -> None:
    if pen.bottom > 4.2:
        pen.shape(SHORT_LEGS, SHORTS.base, SHORTS.ink, (shift(SHADE, 0.0, 0.6), SHORTS.shade))
    pen.shape(HOODIE, ORANGE.base, ORANGE.ink, (shift(SHADE, 0.16, 0), ORANGE.shade))
    pen.ink(HOODIE_HEM, ORANGE.ink, width=0.7)
    pen.shape(POCKET, ORANGE.base, ORANGE.ink, (shift(POCKET, 0.3, 0.2), ORANGE.shade), width=0.7)
    pen.shape(HOOD, ORANGE.base, ORANGE.ink, (shift(HOOD, 0.3, 0.3), ORANGE.shade))
    pen.shape(HOOD_INSIDE, ORANGE.shade, ORANGE.ink, width=0.7)
    for side in (-1, 1):
        pen.shape(
            curve(f"{side * 0.22},2.46 {side * 0.3},2.46 {side * 0.32},3.1 {side * 0.22},3.1"),
            (255, 252, 244),
            ORANGE.ink,
            width=0.6,
        )


def _kimono(pen: Pen, legs: tuple[Spot, ...]) -> None:
    robe = ROBE[is_sitting(legs)]
    pen.shape(robe, LILAC.base, LILAC.ink, (curve(".5,1.5 .6,3.4 .5,5 .56,9.4 1.8,9.4 1.8,1.5"), LILAC.shade))
    pen.ink(ROBE_EDGE, LILAC.ink, width=0.7)
    for x, y in ((-0.62, 5.1), (0.66, 5.9), (-0.5, 6.6), (0.5, 7.4), (-0.62, 8.1), (0.5, 8.7), (-0.3, 5.9)):
        if y < robe[:, 1].max() - 0.3:
            _flower(pen, x, y)
    for points in (NECKBAND, flip(NECKBAND)):
        pen.shape(points, CREAM.base, LILAC.ink)
    pen.shape(OBI, GOLD.base, GOLD.ink, (SHADE, GOLD.shade))
    pen.shape(box(-0.93, 3.38, 0.93, 3.62), RED.base, RED.ink, width=0.7)
    pen.shape(OBI_KNOT, RED.base, RED.ink, width=0.7)


def _flower(pen: Pen, x: float, y: float) -> None:
    for turn in range(5):
        angle = turn * 1.2566 - 1.57
        pen.fill(
            oval(x + 0.13 * float(np.cos(angle)), y + 0.13 * float(np.sin(angle)), 0.1, 0.1), (255, 222, 238)
        )
    pen.fill(oval(x, y, 0.07, 0.07), GOLD.base)


def _sundress(pen: Pen, legs: tuple[Spot, ...]) -> None:
    pen.shape(TORSO, SKIN, SKIN_INK, (SHADE, SKIN_SHADE))
    pen.fill(curve("-.29,1.2! .29,1.2! .4,1.58 .7,1.75 0,2.4 -.7,1.75 -.4,1.58"), SKIN)
    pen.clipped(CHEST, curve("-.5,.8 .5,.8 .4,1.3 .1,1.5 -.25,1.38"), SKIN_SHADE)
    _skirt(pen, legs, MINT, (3.35, 6.35), 1.8, folds=5, trim=(255, 255, 255))
    for points in (STRAP, flip(STRAP)):
        pen.shape(points, MINT.base, MINT.ink, width=0.8)
    pen.shape(DRESS_TOP, MINT.base, MINT.ink, (SHADE, MINT.shade))
    pen.shape(curve("-.78,3.3! .78,3.3! .78,3.55! -.78,3.55!"), (255, 255, 255), MINT.ink, width=0.8)
    for side in (-1, 1):
        pen.shape(curve(f"0,3.42 {side * 0.3},3.2 {side * 0.36},3.6"), (255, 255, 255), MINT.ink, width=0.7)


def _armor(pen: Pen, legs: tuple[Spot, ...]) -> None:
    _torso(pen, BLACK)
    _skirt(pen, legs, RED, (3.6, 5.5), 1.4, folds=5)
    pen.shape(BREAST, STEEL.base, STEEL.ink, (SHADE, STEEL.shade), (GLOSS, (250, 252, 255)))
    for side in (-1, 1):
        at = pen.moved(0, 0, wide=side)
        at.ink(RIDGE, STEEL.ink, width=0.7)
        at.shape(TASSET, STEEL.base, STEEL.ink, (shift(TASSET, 0.3 * side, 0.2), STEEL.shade))
        at.ink(TASSET_LINE, STEEL.ink, width=0.6)
    pen.shape(even("0,2.1 .08,2.1! .08,3.4! 0,3.45"), GOLD.base, GOLD.ink, width=0.7)
    pen.shape(even("0,3.38 .74,3.34! .84,3.74! 0,3.84"), GOLD.base, GOLD.ink, (SHADE, GOLD.shade))
    pen.shape(GORGET, GOLD.base, GOLD.ink, (shift(SHADE, -0.3, 0), GOLD.shade))
    pen.shape(oval(0, 2.5, 0.17, 0.22), (64, 160, 236), GOLD.ink, width=0.8)


def _maid(pen: Pen, legs: tuple[Spot, ...]) -> None:
    _torso(pen, BLACK)
    _skirt(pen, legs, BLACK, (3.45, 6.2), 1.75, folds=4, trim=(255, 255, 255))
    if pen.bottom > 3.5:
        pen.shape(APRON, CREAM.base, CREAM.ink, (shift(SHADE, -0.1, 1), CREAM.shade))
    pen.shape(BIB, CREAM.base, CREAM.ink, (shift(SHADE, -0.3, 0), CREAM.shade))
    for side in (-1, 1):
        at = pen.moved(0, 0, wide=side)
        at.shape(FRILL, CREAM.base, CREAM.ink)
        at.shape(POINTED, CREAM.base, CREAM.ink)
        at.shape(TIE, RED.base, RED.ink, width=0.8)
    pen.shape(box(-0.76, 3.4, 0.76, 3.62), CREAM.base, CREAM.ink, width=0.8)


def _overalls(pen: Pen, legs: tuple[Spot, ...]) -> None:
    _torso(pen, CREAM)
    for y in (1.9, 2.3, 2.7, 3.1):
        pen.clipped(TORSO, box(-1.2, y, 1.2, y + 0.18), STRIPE)
    pen.ink(TORSO, CREAM.ink, closed=True)
    if pen.bottom > 4.5:
        for side in (-1, 1):
            at = pen.moved(0, 0, wide=side)
            widths = (0.56, 0.58, 0.54, 0.46, 0.45) if is_sitting(legs) else (0.56, 0.5, 0.46, 0.45, 0.45)
            trousers = limb(legs, widths, (0.0, 0.96), flat="end")
            at.shape(trousers, DENIM.base, DENIM.ink, (shift(trousers, 0.34 * side, 0), DENIM.shade))
            turned_up = limb(legs, (0.47, 0.48), (0.9, 0.97), flat="both")
            at.shape(turned_up, (176, 206, 240), DENIM.ink, width=0.8)
    pen.shape(HIPS, DENIM.base, DENIM.ink, (shift(SHADE, 0.02, 0.3), DENIM.shade))
    pen.shape(BIB_POCKET, DENIM.base, DENIM.ink, (shift(BIB_POCKET, 0.2, 0.12), DENIM.shade), width=0.7)
    for side in (-1, 1):
        at = pen.moved(0, 0, wide=side)
        at.shape(SHOULDER_STRAP, DENIM.base, DENIM.ink)
        at.shape(oval(0.52, 2.72, 0.12, 0.12), GOLD.base, GOLD.ink, width=0.7)


WEAR: dict[str, Callable[[Pen, tuple[Spot, ...]], None]] = {
    "serafuku": _serafuku,
    "hoodie": _hoodie,
    "kimono": _kimono,
    "sundress": _sundress,
    "armor": _armor,
    "maid": _maid,
    "overalls": _overalls,
}
SLEEVES = {
    "serafuku": Sleeve(0.46, (0.3, 0.42, 0.42), CREAM, NAVY.base, 0.1),
    "hoodie": Sleeve(0.97, (0.34, 0.42, 0.38, 0.36, 0.3), ORANGE, ORANGE.shade, 0.1),
    "kimono": Sleeve(1.0, (0.4, 0.4), LILAC),
    "sundress": Sleeve(0.0, (), MINT),
    "armor": Sleeve(0.98, (0.28, 0.27, 0.3, 0.26, 0.24), STEEL, GOLD.base, 0.08, PAULDRON),
    "maid": Sleeve(0.96, (0.34, 0.38, 0.3, 0.26, 0.24), BLACK, CREAM.base, 0.1),
    "overalls": Sleeve(0.42, (0.3, 0.38, 0.38), CREAM, STRIPE, 0.1),
}
LEGS = {
    "serafuku": Legs(tones((44, 44, 62)), 0.56, (110, 62, 46)),
    "hoodie": Legs(CREAM, 0.26, (230, 62, 62)),
    "kimono": Legs(CREAM, 0.2, (176, 62, 62)),
    "sundress": Legs(None, 0.0, (240, 182, 112)),
    "armor": Legs(STEEL, 0.64, (150, 164, 190)),
    "maid": Legs(CREAM, 0.72, (48, 42, 58)),
    "overalls": Legs(CREAM, 0.2, (232, 186, 54)),
}
