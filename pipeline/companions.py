"""Files that belong to a picture because they lie beside it and carry its name: captions, tags, metadata of
other tools, latents, masks. What happens to the picture happens to them.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pipeline.media_names import IMAGE_SUFFIXES, kind_of

CAPTION_SUFFIXES = (".txt", ".caption")
MASK_ENDINGS = ("-masklabel", "-condlabel", ".mask")  # pictures that describe another one

_HIDDEN = re.compile(r"\.(?P<stem>.+)_(?:meta\.json|ccip\.npy)")
_CACHED = re.compile(
    r"(?P<stem>.+?)(?:_\d{2,5}x\d{2,5})?_[a-z0-9]+(?:_te(?:_outputs)?)?\.(?:npz|safetensors)"
)


def is_mask(name: str) -> bool:
    """Say whether a picture file is the mask of another picture, by its name."""
    stem, suffix = os.path.splitext(name)
    return suffix.lower() in IMAGE_SUFFIXES and stem.lower().endswith(MASK_ENDINGS)


class Companions:
    """Finds what belongs to pictures; every folder is listed once."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[str]]] = {}
        self._pictures: dict[Path, dict[str, list[str]]] = {}

    def of(self, picture: Path) -> list[Path]:
        """Files that belong to a picture, by name, sorted; also to others of the same stem in its folder."""
        self._list(picture.parent)
        owned = self._folders[picture.parent]
        names = {*owned.get(picture.stem, ()), *owned.get(picture.name, ())}
        return sorted(picture.with_name(name) for name in names)

    def namesakes(self, picture: Path) -> list[Path]:
        """Other pictures of the same stem in the folder, which share what belongs to it."""
        self._list(picture.parent)
        names = self._pictures[picture.parent].get(picture.stem, [])
        return [picture.with_name(name) for name in names if name != picture.name]

    def caption(self, picture: Path) -> Path | None:
        """The caption beside a picture, if there is one that is not empty."""
        found = {path.name: path for path in self.of(picture)}
        for suffix in CAPTION_SUFFIXES:
            for name in (picture.stem + suffix, picture.name + suffix):
                if name in found and found[name].stat().st_size:
                    return found[name]
        return None

    def _list(self, folder: Path) -> None:
        if folder in self._folders:
            return
        names = sorted(entry.name for entry in os.scandir(folder) if not entry.is_dir(follow_symlinks=False))
        pictures: dict[str, list[str]] = defaultdict(list)
        for name in names:
            if kind_of(name) == "image" and not is_mask(name) and not name.startswith("."):
                pictures[os.path.splitext(name)[0]].append(name)
        owned: dict[str, list[str]] = defaultdict(list)
        known = {*pictures, *(name for group in pictures.values() for name in group)}
        for name in names:
            for owner in _owners(name, known):
                owned[owner].append(name)
        self._folders[folder], self._pictures[folder] = owned, pictures


def _owners(name: str, known: Iterable[str]) -> list[str]:
    """Stems and names of pictures that a file belongs to."""
    known = known if isinstance(known, set) else set(known)
    stem, suffix = os.path.splitext(name)
    if is_mask(name):
        for ending in MASK_ENDINGS:
            if stem.lower().endswith(ending) and stem[: -len(ending)] in known:
                return [stem[: -len(ending)]]
        return []
    if kind_of(name) is not None:
        return []
    if stem in known and suffix:
        return [stem]
    for pattern in (_HIDDEN, _CACHED):
        match = pattern.fullmatch(name)
        if match and match["stem"] in known:
            return [match["stem"]]
    return []
