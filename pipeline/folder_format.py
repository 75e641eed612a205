"""The folder in which a picture belongs, by what is known of it: the parts of `arrange --format`.

| part | folders |
| --- | --- |
| `n_characters` | `0_characters`, `1_character`, `2_characters`, `6+_characters` |
| `character` | `Sabine`, `Mireth+Sabine`: names sorted; rare combinations and nobody: `character_others` |
| `character_string` | the same with all that a name holds: `Sabine_short hair` of `Sabine\\|short hair` |
| `n_people`, `n_faces` | `1_person`, `2_people`, `6+_people`; `1_face`, `2_faces` |
| `fh_ratio` | height of the largest face in percent of the picture: `face_height_ratio_25-50` |
| `image_type` | `screenshots`, `booru`, ... |
| `folder` | the folders in which the picture lies now, below the project |

Facts of the folders: cyber-meow/anime_screenshot_pipeline (arrange, scripts_v1/arrange_folder).
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pipeline.errors import SettingsError
from pipeline.names import MAX_NAME_UNITS, name_problem, path_key, safe_name
from pipeline.settings import nearest

PARTS = (
    *("n_characters", "character", "character_string", "n_people", "n_faces", "fh_ratio"),
    *("image_type", "folder"),
)
OTHERS = "character_others"
MAX_LETTERS = 100  # a combination of as many letters is among the others

# What Windows refuses, and the plus that joins names: the same signs, as wide as a kanji.
_WIDE = str.maketrans({sign: chr(ord(sign) + 0xFEE0) for sign in '<>:"/\\|?*+'})
_WIDE_DOT = "\N{FULLWIDTH FULL STOP}"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a picture; None where nothing is."""

    characters: tuple[str, ...] = ()  # may hold more after a bar: name|appearance|outfit
    num_people: int | None = None
    num_faces: int | None = None
    face_height_ratio: float | None = None  # of the largest face, 0 to 1 of the picture's height
    image_type: str | None = None
    folder: str = ""  # of the picture, with forward slashes


@dataclass(frozen=True, slots=True)
class FolderFormat:
    """How a tree is built.

    Args:
        parts: folder levels, from `parse_format`.
        max_number: this many characters, people or faces, and more, share one folder.
        min_images: combinations of characters with fewer pictures are among the others.
        face_range_percent: width of the folders of `fh_ratio`.
    """

    parts: tuple[str, ...]
    max_number: int = 6
    min_images: int = 10
    face_range_percent: int = 25

    def folders(self, pictures: Sequence[Known]) -> list[str]:
        """The folder of each picture, with forward slashes; "" is the top of the tree.

        Combinations are counted over all pictures given.
        """
        counts: dict[str, Counter[str]] = {}
        for part in {"character", "character_string"}.intersection(self.parts):
            counts[part] = Counter(character_folder(one.characters, part) for one in pictures)
        memory: dict[Known, str] = {}
        for one in pictures:
            if one not in memory:
                levels = (self._level(part, one, counts) for part in self.parts)
                memory[one] = "/".join(level for level in levels if level)
        return [memory[one] for one in pictures]

    def rare_combinations(self, pictures: Sequence[Known]) -> Counter[str]:
        """Combinations with too few pictures for a folder of their own, with how many they have."""
        if not {"character", "character_string"}.intersection(self.parts):
            return Counter()
        counts = Counter(character_folder(one.characters) for one in pictures)
        return Counter(
            {name: count for name, count in counts.items() if count < self.min_images and name != OTHERS}
        )

    def _level(self, part: str, one: Known, counts: dict[str, Counter[str]]) -> str:
        match part:
            case "n_characters":
                return self._number(len(set(map(_name, one.characters))), "character", "characters")
            case "character" | "character_string":
                name = character_folder(one.characters, part)
                return name if counts[part][name] >= self.min_images else OTHERS
            case "n_people":
                return self._number(one.num_people, "person", "people")
            case "n_faces":
                return self._number(one.num_faces, "face", "faces")
            case "fh_ratio":
                return self._face_height(one)
            case "image_type":
                return folder_name(one.image_type) if one.image_type else "unknown_type"
        return "/".join(folder_name(level) for level in one.folder.split("/") if level)

    def _number(self, count: int | None, one: str, many: str) -> str:
        if count is None:
            return f"unknown_{many}"
        if count >= self.max_number:
            return f"{self.max_number}+_{many}"
        return f"{count}_{one if count == 1 else many}"

    def _face_height(self, one: Known) -> str:
        if one.face_height_ratio is None:
            return "face_height_ratio_unknown"
        percent = min(int(one.face_height_ratio * 100), 99)
        low = percent // self.face_range_percent * self.face_range_percent
        return f"face_height_ratio_{low}-{low + self.face_range_percent}"


