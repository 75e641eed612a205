"""A [[train]] of a full checkpoint as EveryDream2's train.json and optimizer.json."""

import json
import math
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from trainers.recipe_everydream import DECAY_RATIO, OFF_AT_ZERO, SAME, WARMUP
from trainers.recipe_notes import OPTIONS, Note
from trainers.train_settings import Settings


def export_everydream(
    settings: Settings, images_per_epoch: float | None
) -> tuple[dict[str, Any], dict[str, Any], list[Note]]:
    """train.json, optimizer.json, and what has no equal.

    Args:
        images_per_epoch: pictures that an epoch shows, repeats counted; None where the data are not there.

    Raises:
        InputError: an adapter, which EveryDream2 does not train.
    """
    if settings.kind != "full":
        raise InputError(
            f"EveryDream2 trains no {settings.kind}: whole checkpoints alone",
            hint="celforge recipe export kohya",
        )
    notes: list[Note] = []
    train: dict[str, Any] = {
        theirs: _plain(getattr(settings, ours)) for theirs, ours in SAME.items() if ours != "epochs"
    }
    train |= {
        "project_name": settings.run_name,
        "clip_skip": settings.clip_skip if settings.clip_skip > 1 else 0,
        "clip_grad_norm": settings.max_grad_norm or None,
        "data_root": str(settings.data or "dataset"),
        "seed": settings.seed,
        "disable_textenc_training": settings.train == "unet",
        "disable_unet_training": settings.train == "text-encoder",
        "disable_amp": settings.precision == "fp32",
        "save_full_precision": settings.save_precision == "fp32",
        "loss_type": "mse",
        "zero_frequency_noise_ratio": 0.0,
        "enable_zero_terminal_snr": settings.zero_terminal_snr == "on",
        "optimizer_config": "optimizer.json",
        "lr": None,
        "max_epochs": _max_epochs(settings, images_per_epoch, notes),
    }
    for theirs, ours in OFF_AT_ZERO.items():
        if getattr(settings, ours) != OPTIONS[ours].default:
            train[theirs] = getattr(settings, ours)
    optimizer = _optimizer_json(settings, notes)
    told = {*SAME.values(), *OFF_AT_ZERO.values(), *_EXPORTED}
    for one in OPTIONS.values():
        value = getattr(settings, one.name)
        if one.name not in told and value != one.default:
            notes.append(Note(one.name, value, "no equal", f"EveryDream2 lacks it: {one.help}"))
    if settings.keep_tokens > 1:
        text = "EveryDream2 keeps the first part in front and no more"
        notes.append(Note("keep_tokens", settings.keep_tokens, "no equal", text))
    if settings.save_precision == "bf16":
        notes.append(Note("save_precision", "bf16", "differs", "EveryDream2 saves fp16"))
    if settings.precision in ("bf16", "auto"):
        notes.append(Note("precision", settings.precision, "differs", "EveryDream2 computes in fp16"))
    return train, optimizer, notes


_EXPORTED = {
    "zero_terminal_snr",
    *(
        "kind",
        "name",
        "preset",
        "out",
        "layout",
        "steps",
        "epochs",
        "seed",
        "clip_skip",
        "train",
        "optimizer",
    ),
    *("optimizer_arg", "weight_decay", "lr_schedule", "warmup", "decay_ratio", "precision", "save_precision"),
    *(
        "learning_rate",
        "unet_learning_rate",
        "text_encoder_learning_rate",
        "workers",
        "device",
        "accept_changes",
    ),
    *("keep_tokens", "state_every", "max_failures", "sample_batch_size", "vae_batch_size"),
}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _max_epochs(settings: Settings, images_per_epoch: float | None, notes: list[Note]) -> int | None:
    if settings.epochs:
        if not settings.epochs.is_integer():
            notes.append(Note("epochs", settings.epochs, "differs", "EveryDream2's epochs are whole"))
        return math.ceil(settings.epochs)
    if not images_per_epoch:
        notes.append(
            Note(
                "steps",
                settings.steps,
                "no equal",
                "EveryDream2 counts epochs, and the data are not here: write max_epochs",
            )
        )
        return None
    epochs = math.ceil(settings.steps * settings.batch_size * settings.accumulation / images_per_epoch)
    notes.append(
        Note("steps", settings.steps, "differs", f"{epochs} epochs of {images_per_epoch:g} pictures")
    )
    return epochs


def _optimizer_json(settings: Settings, notes: list[Note]) -> dict[str, Any]:
    given = dict(text.partition("=")[::2] for text in settings.optimizer_arg)
    betas = json.loads(given.pop("betas", "[0.9, 0.999]").replace("(", "[").replace(")", "]"))
    epsilon = float(given.pop("eps", 1e-8))
    if given:
        notes.append(
            Note("optimizer_arg", sorted(given), "no equal", "EveryDream2 takes betas and epsilon alone")
        )
    if settings.optimizer not in ("adamw", "adamw8bit", "lion"):
        notes.append(
            Note("optimizer", settings.optimizer, "no equal", "EveryDream2 takes adamw, adamw8bit, lion")
        )
    falls = settings.lr_schedule in ("cosine", "linear")
    if falls and settings.decay_ratio != DECAY_RATIO:
        notes.append(
            Note("decay_ratio", settings.decay_ratio, "differs", "EveryDream2 falls over 1.5 times the run")
        )
    is_share = 0 < settings.warmup < 1
    if is_share and (settings.warmup != WARMUP or not falls):
        notes.append(
            Note("warmup", settings.warmup, "differs", "EveryDream2 takes steps, or 2 % of the fall")
        )
    schedule = settings.lr_schedule
    if schedule == "constant" and settings.warmup:
        schedule = "constant_with_warmup"  # type: ignore[assignment]
    unet, text = settings.unet_learning_rate, settings.text_encoder_learning_rate
    base: dict[str, Any] = {
        "optimizer": settings.optimizer,
        "lr": settings.learning_rate if unet is None else unet,
        "lr_scheduler": schedule,
        "lr_warmup_steps": int(settings.warmup) if settings.warmup >= 1 else None,
        "lr_decay_steps": None,
        "betas": betas,
        "epsilon": epsilon,
        "weight_decay": settings.weight_decay,
    }
    overrides = dict.fromkeys(base)
    text_rate = settings.learning_rate if text is None else text
    overrides["lr"] = text_rate if text_rate != base["lr"] else None
    return {"doc": {}, "base": base, "text_encoder_overrides": overrides, "text_encoder_freezing": {}}
