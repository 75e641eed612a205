"""A bar chart of counts: as SVG, light on a light page and dark on a dark one, or as PNG, one of the two."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from pipeline.charts import ROW_PX, Bar, bars, clean, document, number_text
from pipeline.errors import InputError
from pipeline.files import write_atomic

WIDTH_PX = 860
MARGIN_PX = 20
TOP_PX = 68  # of the first bar
MARK = "<!-- made by celforge tags -->"
SOFTWARE = "celforge tags"  # a PNG's mark
SUFFIXES = (".svg", ".png")

# PNG
SCALE = 2  # pixels for one of the SVG, for screens of today
NAMES_PX, NUMBERS_PX = 270, 110
LIGHT = {"page": "#ffffff", "ink": "#1c2330", "muted": "#5a6475", "fill": "#2f6fde"}
DARK = {"page": "#12161d", "ink": "#e8ebf1", "muted": "#a3adbd", "fill": "#7aa7ff"}
# tried by name where a text holds more than Latin letters: Linux, Windows, macOS
WIDE_FONTS = ("NotoSansCJK-Regular.ttc", "YuGothM.ttc", "meiryo.ttc", "msyh.ttc", "Hiragino Sans GB.ttc")
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Counts = Sequence[tuple[str, int]]


def svg_chart(title: str, subtitle: str, counts: Counts, total: int) -> str:
    """The text of an SVG.

    Args:
        counts: (name, number of pictures), the largest first.
        total: pictures in all, for the shares.
    """
    rows = bars([Bar(name, count, text=_number(count, total)) for name, count in counts], title=title)
    height = TOP_PX + max(1, len(counts)) * ROW_PX + MARGIN_PX
    inner = rows.replace("<svg ", f'<svg x="{MARGIN_PX}" y="{TOP_PX}" ', 1)
    head = (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" width="100%" height="{height}">{MARK}'
        f'<text x="{MARGIN_PX}" y="30" style="font-size: 17px; font-weight: 600">{_text(title)}</text>'
        f'<text class="muted" x="{MARGIN_PX}" y="50">{_text(subtitle)}</text>'
    )
    return document(f"{head}{inner}</svg>", width_px=WIDTH_PX)


def png_chart(title: str, subtitle: str, counts: Counts, total: int, *, is_dark: bool) -> bytes:
    """The bytes of a PNG of the same bars, for a light or a dark page."""
    colours = DARK if is_dark else LIGHT
    height = TOP_PX + max(1, len(counts)) * ROW_PX + MARGIN_PX
    image = Image.new("RGB", (WIDTH_PX * SCALE, height * SCALE), colours["page"])
    draw = ImageDraw.Draw(image)
    everything = "".join((title, subtitle, *(name for name, _ in counts)))
    fonts = {size: _font(size * SCALE, everything) for size in (12, 13, 17)}

    def write(x: float, y: float, text: str, size: int, colour: str) -> None:
        """Text that begins at x, its middle at y, in pixels of the SVG."""
        draw.text((x * SCALE, y * SCALE), text, colours[colour], fonts[size], anchor="lm")

    write(MARGIN_PX, 25, _cut(clean(title), fonts[17], WIDTH_PX - 2 * MARGIN_PX), 17, "ink")
    write(MARGIN_PX, 47, _cut(clean(subtitle), fonts[12], WIDTH_PX - 2 * MARGIN_PX), 12, "muted")
    most = max((count for _, count in counts), default=1) or 1
    left = MARGIN_PX + NAMES_PX
    room = WIDTH_PX - left - NUMBERS_PX - MARGIN_PX
    for row, (name, count) in enumerate(counts):
        middle = TOP_PX + ROW_PX * (row + 0.5)
        write(MARGIN_PX, middle, _cut(clean(name), fonts[13], NAMES_PX - 10), 13, "ink")
        width = max(1.0, room * count / most)
        box = [left, middle - 7, left + width, middle + 7]
        draw.rounded_rectangle([side * SCALE for side in box], 3 * SCALE, colours["fill"])
        write(left + width + 8, middle, _number(count, total), 12, "ink")
    if not counts:
        write(MARGIN_PX, TOP_PX + ROW_PX / 2, "nothing to show", 12, "muted")
    mark = PngInfo()
    mark.add_text("Software", SOFTWARE)
    buffer = BytesIO()
    image.save(buffer, "PNG", pnginfo=mark, optimize=True)
    return buffer.getvalue()


def write_chart(path: Path, title: str, subtitle: str, counts: Counts, total: int, *, is_dark: bool) -> None:
    """Write a chart, as the suffix says; only an older chart of ours is replaced.

    Raises:
        InputError: another suffix, something else is there, or there is no such folder.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        hint = f"write {path.with_suffix('.svg')} or {path.with_suffix('.png')}"
        raise InputError(f"a chart is an SVG or a PNG, not {path.name}", hint=hint)
    if is_dark and suffix == ".svg":
        hint = "leave --dark out, or write a .png"
        raise InputError("--dark has no effect: an SVG is dark on dark pages by itself", hint=hint)
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}", hint="make it first")
    if path.exists() and not _is_ours(path):
        raise InputError(f"{path} exists and is no chart of ours", hint="take another name")
    if suffix == ".svg":
        write_atomic(path, svg_chart(title, subtitle, counts, total))
    else:
        write_atomic(path, png_chart(title, subtitle, counts, total, is_dark=is_dark))


def _is_ours(path: Path) -> bool:
    """Whether a file holds one of the two marks, near its beginning."""
    with path.open("rb") as file:
        start = file.read(4096)
    return MARK.encode() in start or f"Software\0{SOFTWARE}".encode() in start


def _number(count: int, total: int) -> str:
    if not total:
        return number_text(count)
    percent = f"{100 * count / total:.1f}"
    share = "<0.1" if count and percent == "0.0" else percent
    return f"{number_text(count)} \N{MIDDLE DOT} {share} %"


def _font(size_px: int, text: str) -> _Font:
    if not all(ord(letter) < 0x250 for letter in text):
        for name in WIDE_FONTS:
            try:
                return ImageFont.truetype(name, size_px)
            except OSError:
                continue
    return ImageFont.load_default(size_px)


def _cut(text: str, font: _Font, room_px: float) -> str:
    """A text that fits, with an ellipsis where it was cut."""
    if font.getlength(text) <= room_px * SCALE:
        return text
    while text and font.getlength(text + "...") > room_px * SCALE:
        text = text[:-1]
    return text + "..."


def _text(text: str) -> str:
    return escape(clean(text))
