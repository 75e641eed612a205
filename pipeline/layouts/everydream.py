"""EveryDream trees: pictures in folders of any depth, with small files that say how each folder is trained.

What EveryDream2 reads, from its behaviour: every name that begins with a dot is passed over. `multiply.txt`,
`cond_dropout.txt`, `flip_p.txt`, `loss_scale.txt` (numbers), `batch_id.txt` (a text) and `shuffle_tags.txt`
(being there is enough) count for their own folder only; so do `local.yaml` and `local.yml`, which speak over
the text files, except over batch_id and loss_scale. `global.yaml` and `global.yml` count for all folders
below, the nearest first.
"""

import codecs
import os
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.names import is_ignored_name

READ_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".jfif"})
PICTURE_SUFFIXES = READ_SUFFIXES | {".avif", ".jxl"}  # with those that kohya may read
CAPTION_SUFFIXES = (".txt", ".caption", ".yml", ".yaml")
FOLDER_FILES = frozenset(
    {
        "multiply.txt",
        "cond_dropout.txt",
        "flip_p.txt",
        "loss_scale.txt",
        "batch_id.txt",
        "shuffle_tags.txt",
        "local.yaml",
        "local.yml",
        "global.yaml",
        "global.yml",
    }
)
_NUMBERS = ("cond_dropout", "flip_p", "loss_scale")
_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)
_SMALL_FILE_BYTES = 4096  # more than any first line that makes sense
_TAIL = re.compile(
    r"(_\d+x\d+\w*|_te_outputs|_te|_meta|_ccip|-masklabel)$"
)  # what tools add to a picture's stem


@dataclass(slots=True)
class Folder:
    """One folder: names of what is in it. Ignored and hidden folders are not entered."""

    parts: tuple[str, ...]  # below the tree; () is the tree itself
    path: str
    images: list[str] = field(default_factory=list)  # pictures, by name, sorted; also by way of a link
    files: list[str] = field(default_factory=list)  # all files and links, pictures included
    links: set[str] = field(default_factory=set)  # those of `files` that are symbolic links
    linked_folders: list[str] = field(default_factory=list)  # links to folders: never followed
    folders: list[str] = field(default_factory=list)  # folders that were entered
    ignored_folders: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # sockets and the like
    suffixes: set[str] = field(default_factory=set)  # of all files, as they are spelled
    picture_suffixes: tuple[str, ...] = ()  # those of them that one of the trainers may read as pictures

    @property
    def stems(self) -> list[str]:
        """Names of the pictures without their suffix, in the order of `images`; made anew each time."""
        kinds = self.picture_suffixes
        if len(kinds) != 1:
            return list(map(stem_of, self.images))
        end = -len(kinds[0])
        return [name[:end] for name in self.images]

    @property
    def relative(self) -> str:
        """Path below the tree with forward slashes; "" is the tree itself."""
        return "/".join(self.parts)


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """What the small files of a folder, and those above it, say about its pictures."""

    multiply: Fraction = Fraction(1)
    cond_dropout: float = 0.0
    flip_p: float = 0.0
    loss_scale: float = 1.0
    batch_id: str = ""
    shuffle_tags: bool = False
    others: frozenset[str] = frozenset()  # further keys of the yaml files
    told: frozenset[str] = field(default=frozenset(), compare=False)  # fields that a file really says

    def of_image(self, values: Mapping[str, Any]) -> "FolderSettings":
        """With what the picture's own yaml file says, as `image_values` reads it."""
        own = {key: value for key, value in values.items() if key in ("multiply", "batch_id", "shuffle_tags")}
        own |= {key: float(values[key]) for key in _NUMBERS if key in values}
        if "batch_id" in own:
            own["batch_id"] = str(own["batch_id"])
        if "shuffle_tags" in own:
            own["shuffle_tags"] = bool(own["shuffle_tags"])
        return replace(self, **own, told=self.told | own.keys()) if own else self


