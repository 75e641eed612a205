"""Optimizers by name, from the libraries that keep them best, or any class by its path.

name                  class                                     source
adamw                 torch.optim.AdamW, fused                  Loshchilov and Hutter 2019, arXiv:1711.05101
adamw8bit, lion8bit   bitsandbytes: states of 8 bits            Dettmers et al. 2022, arXiv:2110.02861
adafactor             transformers.optimization.Adafactor       Shazeer and Stern 2018, arXiv:1804.04235
came                  pytorch_optimizer.CAME                    Luo et al. 2023, arXiv:2307.02047
lion                  pytorch_optimizer.Lion                    Chen et al. 2023, arXiv:2302.06675
prodigy               pytorch_optimizer.Prodigy                 Mishchenko and Defazio 2024, arXiv:2306.06101
schedule-free-adamw   pytorch_optimizer.ScheduleFreeAdamW       Defazio et al. 2024, arXiv:2405.15682
muon                  torch.optim.Muon, AdamW beside it         Liu et al. 2025, arXiv:2502.16982

The decay of weights of all of them is decoupled: beside the step each weight loses its share
`learning_rate * weight_decay` (Loshchilov and Hutter, algorithm 2), whatever its gradient is.
"""

import ast
import importlib
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.errors import SettingsError
from pipeline.settings import nearest
from trainers.muon import MuonAndAdamW


