"""A [[train]] as a command, or a config TOML, of kohya's scripts."""

from collections.abc import Mapping
from typing import Any

from pipeline.settings import toml_text
from trainers.recipe_kohya_options import DEFAULTS, SAME, SAME_ARGS
from trainers.recipe_notes import OPTIONS, Note
from trainers.recipe_text import command_text
from trainers.train_settings import Settings

_SCRIPT_OF_ADAPTERS, _SCRIPT_OF_CHECKPOINTS = "train_network.py", "train_db.py"
_WRITTEN = {  # by code below
    *("kind", "data", "layout", "resolution_px", "train", "targets", "conv_dim", "conv_alpha", "init"),
    *(
        "optimizer",
        "optimizer_arg",
        "weight_decay",
        "lr_schedule",
        "decay_ratio",
        "precision",
        "save_precision",
    ),
    *("save_as", "epochs", "steps", "flip_p", "out", "name", "preset", "tensorboard", "crop", "keep_last"),
    *("unet_learning_rate", "text_encoder_learning_rate"),
    *("prediction", "zero_terminal_snr", "loss", "masked_loss"),
}
# settings without an equal that shape no result, or are so in kohya's scripts in any case
_UNNEEDED = {
    "workers",
    "state_every",
    "sample_batch_size",
    "log_every",
    "max_failures",
    "accept_changes",
    "device",
}


def export_kohya(settings: Settings) -> tuple[str, dict[str, Any], list[Note]]:
    """The script's name, its options in the order that people write them, and what has no equal."""
    notes: list[Note] = []
    options = _base_and_data(settings, notes)
    options |= _what_learns(settings, notes)
    options |= _course(settings, notes)
    options |= _objective(settings)
    for theirs, ours in SAME.items():
        if ours not in _WRITTEN and theirs not in options:
            _same(settings, theirs, ours, options)
    for one in OPTIONS.values():
        is_known = one.name in {*_WRITTEN, *SAME.values(), *SAME_ARGS.values()}
        value = getattr(settings, one.name)
        if not is_known and one.name not in _UNNEEDED and value != one.default:
            notes.append(Note(one.name, value, "no equal", f"kohya's scripts lack it: {one.help}"))
    script = _SCRIPT_OF_CHECKPOINTS if settings.kind == "full" else _SCRIPT_OF_ADAPTERS
    return script, options, notes


def _same(settings: Settings, theirs: str, ours: str, options: dict[str, Any]) -> None:
    """An option that means the same, where kohya's scripts would not take this value of themselves."""
    value = getattr(settings, ours)
    is_of_no_use = (theirs.startswith("network_") and settings.kind == "full") or (
        theirs.startswith("sample_") and settings.prompts is None
    )
    is_off = value is None or value is False or value == "" or value == ()
    if is_of_no_use or is_off or (value == DEFAULTS.get(ours, 0) and theirs not in _ALWAYS):
        return
    options[theirs] = value if value is True else str(value)


_OPTIMIZER_NAMES = {  # as people write them
    "AdamW": "adamw",
    "AdamW8bit": "adamw8bit",
    "Lion": "lion",
    "Lion8bit": "lion8bit",
    "Prodigy": "prodigy",
    "AdamWScheduleFree": "schedule-free-adamw",
}
_ALWAYS = {"seed", "network_dim", "network_alpha", "train_batch_size", "learning_rate", "caption_extension"}


def _base_and_data(settings: Settings, notes: list[Note]) -> dict[str, Any]:
    options: dict[str, Any] = {"pretrained_model_name_or_path": settings.base or "BASE_MODEL"}
    data = settings.data
    if data is not None and data.suffix.lower() == ".toml":
        options["dataset_config"] = str(data)
    else:
        options["train_data_dir"] = str(data or "dataset")
        if settings.layout != "kohya":
            notes.append(
                Note(
                    "data",
                    str(data or "dataset"),
                    "differs",
                    "kohya's scripts read folders N_name; of an EveryDream tree make them: celforge flatten",
                )
            )
    options["resolution"] = str(settings.resolution_px)
    if settings.flip_p:
        options["flip_aug"] = True
        if settings.flip_p != 0.5:
            notes.append(
                Note("flip_p", settings.flip_p, "differs", "flip_aug always mirrors half of the pictures")
            )
    if settings.crop != "centre":
        notes.append(Note("crop", settings.crop, "differs", "kohya's scripts keep the middle"))
    if not settings.caption_extension:
        options["caption_extension"] = ".txt"
    return options


