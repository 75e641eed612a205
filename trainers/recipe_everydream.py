"""EveryDream2's train.json, with its optimizer.json, as a [[train]].

What the keys do is told from its behaviour; nothing of it is in here.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.settings import nearest
from trainers.recipe_notes import OPTIONS, Recipe

DECAY_RATIO, WARMUP = 1.5, 0.03  # its cosine is so much longer than the run, and 2 % of it is warmup
# what it takes where a train.json says nothing
_DEFAULTS: Mapping[str, Any] = {
    "batch_size": 2,
    "accumulation": 1,
    "clip_skip": 1,
    "conditional_dropout": 0.04,
    "resolution_px": 512,
    "epochs": 300.0,
    "learning_rate": 1e-6,
    "lr_schedule": "constant",
    "optimizer": "adamw8bit",
    "weight_decay": 0.01,
    "max_grad_norm": 0.0,
    "warmup": WARMUP,
    "seed": 555,
    "shuffle": False,
    "keep_tokens": 1,
    "train": "both",
    "precision": "fp16",
    "save_precision": "fp16",
    "log_every": 25,
    "sample_every": 250,
    "layout": "everydream",
    "bucket_step_px": 64,
    "max_tokens": 75,
}
SAME: Mapping[str, str] = {
    "resume_ckpt": "base",
    "data_root": "data",
    "batch_size": "batch_size",
    "grad_accum": "accumulation",
    "cond_dropout": "conditional_dropout",
    "resolution": "resolution_px",
    "max_epochs": "epochs",
    "lr": "learning_rate",
    "shuffle_tags": "shuffle",
    "log_step": "log_every",
    "sample_steps": "sample_every",
    "sample_prompts": "prompts",
    "gradient_checkpointing": "gradient_checkpointing",
    "clip_grad_norm": "max_grad_norm",
}
# the same too, and 0 is as if nothing were said
OFF_AT_ZERO: Mapping[str, str] = {
    "min_snr_gamma": "min_snr_gamma",
    "zero_frequency_noise_ratio": "noise_offset",
    "pyramid_noise_discount": "pyramid_discount",
    "timestep_start": "min_timestep",
    "timestep_end": "max_timestep",
    "ema_decay_rate": "ema",
    "ema_update_interval": "ema_every",
}
_NOT_NEEDED: Mapping[str, str] = {
    "config": "it was read",
    "amp": "see precision",
    "disable_xformers": "attention is always fused",
    "attn_type": "attention is always fused",
    "gpuid": "see device",
    "lowvram": "see gradient_checkpointing",
    "logdir": "what is logged lies in the folder of the run",
    "notebook": "bars are drawn where there is a terminal",
    "save_optimizer": "a state is always saved",
    "no_save_ckpt": "models are small or kept by keep_last",
    "save_ckpt_dir": "files go into models/NAME; write out = FOLDER for another place",
    "optimizer_config": "it was read",
    "write_schedule": "the order of pictures follows from the seed",
    "num_workers": "latents are cached",
    "run_name": "project_name is the name of the run",
    "model_type": "",
}
_WITHOUT_EQUAL: Mapping[str, str] = {
    "ckpt_every_n_minutes": "models would be saved by the clock: here by steps, see save_every",
    "save_every_n_epochs": "models would be saved by epochs: here by steps, see save_every",
    "save_ckpts_from_n_epochs": "no model would be saved before this epoch",
    "flip_p": "EveryDream2 never reads it: flip_p.txt in folders mirrors, there and here",
    "wandb": "metrics would go to a service: metrics.jsonl is always written, and see tensorboard",
    "scale_lr": "the learning rate would grow with the batch",
    "rated_dataset": "pictures of low ratings would be left out more and more",
    "rated_dataset_target_dropout_percent": "how many of them at the end",
    "validation_config": "the loss would be measured on pictures held back",
    "loss_type": "another loss than the squared error",
    "embedding_perturbation": "noise would be added to the text's embedding",
    "load_settings_every_epoch": "train.json would be read again each epoch",
    "plugins": "Python of its own would be called",
    "ema_strength_target": "the decay of the average would follow from it",
    "ema_device": "where the average lies",
    "ema_sample_nonema_model": "pictures would be drawn without the average",
    "ema_sample_ema_model": "pictures would be drawn by the average",
    "ema_resume_model": "the average would begin from this model",
    "ed1_mode": "",
    "keep_tags": "EveryDream2 keeps the first part in front whatever it says, and so it is here",
    "freeze_unet_balanced": "parts of the UNet would be frozen now and then",
    "train_sampler": "another noise schedule would be trained on: here that of the model",
    "cond_dropout_noise_p": "left out captions would become noise",
    "save_ckpts_only": "",
}
Convert = Callable[[Recipe, Mapping[str, Any], str, Any], object]


def read_json(path: Path) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", hint="mend it, or give another file") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no settings", hint="give EveryDream2's train.json")
    return found


def import_everydream(options: Mapping[str, Any], folder: Path) -> Recipe:
    """The recipe of a train.json.

    Args:
        folder: where optimizer.json lies, when it is named without a path.

    Raises:
        InputError: an optimizer.json that cannot be read.
    """
    recipe = Recipe(values={"kind": "full"}, defaults=dict(_DEFAULTS))
    for name, value in options.items():
        if value is None or value == "":
            continue
        if name in _CONVERTED:
            _CONVERTED[name](recipe, options, name, value)
        elif value is False or (value == 0 and name in OFF_AT_ZERO):
            continue
        elif name in SAME or name in OFF_AT_ZERO:
            recipe.take(SAME.get(name) or OFF_AT_ZERO[name], value, name)
        elif name in _NOT_NEEDED:
            recipe.note(name, value, "not needed", _NOT_NEEDED[name] or "it is so here in any case")
        elif name in _WITHOUT_EQUAL:
            recipe.note(name, value, "no equal", _WITHOUT_EQUAL[name] or "nothing here does it")
        else:
            near = nearest(name, [*SAME, *OFF_AT_ZERO, *_NOT_NEEDED, *_WITHOUT_EQUAL, *_CONVERTED])
            hint = f"; did you mean {near}?" if near else ""
            recipe.note(name, value, "no equal", f"is not known here, and nothing does it{hint}")
    _optimizer(recipe, options, folder)
    _say_of_defaults(recipe, options)
    return recipe


def _clip_skip(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    recipe.take("clip_skip", max(1, int(value)), name)


def _seed(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    recipe.take("seed", max(0, int(value)), name)
    if int(value) < 0:
        recipe.note(name, value, "differs", "would be drawn anew for each run; it is 0 here")


def _text_off(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    if value:
        recipe.take("train", "unet", name)


def _unet_off(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    if value:
        recipe.take("train", "text-encoder", name)


def _base(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    if value == "findlast":
        recipe.note(name, value, "differs", "the same command goes on by itself here; write base = MODEL")
    else:
        recipe.take("base", str(value), name)


def _amp_off(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    if value:
        recipe.take("precision", "fp32", name)


def _full_precision(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    recipe.take("save_precision", "fp32" if value else "fp16", name)


def _loss(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    if value != "mse":
        recipe.note(name, value, "no equal", _WITHOUT_EQUAL[name])


def _zero_snr(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    if value:
        recipe.take("zero_terminal_snr", "on", name)


def _of_optimizer(_recipe: Recipe, _options: Mapping[str, Any], _name: str, _value: Any) -> None:
    """Taken with optimizer.json, which counts before it."""


_CONVERTED: Mapping[str, Convert] = {
    "resume_ckpt": _base,
    "project_name": lambda recipe, _, name, value: recipe.take("name", str(value), name),
    "clip_skip": _clip_skip,
    "seed": _seed,
    "disable_textenc_training": _text_off,
    "disable_unet_training": _unet_off,
    "disable_amp": _amp_off,
    "save_full_precision": _full_precision,
    "lr_scheduler": _of_optimizer,
    "lr_decay_steps": _of_optimizer,
    "lr_warmup_steps": _of_optimizer,
    "loss_type": _loss,
    "enable_zero_terminal_snr": _zero_snr,
}


def _optimizer(recipe: Recipe, options: Mapping[str, Any], folder: Path) -> None:
    path = Path(folder, str(options.get("optimizer_config") or "optimizer.json"))
    if not path.is_file() and "optimizer_config" in options:
        recipe.note(
            "optimizer_config",
            options["optimizer_config"],
            "differs",
            f"{path} is not here: its defaults are taken",
        )
    config = read_json(path) if path.is_file() else {}
    base, text = (dict(config.get(part) or {}) for part in ("base", "text_encoder_overrides"))
    if base.get("lr") is not None and options.get("lr") is None:
        recipe.take("learning_rate", base["lr"], "optimizer.json base lr")
    if text.get("lr") is not None and options.get("lr") is None:
        recipe.take("text_encoder_learning_rate", text["lr"], "optimizer.json text_encoder_overrides lr")
    scale = config.get("text_encoder_lr_scale")
    if scale is not None and text.get("lr") is None and scale != 1:
        rate = recipe.values.get("learning_rate", _DEFAULTS["learning_rate"]) * scale
        recipe.take("text_encoder_learning_rate", rate, "optimizer.json text_encoder_lr_scale")
    name = str(base.get("optimizer") or "adamw8bit")
    recipe.take("optimizer", name if name in ("adamw", "adamw8bit") else "adamw", "optimizer.json optimizer")
    if name not in ("adamw", "adamw8bit"):
        recipe.note("optimizer.json optimizer", name, "no equal", "would be the optimizer; adamw is taken")
    if base.get("weight_decay") is not None:
        recipe.take("weight_decay", base["weight_decay"], "optimizer.json weight_decay")
    usual = {"betas": [0.9, 0.999], "epsilon": 1e-8}
    arguments = [
        f"{ours}={tuple(base[theirs]) if theirs == 'betas' else base[theirs]}"
        for theirs, ours in (("betas", "betas"), ("epsilon", "eps"))
        if base.get(theirs) not in (None, usual[theirs])
    ]
    if arguments:
        recipe.take("optimizer_arg", arguments, "optimizer.json")
    _schedule(recipe, options, base)
    for key, value in text.items():
        if key != "lr" and value is not None and value != base.get(key):
            recipe.note(
                f"optimizer.json text_encoder_overrides {key}", value, "no equal", "both parts have one here"
            )
    for key, value in (config.get("text_encoder_freezing") or {}).items():
        if value not in (None, False):
            recipe.note(
                f"optimizer.json {key}", value, "no equal", "parts of the text encoder would be frozen"
            )


def _schedule(recipe: Recipe, options: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    schedule = base.get("lr_scheduler") or options.get("lr_scheduler") or "constant"
    is_known = schedule in ("constant", "linear", "cosine")
    if not is_known and schedule != "constant_with_warmup":
        recipe.note(
            "lr_scheduler", schedule, "no equal", 'another course of the learning rate; "constant" is taken'
        )
    recipe.take("lr_schedule", schedule if is_known else "constant", "lr_scheduler")
    warmup = base.get("lr_warmup_steps") or options.get("lr_warmup_steps")
    if schedule == "constant":
        recipe.values["warmup"] = 0.0  # diffusers' constant schedule has none
        if warmup:
            recipe.note("lr_warmup_steps", warmup, "not needed", "its constant schedule has no warmup")
    elif warmup is not None:
        recipe.take("warmup", warmup, "lr_warmup_steps")
    decay = base.get("lr_decay_steps") or options.get("lr_decay_steps")
    if schedule not in ("cosine", "linear"):
        return
    recipe.values["decay_ratio"] = DECAY_RATIO
    if decay:
        recipe.note(
            "lr_decay_steps",
            decay,
            "differs",
            "the fall is told here by decay_ratio, over the length of the run: its own 1.5 is taken",
        )


def _say_of_defaults(recipe: Recipe, options: Mapping[str, Any]) -> None:
    if "loss_type" not in options:
        recipe.note(
            "loss_type",
            None,
            "differs",
            "newer versions of EveryDream2 mix the squared error with huber's; here the first",
        )
    if "zero_frequency_noise_ratio" not in options:
        if "noise_offset" in OPTIONS:
            recipe.defaults["noise_offset"] = 0.02
        else:
            recipe.note(
                "zero_frequency_noise_ratio",
                0.02,
                "no equal",
                "a little noise that is one for a whole picture",
            )
    if "ckpt_every_n_minutes" not in options:
        recipe.note("ckpt_every_n_minutes", 20, "differs", "models are saved by steps here: see save_every")
