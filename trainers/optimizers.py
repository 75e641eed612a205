"""Optimizers by name: AdamW of torch, AdamW with 8-bit states of bitsandbytes, or any class by its path."""

import ast
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pipeline.errors import SettingsError
from pipeline.settings import nearest

KNOWN = ("adamw", "adamw8bit")


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
        name: "adamw", "adamw8bit", or the import path of a class, such as `torch.optim.Adam`.
        groups: each with `params` and `lr`.
        arguments: of the class; `weight_decay`, `betas` and so on.

    Raises:
        SettingsError: no such class, the package is not installed, or it does not take these arguments.
    """
    given = [dict(group) for group in groups]
    if name == "adamw":
        return _make(torch.optim.AdamW, given, {"fused": True, **arguments})
    if name == "adamw8bit":
        return _make(_eight_bit_class(), given, arguments)
    return _make(_class_at(name), given, arguments)


def check_optimizer(name: str, arguments: Mapping[str, Any]) -> None:
    """See that an optimizer can be made, before anything large is loaded. Raises as `make_optimizer`."""
    make_optimizer(name, [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1e-4}], arguments)


def _make(kind: Any, groups: list[dict[str, Any]], arguments: Mapping[str, Any]) -> torch.optim.Optimizer:
    try:
        made = kind(groups, **arguments)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"{kind.__module__}.{kind.__qualname__} does not take these arguments: {error}",
            hint="see --optimizer-arg",
        ) from error
    if not isinstance(made, torch.optim.Optimizer):
        raise SettingsError(
            f"{kind.__module__}.{kind.__qualname__} is not an optimizer of torch", hint="see --optimizer"
        )
    return made


def _eight_bit_class() -> Any:
    try:
        return importlib.import_module("bitsandbytes.optim").AdamW8bit
    except (ImportError, RuntimeError, OSError) as error:
        raise SettingsError(
            f"adamw8bit needs bitsandbytes, which does not load: {error}",
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
