"""Prompts to sample while training: kohya's files (.txt with flags, .toml, .json) and EveryDream's (.json).

Kohya's .txt has one prompt a line; `#` begins a comment line; flags follow the text: `--n` negative prompt,
`--w --h` size, `--d` seed, `--s` steps, `--l` guidance scale, `--ss` sampler; and our own `--gr`, guidance
rescale.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.settings import nearest
from trainers.samplers import SAMPLERS, canonical_name

LARGEST_SIZE_PX = 4096
MOST_STEPS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One picture to make."""

    text: str
    negative: str = ""
    number: int = 0  # place in the file, from 0
    width_px: int = 0  # 0: as the model was made for
    height_px: int = 0
    aspect_ratio: float = 0.0  # width over height, of the model's own area; 0: not asked for
    seed: int | None = None  # None: from the run's seed and the number
    steps: int = 30
    guidance: float = 7.5
    guidance_rescale: float | None = None  # 0 to 1, as `samples.rescaled`; None: not asked for
    sampler: str = "ddim"


Field = tuple[str, Callable[[Any], Any]]  # of Prompt, and what its value is made with


def _integer(least: int, most: int) -> Callable[[Any], int]:
    def make(value: Any) -> int:
        number = int(value)
        if isinstance(value, bool | float) or not least <= number <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return number

    return make


