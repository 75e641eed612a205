"""Draw a folder of screenshots, as a person might bring one: several formats, sizes and folders, and a few
broken files.

Everything is drawn here, from a seed; the same seed gives the same bytes.
"""

import math
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

SIZE = (640, 360)
SCALE = 3  # drawn larger, then reduced, so that outlines are smooth
Colour = tuple[int, int, int]

OUTLINE: Colour = (44, 32, 52)
SKIN: Colour = (255, 226, 205)
SHADE: Colour = (241, 190, 172)
CAST = {
    "Sabine": {
        "hair": (236, 124, 162),
        "eyes": (62, 150, 126),
        "outfit": (64, 88, 160),
        "style": "twintails",
    },
    "Iku": {"hair": (92, 130, 206), "eyes": (206, 112, 48), "outfit": (206, 64, 72), "style": "bob"},
    "Tora": {"hair": (240, 190, 84), "eyes": (106, 78, 178), "outfit": (84, 142, 96), "style": "spikes"},
}
SKIES = (
    ((94, 158, 222), (222, 240, 250)),  # noon: colour at the top and at the bottom
    ((250, 168, 132), (255, 232, 190)),  # sunset
    ((46, 52, 110), (142, 120, 176)),  # night
)
MOUTHS = ("smile", "open", "line", "frown")

# Outlines in half widths of the face, from its middle, x to the right and y down.
FACE = [
    (-0.95, -0.3),
    (-0.88, 0.45),
    (-0.45, 0.92),
    (0, 1.08),
    (0.45, 0.92),
    (0.88, 0.45),
    (0.95, -0.3),
    (0, -0.75),
]
TAIL = [(0.9, -0.5), (1.9, 0.2), (1.7, 2.4), (1.35, 1.5), (1.0, 0.6)]
# fmt: off
SPIKES = [
    (-1.2, -0.1), (-1.55, -0.9), (-0.95, -0.85), (-0.75, -1.6), (-0.2, -1.1), (0.25, -1.75), (0.6, -1.05), (1.3, -1.3),
    (1.15, -0.6), (1.5, -0.2), (0.95, -0.15), (0.6, -0.35), (0.3, 0.0), (0.0, -0.4), (-0.4, -0.02), (-0.6, -0.4), (-0.95, 0.1),
]
FRINGE = [
    (-1.1, 0.25), (-1.12, -0.6), (-0.6, -1.15), (0, -1.3), (0.6, -1.15), (1.12, -0.6), (1.1, 0.25),
    (0.82, -0.3), (0.5, -0.1), (0.28, -0.42), (-0.05, -0.05), (-0.3, -0.42), (-0.62, -0.08), (-0.85, -0.3),
]
# fmt: on


def background(rng: random.Random) -> Image.Image:
    """A painted sky over hills, [360, 640] at SCALE, soft so that the characters stand out."""
    width, height = SIZE[0] * SCALE, SIZE[1] * SCALE
    top, bottom = rng.choice(SKIES)
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    for y in range(height):
        share = y / height
        colour = tuple(round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True))
        draw.line([(0, y), (width, y)], fill=colour)
    for layer in range(3):
        phase, tint = rng.uniform(0, 6), 0.85 - 0.2 * layer
        base = height * (0.62 + 0.12 * layer)
        points = [
            (x, base - 30 * SCALE * math.sin(x / width * 5 + phase + layer)) for x in range(0, width + 20, 20)
        ]
        green = tuple(round(channel * tint) for channel in (112, 168, 118))
        draw.polygon([*points, (width, height), (0, height)], fill=green)
    return picture.filter(ImageFilter.GaussianBlur(3 * SCALE))


