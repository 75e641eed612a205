"""Base models: loaded from whatever people have of them, and written as a single file or a diffusers folder.

One module a family (`sd1`) knows parts, names and sizes; this one finds files, puts parts together and saves.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from pipeline.console import LOG
from pipeline.errors import InputError
from pipeline.files import partial_path, remove_tree, write_atomic
from pipeline.renaming import sync_folder
from trainers import ldm_keys, sd1
from trainers.conditioning import Tokenizer
from trainers.export import FileHashes, write_safetensors
from trainers.families import family_of_configs, family_of_tensors
from trainers.model_files import (
    STEMS,
    Place,
    locate,
    part_files,
    read_json,
    read_weights,
    sha256_of_files,
    sha256_of_tensors,
)
from trainers.model_parts import Diffusion, Part, Parts, PredictionType

__all__ = [
    "BaseFacts",
    "Diffusion",
    "ModelSource",
    "Models",
    "PredictionType",
    "inspect_base",
    "load_models",
    "save_diffusers",
    "save_single_file",
]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model came from, for metadata and for the latent cache."""

    given: str  # as typed
    name: str  # of the file, the folder or the repository
    sha256: str  # hex, of the weights' file; of several, of their hashes in order
    vae_sha256: str  # hex, of the VAE's values: the same in a single file and a folder


