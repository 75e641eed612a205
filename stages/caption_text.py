"""From what is known of a picture to the text of its caption: fields, their order, tags by rank, limits.

Every draw is a function of (seed, picture, field): the same settings give the same captions, in any order and
on any machine.
"""

import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from pipeline.characters import Character
from pipeline.clip_tokens import count_tokens
from pipeline.errors import SettingsError
from pipeline.layouts.captions import KNOWN_TAGS, Caption, parts_of, tag_key, tag_text, without_separators
from pipeline.settings import unknown_name
from stages.character_forms import caption_parts
from stages.pruning import Dropped

Field = Literal[
    "num_people",
    "characters",
    "copyright",
    "image_type",
    "artist",
    "rating",
    "crop",
    "meta_tags",
    "description",
    "tags",
]
FIELDS: tuple[Field, ...] = (
    *("num_people", "characters", "copyright", "image_type", "artist", "rating", "crop"),
    *("meta_tags", "description", "tags"),
)
FACTS = FIELDS  # each field is the fact of its name

OVER_TAGS, OVER_TOKENS, SAID = "beyond max_tags", "beyond max_tokens", "said by another part"
MANY_PEOPLE = 6
_NOBODY = frozenset({"unknown", "anonymous", ""})
_PEOPLE = re.compile(r"\d+\+?(girl|boy|other)s?|multiple_(girls|boys|others)")
_TEMPLATE_FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class TextRules:
    """How captions are put together; see the settings of the same names in stages/caption.py."""

    order: tuple[str, ...]
    keep_before: str
    separator: str
    keep_separator: str
    character_separator: str
    probabilities: Mapping[str, float]
    ratings: frozenset[str]
    trigger_words: tuple[str, ...]
    sort: str
    seed: int
    max_tags: int
    max_tokens: int
    template: str
    characters: Mapping[str, Character]


@dataclass(slots=True)
class Composed:
    """A caption and what was left out of it at the end."""

    text: str
    caption: Caption
    tokens: int
    tags: tuple[str, ...]  # those in it, by `tag_key`
    dropped: list[Dropped] = field(default_factory=list)


def compose(
    rules: TextRules,
    content: str,
    facts: Mapping[str, Any],
    tags: Sequence[str],
    earlier: str | None = None,
) -> Composed:
    """Put a caption together.

    Args:
        content: sha256 of the picture, which draws depend on.
        facts: {field: the value that counts}.
        tags: those that pruning left, by `tag_key`.
        earlier: the caption that stood there, whose order `sort = original` keeps.
    """
    ranked = rank(tags, facts.get("tags") or {})
    dropped = [Dropped(tag, OVER_TAGS) for tag in ranked[rules.max_tags :]] if rules.max_tags else []
    ranked = ranked[: rules.max_tags] if rules.max_tags else ranked
    composed = _fill(rules, content, facts, ranked, earlier)
    while composed.tokens > rules.max_tokens > 0 and composed.tags:
        at = _first_over(rules, ranked, composed.tokens - rules.max_tokens)
        dropped += [Dropped(tag, OVER_TOKENS) for tag in reversed(ranked[at:])]
        ranked = ranked[:at]
        composed = _fill(rules, content, facts, ranked, earlier)
    composed.dropped += dropped
    return composed


def _first_over(rules: TextRules, ranked: Sequence[str], over_tokens: int) -> int:
    """How many of the surest tags stay, when so many tokens must go; at least one tag goes."""
    sign = rules.separator.strip()
    at = len(ranked)
    while at and over_tokens > 0:
        at -= 1
        over_tokens -= count_tokens(f"{tag_text(ranked[at])}{sign}")
    return at


def rank(tags: Sequence[str], scores: Mapping[str, float | None]) -> list[str]:
    """Tags by weight: how many people first, then by probability; what a person said is certain."""
    by_key = {tag_key(tag): 1.0 if score is None else score for tag, score in scores.items()}
    weights = [(_people_weight(tag), -by_key.get(tag, 1.0), tag) for tag in tags]
    weights.sort()
    return [tag for _, _, tag in weights]


@lru_cache(KNOWN_TAGS)
def _people_weight(tag: str) -> int:
    """0 for solo, 1 for a number of people, 2 for everything else."""
    return 0 if tag == "solo" else 1 if _PEOPLE.fullmatch(tag) else 2


def _fill(
    rules: TextRules, content: str, facts: Mapping[str, Any], ranked: Sequence[str], earlier: str | None
) -> Composed:
    ordered = _ordered(rules, content, ranked, earlier)
    if rules.template:
        return _fill_template(rules, facts, ordered)
    seen: dict[str, None] = {}
    dropped: list[Dropped] = []
    fixed = _add_parts(rules, seen, rules.trigger_words)
    flexible: list[str] = []
    target = fixed
    used_tags: list[str] = []
    for name in rules.order:
        if name == rules.keep_before:
            target = flexible
        if not _is_drawn(rules, content, name):
            continue
        if name == "tags":
            dropped += [Dropped(tag, SAID) for tag in ordered if tag in seen]
            used_tags = [tag for tag in ordered if tag not in seen]
        parts = map(tag_text, used_tags) if name == "tags" else field_parts(rules, name, facts.get(name))
        target += _add_parts(rules, seen, parts)
    caption = Caption(tuple(fixed), tuple(flexible))
    text = caption.text(rules.separator, rules.keep_separator)
    return Composed(text, caption, count_tokens(text), tuple(used_tags), dropped)


