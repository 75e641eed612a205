"""One growing contact sheet of a run's samples: a row for each prompt, a column for each step.

It can be read from the single PNGs, which say their step and prompt: a run that goes on keeps its columns.
"""

import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from pipeline.files import write_atomic
from trainers.prompts import Prompt
from trainers.samples import SAMPLE_KEY

CELL_PX = 256  # longest side of a picture on the sheet
SMALLEST_CELL_PX = 96
WIDEST_PX = 16_000  # with more columns than fit, cells shrink, then the steps between are left out
LABEL_PX = 260  # column with the prompts
GAP_PX = 8
HEADER_PX = 40
FONT_PX = 17
MOST_LINES = 9  # of a prompt's text
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

PAPER, INK, FAINT = (250, 250, 248), (28, 28, 30), (120, 120, 124)


@dataclass(slots=True)
class SampleSheet:
    """Samples of all steps, kept small."""

    thumbs: dict[tuple[Prompt, int], Image.Image] = field(default_factory=dict)  # by prompt without number
    numbers: dict[Prompt, int] = field(default_factory=dict)  # where each stood in the file, last seen

    @classmethod
    def read(cls, paths: Iterable[Path]) -> "SampleSheet":
        """From single PNGs on disk; whatever is not a sample of ours, or is damaged, is passed over."""
        sheet = cls()
        for path in sorted(paths):
            try:
                with Image.open(path) as image:
                    image.load()
                    words = json.loads(image.info[SAMPLE_KEY])
                    sheet.add(int(words["step"]), Prompt(**words["prompt"]), image)
            except (OSError, KeyError, ValueError, TypeError, SyntaxError):
                continue
        return sheet

    def add(self, step: int, prompt: Prompt, image: Image.Image) -> None:
        """Put a picture in its place; one that is there is replaced."""
        thumb = image.convert("RGB")
        thumb.thumbnail((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
        row = replace(prompt, number=0)
        self.thumbs[row, step] = thumb
        self.numbers[row] = prompt.number

    @property
    def steps(self) -> list[int]:
        """Columns, from left to right."""
        return sorted({step for _, step in self.thumbs})

    @property
    def prompts(self) -> list[Prompt]:
        """Rows, in the order of the file; a prompt that was changed in between has a row for each wording."""
        return sorted(self.numbers, key=lambda one: (self.numbers[one], str(one)))

    def save(self, path: Path) -> None:
        """Draw the sheet and write it as PNG, whole or not at all. Does nothing without samples."""
        if not self.thumbs:
            return
        data = io.BytesIO()
        self.draw().save(data, "PNG")
        write_atomic(path, data.getvalue(), sync=False)

    def draw(self) -> Image.Image:
        """The sheet, RGB."""
        steps, cell = _columns(self.steps)
        rows = self.prompts
        font = ImageFont.load_default(FONT_PX)
        heights = [self._row_height(prompt, steps, cell, font) for prompt in rows]
        width = GAP_PX + LABEL_PX + len(steps) * (cell + GAP_PX) + GAP_PX
        sheet = Image.new("RGB", (width, HEADER_PX + sum(heights) + GAP_PX * (len(rows) + 1)), PAPER)
        pen = ImageDraw.Draw(sheet)
        pen.text((GAP_PX, HEADER_PX // 2), "step", FAINT, font, anchor="lm")
        for column, step in enumerate(steps):
            middle = _left(column, cell) + cell // 2
            pen.text((middle, HEADER_PX // 2), _number(step, cell, font), INK, font, anchor="mm")
        top = HEADER_PX
        for prompt, height in zip(rows, heights, strict=True):
            self._draw_row(sheet, pen, prompt, steps, cell, top, height, font)
            top += height + GAP_PX
        return sheet

    def _row_height(self, prompt: Prompt, steps: list[int], cell: int, font: Font) -> int:
        pictures = [one for step in steps if (one := self._thumb(prompt, step, cell)) is not None]
        lines = len(_label(prompt, font))
        return max(lines * (FONT_PX + 4), *(one.height for one in pictures), 1)

    def _draw_row(
        self,
        sheet: Image.Image,
        pen: ImageDraw.ImageDraw,
        prompt: Prompt,
        steps: list[int],
        cell: int,
        top: int,
        height: int,
        font: Font,
    ) -> None:
        for number, (line, colour) in enumerate(_label(prompt, font)):
            pen.text((GAP_PX, top + number * (FONT_PX + 4)), line, colour, font)
        for column, step in enumerate(steps):
            left = _left(column, cell)
            thumb = self._thumb(prompt, step, cell)
            if thumb is None:
                pen.text((left + cell // 2, top + height // 2), "-", FAINT, font, anchor="mm")
            else:
                sheet.paste(thumb, (left + (cell - thumb.width) // 2, top))

    def _thumb(self, prompt: Prompt, step: int, cell: int) -> Image.Image | None:
        found = self.thumbs.get((prompt, step))
        if found is None or cell >= CELL_PX:
            return found
        small = found.copy()
        small.thumbnail((cell, cell), Image.Resampling.LANCZOS)
        return small


def _columns(steps: list[int]) -> tuple[list[int], int]:
    """Steps that are shown and the width of their cells; first and last always, those between evenly."""
    room = WIDEST_PX - LABEL_PX - 2 * GAP_PX
    cell = min(CELL_PX, room // len(steps) - GAP_PX)
    if cell >= SMALLEST_CELL_PX:
        return steps, cell
    most = room // (SMALLEST_CELL_PX + GAP_PX)
    places = sorted({round(place * (len(steps) - 1) / (most - 1)) for place in range(most)})
    return [steps[place] for place in places], SMALLEST_CELL_PX


def _left(column: int, cell: int) -> int:
    return GAP_PX + LABEL_PX + column * (cell + GAP_PX)


def _number(step: int, cell: int, font: Font) -> str:
    """A step as people write it, shorter where the column is narrow."""
    text = f"{step:,}"
    return text if font.getlength(text) <= cell else f"{step / 1000:g}k"


def _label(prompt: Prompt, font: Font) -> list[tuple[str, tuple[int, int, int]]]:
    """The prompt in lines that fit, and its settings fainter below."""
    lines = _wrapped(prompt.text, font)
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], lines[MOST_LINES - 1][:-1] + "..."]
    settings = f"seed {prompt.seed}, guidance {prompt.guidance:g}"
    return [(line, INK) for line in lines] + [(line, FAINT) for line in _wrapped(settings, font)]


def _wrapped(text: str, font: Font) -> list[str]:
    """Lines no wider than the label; a word that is wider itself is cut."""
    room = LABEL_PX - 2 * GAP_PX
    lines = [""]
    for word in text.split():
        while font.getlength(word) > room:
            fits = max(1, math.floor(len(word) * room / font.getlength(word)) - 1)
            lines, word = [*lines, word[:fits]], word[fits:]
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= room:
            lines[-1] = joined
        else:
            lines.append(word)
    return [line for line in lines if line]