def _guidance(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not 0 <= number <= 100:
        raise ValueError("must be a number from 0 to 100")
    return number


def _share(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ValueError("must be a number from 0 to 1")
    return number


def _seed(value: Any) -> int | None:
    """A negative one asks for any; ours is any, and the same each time."""
    number = _integer(-1, 2**63 - 1)(value)
    return None if number < 0 else number


def _sampler(value: Any) -> str:
    name = canonical_name(str(value))
    if name is None:
        near = nearest(str(value).lower(), SAMPLERS)
        raise ValueError(f"is not a sampler; write {near or 'one of ' + ', '.join(SAMPLERS)}")
    return name


_TEXT: Field = ("text", str)
_NEGATIVE: Field = ("negative", str)
_WIDTH: Field = ("width_px", _integer(8, LARGEST_SIZE_PX))
_HEIGHT: Field = ("height_px", _integer(8, LARGEST_SIZE_PX))
_SEED: Field = ("seed", _seed)
_STEPS: Field = ("steps", _integer(1, MOST_STEPS))
_GUIDANCE: Field = ("guidance", _guidance)
_RESCALE: Field = ("guidance_rescale", _share)
_SAMPLER: Field = ("sampler", _sampler)
_FLAGS: Mapping[str, Field] = {
    "n": _NEGATIVE,
    "w": _WIDTH,
    "h": _HEIGHT,
    "d": _SEED,
    "s": _STEPS,
    "l": _GUIDANCE,
    "gr": _RESCALE,
    "ss": _SAMPLER,
}
_KEYS: Mapping[str, Field] = {  # of kohya's .toml and .json
    "prompt": _TEXT,
    "negative_prompt": _NEGATIVE,
    "width": _WIDTH,
    "height": _HEIGHT,
    "seed": _SEED,
    "sample_steps": _STEPS,
    "scale": _GUIDANCE,
    "guidance_rescale": _RESCALE,
    "sample_sampler": _SAMPLER,
}
_EVERYDREAM_KEYS: Mapping[str, Field] = {
    "prompt": _TEXT,
    "negative_prompt": _NEGATIVE,
    "seed": _SEED,
    "aspect_ratio": ("aspect_ratio", float),
}
_EVERYDREAM_GENERAL: Mapping[str, Field] = {
    "seed": _SEED,
    "num_inference_steps": _STEPS,
    "scheduler": _SAMPLER,
}
# of EveryDream's file too, but of the trainer, not of a picture
_EVERYDREAM_ELSEWHERE = {
    "batch_size",
    "cfgs",
    "samples",
    "show_progress_bars",
    "generate_samples_every_n_steps",
    "generate_pretrain_samples",
}


def read_prompts(path: Path) -> list[Prompt]:
    """Read a file of prompts, by its suffix.

    Raises:
        InputError: missing, empty, or a line or key that cannot be understood; it is named.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"there is no file of prompts {path}", hint="look at its name") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", hint="save it as text in UTF-8") from error
    readers = {".toml": _read_toml, ".json": _read_json}
    found = list(readers.get(path.suffix.lower(), _read_lines)(text, path))
    if not found:
        raise InputError(
            f"{path} has no prompts", hint="write one a line, such as: girl, smile --w 512 --h 768"
        )
    return [replace(prompt, number=number) for number, prompt in enumerate(found)]


def _read_lines(text: str, path: Path) -> Iterator[Prompt]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield _read_line(line.strip(), f"{path.name} line {number}")


def _read_line(line: str, where: str) -> Prompt:
    text, *flags = re.split(r"(?:^|\s)--(?=[A-Za-z])", line)
    values: dict[str, Any] = {}
    for flag in flags:
        name, _, value = flag.strip().partition(" ")
        if name.lower() not in _FLAGS:
            raise InputError(
                f"--{name} in {where} is not known here",
                hint=f"take it out; known are --{', --'.join(_FLAGS)}",
            )
        if not value.strip() and name.lower() != "n":
            raise InputError(f"--{name} in {where} has no value", hint="write one behind it, or take it out")
        _put(values, _FLAGS[name.lower()], value.strip(), f"--{name} in {where}")
    if not text.strip():
        raise InputError(f"{where} has flags and no prompt", hint="write the prompt in front of them")
    return Prompt(text=text.strip(), **values)


def _put(values: dict[str, Any], one: Field, value: Any, where: str) -> None:
    name, make = one
    try:
        values[name] = make(value)
    except (ValueError, TypeError) as error:
        hint = str(error) if "must" in str(error) or "write" in str(error) else "must be a number"
        raise InputError(f"{where} cannot be {value!r}", hint=hint) from error


def _read_toml(text: str, path: Path) -> Iterator[Prompt]:
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}", hint="mend that line") from error
    general = read.get("prompt")
    if not isinstance(general, dict) or not isinstance(general.get("subset", []), list):
        raise InputError(
            f"{path} has no section [prompt]", hint="write [prompt], and [[prompt.subset]] for each"
        )
    subsets = general.pop("subset", None) or [{}]
    for number, subset in enumerate(subsets, start=1):
        yield _of_keys({**general, **subset}, _KEYS, f"{path.name}, prompt {number}")


def _read_json(text: str, path: Path) -> Iterator[Prompt]:
    try:
        read = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}", hint="mend that line") from error
    if isinstance(read, dict):
        yield from _read_everydream(read, path)
        return
    if not isinstance(read, list):
        raise InputError(f"{path} has no list of prompts", hint='write ["first prompt", "second prompt"]')
    for number, one in enumerate(read, start=1):
        where = f"{path.name}, prompt {number}"
        yield _of_keys({"prompt": one} if isinstance(one, str) else one, _KEYS, where)


def _read_everydream(read: Mapping[str, Any], path: Path) -> Iterator[Prompt]:
    """Each sample once for every guidance scale of `cfgs`."""
    samples, scales = read.get("samples"), read.get("cfgs", [7, 4, 1.01])
    if not isinstance(samples, list) or not isinstance(scales, list):
        raise InputError(
            f"{path} has no list `samples`", hint='write {"samples": [{"prompt": "girl, smile"}]}'
        )
    general = {key: value for key, value in read.items() if key not in _EVERYDREAM_ELSEWHERE}
    values = _values(general, _EVERYDREAM_GENERAL, path.name)
    for number, sample in enumerate(samples, start=1):
        where = f"{path.name}, sample {number}"
        if not isinstance(sample, dict):
            raise InputError(f"{where} is not an object", hint='write {"prompt": "girl, smile"}')
        if sample.get("random_caption"):
            raise InputError(f"{where} asks for a random caption", hint="write the caption as its prompt")
        size = sample.get("size")
        if size is not None and not (isinstance(size, list) and len(size) == 2):
            raise InputError(f"size of {where} is not a pair", hint="write [width, height]")
        own = {key: value for key, value in sample.items() if key not in ("size", "random_caption")}
        own_values = {**values, **_values(own, _EVERYDREAM_KEYS, where)}
        for field, value in zip((_WIDTH, _HEIGHT), size or (), strict=False):
            _put(own_values, field, value, f"size of {where}")
        if not own_values.get("text", "").strip():
            raise InputError(f"{where} has no prompt", hint='write "prompt": "girl, smile"')
        for scale in scales:
            _put(own_values, _GUIDANCE, scale, f"cfgs of {path.name}")
            yield Prompt(**own_values)


def _of_keys(read: Any, known: Mapping[str, Field], where: str) -> Prompt:
    if not isinstance(read, dict):
        raise InputError(f"{where} is not a table of keys", hint='write {"prompt": "girl, smile"}')
    values = _values({key: value for key, value in read.items() if key != "enum"}, known, where)
    if not values.get("text", "").strip():
        raise InputError(f"{where} has no prompt", hint="write prompt = ...")
    return Prompt(**values)


def _values(read: Mapping[str, Any], known: Mapping[str, Field], where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in read.items():
        if key not in known:
            near = nearest(key, known)
            hint = f"write {near}" if near else f"take it out; known are {', '.join(known)}"
            raise InputError(f"{key} in {where} is not known", hint=hint)
        _put(values, known[key], value, f"{key} in {where}")
    return values


def to_words(prompt: Prompt) -> dict[str, Any]:
    """A prompt as JSON holds it."""
    return {one.name: getattr(prompt, one.name) for one in fields(prompt)}
