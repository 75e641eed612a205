"""Data sets as other trainers' files: one function a format, from folders of examples to texts.

Facts of the formats, each from its project's own documentation or behaviour: kohya-ss/sd-scripts 0.10
(docs/config_README, fine-tuning data sets), Hugging Face datasets (imagefolder), Nerogar/OneTrainer
(concepts of version 2), ostris/ai-toolkit (datasets of a job), tdrussell/diffusion-pipe
(examples/dataset.toml). Keys that are not known for certain are not written.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pipeline.errors import InputError
from pipeline.exporting.examples import (
    KEEP_SEPARATOR,
    Example,
    ExampleFolder,
    Exported,
    caption_notes,
    folder_repeats,
    own_repeats_note,
    rounding_note,
    settings_notes,
    suffix_notes,
    told,
    whole_groups,
)
from pipeline.flattening.repeats import Fractions
from pipeline.layouts.captions import DEFAULT_SEPARATOR, tag_text
from pipeline.layouts.flat_names import FlatNames
from pipeline.layouts.kohya import options_of

AI_TOOLKIT_READS = frozenset({".jpg", ".jpeg", ".png", ".webp"})
ONETRAINER_READS = frozenset({".bmp", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".avif"})
DIFFUSION_PIPE_PASSES_OVER = (".txt", ".npz", ".json", ".parquet", ".bak", ".db")


@dataclass(frozen=True, slots=True)
class How:
    """Choices of an export.

    Args:
        root: of the data set, as the files name it.
        location: of the export's own folder with a slash at its end, as its files name it.
        resolution_px: side of the square that pictures are trained at.
        adds_tags: beside captions that are sentences, give the catalogue's tags.
        absolute: name pictures by their whole path.
    """

    root: str
    location: str
    resolution_px: int
    fractions: Fractions
    seed: int
    adds_tags: bool
    absolute: bool


# kohya: metadata for fine-tuning, and the dataset TOML that names it


def kohya_json(folders: Sequence[ExampleFolder], how: How) -> Exported:
    """A metadata JSON for each folder and number of repeats, and one dataset TOML over them."""
    names = FlatNames("~")
    files: dict[str, str] = {}
    lines = ["[[datasets]]", f"resolution = {how.resolution_px}", "enable_bucket = true"]
    exposures = 0
    without = set()
    for folder, repeats, examples in whole_groups(folders, how.fractions, how.seed):
        path = f"metadata/{names.add(repeats, folder.parts)}.json"
        entries = {_key(folder, one, how): _entry(one, how) for one in examples}
        files[path] = json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
        options, missing = options_of(folder.settings)
        without.update(missing)
        if any(KEEP_SEPARATOR in one.text for one in examples):
            options["keep_tokens_separator"] = KEEP_SEPARATOR
        keys = {
            "image_dir": folder.path if how.absolute else how.root,
            "metadata_file": how.location + path,
            "num_repeats": repeats,
            **options,
        }
        lines += ["", "  [[datasets.subsets]]", *(f"  {line}" for line in _toml(keys))]
        exposures += repeats * len(examples)
    bare = [folder.name for folder in folders if not all(one.text for one in folder.examples)]
    notes = [
        *told("pictures without any text", bare),
        *(f"{key} has no equal there" for key in sorted(without)),
    ]
    files["dataset.toml"] = "\n".join(lines) + "\n"
    return Exported(files, Fraction(exposures), tuple(notes))


def _key(folder: ExampleFolder, example: Example, how: How) -> str:
    """Kohya joins a relative key to `image_dir`, and takes equal keys of two subsets for one picture."""
    return f"{folder.path}/{example.name}" if how.absolute else "/".join((*folder.parts, example.name))


def _entry(example: Example, how: How) -> dict[str, str]:
    """Kohya joins the two, caption first; a list of tags is given as tags."""
    if not example.text:
        return {"tags": _tag_line(example)} if example.tags else {"caption": ""}
    if example.has_tag_text:
        return {"tags": example.text}
    added = {"tags": _tag_line(example)} if how.adds_tags and example.tags else {}
    return {"caption": example.text, **added}


def _tag_line(example: Example) -> str:
    return DEFAULT_SEPARATOR.join(map(tag_text, example.tags))


# Hugging Face datasets: imagefolder


def imagefolder(folders: Sequence[ExampleFolder], how: How) -> Exported:
    """One metadata.jsonl at the top of the data set; every line has the same columns."""
    examples = [(folder, one) for folder in folders for one in folder.examples]
    has_tags = any(one.tags for _, one in examples)
    columns = sorted({name for _, one in examples for name in one.facts})
    has_repeats = any(one.repeats != 1 for _, one in examples)
    lines = []
    for folder, one in examples:
        row: dict[str, Any] = {"file_name": "/".join((*folder.parts, one.name)), "text": one.text}
        row |= {"tags": list(one.tags)} if has_tags else {}
        row |= {name: one.facts.get(name) for name in columns}
        row |= {"repeats": _number(one.repeats)} if has_repeats else {}
        lines.append(json.dumps(row, ensure_ascii=False))
    bare = [folder.name for folder in folders if not all(one.text for one in folder.examples)]
    notes = told("pictures without a caption have an empty text", bare)
    if has_repeats:
        notes.append("repeats are a column of their own; Hugging Face datasets shows every picture once")
    return Exported({"metadata.jsonl": "\n".join(lines) + "\n"}, Fraction(len(examples)), tuple(notes))


# OneTrainer: concepts


def onetrainer(folders: Sequence[ExampleFolder], how: How) -> Exported:
    """A list of concepts, one a folder; repeats may be fractions there."""
    concepts = [_concept(folder) for folder in folders]
    text = json.dumps(concepts, indent=4, ensure_ascii=False) + "\n"
    notes = [
        *caption_notes(folders, (".txt",)),
        *suffix_notes(folders, ONETRAINER_READS),
        *own_repeats_note(folders),
        *_flip_notes(folders),
        *settings_notes(folders, {"cond_dropout": 0.0, "batch_id": ""}),
    ]
    return Exported({"concepts.json": text}, _floors(folders), tuple(notes))


def _concept(folder: ExampleFolder) -> dict[str, Any]:
    digest = hashlib.sha256(folder.relative.encode("utf-8", "surrogatepass")).digest()
    return {
        "__version": 2,
        "name": folder.relative or folder.path.rpartition("/")[2],
        "path": folder.path,
        "seed": int.from_bytes(digest[:4], "big") >> 2,
        "enabled": True,
        "type": "STANDARD",
        "include_subdirectories": False,
        "balancing": _number(folder.mean_repeats),
        "balancing_strategy": "REPEATS",
        "loss_weight": folder.settings.loss_scale,
        "image": {"enable_random_flip": bool(folder.settings.flip_p)},
        "text": {
            "prompt_source": "sample",
            "enable_tag_shuffling": folder.settings.shuffle_tags,
            "tag_delimiter": ",",
            "keep_tags_count": 1,
        },
    }


def _floors(folders: Sequence[ExampleFolder]) -> Fraction:
    """OneTrainer shows the whole part of pictures times balancing of each concept an epoch."""
    return Fraction(sum(folder.multiplicity.__floor__() for folder in folders))


# ai-toolkit: the datasets of a job


def ai_toolkit(folders: Sequence[ExampleFolder], how: How) -> Exported:
    """The `datasets:` list of a job's process, to be pasted there.

    Raises:
        InputError: a folder with pictures lies below another, which ai-toolkit would read with it.
    """
    _refuse_nested(folders)
    import yaml

    entries = []
    exposures = 0
    for folder in folders:
        repeats = folder_repeats(folder, how.fractions)
        exposures += repeats * len(folder.examples)
        entries.append(_ai_toolkit_entry(folder, repeats, how))
    is_plain = all(folder.path.isprintable() for folder in folders)  # PyYAML loses some line ends unescaped
    body = yaml.safe_dump({"datasets": entries}, allow_unicode=is_plain, sort_keys=False, width=10_000)
    head = "# Put this in place of datasets: in the process of an ai-toolkit job.\n"
    notes = [
        *caption_notes(folders, (".txt", ".caption")),
        *suffix_notes(folders, AI_TOOLKIT_READS),
        *own_repeats_note(folders),
        *rounding_note(folders, Fraction(exposures)),
        *_flip_notes(folders),
        *settings_notes(folders, {"batch_id": ""}),
    ]
    return Exported({"datasets.yaml": head + body}, Fraction(exposures), tuple(notes))


def _ai_toolkit_entry(folder: ExampleFolder, repeats: int, how: How) -> dict[str, Any]:
    settings = folder.settings
    entry: dict[str, Any] = {
        "folder_path": folder.path,
        "caption_ext": folder.caption_suffix.removeprefix("."),
        "num_repeats": repeats,
        "resolution": [how.resolution_px],
    }
    entry |= {"caption_dropout_rate": settings.cond_dropout} if settings.cond_dropout else {}
    entry |= {"shuffle_tokens": True, "keep_tokens": 1} if settings.shuffle_tags else {}
    entry |= {"flip_x": True} if settings.flip_p else {}
    entry |= {"loss_multiplier": settings.loss_scale} if settings.loss_scale != 1 else {}
    return entry


def _refuse_nested(folders: Sequence[ExampleFolder]) -> None:
    with_pictures = {folder.parts for folder in folders}
    for folder in folders:
        above = [
            folder.parts[:end] for end in range(len(folder.parts)) if folder.parts[:end] in with_pictures
        ]
        if above:
            outer = "/".join(above[0]) or "the data set's own folder"
            text = f"ai-toolkit reads folders with all below them, and takes {folder.name} twice, in {outer}"
            hint = "make flat folders first, and export those: celforge flatten --to hardlink"
            raise InputError(text, hint=hint)


# diffusion-pipe: a dataset TOML


def diffusion_pipe(folders: Sequence[ExampleFolder], how: How) -> Exported:
    """A dataset TOML with one `[[directory]]` a folder, and the aspect-ratio buckets of its example."""
    lines = [
        f"resolutions = [{how.resolution_px}]",
        "enable_ar_bucket = true",
        "min_ar = 0.5",
        "max_ar = 2.0",
        "num_ar_buckets = 7",
    ]
    exposures = 0
    for folder in folders:
        repeats = folder_repeats(folder, how.fractions)
        exposures += repeats * len(folder.examples)
        lines += ["", "[[directory]]", *_toml({"path": folder.path, "num_repeats": repeats})]
    taken = [f"{folder.name}/{name}" for folder in folders for name in folder.others if _is_taken(name)]
    notes = [
        *caption_notes(folders, (".txt",)),
        *told("diffusion-pipe takes these files for pictures; move them away", taken),
        *own_repeats_note(folders),
        *rounding_note(folders, Fraction(exposures)),
        *settings_notes(
            folders,
            {"cond_dropout": 0.0, "flip_p": 0.0, "loss_scale": 1.0, "shuffle_tags": False, "batch_id": ""},
        ),
    ]
    return Exported({"dataset.toml": "\n".join(lines) + "\n"}, Fraction(exposures), tuple(notes))


def _is_taken(name: str) -> bool:
    return not name.endswith(DIFFUSION_PIPE_PASSES_OVER)


def _flip_notes(folders: Sequence[ExampleFolder]) -> list[str]:
    names = [folder.name for folder in folders if folder.settings.flip_p not in (0.0, 0.5)]
    return told("flip_p is on or off there, with a chance of one half", names)


def _number(value: Fraction) -> int | float:
    """A whole number where it is one, else the nearest float."""
    return value.numerator if value.denominator == 1 else float(value)


def _toml(values: Mapping[str, Any]) -> Iterator[str]:
    """Lines of a TOML table; JSON's strings and numbers are TOML's, but for one control character."""
    for key, value in values.items():
        text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        yield f"{key} = {text}"


FORMATS: dict[str, Callable[[Sequence[ExampleFolder], How], Exported]] = {
    "kohya-json": kohya_json,
    "imagefolder": imagefolder,
    "onetrainer": onetrainer,
    "ai-toolkit": ai_toolkit,
    "diffusion-pipe": diffusion_pipe,
}
