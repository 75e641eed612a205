"""Traps of captions: pictures without one, and text that a trainer cuts, cannot read or takes elsewhere."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.clip_tokens import count_tokens
from pipeline.layouts import everydream
from pipeline.layouts.captions import SUFFIXES
from pipeline.layouts.everydream import Folder, Tree
from pipeline.layouts.kohya import DEFAULT_CAPTION_EXTENSION
from pipeline.lint.names import stems_of
from pipeline.lint.reading import FolderRead, Reading, join, suffix_of
from pipeline.lint.texts import decode
from pipeline.lint.traps import Finding, Trainer

_FACE_FIELDS = 4  # kohya leaves these parts of a name out when it looks for a caption
_AT_ONCE = 256  # captions handed to a thread
_MOST_SHOWN = 60  # characters of a caption or a name


@dataclass(frozen=True, slots=True)
class CaptionFile:
    """A caption file that belongs to a picture of its folder, as far as the checks ask for it."""

    parts: tuple[str, ...]
    name: str
    is_wildcard: bool  # kohya takes its lines for alternatives
    unreadable: str = ""
    is_utf8: bool = True
    is_certain: bool = True  # its encoding is known
    encoding: str = "utf-8"
    has_bom: bool = False
    num_lines: int = 0  # that are not blank
    starts_blank: bool = False  # the first line is, and is all that kohya reads
    tokens: int = 0  # 0 where there are few for certain
    text_hash: int = 0

    @property
    def path(self) -> str:
        """Below the checked folder."""
        return "/".join((*self.parts, self.name))


# Which picture has which caption


def presence_findings(tree: Tree, readings: Sequence[Reading]) -> Iterator[Finding]:
    """Pictures without a caption that is read. Counts the captions of every folder on the way."""
    missing: dict[str, list[str]] = {}
    others: Counter[tuple[str, str, str]] = Counter()
    for reading in readings:
        look = _kohya_caption if reading.trainer == "kohya" else _everydream_caption
        for relative, read in reading.folders.items():
            path = os.path.join(tree.root, relative)
            files = reading.outside.get(relative)
            if files is None:
                files = frozenset(tree.folders[tuple(relative.split("/")) if relative else ()].files)
            for name in read.names:
                trap, detail = look(path, name, files, read)
                if not trap:
                    read.captions += 1
                elif trap == "missing-caption":
                    missing.setdefault(join(relative, name), []).append(detail)
                else:
                    place = (relative or ".") if trap == "caption-extension" else join(relative, name)
                    others[trap, place, detail] += 1
    yield from (Finding(*key, count) for key, count in others.items())
    if missing and not any(map(_has_captions, tree.folders.values())):
        example = next(iter(missing))
        yield Finding("no-captions", ".", f"{example}: {' and '.join(missing[example])}", len(missing))
        if any(reading.trainer == "everydream" for reading in readings):
            yield from (Finding("name-cut-at-underscore", path) for path in missing if "_" in _stem(path))
    else:
        yield from (
            Finding("missing-caption", path, " and ".join(detail)) for path, detail in missing.items()
        )


def _kohya_caption(folder: str, name: str, files: frozenset[str], read: FolderRead) -> tuple[str, str]:
    """(trap, detail) of the caption that kohya finds for a picture; empty where it is the picture's own."""
    stem = _stem(name)
    extension = str(read.options.get("caption_extension", DEFAULT_CAPTION_EXTENSION))
    if stem + extension in files:
        return "", ""
    other = next((suffix for suffix in SUFFIXES if stem + suffix in files), None)
    if other:
        return "caption-extension", f"they are {other}, and kohya looks for {extension}"
    fields = os.path.join(folder, stem).split("_")
    borrowed = os.path.join(folder, "_".join(fields[:-_FACE_FIELDS]) + extension)
    if len(fields) > _FACE_FIELDS and os.path.isfile(borrowed):
        return "borrowed-caption", f"kohya takes {os.path.basename(borrowed)}"
    return "missing-caption", f'kohya trains on "{_short(read.class_tokens)}"'


def _everydream_caption(_: str, name: str, files: frozenset[str], __: FolderRead) -> tuple[str, str]:
    stem = _stem(name)
    if any(stem + suffix in files for suffix in everydream.CAPTION_SUFFIXES):
        return "", ""
    return "missing-caption", f'EveryDream2 trains on "{_short(stem.split("_")[0])}"'


def _has_captions(folder: Folder) -> bool:
    stems = stems_of(folder)
    return any(
        (suffix := suffix_of(name)) in everydream.CAPTION_SUFFIXES
        and name[: -len(suffix)] in stems
        and name not in everydream.FOLDER_FILES
        for name in folder.files
    )


