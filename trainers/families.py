"""Which family of Stable Diffusion a file or folder is of; the wrong ones are named, with what to do."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pipeline.errors import InputError

_GIVE_SD1 = "give a checkpoint of Stable Diffusion 1.x"
_ADAPTER_MARKS = (".lora_up.", ".lora_down.", ".hada_w1_a", ".lokr_w1", ".lora_A.", ".lora_B.", ".oft_blocks")
_FIRST_CONV = "model.diffusion_model.input_blocks.0.0.weight"
_LATER = ("joint_blocks", "double_blocks", "transformer_blocks.0.attn.", "single_blocks")


def family_of_tensors(tensors: Mapping[str, Tensor], where: str) -> str:
    """The family of a single file, by names and shapes of its tensors: "sd1".

    Raises:
        InputError: another family, or not a whole model.
    """
    names = tensors.keys()
    if any(mark in name for name in names for mark in _ADAPTER_MARKS):
        raise InputError(
            f"{where} is an adapter (LoRA, LoCon, LoHa), not a model",
            hint="give the checkpoint that it is for",
        )
    if _any(names, "conditioner.embedders."):
        raise _other(where, "Stable Diffusion XL")
    if _any(names, "cond_stage_model.model."):
        raise _other(where, "Stable Diffusion 2.x")
    if _FIRST_CONV not in names:
        raise _not_a_model(names, where)
    if _any(names, "control_model."):
        raise InputError(f"{where} is a ControlNet", hint=_GIVE_SD1)
    if "model.diffusion_model.label_emb.0.0.weight" in names:
        raise _other(where, "Stable Diffusion XL")
    _refuse_channels(
        int(tensors[_FIRST_CONV].shape[1]), int(tensors["model.diffusion_model.out.2.weight"].shape[0]), where
    )
    projections = [one for name, one in tensors.items() if name.endswith(".1.proj_in.weight")]
    if any(one.dim() == 2 for one in projections):
        raise _other(where, "Stable Diffusion 2.x")
    return "sd1"


def family_of_configs(index: Mapping[str, Any], unet: Mapping[str, Any], where: str) -> str:
    """The family of a diffusers folder, by model_index.json (may be empty) and the UNet's config.json: "sd1".

    Raises:
        InputError: another family.
    """
    pipeline = str(index.get("_class_name", ""))
    if "XL" in pipeline or unet.get("addition_embed_type"):
        raise _other(where, "Stable Diffusion XL")
    if unet.get("_class_name", "UNet2DConditionModel") != "UNet2DConditionModel":
        raise _other(where, str(unet["_class_name"]))
    if unet.get("use_linear_projection") or unet.get("cross_attention_dim") == 1024:
        raise _other(where, "Stable Diffusion 2.x")
    _refuse_channels(int(unet.get("in_channels", 4)), int(unet.get("out_channels", 4)), where)
    return "sd1"


def _any(names: Any, beginning: str) -> bool:
    return any(name.startswith(beginning) for name in names)


def _other(where: str, family: str) -> InputError:
    return InputError(f"{where} is of the family {family}, which cannot be trained yet", hint=_GIVE_SD1)


def _refuse_channels(num_in: int, num_out: int, where: str) -> None:
    if num_in == 9:
        raise InputError(
            f"{where} is an inpainting model (9 channels in)",
            hint="give the plain checkpoint it was made from",
        )
    if num_in != num_out:
        raise InputError(
            f"{where} takes {num_in} channels and gives {num_out}: it is conditioned on pictures",
            hint=_GIVE_SD1,
        )


def _not_a_model(names: Any, where: str) -> InputError:
    """Say what a file without a UNet is."""
    if _any(names, "first_stage_model.") or "encoder.conv_in.weight" in names:
        return InputError(f"{where} is a VAE alone", hint=f"{_GIVE_SD1}, and this one as --vae")
    if "conv_in.weight" in names and _any(names, "down_blocks."):
        return InputError(
            f"{where} is one part of a diffusers model", hint="give the folder that has model_index.json"
        )
    if _any(names, "text_model.") or _any(names, "cond_stage_model."):
        return InputError(f"{where} is a text encoder alone", hint=_GIVE_SD1)
    if any(mark in name for name in names for mark in _LATER):
        return _other(where, "SD3, Flux or later")
    return InputError(f"{where} is not a model of Stable Diffusion: it has no UNet", hint=_GIVE_SD1)
