"""How the caption of a picture is varied from visit to visit: by kohya's rules, or by EveryDream2's.

kohya, in this order: the whole caption may be dropped (it is then empty, for guidance without a condition);
one line of several is drawn; prefix and suffix are joined on with a space (kohya joins them before, so that
they fall away with their line); one of `{a|b}` is drawn; the parts between commas fall into fixed ones,
flexible ones and a fixed end; the flexible ones are shuffled and dropped one by one; the secondary separator
becomes a comma, so that `long hair;;;blue eyes` moves as one. With a keep separator, `sabine ||| 1girl, smile
||| best`, the parts before its first and after its second occurrence are fixed; without one the first
`keep_tokens` are. The separator itself is never trained on, even where nothing is shuffled (kohya leaves it
in the text then).

EveryDream2: the first part is the main prompt, which stays in front; the others are tags. With weights, tags
are drawn without replacement in proportion to them, until the caption is as long as its most.

Ours: one of several captions is drawn (caption_variants.py), and classes of flexible tags are left out
together, last of all.

Every draw is a function of (seed, content of the picture, visit). Sources: kohya-ss/sd-scripts
`BaseDataset.process_caption`, victorchall/EveryDream2trainer `data/image_train_item.py`, as behaviour.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from trainers import draws
from trainers.caption_variants import TagClass, Variant, drawn

JOIN = ", "
_CHOICE = re.compile(r"\{([^{}]+)\}")
_OPEN, _CLOSE = "\ue000", "\ue001"  # stand for {{ and }} while choices are drawn

Origin = Literal["file", "name", "class", "none"]


@dataclass(frozen=True, slots=True)
class CaptionRules:
    """What a folder's captions go through; one object for all its pictures.

    Args:
        separator: between parts, as it stands in the files.
        shuffle: the flexible parts, at every visit.
        keep_tokens: parts that stay in front where no keep separator stands in the text.
        tag_dropout: chance of each flexible part to be left out.
        wildcards: draw one of several lines, and one of `{a|b}`; without it the first line is taken.
        classes: of flexible tags that are left out together.
        variants: (suffix, weight) of caption files of which one is drawn; empty for the usual one.
        lines: each line of a file is a caption of its own.
    """

    separator: str = ","
    prefix: str = ""
    suffix: str = ""
    shuffle: bool = False
    keep_tokens: int = 0
    keep_tokens_separator: str = ""
    secondary_separator: str = ""
    tag_dropout: float = 0.0
    wildcards: bool = False
    classes: tuple[TagClass, ...] = ()
    variants: tuple[tuple[str, float], ...] = ()
    lines: bool = False

    @property
    def vary(self) -> bool:
        """Whether a caption is hardly ever the same twice."""
        return self.shuffle or self.tag_dropout > 0 or self.wildcards or bool(self.classes)


@dataclass(frozen=True, slots=True)
class CaptionSource:
    """A caption as it was read, before any draw.

    Args:
        text: with all its lines where wildcards are drawn from them.
        weights: of the flexible parts, where EveryDream's yaml file gives them; else empty.
        max_characters: of a caption drawn by weights; 0 without them.
        origin: where the text is from; "none" is an empty caption.
        variants: captions of which one is drawn at every visit, the text among them; empty for one alone.
    """

    text: str
    rules: CaptionRules
    weights: tuple[float, ...] = ()
    max_characters: int = 0
    origin: Origin = "file"
    variants: tuple[Variant, ...] = ()


class Captioned(Protocol):
    """What is asked of a picture here."""

    @property
    def content(self) -> str:
        """Hash of the picture."""

    @property
    def caption(self) -> CaptionSource:
        """As it was read."""

    @property
    def conditional_dropout(self) -> float:
        """Chance of an empty caption."""

    @property
    def flip_p(self) -> float:
        """Chance of being mirrored."""


def draw_caption(example: Captioned, visit: int, *, seed: int) -> str:
    """The caption that a picture is shown with at its `visit`-th visit; empty where it is dropped."""
    if example.conditional_dropout > 0:
        chance = draws.stream("conditional dropout", seed, example.content, visit).random()
        if chance < example.conditional_dropout:
            return ""
    source = example.caption
    if source.variants:
        place = draws.stream("caption variant", seed, example.content, visit).random()
        source = replace(source, text=drawn(source.variants, place))
    return vary(source, draws.stream("caption", seed, example.content, visit))


def draw_flip(example: Captioned, visit: int, *, seed: int) -> bool:
    """Whether a picture is mirrored at its `visit`-th visit."""
    if example.flip_p <= 0:
        return False
    return draws.stream("flip", seed, example.content, visit).random() < example.flip_p


def plain_caption(source: CaptionSource) -> str:
    """The whole caption: nothing dropped, nothing shuffled, the first of every choice."""
    return vary(source, None)


def plain_captions(source: CaptionSource) -> list[str]:
    """The whole caption of every variant."""
    texts = [text for _, text in source.variants] or [source.text]
    return [plain_caption(replace(source, text=text)) for text in texts]


def vary(source: CaptionSource, stream: random.Random | None) -> str:
    """A caption with everything drawn but conditional dropout; without a stream nothing is drawn."""
    rules = source.rules
    line = _one_line(source.text, stream) if rules.wildcards else source.text.partition("\n")[0]
    text = " ".join(part for part in (rules.prefix, line.strip(), rules.suffix) if part)
    text = _choose(text, stream) if rules.wildcards else text
    keep = rules.keep_tokens_separator
    is_varied = stream is not None and (rules.shuffle or rules.tag_dropout > 0 or bool(rules.classes))
    if is_varied or (keep and keep in text):
        fixed, flexible, end = split_parts(text, rules)
        if stream is not None and is_varied:
            flexible = _vary_parts(flexible, source, len(JOIN.join(fixed)), stream)
        text = JOIN.join(fixed + flexible + end)
    return text.replace(rules.secondary_separator, rules.separator) if rules.secondary_separator else text


def _vary_parts(parts: list[str], source: CaptionSource, used: int, stream: random.Random) -> list[str]:
    """The flexible parts of one visit.

    Args:
        used: characters of the fixed parts.
    """
    rules = source.rules
    if rules.shuffle and len(source.weights) == len(parts) > 0:
        parts = _weighted(parts, source.weights, source.max_characters - used, stream)
    elif rules.shuffle:
        parts = [parts[at] for at in draws.ordered(len(parts), stream)]
    parts = [part for part in parts if rules.tag_dropout <= 0 or stream.random() >= rules.tag_dropout]
    gone = [one for one in rules.classes if stream.random() < one.chance]
    return [left for part in parts if (left := _without(part, gone, rules))] if gone else parts


def _without(part: str, gone: Sequence[TagClass], rules: CaptionRules) -> str:
    """A part without the tags of some classes, one by one where several move as one."""
    sign = rules.secondary_separator
    tags = part.split(sign) if sign else [part]
    return sign.join(tag for tag in tags if not any(one.holds(tag) for one in gone))


def split_parts(text: str, rules: CaptionRules) -> tuple[list[str], list[str], list[str]]:
    """The fixed parts, the flexible ones and the fixed end of a caption, trimmed, without empty ones."""
    keep = rules.keep_tokens_separator
    if keep and keep in text:
        front, _, rest = text.partition(keep)
        middle, _, end = rest.partition(keep)
        fixed, flexible, last = (_parts(half, rules.separator) for half in (front, middle, end))
        return fixed, flexible, last
    parts = _parts(text, rules.separator)
    return parts[: rules.keep_tokens], parts[rules.keep_tokens :], []


def _parts(text: str, separator: str) -> list[str]:
    return [part for piece in text.split(separator) if (part := piece.strip())]


def _one_line(text: str, stream: random.Random | None) -> str:
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    return lines[_index(len(lines), stream)]


def _choose(text: str, stream: random.Random | None) -> str:
    """One of each `{a|b}`; `{{` and `}}` are the signs themselves."""

    def one_of(match: "re.Match[str]") -> str:
        choices = match[1].split("|")
        return choices[_index(len(choices), stream)]

    text = text.replace("{{", _OPEN).replace("}}", _CLOSE)
    return _CHOICE.sub(one_of, text).replace(_OPEN, "{").replace(_CLOSE, "}")


def _index(count: int, stream: random.Random | None) -> int:
    return 0 if stream is None else min(int(stream.random() * count), count - 1)


def _weighted(parts: list[str], weights: tuple[float, ...], room: int, stream: random.Random) -> list[str]:
    """Parts drawn without replacement in proportion to their weights, while they fit into `room` characters.

    Drawing the largest of u ** (1 / weight) is the same law (Efraimidis and Spirakis 2006, A-ES).
    """
    keys = [stream.random() ** (1 / weight) if weight > 0 else -1.0 for weight in weights]
    drawn: list[str] = []
    for at in sorted(range(len(parts)), key=keys.__getitem__, reverse=True):
        room -= len(JOIN) + len(parts[at])
        if room < 0 or keys[at] < 0:
            break
        drawn.append(parts[at])
    return drawn