def parse_format(text: str) -> tuple[str, ...]:
    """The levels of a tree; an empty text puts all pictures at the top.

    Raises:
        SettingsError: a level that is not known, or one level twice.
    """
    parts = tuple(part.strip() for part in text.replace("\\", "/").split("/") if part.strip())
    for part in parts:
        if part not in PARTS:
            near = nearest(part, PARTS)
            hint = f'did you mean "{near}"?' if near else f"known: {', '.join(PARTS)}"
            raise SettingsError(f'unknown level "{part}" in the format "{text}"', hint=hint)
        if parts.count(part) > 1:
            raise SettingsError(f'the format "{text}" holds {part} twice', hint="leave one out")
    return parts


@lru_cache(maxsize=100_000)
def character_folder(characters: tuple[str, ...], part: str = "character") -> str:
    """The folder that names characters: sorted, each once, joined by `+`; `character_others` for nobody, and
    where the name would be too long for every disk.

    Args:
        part: `character_string` keeps what stands after the bars of a name.
    """
    names = map(_name, characters) if part == "character" else (one.replace("|", "_") for one in characters)
    wanted = {_wide(name) for name in names if name.strip(" _")}
    joined = "+".join(sorted(folder_name(name) for name in wanted))
    is_cut = any(len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_UNITS for name in wanted)
    return joined if 0 < len(joined) < MAX_LETTERS and not is_cut and name_problem(joined) is None else OTHERS


def folder_name(text: str) -> str:
    """Any text as a folder name that reads back: signs that Windows refuses become their wide forms (Unicode
    form KC turns them back), and so do a plus and the dot of a name that would be hidden.
    """
    name = _wide(text)
    return safe_name(name, max_bytes=MAX_NAME_UNITS) if name else "unknown"


def _wide(text: str) -> str:
    name = unicodedata.normalize("NFC", text).translate(_WIDE).strip()
    if name.startswith("."):
        name = _WIDE_DOT + name[1:]
    return name[:-1] + _WIDE_DOT if name.endswith(".") else name


def one_spelling(folders: Sequence[str], present: Sequence[str] = ()) -> dict[str, str]:
    """One spelling for folders that differ in letter case or Unicode form only, which Windows takes for one.

    Args:
        folders: wanted, one for each picture: the spelling with more pictures wins.
        present: folders that exist, whose spelling always wins.

    Returns: {folder: its spelling}.
    """
    best: dict[str, str] = {}
    for folder in present:
        for level in _levels(folder):
            best.setdefault(path_key(level), level.rpartition("/")[2])
    counts: Counter[str] = Counter()
    for folder, count in Counter(folders).items():
        for level in _levels(folder):
            counts[level] += count
    for level, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        best.setdefault(path_key(level), level.rpartition("/")[2])
    return {
        folder: "/".join(best[path_key(level)] for level in _levels(folder))
        for folder in dict.fromkeys(folders)
    }


def _levels(folder: str) -> list[str]:
    parts = folder.split("/") if folder else []
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def _name(character: str) -> str:
    return character.partition("|")[0].strip()
