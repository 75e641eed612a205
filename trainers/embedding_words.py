"""Words of captions that an embedding stands for, found before the text is cut into tokens.

A name is found as a whole word, whatever its case: `mireth` in "mireth, smile" and "(mireth:1.2)", not in
"mirethian" and not in "mireth_armoured". An underscore of a name may be a space in the text, as tags are
written, and brackets may be escaped, as in prompts of UIs. Of two names that begin at one place the longer
one is meant.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_GAP = re.compile(r"[_\s]+")


@dataclass(frozen=True, slots=True)
class Words:
    """Names and the token ids that stand for them.

    Args:
        names: in the order of the groups of `pattern`.
        ids: of each name, one a vector.
    """

    names: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, ids: Mapping[str, tuple[int, ...]]) -> "Words":
        """Of {name: token ids}; at least one name."""
        names = tuple(sorted(ids, key=lambda name: (-len(name), name)))
        found = "|".join(f"({_spellings(name)})" for name in names)
        pattern = re.compile(rf"(?<!\w)(?:{found})(?!\w)", re.IGNORECASE)
        return cls(names, tuple(ids[name] for name in names), pattern)

    def pieces(self, text: str) -> list[str | tuple[int, ...]]:
        """A text as what is to be made tokens of, and the ids of names between."""
        text = unicodedata.normalize("NFC", text)
        found: list[str | tuple[int, ...]] = []
        end = 0
        for match in self.pattern.finditer(text):
            assert match.lastindex is not None
            found += [text[end : match.start()], self.ids[match.lastindex - 1]]
            end = match.end()
        return [*found, text[end:]]

    def names_in(self, text: str) -> Iterator[str]:
        """The names that stand in a text, each as often as it does."""
        for match in self.pattern.finditer(unicodedata.normalize("NFC", text)):
            assert match.lastindex is not None
            yield self.names[match.lastindex - 1]


def spelling_key(name: str) -> str:
    """Names with one key cannot be told apart in a text."""
    return _GAP.sub("_", unicodedata.normalize("NFC", name).casefold())


def _spellings(name: str) -> str:
    parts = (_escaped(part) for part in _GAP.split(unicodedata.normalize("NFC", name)))
    return r"(?:_|\s+)".join(parts)


def _escaped(text: str) -> str:
    return "".join(rf"\\?{re.escape(sign)}" if sign in "()" else re.escape(sign) for sign in text)
