"""Weights of folders from a CSV of `name or pattern,weight`, as anime_screenshot_pipeline reads it.

A folder has the weight of the line that is exactly its name, else of the first line whose pattern matches its
path (`*`, `?`, `[..]`; a star also goes over slashes), else 1. An empty line and one that begins with # say
nothing, and neither does a first line whose second column is "weight".
"""

import csv
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.errors import SettingsError

EXAMPLE = "such as: 1_character,3"


class WeightRules:
    """Weights by name or pattern, in the order of the file."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        self._used: set[str] = set()

    def weight(self, path: str) -> float:
        """The weight of a folder.

        Args:
            path: below the tree, with forward slashes; "" is the tree itself.
        """
        name = path.rpartition("/")[2]
        if name in self._weights:
            self._used.add(name)
            return self._weights[name]
        for pattern, weight in self._weights.items():
            if path and (fnmatchcase(path, pattern) or fnmatchcase(f"/{path}", pattern)):
                self._used.add(pattern)
                return weight
        return 1.0

    @property
    def unused(self) -> list[str]:
        """Lines that spoke of no folder that was asked for."""
        return [pattern for pattern in self._weights if pattern not in self._used]


def read_weights(path: Path) -> WeightRules:
    """Read a file of weights.

    Raises:
        SettingsError: it cannot be read, or a line is not a name and a weight above 0.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {(error.strerror or 'unknown').lower()}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8", hint="save it again as UTF-8") from error
    weights: dict[str, float] = {}
    reader = csv.reader(text.splitlines())
    for row in reader:
        where = f"{path} line {reader.line_num}"
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#"):
            continue
        if len(cells) != 2 or not cells[0]:
            raise SettingsError(f"{where} must hold a name or pattern and a weight", hint=EXAMPLE)
        if not weights and reader.line_num == 1 and cells[1].lower() == "weight":
            continue
        if cells[0] in weights:
            raise SettingsError(f'{where} speaks of "{cells[0]}" a second time', hint="leave one line out")
        weights[cells[0]] = _weight(cells[1], where)
    return WeightRules(weights)


def _weight(text: str, where: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        hint = "to train without a folder, move it out of the tree"
        raise SettingsError(f'{where}: a weight must be a number above 0, found "{text}"', hint=hint)
    return weight
