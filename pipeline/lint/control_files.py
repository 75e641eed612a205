"""Traps in the small files that say how EveryDream2 trains a folder."""

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.layouts.everydream import FOLDER_FILES, Folder, Tree
from pipeline.lint.reading import join
from pipeline.lint.texts import decode
from pipeline.lint.traps import Finding
from pipeline.settings import nearest

MULTIPLY = "multiply.txt"
_NUMBERS = ("multiply", "cond_dropout", "flip_p", "loss_scale")
_YAMLS = (".yaml", ".yml")
_KEYS = frozenset(
    {
        *("main_prompt", "tags", "caption", "rating", "max_caption_length", "image", "batch_id"),
        *("shuffle_tags", *_NUMBERS),
    }
)


def findings(tree: Tree) -> Iterator[Finding]:
    """All that is wrong with the small files of every folder."""
    for folder in tree.folders.values():
        names = FOLDER_FILES.intersection(folder.files)
        multiply = _first_line(_bytes(folder, MULTIPLY)[0]) if MULTIPLY in names else None
        for name in sorted(names):
            path = join(folder.relative, name)
            if not folder.images and not name.startswith("global."):
                yield Finding("control-file-unused", path)
            if name.endswith(_YAMLS):
                yield from _yaml_findings(tree, folder, name, multiply)
            elif name.removesuffix(".txt") in _NUMBERS:
                yield from _number_findings(name, path, *_bytes(folder, name))
        yield from _picture_yamls(folder)


def _bytes(folder: Folder, name: str) -> tuple[bytes, str]:
    try:
        with open(os.path.join(folder.path, name), "rb") as file:
            return file.read(), ""
    except OSError as error:
        return b"", (error.strerror or "cannot be read").lower()


def _first_line(data: bytes) -> str:
    return (decode(data).text or "").strip().partition("\n")[0].strip()


def _number_findings(name: str, path: str, data: bytes, problem: str) -> Iterator[Finding]:
    if problem:
        yield Finding("unreadable", path, problem)
        return
    found = decode(data)
    if found.has_bom or not found.is_utf8:
        yield Finding("control-file-bom", path, "" if found.has_bom else f"it is {found.encoding.upper()}")
    value = (found.text or "").strip()  # all lines: EveryDream2 takes the whole file for the number
    trap = number_trap(value)
    if trap and name == MULTIPLY:
        yield Finding(trap, path, _number_detail(value))
    elif trap == "multiply-unparsable":
        yield Finding("control-file-broken", path, f"no number: {_number_detail(value)}")


def number_trap(text: str) -> str:
    """The trap of a multiply; empty where EveryDream2 takes it as it is written."""
    try:
        value = float(text)
    except ValueError:
        return "multiply-unparsable"
    if not math.isfinite(value):
        return "multiply-unparsable"
    return "multiply-zero" if value == 0 else "multiply-negative" if value < 0 else ""


def _number_detail(text: str) -> str:
    with_stop = text.replace(",", ".")
    hint = f"; write {with_stop}" if "," in text and not number_trap(with_stop) else ""
    return f'found "{text[:40]}"{hint}'


def _yaml_findings(tree: Tree, folder: Folder, name: str, multiply: str | None) -> Iterator[Finding]:
    path = join(folder.relative, name)
    values, problem = _yaml(folder, name)
    if problem:
        yield Finding("control-file-broken", path, problem)
    for detail in _key_problems(values):
        yield Finding("control-file-broken", path, detail)
    if "multiply" in values:
        trap = number_trap(str(values["multiply"]))
        if trap:
            yield Finding(trap, path, _number_detail(str(values["multiply"])))
        elif (
            name.startswith("local.") and multiply is not None and not _is_same(multiply, values["multiply"])
        ):
            yield Finding("multiply-overridden", path, f"{values['multiply']}, and multiply.txt {multiply}")
    if name.startswith("global.") and values.get("shuffle_tags"):
        depth = len(folder.parts)
        if any(one.images and parts[:depth] == folder.parts != parts for parts, one in tree.folders.items()):
            yield Finding("shuffle-tags-lost", path)


def _is_same(text: str, value: object) -> bool:
    try:
        return float(text) == float(str(value))
    except ValueError:
        return False


def _key_problems(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        near = None if key in _KEYS else nearest(key, _KEYS)
        if near:
            yield f'EveryDream2 knows no "{key}"; did you mean "{near}"?'
        if key in _NUMBERS[1:] and number_trap(str(value)) == "multiply-unparsable":
            yield f'{key}: no number: found "{str(value)[:40]}"'


def _picture_yamls(folder: Folder) -> Iterator[Finding]:
    for name in folder.files:
        if not name.endswith(_YAMLS) or name in FOLDER_FILES or name.startswith("."):
            continue
        values, problem = _yaml(folder, name)
        if "multiply" in values and (trap := number_trap(str(values["multiply"]))):
            yield Finding(trap, join(folder.relative, name), _number_detail(str(values["multiply"])))
        for detail in (*([problem] if problem else []), *_key_problems(values)):
            yield Finding("control-file-broken", join(folder.relative, name), detail)


def _yaml(folder: Folder, name: str) -> tuple[dict[str, Any], str]:
    import yaml  # 20 ms that trees without yaml files need not pay

    data, problem = _bytes(folder, name)
    text = decode(data).text
    if problem or text is None:
        return {}, problem or "it is not UTF-8"
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return {}, f"it is not YAML: {str(error).splitlines()[0]}"
    if values is None:
        return {}, ""
    if not isinstance(values, dict):
        return {}, "it holds no keys; write them as `key: value`"
    return {str(key): value for key, value in values.items()}, ""