def character(draw: ImageDraw.ImageDraw, name: str, x: float, y: float, unit: float, mouth: str) -> None:
    """Draw one of the cast in cel style.

    Args:
        x, y: middle of the face, pixels of the large picture.
        unit: half the width of the face, pixels.
        mouth: one of MOUTHS.
    """
    look = CAST[name]
    hair, eyes, outfit = look["hair"], look["eyes"], look["outfit"]
    assert isinstance(hair, tuple)
    assert isinstance(eyes, tuple)
    assert isinstance(outfit, tuple)
    line = max(2, round(unit * 0.06))

    def oval(
        cx: float, cy: float, rx: float, ry: float, fill: Colour, outline: Colour | None = OUTLINE
    ) -> None:
        box = (x + (cx - rx) * unit, y + (cy - ry) * unit, x + (cx + rx) * unit, y + (cy + ry) * unit)
        draw.ellipse(box, fill=fill, outline=outline, width=line if outline else 0)

    def shape(points: list[tuple[float, float]], fill: Colour) -> None:
        placed = [(x + px * unit, y + py * unit) for px, py in points]
        draw.polygon(placed, fill=fill)
        draw.line([*placed, placed[0]], fill=OUTLINE, width=line, joint="curve")

    if look["style"] == "twintails":
        for side in (-1, 1):
            shape([(side * px, py) for px, py in TAIL], hair)
    oval(0, -0.1, 1.18, 1.22, hair)
    if look["style"] == "bob":
        shape([(-1.18, -0.2), (-1.25, 1.15), (-0.7, 1.2), (0.7, 1.2), (1.25, 1.15), (1.18, -0.2)], hair)
    shape([(-0.35, 0.8), (-0.35, 1.5), (0.35, 1.5), (0.35, 0.8)], SHADE)
    shape([(-0.4, 1.35), (-1.5, 1.8), (-2.3, 9), (2.3, 9), (1.5, 1.8), (0.4, 1.35), (0, 1.75)], outfit)
    shape([(-0.4, 1.35), (0, 1.75), (0.4, 1.35), (0.55, 1.6), (0, 2.2), (-0.55, 1.6)], (250, 248, 244))
    shape(FACE, SKIN)
    for side in (-1, 1):
        oval(side * 0.42, 0.2, 0.24, 0.32, (255, 255, 255))
        oval(side * 0.42, 0.24, 0.17, 0.26, eyes)
        oval(side * 0.42, 0.27, 0.08, 0.14, OUTLINE, None)
        oval(side * 0.42 - 0.07, 0.1, 0.07, 0.08, (255, 255, 255), None)
        oval(side * 0.62, 0.55, 0.16, 0.07, (255, 190, 178), None)
    _mouth(draw, x, y + 0.74 * unit, unit, mouth, line)
    if look["style"] == "spikes":
        shape(SPIKES, hair)
    else:
        shape(FRINGE, hair)


def _mouth(draw: ImageDraw.ImageDraw, x: float, y: float, unit: float, mouth: str, line: int) -> None:
    box = (x - 0.16 * unit, y - 0.12 * unit, x + 0.16 * unit, y + 0.08 * unit)
    if mouth == "open":
        draw.ellipse(
            (box[0], box[1], box[2], box[3] + 0.08 * unit), fill=(190, 72, 84), outline=OUTLINE, width=line
        )
    elif mouth == "line":
        draw.line((box[0], y, box[2], y), fill=OUTLINE, width=line)
    elif mouth == "smile":
        draw.arc(box, 20, 160, fill=OUTLINE, width=line)
    else:
        draw.arc((box[0], y, box[2], y + 0.2 * unit), 200, 340, fill=OUTLINE, width=line)


def screenshot(rng: random.Random, names: list[str], mouth: str) -> Image.Image:
    """One frame, [360, 640]: a background with the named characters side by side."""
    picture = background(rng)
    draw = ImageDraw.Draw(picture)
    for place, name in enumerate(names):
        unit = rng.uniform(34, 62) * SCALE / (1 if len(names) == 1 else 1.3)
        x = SIZE[0] * SCALE * (place + 1) / (len(names) + 1) + rng.uniform(-20, 20) * SCALE
        character(draw, name, x, SIZE[1] * SCALE * 0.42, unit, mouth)
    return picture.resize(SIZE, Image.Resampling.LANCZOS)


def draw_folder(folder: Path, *, seed: int = 7) -> None:
    """Fill a folder with screenshots in the formats that people have, and with four files that cannot be
    used.
    """
    rng = random.Random(seed)
    casts = [[name] for name in CAST] * 4 + [
        ["Sabine", "Iku"],
        ["Iku", "Tora"],
        ["Sabine", "Tora"],
        list(CAST),
    ]
    suffixes = ("png", "jpg", "webp", "avif", "bmp")
    for number, names in enumerate(casts):
        episode = folder / f"episode {number % 2 + 1}"
        episode.mkdir(parents=True, exist_ok=True)
        picture = screenshot(rng, names, MOUTHS[number % len(MOUTHS)])
        picture.save(episode / f"{'+'.join(names)}_{number:02d}.{suffixes[number % len(suffixes)]}")
    _odd_ones(folder / "odd", rng)


def _odd_ones(folder: Path, rng: random.Random) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    picture = screenshot(rng, ["Sabine"], "smile")
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn by 90 degrees clockwise to see it upright
    turned.save(folder / "phone photo.jpg", exif=exif)
    clear = picture.convert("RGBA")
    clear.putalpha(Image.radial_gradient("L").resize(SIZE).point(lambda value: 255 - value))
    clear.save(folder / "transparent.png")
    other = screenshot(rng, ["Iku"], "open")
    picture.save(folder / "moving.gif", save_all=True, append_images=[other], duration=200)
    whole = (folder.parent / "episode 1" / "Sabine_00.png").read_bytes()
    (folder / "copy of the first.png").write_bytes(whole)
    (folder / "download stopped.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "web page.jpg").write_text("<html>404 Not Found</html>")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
