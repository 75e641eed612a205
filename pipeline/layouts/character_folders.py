"""Which characters the folder of a picture names.

| folder | characters |
| --- | --- |
| `1_character/Sabine`, `2_characters/Mireth+Sabine` | the names in the folder below `n_characters` |
| `6+_characters`, `.../character_others`, `0_noise`, `unknown` | nobody is named |
| `10_sabine`, `3_mireth+sabine` | kohya's and clustering's number before a name is not part of it |
| `2_1_character~Sabine` | a flattened tree: parts of the path apart by `~` |
| `Sabine` | only where the caller knows that name, or a format says so |

Facts of trees: cyber-meow/anime_screenshot_pipeline (arrange, classify), kohya-ss/sd-scripts (`N_name`).
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from pipeline.errors import SettingsError
from pipeline.settings import nearest

FOLDERS_SEEN = "folders_seen"  # fact: where a picture lay when its characters were last looked at
SEEN_BY = "celforge"
CHARACTER = "character"  # the word of a format for the folder that names
NOBODY = frozenset({"character_others", "others", "unknown", "unnamed", "noise", "ood", "none"})

_COUNT = re.compile(r"(\d+\+?)_characters?", re.IGNORECASE)
_NUMBERED = re.compile(r"-?\d+_(.*[^\W\d_].*)")  # a name has a letter: 2024_01 is none
_FLATTENED = re.compile(r"\d+_.*~")


def check_format(text: str) -> tuple[str, ...]:
    """The parts of a folder format such as `*/character/*`; empty for an empty text.

    Raises:
        SettingsError: a part that is not `*`, `**` or `character`, or not exactly one `character`.
    """
    parts = tuple(part for part in text.replace("\\", "/").split("/") if part)
    for part in parts:
        if part not in ("*", "**", CHARACTER):
            near = nearest(part, [CHARACTER])
            hint = f'did you mean "{near}"?' if near else 'such as "*/character/*"'
            raise SettingsError(
                f'"{part}" in the folder format "{text}" must be *, ** or character', hint=hint
            )
    if parts and parts.count(CHARACTER) != 1:
        raise SettingsError(f'the folder format "{text}" must say once which folder names the character')
    return parts


def folder_below(folder: str, top: str) -> str:
    """A folder's path below another one, which itself names nobody; both relative to one root."""
    if top in ("", "."):
        return folder
    return folder[len(top) :].lstrip("/") if f"{folder}/".startswith(f"{top}/") else folder


def names_of_folder(
    folder: str, format_parts: Sequence[str] = (), known: Callable[[str], str | None] = lambda text: None
) -> tuple[str, ...] | None:
    """The characters that a folder names, sorted, each once; None where it names nobody.

    Args:
        folder: relative, with forward slashes.
        format_parts: from `check_format`; empty reads the folders of the table above.
        known: gives the name of a character whose folder may be without any number, or None.
    """
    parts = [part for whole in PurePosixPath(folder).parts for part in _unflattened(whole)]
    named = _by_format(parts, format_parts) if format_parts else _by_grammar(parts, known)
    return None if named is None else _split_names(named)


def _unflattened(part: str) -> list[str]:
    if not _FLATTENED.match(part):
        return [part]
    return [piece for piece in part.partition("_")[2].split("~") if piece]


def _by_format(parts: Sequence[str], format_parts: Sequence[str]) -> str | None:
    """The part of a path where a format says `character`; None where the path is of another shape."""
    if not format_parts:
        return None
    first, rest = format_parts[0], format_parts[1:]
    if first == "**":
        starts = range(len(parts) + 1)
        found = (_by_format(parts[at:], rest) if rest else None for at in reversed(starts))
        return next((name for name in found if name is not None), None)
    if not parts:
        return None
    if first == CHARACTER:
        return parts[0] if _has_shape(parts[1:], rest) else None
    return _by_format(parts[1:], rest)


def _has_shape(parts: Sequence[str], format_parts: Sequence[str]) -> bool:
    if "**" in format_parts:
        return len(parts) >= len(format_parts) - format_parts.count("**")
    return len(parts) == len(format_parts)


def _by_grammar(parts: Sequence[str], known: Callable[[str], str | None]) -> str | None:
    for at, part in enumerate(parts):
        if _COUNT.fullmatch(part):
            return parts[at + 1] if at + 1 < len(parts) else None
    for part in reversed(parts):
        if _NUMBERED.fullmatch(part):
            return part
        if all(known(name) for name in _split_names(part) or ("",)):
            return part
    return None


def _split_names(text: str) -> tuple[str, ...] | None:
    text = unicodedata.normalize("NFC", text)
    numbered = _NUMBERED.fullmatch(text)
    text = numbered[1] if numbered else text
    if _COUNT.fullmatch(text):
        return None
    names = {name.strip() for name in text.split("+")} - {""}
    named = {name for name in names if name.lower() not in NOBODY}
    return tuple(sorted(named)) or None
