"""A scene as a row of choices, one a field: what the judge, the tagger and the text encoder are taught to tell."""

from characters import (
    ACCESSORIES,
    BACKGROUNDS,
    EXPRESSIONS,
    EYE_COLORS,
    FRAMINGS,
    HAIR_COLORS,
    HAIR_SHAPES,
    OUTFITS,
    POSES,
    Scene,
    tags_of,
)

OF_LOOK = {
    "hair_color": HAIR_COLORS,
    "hair_shape": HAIR_SHAPES,
    "eye_color": EYE_COLORS,
    "outfit": OUTFITS,
    "accessory": ACCESSORIES,
}
FIELDS: dict[str, tuple[str, ...]] = {
    **OF_LOOK,
    "expression": EXPRESSIONS,
    "pose": POSES,
    "framing": FRAMINGS,
    "background": BACKGROUNDS,
}
NOTHING = "none"  # of an accessory: has no tag, but is seen


def value_of(scene: Scene, field: str) -> str:
    """What was drawn."""
    return str(getattr(scene.look if field in OF_LOOK else scene, field))


def is_seen(scene: Scene, field: str) -> bool:
    """Whether the drawing shows it: closed eyes have no colour, a close-up has no pose."""
    value = value_of(scene, field)
    return value == NOTHING or value in tags_of(scene)
