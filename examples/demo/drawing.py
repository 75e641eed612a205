"""A whole drawing of a scene: background, then the character in layers."""

import numpy as np
from backgrounds import paint
from characters import Look, Scene
from drawing_body import draw_arms, draw_body
from drawing_hair import FRINGES, draw_back_hair, draw_front_hair
from drawing_head import ACCESSORY, draw_brows, draw_face
from drawing_pen import Pen
from drawing_tones import HAIR, tones
from numpy.typing import NDArray
from PIL import Image

# Units that fit into the picture's height, and the unit's row that lies at its middle.
VIEWS = {
    "close-up": (3.3, 0.15),
    "upper body": (5.5, 1.0),
    "cowboy shot": (8.2, 2.35),
    "full body": (12.4, 4.15),
}
GROWN = 4  # pixels drawn for one of a small picture


def draw_scene(scene: Scene, size_px: int) -> Image.Image:
    """One drawing, RGB, square with `size_px` at each side; the same for the same scene everywhere."""
    grown = GROWN if size_px <= 128 else 2
    side = size_px * grown
    image = np.empty((side, side, 3), np.uint8)
    paint(image, scene.background, scene.variant)
    draw_character(image, scene)
    return Image.fromarray(image).reduce(grown)


def draw_character(image: NDArray[np.uint8], scene: Scene) -> None:
    """Draw a scene's character over an image, [height, width, 3], about its middle."""
    height, width = image.shape[:2]
    span, middle = VIEWS[scene.framing]
    if scene.pose == "sitting" and scene.framing == "full body":
        span, middle = 10.8, 3.4
    unit = height / span * scene.zoom
    x = width / 2 + scene.shift[0] * height
    y = height / 2 + scene.shift[1] * height - middle * unit
    flip = -1.0 if scene.mirrored else 1.0
    matrix = np.array([(unit * flip, 0, x), (0, unit, y), (0, 0, 1)], float)
    small = height <= 256
    line = (
        max(0.034 * unit, height / 110) if small else float(np.clip(0.034 * unit, height / 230, height / 160))
    )
    draw_figure(Pen(image, matrix, line, soft=not small), scene)


def draw_figure(pen: Pen, scene: Scene) -> None:
    """Draw a character with a pen whose units are those of drawing_head."""
    look: Look = scene.look
    hair = tones(HAIR[look.hair_color])
    tilted = pen.moved(0, 0, scene.tilt, about=(0, 1.2))
    draw_back_hair(tilted, look.hair_shape, hair)
    draw_body(pen, look.outfit, scene.pose)
    if scene.pose not in ("arms up", "arms behind back"):
        draw_arms(pen, look.outfit, scene.pose)
    draw_face(tilted, look.eye_color, scene.expression, scene.turn, FRINGES[look.hair_shape].outline)
    draw_front_hair(tilted, look.hair_shape, hair, scene.turn)
    draw_brows(tilted, scene.expression, scene.turn, hair)
    if look.accessory != "none":
        ACCESSORY[look.accessory](tilted, scene.turn, hair)
    if scene.pose == "arms up":
        draw_arms(pen, look.outfit, scene.pose)