@dataclass(slots=True)
class Tree:
    """Every folder below a root, parents first."""

    root: str
    folders: dict[tuple[str, ...], Folder]

    def settings(
        self, *, as_trained: bool = False
    ) -> tuple[dict[tuple[str, ...], FolderSettings], list[str]]:
        """Settings of every folder with pictures, and what is wrong with them, one sentence each.

        Args:
            as_trained: take a number as EveryDream2 does: the whole file counts, and a byte order mark or
                another encoding than UTF-8 makes it none. Otherwise: what the person meant.
        """
        reader = _SettingsReader(self, as_trained=as_trained)
        found = {parts: reader.settings(folder) for parts, folder in self.folders.items() if folder.images}
        return found, reader.problems


@dataclass(frozen=True, slots=True)
class TrainImage:
    """A picture as EveryDream2 trains on it."""

    path: Path
    multiply: Fraction
    caption: str  # the stem up to its first "_" where there is no caption file
    settings: FolderSettings


def read_tree(root: Path | str) -> Tree:
    """List a tree; links to folders are not followed.

    Raises:
        InputError: a folder may not be read.
    """
    tree = Tree(os.fspath(root), {})
    todo: list[tuple[str, ...]] = [()]
    while todo:
        parts = todo.pop()
        folder = tree.folders[parts] = _list(parts, os.path.join(tree.root, *parts))
        todo.extend((*parts, name) for name in reversed(folder.folders))
    return tree


