"""Traps in names: suffixes, small files, captions that belong to nobody, what other systems cannot hold."""

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.layouts.captions import SUFFIXES as CAPTION_SUFFIXES
from pipeline.layouts.everydream import (
    FOLDER_FILES,
    PICTURE_SUFFIXES,
    Folder,
    Tree,
    sidecar_owner,
    stem_of,
)
from pipeline.lint.reading import is_read, join, suffix_of
from pipeline.lint.traps import Finding, Trainer
from pipeline.names import is_ignored_name, name_problem, path_key

# Pictures by their suffix that neither trainer reads.
UNREAD_SUFFIXES = frozenset(
    {".gif", ".tif", ".tiff", ".heic", ".heif", ".jp2", ".psd", ".tga", ".jpe", ".dds", ".exr", ".apng"}
)
PLUGIN_SUFFIXES = frozenset({".avif", ".jxl"})
_OTHER_TEXTS = frozenset(
    {"readme", "license", "licence", "licenses", "notes", "wildcard", "prompts", "sample_prompts", "tags"}
)
_PLAIN = re.compile(r"[A-Za-z0-9_+()~=,-]{8,100}(?:\.[A-Za-z0-9]{2,8})?")  # needs no closer look
_AS_GOOD_AS_SAME = 0.85  # difflib's ratio of cond_droput.txt and cond_dropout.txt is 0.97


def findings(tree: Tree, trainers: Collection[Trainer]) -> Iterator[Finding]:
    """All that is seen by names alone."""
    places: dict[str, list[str]] = {}
    for folder in tree.folders.values():
        stems = stems_of(folder)
        yield from _hard_names(folder)
        yield from _pictures(folder, trainers, stems)
        yield from _texts(folder, set(stems))
        yield from _old_latents(folder, stems)
        yield from _dead_links(folder)
        for stem in stems:
            places.setdefault(stem, []).append(folder.relative)
    yield from _namesakes(places)


def stems_of(folder: Folder) -> dict[str, list[str]]:
    """Pictures by their name without its suffix."""
    stems: dict[str, list[str]] = {}
    for name in folder.images:
        stems.setdefault(stem_of(name), []).append(name)
    return stems


def _hard_names(folder: Folder) -> Iterator[Finding]:
    names = (*folder.files, *folder.folders, *folder.linked_folders)
    spellings = defaultdict(list)
    for name in names:
        spellings[path_key(name)].append(name)
        if not _PLAIN.fullmatch(name) and not is_ignored_name(name):
            yield from _hard_name(folder, name)
    for same in spellings.values():
        if len(same) > 1:
            yield Finding("case-collision", join(folder.relative, same[0]), _also(same[1:]), len(same))


def _hard_name(folder: Folder, name: str) -> Iterator[Finding]:
    try:
        name.encode()
    except UnicodeEncodeError:
        yield Finding("name-not-utf8", join(folder.relative, name))
        return
    problem = name_problem(name)
    if problem:
        yield Finding("unsafe-name", join(folder.relative, name), f"it {problem}")


