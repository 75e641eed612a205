"""The face of a character in cel style, and what is worn on the head.

Units: half the width of the face is 1, the origin lies above the nose at the height of the brows, y runs
down, the chin is at 1.12.
"""

from collections.abc import Callable

import numpy as np
from drawing_pen import Colour, Outline, Pen, curve, even, flip, mix, oval, shift
from drawing_tones import EYES, LASH, SKIN, SKIN_INK, SKIN_SHADE, WHITE, Tones, tones

# fmt: off
FACE = even("0,-1 .7,-.78 .97,-.15 .95,.36 .8,.67 .45,.97 .13,1.12 0,1.15")
CHEEK = curve(".62,.9 .86,.5 .9,-.2 1.3,-.2 1.2,.9 .5,1.2")
EAR = oval(.98, .3, .13, .22)
WHITES = curve("-.26,.1 -.24,-.16 -.06,-.33 .16,-.29 .28,-.06 .23,.2 .02,.33 -.17,.28")
LID_SHADE = curve("-.4,-.5 .4,-.5 .35,-.13 0,-.18 -.3,-.1")
UPPER_LASH = curve("-.31,.04! -.24,-.24 -.05,-.41 .18,-.38 .33,-.18 .44,-.2! .36,-.02 .33,.12! .26,-.1 .15,-.25 -.05,-.3 -.2,-.15")
FOLD = curve("-.2,-.4 0,-.5 .24,-.44", closed=False)
LOWER_LASH = curve(".24,.22 .1,.34 -.1,.34", closed=False)
SHUT = curve("-.3,.06! -.16,-.1 .03,-.15 .22,-.07 .38,.1! .31,.14 .18,.02 .02,-.05 -.16,-.01")
SHUT_LASHES = curve(".26,.02! .42,.02! .3,.1!")
IRIS = ((oval(0, .01, .215, .33), 0.0), (oval(0, .06, .19, .26), .35), (oval(0, .12, .18, .19), .75), (oval(0, .17, .14, .12), 1.0))
TEAR = curve("-.11,.26! .13,.28! .14,.46 .17,.68 .04,.8 -.1,.7 -.1,.46")
TEAR_LIGHT = curve("-.03,.32 .03,.32 .02,.6 -.02,.6")
NOSE = curve(".02,.6! .07,.67! -.01,.69!", closed=False)
MOUTHS = {
    "smile": curve("-.19,.8 -.07,.87 .07,.87 .19,.8", closed=False),
    "angry": curve("-.17,.92 -.06,.84 .06,.84 .17,.92", closed=False),
    "blush": curve("-.16,.86 -.08,.81 0,.87 .08,.81 .16,.86", closed=False),
}
OPEN = {
    "open mouth": curve("-.23,.77! 0,.8 .23,.77! .17,.96 0,1.03 -.17,.96"),
    "closed eyes": curve("-.15,.78! 0,.8 .15,.78! .11,.91 0,.95 -.11,.91"),
    "crying": curve("-.17,.93! -.1,.81 .1,.81 .17,.93! 0,.89"),
}
TONGUE = oval(0, 1.03, .15, .12)
BROWS = {
    "smile": curve(".22,-.22 .46,-.28 .7,-.16", closed=False),
    "angry": curve(".15,.0 .4,-.14 .7,-.24", closed=False),
    "crying": curve(".18,-.28 .42,-.22 .68,-.06", closed=False),
    "blush": curve(".18,-.24 .42,-.24 .68,-.1", closed=False),
}
# fmt: on