def _what_learns(settings: Settings, notes: list[Note]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if settings.unet_learning_rate is not None and settings.kind != "full":
        options["unet_lr"] = str(settings.unet_learning_rate)
    if settings.text_encoder_learning_rate is not None:
        name = "learning_rate_te" if settings.kind == "full" else "text_encoder_lr"
        options[name] = str(settings.text_encoder_learning_rate)
    if settings.kind == "full":
        return options | _full(settings, notes)
    is_lycoris = settings.kind == "loha" or (settings.kind == "locon" and settings.targets == "full+")
    options["network_module"] = "lycoris.kohya" if is_lycoris else "networks.lora"
    arguments = [f"algo={settings.kind}"] if is_lycoris else []
    if settings.kind != "lora" and (settings.conv_dim or is_lycoris):
        arguments += [f"conv_dim={settings.conv_dim}", f"conv_alpha={settings.conv_alpha:g}"]
    if is_lycoris:
        preset = "attn-mlp" if settings.targets == "attention" else "full"
        arguments.append(f"preset={preset}")
        if settings.targets != "full+":
            notes.append(
                Note("targets", settings.targets, "differs", f"LyCORIS's preset {preset} is near it")
            )
    elif (settings.kind == "lora") != (settings.targets == "attention") or (
        settings.kind == "locon" and not settings.conv_dim
    ):
        notes.append(
            Note("targets", settings.targets, "differs", "networks.lora chooses its layers by conv_dim alone")
        )
    arguments += [
        f"{theirs}={getattr(settings, ours)}"
        for theirs, ours in SAME_ARGS.items()
        if getattr(settings, ours) != OPTIONS[ours].default
    ]
    if arguments:
        options["network_args"] = arguments
    if settings.kind == "loha" and settings.init != "lycoris":
        notes.append(Note("init", settings.init, "differs", "LyCORIS begins as it does today"))
    if settings.train == "unet":
        options["network_train_unet_only"] = True
        options.pop("text_encoder_lr", None)
    return options


def _objective(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if settings.prediction == "v":
        options["v_parameterization"] = True
    if settings.zero_terminal_snr == "on":
        options["zero_terminal_snr"] = True
    if settings.loss != "l2":
        options["loss_type"] = settings.loss.replace("-", "_")
    if settings.masked_loss != OPTIONS["masked_loss"].default:
        options["masked_loss"] = True
        if settings.masked_loss == "alpha":
            options["alpha_mask"] = True
    return options


def _full(settings: Settings, notes: list[Note]) -> dict[str, Any]:
    options: dict[str, Any] = {
        "save_model_as": "diffusers" if settings.save_as == "diffusers" else "safetensors"
    }
    if settings.save_as == "both":
        notes.append(Note("save_as", "both", "differs", "one form is saved"))
    if settings.unet_learning_rate is not None:
        options["learning_rate"] = str(settings.unet_learning_rate)
        if settings.text_encoder_learning_rate is None:
            options["learning_rate_te"] = str(settings.learning_rate)
    if settings.train == "unet":
        options["stop_text_encoder_training"] = "-1"
    elif settings.train == "text-encoder":
        notes.append(Note("train", settings.train, "no equal", "kohya's scripts always train the UNet"))
    return options


def _course(settings: Settings, notes: list[Note]) -> dict[str, Any]:
    options: dict[str, Any] = {"output_dir": str(settings.out or f"models/{settings.run_name}")}
    options["output_name"] = settings.run_name
    if settings.epochs:
        options["max_train_epochs"] = str(
            int(settings.epochs) if settings.epochs.is_integer() else settings.epochs
        )
        if not settings.epochs.is_integer():
            options["max_train_epochs"] = str(max(1, round(settings.epochs)))
            notes.append(Note("epochs", settings.epochs, "differs", "kohya's epochs are whole"))
    else:
        options["max_train_steps"] = str(settings.steps)
    schedule = (
        "constant_with_warmup"
        if settings.lr_schedule == "constant" and settings.warmup
        else settings.lr_schedule
    )
    options["lr_scheduler"] = schedule
    if settings.decay_ratio != 1 and settings.lr_schedule != "constant":
        notes.append(
            Note("decay_ratio", settings.decay_ratio, "no equal", "the learning rate falls to 0 at the end")
        )
    names = {ours: theirs for theirs, ours in _OPTIMIZER_NAMES.items()}
    options["optimizer_type"] = names.get(settings.optimizer, settings.optimizer)
    if settings.optimizer not in names and "." not in settings.optimizer:
        notes.append(
            Note(
                "optimizer", settings.optimizer, "no equal", "kohya's scripts know no optimizer of this name"
            )
        )
    options["optimizer_args"] = [f"weight_decay={settings.weight_decay:g}", *settings.optimizer_arg]
    precision = settings.precision
    options["mixed_precision"] = {"fp32": "no", "auto": "fp16"}.get(precision, precision)
    if precision == "auto":
        notes.append(Note("precision", "auto", "differs", "kohya's scripts choose none: fp16 is written"))
    options["save_precision"] = {"fp32": "float"}.get(settings.save_precision, settings.save_precision)
    if settings.tensorboard:
        options["logging_dir"] = f"{options['output_dir']}/tensorboard"
    if settings.keep_last and settings.save_every:
        options["save_last_n_steps"] = str(settings.keep_last * settings.save_every)
    return options | {"cache_latents": True, "sdpa": True}


def as_command(script: str, options: Mapping[str, Any], *, is_windows: bool = False) -> str:
    """A command for a shell, or for cmd."""
    return command_text(["accelerate", "launch", script], options, is_windows=is_windows)


def as_config(options: Mapping[str, Any]) -> str:
    """A config TOML for --config_file; numbers are written as numbers."""
    lines = []
    for name, value in options.items():
        one = OPTIONS.get(SAME.get(name, ""))
        is_number = (one is not None and one.kind in (int, float)) or name in _NUMBERS
        text = (
            value
            if is_number and value is not True
            else toml_text(tuple(value) if isinstance(value, list) else value)
        )
        lines.append(f"{name} = {text}")
    return "\n".join(lines) + "\n"


_NUMBERS = {"max_train_epochs", "max_train_steps", "text_encoder_lr", "learning_rate_te", "save_last_n_steps"}
