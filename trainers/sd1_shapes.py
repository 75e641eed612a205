"""The architecture of a single-file SD1.x checkpoint, told by the shapes of its tensors.

What shapes cannot tell (attention heads, groups of norms, scaling factor, schedule) is taken from the file's
own metadata where celforge wrote it, else as in SD1.5; where the model is of other sizes, that is noted.
"""

import inspect
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from pipeline.errors import InputError

CONFIG_KEY = "celforge.config"  # metadata: what shapes do not tell, where it is not as in SD1.5
TOKENIZER_KEY = "celforge.tokenizer"  # metadata: the vocabulary, where it is not OpenAI's
_CLASSES = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
_WIDTH_PER_HEAD = 64  # of CLIP's text models, all sizes


@cache
def _bundled() -> str:
    return files("trainers").joinpath("model_configs", "sd1.json").read_text(encoding="utf-8")


def sd1_configs() -> dict[str, dict[str, Any]]:
    """Configurations of SD1.5: `unet`, `vae`, `text_encoder`, `scheduler`."""
    return json.loads(_bundled())  # type: ignore[no-any-return]


def unet_config(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], list[str]]:
    """Configuration of a UNet by its tensors, named as in `model.diffusion_model.`; and what was guessed."""
    config = sd1_configs()["unet"]
    channels, layers, attention, depths = _down_levels(tensors)
    heads = config["attention_head_dim"]
    notes = []
    if (
        any(width % heads for width, has in zip(channels, attention, strict=True) if has)
        or channels[-1] % heads
    ):
        heads = 1
    if channels != config["block_out_channels"]:
        notes.append(f"the file does not say how many attention heads its UNet has: {heads} are taken")
    groups, of_groups = _groups(config["norm_num_groups"], channels)
    keys = [one for name, one in tensors.items() if name.endswith("attn2.to_k.weight")]
    config.update(
        attention_head_dim=heads,
        block_out_channels=channels,
        cross_attention_dim=int(keys[0].shape[1]),
        down_block_types=["CrossAttnDownBlock2D" if one else "DownBlock2D" for one in attention],
        in_channels=int(tensors["input_blocks.0.0.weight"].shape[1]),
        layers_per_block=_one_or_all(layers),
        norm_num_groups=groups,
        out_channels=int(tensors["out.2.weight"].shape[0]),
        up_block_types=["CrossAttnUpBlock2D" if one else "UpBlock2D" for one in reversed(attention)],
    )
    if set(depths) != {1}:
        config["transformer_layers_per_block"] = _one_or_all(depths)
    return config, notes + of_groups


def _down_levels(tensors: Mapping[str, Tensor]) -> tuple[list[int], list[int], list[bool], list[int]]:
    """Of each level: channels, layers, whether it has attention, transformer blocks of each attention."""
    channels, layers, attention, depths = [0], [0], [False], [1]
    block = 1
    while any(name.startswith(f"input_blocks.{block}.0.") for name in tensors):
        if f"input_blocks.{block}.0.op.weight" in tensors:
            channels, layers, attention, depths = (
                [*channels, 0],
                [*layers, 0],
                [*attention, False],
                [*depths, 1],
            )
        else:
            channels[-1] = int(tensors[f"input_blocks.{block}.0.out_layers.3.weight"].shape[0])
            layers[-1] += 1
            attention[-1] = f"input_blocks.{block}.1.proj_in.weight" in tensors
            if attention[-1]:
                depths[-1] = _count(tensors, rf"input_blocks\.{block}\.1\.transformer_blocks\.(\d+)\.")
        block += 1
    return channels, layers, attention, depths


def vae_config(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], list[str]]:
    """Configuration of a VAE by its tensors, named as under `first_stage_model.`; and what was guessed."""
    config = sd1_configs()["vae"]
    levels = _count(tensors, r"encoder\.down\.(\d+)\.")
    channels = [
        int(tensors[f"encoder.down.{level}.block.0.conv2.weight"].shape[0]) for level in range(levels)
    ]
    groups, notes = _groups(config["norm_num_groups"], channels)
    config.update(
        block_out_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * levels,
        in_channels=int(tensors["encoder.conv_in.weight"].shape[1]),
        latent_channels=int(tensors["decoder.conv_in.weight"].shape[1]),
        layers_per_block=_count(tensors, r"encoder\.down\.0\.block\.(\d+)\."),
        norm_num_groups=groups,
        out_channels=int(tensors["decoder.conv_out.weight"].shape[0]),
        up_block_types=["UpDecoderBlock2D"] * levels,
    )
    return config, [note.replace("norms", "VAE's norms") for note in notes]


def text_encoder_config(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], list[str]]:
    """Configuration of a CLIP text model by its canonical tensors; and what was guessed."""
    config = sd1_configs()["text_encoder"]
    vocabulary, width = tensors["text_model.embeddings.token_embedding.weight"].shape
    heads = width // _WIDTH_PER_HEAD if width % _WIDTH_PER_HEAD == 0 else 1
    notes = []
    if width != config["hidden_size"]:
        notes.append(
            f"the file does not say how many attention heads its text encoder has: {heads} are taken"
        )
    config.update(
        hidden_size=int(width),
        intermediate_size=int(tensors["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0]),
        max_position_embeddings=int(tensors["text_model.embeddings.position_embedding.weight"].shape[0]),
        num_attention_heads=int(heads),
        num_hidden_layers=_count(tensors, r"text_model\.encoder\.layers\.(\d+)\."),
        projection_dim=int(width),
        vocab_size=int(vocabulary),
    )
    return config, notes


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Numbers that stand at one place of the names: 0, 1, 2, ..."""
    found = {int(match[1]) for match in map(re.compile(pattern).match, tensors) if match}
    if found != set(range(len(found))) or not found:
        raise InputError(f"its layers are not complete: {pattern}", hint="download the file again")
    return len(found)


def _one_or_all(values: list[int]) -> int | list[int]:
    return values[0] if len(set(values)) == 1 else values


def _groups(usual: int, channels: list[int]) -> tuple[int, list[str]]:
    """Groups of the norms: as usual, else the largest power of two that divides all widths."""
    if all(width % usual == 0 for width in channels):
        return usual, []
    groups = 1
    while all(width % (2 * groups) == 0 for width in channels):
        groups *= 2
    return groups, [f"the file does not say how many groups its norms have: {groups} are taken"]


def unsaid(real: Mapping[str, Mapping[str, Any]], guessed: Mapping[str, Mapping[str, Any]]) -> str:
    """What a model's configurations say and its tensors do not, as JSON; empty when there is nothing."""
    differing = {
        part: {
            key: value
            for key, value in _plain(real[part]).items()
            if not key.startswith("_")
            and key != "architectures"
            and key in (known := _whole(part, guessed[part]))
            and known[key] != value
        }
        for part in sorted(real)
    }
    differing = {part: values for part, values in differing.items() if values}
    return json.dumps(differing, sort_keys=True, separators=(",", ":")) if differing else ""


def _whole(part: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the defaults of its class."""
    if part not in _CLASSES:
        return _plain(config)
    parameters = inspect.signature(_CLASSES[part].__init__).parameters
    defaults = {name: one.default for name, one in parameters.items() if one.default is not one.empty}
    return _plain({**defaults, **config})


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON would give it back: lists for tuples."""
    return json.loads(json.dumps(dict(config), default=str))  # type: ignore[no-any-return]
