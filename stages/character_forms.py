"""Names that say more than who: `mireth|_armoured|cape+boots` is a character, her form, and what she wears.

Grammar of cyber-meow/anime_screenshot_pipeline: name | appearance | outfit | accessories | objects | extra,
each but the first two a list apart by `+`; `none` and nothing stand for a part that is not told. A form that
starts with `_` is a character of its own for an embedding: `mireth_armoured`.
"""

from pipeline.layouts.captions import tag_text


def _parts(name: str) -> list[str]:
    parts = [part.strip() for part in name.split("|")]
    return [parts[0], *("" if part.lower() == "none" else part for part in parts[1:])]


def embedding_name(name: str) -> str:
    """The word that an embedding of this character is called by."""
    parts = _parts(name)
    form = parts[1] if len(parts) > 1 and parts[1].startswith("_") else ""
    return "_".join(f"{parts[0]}{form}".split())


def caption_parts(name: str, separator: str = " ") -> list[str]:
    """The parts of a caption that a name becomes: `mireth_armoured`, `cape boots`; `hatsune miku`.

    Underscores are spaces as in tags, except in a name that an embedding is called by.

    Args:
        separator: between name and form, and between the pieces of an outfit.
    """
    parts = _parts(name)
    form = parts[1] if len(parts) > 1 else ""
    if form.startswith("_"):
        first = embedding_name(name)
    else:
        first = separator.join(tag_text(part) for part in (parts[0], form) if part)
    lists = (map(tag_text, filter(None, part.split("+"))) for part in parts[2:] if part)
    return [first, *(separator.join(pieces) for pieces in lists)]
