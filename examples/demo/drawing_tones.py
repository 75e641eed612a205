"""The colours of the characters: base, shade, light and ink of each cel."""

from dataclasses import dataclass
from functools import lru_cache

from drawing_pen import Colour, mix

SKIN: Colour = (255, 232, 216)
SKIN_SHADE: Colour = (248, 194, 176)
SKIN_INK: Colour = (122, 56, 58)
LASH: Colour = (48, 24, 40)
WHITE: Colour = (255, 255, 255)

HAIR: dict[str, Colour] = {
    "blonde hair": (255, 218, 96),
    "brown hair": (150, 90, 52),
    "black hair": (60, 56, 74),
    "red hair": (218, 52, 46),
    "pink hair": (255, 154, 194),
    "purple hair": (154, 94, 212),
    "blue hair": (72, 128, 230),
    "green hair": (84, 180, 98),
    "white hair": (238, 238, 248),
}
EYES: dict[str, Colour] = {
    "blue eyes": (36, 132, 240),
    "green eyes": (36, 178, 88),
    "red eyes": (226, 36, 50),
    "purple eyes": (160, 64, 220),
    "yellow eyes": (246, 188, 24),
    "brown eyes": (146, 82, 44),
}


@dataclass(frozen=True)
class Tones:
    """One cel colour: its base, shade, light and ink."""

    base: Colour
    shade: Colour
    light: Colour
    ink: Colour


@lru_cache(maxsize=256)
def tones(base: Colour) -> Tones:
    """Shade towards a cool violet, light towards white, ink dark in the colour's own hue.

    Pale colours get a paler shade, or white cloth would look grey.
    """
    pale = min(base) / 255
    depth = 0.76 + 0.12 * pale
    red, green, blue = (round(channel * depth) for channel in base)
    shade = mix((red, green, blue), (116, 84, 176), 0.16)
    red, green, blue = (round(channel * 0.3) for channel in base)
    return Tones(base, shade, mix(base, WHITE, 0.55), mix((red, green, blue), (44, 18, 44), 0.45))
