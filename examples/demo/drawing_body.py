"""Bodies: neck, legs, arms and hands in their poses, dressed by drawing_outfits.

Units as in drawing_head: the chin at 1.13, shoulders at 1.9, waist at 3.35, soles at 9.75.
"""

import numpy as np
from drawing_outfits import LEGS, SLEEVES, WEAR, Legs, Sleeve
from drawing_pen import Pen, Spot, along, box, cuff, curve, limb, shift
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
    "down": curve(".78,1.76 1.15,2 1.62,3.2 1.84,4.2! 1.95,5.35! 1.1,5.3! .98,4 .95,2.6!"),
    "up": curve(".7,2.35! 1.1,1.75 1.5,1.1 1.42,.25! 2.05,.2! 2.6,.9 2.95,2.3! 2.2,2.75 1.0,2.75!"),
    "wave": curve(".78,1.76! 1.1,2 1.6,2.4 1.72,1.7! 2.38,1.72! 2.7,2.6 2.85,3.9! 1.9,3.9! 1.4,3.4 .95,2.7!"),
    "hip": curve(".78,1.76 1.2,2 2.2,2.75 2.3,3.2 2.45,4.7! 1.5,5.1! 1.36,4.0! 1.5,3.3 .95,2.7!"),
    "back": curve(".78,1.76 1.2,2 1.7,2.9 1.95,3.6 1.9,5! 1.1,4.9! .9,3.2 .95,2.6!"),
    "lap": curve(".78,1.76 1.2,2 1.72,3.1 1.85,4.2 1.75,5.5! .9,5.5! .72,4.7! .7,4! 1,3.3 .95,2.6!"),
}
OPEN_HAND = curve("-.15,-.12 .15,-.12 .2,.08 .37,.2 .52,.38 .44,.48 .28,.38 .25,.46 .31,.76 .22,.83 .15,.76 .12,.54 .1,.86 .01,.93 -.07,.86 -.06,.55 -.13,.84 -.22,.86 -.26,.77 -.18,.48 -.27,.66 -.36,.66 -.38,.56 -.27,.28 -.2,.08")
REST_HAND = curve("-.15,-.12 .15,-.12 .2,.12 .22,.34 .15,.6 .02,.68 -.1,.6 -.13,.42 -.2,.44 -.25,.3 -.2,.1")
REST_LINES = (curve("-.12,.4 -.09,.26 -.12,.16", closed=False), curve(".04,.62 .05,.5 .03,.4", closed=False))
NECK = curve("-.3,.8! .3,.8! .31,1.4 .42,1.58 .85,1.8! 0,2.6! -.85,1.8! -.42,1.58 -.31,1.4")
NECK_SHADE = curve("-.5,.8 .5,.8 .4,1.3 .1,1.5 -.25,1.38")
COLLARBONES = (curve(".16,1.86 .4,1.78 .62,1.8", closed=False), curve("-.16,1.86 -.4,1.78 -.62,1.8", closed=False))
STANDING_LEG: tuple[Spot, ...] = ((.5, 4.4), (.53, 5.6), (.5, 6.9), (.52, 7.9), (.47, 9.25))
SITTING_LEG: tuple[Spot, ...] = ((.52, 4.5), (.6, 5.2), (.6, 5.9), (.62, 6.8), (.57, 8.1))
LEG_WIDTHS = (.5, .45, .34, .34, .21)
SHOE = curve("-.25,-.2 0,-.26 .25,-.2 .34,.12 .42,.36 .36,.5! -.3,.5! -.32,.3 -.28,.05")
SOLE = curve("-.32,.42! .42,.42! .38,.54! -.3,.54!")
# fmt: on


def draw_body(pen: Pen, outfit: str, pose: str) -> None:
    """Everything between head and soles but the arms that lie in front of it: see `draw_arms`."""
    sitting = pose == "sitting"
    if sitting:
        _bench(pen)
    if pose == "arms behind back":
        draw_arms(pen, outfit, pose)
    if pen.bottom > 4:
        _legs(pen, LEGS[outfit], SITTING_LEG if sitting else STANDING_LEG)
    pen.shape(NECK, SKIN, SKIN_INK, (NECK_SHADE, SKIN_SHADE))
    for line in COLLARBONES if pen.fine else ():
        pen.ink(line, SKIN_INK, width=0.6)
    WEAR[outfit](pen, SITTING_LEG if sitting else STANDING_LEG)


def _bench(pen: Pen) -> None:
    wood = tones((182, 128, 84))
    for left in (-2.0, 1.6):
        pen.shape(box(left, 5.1, left + 0.4, 8.5), wood.shade, wood.ink)
    pen.shape(box(-2.4, 4.7, 2.4, 5.25), wood.base, wood.ink, (box(-2.4, 5.0, 2.4, 5.4), wood.shade))


def _legs(pen: Pen, wear: Legs, spots: tuple[Spot, ...]) -> None:
    shoe = tones(wear.shoe)
    for side in (-1, 1):
        at = pen.moved(0, 0, wide=side)
        leg = limb(spots, LEG_WIDTHS)
        at.shape(leg, SKIN, SKIN_INK, (shift(leg, 0.24 * side, 0), SKIN_SHADE))
        if wear.sock:
            widths = tuple(
                w + 0.02
                for w in np.interp(np.linspace(1 - wear.height, 1, 6), np.linspace(0, 1, 5), LEG_WIDTHS)
            )
            sock = limb(spots, widths, (1 - wear.height, 1.0), flat="both")
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
        at.shape(arm, SKIN, SKIN_INK, (shift(arm, 0.16 * side, 0.06), SKIN_SHADE))
        if outfit == "kimono":
            cloth = SLEEVES[outfit].cloth
            drape = KIMONO_SLEEVES[kind]
            at.shape(drape, cloth.base, cloth.ink, (shift(drape, 0.36 * side, 0.1), cloth.shade))
            at.clipped(drape, drape[len(drape) // 2 : len(drape) // 2 + 1] + _FLOWER, (255, 220, 236))
        else:
            _sleeve(at, SLEEVES[outfit], spots, side)


_FLOWER = curve("-.3,-.55 -.1,-.75 .1,-.55 .02,-.3 -.2,-.3")


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
    end, before = along(spots)[-1], along(spots)[-8]
    degrees = float(np.degrees(np.arctan2(before[0] - end[0], end[1] - before[1])))
    at = pen.moved(float(end[0]), float(end[1]), degrees)
    if raised:
        at.shape(OPEN_HAND, SKIN, SKIN_INK, width=0.8)
        return
    at.shape(REST_HAND, SKIN, SKIN_INK, width=0.8)
    for line in REST_LINES if pen.fine else ():
        at.ink(line, SKIN_INK, width=0.6)