def _add_parts(rules: TextRules, seen: dict[str, None], parts: Any) -> list[str]:
    """Parts that do not stand there already, none of which can be taken for two."""
    added = []
    for part in parts:
        clean = without_separators(part, rules.separator, rules.keep_separator)
        key = tag_key(clean)
        if clean and key not in seen:
            seen[key] = None
            added.append(clean)
    return added


def _ordered(rules: TextRules, content: str, ranked: Sequence[str], earlier: str | None) -> list[str]:
    """Tags in the order of the caption; how many people there are stays first, unless as they stood."""
    if rules.sort == "shuffle":
        people = [tag for tag in ranked if _people_weight(tag) < 2]
        others = sorted(set(ranked) - set(people))
        random.Random(f"{rules.seed}:{content}:tags").shuffle(others)  # noqa: S311 - a draw, no secret
        return people + others
    if rules.sort == "original" and earlier:
        stood = {tag_key(part): at for at, part in enumerate(parts_of(earlier, rules.separator))}
        return sorted(ranked, key=lambda tag: stood.get(tag, len(stood)))
    return list(ranked)


def _is_drawn(rules: TextRules, content: str, name: str) -> bool:
    """Whether a field is in this picture's caption."""
    probability = rules.probabilities.get(name, 1.0)
    if probability >= 1 or probability <= 0:
        return probability >= 1
    drawn = hashlib.blake2b(f"{rules.seed}:{content}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") / 2**64 < probability


# Fields


def field_parts(rules: TextRules, name: str, value: Any) -> list[str]:
    """The parts of a caption that a fact becomes; none where it is not known."""
    if value in (None, "", [], {}):
        return []
    return _FIELD_PARTS[name](rules, value)


def character_text(rules: TextRules, name: str) -> list[str]:
    """What captions call a character."""
    known = rules.characters.get(name)
    if known is not None and known.settings.caption:
        return [known.settings.caption]
    return caption_parts(name, rules.character_separator)


def _people_text(rules: TextRules, value: Any) -> list[str]:
    if not value:
        return []
    return ["1person" if value == 1 else f"{value}{'+' if value >= MANY_PEOPLE else ''}people"]


def _characters_text(rules: TextRules, value: Any) -> list[str]:
    return [part for name in value if name not in _NOBODY for part in character_text(rules, name)]


def _names(value: Any) -> list[str]:
    return [tag_text(name) for name in value if name not in _NOBODY]


def _rating_text(rules: TextRules, value: Any) -> list[str]:
    return [value] if value in rules.ratings else []


def _crop_text(rules: TextRules, value: Any) -> list[str]:
    return [f"{value['type']} cropped"] if isinstance(value, Mapping) and value.get("type") else []


_FIELD_PARTS: dict[str, Callable[[TextRules, Any], list[str]]] = {
    "num_people": _people_text,
    "characters": _characters_text,
    "copyright": lambda rules, value: [f"from {name}" for name in _names(value)],
    "image_type": lambda rules, value: [tag_text(value)],
    "artist": lambda rules, value: [f"by {name}" for name in _names(value)],
    "rating": _rating_text,
    "crop": _crop_text,
    "meta_tags": lambda rules, value: [tag_text(tag) for tag in rank(list(value), value)],
    "description": lambda rules, value: [value],
}


# Templates


def check_template(template: str) -> None:
    """Refuse a template that no caption can be made of.

    Raises:
        SettingsError: an unknown field, a brace or bracket without its other half, or no field at all.
    """
    names = _TEMPLATE_FIELD.findall(template)
    for name in names:
        if name not in FIELDS:
            raise unknown_name("field", name, FIELDS, f'the template "{template}"')
    rest = _TEMPLATE_FIELD.sub("", template)
    signs = "".join(sign for sign in rest if sign in "{}[]")
    if not names or signs.replace("[]", ""):
        hint = 'such as "{characters}[ from {copyright}], {tags}": what is in [ ] goes when a field is empty'
        raise SettingsError(
            f'the template "{template}" has a bracket too many, or no field in braces', hint=hint
        )


def _fill_template(rules: TextRules, facts: Mapping[str, Any], ordered: Sequence[str]) -> Composed:
    """A template with its fields; a `[...]` goes when a field in it is empty. Trigger words stand first."""
    values: dict[str, str] = {name: _spoken(rules, name, facts.get(name)) for name in FIELDS}
    values["tags"] = rules.separator.join(map(tag_text, ordered))

    def optional(match: re.Match[str]) -> str:
        inner = match[1]
        return inner if all(values[name] for name in _TEMPLATE_FIELD.findall(inner)) else ""

    text = re.sub(r"\[([^\[\]]*)\]", optional, rules.template)
    text = " ".join(_TEMPLATE_FIELD.sub(lambda match: values[match[1]], text).split())
    text = text.strip(f" {rules.separator}")
    caption = Caption(rules.trigger_words, (text,) if text else ())
    text = caption.text(rules.separator, rules.keep_separator)
    return Composed(text, caption, count_tokens(text), tuple(ordered) if "{tags}" in rules.template else ())


def _spoken(rules: TextRules, name: str, value: Any) -> str:
    """A fact as a sentence says it: `sabine, mireth and kaorin`."""
    if value in (None, "", [], {}) or name == "tags":
        return ""
    if name in ("copyright", "artist"):
        words = _names(value)
    elif name == "characters":
        words = [" ".join(character_text(rules, one)) for one in value if one not in _NOBODY]
    elif name == "num_people":
        return "one person" if value == 1 else f"{value}{'+' if value >= MANY_PEOPLE else ''} people"
    else:
        return rules.separator.join(field_parts(rules, name, value))
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1] if words else "")))
