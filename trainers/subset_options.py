"""A kohya dataset TOML's keys, as what they mean here: they count before the settings, as in kohya's scripts.

Keys that change nothing here are named, never passed over in silence.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.layouts.buckets import Bucket
from pipeline.settings import nearest
from trainers.caption_rules import CaptionRules
from trainers.data_settings import DataSettings

# key of a subset: (field of CaptionRules, type)
_RULES: dict[str, tuple[str, type]] = {
    "caption_separator": ("separator", str),
    "caption_prefix": ("prefix", str),
    "caption_suffix": ("suffix", str),
    "shuffle_caption": ("shuffle", bool),
    "keep_tokens": ("keep_tokens", int),
    "keep_tokens_separator": ("keep_tokens_separator", str),
    "secondary_separator": ("secondary_separator", str),
    "caption_tag_dropout_rate": ("tag_dropout", float),
    "enable_wildcard": ("wildcards", bool),
}
_OTHERS: dict[str, type] = {
    "caption_dropout_rate": float,
    "flip_aug": bool,
    "caption_extension": str,
    "bucket_reso_steps": int,
    "enable_bucket": bool,
}
# read by other code, or the same here in any case
_READ = {"image_dir", "num_repeats", "class_tokens", "is_reg", "resolution", "subsets", "cache_info"}
_WITHOUT_EFFECT = {
    "batch_size": "the trainer's own batch size counts",
    "min_bucket_reso": "sides begin at half the resolution",
    "max_bucket_reso": "sides end at twice the resolution, so that no bucket wastes area",
    "bucket_no_upscale": "small pictures are enlarged to their bucket",
    "random_crop": "cached latents need one crop: see --crop",
    "face_crop_aug_range": "cached latents need one crop: see --crop",
    "color_aug": "cached latents need one colouring",
    "caption_dropout_every_n_epochs": "write caption_dropout_rate",
    "token_warmup_min": "captions have all their tags from the first step",
    "token_warmup_step": "captions have all their tags from the first step",
    "alpha_mask": "the whole run has masks or none: --masked-loss alpha",
    "custom_attributes": "nothing reads them",
    "network_multiplier": "the adapter is trained at full strength",
    "validation_split": "see --validation-share",
    "validation_seed": "pictures are held out by their content: see --validation-share",
    "resize_interpolation": "pictures are scaled by Lanczos",
    "skip_image_resolution": "every picture is trained on",
}
_NOT_HERE = {"metadata_file", "conditioning_data_dir", "controlnet_data_dir"}


@dataclass(frozen=True, slots=True)
class SubsetTerms:
    """What a subset says of its pictures."""

    rules: CaptionRules
    conditional_dropout: float
    flip_p: float
    sizes: tuple[Bucket, ...]
    caption_extension: str


def check_config(path: Path, problems: list[str], notes: list[str]) -> None:
    """Look for keys that are unknown or change nothing.

    Args:
        problems, notes: take what is found, one sentence each.

    Raises:
        InputError: broken TOML, no data set in it, or one of a kind that is not trained on here.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error
    datasets = data.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        raise InputError(f"{path} names no data set", hint="write [[datasets]] and [[datasets.subsets]]")
    tables = [
        data.get("general", {}),
        *datasets,
        *(sub for one in datasets for sub in one.get("subsets", [])),
    ]
    known = {*_RULES, *_OTHERS, *_READ, *_WITHOUT_EFFECT}
    for table in tables:
        repeats = table.get("num_repeats", 1)
        if not isinstance(repeats, int) or isinstance(repeats, bool):
            raise InputError(f"num_repeats = {repeats!r} in {path} must be a whole number", hint="write 1")
        if not isinstance(table.get("image_dir", ""), str):
            raise InputError(f"image_dir = {table['image_dir']!r} in {path} must be a text in quotes")
    for key in dict.fromkeys(key for table in tables for key in table):
        if key in _NOT_HERE:
            raise InputError(
                f"{path} has {key}, and only folders of pictures are trained on here",
                hint="celforge import-dataset makes a tree of a metadata file",
            )
        if key in _WITHOUT_EFFECT:
            notes.append(f"{key} in {path} has no effect: {_WITHOUT_EFFECT[key]}")
        elif key not in known:
            near = nearest(key, known)
            hint = f"did you mean {near}" if near else "take it out"
            problems.append(f"{key} in {path} is no key of a dataset TOML; {hint}")


def terms_of_options(
    options: Mapping[str, Any], settings: DataSettings, rules: CaptionRules, problems: list[str]
) -> SubsetTerms:
    """What a subset's keys say, and the settings where they say nothing.

    Args:
        rules: those of the settings.
        problems: takes keys of a wrong type, which then say nothing.
    """
    told: dict[str, Any] = {}
    for key, value in options.items():
        kind = _RULES[key][1] if key in _RULES else _OTHERS.get(key)
        if kind is None or value in ("", None):
            continue
        if _is_kind(value, kind, is_chance=key.endswith("_rate")):
            told[key] = kind(value)
        else:
            problems.append(f"{key} = {value!r} in a dataset TOML must be {_KINDS[kind]}; it says nothing so")
    rules = replace(rules, **{field: told[key] for key, (field, _) in _RULES.items() if key in told})
    return SubsetTerms(
        rules,
        told.get("caption_dropout_rate", settings.conditional_dropout),
        settings.flip_p if "flip_aug" not in told else 0.5 * told["flip_aug"],
        _sizes(
            options.get("resolution"),
            replace(
                settings,
                buckets=told.get("enable_bucket", settings.buckets),
                bucket_step_px=told.get("bucket_reso_steps") or settings.bucket_step_px,
            ),
            problems,
        ),
        told.get("caption_extension") or settings.caption_extension,
    )


_KINDS = {
    str: "a text",
    bool: "true or false",
    int: "a whole number from 0 up",
    float: "a number from 0 to 1",
}


def _is_kind(value: Any, kind: type, *, is_chance: bool) -> bool:
    if kind in (str, bool):
        return isinstance(value, kind)
    is_number = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    return is_number and value >= 0 and (not is_chance or value <= 1)


def _sizes(resolution: Any, settings: DataSettings, problems: list[str]) -> tuple[Bucket, ...]:
    """Buckets of a resolution: one number, or width and height, whose area counts; without buckets the size
    itself.

    Args:
        settings: with what the subset says of buckets.
    """
    if resolution is None:
        return settings.sizes()
    sides = resolution if isinstance(resolution, list) else [resolution, resolution]
    if len(sides) != 2 or not all(isinstance(side, int) and 64 <= side <= 4096 for side in sides):
        problems.append(
            f"resolution = {resolution!r} in a dataset TOML must be one number or two; "
            f"{settings.resolution_px} is taken"
        )
        return settings.sizes()
    if not settings.buckets:
        return (Bucket(*sides),)
    return replace(settings, resolution_px=math.isqrt(sides[0] * sides[1])).sizes()