def _also(names: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return "also " + ", ".join(names[:shown]) + more


def _pictures(
    folder: Folder, trainers: Collection[Trainer], stems: Mapping[str, list[str]]
) -> Iterator[Finding]:
    wanted = sorted(trainers)
    for name in folder.files:
        extension = suffix_of(name)
        lowered = extension.lower()
        is_known = lowered in PICTURE_SUFFIXES
        if not (is_known or lowered in UNREAD_SUFFIXES) or is_ignored_name(name):
            continue
        if is_known and extension not in (lowered, extension.upper()) and "kohya" in trainers:
            yield Finding("suffix-case", join(folder.relative, name))
            continue
        deaf = [one for one in wanted if not is_read(name, one)]
        if lowered in PLUGIN_SUFFIXES and "kohya" in deaf:
            deaf.remove("kohya")
            yield Finding("format-needs-plugin", join(folder.relative, name))
        if deaf:
            yield Finding("format-not-read", join(folder.relative, name), f"by {' and '.join(deaf)}")
    for same in stems.values():
        if len(same) > 1 and len({suffix_of(name).lower() for name in same}) > 1:
            yield Finding("same-stem", join(folder.relative, same[0]), _also(same[1:]), len(same))


def _texts(folder: Folder, stems: set[str]) -> Iterator[Finding]:
    for name in folder.files:
        extension = suffix_of(name)
        lowered = extension.lower()
        if lowered not in CAPTION_SUFFIXES or name in FOLDER_FILES or is_ignored_name(name):
            continue
        if name[: -len(extension)] in stems:
            if extension != lowered:
                yield Finding("suffix-case", join(folder.relative, name))
            continue
        trap, detail = _loose_text(folder, name, stems)
        if trap:
            yield Finding(trap, join(folder.relative, name), detail)


def _loose_text(folder: Folder, name: str, stems: set[str]) -> tuple[str, str]:
    """The trap of a text file that is no caption of a picture by its name, and what it should be."""
    stem, extension = os.path.splitext(name)
    lowered = name.lower()
    if lowered in FOLDER_FILES:
        return "control-file-case", f"write {lowered}"
    if hidden := hidden_target(name, stems):
        return "hidden-extension", f"write {hidden}"
    if stem in folder.images:
        if _is_sidecar(folder, name, stem):
            return "", ""
        return "caption-named-after-file", f"write {os.path.splitext(stem)[0]}{extension.lower()}"
    near = difflib.get_close_matches(lowered, FOLDER_FILES, n=1, cutoff=_AS_GOOD_AS_SAME)
    if near:
        return "control-file-name", f"did you mean {near[0]}?"
    is_other = stem.lower() in _OTHER_TEXTS or sidecar_owner(name, stems) is not None
    return ("", "") if is_other else ("orphan-caption", "")


def hidden_target(name: str, stems: Collection[str]) -> str | None:
    """What a name with a second .txt should be: a small file of a folder, or a caption; else None."""
    base, last = os.path.splitext(name)
    if last.lower() != ".txt":
        return None
    if base.lower() in FOLDER_FILES:
        return base.lower()
    stem, extension = os.path.splitext(base)
    return stem + extension.lower() if extension.lower() in CAPTION_SUFFIXES and stem in stems else None


def _is_sidecar(folder: Folder, name: str, image: str) -> bool:
    """Whether a text named after a picture's whole name is metadata of a downloader, no caption."""
    from pipeline.errors import SidecarError
    from pipeline.sidecars import read_sidecar

    try:
        return read_sidecar(Path(folder.path, name), Path(folder.path, image)) is not None
    except SidecarError:
        return False


def _dead_links(folder: Folder) -> Iterator[Finding]:
    images = set(folder.images) if folder.links else set()
    for name in sorted(folder.links - images):
        if suffix_of(name).lower() in PICTURE_SUFFIXES and not is_ignored_name(name):
            yield Finding("unreadable", join(folder.relative, name), "a link that leads nowhere")


def _old_latents(folder: Folder, stems: Mapping[str, list[str]]) -> Iterator[Finding]:
    caches = [name for name in folder.files if name.endswith(".npz")]
    names = set(stems) if caches else set()
    for cache in caches:
        owner = sidecar_owner(cache, names)
        for name in stems.get(owner or "", []):
            if _mtime_ns(folder, name) > _mtime_ns(folder, cache):
                yield Finding("stale-latents", join(folder.relative, name), cache)


def _mtime_ns(folder: Folder, name: str) -> int:
    try:
        return os.stat(os.path.join(folder.path, name)).st_mtime_ns
    except OSError:
        return 0


def _namesakes(places: Mapping[str, list[str]]) -> Iterator[Finding]:
    for stem, folders in places.items():
        if len(folders) > 1:
            others = _also([folder or "." for folder in folders[1:]])
            yield Finding("namesake", join(folders[0], stem), others, len(folders))
