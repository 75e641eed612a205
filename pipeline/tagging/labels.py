"""Label files of taggers: which tag each output stands for, its category, and the threshold of its own.

| format | file | who writes it |
| --- | --- | --- |
| csv | columns tag_id, name, category, perhaps best_threshold | WD taggers, PixAI, animetimm |
| mapping | {index: {"tag", "category"}} | cl_tagger |
| metadata | dataset_info.tag_mapping: idx_to_tag, tag_to_category | Camie |

Every tag is text, whatever it looks like: `null`, `nan` and `1` are tags.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

Format = Literal["csv", "mapping", "metadata"]
CATEGORIES = ("general", "character", "copyright", "artist", "meta", "rating")
_DANBOORU = {"0": "general", "1": "artist", "3": "copyright", "4": "character", "5": "meta", "9": "rating"}
_SYNONYMS = {"year": "meta", "quality": "meta", "model": "meta", "series": "copyright"}
RATING_PREFIX = "rating_"  # Camie names its ratings so


@dataclass(frozen=True, slots=True)
class Labels:
    """What the outputs of a tagger mean, in their order."""

    names: tuple[str, ...]
    categories: NDArray[np.int8]  # index into CATEGORIES; -1 where there is no tag
    thresholds: NDArray[np.float32]  # a tag's own; NaN where it has none

    def __len__(self) -> int:
        return len(self.names)


def read_labels(
    path: Path, form: Format, *, categories_path: Path | None = None, thresholds_path: Path | None = None
) -> Labels:
    """Read a label file.

    Args:
        categories_path: a categories.json that names the numbers of a csv's categories.
        thresholds_path: a thresholds.csv (category, name, threshold) for tags without one of their own.

    Raises:
        InputError: it cannot be read, or is not of that format.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        names_of = _category_names(categories_path)
        rows = _READERS[form](text, names_of)
        of_category = _category_thresholds(thresholds_path, names_of)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", hint="download it again") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        hint = f'it should be of the format "{form}", see the page of celforge tag'
        raise InputError(f"{path} is not understood: {error!r}", hint=hint) from error
    if not rows:
        raise InputError(f"{path} names no tags", hint="download it again")
    return _as_labels(rows, of_category)


Row = tuple[str, str, float | None]  # name, category, threshold


def _as_labels(rows: Mapping[int, Row], of_category: Mapping[str, float]) -> Labels:
    size = max(rows) + 1
    names = [""] * size
    categories = np.full(size, -1, np.int8)
    thresholds = np.full(size, np.nan, np.float32)
    for index, (name, category, threshold) in rows.items():
        names[index] = name.removeprefix(RATING_PREFIX) if category == "rating" else name
        categories[index] = CATEGORIES.index(category)
        own = of_category.get(category) if threshold is None else threshold
        thresholds[index] = np.nan if own is None else own
    return Labels(tuple(names), categories, thresholds)


def _category(name: str) -> str:
    name = _SYNONYMS.get(name.lower(), name.lower())
    if name not in CATEGORIES:
        raise ValueError(f'category "{name}" is not known')
    return name


def _category_names(path: Path | None) -> dict[str, str]:
    """{number: name} of a categories.json, over Danbooru's own."""
    if path is None:
        return _DANBOORU
    listed = json.loads(path.read_text(encoding="utf-8-sig"))
    return _DANBOORU | {str(one["category"]): str(one["name"]) for one in listed}


def _category_thresholds(path: Path | None, names_of: Mapping[str, str]) -> dict[str, float]:
    if path is None:
        return {}
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
    return {_category(names_of.get(row["category"], row["name"])): float(row["threshold"]) for row in rows}


def _csv_rows(text: str, names_of: Mapping[str, str]) -> dict[int, Row]:
    reader = csv.DictReader(io.StringIO(text))
    return {
        index: (row["name"], _category(names_of[row["category"]]), _number(row.get("best_threshold")))
        for index, row in enumerate(reader)
    }


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _mapping_rows(text: str, names_of: Mapping[str, str]) -> dict[int, Row]:
    entries: Iterable[tuple[str, Any]] = json.loads(text).items()
    return {int(index): (str(one["tag"]), _category(one["category"]), None) for index, one in entries}


def _metadata_rows(text: str, names_of: Mapping[str, str]) -> dict[int, Row]:
    mapping = json.loads(text)["dataset_info"]["tag_mapping"]
    category_of = mapping["tag_to_category"]
    return {
        int(index): (str(tag), _category(category_of.get(tag, "general")), None)
        for index, tag in mapping["idx_to_tag"].items()
    }


_READERS = {"csv": _csv_rows, "mapping": _mapping_rows, "metadata": _metadata_rows}
