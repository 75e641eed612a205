"""kohya's trees: folders `N_name` side by side, or a dataset TOML that names any folders.

What kohya's scripts read, from their behaviour: only folders directly below the one given; the name up to its
first `_` must be a whole number (else: passed over with a warning) of at least 1 (else: passed over without a
word); the rest of the name is the caption of pictures without one. Pictures lie directly in the folder, with
suffixes all in small or all in capital letters. Of a caption file the first line counts.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.layouts.everydream import FolderSettings
from pipeline.layouts.flat_names import split_prefix

READ_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
DEFAULT_CAPTION_EXTENSION = ".caption"
EVERY_SPELLING = READ_SUFFIXES | {suffix.upper() for suffix in READ_SUFFIXES}
_FACE_FIELDS = 4  # of a cropped face in a file name; kohya looks for a caption without them


@dataclass(frozen=True, slots=True)
class Subset:
    """One folder as kohya trains on it."""

    image_dir: str
    num_repeats: int
    class_tokens: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)  # further keys of the TOML

    def images(self) -> list[str]:
        """Names of the pictures that kohya reads, sorted."""
        return sorted(name for name in os.listdir(self.image_dir) if is_read(name))

    @property
    def caption_extension(self) -> str:
        """Suffix of its caption files."""
        return str(self.options.get("caption_extension", DEFAULT_CAPTION_EXTENSION))


@dataclass(frozen=True, slots=True)
class TrainImage:
    """A picture as kohya trains on it."""

    path: Path
    repeats: int
    caption: str
    subset: Subset


def is_read(name: str) -> bool:
    """Whether kohya reads a file as a picture, by its name, on a disk that tells `.Jpg` from `.jpg`."""
    return name[name.rfind(".") :] in EVERY_SPELLING and name.rfind(".") > 0


def read_folders(folder: Path, *, caption_extension: str = DEFAULT_CAPTION_EXTENSION) -> list[Subset]:
    """The subsets of a `--train_data_dir`, in order of their names; folders without pictures are left out."""
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        prefix = split_prefix(entry.name) if entry.is_dir() else None
        if prefix is not None and prefix[0] >= 1:
            subset = Subset(entry.path, prefix[0], prefix[1], {"caption_extension": caption_extension})
            found += [subset] if subset.images() else []
    return found


def read_toml(path: Path) -> list[Subset]:
    """The subsets of a dataset TOML, those above them joined in; a relative folder counts from the file.

    Raises:
        InputError: broken TOML, or a subset without `image_dir`.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error
    found = []
    for dataset in data.get("datasets", []):
        shared = data.get("general", {}) | {key: value for key, value in dataset.items() if key != "subsets"}
        for subset in dataset.get("subsets", []):
            options = shared | subset
            if "image_dir" not in options:
                raise InputError(f"a subset in {path} has no image_dir", hint="each needs one")
            image_dir = os.path.join(path.parent, options.pop("image_dir"))
            repeats = int(options.pop("num_repeats", 1))
            if repeats >= 1:
                found.append(Subset(image_dir, repeats, str(options.pop("class_tokens", "")), options))
    return found


def images(subsets: Sequence[Subset]) -> Iterator[TrainImage]:
    """Every picture with its repeats and caption.

    Raises:
        InputError: an empty caption file, or one that is not UTF-8, at which kohya stops.
    """
    for subset in subsets:
        for name in subset.images():
            path = Path(subset.image_dir, name)
            yield TrainImage(path, subset.num_repeats, _caption(path, subset), subset)


def _caption(image: Path, subset: Subset) -> str:
    stem = image.stem
    fields = str(image.with_suffix("")).split("_")
    stems = [stem] + ["_".join(fields[:-_FACE_FIELDS])] * (len(fields) > _FACE_FIELDS)
    for one in stems:
        path = Path(image.parent, one + subset.caption_extension)
        if path.is_file():
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError as error:
                raise InputError(f"{path} is not UTF-8", hint="save it again as UTF-8") from error
            if not lines:
                raise InputError(f"{path} is empty, and kohya would stop there", hint="write a caption")
            return lines[0].strip()
    return subset.class_tokens


def options_of(settings: FolderSettings) -> tuple[dict[str, Any], list[str]]:
    """EveryDream's small files as kohya's keys, and the names of those that kohya has no equal for.

    `shuffle_tags` leaves what stands before the first comma in its place: it becomes `keep_tokens = 1` too.
    `flip_p` has an equal at 0.5 only, kohya's fixed chance.
    """
    options: dict[str, Any] = {}
    without = sorted(settings.others)
    if settings.cond_dropout:
        options["caption_dropout_rate"] = settings.cond_dropout
    if settings.flip_p:
        options["flip_aug"] = True
        without += ["flip_p other than 0.5"] if settings.flip_p != 0.5 else []
    if settings.shuffle_tags:
        options |= {"shuffle_caption": True, "keep_tokens": 1}
    without += ["batch_id"] if settings.batch_id else []
    without += ["loss_scale"] if settings.loss_scale != 1 else []
    return options, without


def dataset_toml(subsets: Sequence[Subset], *, caption_extension: str, comment: str = "") -> str:
    """A dataset TOML. Resolution, batch size and buckets are left to kohya's command line.

    A subset's options that are those of the whole file are not written again.
    """
    general = {"caption_extension": caption_extension}
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines += ["[general]", *_pairs(general), "", "[[datasets]]"]
    for subset in subsets:
        own = {key: value for key, value in subset.options.items() if general.get(key) != value}
        keys = {"image_dir": subset.image_dir, "num_repeats": subset.num_repeats}
        keys |= {"class_tokens": subset.class_tokens} if subset.class_tokens else {}
        lines += ["", "  [[datasets.subsets]]", *(f"  {pair}" for pair in _pairs(keys | own))]
    return "\n".join(lines) + "\n"


def _pairs(values: Mapping[str, Any]) -> Iterator[str]:
    return (f"{key} = {_toml_value(value)}" for key, value in values.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
