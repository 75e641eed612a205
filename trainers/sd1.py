"""Stable Diffusion 1.x: its parts from a single file or a diffusers folder, its modules, its single file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from pipeline.errors import InputError
from trainers import ldm_keys
from trainers.conditioning import Tokenizer
from trainers.model_files import part_files, read_json, read_weights, read_yaml_beside
from trainers.model_parts import Diffusion, Part, Parts
from trainers.sd1_shapes import (
    CONFIG_KEY,
    TOKENIZER_KEY,
    sd1_configs,
    text_encoder_config,
    unet_config,
    unsaid,
    vae_config,
)

V_PREDICTION_MARK = "v_pred"  # an empty tensor of this name in a single file says so (ComfyUI, Forge)
ZERO_SNR_MARK = "ztsnr"
_NOT_OURS = (
    "text_projection",
    "logit_scale",
    "vision_model.",
    "visual_projection",
    "text_model.text_projection",
)
_TRAINING_ONLY = ("loss.", "model_ema.")  # of a VAE: its discriminator


def parts_of_single_file(path: Path, *, meta: bool) -> Parts:
    """All parts of an LDM checkpoint; `vae` is None when it holds none.

    Raises:
        InputError: no text encoder, a layer missing or unknown, a vocabulary that is not known.
    """
    tensors, metadata = read_weights([path], meta=meta)
    said: Mapping[str, dict[str, Any]] = json.loads(metadata.get(CONFIG_KEY, "{}"))
    notes = []
    if any(name.startswith("model_ema.") for name in tensors):
        notes.append(f"{path.name} holds EMA weights too; the plain ones are taken")
    try:
        unet, of_unet = _unet_part(tensors, said)
        text_encoder, of_text = _text_encoder_part(tensors, said, path)
        vae, of_vae = vae_part(ldm_keys.under(tensors, ldm_keys.VAE), said)
    except (KeyError, IndexError) as error:
        raise InputError(
            f"{path} has not the layers of Stable Diffusion 1.x: {error.args[0]}",
            hint="give another checkpoint",
        ) from error
    notes += [*of_unet, *of_text, *of_vae]
    return Parts(
        unet=unet,
        text_encoder=text_encoder,
        vae=vae,
        tokenizer=_tokenizer(text_encoder, metadata, path),
        diffusion=_diffusion(tensors, metadata, said, path),
        notes=notes,
    )


def _unet_part(tensors: Mapping[str, Tensor], said: Mapping[str, dict[str, Any]]) -> tuple[Part, list[str]]:
    config, notes = unet_config(ldm_keys.under(tensors, ldm_keys.UNET))
    config.update(said.get("unet", {}))
    return Part(config, ldm_keys.unet_from_ldm(tensors, config)), [] if said.get("unet") else notes


def _text_encoder_part(
    tensors: Mapping[str, Tensor], said: Mapping[str, dict[str, Any]], path: Path
) -> tuple[Part, list[str]]:
    named = ldm_keys.canonical_text_encoder(
        _without(ldm_keys.under(tensors, ldm_keys.TEXT_ENCODER), _NOT_OURS)
    )
    if not named:
        raise InputError(
            f"{path} has no text encoder", hint="give a whole checkpoint, or a diffusers folder with one"
        )
    config, notes = text_encoder_config(named)
    config.update(said.get("text_encoder", {}))
    return Part(config, named), [] if said.get("text_encoder") else notes


def vae_part(
    tensors: Mapping[str, Tensor], said: Mapping[str, dict[str, Any]]
) -> tuple[Part | None, list[str]]:
    """A VAE by LDM names, without `first_stage_model.`; None when there are no tensors."""
    named = _without(tensors, _TRAINING_ONLY)
    if not named:
        return None, []
    config, notes = vae_config(named)
    config.update(said.get("vae", {}))
    return Part(config, ldm_keys.vae_from_ldm(named, config)), [] if said.get("vae") else notes


def _without(tensors: Mapping[str, Tensor], beginnings: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: one for name, one in tensors.items() if not name.startswith(beginnings)}


def _tokenizer(text_encoder: Part, metadata: Mapping[str, str], path: Path) -> Tokenizer:
    length, vocabulary = (text_encoder.config[one] for one in ("max_position_embeddings", "vocab_size"))
    if TOKENIZER_KEY in metadata:
        return Tokenizer.from_text(metadata[TOKENIZER_KEY], length)
    if vocabulary < sd1_configs()["text_encoder"]["vocab_size"]:
        raise InputError(
            f"{path} has a vocabulary of {vocabulary} tokens and does not say which",
            hint="give the same model as a diffusers folder, with its tokenizer",
        )
    return Tokenizer.bundled(length)


def _diffusion(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], said: Mapping[str, dict[str, Any]], path: Path
) -> Diffusion:
    """From the marks in the file, its metadata, the .yaml beside it, its `betas`; else as SD1.5."""
    params = read_yaml_beside(path)
    config = {**sd1_configs()["scheduler"], **_betas(tensors)}
    for key, name in (
        ("linear_start", "beta_start"),
        ("linear_end", "beta_end"),
        ("timesteps", "num_train_timesteps"),
    ):
        config[name] = params.get(key, config[name])
    words = (params.get("parameterization"), metadata.get("modelspec.prediction_type"))
    is_v = metadata.get("ss_v_parameterization") == "True"
    if is_v or V_PREDICTION_MARK in tensors or any(str(word) in ("v", "v_prediction") for word in words):
        config["prediction_type"] = "v_prediction"
    if ZERO_SNR_MARK in tensors or metadata.get("ss_zero_terminal_snr") == "True":
        config["rescale_betas_zero_snr"] = True
    return Diffusion.of_config({**config, **said.get("scheduler", {})}, str(path))


def _betas(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Ends of the schedule that CompVis's training leaves in a file; half precision tells nothing new."""
    betas = tensors.get("betas")
    if betas is None or betas.dtype not in (torch.float32, torch.float64) or betas.dim() != 1:
        return {}
    start, end = (float(f"{float(betas[place]):.5g}") for place in (0, -1))
    return {"beta_start": start, "beta_end": end, "num_train_timesteps": len(betas)}