def _stem(path: str) -> str:
    return everydream.stem_of(path.rpartition("/")[2])


def _short(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


# What captions say


def caption_files(
    tree: Tree,
    readings: Sequence[Reading],
    *,
    max_tokens: int,
    fallback: str | None,
    workers: int,
    on_read: Callable[[int], object] = lambda _: None,
) -> list[CaptionFile]:
    """Read every .txt and .caption that is named as a picture.

    Args:
        max_tokens: captions of fewer characters are not counted: no token is shorter than one.
        fallback: encoding of those that are not certain.
    """
    is_kohya_only = {one.trainer for one in readings} == {"kohya"}
    wildcards = {
        relative
        for reading in readings
        for relative, read in reading.folders.items()
        if read.options.get("enable_wildcard")
    }

    def read(places: Sequence[tuple[Folder, str]]) -> list[CaptionFile]:
        return [
            _read(
                folder,
                name,
                is_wildcard=folder.relative in wildcards,
                counts_first_line=is_kohya_only and folder.relative not in wildcards,
                max_tokens=max_tokens,
                fallback=fallback,
            )
            for folder, name in places
        ]

    places = list(_caption_places(tree))
    found = []
    with ThreadPoolExecutor(workers) as pool:
        parts = [places[start : start + _AT_ONCE] for start in range(0, len(places), _AT_ONCE)]
        for part in pool.map(read, parts):
            found += part
            on_read(len(part))
    return found


def _caption_places(tree: Tree) -> Iterator[tuple[Folder, str]]:
    for folder in tree.folders.values():
        stems = stems_of(folder)
        for name in folder.files:
            suffix = suffix_of(name)
            is_caption = suffix.lower() in SUFFIXES and name[: -len(suffix)] in stems
            if is_caption and name not in everydream.FOLDER_FILES:
                yield folder, name


def _read(
    folder: Folder,
    name: str,
    *,
    is_wildcard: bool,
    counts_first_line: bool,
    max_tokens: int,
    fallback: str | None,
) -> CaptionFile:
    try:
        with open(os.path.join(folder.path, name), "rb") as file:
            data = file.read()
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        return CaptionFile(folder.parts, name, is_wildcard, unreadable=reason)
    found = decode(data, fallback)
    text = found.text or ""
    lines = text.splitlines()
    counted = lines[0] if lines and counts_first_line else text
    return CaptionFile(
        folder.parts,
        name,
        is_wildcard,
        is_utf8=found.is_utf8,
        is_certain=found.text is not None,
        encoding=found.encoding,
        has_bom=found.has_bom,
        num_lines=sum(not line.isspace() for line in lines if line),
        starts_blank=bool(lines) and not lines[0].strip(),
        tokens=count_tokens(counted) if len(counted) > max_tokens else 0,
        text_hash=hash(text.strip()),
    )


def text_findings(
    files: Iterable[CaptionFile], trainers: frozenset[Trainer], max_tokens: int
) -> Iterator[Finding]:
    """What is wrong with the text of captions."""
    for one in files:
        if one.unreadable:
            yield Finding("unreadable", one.path, one.unreadable)
        elif not one.is_utf8:
            yield Finding("caption-not-utf8", one.path, _encoding_detail(one))
        elif not one.num_lines:
            yield Finding("empty-caption", one.path)
        else:
            yield from _line_findings(one, trainers, max_tokens)
        if one.has_bom:
            yield Finding("caption-bom", one.path)


def _line_findings(one: CaptionFile, trainers: frozenset[Trainer], max_tokens: int) -> Iterator[Finding]:
    if "kohya" in trainers and not one.is_wildcard and (one.num_lines > 1 or one.starts_blank):
        detail = "its first line is empty" if one.starts_blank else f"it has {one.num_lines} lines"
        yield Finding("caption-cut-at-line", one.path, detail)
    if one.tokens > max_tokens:
        yield Finding("token-overflow", one.path, f"{one.tokens} tokens")


def _encoding_detail(one: CaptionFile) -> str:
    return f"it is {one.encoding.upper()}" if one.is_certain else "its encoding is not certain"


def twin_findings(files: Sequence[CaptionFile]) -> Iterator[Finding]:
    """Pictures with a .txt and a .caption of different text, which EveryDream2 merges."""
    texts: Mapping[tuple[tuple[str, ...], str], CaptionFile] = {
        (one.parts, _stem(one.name)): one for one in files if one.name.endswith(".txt")
    }
    for one in files:
        twin = texts.get((one.parts, _stem(one.name))) if one.name.endswith(".caption") else None
        if twin is not None and twin.text_hash != one.text_hash:
            yield Finding("two-captions", twin.path, f"and {one.name}")
