"""Captions of which one is drawn at every visit, and classes of tags that fall away together."""

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from pathlib import Path

from pipeline.caption_files import decode_caption
from pipeline.errors import SettingsError
from pipeline.layouts.captions import tag_key

_WEIGHED_LINE = re.compile(r"\s*(\d+(?:\.\d+)?)::\s*(.*)")
Variant = tuple[float, str]  # weight, text


@dataclass(frozen=True, slots=True)
class TagClass:
    """Tags that are left out together.

    Args:
        chance: from 0 to 1.
        given: as it was written, and what its file held: what a resumed run compares.
    """

    chance: float
    given: str
    tags: frozenset[str] = field(repr=False, compare=False)
    pattern: str = field(repr=False, compare=False, default="")

    def holds(self, tag: str) -> bool:
        """Whether a tag is of the class; spelling, case and underscores aside."""
        key = tag_key(tag)
        return key in self.tags or (bool(self.pattern) and _compiled(self.pattern)(key) is not None)


@lru_cache(64)
def _compiled(pattern: str):  # type: ignore[no-untyped-def]
    return re.compile(pattern).match


def tag_classes(texts: Sequence[str]) -> tuple[TagClass, ...]:
    """Classes as `--tag-class-dropout` writes them: `0.3=*hair, bangs`, `0.2=@clothes.txt`.

    Raises:
        SettingsError: no such chance, no tags, or a file that cannot be read.
    """
    return tuple(_tag_class(text) for text in texts)


def _tag_class(text: str) -> TagClass:
    number, _, named = (part.strip() for part in text.partition("="))
    try:
        chance = float(number)
    except ValueError:
        chance = -1.0
    if not 0 <= chance <= 1 or not named:
        raise SettingsError(
            f'tag_class_dropout must be CHANCE=TAGS with a chance from 0 to 1, found "{text}"',
            hint='for instance --tag-class-dropout "0.3=*hair, bangs"',
        )
    written = [part.strip() for part in named.split(",")]
    names = [name for part in written for name in (_file_tags(part[1:]) if part.startswith("@") else [part])]
    keys = sorted({tag_key(name) for name in names if name.strip()})
    if not keys:
        raise SettingsError(f'tag_class_dropout "{text}" names no tag')
    loose = [key for key in keys if any(sign in key for sign in "*?[")]
    digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:12]
    pattern = "|".join(translate(key) for key in loose)
    return TagClass(chance, f"{text} {digest}", frozenset(keys) - frozenset(loose), pattern)


def _file_tags(path: str) -> list[str]:
    try:
        text, problem = decode_caption(Path(path).expanduser().read_bytes())
    except OSError as error:
        raise SettingsError(
            f"tag_class_dropout: {path} cannot be read: {error.strerror}", hint="write a tag a line into it"
        ) from error
    if text is None:
        raise SettingsError(f"tag_class_dropout: {path} is {problem}", hint="save it as UTF-8 text")
    return [line for line in text.splitlines() if not line.startswith("#")]


def suffixes_of(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """(suffix, weight) as `--caption-variant` writes them.

    Raises:
        SettingsError: no suffix, or a weight that is no number above 0.
    """
    found: dict[str, float] = {}
    for text in texts:
        suffix, _, number = (part.strip() for part in text.partition("="))
        try:
            weight = float(number) if number else 1.0
        except ValueError:
            weight = 0.0
        if not suffix.startswith(".") or not 0 < weight < float("inf"):
            raise SettingsError(
                f'caption_variant must be .EXT or .EXT=WEIGHT with a weight above 0, found "{text}"',
                hint="for instance --caption-variant .txt=3 --caption-variant .caption",
            )
        if suffix in found:
            raise SettingsError(f"caption_variant names {suffix} twice")
        found[suffix] = weight
    return tuple(found.items())


def files_of(
    stems: Sequence[str], suffixes: Sequence[tuple[str, float]], files: Collection[str]
) -> tuple[str, ...]:
    """The caption files of a picture, one a suffix.

    Args:
        stems: of its captions, the one that counts more last.
    """
    found = []
    for suffix, _ in suffixes:
        there = [stem + suffix for stem in stems if stem + suffix in files]
        found += there[-1:]
    return tuple(found)


def lines_of(text: str, weight: float) -> list[Variant]:
    """The captions of a text, a line each, that share its weight; `3::text` has three parts of it."""
    parts = []
    for line in text.splitlines():
        if line.strip():
            weighed = _WEIGHED_LINE.fullmatch(line)
            parts.append((float(weighed[1]), weighed[2].strip()) if weighed else (1.0, line.strip()))
    whole = sum(part for part, _ in parts)
    return [(weight * part / whole, line) for part, line in parts if part > 0] if whole > 0 else []


def drawn(variants: Sequence[Variant], place: float) -> str:
    """The text at a place from 0 to 1, each as long as its weight."""
    left = place * sum(weight for weight, _ in variants)
    for weight, text in variants:
        left -= weight
        if left < 0:
            return text
    return variants[-1][1]