def _list(parts: tuple[str, ...], path: str) -> Folder:
    folder = Folder(parts, path)
    add_file = folder.files.append
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    add_file(entry.name)
                elif entry.is_symlink():
                    _add_link(folder, entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    names = folder.ignored_folders if is_ignored_name(entry.name) else folder.folders
                    names.append(entry.name)
                else:
                    folder.others.append(entry.name)
    except PermissionError as error:
        raise InputError(
            f"{path} may not be read", hint="change its permissions, or run as its owner"
        ) from error
    for names in (folder.files, folder.linked_folders, folder.folders, folder.ignored_folders):
        names.sort()
    lost = {name for name in folder.links if not os.path.isfile(os.path.join(path, name))}
    folder.suffixes = {f".{one}" for one in {name.rpartition(".")[2] for name in folder.files}}
    of_pictures = tuple(suffix for suffix in folder.suffixes if suffix.lower() in PICTURE_SUFFIXES)
    if of_pictures:
        folder.picture_suffixes = of_pictures
        folder.images = [name for name in folder.files if name.endswith(of_pictures)]
    first_hidden = bisect_left(folder.images, ".")
    if lost or (folder.images[first_hidden : first_hidden + 1] and folder.images[first_hidden][0] == "."):
        folder.images = [name for name in folder.images if name[0] != "." and name not in lost]
    return folder


def _add_link(folder: Folder, name: str) -> None:
    if os.path.isdir(os.path.join(folder.path, name)):  # a loop of links is none
        folder.linked_folders.append(name)
        return
    folder.files.append(name)
    folder.links.add(name)


def is_picture(name: str) -> bool:
    """Whether one of the trainers may read a file as a picture, by its name."""
    return name[name.rfind(".") :].lower() in PICTURE_SUFFIXES and name[0] != "."


def stem_of(picture: str) -> str:
    """A picture's name without its suffix."""
    return picture[: picture.rfind(".")]


def images(root: Path) -> Iterator[TrainImage]:
    """Every picture that EveryDream2 would train on, with its multiply and caption.

    Raises:
        InputError: a small file of a folder says what cannot be.
    """
    tree = read_tree(root)
    settings, problems = tree.settings()
    if problems:
        raise InputError(problems[0])
    for parts, folder in tree.folders.items():
        own = image_multiplies(folder, problems)
        for name in folder.images:
            if os.path.splitext(name)[1].lower() in READ_SUFFIXES:
                path = Path(folder.path, name)
                multiply = own.get(name, settings[parts].multiply)
                yield TrainImage(path, multiply, _caption(folder, name), settings[parts])


def image_multiplies(folder: Folder, problems: list[str]) -> dict[str, Fraction]:
    """Multiply of the pictures whose own yaml file speaks over their folder.

    Args:
        problems: takes what is wrong with those files, one sentence each.
    """
    values = image_values(folder, problems)
    return {name: own["multiply"] for name, own in values.items() if "multiply" in own}


def image_values(folder: Folder, problems: list[str]) -> dict[str, dict[str, Any]]:
    """The keys of the yaml files of single pictures, by the picture's name; `.yaml` speaks over `.yml`.

    Args:
        problems: takes what is wrong with those files, one sentence each.

    Returns: multiply, cond_dropout, flip_p and loss_scale as numbers, all other keys as they stand.
    """
    found: dict[str, dict[str, Any]] = {}
    if folder.suffixes.isdisjoint((".yaml", ".yml")):
        return found
    yamls = {name for name in folder.files if name.endswith((".yaml", ".yml"))} - FOLDER_FILES
    for name in folder.images:
        stem = os.path.splitext(name)[0]
        for yaml_name in (f"{stem}.yml", f"{stem}.yaml"):
            if yaml_name in yamls:
                path = os.path.join(folder.path, yaml_name)
                own, problem = _yaml(path)
                if problem:
                    problems.append(f"{path} {problem}")
                for key in ("multiply", *_NUMBERS):
                    if key in own:
                        own[key] = _checked(key, str(own[key]), path, problems)
                found[name] = found.get(name, {}) | own
    return found


def multiply_of(folder: Folder) -> Fraction | None:
    """The number in a folder's multiply.txt; None where it is no number."""
    return _number(_first_line(os.path.join(folder.path, "multiply.txt")))


def sidecar_owner(name: str, stems: Mapping[str, str] | set[str]) -> str | None:
    """The stem of the picture that a caption, mask, cache or metadata belongs to; None for a loose file."""
    base = name.removeprefix(".")
    while True:
        stem, extension = os.path.splitext(base)
        if not extension:
            bare = _TAIL.sub("", base)
            return bare if bare in stems else None
        if stem in stems:
            return stem
        bare = _TAIL.sub("", stem)
        if bare in stems:
            return bare
        base = stem


def _caption(folder: Folder, name: str) -> str:
    stem = os.path.splitext(name)[0]
    text = None
    for suffix in CAPTION_SUFFIXES:
        if stem + suffix not in folder.files:
            continue
        path = os.path.join(folder.path, stem + suffix)
        if suffix in (".txt", ".caption"):
            text = Path(path).read_text(encoding="utf-8", errors="replace").strip()
        else:
            values, _ = _yaml(path)
            tags = [tag["tag"] if isinstance(tag, dict) else tag for tag in values.get("tags") or []]
            parts = [values.get("main_prompt") or values.get("caption"), *tags]
            text = ", ".join(str(part) for part in parts if part) or text
    return stem.split("_")[0] if text is None else text


class _SettingsReader:
    def __init__(self, tree: Tree, *, as_trained: bool) -> None:
        self._tree = tree
        self._read = _whole_text if as_trained else _first_line
        self._globals: dict[tuple[str, ...], dict[str, Any]] = {}
        self._found: dict[tuple[str, ...], frozenset[str]] = {}
        self.problems: list[str] = []

    def settings(self, folder: Folder) -> FolderSettings:
        names = self._names(folder)
        inherited = self._inherited(folder.parts)
        if not names and not inherited:
            return FolderSettings()
        values = dict(inherited)
        if "shuffle_tags" in values and not names & {"global.yaml", "global.yml"}:
            del values["shuffle_tags"]  # EveryDream2 loses it in folders below
        values |= self._texts(folder, names, ("multiply", "cond_dropout", "flip_p"))
        if "shuffle_tags.txt" in names:
            values["shuffle_tags"] = True
        for name in ("local.yaml", "local.yml"):
            values |= self._yaml(folder, name) if name in names else {}
        values |= self._texts(folder, names, ("batch_id", "loss_scale"))
        return self._settings(folder, values)

    def _inherited(self, parts: tuple[str, ...]) -> dict[str, Any]:
        if parts not in self._globals:
            above = self._inherited(parts[:-1]) if parts else {}
            folder = self._tree.folders[parts]
            own: dict[str, Any] = {}
            for name in ("global.yaml", "global.yml"):
                own |= self._yaml(folder, name) if name in self._names(folder) else {}
            self._globals[parts] = above | own if own else above
        return self._globals[parts]

    def _names(self, folder: Folder) -> frozenset[str]:
        """Which of the small files a folder has."""
        if folder.parts not in self._found:
            self._found[folder.parts] = FOLDER_FILES.intersection(folder.files)
        return self._found[folder.parts]

    def _texts(self, folder: Folder, names: frozenset[str], keys: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in keys:
            if f"{key}.txt" in names:
                path = os.path.join(folder.path, f"{key}.txt")
                text = self._read(path)
                found[key] = text if key == "batch_id" else _checked(key, text, path, self.problems)
        return found

    def _yaml(self, folder: Folder, name: str) -> dict[str, Any]:
        path = os.path.join(folder.path, name)
        values, problem = _yaml(path)
        if problem:
            self.problems.append(f"{path} {problem}")
        for key in ("multiply", *_NUMBERS):
            if key in values:
                values[key] = _checked(key, str(values[key]), path, self.problems)
        return values

    def _settings(self, folder: Folder, values: dict[str, Any]) -> FolderSettings:
        told = frozenset(values)
        numbers = {key: float(values.pop(key)) for key in _NUMBERS if key in values}
        return FolderSettings(
            multiply=values.pop("multiply", Fraction(1)),
            batch_id=str(values.pop("batch_id", "")),
            shuffle_tags=bool(values.pop("shuffle_tags", False)),
            others=frozenset(values),
            told=told - frozenset(values),
            **numbers,
        )


def _first_line(path: str) -> str:
    """The first line of a small file; a byte order mark, which Windows editors write, is passed over."""
    descriptor = os.open(path, _READ_ONLY)
    try:
        data = os.read(descriptor, _SMALL_FILE_BYTES)
    finally:
        os.close(descriptor)
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="replace")
    return text.replace("\r", "\n").partition("\n")[0].strip()


def _whole_text(path: str) -> str:
    """A small file as EveryDream2 reads it; empty where it cannot."""
    try:
        return Path(path).read_bytes().decode("utf-8").strip()
    except UnicodeDecodeError:
        return ""


def _checked(key: str, text: str, path: str, problems: list[str]) -> Fraction:
    """A number, or the value of a folder that says nothing and a problem more."""
    value = _number(text)
    if value is None:
        with_dot = text.replace(",", ".")
        hint = f"write {with_dot}" if _number(with_dot) else "write one, such as 1, or take the file away"
        problems.append(f'{key} must be a number, found "{text[:40]}" in {path}; {hint}')
    elif key == "multiply" and value <= 0:
        hint = "write a number above 0, or move the folder out of the tree"
        problems.append(f'multiply must be above 0, found "{text[:40]}" in {path}; {hint}')
    else:
        return value
    return Fraction(key in ("multiply", "loss_scale"))  # the others are chances, 0 when nothing is said


@lru_cache(maxsize=1024)
def _number(text: str) -> Fraction | None:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        return None
    is_sane = value.is_finite() and (value == 0 or -12 < value.adjusted() < 9)
    return Fraction(value) if is_sane else None


def _yaml(path: str) -> tuple[dict[str, Any], str | None]:
    """The keys of a yaml file, and what is wrong with it."""
    import yaml  # 20 ms that trees without yaml files need not pay

    try:
        with open(path, encoding="utf-8-sig") as file:
            values = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return {}, f"is not valid YAML: {str(error).splitlines()[0]}"
    if values is None:
        return {}, None
    if not isinstance(values, dict):
        return {}, "holds no keys: write them as `key: value`"
    return {str(key): value for key, value in values.items()}, None
