"""The grammar of captions and tags: what stages write beside a picture, and what trainers read.

A caption is parts apart by a separator, `sabine, 1girl, smile`. With a keep separator it falls into a fixed
half, which trainers never shuffle or drop, and a flexible one: `sabine ||| 1girl, smile` (kohya:
`keep_tokens_separator`). Tags are stored as taggers spell them, `long_hair`; in captions underscores are
spaces, except in faces such as `^_^`. Nothing is escaped: `\\(` belongs into prompts of web UIs, and a model
trained on it would learn the backslash.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

SUFFIXES = (".txt", ".caption")  # of caption files; trainers read one of them, EveryDream2 both at once
DEFAULT_SEPARATOR = ", "
KNOWN_TAGS = 1 << 16  # spellings remembered: a data set has some thousand tags, each in thousands of captions

# Every tag of Danbooru that is a face written with an underscore.
KAOMOJI = frozenset(
    {
        *("0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9", ">_o"),
        *("@_@", "^_^", "o_o", "o_x", "t_t", "u_u", "x_x", "|_|", "||_||"),
    }
)


@lru_cache(KNOWN_TAGS)
def tag_text(tag: str) -> str:
    """A tag as a caption writes it: `long_hair` becomes `long hair`, `^_^` stays."""
    return tag if tag in KAOMOJI else " ".join(tag.replace("_", " ").split())


@lru_cache(KNOWN_TAGS)
def tag_key(text: str) -> str:
    """The one spelling by which tags are compared: lower case, underscores, no backslash before brackets.

    `Long hair`, `long_hair` and `long  hair` are one tag, `^_^` and `^ ^` too.
    """
    return "_".join(text.replace("\\(", "(").replace("\\)", ")").replace("_", " ").lower().split())


def parts_of(text: str, separator: str = DEFAULT_SEPARATOR) -> list[str]:
    """The parts of a text in their order, trimmed, without empty ones; a line's end parts as well."""
    sign = separator.strip()
    lines = text.splitlines()
    return [part for line in lines for piece in line.split(sign) if (part := " ".join(piece.split()))]


@lru_cache(KNOWN_TAGS)
def without_separators(text: str, *separators: str) -> str:
    """A part that cannot be taken for two: the separators' own signs are left out."""
    for separator in separators:
        if sign := separator.strip():
            while sign in text:
                text = text.replace(sign, " ")
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption as its parts.

    Args:
        fixed: stay in front and in this order while a trainer shuffles: trigger words, characters.
        flexible: may be shuffled and dropped.
    """

    fixed: tuple[str, ...]
    flexible: tuple[str, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts in their order."""
        return self.fixed + self.flexible

    def text(self, separator: str = DEFAULT_SEPARATOR, keep_separator: str = "") -> str:
        """The line of a caption file.

        Args:
            keep_separator: stands between the halves (kohya: `keep_tokens_separator`); none when empty, and
                none where there is nothing before it.
        """
        if not keep_separator or not self.fixed:
            return separator.join(self.parts)
        halves = (separator.join(self.fixed), keep_separator, separator.join(self.flexible))
        return " ".join(halves).strip()


def parse_caption(
    text: str, separator: str = DEFAULT_SEPARATOR, keep_separator: str = "", *, keep_tokens: int = 0
) -> Caption:
    """The parts of a caption.

    Args:
        keep_tokens: how many parts are fixed where no keep separator stands in the text.
    """
    if keep_separator and keep_separator in text:
        fixed, _, rest = text.partition(keep_separator)
        flexible = parts_of(rest.replace(keep_separator, separator), separator)
        return Caption(tuple(parts_of(fixed, separator)), tuple(flexible))
    parts = tuple(parts_of(text, separator))
    return Caption(parts[:keep_tokens], parts[keep_tokens:])


def looks_like_tags(parts: Iterable[str]) -> bool:
    """Say whether a caption is a list of tags, not sentences: no part is long, and none ends in a full stop.

    Danbooru's longest common tags have five words; seven leave room for names.
    """
    found = list(parts)
    ends_as_sentence = any(part.endswith(".") and len(part) > 3 for part in found)
    return bool(found) and not ends_as_sentence and all(len(part.split()) <= 7 for part in found)
