"""Settings of `celforge train`: what a run is made of, and the presets that fill it in.

Values come, later over earlier, from the default, the preset of the kind, the entry [[train]] of
celforge.toml, and the flags. Nothing here imports torch: `celforge train --help` and `celforge init` read it.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pipeline.errors import InputError, SettingsError
from pipeline.project import entries_of
from pipeline.settings import Resolved, nearest, option, options_of, resolve
from trainers.block_settings import BlockSettings
from trainers.course_settings import CourseSettings
from trainers.data_settings import DataSettings
from trainers.ema_settings import EmaSettings
from trainers.embedding_settings import EmbeddingSettings
from trainers.memory_settings import MemorySettings
from trainers.objective_settings import ObjectiveSettings
from trainers.prior_settings import PriorSettings
from trainers.regularisation_settings import RegularisationSettings
from trainers.validation_settings import ValidationSettings

Kind = Literal["lora", "locon", "loha", "full"]
SECTION = "train"
KINDS: tuple[str, ...] = get_args(Kind)
ADAPTERS = ("lora", "locon", "loha")
MODEL_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What is trained, on what, for how long, and where it goes."""

    kind: Kind = option("loha", "What is trained; the command's own argument says it as well.")
    name: str = option(
        "", "Name of the run and of its files; the kind where it is empty.", affects_result=False
    )
    preset: str = option(
        "",
        "Preset by name, or a TOML file of your own; that of the kind where it is empty.",
        metavar="NAME|FILE",
    )
    data: Path | None = option(
        None,
        "Data set: an EveryDream tree, kohya folders, or kohya's dataset TOML; else the project's dataset/.",
        metavar="PATH",
    )
    base: str = option(
        "",
        "Model to start from: a diffusers folder, a .safetensors or .ckpt file, or owner/name on the hub.",
        metavar="MODEL",
    )
    vae: str = option(
        "", "Another VAE than the model's own: a file, a folder, or owner/name.", metavar="MODEL"
    )
    out: Path | None = option(
        None,
        "Folder of the run; models/NAME in the project when left out.",
        metavar="FOLDER",
        affects_result=False,
    )
    seed: int = option(0, "Every random draw follows from it.", min=0)
    steps: int = option(20_000, "Steps of the optimizer.", min=1, only_if={"epochs": (0.0,)})
    epochs: float = option(
        0.0, "Length of the run in passes over the data instead of steps; 0 counts steps.", min=0
    )
    batch_size: int = option(8, "Pictures of one batch.", min=1, max=4096)
    accumulation: int = option(1, "Batches whose gradients make one step.", min=1, max=4096)
    train: Literal["both", "unet", "text-encoder"] = option("both", "Which parts of the model learn.")
    clip_skip: int = option(
        1,
        "Layer of the text encoder that is used, from the end: 1 is the last, 2 the last but one.",
        min=1,
        max=12,
    )


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """The size of an adapter."""

    linear_dim: int = option(
        8, "Rank of linear layers and 1 x 1 convolutions.", min=1, max=1024, only_if={"kind": ADAPTERS}
    )
    linear_alpha: float = option(
        1.0, "Alpha of them; the change is scaled by alpha / rank.", min=0, only_if={"kind": ADAPTERS}
    )
    conv_dim: int = option(
        4, "Rank of larger convolutions; 0 leaves them out.", min=0, max=1024, only_if={"kind": ADAPTERS}
    )
    conv_alpha: float = option(1.0, "Alpha of them.", min=0, only_if={"kind": ADAPTERS})
    init: Literal["lycoris", "lycoris-0.1"] = option(
        "lycoris",
        "How a LoHa begins: as LyCORIS does today, or ten times more quietly as it did in March 2023.",
        only_if={"kind": ("loha",)},
    )
    targets: Literal["attention", "full", "full+"] = option(
        "full",
        "Layers of the UNet: the attention blocks (kohya's LoRA), all inner ones (LyCORIS), or these and the "
        "first and last.",
        only_if={"kind": ADAPTERS},
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How it learns."""

    optimizer: str = option(
        "adamw",
        "One of adamw, adamw8bit, adafactor, came, lion, lion8bit, muon, prodigy, schedule-free-adamw, or a "
        "class by its path: torch.optim.Adam.",
        metavar="NAME",
    )
    optimizer_arg: tuple[str, ...] = option(
        (), "Argument of the optimizer, such as eps=1e-8; repeat it for more.", metavar="NAME=VALUE"
    )
    learning_rate: float = option(2e-4, "Learning rate.", min=0)
    unet_learning_rate: float | None = option(None, "Of the UNet, where it differs.", min=0)
    text_encoder_learning_rate: float | None = option(None, "Of the text encoder, where it differs.", min=0)
    weight_decay: float = option(0.01, "Weight decay.", min=0, max=1)
    lr_schedule: Literal["constant", "linear", "cosine"] = option(
        "constant", "Course of the learning rate after the warmup."
    )
    warmup: float = option(0.0, "Steps in which the learning rate rises; below 1 a share of the run.", min=0)
    decay_ratio: float = option(
        1.0,
        "Length of the fall over that of the run; EveryDream2 takes 1.5 and so ends at a quarter.",
        min=0.01,
        max=100,
        only_if={"lr_schedule": ("linear", "cosine")},
    )
    max_grad_norm: float = option(1.0, "Gradients are shortened to this norm; 0 leaves them.", min=0)


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """How it is computed."""

    device: str = option("auto", "Device: auto, cpu, cuda, cuda:1, mps.", affects_result=False)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto",
        "Numbers of the arithmetic; auto takes bf16 where the GPU has it, else fp16, and fp32 on a CPU.",
    )
    gradient_checkpointing: bool = option(
        False,
        "Compute activations twice instead of keeping them: a third slower, much less memory.",
        affects_result=False,
    )
    compile: bool = option(
        False,
        "Compile the blocks of the UNet by torch.compile, for each bucket: minutes at first, faster steps.",
        affects_result=False,
    )
    cuda_graphs: bool = option(
        False,
        "Record a step once for each bucket and replay it, so that a fast GPU never waits for Python. NVIDIA "
        "only; without gradient_checkpointing, dropout of adapters and embeddings.",
        affects_result=False,
    )
    vae_batch_size: int = option(
        4, "Pictures that the VAE encodes at once.", min=1, max=256, affects_result=False
    )
    workers: int = option(
        0, "Workers that decode; 0 takes one for each processor core.", min=0, max=256, affects_result=False
    )


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """What is written on the way."""

    save_every: int = option(
        2_000, "Steps between two saved models; 0 saves the last one only.", min=0, affects_result=False
    )
    keep_last: int = option(0, "Step models to keep, the newest; 0 keeps all.", min=0, affects_result=False)
    state_every: int = option(
        0,
        "Steps between two states to resume from; 0 writes one with each model.",
        min=0,
        affects_result=False,
    )
    save_precision: Literal["fp16", "bf16", "fp32"] = option(
        "fp16", "Numbers of the saved model.", affects_result=False
    )
    save_as: Literal["single-file", "diffusers", "both"] = option(
        "single-file",
        "Form of a full checkpoint.",
        only_if={"kind": ("full",)},
        affects_result=False,
    )
    trigger_words: tuple[str, ...] = option(
        (), "Words that call what was learned; written into the file.", affects_result=False
    )
    author: str = option("", "Written into the file.", affects_result=False)
    license: str = option("", "Written into the file.", affects_result=False)
    prompts: Path | None = option(
        None,
        "Prompts to draw on the way: kohya's .txt, .toml or .json, or EveryDream's .json.",
        metavar="FILE",
        affects_result=False,
    )
    sample_every: int = option(2_000, "Steps between two drawings.", min=1, affects_result=False)
    sample_batch_size: int = option(1, "Pictures drawn at once.", min=1, max=256, affects_result=False)
    guidance_rescale: float = option(
        0.0,
        "How far guidance is brought back to the contrast of the prompt alone, where a prompt does not say "
        "it; 0.7 is usual for zero-terminal SNR.",
        min=0,
        max=1,
        affects_result=False,
    )
    sample_at_start: bool = option(True, "Draw before the first step too.", affects_result=False)
    log_every: int = option(10, "Steps between two lines of metrics.jsonl.", min=1, affects_result=False)
    tensorboard: bool = option(False, "Write metrics for TensorBoard as well.", affects_result=False)
    max_failures: str = option(
        "10%",
        "Unreadable pictures, as a number or a share, after which nothing is trained.",
        metavar="N|N%",
        affects_result=False,
    )
    accept_changes: bool = option(
        False,
        "Go on from a state whose settings or pictures were others, from this step on.",
        affects_result=False,
    )


@dataclass(frozen=True, kw_only=True)
class Settings(
    EmaSettings,
    EmbeddingSettings,
    RegularisationSettings,
    PriorSettings,
    ObjectiveSettings,
    ValidationSettings,
    BlockSettings,
    MemorySettings,
    CourseSettings,
    OutputSettings,
    MachineSettings,
    OptimizerSettings,
    AdapterSettings,
    DataSettings,
    RunSettings,
):
    """An entry [[train]] of celforge.toml."""

    @property
    def run_name(self) -> str:
        """What the run and its files are called."""
        return self.name or self.kind

    @property
    def trains_unet(self) -> bool:
        """Whether the UNet learns."""
        return self.train in ("both", "unet")

    @property
    def trains_text_encoder(self) -> bool:
        """Whether the text encoder learns."""
        return self.train in ("both", "text-encoder")

    @property
    def asks_text_encoder(self) -> bool:
        """Whether gradients go through the text encoder: it learns itself, or embeddings do that it reads."""
        return self.trains_text_encoder or self.embeddings is not None


def load_preset(name: str) -> tuple[str, dict[str, Any]]:
    """A preset's name and values.

    Args:
        name: of a bundled one, or the path of a TOML file.

    Raises:
        SettingsError: there is none, or it is not TOML.
    """
    path = Path(name) if name.endswith(".toml") else PRESETS / f"{name}.toml"
    if not path.is_file():
        known = sorted(one.stem for one in PRESETS.glob("*.toml"))
        near = nearest(name, known)
        raise SettingsError(
            f'there is no preset "{name}"',
            hint=f'did you mean "{near}"?' if near else f"known: {', '.join(known)}, or a .toml file",
        )
    try:
        return path.stem, tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}", hint="mend that line") from error


def resolve_train(
    table: Mapping[str, Any], toml_path: Path | None, flags: Mapping[str, Any], *, label: str = "train"
) -> tuple[Resolved[Settings], dict[str, Any]]:
    """Settings in force, and the values of their preset.

    Args:
        table: an entry [[train]]; empty when there is none.
        flags: what was typed, the kind among it.

    Raises:
        SettingsError: unknown key, wrong type, out of bounds, no such preset.
    """
    kind = str(flags.get("kind") or table.get("kind") or "loha")
    if kind not in KINDS:
        near = nearest(kind, KINDS)
        raise SettingsError(
            f'there is no kind "{kind}" to train: it is one of {", ".join(KINDS)}',
            hint=f'did you mean "{near}"?' if near else "",
        )
    preset_name, preset = load_preset(str(flags.get("preset") or table.get("preset") or kind))
    chosen = resolve(
        Settings, label, table, toml_path, flags, preset=preset, preset_name=f"preset {preset_name}"
    )
    return chosen, preset


def resolve_entries(data: Mapping[str, Any], toml_path: Path | None) -> dict[str, Resolved[Settings]]:
    """Every [[train]] of celforge.toml by `train.<name>`, in their order.

    Raises:
        SettingsError: as `resolve_train`, or two of one name.
    """
    found: dict[str, Resolved[Settings]] = {}
    for table in entries_of(data, SECTION, toml_path):
        label = f"{SECTION}.{table.get('name') or table.get('kind') or 'loha'}"
        if label in found:
            raise SettingsError(
                f'two [[{SECTION}]] of {toml_path} are called "{label.partition(".")[2]}"',
                hint='give each a name of its own: name = "..."',
            )
        found[label], _ = resolve_train(table, toml_path, {}, label=label)
    return found


def check_before(settings: Settings) -> None:
    """Refuse what can be known to fail before the data are there; reads no file and imports no torch.

    Raises:
        SettingsError: no model to start from.
        InputError: a model, a VAE or a file of prompts that was named is not there.
    """
    settings.check_objective()
    if not settings.base:
        raise SettingsError(
            "no model to start from was given",
            hint="--base MODEL: a diffusers folder, a .safetensors file, or owner/name on the hub",
        )
    for given in filter(None, (settings.base, settings.vae)):
        path = Path(given).expanduser()
        is_on_disk = path.suffix.lower() in MODEL_SUFFIXES or given.startswith((".", "/", "~"))
        if is_on_disk and not path.exists():
            raise InputError(
                f"there is no model {given}",
                hint="give a .safetensors file, a diffusers folder, or owner/name of a model on the hub",
            )
    if settings.prompts is not None and not settings.prompts.is_file():
        raise InputError(f"there is no file of prompts {settings.prompts}", hint="mend --prompts")
    if settings.embeddings is not None and not settings.embeddings.is_file():
        raise InputError(
            f"there is no file of embeddings {settings.embeddings}",
            hint="celforge caption --embedding-file writes emb_init.json",
        )


def differences(settings: Settings, preset: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{setting: (value of the preset, value in force)} of what shapes the result and is not the preset's."""
    passed_over = {"data", "reg_data", "validation_data", "base", "vae", "preset", "embeddings"}
    found = {}
    for one in options_of(Settings):
        if one.affects_result and one.name not in passed_over:
            expected = preset.get(one.name, one.default)
            expected = tuple(expected) if isinstance(expected, list) else expected
            value = getattr(settings, one.name)
            if value != expected:
                found[one.name] = (expected, value)
    return found
