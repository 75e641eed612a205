"""Recipes of kohya's scripts: a pasted command, a script that holds it, or a config TOML, as a [[train]]."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.settings import nearest
from trainers.recipe_kohya_options import (
    ADAPTER_DEFAULTS,
    DEFAULTS,
    LR_SCHEDULES,
    LYCORIS_ALGORITHMS,
    LYCORIS_PRESETS,
    NOT_NEEDED,
    OPTIMIZERS,
    SAME,
    SAME_ARGS,
    SCRIPTS,
    WITHOUT_EQUAL,
)
from trainers.recipe_notes import OPTIONS, Recipe
from trainers.recipe_text import CommandLine, is_python, number, pairs, read_config

Convert = Callable[[Recipe, dict[str, Any], str, Any], object]


def import_kohya(command: CommandLine, folder: Path) -> Recipe:
    """The recipe of a command.

    Args:
        folder: what a config file that it names is relative to.

    Raises:
        InputError: another model or adapter than is trained here, or a config file that is not there.
    """
    options = _with_config(command.options, folder)
    launcher = {name: value for name, value in command.launcher.items() if name not in options}
    if "mixed_precision" in launcher:
        options = {"mixed_precision": launcher.pop("mixed_precision"), **options}
    recipe = Recipe(defaults=dict(DEFAULTS))
    for name, value in launcher.items():
        recipe.note(name, value, "not needed", NOT_NEEDED.get(name, "of accelerate, which is not used"))
    _choose_kind(recipe, command.script, options)
    for name, value in options.items():
        if value is False or value is None or value in ("", []):
            continue
        convert = _CONVERTED.get(name)
        if convert is not None:
            convert(recipe, options, name, value)
        else:
            _plain(recipe, name, value, SAME)
    _say_of_defaults(recipe, options)
    return recipe


def _with_config(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """With what its config file says below it."""
    name = options.get("config_file")
    if not isinstance(name, str):
        return dict(options)
    path = Path(folder, name if name.endswith(".toml") else name + ".toml")
    if not path.is_file():
        raise InputError(
            f"the command reads {path}, which is not here", hint="give the recipe from its folder"
        )
    return {**read_config(path.read_text(encoding="utf-8-sig"), str(path)), **options}


# What is trained


def _choose_kind(recipe: Recipe, script: str, options: Mapping[str, Any]) -> None:
    if script and script not in SCRIPTS:
        raise InputError(
            f"{script} trains something else than a LoRA, LoCon, LoHa or checkpoint of Stable Diffusion 1.x",
            hint=f"recipes of {', '.join(SCRIPTS)} are read",
        )
    is_adapter = "network_module" in options if not script else SCRIPTS[script] == "adapter"
    if not is_adapter:
        _full(recipe, script, options)
        return
    recipe.defaults |= ADAPTER_DEFAULTS
    module = str(options.get("network_module", "networks.lora"))
    arguments = pairs(options.get("network_args"))
    if module == "networks.lora":
        _kohya_lora(recipe, arguments)
    elif module in ("lycoris.kohya", "networks.loha"):
        _lycoris(recipe, options, {"algo": "loha", **arguments} if module == "networks.loha" else arguments)
    else:
        raise InputError(
            f"network_module {module} is not trained here", hint="networks.lora and lycoris.kohya are"
        )
    is_unet_only = options.get("network_train_unet_only") or number(options.get("text_encoder_lr")) == 0
    if recipe.values.get("train") != "unet":
        recipe.defaults["train"] = "both"
    if is_unet_only:
        recipe.take("train", "unet", "network_train_unet_only")


def _full(recipe: Recipe, script: str, options: Mapping[str, Any]) -> None:
    recipe.values["kind"] = "full"
    learns = script != "fine_tune.py" or bool(options.get("train_text_encoder"))
    recipe.values["train"] = "both" if learns else "unet"
    saves_folder = options.get("save_model_as") in ("diffusers", "diffusers_safetensors")
    recipe.values["save_as"] = "diffusers" if saves_folder else "single-file"


def _kohya_lora(recipe: Recipe, arguments: Mapping[str, str]) -> None:
    has_conv = "conv_dim" in arguments
    recipe.values["kind"] = "locon" if has_conv else "lora"
    recipe.defaults["targets"] = "full" if has_conv else "attention"
    if has_conv:
        recipe.defaults["conv_alpha"] = 1.0
    _arguments(recipe, arguments, known=("conv_dim", "conv_alpha"))


def _lycoris(recipe: Recipe, options: Mapping[str, Any], arguments: Mapping[str, str]) -> None:
    algorithm = arguments.get("algo", "lora").lower()
    if algorithm not in LYCORIS_ALGORITHMS:
        raise InputError(
            f"LyCORIS's {algorithm} is not trained here",
            hint="algo=loha and algo=locon are: change it in the recipe",
        )
    recipe.values["kind"] = LYCORIS_ALGORITHMS[algorithm]
    dim = number(options.get("network_dim", 4))
    recipe.defaults["conv_dim"] = dim
    recipe.defaults["conv_alpha"] = number(options.get("network_alpha", 1.0))
    preset = arguments.get("preset", "full")
    if preset in LYCORIS_PRESETS:
        recipe.values["targets"] = LYCORIS_PRESETS[preset]
        if preset == "unet-only":
            recipe.values["train"] = "unet"
    else:
        recipe.values["targets"] = "full+"
        recipe.note(
            "network_args preset",
            preset,
            "no equal",
            'a set of layers of its own; targets = "full+" is taken',
        )
    _arguments(recipe, arguments, known=("algo", "conv_dim", "conv_alpha", "preset"))


def _arguments(recipe: Recipe, arguments: Mapping[str, str], *, known: tuple[str, ...]) -> None:
    for name, value in arguments.items():
        if name in ("conv_dim", "conv_alpha"):
            recipe.take(name, number(value), f"network_args {name}")
        elif name not in known and value not in ("None", "False", "0", "0.0", ""):
            _plain(recipe, name, value, SAME_ARGS, prefix="network_args ")


# One option


def _plain(recipe: Recipe, name: str, value: Any, same: Mapping[str, str], prefix: str = "") -> None:
    """An option that means the same here, needs nothing, or has no equal."""
    shown = prefix + name
    if name in same:
        is_number = OPTIONS[same[name]].kind in (int, float, bool)
        recipe.take(same[name], number(value) if is_number else value, shown)
    elif not prefix and name in NOT_NEEDED:
        recipe.note(shown, value, "not needed", NOT_NEEDED[name] or "it is so here in any case")
    elif not prefix and name in WITHOUT_EQUAL:
        recipe.note(shown, value, "no equal", WITHOUT_EQUAL[name] or "nothing here does it")
    else:
        near = nearest(name, [*same, *NOT_NEEDED, *WITHOUT_EQUAL, *_CONVERTED])
        hint = f"; did you mean {near}?" if near and not prefix else ""
        recipe.note(shown, value, "no equal", f"is not known here, and nothing does it{hint}")


def _data(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    recipe.take("data", str(value), name)
    recipe.take("layout", "kohya", name)


def _resolution(recipe: Recipe, options: Mapping[str, Any], name: str, value: Any) -> None:
    sides = [number(part.strip()) for part in str(value).replace("x", ",").split(",")]
    if not all(isinstance(one, int) for one in sides) or len(sides) > 2:
        recipe.note(name, value, "no equal", "is neither one number nor two")
        return
    if len(set(sides)) > 1:
        what = "buckets have the same area" if options.get("enable_bucket") else "squares are cut instead"
        recipe.note(name, value, "differs", f"sides are equal here; {what}")
    recipe.take("resolution_px", math.isqrt(sides[0] * sides[-1]), name)


def _epochs(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    recipe.take("epochs", number(value), name)
    recipe.note(
        name,
        value,
        "differs",
        "batches are always full here, so that a pass may have fewer steps than kohya's epoch",
    )


def _steps(recipe: Recipe, options: Mapping[str, Any], name: str, value: Any) -> None:
    if options.get("max_train_epochs"):
        recipe.note(name, value, "not needed", "max_train_epochs counts, in kohya's scripts too")
    else:
        recipe.take("steps", number(value), name)


def _text_rate(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    rates = [number(one) for one in (value if isinstance(value, list) else [value])]
    if rates[0] != 0:
        recipe.take("text_encoder_learning_rate", rates[0], name)
    if len(rates) > 1:
        recipe.note(
            name, value, "differs", "Stable Diffusion 1.x has one text encoder; the first rate is taken"
        )


def _schedule(recipe: Recipe, options: Mapping[str, Any], name: str, value: Any) -> None:
    cycles = number(options.get("lr_scheduler_num_cycles", 1))
    if value in LR_SCHEDULES:
        recipe.take("lr_schedule", LR_SCHEDULES[value], name)
    elif value == "cosine_with_restarts" and cycles == 1:
        recipe.take("lr_schedule", "cosine", name)
    elif value == "polynomial" and number(options.get("lr_scheduler_power", 1)) == 1:
        recipe.take("lr_schedule", "linear", name)
        recipe.note(name, value, "differs", "it ends at 0 here and at 1e-7 there")
    else:
        nearest_one = "cosine" if "cosine" in str(value) else "constant"
        recipe.take("lr_schedule", nearest_one, name)
        recipe.note(
            name,
            value,
            "no equal",
            f'the learning rate would follow another course; "{nearest_one}" is taken',
        )


def _optimizer(recipe: Recipe, options: Mapping[str, Any], name: str, value: Any) -> None:
    if options.get("use_8bit_adam") and name != "use_8bit_adam":
        return
    given = "AdamW8bit" if name == "use_8bit_adam" else str(value)
    ours = OPTIMIZERS.get(given.lower()) or (given if "." in given else "")
    recipe.take("optimizer", ours or "adamw", name)
    if not ours:
        recipe.note(
            name, value, "no equal", "would be the optimizer; adamw is taken: its learning rate may not fit"
        )


def _optimizer_args(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    kept = []
    for key, text in pairs(value).items():
        if key == "weight_decay":
            recipe.take("weight_decay", number(text), f"{name} {key}")
        elif is_python(text):
            kept.append(f"{key}={text}")
        else:
            recipe.note(f"{name} {key}", text, "no equal", "is no number, text or tuple")
    if kept:
        recipe.take("optimizer_arg", kept, name)


def _precision(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    recipe.take("precision", "fp32" if value == "no" else value, name)


def _save_precision(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    recipe.take("save_precision", "fp32" if value == "float" else value, name)


def _flip(recipe: Recipe, _options: Mapping[str, Any], name: str, _value: Any) -> None:
    recipe.take("flip_p", 0.5, name)


def _logging(recipe: Recipe, options: Mapping[str, Any], name: str, value: Any) -> None:
    recipe.take("tensorboard", options.get("log_with", "tensorboard") in ("tensorboard", "all"), name)
    recipe.note(name, value, "differs", "what is logged lies in the folder of the run")


def _output(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    recipe.note(
        name,
        value,
        "differs",
        "files go into models/NAME of the project; write out = FOLDER for another place",
    )


def _kept_steps(recipe: Recipe, options: Mapping[str, Any], name: str, value: Any) -> None:
    every, steps = number(options.get("save_every_n_steps", 0)), number(value)
    if isinstance(every, int) and isinstance(steps, int) and every and steps % every == 0:
        recipe.take("keep_last", steps // every, name)
    else:
        recipe.note(name, value, "no equal", WITHOUT_EQUAL[name])


def _text_steps(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    if number(value) == -1:
        recipe.take("train", "unet", name)
    else:
        _plain(recipe, name, value, SAME)


def _save_form(recipe: Recipe, options: Mapping[str, Any], name: str, value: Any) -> None:
    if value in ("ckpt", "diffusers") and recipe.values.get("kind") == "full":
        if value == "ckpt":
            recipe.note(name, value, "differs", "checkpoints are .safetensors, which every UI reads")
    elif value != "safetensors":
        recipe.note(name, value, "differs", "files are .safetensors, which every UI reads")


def _read_already(_recipe: Recipe, _options: Mapping[str, Any], _name: str, _value: Any) -> None:
    """An option that was taken with another one."""


def _zero_snr(recipe: Recipe, _options: Mapping[str, Any], name: str, _value: Any) -> None:
    recipe.take("zero_terminal_snr", "on", name)


def _prediction(recipe: Recipe, _options: Mapping[str, Any], name: str, _value: Any) -> None:
    recipe.take("prediction", "v", name)


def _loss(recipe: Recipe, _options: Mapping[str, Any], name: str, value: Any) -> None:
    recipe.take("loss", str(value).replace("_", "-"), name)


def _masks(recipe: Recipe, options: Mapping[str, Any], name: str, value: Any) -> None:
    if name == "alpha_mask":
        recipe.take("masked_loss", "alpha", name)
    elif not options.get("alpha_mask"):
        recipe.take("masked_loss", "files", name)
        recipe.note(name, value, "differs", "write masks = FOLDER: where the mask of each picture lies")


_CONVERTED: Mapping[str, Convert] = {
    "zero_terminal_snr": _zero_snr,
    "v_parameterization": _prediction,
    "loss_type": _loss,
    "masked_loss": _masks,
    "alpha_mask": _masks,
    "train_data_dir": _data,
    "dataset_config": lambda recipe, _, name, value: recipe.take("data", str(value), name),
    "resolution": _resolution,
    "max_train_epochs": _epochs,
    "max_train_steps": _steps,
    "text_encoder_lr": _text_rate,
    "learning_rate_te": _text_rate,
    "learning_rate_te1": _text_rate,
    "lr_scheduler": _schedule,
    "lr_scheduler_num_cycles": _read_already,
    "optimizer_type": _optimizer,
    "use_8bit_adam": _optimizer,
    "optimizer_args": _optimizer_args,
    "mixed_precision": _precision,
    "save_precision": _save_precision,
    "flip_aug": _flip,
    "logging_dir": _logging,
    "output_dir": _output,
    "save_model_as": _save_form,
    "save_last_n_steps": _kept_steps,
    "stop_text_encoder_training": _text_steps,
    "network_module": _read_already,
    "network_args": _read_already,
    "network_train_unet_only": _read_already,
    "train_text_encoder": _read_already,
    "config_file": _read_already,
    "save_state": lambda recipe, _, name, value: recipe.note(
        name, value, "not needed", "a state is always saved"
    ),
    "save_state_on_train_end": lambda recipe, _, name, value: recipe.note(
        name, value, "not needed", "a state is always saved"
    ),
}


def _say_of_defaults(recipe: Recipe, options: Mapping[str, Any]) -> None:
    """What kohya's scripts do where nothing is said, and would surprise."""
    if "seed" not in options:
        recipe.note("seed", None, "differs", "would be drawn anew for each run; it is 0 here")
    if "caption_extension" not in options and "data" in recipe.values:
        recipe.note(
            "caption_extension",
            None,
            "differs",
            'only .caption files are read, as kohya does; most captions are ".txt"',
        )
    if "resolution" not in options:
        recipe.defaults["resolution_px"] = 512
    if "enable_bucket" in options:
        recipe.note(
            "enable_bucket",
            None,
            "differs",
            "buckets are chosen by the logarithm of the aspect ratio, and all are full",
        )
