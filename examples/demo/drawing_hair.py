"""Hair in its shapes: what hangs behind the body, and fringe and locks before the face.

Units as in drawing_head; the skull's top is at -1.46.
"""

from dataclasses import dataclass

import numpy as np
from drawing_pen import Outline, Pen, Spot, curve, even, flip, mix, oval, shift, smooth
from drawing_tones import Tones

# fmt: off
SKULL = ((1.27, -.3), (1.0, -1.03), (.52, -1.37), (0, -1.46), (-.52, -1.37), (-1.0, -1.03), (-1.27, -.3))
SHINE = curve("-1.02,-.52! -.86,-.74 -.66,-.68! -.5,-.9 -.3,-.8! -.12,-1 .08,-.84! .3,-.98 .5,-.8! .7,-.86 .84,-.66! .95,-.7 1.02,-.52! .88,-.88 .45,-1.12 0,-1.18 -.45,-1.12 -.88,-.88")

CAP = even("0,-1.42 .8,-1.2 1.22,-.4 1.12,.3 .8,.85 0,1")
BACKS = {
    "long hair": even("0,-1.42 .8,-1.2 1.25,-.4 1.42,.9 1.52,2.4 1.75,3.9! 1.42,3.6 1.3,4.3! 1,3.8 .75,4.4! .5,3.9 .2,4.3! 0,4"),
    "bob cut": even("0,-1.42 .8,-1.2 1.26,-.4 1.42,.4 1.42,1 1.12,1.46! .7,1.3 0,1.25"),
    "short hair": even("0,-1.42 .8,-1.22 1.22,-.4 1.3,.25 1.56,.62! 1.22,.66 1.32,1.06! .92,.94 .75,1.34! .4,1.1 0,1.2"),
}
BACK_SHADES = {
    "long hair": even("0,-1 .9,-.4 1.05,1 1.1,2.2 .95,3.2! .85,2.9 .6,3.7! .4,3 0,3.6"),
    "bob cut": even("0,-1 1.05,-.4 1.12,.8 1.0,1.5! 0,1.5"),
    "short hair": even("0,-1 1.1,-.4 1.1,.5 .9,1.4! 0,1.4"),
}
BACK_STRANDS = {
    "long hair": (curve("1.2,1 1.26,2.2 1.3,3.2", closed=False), curve(".95,2.6 .95,3.2 .85,3.7", closed=False)),
}
TAIL = curve(".95,-1.0 1.5,-1.3 2.1,-.75 2.38,.5 2.3,2 2.25,3 1.95,4! 1.95,3.3 1.72,3.75! 1.66,3.1 1.42,3.4! 1.5,2.2 1.46,.9 1.25,-.2")
TAIL_SHADE = curve("1.0,-.7 1.45,-.75 1.8,.2 1.85,1.6 1.8,2.6 1.9,4! 1.2,4 1.2,1 1.1,0")
TAIL_STRANDS = (curve("1.4,-.9 1.95,-.1 2.08,1.2 2,2.6", closed=False), curve("1.3,-.5 1.6,.4 1.66,1.6 1.62,2.5", closed=False))
PONY = curve(".15,-1.2 .7,-1.98 1.55,-1.95 2.25,-1.1 2.42,.3 2.15,1.7 2.2,2.6! 1.9,2.4 1.75,3.2! 1.55,2.4 1.25,2.75! 1.5,1.3 1.42,0 1,-.9")
PONY_SHADE = curve(".5,-1.2 1.2,-1.3 1.75,-.5 1.88,.7 1.65,2 1.75,3.2! 1.1,3 1.2,1 1,-.2")
PONY_STRANDS = (curve(".8,-1.5 1.7,-1.4 2.1,-.3 2.05,1.1 1.9,1.9", closed=False), curve(".9,-1.2 1.5,-.7 1.72,.4 1.6,1.6", closed=False))
BUN_LINES = (curve(".62,-1.3 .9,-1.55 1.22,-1.4 1.25,-1.1 1.02,-.98 .86,-1.14 .98,-1.28", closed=False),)
LOCKS = {
    "long hair": curve(".88,-.6 1.22,-.3 1.26,.5 1.2,1.3 1.22,2.1! 1.02,1.6 .98,2.25! .93,1.2 .98,.4 .93,-.1"),
    "bob cut": curve(".9,-.6 1.25,-.3 1.38,.4 1.36,.95 1.02,1.42! 1.04,1.1 .84,1.2! .98,.6 .95,0"),
    "short hair": curve(".9,-.6 1.22,-.35 1.24,.2 1.14,.62 .98,.9! .99,.4 .93,-.1"),
    "double bun": curve(".9,-.6 1.22,-.35 1.24,.2 1.12,.8 .94,1.15! .99,.5 .93,-.1"),
    "twintails": curve(".9,-.6 1.22,-.35 1.24,.3 1.12,1 .94,1.5! 1,.6 .93,-.1"),
    "ponytail": curve(".9,-.6 1.22,-.35 1.22,.3 1.16,.9 1.22,1.4! 1,1 .99,.4 .93,-.1"),
    "drill hair": curve(".9,-.6 1.22,-.35 1.24,.3 1.1,.8 1.14,1.25! .97,.9 .99,.4 .93,-.1"),
}
LOCK_SHADE = curve("1.08,-.6 1.4,-.6 1.6,1 1.5,2.4 1.16,2.2! 1.14,1 1.14,.2")
AHOGE = curve("-.04,-1.38! -.02,-1.62 .34,-1.82! .16,-1.6 .16,-1.38!")
ROLLS = ((1.3, .12, .44), (1.44, .7, .52), (1.5, 1.32, .5), (1.5, 1.92, .45), (1.46, 2.46, .37), (1.4, 2.9, .26))
# fmt: on


