"""Traps in names: suffixes, small files, captions that belong to nobody, what other systems cannot hold."""

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pipeline.layouts.captions import SUFFIXES as CAPTION_SUFFIXES
from pipeline.layouts.everydream import FOLDER_FILES, Folder, Tree, is_picture, sidecar_owner
from pipeline.lint.reading import is_read, join
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
    for folder in tree.folders.values():
        yield from _hard_names(folder)
        yield from _pictures(folder, trainers)
        yield from _texts(folder)
        yield from _old_latents(folder)
    yield from _namesakes(tree)


def stems_of(folder: Folder) -> dict[str, list[str]]:
    """Pictures by their name without its suffix."""
    stems: dict[str, list[str]] = {}
    for name in folder.images:
        stems.setdefault(os.path.splitext(name)[0], []).append(name)
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


def _pictures(folder: Folder, trainers: Collection[Trainer]) -> Iterator[Finding]:
    for name in folder.files:
        extension = os.path.splitext(name)[1]
        lowered = extension.lower()
        if is_ignored_name(name) or not (is_picture(name) or lowered in UNREAD_SUFFIXES):
            continue
        path = join(folder.relative, name)
        if is_picture(name) and extension not in (lowered, extension.upper()) and "kohya" in trainers:
            yield Finding("suffix-case", path)
            continue
        deaf = [one for one in sorted(trainers) if not is_read(name, one)]
        if lowered in PLUGIN_SUFFIXES and "kohya" in deaf:
            deaf.remove("kohya")
            yield Finding("format-needs-plugin", path)
        if deaf:
            yield Finding("format-not-read", path, f"by {' and '.join(deaf)}")
    for same in stems_of(folder).values():
        if len({os.path.splitext(name)[1].lower() for name in same}) > 1:
            yield Finding("same-stem", join(folder.relative, same[0]), _also(same[1:]), len(same))


def _texts(folder: Folder) -> Iterator[Finding]:
    stems = set(stems_of(folder))
    for name in folder.files:
        stem, extension = os.path.splitext(name)
        if extension.lower() not in CAPTION_SUFFIXES or name in FOLDER_FILES or is_ignored_name(name):
            continue
        if stem in stems:
            if extension != extension.lower():
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


def _old_latents(folder: Folder) -> Iterator[Finding]:
    caches = [name for name in folder.files if name.endswith(".npz")]
    if not caches:
        return
    stems = stems_of(folder)
    names = set(stems)
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


def _namesakes(tree: Tree) -> Iterator[Finding]:
    places: dict[str, list[str]] = {}
    for folder in tree.folders.values():
        for stem in stems_of(folder):
            places.setdefault(stem, []).append(folder.relative or ".")
    for stem, folders in places.items():
        if len(folders) > 1:
            yield Finding(
                "namesake",
                join("" if folders[0] == "." else folders[0], stem),
                _also(folders[1:]),
                len(folders),
            )
