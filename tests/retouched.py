"""Other files of one picture, and pictures that differ in one small thing: what near-duplicate removal must
find, and what it must leave alone.
"""

import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance, ImageFont

Make = Callable[[Image.Image], Image.Image]

LINES = ("I never thought that it would end", "like this, in the middle of the night.")


def rescaled(height: int) -> Make:
    return lambda image: image.resize(
        (round(image.width * height / image.height), height), Image.Resampling.LANCZOS
    )


def cropped(left: float, top: float, right: float, bottom: float) -> Make:
    """Shares of width and height cut off; the rest keeps its pixels."""

    def make(image: Image.Image) -> Image.Image:
        width, height = image.size
        box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
        return image.crop(tuple(round(side) for side in box))

    return make


def brightened(factor: float) -> Make:
    return lambda image: ImageEnhance.Brightness(image).enhance(factor)


def with_gamma(gamma: float) -> Make:
    table = [round(255 * (level / 255) ** gamma) for level in range(256)] * 3
    return lambda image: image.point(table)


def subtitled(
    lines: tuple[str, ...] = LINES, colour: str = "white", at: float = 0.93, size: float = 0.055
) -> Make:
    """Outlined text as players burn it in, its last line ending at a share of the height."""

    def make(image: Image.Image) -> Image.Image:
        image = image.copy()
        draw = ImageDraw.Draw(image)
        height = round(min(image.height, image.width * 0.6) * size)
        font = ImageFont.load_default(height)
        for number, line in enumerate(reversed(lines)):
            y = image.height * at - number * height * 1.25
            draw.text(
                (image.width / 2, y), line, colour, font, "ms", stroke_width=height // 12, stroke_fill="black"
            )
        return image

    return make


def with_logo(is_solid: bool, is_left: bool = False) -> Make:
    """A broadcaster's mark in an upper corner."""

    def make(image: Image.Image) -> Image.Image:
        width, height = image.size
        layer = Image.new("RGBA", image.size)
        draw = ImageDraw.Draw(layer)
        size = round(width * 0.08)
        x, y = (round(width * 0.02) if is_left else round(width * 0.90)), round(height * 0.04)
        alpha = 255 if is_solid else 130
        draw.rounded_rectangle((x, y, x + size, y + size // 2), size // 8, (240, 240, 245, alpha))
        draw.text(
            (x + size / 2, y + size / 4),
            "TV 9",
            (20, 30, 120, alpha),
            ImageFont.load_default(size // 4),
            "mm",
        )
        return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")

    return make


RETOUCHES: dict[str, Make] = {
    "same pixels": lambda image: image,
    "360p": rescaled(360),
    "480p": rescaled(480),
    "720p": rescaled(720),
    "1080p": rescaled(1080),
    "360p and up again": lambda image: rescaled(1080)(rescaled(360)(image)),
    "crop of 2 % all round": cropped(0.02, 0.02, 0.02, 0.02),
    "crop of 5 % all round": cropped(0.05, 0.05, 0.05, 0.05),
    "crop of 5 % at the left": cropped(0.05, 0, 0, 0),
    "crop of 5 % at the bottom": cropped(0, 0, 0, 0.05),
    "crop of 3 % at two sides": cropped(0.03, 0, 0, 0.03),
    "crop of 4 % above and below": cropped(0, 0.04, 0, 0.04),
    "crop of 5 % and down to 480p": lambda image: rescaled(480)(cropped(0.05, 0.05, 0.05, 0.05)(image)),
    "darker": brightened(0.8),
    "brighter": brightened(1.2),
    "much brighter": brightened(1.3),
    "gamma 0.8": with_gamma(0.8),
    "gamma 1.25": with_gamma(1.25),
    "subtitle of one line": subtitled(LINES[:1]),
    "subtitle of two lines": subtitled(),
    "yellow subtitle": subtitled(colour="#f0e040"),
    "subtitle at the top": subtitled(LINES[:1], at=0.10),
    "solid logo": with_logo(True),
    "translucent logo": with_logo(False, is_left=True),
}
FILES: dict[str, dict[str, object]] = {
    ".png": {"format": "PNG", "compress_level": 1},
    "q95.jpg": {"format": "JPEG", "quality": 95},
    "q90.jpg": {"format": "JPEG", "quality": 90},
    "q75.jpg": {"format": "JPEG", "quality": 75},
    "q60.jpg": {"format": "JPEG", "quality": 60},
    ".webp": {"format": "WEBP", "quality": 80, "method": 0},
}


def saved(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **FILES[kind])
    return buffer.getvalue()


# Pictures of the shared test data that differ in an expression


def on_white(path: Path) -> Image.Image:
    image = Image.open(path).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def layered(folder: Path, parts: tuple[str, ...]) -> Image.Image:
    """A character of several layers, RGBA."""
    name = folder.name
    image = Image.open(folder / f"{name}_base.png").convert("RGBA")
    for part in parts:
        image.alpha_composite(Image.open(folder / f"{name}_{part}.png").convert("RGBA"))
    return image


def expressions(folder: Path) -> dict[str, Image.Image]:
    """A character with every mouth, then every pair of eyes, else unchanged; RGBA."""
    kinds = {
        kind: sorted(path.stem.split("_", 1)[1] for path in folder.glob(f"*_{kind}_*.png"))
        for kind in ("brows", "eyes", "mouth")
    }
    first = {kind: names[0] for kind, names in kinds.items() if names}
    found = {}
    for kind, names in kinds.items():
        for name in names:
            parts = {**first, kind: name}
            found["+".join(parts.values())] = layered(folder, tuple(parts.values()))
    return found


def scene(
    background: Image.Image, character: Image.Image, height: float = 1.0, x: float = 0.5
) -> Image.Image:
    """A character before a background, `height` of the picture high, its head always in sight."""
    scale = background.height * height / character.height
    small = character.resize((round(character.width * scale), round(character.height * scale)))
    picture = background.convert("RGBA")
    top = max(0, background.height - small.height)
    picture.alpha_composite(
        small.crop((0, 0, small.width, min(small.height, background.height))),
        (max(0, round(background.width * x - small.width / 2)), top),
    )
    return picture.convert("RGB")