@dataclass(frozen=True, slots=True)
class Traits:
    """What the trainer must know of an optimizer.

    Args:
        state_bytes: of one trainable number in its memory.
        factored: means of rows and columns kept for each matrix, in place of numbers of their own.
        scratch_numbers: in fp32, that a step takes for a while for each number of a weight.
        sees_matrices: it looks at rows and columns, so that it must be given each matrix by itself.
        is_alike: it steps everything with one learning rate.
    """

    state_bytes: int
    factored: int = 0
    scratch_numbers: float = 0.0
    sees_matrices: bool = False
    is_alike: bool = False

    def memory_bytes(self, shapes: Iterable[Sequence[int]]) -> int:
        """Of its memory of weights of these shapes.

        Means of a weight of more than two dimensions are over its last two, as of Adafactor of transformers:
        of a 3 x 3 kernel they are hardly less than the weight.
        """
        total = 0
        for shape in shapes:
            numbers = math.prod(shape)
            total += numbers * self.state_bytes
            if self.factored and len(shape) >= 2:
                total += 4 * self.factored * (numbers // shape[-1] + numbers // shape[-2])
            elif self.factored:
                total += 4 * numbers
        return total


KNOWN: Mapping[str, Traits] = {
    "adamw": Traits(8),
    "adamw8bit": Traits(2, scratch_numbers=5),
    "adafactor": Traits(0, factored=1, scratch_numbers=2.7, sees_matrices=True),
    "came": Traits(4, factored=2, scratch_numbers=2.7, sees_matrices=True),
    "lion": Traits(4, scratch_numbers=1),
    "lion8bit": Traits(1, scratch_numbers=5),
    "muon": Traits(8, scratch_numbers=3, sees_matrices=True),
    "prodigy": Traits(16, scratch_numbers=2, is_alike=True),
    "schedule-free-adamw": Traits(8, scratch_numbers=1),
}
UNKNOWN = Traits(
    8, scratch_numbers=2, sees_matrices=True
)  # a class of one's own: nothing is known, so it gets each matrix
_PACKAGE_CLASSES = {
    "came": "CAME",
    "lion": "Lion",
    "prodigy": "Prodigy",
    "schedule-free-adamw": "ScheduleFreeAdamW",
}
_EIGHT_BIT_CLASSES = {"adamw8bit": "AdamW8bit", "lion8bit": "Lion8bit"}


def traits_of(name: str) -> Traits:
    """Those of an optimizer by its name or path."""
    return KNOWN.get(name, UNKNOWN)


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """`name=value` texts as keyword arguments; values as Python writes them: numbers, texts, tuples.

    Raises:
        SettingsError: no `=`, or a value that is not one.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if not name.isidentifier():
            raise _no_argument(text)
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise _no_argument(text) from error
    return found


def _no_argument(text: str) -> SettingsError:
    return SettingsError(
        f'an optimizer argument must be name=value, found "{text}"',
        hint='for instance --optimizer-arg eps=1e-6 --optimizer-arg "betas=(0.9, 0.99)"',
    )


def make_optimizer(
    name: str, groups: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """An optimizer over parameter groups.

    Args:
        name: one of `KNOWN`, or the import path of a class, such as `torch.optim.Adam`.
        groups: each with `params` and `lr`.
        arguments: of the class; `weight_decay`, `betas` and so on.

    Raises:
        SettingsError: no such class, the package is not installed, or it does not take these arguments.
    """
    given = [dict(group) for group in groups]
    if name == "adamw":
        return _make(torch.optim.AdamW, given, {"fused": True, **arguments})
    if name == "adafactor":
        # the learning rate is the one that was given, not one of its own making
        defaults = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
        adafactor = importlib.import_module("transformers.optimization").Adafactor
        return _make(adafactor, given, {**defaults, **arguments})
    if name == "muon":
        return _make(MuonAndAdamW, given, arguments)
    if name in _EIGHT_BIT_CLASSES:
        return _make(_eight_bit_class(name), given, arguments)
    kind = _package_class(name) if name in _PACKAGE_CLASSES else _class_at(name)
    return _make(kind, given, arguments)


def check_optimizer(name: str, arguments: Mapping[str, Any]) -> None:
    """See that an optimizer can be made, before anything large is loaded. Raises as `make_optimizer`."""
    make_optimizer(name, [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1e-4}], arguments)


def _make(kind: Any, groups: list[dict[str, Any]], arguments: Mapping[str, Any]) -> torch.optim.Optimizer:
    try:
        _refuse_unknown(kind, arguments)
        made = kind(groups, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"{kind.__module__}.{kind.__qualname__} does not take these arguments: {error}",
            hint="see --optimizer-arg",
        ) from error
    if not isinstance(made, torch.optim.Optimizer):
        raise SettingsError(
            f"{kind.__module__}.{kind.__qualname__} is not an optimizer of torch", hint="see --optimizer"
        )
    return made


def _refuse_unknown(kind: Any, arguments: Mapping[str, Any]) -> None:
    """Classes that swallow every name (`**kwargs`) would take a mistyped one in silence."""
    try:
        known = inspect.signature(kind).parameters
    except (TypeError, ValueError):
        return  # it is not written in Python
    for name in arguments:
        if name not in known:
            near = nearest(name, known)
            raise TypeError(f'there is no "{name}"' + (f', did you mean "{near}"?' if near else ""))


def _package_class(name: str) -> Any:
    try:
        return getattr(importlib.import_module("pytorch_optimizer"), _PACKAGE_CLASSES[name])
    except ImportError as error:
        raise SettingsError(
            f"{name} needs pytorch-optimizer, which does not load: {error}",
            hint="pip install 'celforge[optimizers]', or --optimizer adamw",
        ) from error


def _eight_bit_class(name: str) -> Any:
    try:
        return getattr(importlib.import_module("bitsandbytes.optim"), _EIGHT_BIT_CLASSES[name])
    except (ImportError, RuntimeError, OSError) as error:
        raise SettingsError(
            f"{name} needs bitsandbytes, which does not load: {error}",
            hint="pip install 'celforge[8bit]', or --optimizer adamw",
        ) from error


def _class_at(path: str) -> Any:
    module_name, _, class_name = path.rpartition(".")
    if not module_name:
        near = nearest(path, KNOWN)
        hint = (
            f'did you mean "{near}"?' if near else f"known: {', '.join(KNOWN)}, or a path: torch.optim.Adam"
        )
        raise SettingsError(f'there is no optimizer "{path}"', hint=hint)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SettingsError(
            f'the optimizer "{path}" cannot be imported: {error}',
            hint="install its package, or --optimizer adamw",
        ) from error
    if not hasattr(module, class_name):
        near = nearest(class_name, dir(module))
        raise SettingsError(
            f"{module_name} has no {class_name}", hint=f'did you mean "{module_name}.{near}"?' if near else ""
        )
    return getattr(module, class_name)
