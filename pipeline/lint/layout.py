"""Traps of kohya's layouts: folders that are passed over, and lines of a dataset TOML that are refused."""

import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.files import relative_path
from pipeline.layouts.everydream import Tree
from pipeline.layouts.flat_names import split_prefix
from pipeline.lint.reading import Reading, join
from pipeline.lint.traps import Finding
from pipeline.settings import nearest

_FRACTION = re.compile(r"\d*[.,]\d+_")
_RESOLUTION_KEYS = {"resolution", "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps"}
_DATASET_KEYS = _RESOLUTION_KEYS | {
    *("batch_size", "bucket_no_upscale", "network_multiplier", "resize_interpolation"),
    *("validation_split", "validation_seed", "subsets"),
}
_SUBSET_KEYS = {
    *("image_dir", "num_repeats", "class_tokens", "is_reg", "caption_extension", "metadata_file"),
    *("shuffle_caption", "keep_tokens", "keep_tokens_separator", "caption_separator", "secondary_separator"),
    *("enable_wildcard", "caption_prefix", "caption_suffix", "caption_dropout_rate"),
    *("caption_dropout_every_n_epochs", "caption_tag_dropout_rate", "token_warmup_min", "token_warmup_step"),
    *("flip_aug", "color_aug", "random_crop", "face_crop_aug_range", "alpha_mask", "cache_info"),
    *("custom_attributes", "resize_interpolation", "conditioning_data_dir"),
}


def folder_findings(tree: Tree, reading: Reading) -> Iterator[Finding]:
    """Pictures that kohya passes over in a folder given as --train_data_dir."""
    root = tree.folders[()]
    below = pictures_below(tree)
    numbers = {name: split_prefix(name) for name in root.folders}
    if not any(numbers.values()):
        own = split_prefix(os.path.basename(tree.root))
        if root.images and own is not None:
            yield Finding("leaf-folder", ".", f"give {os.path.dirname(tree.root)}")
        return
    if root.images:
        yield Finding("pictures-at-root", ".", count=len(root.images))
    for name, number in numbers.items():
        if number is None:
            if below[(name,)]:
                why = "its number is not whole" if _FRACTION.match(name) else ""
                yield Finding("folder-not-numbered", name, why, below[(name,)])
        elif number[0] < 1:
            if below[(name,)]:
                yield Finding("repeats-below-one", name, f"repeats {number[0]}", below[(name,)])
        else:
            yield from _nested(tree, name)
    yield from _without_class_tokens(reading)


def _nested(tree: Tree, name: str) -> Iterator[Finding]:
    for parts, folder in tree.folders.items():
        if len(parts) > 1 and parts[0] == name and folder.images:
            yield Finding("nested-pictures", folder.relative, count=len(folder.images))


def _without_class_tokens(reading: Reading) -> Iterator[Finding]:
    for path, one in reading.folders.items():
        if not one.class_tokens and one.captions < len(one.names):
            without = len(one.names) - one.captions
            yield Finding("no-class-tokens", path or ".", f"{without:,} pictures without a caption")


def config_findings(tree: Tree, reading: Reading, config: Path) -> Iterator[Finding]:
    """What a dataset TOML leaves out, and what kohya refuses in it."""
    name = relative_path(config, tree.root)
    try:
        data = tomllib.loads(config.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return  # said already, by whom it was to be read
    yield from (Finding("dataset-config", name, text) for text in _refused_lines(data, config.parent))
    for path, repeats in _few_repeats(data):
        yield Finding("repeats-below-one", name, f"{path}: num_repeats {repeats}")
    yield from (Finding("subset-twice", name, path) for path in _named_twice(data))
    for path in _relative_folders(data):
        yield Finding("relative-image-dir", name, path)
    yield from (
        Finding("subset-elsewhere", path, count=len(reading.folders[path].names)) for path in reading.outside
    )
    for folder in tree.folders.values():
        if folder.images and folder.relative not in reading.folders:
            yield Finding("not-in-dataset-config", folder.relative or ".", count=len(folder.images))
    yield from _without_class_tokens(reading)


def _tables(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], set[str]]]:
    """(where, keys, keys that are known there) of every table; what is no table is passed over."""
    general = data.get("general")
    if isinstance(general, dict):
        yield "[general]", general, _DATASET_KEYS | _SUBSET_KEYS
    for number, dataset in enumerate(_dicts(data.get("datasets")), 1):
        where = f"dataset {number}"
        yield where, dataset, _DATASET_KEYS | _SUBSET_KEYS
        for count, subset in enumerate(_dicts(dataset.get("subsets")), 1):
            yield f"{where}, subset {count}", subset, _SUBSET_KEYS


def _dicts(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _refused_lines(data: Mapping[str, Any], folder: Path) -> Iterator[str]:
    for where, table, known in _tables(data):
        for key in table:
            near = None if key in known else nearest(key, known)
            if near:
                yield f'{where}: kohya knows no "{key}"; did you mean "{near}"?'
        repeats = table.get("num_repeats", 1)
        if not isinstance(repeats, int) or isinstance(repeats, bool):
            yield f"{where}: num_repeats must be a whole number, found {repeats!r}"
        extension = table.get("caption_extension", ".txt")
        if not isinstance(extension, str) or not extension.startswith("."):
            yield f"{where}: caption_extension must begin with a full stop, found {extension!r}"
        image_dir = table.get("image_dir")
        if isinstance(image_dir, str) and not os.path.isdir(os.path.join(folder, image_dir)):
            yield f"{where}: there is no folder {image_dir}"


def _few_repeats(data: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for where, table, _ in _tables(data):
        repeats = table.get("num_repeats", 1)
        if isinstance(repeats, int) and repeats < 1:
            yield str(table.get("image_dir", where)), repeats


def _named_twice(data: Mapping[str, Any]) -> Iterator[str]:
    for dataset in _dicts(data.get("datasets")):
        folders = Counter(str(subset.get("image_dir")) for subset in _dicts(dataset.get("subsets")))
        yield from (folder for folder, count in folders.items() if count > 1)


def _relative_folders(data: Mapping[str, Any]) -> Iterator[str]:
    for _, table, _ in _tables(data):
        image_dir = table.get("image_dir")
        if isinstance(image_dir, str) and not os.path.isabs(image_dir):
            yield image_dir


def pictures_below(tree: Tree) -> Counter[tuple[str, ...]]:
    """How many pictures lie in each folder and below it."""
    below: Counter[tuple[str, ...]] = Counter()
    for parts, folder in tree.folders.items():
        for depth in range(len(parts) + 1):
            below[parts[:depth]] += len(folder.images)
    return below


def everyone_findings(tree: Tree) -> Iterator[Finding]:
    """Folders that hold nothing, and links to folders."""
    below = pictures_below(tree)
    for parts, folder in tree.folders.items():
        if parts and not below[parts] and below[parts[:-1]]:
            yield Finding("folder-without-pictures", folder.relative)
        yield from (Finding("linked-folder", join(folder.relative, name)) for name in folder.linked_folders)
