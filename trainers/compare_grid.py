"""The grid of a comparison as one picture: models across, prompts down, with labels that can be read.

Small pictures are enlarged by whole factors, smoothly, as viewers do: outlines of 64 px stay lines and do not
become stairs. Very large grids are made smaller as a whole.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from trainers.prompts import Prompt

SMALLEST_CELL_PX = 192  # longest side; smaller pictures are enlarged to it
WIDEST_PX = 24_000
LABEL_PX = 280
GAP_PX = 8
FONT_PX = 17
LINE_PX = FONT_PX + 5
MOST_LINES = 10
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
Labels: TypeAlias = tuple[str, str, str]

PAPER, INK, FAINT, LINE = (250, 250, 248), (28, 28, 30), (96, 96, 100), (214, 214, 210)


def draw_grid(
    labels: Sequence[Labels], rows: Sequence[Prompt], read: Callable[[int, int], Image.Image | None]
) -> Image.Image:
    """Draw the grid, RGB.

    Args:
        labels: three lines over each column; equal neighbours are joined.
        read: the picture of a row and a column, or None.
    """
    font = ImageFont.load_default(FONT_PX)
    sizes = {at: one.size for at, one in _all(labels, rows, read)}
    factor = _factor(max((max(size) for size in sizes.values()), default=SMALLEST_CELL_PX), len(labels))
    cell = round(max((size[0] for size in sizes.values()), default=SMALLEST_CELL_PX) * factor)
    texts = [_label(prompt, font) for prompt in rows]
    heights = [
        max(
            len(texts[down]) * LINE_PX,
            *(round(size[1] * factor) for (row, _), size in sizes.items() if row == down),
            1,
        )
        for down in range(len(rows))
    ]
    heads = [_head(labels, level, cell, font) for level in range(3)]
    top = GAP_PX + sum(_head_height(one) for one in heads)
    width = GAP_PX + LABEL_PX + len(labels) * (cell + GAP_PX)
    sheet = Image.new("RGB", (width, top + sum(heights) + GAP_PX * len(rows)), PAPER)
    pen = ImageDraw.Draw(sheet)
    y = GAP_PX
    for head in heads:
        for first, count, lines in head:
            left, right = _left(first, cell), _left(first + count, cell) - GAP_PX
            _centred(pen, lines, (left + right) // 2, y, font)
            if count > 1 and lines:
                pen.line((left, y + _head_height(head) - 3, right, y + _head_height(head) - 3), LINE, 2)
        y += _head_height(head)
    for down, (text, height) in enumerate(zip(texts, heights, strict=True)):
        for number, (line, colour) in enumerate(text):
            pen.text((GAP_PX, y + number * LINE_PX), line, colour, font)
        for across in range(len(labels)):
            image = read(down, across)
            if image is not None:
                sheet.paste(_scaled(image, factor), (_left(across, cell), y))
        y += height + GAP_PX
    return sheet


def _all(
    labels: Sequence[Labels], rows: Sequence[Prompt], read: Callable[[int, int], Image.Image | None]
) -> Iterator[tuple[tuple[int, int], Image.Image]]:
    for down in range(len(rows)):
        for across in range(len(labels)):
            image = read(down, across)
            if image is not None:
                yield (down, across), image


def _factor(longest_px: int, num_columns: int) -> float:
    """Whole above 1; below 1 only where the grid would be wider than viewers open."""
    factor = max(1, -(-SMALLEST_CELL_PX // longest_px))
    room = (WIDEST_PX - LABEL_PX) / num_columns - GAP_PX
    return factor if longest_px * factor <= room else min(1.0, room / longest_px)


def _scaled(image: Image.Image, factor: float) -> Image.Image:
    if factor == 1:
        return image
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _left(column: int, cell: int) -> int:
    return GAP_PX + LABEL_PX + column * (cell + GAP_PX)


def _head(labels: Sequence[Labels], level: int, cell: int, font: Font) -> list[tuple[int, int, list[str]]]:
    """(first column, columns, lines) of one row of labels; the last is never joined."""
    found, first = [], 0
    for _, same in groupby(enumerate(labels), key=lambda pair: pair if level == 2 else pair[1][: level + 1]):
        count = len(list(same))
        room = count * (cell + GAP_PX) - GAP_PX
        found.append((first, count, wrapped(labels[first][level], font, room)))
        first += count
    return found


def _head_height(head: Sequence[tuple[int, int, list[str]]]) -> int:
    lines = max(len(one[2]) for one in head)
    return lines * LINE_PX + 6 if lines else 0


def _centred(pen: ImageDraw.ImageDraw, lines: Sequence[str], x: int, y: int, font: Font) -> None:
    for number, line in enumerate(lines):
        pen.text((x, y + number * LINE_PX), line, INK, font, anchor="ma")


def _label(prompt: Prompt, font: Font) -> list[tuple[str, tuple[int, int, int]]]:
    room = LABEL_PX - 2 * GAP_PX
    lines = wrapped(prompt.text, font, room)
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], lines[MOST_LINES - 1][:-3] + "..."]
    faint = wrapped(f"seed {prompt.seed}, guidance {prompt.guidance:g}", font, room)
    return [(line, INK) for line in lines] + [(line, FAINT) for line in faint]


def wrapped(text: str, font: Font, room: int) -> list[str]:
    """Lines no wider than `room` pixels; a word that is wider itself is cut. No line for no text."""
    lines = [""]
    for word in text.split():
        while font.getlength(word) > room and len(word) > 1:
            fits = max(1, int(len(word) * room / font.getlength(word)) - 1)
            lines, word = [*lines, word[:fits]], word[fits:]
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= room:
            lines[-1] = joined
        else:
            lines.append(word)
    return [line for line in lines if line]
