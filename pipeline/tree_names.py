"""Names of pictures in a tree that gathers several folders, and the files that belong to a picture.

Trainers find a caption by the stem of its picture: in one folder of a tree no stem may come twice.
"""

import os.path
from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256

from pipeline.layouts.everydream import FOLDER_FILES, sidecar_owner
from pipeline.media_names import kind_of
from pipeline.names import path_key, safe_name

MAX_NAME_BYTES = 200  # room for the endings of sidecars

MASK_ENDING = "-masklabel.png"


def distinct_names(relatives: Sequence[str]) -> list[str]:
    """A file name for each path, so that no two have one stem: `0001.png` where no other picture is called
    so, else with as many folders before it as it takes, `ep02_0001.png`.

    Args:
        relatives: with forward slashes, each once.

    Returns: names that every disk takes; the same paths always give the same names.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    waiting = list(relatives)
    for depth in range(1, max((path.count("/") for path in relatives), default=0) + 2):
        candidates = {path: _joined(path, depth) for path in waiting}
        stems: dict[str, list[str]] = {}
        for path, name in candidates.items():
            stems.setdefault(stem_key(name), []).append(path)
        for key, paths in stems.items():
            if len(paths) == 1 and key not in taken:
                taken.add(key)
                names[paths[0]] = candidates[paths[0]]
        waiting = [path for path in waiting if path not in names]
        if not waiting:
            break
    for path in waiting:  # `a.png` beside `a.jpg`
        names[path] = with_mark(_joined(path, 1), sha256(path.encode("utf-8", "surrogatepass")).hexdigest())
    return [names[path] for path in relatives]


def with_mark(name: str, digest: str) -> str:
    """A name with eight digits of a hash after its stem."""
    stem, suffix = os.path.splitext(name)
    return f"{stem}-{digest[:8]}{suffix}"


def stem_key(name: str) -> str:
    """Two names with one key would share captions, on some disk."""
    return path_key(os.path.splitext(name)[0])


def _joined(path: str, depth: int) -> str:
    return safe_name("_".join(path.split("/")[-depth:]), max_bytes=MAX_NAME_BYTES)


def sidecars_by_picture(names: Iterable[str]) -> dict[str, list[str]]:
    """The files of one folder that belong to a picture in it, by the picture's name, sorted: captions, texts,
    masks, records and caches (`sidecar_owner`). A file of a stem that two pictures share belongs to both.
    """
    pictures: dict[str, list[str]] = {}
    others = []
    listed = sorted(names)
    stems = {os.path.splitext(name)[0] for name in listed if kind_of(name) == "image"}
    for name in listed:
        if is_mask(name, stems) or kind_of(name) is None:
            others.append(name)
        elif kind_of(name) == "image":
            pictures.setdefault(os.path.splitext(name)[0], []).append(name)
    found: dict[str, list[str]] = {}
    for name in others:
        if name in FOLDER_FILES:
            continue
        is_own = is_mask(name, stems)
        stem = name.removesuffix(MASK_ENDING) if is_own else sidecar_owner(name, stems)
        for picture in pictures.get(stem or "", ()):
            found.setdefault(picture, []).append(name)
    return found


def is_mask(name: str, stems: Collection[str]) -> bool:
    """Whether a picture is the mask of another one in its folder, which trainers read beside it."""
    return name.endswith(MASK_ENDING) and name.removesuffix(MASK_ENDING) in stems


def pattern_of(sidecar: str, picture: str) -> str:
    """The name of a sidecar with a star for its picture's stem: `*.txt`, `.*_meta.json`."""
    stem = os.path.splitext(picture)[0]
    start = "" if sidecar.startswith(stem) else "."
    return f"{start}*{sidecar[len(start) + len(stem) :]}"


def sidecar_name(pattern: str, picture: str) -> str:
    """The name that a sidecar of some pattern has beside a picture."""
    start, _, ending = pattern.partition("*")
    return f"{start}{os.path.splitext(picture)[0]}{ending}"