def draw_face(pen: Pen, eyes: str, expression: str, turn: float, fringe: Outline) -> None:
    """Skin, ears, eyes, nose, mouth; `turn` moves the features sideways; the fringe casts a shadow."""
    for ear in (EAR, flip(EAR)):
        pen.shape(ear, SKIN, SKIN_INK)
    pen.fill(FACE, SKIN)
    pen.clipped(FACE, CHEEK, SKIN_SHADE)
    pen.clipped(FACE, shift(fringe, 0.02, 0.12), SKIN_SHADE)
    pen.ink(FACE, SKIN_INK, closed=True)
    features = pen.moved(turn * 0.15, 0)
    _blush(features, strong=expression == "blush")
    for side in (-1, 1):
        _eye(features, side, EYES[eyes], expression, 1 - 0.12 * max(0.0, side * turn))
    if pen.fine:
        features.ink(NOSE, SKIN_INK, width=0.7)
    _mouth(pen.moved(turn * 0.17, 0), expression)


def draw_brows(pen: Pen, expression: str, turn: float, hair: Tones) -> None:
    """Brows, which are seen through the fringe."""
    brow = BROWS.get(expression, BROWS["smile"])
    features = pen.moved(turn * 0.15, 0)
    for points in (brow, flip(brow)):
        features.ink(points, hair.ink, width=1.5 if expression == "angry" else 0.9)


def _eye(pen: Pen, side: int, colour: Colour, expression: str, narrow: float) -> None:
    """An eye: white, iris in four tones, pupil, two catchlights, lashes."""
    at = pen.moved(side * 0.45, 0.33, wide=side * narrow)
    if expression == "closed eyes":
        at.fill(SHUT, LASH)
        at.fill(SHUT_LASHES, LASH)
        return
    at.fill(WHITES, WHITE)
    at.clipped(WHITES, LID_SHADE, (208, 204, 230))
    dark = mix(colour, (26, 10, 48), 0.66)
    for outline, share in IRIS:
        at.clipped(WHITES, outline, mix(dark, mix(colour, WHITE, 0.12), share))
    at.fill(oval(0, 0.22, 0.1, 0.055), mix(colour, WHITE, 0.62))
    at.fill(oval(0, 0.0, 0.08, 0.13), mix(dark, (8, 2, 16), 0.7))
    at.fill(UPPER_LASH, LASH)
    if pen.fine:
        at.ink(LOWER_LASH, SKIN_INK, width=0.7)
        at.ink(FOLD, SKIN_INK, width=0.5)
    at.fill(oval(-0.08 * side, -0.12, 0.085, 0.105), WHITE)
    at.fill(oval(0.1 * side, 0.14, 0.04, 0.05), WHITE)
    if expression == "crying":
        at.shape(TEAR, (150, 214, 255), (74, 136, 204), width=0.7)
        at.fill(TEAR_LIGHT, (226, 244, 255))


def _blush(pen: Pen, *, strong: bool) -> None:
    for side in (-1, 1):
        if not strong:
            pen.fill(oval(side * 0.6, 0.71, 0.17, 0.065), (255, 206, 192))
            continue
        pen.fill(oval(side * 0.58, 0.7, 0.25, 0.13), (255, 142, 140))
        for dash in (-0.12, 0.0, 0.12):
            x = side * 0.58 + dash
            pen.ink(np.array([(x + 0.04, 0.62), (x - 0.04, 0.78)]), (210, 66, 80), width=0.7)
    if strong:
        pen.fill(oval(0, 0.64, 0.2, 0.05), (255, 168, 158))


def _mouth(pen: Pen, expression: str) -> None:
    mouth = OPEN.get(expression)
    if mouth is None:
        pen.ink(MOUTHS[expression], SKIN_INK, width=1.2 if expression == "angry" else 1.0)
    elif expression == "crying":
        pen.shape(mouth, (172, 44, 60), SKIN_INK, width=0.8)
    else:
        pen.shape(mouth, (172, 44, 60), SKIN_INK, (TONGUE, (250, 132, 132)), width=0.8)


# ---- worn on the head -----------------------------------------------------------------------------------