@dataclass(frozen=True)
class Fringe:
    """Hair over the forehead: its outline, the shaded side of each strand, and lines between strands."""

    outline: Outline
    shades: tuple[Outline, ...]
    lines: tuple[Outline, ...]


def _fringe(tips: list[Spot], notches: list[Spot], lean: float = 0.04) -> Fringe:
    """Strands with pointed tips; the first and last tips lie at the temples, a notch between each two."""
    points: list[Spot] = []
    corners: list[int] = []
    shades, lines = [], []
    for i, (x, y) in enumerate(tips):
        if i:
            nx, ny = notches[i - 1]
            points.append(((x + nx) / 2 - lean, (y + ny) / 2 + 0.05))
        corners.append(len(points))
        points.append((x, y))
        if i == len(tips) - 1:
            break
        nx, ny = notches[i]
        points.append(((x + nx) / 2 + lean * 0.6, (y + ny) / 2 + 0.03))
        corners.append(len(points))
        points.append((nx, ny))
        inner = ((x + nx) / 2 - 0.07, (y + ny) / 2)
        if i:
            shade = [
                (x, y),
                ((x + nx) / 2 + lean * 0.6, (y + ny) / 2 + 0.03),
                (nx, ny),
                (nx * 0.96, ny - 0.3),
                inner,
            ]
            shades.append(smooth(np.array(shade), [0, 2, 3]))
        lines.append(
            smooth(np.array([(nx, ny), (nx * 0.93, ny - 0.2), (nx * 0.78, ny - 0.42)]), closed=False)
        )
    outline = smooth(np.array([*points, *SKULL]), corners)
    return Fringe(outline, tuple(shades), tuple(lines))


# fmt: off
SWEPT = _fringe(
    [(-1.16, .42), (-.8, .1), (-.36, .24), (.04, .36), (.46, .22), (.84, .1), (1.16, .42)],
    [(-.94, -.36), (-.6, -.44), (-.2, -.52), (.2, -.5), (.6, -.44), (.94, -.36)],
)
STRAIGHT = _fringe(
    [(-1.16, .5), (-.72, .05), (-.34, .12), (.04, .08), (.4, .12), (.76, .05), (1.16, .5)],
    [(-.93, -.2), (-.53, -.16), (-.16, -.2), (.22, -.18), (.58, -.16), (.93, -.2)], lean=.03,
)
SIDE = _fringe(
    [(-1.16, .42), (-.95, .14), (-.62, .2), (-.16, .2), (.98, .2), (1.16, .42)],
    [(-1.02, -.2), (-.82, -.3), (-.4, -.42), (.34, -.78), (1.02, -.26)], lean=.06,
)
PARTED = _fringe(
    [(-1.16, .42), (-.86, .3), (-.5, .18), (.5, .18), (.86, .3), (1.16, .42)],
    [(-.99, -.2), (-.7, -.34), (0, -.86), (.7, -.34), (.99, -.2)], lean=0.0,
)
RAGGED = _fringe(
    [(-1.18, .36), (-.86, .14), (-.62, .26), (-.24, .12), (.12, .34), (.5, .16), (.7, .28), (1.18, .36)],
    [(-.98, -.2), (-.72, -.3), (-.46, -.46), (-.04, -.4), (.3, -.5), (.6, -.22), (.94, -.36)], lean=.07,
)
FRINGES = {
    "short hair": RAGGED, "bob cut": SIDE, "long hair": STRAIGHT, "twintails": SWEPT,
    "ponytail": SIDE, "drill hair": PARTED, "double bun": SWEPT,
}
# fmt: on


