"""The storyboard of the two episodes: a shared opening, seven places each, five friends, and credits.

In each place every one of the five is seen alone once, mostly in the middle of the frame, then some of them
together. Who does what follows from cycles over the lists of characters.py, so that each character is seen
with every expression, pose, framing and background.
"""

from dataclasses import dataclass, replace

import numpy as np
from characters import CAST, EXPRESSIONS, FRAMINGS, POSES, Scene
from storyboard_parts import Drawing, Shot, abreast, cycle

SERIES = "LANTERN HILL DAYS"
NAMES = tuple(CAST)
OPENING_SEED = 7


@dataclass(frozen=True)
class Place:
    """A scene of an episode: where, who meets there, what is said (character: line)."""

    background: str
    together: tuple[str, ...]
    lines: dict[str, str]


EPISODES: dict[str, tuple[Place, ...]] = {
    "The Day the Kite Flew Off": (
        Place(
            "classroom",
            ("sabine", "mireth"),
            {"sabine": "The kite is gone!", "mireth": "It was on the roof."},
        ),
        Place("city", ("kettara", "orvela"), {"kettara": "A red tail, that high up?"}),
        Place("blue sky", ("sabine", "kettara", "yusumi"), {"sabine": "There, behind the cloud!"}),
        Place("forest", ("mireth", "yusumi"), {"orvela": "My boots were not made for this."}),
        Place("simple background", ("orvela", "sabine"), {"yusumi": "Let us think."}),
        Place("beach", ("kettara", "mireth", "orvela"), {"mireth": "It fell into the sea."}),
        Place(
            "sunset", ("sabine", "mireth", "kettara", "orvela", "yusumi"), {"yusumi": "We build a new one."}
        ),
    ),
    "Lanterns over the Hill": (
        Place("city", ("yusumi", "sabine"), {"yusumi": "Tonight the lanterns rise."}),
        Place("simple background", ("mireth", "kettara"), {"kettara": "Paper, glue, a candle..."}),
        Place("forest", ("orvela", "kettara", "sabine"), {"sabine": "Who took the glue?"}),
        Place("classroom", ("yusumi", "orvela"), {"orvela": "A knight takes no glue."}),
        Place("beach", ("mireth", "sabine"), {"mireth": "The wind is right."}),
        Place("sunset", ("kettara", "yusumi", "mireth"), {"kettara": "Nearly dark now."}),
        Place(
            "night sky", ("yusumi", "orvela", "sabine", "mireth", "kettara"), {"sabine": "Look, they fly!"}
        ),
    ),
}
CREDITS = (
    "Drawn and animated by",
    "examples/demo/episodes.py",
    "",
    "With",
    *(name.capitalize() for name in NAMES),
    "",
    "Thank you for watching",
)
# How the lone shots are filmed, in turn; two of seven move.
STAGINGS = ("act", "talk", "act", "zoom", "act", "wave", "act", "follow", "talk", "act", "tilt")


def storyboard(number: int) -> list[Shot]:
    """The shots of episode 1 or 2."""
    title, places = list(EPISODES.items())[number - 1]
    shots = [*_opening(), _card((f"{number}", title), "sunset" if number == 1 else "night sky")]
    for index, place in enumerate(places):
        shots += _place(number, index, place)
    return [*shots, Shot("credits", ((Drawing((), "night sky", 3, CREDITS), 76),), dissolve=12)]


def _opening() -> list[Shot]:
    """The same frames in both episodes: sky, each of them, all of them, the title."""
    rng = np.random.default_rng(OPENING_SEED)
    shots = [Shot("opening", ((Drawing((), "blue sky", 5), 18),), camera="follow", dissolve=10)]
    for index, (name, look) in enumerate(CAST.items()):
        expression = ("smile", "open mouth", "smile", "closed eyes", "open mouth")[index]
        scene = Scene(look, expression, "standing", "upper body", "simple background", *_bearing(rng))
        shots.append(Shot("opening", ((Drawing(((name, scene),), "simple background", index + 1), 11),)))
    everybody = [
        (name, Scene(look, "open mouth", pose, "full body"))
        for (name, look), pose in zip(
            CAST.items(), ("waving", "standing", "arms up", "standing", "waving"), strict=True
        )
    ]
    shots.append(Shot("opening", ((abreast(everybody, "blue sky", 9), 20),), camera="zoom"))
    return [*shots, _card((SERIES,), "sunset", dissolve=8)]


def _card(lines: tuple[str, ...], background: str, dissolve: int = 0) -> Shot:
    return Shot("title", ((Drawing((), background, 11, lines), 24),), dissolve=dissolve)


