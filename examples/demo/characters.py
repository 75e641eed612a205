"""Who may be drawn, and the tags that say so: the vocabulary of the demonstration.

Every list below is written as danbooru writes its general tags, with spaces. A `Look` is what stays the same
about a character, a `Scene` is one drawing of it; `tags_of` says what can be seen there.
"""

from dataclasses import dataclass

import numpy as np

HAIR_COLORS = (
    "blonde hair",
    "brown hair",
    "black hair",
    "red hair",
    "pink hair",
    "purple hair",
    "blue hair",
    "green hair",
    "white hair",
)
HAIR_SHAPES = ("short hair", "bob cut", "long hair", "twintails", "ponytail", "drill hair", "double bun")
EYE_COLORS = ("blue eyes", "green eyes", "red eyes", "purple eyes", "yellow eyes", "brown eyes")
OUTFITS = ("serafuku", "hoodie", "kimono", "sundress", "armor", "maid", "overalls")
ACCESSORIES = ("none", "glasses", "hair bow", "headphones", "witch hat", "cat ears")
EXPRESSIONS = ("smile", "open mouth", "closed eyes", "blush", "angry", "crying")
POSES = ("standing", "arms up", "waving", "hand on hip", "arms behind back", "sitting")
FRAMINGS = ("close-up", "upper body", "cowboy shot", "full body")
BACKGROUNDS = (
    "blue sky",
    "night sky",
    "sunset",
    "classroom",
    "city",
    "forest",
    "beach",
    "simple background",
)


@dataclass(frozen=True)
class Look:
    """What stays the same about a character; each field is a member of the list of its name."""

    hair_color: str
    hair_shape: str
    eye_color: str
    outfit: str
    accessory: str = "none"

    @property
    def signature(self) -> tuple[str, str, str]:
        """Hair colour, hair shape and outfit: what nobody else has who is drawn."""
        return self.hair_color, self.hair_shape, self.outfit


@dataclass(frozen=True)
class Scene:
    """One drawing of one character alone.

    Attributes:
        turn: where the face is turned, -1 (left of the picture) to 1; 0 looks at the viewer.
        tilt: lean of the head, degrees, clockwise.
        shift: the character's distance from the middle, (x, y), in shares of the picture's side.
        zoom: size of the character, 1 is the framing's own.
        mirrored: whether the pose is drawn with left and right exchanged.
        variant: seed of the background's details.
    """

    look: Look
    expression: str = "smile"
    pose: str = "standing"
    framing: str = "upper body"
    background: str = "simple background"
    turn: float = 0.0
    tilt: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    mirrored: bool = False
    variant: int = 0


CAST: dict[str, Look] = {
    "sabine": Look("pink hair", "twintails", "blue eyes", "serafuku", "hair bow"),
    "mireth": Look("blue hair", "bob cut", "yellow eyes", "hoodie", "headphones"),
    "orvela": Look("blonde hair", "drill hair", "purple eyes", "armor"),
    "yusumi": Look("black hair", "long hair", "red eyes", "kimono"),
    "kettara": Look("red hair", "ponytail", "green eyes", "overalls", "glasses"),
}
_SIGNATURES = frozenset(look.signature for look in CAST.values())


def random_look(rng: np.random.Generator) -> Look:
    """A character who is none of CAST: never one of their (hair colour, hair shape, outfit)."""
    while True:
        look = Look(
            _pick(rng, HAIR_COLORS),
            _pick(rng, HAIR_SHAPES),
            _pick(rng, EYE_COLORS),
            _pick(rng, OUTFITS),
            _pick(rng, ACCESSORIES),
        )
        if look.signature not in _SIGNATURES:
            return look


def random_scene(rng: np.random.Generator, look: Look | None = None) -> Scene:
    """A drawing chosen at random, evenly over every list; `look` fixes who is in it."""
    look = look or random_look(rng)
    framing = _pick(rng, FRAMINGS)
    poses = POSES if framing in ("cowboy shot", "full body") else POSES[:-1]
    return Scene(
        look,
        _pick(rng, EXPRESSIONS),
        _pick(rng, poses),
        framing,
        _pick(rng, BACKGROUNDS),
        turn=float(rng.uniform(-1, 1)),
        tilt=float(rng.uniform(-7, 7)),
        shift=(float(rng.uniform(-0.05, 0.05)), float(rng.uniform(-0.02, 0.02))),
        zoom=float(rng.uniform(0.93, 1.07)),
        mirrored=bool(rng.integers(2)),
        variant=int(rng.integers(1 << 30)),
    )


def tags_of(scene: Scene) -> tuple[str, ...]:
    """What is seen in a drawing, "1girl" and "solo" first.

    Closed eyes have no colour; a close-up shows no pose, and "standing" is only said where the legs are seen;
    the face of a full body is too small for its expression.
    """
    look = scene.look
    tags = ["1girl", "solo", look.hair_color, look.hair_shape]
    if scene.expression != "closed eyes":
        tags.append(look.eye_color)
    tags.append(look.outfit)
    if look.accessory != "none":
        tags.append(look.accessory)
    if scene.framing != "full body":
        tags.append(scene.expression)
    legs = scene.framing in ("cowboy shot", "full body")
    if legs or (scene.pose != "standing" and scene.framing == "upper body"):
        tags.append(scene.pose)
    return (*tags, scene.framing, scene.background)


def _pick(rng: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[int(rng.integers(len(values)))]
