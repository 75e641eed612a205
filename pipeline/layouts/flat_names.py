"""Names of flat folders: `2_1_character~Asuka` made from repeats and a path below the tree, and read back.

The parts of a path are joined by a separator. What would make the way back ambiguous, and what Windows
refuses, is written as in web addresses: `%7E` for `~`. A name that needs none of that is the one that
flatten_folder always gave. Names that differ in letter case or accents only get their first letter written
that way, so that they stay two on every disk.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence

from pipeline.errors import SettingsError
from pipeline.names import MAX_NAME_UNITS, cut_name, name_problem, path_key

ROOT_TEXT = "_root"  # stands for pictures that lie in the tree's own folder
UNSEEN = "unseen"  # prefix of a folder that holds what gets no repeat; kohya passes it over

_LOOKS_ESCAPED = re.compile(r"%(?=[0-9A-Fa-f]{2})")
_CUT = re.compile(r"%-[0-9a-f]{8}$")
_DIGEST_CHARACTERS = 8


def check_separator(separator: str) -> None:
    """See that a separator can stand in names and be found again.

    Raises:
        SettingsError: it cannot.
    """
    problem = name_problem(f"a{separator}b") if separator else "is empty"
    if problem is None and re.search(r"[%0-9A-Fa-f]", separator):
        problem = "holds %, a digit or a letter from A to F, which the escapes of names are made of"
    if problem is None and len(separator) > 8:
        problem = "is longer than 8 characters"
    if problem:
        raise SettingsError(f'the separator "{separator}" {problem}', hint="take ~, or - or +")


def encode(parts: Sequence[str], separator: str, *, escaped: int = 0) -> str:
    """A path as one text: `1_character~Asuka`; no parts give `_root`.

    Args:
        escaped: so many characters from the left are escaped without need.
    """
    if not parts:
        return ROOT_TEXT
    texts = []
    for part in parts:
        forced, rest = part[:escaped], part[escaped:]
        escaped -= len(forced)
        texts.append("".join(map(_escape, forced)) + _encode_part(rest, separator))
    text = separator.join(_without_overlap(text, separator) for text in texts[:-1])
    text = f"{text}{separator}{texts[-1]}" if len(texts) > 1 else texts[-1]
    if text == ROOT_TEXT:
        return _escape("_") + text[1:]
    return text[:-1] + _escape(text[-1]) if text and text[-1] in ". " else text


def decode(text: str, separator: str) -> tuple[str, ...] | None:
    """The path that `encode` made a text from; None when the text cannot be one, or was cut.

    A text that `encode` never makes is taken as it stands: kohya trees of others hold `100%`, and no escapes.
    """
    if _CUT.search(text):
        return None
    if text == ROOT_TEXT:
        return ()
    literal = tuple(text.split(separator))
    parts = tuple(_unescape(part) for part in literal)
    if encode(parts, separator) != text:
        parts = literal
    is_path = all(part not in ("", ".", "..") and "/" not in part and "\0" not in part for part in parts)
    return parts if is_path else None


def split_prefix(name: str) -> tuple[int, str] | None:
    """Number and rest of a folder's name as kohya reads it: `int()` of what stands before the first `_`.

    None: kohya passes the folder over with a warning. A number below 1: without one.
    """
    number, _, rest = name.partition("_")
    try:
        return int(number), rest
    except ValueError:
        return None


class FlatNames:
    """Gives every (repeats, path) a name of its own, on every disk.

    Args:
        taken: names that stand beside them and stay.
    """

    def __init__(self, separator: str, taken: Iterable[str] = ()) -> None:
        self._separator = separator
        self._taken = {path_key(name) for name in taken}

    def add(self, repeats: int, parts: Sequence[str]) -> str:
        """The name; 0 repeats give `unseen_...`."""
        prefix = f"{repeats}_" if repeats else f"{UNSEEN}_"
        for count in range(sum(map(len, parts)) + 1):
            name = _cut(prefix, encode(parts, self._separator, escaped=count), parts)
            if path_key(name) not in self._taken:
                break
        else:
            name = _cut(prefix, encode(parts, self._separator), parts, is_forced=True)
        self._taken.add(path_key(name))
        return name


def _encode_part(part: str, separator: str) -> str:
    text = _LOOKS_ESCAPED.sub("%25", part)
    text = "".join(_escape(c) if name_problem(f"a{c}a") else c for c in text) if name_problem(part) else text
    while separator in text:
        text = text.replace(separator, _escape(separator[0]) + separator[1:])
    return text


def _without_overlap(text: str, separator: str) -> str:
    """Escape last characters that would make the separator begin too early: `a_` before `__`."""
    while 0 <= (text + separator).find(separator) < len(text):
        text = text[:-1] + _escape(text[-1])
    return text


def _cut(prefix: str, text: str, parts: Sequence[str], *, is_forced: bool = False) -> str:
    """A name of at most 255 bytes; one that had to be cut ends in eight digits of its path's hash."""
    name = prefix + text
    if not is_forced and name_problem(name) is None:
        return name
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
    kept = cut_name(name, MAX_NAME_UNITS - _DIGEST_CHARACTERS - 2)
    return f"{re.sub('%[0-9A-F]?$', '', kept)}%-{digest[:_DIGEST_CHARACTERS]}"


def _escape(character: str) -> str:
    try:
        data = character.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, from Windows
        data = character.encode("utf-8", "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in data)


def _unescape(text: str) -> str:
    if "%" not in text:
        return text
    data = text.encode("utf-8", "surrogatepass")
    found = re.sub(rb"%([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), data)
    return found.decode("utf-8", "surrogateescape")