def draw_back_hair(pen: Pen, shape: str, hair: Tones) -> None:
    """The hair that lies behind neck and shoulders."""
    line = mix(hair.ink, hair.shade, 0.35)
    if shape == "twintails":
        for turned in (lambda points: points, flip):
            _tail(pen, turned(TAIL), turned(TAIL_SHADE), [turned(s) for s in TAIL_STRANDS], hair)
            pen.shape(oval(turned(np.array([1.14, -0.86]))[0], -0.86, 0.17, 0.24), (250, 250, 255), hair.ink)
    elif shape == "ponytail":
        _tail(pen, PONY, PONY_SHADE, list(PONY_STRANDS), hair)
        pen.shape(oval(0.62, -1.4, 0.26, 0.22), (250, 250, 255), hair.ink)
    elif shape == "drill hair":
        for side in (-1, 1):
            _drill(pen, side, hair)
    elif shape == "double bun":
        for side in (-1, 1):
            at = pen.moved(0, 0, wide=side)
            bun = oval(0.96, -1.24, 0.54, 0.52)
            at.shape(bun, hair.base, hair.ink, (oval(1.0 + 0.12 * side, -1.0, 0.56, 0.4), hair.shade))
            for points in BUN_LINES if pen.fine else ():
                at.ink(points, line, width=0.7)
    if shape not in BACKS:
        pen.shape(CAP, hair.shade, hair.ink)
        return
    pen.shape(BACKS[shape], hair.base, hair.ink, (BACK_SHADES[shape], hair.shade))
    for strand in BACK_STRANDS.get(shape, ()):
        for points in (strand, flip(strand)):
            pen.ink(points, line, width=0.7)


def _tail(pen: Pen, outline: Outline, shade: Outline, strands: list[Outline], hair: Tones) -> None:
    pen.shape(outline, hair.base, hair.ink, (shade, hair.shade))
    for strand in strands if pen.fine else ():
        pen.ink(strand, mix(hair.ink, hair.shade, 0.35), width=0.7)


def _drill(pen: Pen, side: int, hair: Tones) -> None:
    """A curl of rolls that grow smaller downwards; the end of each peeps out under the one above."""
    at = pen.moved(0, 0, wide=side)
    for x, y, r in reversed(ROLLS):
        roll = _roll(x, y, r)
        at.shape(roll, hair.base, hair.ink, (shift(roll, 0.1, 0.24), hair.shade))
        at.fill(oval(x - r * 0.3, y - 0.08, r * 0.24, 0.05), hair.light)


def _roll(x: float, y: float, r: float) -> Outline:
    left, right = x - r, x + r
    return curve(
        f"{left:.2f},{y - 0.1:.2f} {x:.2f},{y - 0.34:.2f} {right:.2f},{y - 0.28:.2f} "
        f"{right + 0.06:.2f},{y + 0.1:.2f} {x + 0.1:.2f},{y + 0.44:.2f} {left + 0.06:.2f},{y + 0.3:.2f}"
    )


def draw_front_hair(pen: Pen, shape: str, hair: Tones, turn: float) -> None:
    """Fringe and side locks, which follow the face a little as it turns."""
    front = pen.moved(turn * 0.06, 0)
    lock = LOCKS[shape]
    for turned in (lambda points: points, flip):
        front.shape(turned(lock), hair.base, hair.ink, (turned(LOCK_SHADE), hair.shade))
    if shape == "short hair":
        front.shape(AHOGE, hair.base, hair.ink)
    fringe = FRINGES[shape]
    front.fill(fringe.outline, hair.base)
    for shade in fringe.shades:
        front.fill(shade, hair.shade)
    front.clipped(fringe.outline, SHINE, hair.light)
    for line in fringe.lines if pen.fine else ():
        front.ink(line, mix(hair.ink, hair.shade, 0.3), width=0.7)
    front.ink(fringe.outline, hair.ink, closed=True)
