"""Trees of pictures and captions for tests, drawn from a few words; and trainers' rules of reading them,
stated a second time from their descriptions, without a line of ours.
"""

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictures import saved
from PIL import Image

if TYPE_CHECKING:
    from conftest import Celforge  # tests/trainers has a conftest of its own, of the same name

Content = tuple[int, int] | bytes | str | None
Found = list[tuple[str, str]]

PIC = (512, 512)
EVERYDREAM: dict[str, Content] = {
    "mai/m1.png": PIC,
    "mai/m1.txt": "mai, smile",
    "mai/m2.png": PIC,
    "mai/m2.txt": "mai, hat",
    "mai/multiply.txt": "2.5",
    "aoba/deep/a1.png": PIC,
    "aoba/deep/a1.txt": "aoba",
}
KOHYA: dict[str, Content] = {
    "3_mai/m1.png": PIC,
    "3_mai/m1.caption": "mai, smile",
    "3_mai/m2.png": PIC,
    "3_mai/m2.caption": "mai, hat",
    "1_aoba/a1.png": PIC,
    "1_aoba/a1.caption": "aoba",
}


@cache
def picture(width: int, height: int, seed: int) -> bytes:
    """A flat picture; its colour is its seed."""
    return saved(Image.new("RGB", (width, height), (seed % 251, seed // 251 % 251, 7)), "PNG")


def plant(root: Path, files: Mapping[str, Content]) -> Path:
    """Make a tree: (width, height) a picture of its own, a text or bytes as they are, None an empty folder."""
    for number, (name, content) in enumerate(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        elif isinstance(content, tuple):
            path.write_bytes(picture(*content, number))
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


class Checker:
    """Plants trees, checks them, and gives what was found."""

    def __init__(self, celforge: "Celforge", folder: Path) -> None:
        self.folder = folder
        self._celforge = celforge

    def __call__(self, files: Mapping[str, Content], *flags: object) -> Any:
        """The whole JSON answer; files are added to those planted before."""
        plant(self.folder, files)
        answer = self._celforge("check", self.folder, "--json", *flags)
        assert answer.stdout, answer.stderr
        assert answer.exit_code == answer.json["exit_code"]
        return answer.json

    def everydream(self, added: Mapping[str, Content], *flags: object) -> Found:
        """(trap, path) in an EveryDream tree that is clean but for what is added."""
        return found(self({**EVERYDREAM, **added}, *flags))

    def kohya(self, added: Mapping[str, Content], *flags: object) -> Found:
        """(trap, path) in a tree of kohya's that is clean but for what is added."""
        return found(self({**KOHYA, **added}, *flags))


def found(answer: Any) -> Found:
    """(trap, path) of every finding."""
    return [(one["trap"], one["path"]) for one in answer["findings"]]


def detail(answer: Any, trap: str) -> str:
    """The detail of the one finding of a trap."""
    (one,) = (one for one in answer["findings"] if one["trap"] == trap)
    return str(one["detail"])


def bytes_below(root: Path) -> dict[str, bytes]:
    """Every file but celforge's own, by its path."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".celforge" not in path.parts
    }


# kohya-ss/sd-scripts, DreamBooth folders

KOHYA_EXTENSIONS = [
    extension for small in (".png", ".jpg", ".jpeg", ".webp", ".bmp") for extension in (small, small.upper())
]


def kohya_reads(train_data_dir: Path, caption_extension: str) -> Iterator[tuple[str, int, str | None]]:
    """(picture, repeats, caption file or None) for everything that kohya trains on."""
    for child in os.listdir(train_data_dir):
        if not os.path.isdir(train_data_dir / child):
            continue
        tokens = child.split("_")
        try:
            repeats = int(tokens[0])
        except ValueError:
            continue
        if repeats < 1:
            continue
        for name in os.listdir(train_data_dir / child):
            base, extension = os.path.splitext(name)
            if extension in KOHYA_EXTENSIONS and not name.startswith("."):
                caption = f"{child}/{base}{caption_extension}"
                yield f"{child}/{name}", repeats, caption if (train_data_dir / caption).exists() else None


# EveryDream2trainer, any tree


def everydream_reads(folder: Path, below: str = "") -> Iterator[tuple[str, float, str | None]]:
    """(picture, multiply, caption file or None) for everything that EveryDream2 trains on."""
    try:
        multiply = float((folder / "multiply.txt").read_text(encoding="utf-8").strip()) or 1.0
    except (OSError, ValueError):
        multiply = 1.0
    for name in os.listdir(folder):
        if name.startswith("."):
            continue
        if (folder / name).is_dir():
            yield from everydream_reads(folder / name, f"{below}{name}/")
            continue
        base, extension = os.path.splitext(name)
        if extension.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".jfif"):
            captions = [base + one for one in (".txt", ".caption", ".yml", ".yaml")]
            found = next((f"{below}{one}" for one in captions if (folder / one).exists()), None)
            yield f"{below}{name}", multiply, found
