"""Bodies: neck, legs, arms and hands in their poses, dressed by drawing_outfits.

Units as in drawing_head: the chin at 1.13, shoulders at 1.9, waist at 3.35, soles at 9.75.
"""

import numpy as np
from drawing_outfits import LEGS, SLEEVES, WEAR, Legs, Sleeve
from drawing_pen import Pen, Spot, along, box, cuff, curve, even, limb, mix, shift
from drawing_tones import SKIN, SKIN_INK, SKIN_SHADE, tones

# fmt: off
SHOULDER: Spot = (.84, 2.04)
ARMS: dict[str, tuple[Spot, Spot]] = {  # elbow and wrist of the arm on the picture's right
    "down": ((1.3, 3.1), (1.45, 4.3)),
    "up": ((1.95, 1.35), (1.72, -.1)),
    "wave": ((1.78, 2.75), (2.08, 1.35)),
    "hip": ((1.95, 3.0), (1.12, 3.75)),
    "back": ((1.45, 2.95), (.9, 3.9)),
    "lap": ((1.34, 3.2), (.62, 4.25)),
}
POSE_ARMS = {
    "standing": ("down", "down"), "arms up": ("up", "up"), "waving": ("wave", "down"),
    "hand on hip": ("hip", "down"), "arms behind back": ("back", "back"), "sitting": ("lap", "lap"),
}
KIMONO_SLEEVES = {
    "down": curve(".6,1.72! .95,1.85 1.62,3.2 1.84,4.2! 1.95,5.35! 1.1,5.3! .98,4 .92,2.8!"),
    "up": curve(".62,2.3! .8,1.9 1.1,1.75 1.5,1.1 1.42,.25! 2.05,.2! 2.6,.9 2.95,2.3! 2.2,2.75 .9,2.85!"),
    "wave": curve(".6,1.72! .95,1.85 1.55,2.4 1.72,1.7! 2.38,1.72! 2.7,2.6 2.85,3.9! 1.9,3.9! 1.4,3.4 .9,2.85!"),
    "hip": curve(".6,1.72! .95,1.85 2.2,2.75 2.3,3.2 2.45,4.7! 1.5,5.1! 1.36,4.0! 1.5,3.3 .9,2.85!"),
    "back": curve(".6,1.72! .95,1.85 1.7,2.9 1.95,3.6 1.9,5! 1.1,4.9! .9,3.2 .9,2.85!"),
    "lap": curve(".6,1.72! .95,1.85 1.72,3.1 1.85,4.2 1.75,5.5! .9,5.5! .72,4.7! .7,4! 1,3.3 .9,2.85!"),
}
OPEN_HAND = curve("-.15,-.12 .15,-.12 .2,.08 .37,.2 .52,.38 .44,.48 .28,.38 .25,.46 .31,.76 .22,.83 .15,.76 .12,.54 .1,.86 .01,.93 -.07,.86 -.06,.55 -.13,.84 -.22,.86 -.26,.77 -.18,.48 -.27,.66 -.36,.66 -.38,.56 -.27,.28 -.2,.08")
REST_HAND = curve("-.15,-.12 .15,-.12 .2,.12 .22,.34 .15,.6 .02,.68 -.1,.6 -.13,.42 -.2,.44 -.25,.3 -.2,.1")
REST_LINES = (curve("-.12,.4 -.09,.26 -.12,.16", closed=False), curve(".04,.62 .05,.5 .03,.4", closed=False))
NECK = curve("-.3,.8! .3,.8! .31,1.4 .42,1.58 .85,1.8! 0,2.6! -.85,1.8! -.42,1.58 -.31,1.4")
NECK_SHADE = curve("-.5,.8 .5,.8 .4,1.3 .1,1.5 -.25,1.38")
COLLARBONES = (curve(".16,1.86 .4,1.78 .62,1.8", closed=False), curve("-.16,1.86 -.4,1.78 -.62,1.8", closed=False))
STANDING_LEG: tuple[Spot, ...] = ((.5, 4.4), (.53, 5.6), (.5, 6.9), (.52, 7.9), (.47, 9.25))
SITTING_LEG: tuple[Spot, ...] = ((.6, 4.6), (.66, 5.0), (.66, 5.4), (.56, 6.6), (.46, 8.1))
LEG_WIDTHS = {True: (.5, .52, .46, .34, .21), False: (.5, .45, .34, .34, .21)}
KNEE = curve("-.22,.1 0,.24 .22,.1", closed=False)
CHAIR_BACK = even("0,2.3 1.2,2.4 1.5,2.7 1.5,5.2! 0,5.2")
SHOE = curve("-.25,-.2 0,-.26 .25,-.2 .34,.12 .42,.36 .36,.5! -.3,.5! -.32,.3 -.28,.05")
SOLE = curve("-.32,.42! .42,.42! .38,.54! -.3,.54!")
# fmt: on