def _bearing(rng: np.random.Generator) -> tuple[float, float]:
    """Turn and tilt of a head."""
    return round(float(rng.uniform(-0.9, 0.9)), 2), round(float(rng.uniform(-6, 6)), 1)


def _place(number: int, index: int, place: Place) -> list[Shot]:
    """Each of the five alone, then those who meet."""
    rng = np.random.default_rng((number, index))
    order = [NAMES[int(i)] for i in rng.permutation(len(NAMES))]
    variant = 100 * number + index
    shots = [
        _alone(name, (number - 1) * 7 + index, place, variant + 1000 * (at % 3), rng)
        for at, name in enumerate(order)
    ]
    shots.append(_meeting(place, variant, (number + index) % 3, rng))
    if index % 2:
        shots[0] = _dissolved(shots[0], 10)
    return shots


def _dissolved(shot: Shot, frames: int) -> Shot:
    """A shot that the one before dissolves into: its first drawing waits until that is over."""
    (drawing, count), *rest = shot.drawings
    return replace(shot, drawings=((drawing, count + frames), *rest), dissolve=frames)


def _alone(name: str, turn: int, place: Place, variant: int, rng: np.random.Generator) -> Shot:
    """One character's shot; `turn` counts her shots over both episodes."""
    who = NAMES.index(name)
    staging = STAGINGS[(turn * 3 + who * 2) % len(STAGINGS)]
    framing = FRAMINGS[(turn + who) % 4]
    if staging == "tilt" or (staging == "wave" and framing == "close-up"):
        framing = "upper body"
    expressions = [EXPRESSIONS[(turn * 2 + who + i) % 6] for i in range(2)]
    poses = ("standing", "waving") if staging == "wave" else _poses(framing, rng)
    drawings = []
    for expression, pose in zip(expressions, poses, strict=True):
        look = Scene(
            CAST[name],
            expression,
            pose,
            framing,
            place.background,
            *_bearing(rng),
            shift=(round(float(rng.uniform(-0.04, 0.04)), 3), 0.0),
            zoom=round(float(rng.uniform(0.95, 1.05)), 3),
            mirrored=bool(rng.integers(2)),
        )
        drawings.append(Drawing(((name, look),), place.background, variant))
    return _staged(staging, drawings[0], drawings[1], place.lines.get(name, ""))


def _poses(framing: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Two poses that this framing shows."""
    choice = POSES if framing in ("cowboy shot", "full body") else POSES[:5]
    return tuple(choice[int(i)] for i in rng.permutation(len(choice))[:2])


def _staged(staging: str, first: Drawing, second: Drawing, line: str) -> Shot:
    """Two drawings as a shot: on threes where mouths or hands move, held where she only acts."""
    mouth = "smile" if first.people[0][1].expression == "open mouth" else "open mouth"
    if line or staging == "talk":
        talk = cycle(first, first.with_expression(mouth), 18, 3)
        return Shot("scene", (*talk, (second, 10)), subtitle=line)
    if staging == "zoom":
        return Shot("scene", ((first, 28),), "zoom")
    if staging == "follow":
        return Shot("scene", ((first, 28),), "follow")
    if staging == "tilt":
        return Shot("scene", ((first, 34),), "tilt")
    if staging == "wave":
        name, scene = first.people[0]
        waving = Drawing(((name, replace(scene, pose="waving")),), first.background, first.variant)
        return Shot("scene", (*cycle(first, waving, 16, 4), (second, 8)))
    return Shot("scene", ((first, 10), (second, 9), (second.with_expression(_after(first, second)), 10)))


def _after(first: Drawing, second: Drawing) -> str:
    """An expression that is neither the first drawing's nor the second's."""
    used = {drawing.people[0][1].expression for drawing in (first, second)}
    start = EXPRESSIONS.index(second.people[0][1].expression)
    return next(e for i in range(1, 4) if (e := EXPRESSIONS[(start + 2 * i + 1) % 6]) not in used)


def _meeting(place: Place, variant: int, turn: int, rng: np.random.Generator) -> Shot:
    """Those who meet, side by side; the first of them talks."""
    framing = "full body" if len(place.together) > 3 else ("upper body", "cowboy shot", "full body")[turn]
    people = []
    for at, name in enumerate(place.together):
        scene = Scene(
            CAST[name],
            EXPRESSIONS[(turn + at) % 5],
            POSES[(turn + at * 2) % 5] if len(place.together) == 2 else "standing",
            framing,
            place.background,
            *_bearing(rng),
        )
        people.append((name, scene))
    drawing = abreast(people, place.background, variant)
    mouth = "smile" if people[0][1].expression == "open mouth" else "open mouth"
    return Shot("scene", (*cycle(drawing, drawing.with_expression(mouth), 18, 3),))
