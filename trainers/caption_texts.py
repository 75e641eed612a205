"""Captions as their files hold them: EveryDream's text and yaml files, kohya's text files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.caption_files import MAX_BYTES, decode_caption
from pipeline.layouts.everydream import stem_of
from trainers.caption_rules import JOIN, CaptionSource
from trainers.caption_variants import Variant, lines_of
from trainers.data_sources import Picture

MOST_CHARACTERS = 2048  # of a caption drawn by weights, where its yaml file gives no other number


def read_source(picture: Picture, *, from_name: bool) -> tuple[CaptionSource, str]:
    """The caption of a picture, and why its file is no caption, in short; "" where nothing is wrong.

    Args:
        from_name: EveryDream trees: without a file, take the name up to its first `_`.

    Raises:
        OSError: the file cannot be read.
    """
    rules, problem = picture.terms.rules, ""
    text: str | None = None
    variants: list[Variant] = []
    for name in picture.captions:
        found, why = _read(Path(picture.folder_path, name))
        text = text if found is None else found
        weight = max(
            ((len(end), one) for end, one in rules.variants if name.endswith(end)), default=(0, 1.0)
        )[1]
        if found and rules.lines:
            variants += lines_of(found, weight)
        elif found and rules.variants:
            variants.append((weight, " ".join(found.split()) if picture.terms.is_everydream else found))
        problem = problem or (f"{name} is {why}" if why and found is None else "")
    if picture.terms.is_everydream and text is not None and not rules.wildcards:
        text = " ".join(text.split())  # a line's end is a space to EveryDream2
    if picture.values:
        of_yaml = _of_yaml(picture)
        if of_yaml is not None:
            return of_yaml, problem
    if variants:
        several = tuple(variants) if len(variants) > 1 else ()
        return CaptionSource(variants[0][1], rules, variants=several), problem
    if text is not None:
        return CaptionSource(text, rules, origin="file" if text else "none"), problem
    if picture.terms.is_everydream and from_name:
        return CaptionSource(stem_of(picture.name).split("_")[0], rules, origin="name"), problem
    fallback = picture.terms.fallback
    return CaptionSource(fallback, rules, origin="class" if fallback else "none"), problem


def _read(path: Path) -> tuple[str | None, str]:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        return None, "too long for a caption"
    return decode_caption(data)


def _of_yaml(picture: Picture) -> CaptionSource | None:
    """main_prompt (or caption) and tags of a picture's own yaml file; None where it has neither."""
    values = picture.values
    main = values.get("main_prompt") or values.get("caption") or ""
    tags, weights = _tags(values.get("tags"))
    head = [part for piece in str(main).split(picture.terms.rules.separator) if (part := piece.strip())]
    if not head and not tags:
        return None
    text = JOIN.join([*head, *tags])
    # a caption with commas of its own has further tags, of weight 1
    weights = [1.0] * max(0, len(head) - picture.terms.rules.keep_tokens) + weights
    is_weighted = bool(head) and len(set(weights)) > 1
    most = values.get("max_caption_length")
    return CaptionSource(
        text,
        picture.terms.rules,
        tuple(weights) if is_weighted else (),
        (most if isinstance(most, int) and most > 0 else MOST_CHARACTERS) if is_weighted else 0,
    )


def _tags(value: Any) -> tuple[list[str], list[float]]:
    """Tags and their weights, 1 where none is given."""
    tags: list[str] = []
    weights: list[float] = []
    for one in value if isinstance(value, list) else str(value).split(",") if value else []:
        weight = 1.0
        if isinstance(one, Mapping):
            told = one.get("weight", 1.0)
            weight = float(told) if isinstance(told, int | float) else 1.0
            one = one.get("tag", "")
        if text := " ".join(str(one).split()):
            tags.append(text)
            weights.append(weight)
    return tags, weights