# fmt: off
FRAME = curve(".1,.1 .45,.0 .86,.08 .84,.56 .5,.7 .14,.58")
BRIDGE = curve("-.1,.24 0,.19 .1,.24", closed=False)
GLINT = curve(".62,.1! .74,.1! .5,.6! .38,.6!")
LOOP = curve(".08,-.06 .5,-.52 .98,-.5 1,.1 .6,.32 .1,.1")
LOOP_SHADE = curve(".1,.1 .6,-.02 1.1,0 .7,.5")
RIBBON_END = curve(".06,.1! .3,.62 .62,.8! .4,.3 .2,.1")
BAND = even("0,-1.72 .7,-1.54 1.24,-.84 1.32,.1! 1.16,.1! 1.08,-.74 .6,-1.36 0,-1.52")
CONE = curve("-1.08,-.72! -.78,-1.5 -.34,-2.2 .2,-2.7 .95,-2.8! .62,-2.3 .78,-1.5 1.08,-.72!")
CONE_SHADE = curve(".2,-2.5! .5,-1.9 .35,-1.2 .3,-.6! 1.3,-.6! 1.2,-3!")
HAT_BAND = curve("-1,-.95! 0,-.84 1,-.95! .87,-1.35! 0,-1.24 -.87,-1.35!")
BRIM = curve("-1.95,-.48 -1,-.95 0,-1.02 1,-.95 1.95,-.48 1,-.6 0,-.64 -1,-.6")
BRIM_SHADE = curve("-2,-.45 -1,-.72 0,-.78 1,-.72 2,-.45 2,0 -2,0")
CAT_EAR = curve(".28,-1.32! .7,-1.9 1.1,-2.2! 1.24,-1.5 1.14,-.78!")
CAT_INNER = curve(".52,-1.36 .8,-1.8 1.02,-1.96! 1.1,-1.5 1.02,-1.05")
# fmt: on


def _glasses(pen: Pen, turn: float, _: Tones) -> None:
    at = pen.moved(turn * 0.15, 0)
    rim: Colour = (62, 58, 132)
    for points in (FRAME, flip(FRAME)):
        at.ink(points, rim, width=1.25, closed=True)
    at.ink(BRIDGE, rim, width=1.25)


def _bow(pen: Pen, _: float, __: Tones) -> None:
    red = tones((228, 36, 54))
    at = pen.moved(0.0, -1.36)
    for turned in (lambda points: points, flip):
        at.shape(turned(RIBBON_END), red.shade, red.ink)
        at.shape(turned(LOOP), red.base, red.ink, (turned(LOOP_SHADE), red.shade))
    at.shape(oval(0, 0, 0.2, 0.22), red.base, red.ink)
    at.fill(oval(-0.05, -0.06, 0.07, 0.07), red.light)


def _headphones(pen: Pen, _: float, __: Tones) -> None:
    dark, shell = tones((66, 72, 92)), tones((60, 222, 210))
    pen.shape(BAND, dark.base, dark.ink)
    for side in (-1, 1):
        cup = oval(side * 1.22, 0.25, 0.3, 0.46)
        pen.shape(cup, shell.base, shell.ink, (oval(side * 1.22 + 0.16, 0.42, 0.3, 0.44), shell.shade))
        pen.shape(oval(side * 1.26, 0.25, 0.14, 0.24), dark.base, dark.ink)


def _witch_hat(pen: Pen, _: float, __: Tones) -> None:
    cloth, gold = tones((82, 58, 130)), tones((250, 190, 50))
    pen.shape(CONE, cloth.base, cloth.ink, (CONE_SHADE, cloth.shade))
    pen.shape(HAT_BAND, gold.base, cloth.ink)
    pen.shape(BRIM, cloth.base, cloth.ink, (BRIM_SHADE, cloth.shade))


def _cat_ears(pen: Pen, _: float, hair: Tones) -> None:
    fur = tones((70, 58, 66))
    for turned in (lambda points: points, flip):
        pen.shape(turned(CAT_EAR), fur.base, fur.ink)
        pen.fill(turned(CAT_INNER), (255, 168, 188))


ACCESSORY: dict[str, Callable[[Pen, float, Tones], None]] = {
    "glasses": _glasses,
    "hair bow": _bow,
    "headphones": _headphones,
    "witch hat": _witch_hat,
    "cat ears": _cat_ears,
}
