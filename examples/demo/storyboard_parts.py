"""What a storyboard is made of: drawings, shots, and what is known to be true of them."""

from dataclasses import dataclass, replace
from typing import Literal

from characters import Scene, tags_of

FPS = 24
SIZE = (640, 360)  # width and height of a frame, pixels

Camera = Literal["still", "zoom", "follow", "tilt"]
ABREAST = {
    1: (0.0,),
    2: (-0.4, 0.4),
    3: (-0.56, 0.0, 0.56),
    5: (-0.68, -0.34, 0.0, 0.34, 0.68),
}  # places of characters side by side, shares of the frame's height from its middle


@dataclass(frozen=True)
class Drawing:
    """One picture of an episode: who is in it, from left to right, before which background.

    Attributes:
        people: names of CAST, and how each is drawn; none for a background alone.
        variant: seed of the background's details.
        text: large lines of a card, if it is one.
    """

    people: tuple[tuple[str, Scene], ...]
    background: str
    variant: int
    text: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Who is seen."""
        return tuple(name for name, _ in self.people)

    def with_expression(self, expression: str, of: int = 0) -> "Drawing":
        """The same drawing but for the face of one of them."""
        people = list(self.people)
        name, scene = people[of]
        people[of] = (name, replace(scene, expression=expression))
        return replace(self, people=tuple(people))

    def truth(self) -> list[dict[str, object]]:
        """Name and tags of each who is seen."""
        alone = len(self.people) == 1
        return [
            {"name": name, "tags": [tag for tag in tags_of(scene) if alone or tag not in ("1girl", "solo")]}
            for name, scene in self.people
        ]


@dataclass(frozen=True)
class Shot:
    """Drawings one after another under one camera.

    Attributes:
        kind: opening, scene, title or credits.
        drawings: each with the number of frames that it is held; a drawing may come again, as mouths do.
        camera: still; zoom grows towards the face; follow lets the background slide behind the character;
            tilt rises from the feet to the face and then rests.
        subtitle: burned in below, if there is one.
        dissolve: frames over which it is mixed with the end of the shot before.
    """

    kind: Literal["opening", "scene", "title", "credits"]
    drawings: tuple[tuple[Drawing, int], ...]
    camera: Camera = "still"
    subtitle: str = ""
    dissolve: int = 0

    @property
    def frames(self) -> int:
        """Its length."""
        return sum(count for _, count in self.drawings)


def abreast(people: list[tuple[str, Scene]], background: str, variant: int) -> Drawing:
    """A drawing of several, side by side, before one background."""
    places = ABREAST[len(people)]
    placed = tuple(
        (name, replace(scene, shift=(x, scene.shift[1]), background=background))
        for (name, scene), x in zip(people, places, strict=True)
    )
    return Drawing(placed, background, variant)


def cycle(first: Drawing, second: Drawing, frames: int, hold: int) -> list[tuple[Drawing, int]]:
    """Two drawings in turn, `hold` frames each: on twos, on threes."""
    return [((first, second)[turn % 2], hold) for turn in range(frames // hold)]
