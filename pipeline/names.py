"""Names of files and folders: how they sort, when two are one, and what every disk takes."""

import hashlib
import re
import sys
import unicodedata
from functools import cache

# In lower case: what NAS boxes, archives and Explorer leave behind.
IGNORED_FOLDERS = frozenset({"@eadir", "__macosx"})
IGNORED_FILES = frozenset({"thumbs.db", "desktop.ini"})

MAX_NAME_UNITS = 255  # bytes of UTF-8 on Linux, units of UTF-16 on Windows and macOS

MAX_PATH_UNITS = 259  # of UTF-16: what Windows takes unless long paths are switched on

_RESERVED_NAMES = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
    | {f"{port}{number}" for port in ("COM", "LPT") for number in "123456789¹²³"}
)
_RESERVED_CHARACTERS = frozenset('<>:"/\\|?*')
_IS_RESERVED = re.compile(f"[{re.escape(''.join(_RESERVED_CHARACTERS))}]").search
_NUMBER = re.compile(r"([0-9]+)")
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,5}")


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that counts: `ep2` before `ep10`, folders before what is in them, letter case last."""
    parts = _NUMBER.split(text.replace("\\", "/").replace("/", "\0"))
    key: list[tuple[int, int, str]] = []
    for index, part in enumerate(parts):
        if index % 2:
            digits = part.lstrip("0")
            key.append((0, len(digits), digits))
        elif part:
            key.append((1, 0, part.casefold()))
    return (*key, (-1, 0, text))


def path_key(text: str) -> str:
    """Two paths with one key are one file on Windows or macOS: Unicode form C and letter case folded."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())  # Unicode, D145


def name_problem(name: str) -> str | None:
    """Say why a name of one file or folder does not work on Windows or Linux; None where it works on both."""
    if not name:
        return "is empty"
    if name in (".", ".."):
        return "means a folder itself"
    if _IS_RESERVED(name):
        bad = sorted(_RESERVED_CHARACTERS.intersection(name))
        return f"holds {' '.join(bad)}, which Windows does not allow"
    if not name.isprintable() and any(_is_control(character) for character in name):
        return "holds a control character or is not valid Unicode"
    if name[-1] in ". ":
        return "ends in a dot or a space, which Windows drops"
    if name.partition(".")[0].rstrip(" ").upper() in _RESERVED_NAMES:
        return "is a device name on Windows"
    if len(name.encode("utf-8")) > MAX_NAME_UNITS:  # never fewer than units of UTF-16
        return f"is longer than {MAX_NAME_UNITS} bytes"
    return None


@cache
def takes_long_paths() -> bool:
    """Whether paths may be longer than MAX_PATH_UNITS: on Windows where that is switched on, else always."""
    if sys.platform != "win32":
        return True
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
            return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])
    except OSError:
        return False


def path_problem(path: str) -> str | None:
    """Say why this machine does not take a path; None where it does."""
    if takes_long_paths():
        return None
    units = len(path.encode("utf-16-le", "surrogatepass")) // 2
    if units <= MAX_PATH_UNITS:
        return None
    return f"has {units:,} characters, and Windows takes {MAX_PATH_UNITS} here; see celforge doctor"


def safe_name(text: str, *, max_bytes: int = 200) -> str:
    """Turn any text into a name that works on Windows and Linux; the same text always gives the same name.

    A text that works stays as it is (in Unicode form C). One that had to be changed or cut gets eight digits
    of its hash before its extension, so that two different texts never become one name.

    Args:
        max_bytes: longest result in UTF-8, 24 to 255; leave room for an extension that is added later.
    """
    if not 24 <= max_bytes <= MAX_NAME_UNITS:
        raise ValueError(f"max_bytes must lie in 24 to {MAX_NAME_UNITS}, got {max_bytes}")
    wanted = unicodedata.normalize("NFC", text)
    if name_problem(wanted) is None and len(wanted.encode("utf-8")) <= max_bytes:
        return wanted
    digest = hashlib.sha256(wanted.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    stem = "".join("_" if c in _RESERVED_CHARACTERS or _is_control(c) else c for c in wanted).rstrip(". ")
    stem, extension = _split_extension(stem)
    stem = cut_name(stem, max_bytes - len(digest) - 2 - len(extension)).rstrip(". ")
    if stem.split(".")[0].rstrip(" ").upper() in _RESERVED_NAMES:
        stem = f"_{stem}"
    return f"{stem}-{digest}{extension}" if stem else f"{digest}{extension}"


def is_ignored_name(name: str) -> bool:
    """Say whether a file or folder is never part of a data set: hidden, or left by other software."""
    lowered = name.lower()
    return name.startswith(".") or lowered in IGNORED_FOLDERS or lowered in IGNORED_FILES


def is_utf8(name: str) -> bool:
    """Say whether a name is text; Linux allows any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def cut_name(text: str, max_bytes: int) -> str:
    """Shorten to a number of UTF-8 bytes without parting a letter from its accents."""
    if len(text.encode("utf-8", "surrogatepass")) <= max_bytes:
        return text
    end = size = 0
    for index, character in enumerate(text):
        if not unicodedata.combining(character):
            end = index
        size += len(character.encode("utf-8", "surrogatepass"))
        if size > max_bytes:
            break
    return text[:end]


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _split_extension(name: str) -> tuple[str, str]:
    stem, dot, extension = name.rpartition(".")
    if stem and _EXTENSION.fullmatch(dot + extension):
        return stem, dot + extension
    return name, ""