@dataclass(slots=True)
class Models:
    """One loaded model; as loaded: fp32, on the CPU, in eval mode."""

    family: str  # "sd1"
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    tokenizer: Tokenizer
    diffusion: Diffusion
    source: ModelSource

    @property
    def latent_factor(self) -> int:
        """Pixels of a picture for each of a latent, in width and in height: 8 of SD1.5."""
        return int(2 ** (len(self.vae.config["block_out_channels"]) - 1))

    @property
    def latent_channels(self) -> int:
        """Channels of a latent: 4 of SD1.5."""
        return int(self.vae.config["latent_channels"])

    @property
    def scaling_factor(self) -> float:
        """What a latent is multiplied with before it is noised: 0.18215 of SD1.5."""
        return float(self.vae.config["scaling_factor"])

    @property
    def shift_factor(self) -> float:
        """What is taken off a latent before it is scaled: 0 of all SD1.x."""
        return float(self.vae.config.get("shift_factor") or 0.0)

    @property
    def max_text_tokens(self) -> int:
        """Positions of the text encoder, marks counted: 77 of SD1.5."""
        return self.tokenizer.max_text_tokens

    @property
    def sample_size_px(self) -> int:
        """Side of the square that the model says it was made for: 512 of SD1.5."""
        return int(self.unet.config["sample_size"] or 64) * self.latent_factor


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What can be said of a base before its weights are read."""

    models: Models  # on the meta device: shapes of all layers, and every property; hashes are empty
    kind: str  # "single file" or "diffusers folder"
    files: list[tuple[Path, int]]  # weights, and bytes of each
    dtype: torch.dtype  # of the UNet's weights
    notes: list[str] = field(default_factory=list)  # what was guessed or left out

    @property
    def size_bytes(self) -> int:
        """Of all weights on disk."""
        return sum(size for _, size in self.files)

    @property
    def num_parameters(self) -> dict[str, int]:
        """Numbers in `unet`, `text_encoder` and `vae`."""
        return {name: _count(getattr(self.models, name)) for name in STEMS}


def _count(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


def load_models(base: str, *, vae: str = "", state_folder: Path | None = None) -> Models:
    """Load a base model, from this disk or the hub.

    Args:
        base: a diffusers folder, a single file by LDM names (.safetensors, .ckpt), or owner/name[@revision].
        vae: another VAE: a file, a folder, or owner/name; without it the base's own.
        state_folder: where commits of hub files are noted (a project's `.celforge`).

    Raises:
        InputError: missing, damaged, not whole, or of another family.
        HubError: the hub does not give it.
    """
    place, parts = _parts(base, vae, state_folder, meta=False)
    for note in parts.notes:
        LOG.warning("%s", note)
    assert parts.vae is not None
    sha256 = sha256_of_files([path for path, _ in _weights(place)])
    source = ModelSource(base, place.name, sha256, sha256_of_tensors(parts.vae.tensors))
    return _made(parts, source)


def inspect_base(base: str, *, vae: str = "", state_folder: Path | None = None) -> BaseFacts:
    """What preflight needs of a base, in seconds: no weights are read. Raises as `load_models`."""
    place, parts = _parts(base, vae, state_folder, meta=True)
    dtype = next(iter(parts.unet.tensors.values())).dtype
    models = _made(parts, ModelSource(base, place.name, "", ""))
    kind = "single file" if place.is_file else "diffusers folder"
    return BaseFacts(models, kind, _weights(place), dtype, parts.notes)


def _parts(base: str, vae: str, state_folder: Path | None, *, meta: bool) -> tuple[Place, Parts]:
    place = locate(base, state_folder=state_folder)
    _family(place)
    read = sd1.parts_of_single_file if place.is_file else sd1.parts_of_folder
    parts = read(place.path, meta=meta)
    if vae:
        parts.vae = _other_vae(vae, state_folder, meta=meta)
    if parts.vae is None:
        raise InputError(f"{base} has no VAE", hint="give one beside it: --vae FILE")
    latents, wanted = parts.vae.config["latent_channels"], parts.unet.config["in_channels"]
    if latents != wanted:
        raise InputError(
            f"the VAE makes latents of {latents} channels, and the UNet of {base} takes {wanted}",
            hint="give a VAE of the same family",
        )
    return place, parts


def _family(place: Place) -> str:
    """Raises InputError for a family that is not known, or a folder that is no model."""
    if place.is_file:
        return family_of_tensors(read_weights([place.path], meta=True)[0], place.given)
    if not (place.path / "unet").is_dir():
        inside = sorted(one.name for one in place.path.iterdir() if one.suffix in (".safetensors", ".ckpt"))
        near = (
            f"{place.given}{os.sep}{inside[0]}"
            if inside
            else "a .safetensors file, or one with model_index.json"
        )
        raise InputError(
            f"{place.given} is not a diffusers model: it has no folder unet", hint=f"give {near}"
        )
    index = place.path / "model_index.json"
    unet = read_json(place.path / "unet" / "config.json")
    return family_of_configs(read_json(index) if index.is_file() else {}, unet, place.given)


def _other_vae(given: str, state_folder: Path | None, *, meta: bool) -> Part:
    """A VAE alone: a file by LDM names or names of diffusers, a folder of its own or of a whole model."""
    place = locate(given, state_folder=state_folder, parts=["vae"])
    if not place.is_file:
        inside = place.path / "vae"
        return sd1.folder_vae(inside if inside.is_dir() else place.path, meta=meta)
    config = place.path.parent / "config.json"
    tensors, _ = read_weights([place.path], meta=meta)
    tensors = ldm_keys.under(tensors, ldm_keys.VAE) or tensors
    if any(name.startswith("encoder.down_blocks.") for name in tensors) and config.is_file():
        return Part(read_json(config), ldm_keys.canonical_vae(tensors))
    try:
        part, _ = sd1.vae_part(tensors, {})
    except (KeyError, InputError) as error:
        raise InputError(
            f"{given} is not a VAE of Stable Diffusion 1.x",
            hint="give a .safetensors file or a folder of one",
        ) from error
    assert part is not None
    return part


def _weights(place: Place) -> list[tuple[Path, int]]:
    if place.is_file:
        paths = [place.path]
    else:
        here = [part for part in STEMS if (place.path / part).is_dir()]
        paths = [path for part in here for path in part_files(place.path / part, part)]
    return [(path, path.stat().st_size) for path in paths]


def _made(parts: Parts, source: ModelSource) -> Models:
    assert parts.vae is not None
    text_encoder = sd1.make_text_encoder(parts.text_encoder, source.given)
    wanted, given = parts.unet.config["cross_attention_dim"], text_encoder.config.hidden_size
    if wanted != given:
        raise InputError(
            f"the UNet of {source.given} wants {wanted} numbers a token, and its text encoder gives {given}",
            hint="give parts of one model",
        )
    if parts.tokenizer.vocab_size > text_encoder.config.vocab_size:
        raise InputError(
            f"the tokenizer of {source.given} has {parts.tokenizer.vocab_size} tokens, and its text encoder"
            f" knows {text_encoder.config.vocab_size}",
            hint="give parts of one model",
        )
    return Models(
        family="sd1",
        unet=sd1.make_unet(parts.unet, source.given),
        text_encoder=text_encoder,
        vae=sd1.make_vae(parts.vae, source.given),
        tokenizer=parts.tokenizer,
        diffusion=parts.diffusion,
        source=source,
    )


def save_single_file(
    models: Models, path: Path, dtype: torch.dtype, metadata: Mapping[str, str]
) -> FileHashes:
    """Write the whole model as one file by LDM names, which every UI reads; same weights, same bytes.

    Args:
        dtype: of every weight in the file, such as torch.float16.

    Raises:
        DiskFullError: no room; nothing is left behind.
    """
    tensors = sd1.single_file_tensors(models.unet, models.text_encoder, models.vae)
    told = sd1.single_file_metadata(tensors, _configs(models), models.tokenizer)
    if models.diffusion.prediction_type == "v_prediction":
        tensors[sd1.V_PREDICTION_MARK] = torch.empty(0)
    if models.diffusion.is_zero_terminal_snr:
        tensors[sd1.ZERO_SNR_MARK] = torch.empty(0)
    return write_safetensors(path, _cast(tensors, dtype), {"format": "pt", **metadata, **told})


def _configs(models: Models) -> dict[str, Mapping[str, Any]]:
    configs: dict[str, Mapping[str, Any]] = {
        "unet": models.unet.config,
        "vae": models.vae.config,
        "text_encoder": models.text_encoder.config.to_dict(),
        "scheduler": models.diffusion.config(),
    }
    return {
        part: {name: value for name, value in config.items() if name != "_name_or_path"}
        for part, config in configs.items()
    }


def _cast(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", dtype) for name, tensor in tensors.items()}


def save_diffusers(models: Models, folder: Path, dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
    """Write the model as a folder of diffusers, whole or not at all; it must not be there yet.

    Raises:
        InputError: the folder is there.
        DiskFullError: no room; nothing is left behind.
    """
    if folder.exists():
        raise InputError(f"{folder} is there already", hint="choose another name, or move it away")
    partial = partial_path(folder)
    partial.mkdir(parents=True)
    try:
        _write_folder(models, partial, dtype, {"format": "pt", **metadata})
        partial.rename(folder)
    except BaseException:
        with suppress(OSError):
            remove_tree(partial)
        raise
    sync_folder(folder.parent)


def _write_folder(models: Models, folder: Path, dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
    text_tensors = ldm_keys.canonical_text_encoder(models.text_encoder.state_dict())
    tensors = {"unet": models.unet.state_dict(), "vae": models.vae.state_dict(), "text_encoder": text_tensors}
    for part, named in tensors.items():
        (folder / part).mkdir()
        write_safetensors(folder / part / f"{STEMS[part]}.safetensors", _cast(named, dtype), metadata)
    texts = {
        "unet/config.json": _without_path(models.unet.to_json_string()),
        "vae/config.json": _without_path(models.vae.to_json_string()),
        "text_encoder/config.json": _without_path(models.text_encoder.config.to_json_string(use_diff=True)),
    }
    texts |= {f"tokenizer/{name}": text for name, text in models.tokenizer.files().items()}
    scheduler = _scheduler(models.diffusion)
    texts["scheduler/scheduler_config.json"] = json.dumps(scheduler, indent=2, sort_keys=True)
    texts["model_index.json"] = json.dumps(_index(scheduler["_class_name"]), indent=2, sort_keys=True)
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_atomic(folder / name, text)


def _scheduler(diffusion: Diffusion) -> dict[str, Any]:
    """What pipelines of diffusers draw with. PNDM, the usual one, does not know zero-terminal SNR."""
    config = {**diffusion.config(), "set_alpha_to_one": False, "steps_offset": 1}
    if diffusion.is_zero_terminal_snr:
        return {
            "_class_name": "DDIMScheduler",
            **config,
            "timestep_spacing": "trailing",
            "clip_sample": False,
        }
    return {"_class_name": "PNDMScheduler", **config, "skip_prk_steps": True}


def _without_path(config: str) -> str:
    """A config as the libraries write it, without the folder that it was read from."""
    words = json.loads(config)
    words.pop("_name_or_path", None)
    return json.dumps(words, indent=2, sort_keys=True) + "\n"


def _index(scheduler: str) -> dict[str, Any]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