def draw_body(pen: Pen, outfit: str, pose: str) -> None:
    """Everything between head and soles but the arms that lie in front of it: see `draw_arms`."""
    sitting = pose == "sitting"
    if sitting:
        _chair(pen)
    if pose == "arms behind back":
        draw_arms(pen, outfit, pose)
    if pen.bottom > 4:
        _legs(pen, LEGS[outfit], sitting=sitting)
    pen.shape(NECK, SKIN, SKIN_INK, (NECK_SHADE, SKIN_SHADE))
    for line in COLLARBONES if pen.fine else ():
        pen.ink(line, SKIN_INK, width=0.6)
    WEAR[outfit](pen, SITTING_LEG if sitting else STANDING_LEG)


def _chair(pen: Pen) -> None:
    wood = tones((190, 134, 86))
    pen.shape(CHAIR_BACK, wood.shade, wood.ink)
    pen.shape(
        shift(CHAIR_BACK * (0.78, 0.72), 0.0, 1.1), mix(wood.shade, wood.ink, 0.35), wood.ink, width=0.8
    )
    for left in (-1.7, 1.35):
        pen.shape(box(left, 5.1, left + 0.35, 8.5), wood.shade, wood.ink)
    pen.shape(box(-1.8, 4.85, 1.8, 5.4), wood.base, wood.ink, (box(-2.4, 5.15, 2.4, 5.5), wood.shade))


def _legs(pen: Pen, wear: Legs, *, sitting: bool) -> None:
    spots, widths = (SITTING_LEG if sitting else STANDING_LEG), LEG_WIDTHS[sitting]
    shoe = tones(wear.shoe)
    for side in (-1, 1):
        at = pen.moved(0, 0, wide=side)
        leg = limb(spots, widths)
        at.shape(leg, SKIN, SKIN_INK, (shift(leg, 0.24 * side, 0), SKIN_SHADE))
        if sitting:
            at.moved(0.66, 5.3).ink(KNEE, SKIN_INK, width=0.7)
        if wear.sock:
            start = 1 - wear.height
            girth = np.interp(np.linspace(start, 1, 6), np.linspace(0, 1, 5), widths) + 0.02
            sock = limb(spots, tuple(girth.tolist()), (start, 1.0), flat="both")
            at.shape(sock, wear.sock.base, wear.sock.ink, (shift(sock, 0.24 * side, 0), wear.sock.shade))
        foot = at.moved(*spots[-1])
        foot.shape(SHOE, shoe.base, shoe.ink, (shift(SHOE, 0.24 * side, 0.1), shoe.shade))
        foot.shape(SOLE, (250, 248, 246), shoe.ink, width=0.8)


def draw_arms(pen: Pen, outfit: str, pose: str) -> None:
    """Both arms with hands and sleeves."""
    for side, kind in zip((1, -1), POSE_ARMS[pose], strict=True):
        at = pen.moved(0, 0, wide=side)
        spots = (SHOULDER, *ARMS[kind])
        _hand(at, spots, raised=kind in ("up", "wave"))
        arm = limb(spots, (0.27, 0.25, 0.22, 0.16))
        if outfit != "kimono":
            at.shape(arm, SKIN, SKIN_INK, (shift(arm, 0.16 * side, 0.06), SKIN_SHADE))
        if outfit == "kimono":
            cloth = SLEEVES[outfit].cloth
            drape = KIMONO_SLEEVES[kind]
            at.shape(drape, cloth.base, cloth.ink, (shift(drape, 0.36 * side, 0.1), cloth.shade))
        else:
            _sleeve(at, SLEEVES[outfit], spots, side)


def _sleeve(pen: Pen, sleeve: Sleeve, spots: tuple[Spot, ...], side: int) -> None:
    if not sleeve.length:
        return
    cloth = limb(spots, sleeve.widths, (0.0, sleeve.length), flat="end")
    pen.shape(
        cloth, sleeve.cloth.base, sleeve.cloth.ink, (shift(cloth, 0.22 * side, 0.08), sleeve.cloth.shade)
    )
    if sleeve.trim:
        band = cuff(spots, (sleeve.length - sleeve.band, sleeve.length), sleeve.widths[-1] + 0.03)
        pen.shape(band, sleeve.trim, sleeve.cloth.ink, width=0.8)
    if sleeve.plate is not None:
        pen.shape(
            sleeve.plate,
            sleeve.cloth.base,
            sleeve.cloth.ink,
            (shift(sleeve.plate, 0.2 * side, 0.25), sleeve.cloth.shade),
        )


def _hand(pen: Pen, spots: tuple[Spot, ...], *, raised: bool) -> None:
    """A hand at the end of an arm, turned as the forearm is."""
    end, before = along(spots)[-1], along(spots)[-12]
    degrees = float(np.degrees(np.arctan2(before[0] - end[0], end[1] - before[1])))
    at = pen.moved(float(end[0]), float(end[1]), degrees)
    if raised:
        at.shape(OPEN_HAND, SKIN, SKIN_INK, width=0.8)
        return
    at.shape(REST_HAND, SKIN, SKIN_INK, width=0.8)
    for line in REST_LINES if pen.fine else ():
        at.ink(line, SKIN_INK, width=0.6)
