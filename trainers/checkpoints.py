"""States to resume from: bit for bit the run that was not broken off.

Everything random is drawn by position (trainers/draws.py), and a learning rate follows from its step, so a
state is the step, what learns, and the optimizer's memory of it.

What may change between the runs, by this rule:
- where and how often something is written, logged or drawn, and the device: freely;
- the length of the run and what the learning rate does: it is said, and holds from this step on;
- the kind, the layers, the ranks, the base model and the optimizer: never, for the state does not fit;
- everything else, the pictures among it: with --accept-changes.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import InputError, SettingsError
from pipeline.files import disk_full_as_error, partial_path
from pipeline.renaming import replace, sync_folder

FORMAT = 1
FITS_NO_OTHER = (
    *("kind", "train", "linear_dim", "conv_dim", "linear_alpha", "conv_alpha", "targets", "init"),
    *("block_dims", "block_alphas", "block_conv_dims", "block_conv_alphas", "block_learning_rates"),
    *("lora_plus_ratio", "unet_lora_plus_ratio", "text_encoder_lora_plus_ratio"),
    *("optimizer", "base_sha256", "fused_backward", "weight_precision", "embeddings"),
)
HOLDS_FROM_NOW = (
    *("steps", "epochs", "learning_rate", "unet_learning_rate", "text_encoder_learning_rate", "lr_schedule"),
    *("warmup", "decay_ratio", "max_grad_norm", "weight_decay", "text_encoder_until"),
    *("ema", "ema_every"),
    *("embedding_learning_rate", "embedding_weight_decay", "embedding_norm_pull", "embedding_until"),
)
DIGESTS = ("pictures", "captions", "masks")  # conditions that are hashes, which tell a person nothing


@dataclass(frozen=True, slots=True)
class State:
    """A moment of a run.

    Args:
        step: steps of the optimizer that are done.
        tensors: what learns, by name.
        stepper: of the optimizer and the scaler.
        conditions: settings and identities that shaped it, as JSON values.
        averages: of what learns, by name; empty where none is kept.
    """

    step: int
    tensors: Mapping[str, Tensor]
    stepper: Mapping[str, Any]
    conditions: Mapping[str, Any]
    averages: Mapping[str, Tensor] = field(default_factory=dict)


def save_state(path: Path, state: State) -> None:
    """Write a state whole or not at all.

    Raises:
        DiskFullError: no room; nothing is left behind.
    """
    temporary = partial_path(path)
    values = {
        "format": FORMAT,
        "step": state.step,
        "tensors": dict(state.tensors),
        "stepper": dict(state.stepper),
        "conditions": dict(state.conditions),
        "averages": dict(state.averages),
    }
    with disk_full_as_error(path.parent, f"writing {path.name}"):
        try:
            with temporary.open("xb") as file:
                torch.save(values, file)
                file.flush()
                os.fsync(file.fileno())
            replace(temporary, path)
            sync_folder(path.parent)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()


def load_state(path: Path) -> State:
    """Read a state, on the CPU; never a pickle with code.

    Raises:
        InputError: it cannot be read, or is of another celforge.
    """
    hint = f"move it away to go on from the state before it, or from the start: {path}"
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        found = State(
            values["step"],
            values["tensors"],
            values["stepper"],
            values["conditions"],
            values.get("averages", {}),
        )
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, EOFError, UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"the state {path} cannot be read: {reason}", hint=hint) from error
    if values["format"] != FORMAT:
        raise InputError(f"the state {path} was made by another celforge", hint=hint)
    return found


def compare_conditions(then: Mapping[str, Any], now: Mapping[str, Any], *, accept_changes: bool) -> list[str]:
    """What changed since a state was written and is taken on, a sentence each.

    Raises:
        SettingsError: something changed that the state does not fit, or that nobody has accepted.
    """
    changed = {
        name: (then.get(name), now.get(name)) for name in {**then, **now} if then.get(name) != now.get(name)
    }
    for name in FITS_NO_OTHER:
        if name in changed:
            before, after = changed[name]
            raise SettingsError(
                f"this run was begun with {name} = {before}, and its state does not fit {name} = {after}",
                hint="start another run: give another --name or --out",
            )
    refused = [name for name in changed if name not in HOLDS_FROM_NOW]
    said = [_sentence(name, *changed[name]) for name in changed]
    if refused and not accept_changes:
        raise SettingsError(
            f"this run was begun otherwise: {'; '.join(_sentence(name, *changed[name]) for name in refused)}",
            hint="put it back, start another run by --name or --out, or go on all the same: --accept-changes",
        )
    return said


def _sentence(name: str, before: object, after: object) -> str:
    if name in DIGESTS:
        return f"the {name} are not those of before"
    return f"{name} was {before} and is {after}"