def parts_of_folder(folder: Path, *, meta: bool) -> Parts:
    """All parts of a diffusers folder; `vae` is None when it holds none.

    Raises:
        InputError: a part is missing or damaged.
    """
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    text_encoder = folder_part(folder / "text_encoder", "text_encoder", meta=meta)
    config = text_encoder.config.get("text_config") or text_encoder.config
    text_encoder = Part(config, ldm_keys.canonical_text_encoder(_without(text_encoder.tensors, _NOT_OURS)))
    return Parts(
        unet=folder_part(folder / "unet", "unet", meta=meta),
        text_encoder=text_encoder,
        vae=folder_vae(folder / "vae", meta=meta) if (folder / "vae").is_dir() else None,
        tokenizer=Tokenizer.read(folder / "tokenizer", int(config.get("max_position_embeddings", 77))),
        diffusion=Diffusion.of_config(scheduler, str(folder)),
    )


def folder_part(folder: Path, part: str, *, meta: bool) -> Part:
    """One network of a diffusers folder, by the names it was saved with."""
    config = read_json(folder / "config.json")
    return Part(config, read_weights(part_files(folder, part), meta=meta)[0])


def folder_vae(folder: Path, *, meta: bool) -> Part:
    """A VAE of diffusers, of any age."""
    part = folder_part(folder, "vae", meta=meta)
    return Part(part.config, ldm_keys.canonical_vae(part.tensors))


def make_unet(part: Part, where: str) -> UNet2DConditionModel:
    """The UNet with its weights in fp32, in eval mode, on the device of its tensors."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(part.config)
    return _filled(unet, part.tensors, f"the UNet of {where}")


def make_vae(part: Part, where: str) -> AutoencoderKL:
    """The VAE, as `make_unet`."""
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(part.config)
    return _filled(vae, part.tensors, f"the VAE of {where}")


def make_text_encoder(part: Part, where: str) -> CLIPTextModel:
    """CLIP's text model, as `make_unet`, nested in `text_model` or flat as this transformers has it."""
    config = CLIPTextConfig.from_dict({**part.config, "dtype": None, "torch_dtype": None})
    with torch.device("meta"):
        text_encoder = CLIPTextModel(config)
    is_flat = not hasattr(text_encoder, "text_model")
    tensors = {
        name.removeprefix("text_model.") if is_flat else name: one for name, one in part.tensors.items()
    }
    if not next(iter(tensors.values())).is_meta:
        embeddings = getattr(text_encoder, "text_model", text_encoder).embeddings
        embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]
    _filled(text_encoder, tensors, f"the text encoder of {where}")
    return text_encoder


def _filled(module: Any, tensors: Mapping[str, Tensor], what: str) -> Any:
    """Put weights into a module made on the meta device; they become its own, and fp32."""
    wanted = dict(module.state_dict())
    strangers, missing = sorted(tensors.keys() - wanted.keys()), sorted(wanted.keys() - tensors.keys())
    if strangers or missing:
        word = f"has {strangers[0]}, which is unknown" if strangers else f"lacks {missing[0]}"
        raise InputError(f"{what} {word}", hint="give a checkpoint of Stable Diffusion 1.x, whole")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise InputError(
                f"{name} in {what} is {list(tensor.shape)}, and should be {list(wanted[name].shape)}",
                hint="give weights and config.json of one model",
            )
    copies = {name: one.to(torch.float32, copy=True).contiguous() for name, one in tensors.items()}
    module.load_state_dict(copies, assign=True)
    return module.eval()


def single_file_tensors(unet: nn.Module, text_encoder: nn.Module, vae: nn.Module) -> dict[str, Tensor]:
    """All weights of a model by LDM names, in their own dtypes."""
    return {
        **ldm_keys.unet_to_ldm(unet.state_dict(), unet.config),  # type: ignore[arg-type]
        **ldm_keys.text_encoder_to_ldm(text_encoder.state_dict()),
        **ldm_keys.vae_to_ldm(vae.state_dict(), vae.config),  # type: ignore[arg-type]
    }


def single_file_metadata(
    tensors: Mapping[str, Tensor], real: Mapping[str, Mapping[str, Any]], tokenizer: Tokenizer
) -> dict[str, str]:
    """What our own reader must be told of a model that is not of SD1.5's sizes; empty for one that is.

    Args:
        tensors: by LDM names.    real: configurations of `unet`, `vae`, `text_encoder` and `scheduler`.
    """
    text_tensors = ldm_keys.canonical_text_encoder(ldm_keys.under(tensors, ldm_keys.TEXT_ENCODER))
    guessed = {
        "unet": unet_config(ldm_keys.under(tensors, ldm_keys.UNET))[0],
        "vae": vae_config(ldm_keys.under(tensors, ldm_keys.VAE))[0],
        "text_encoder": text_encoder_config(text_tensors)[0],
        "scheduler": {**sd1_configs()["scheduler"], "rescale_betas_zero_snr": False},
    }
    told = {CONFIG_KEY: unsaid(real, guessed)}
    if tokenizer.vocab_size < sd1_configs()["text_encoder"]["vocab_size"]:
        told[TOKENIZER_KEY] = tokenizer.to_text()
    return {key: value for key, value in told.items() if value}
