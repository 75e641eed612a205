"""What a single-file checkpoint of Stable Diffusion 1.x calls each tensor, and what diffusers calls it.

Names follow from the architecture (CompVis/latent-diffusion: ldm/modules/diffusionmodules/openaimodel.py and
model.py), for any number of levels, layers and attention blocks. Names of diffusers are canonical ones:
CLIP nested in `text_model`, attention of the VAE as `to_q`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT_ENCODER = "cond_stage_model.transformer."
Pair = tuple[str, str]  # path of a module: of diffusers, of a single file

_RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
_VAE_RESNET = (
    *((name, name) for name in ("norm1", "conv1", "norm2", "conv2")),
    ("conv_shortcut", "nin_shortcut"),
)
_TRANSFORMER_BLOCK = (
    *(f"norm{number}" for number in (1, 2, 3)),
    *(f"attn{number}.to_{one}" for number in (1, 2) for one in ("q", "k", "v", "out.0")),
    "ff.net.0.proj",
    "ff.net.2",
)
_VAE_ATTENTION = (
    ("group_norm", "norm"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "proj_out"),
)
_OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def unet_pairs(config: Mapping[str, Any]) -> Iterator[Pair]:
    """Modules of a UNet2DConditionModel that hold weights, from its configuration; all it could have."""
    yield from (
        ("conv_in", "input_blocks.0.0"),
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("conv_norm_out", "out.0"),
        ("conv_out", "out.2"),
    )
    yield from _down_pairs(config)
    yield from _resnet("mid_block.resnets.0", "middle_block.0")
    yield from _transformer("mid_block.attentions.0", "middle_block.1", _depth(config, -1))
    yield from _resnet("mid_block.resnets.1", "middle_block.2")
    yield from _up_pairs(config)


def _down_pairs(config: Mapping[str, Any]) -> Iterator[Pair]:
    """A single file counts layers and samplers of all levels in one row."""
    kinds, block = config["down_block_types"], 1
    for level, kind in enumerate(kinds):
        for layer in range(_each(config["layers_per_block"], level)):
            yield from _resnet(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{block}.0")
            if "CrossAttn" in kind:
                path = f"down_blocks.{level}.attentions.{layer}"
                yield from _transformer(path, f"input_blocks.{block}.1", _depth(config, level))
            block += 1
        if level < len(kinds) - 1:
            yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{block}.0.op"
            block += 1


def _up_pairs(config: Mapping[str, Any]) -> Iterator[Pair]:
    """A sampler stands in the block of the last layer of its level."""
    kinds, block = config["up_block_types"], 0
    for level, kind in enumerate(kinds):
        has_attention, mirrored = "CrossAttn" in kind, len(kinds) - 1 - level
        num_layers = _each(config["layers_per_block"], mirrored) + 1
        for layer in range(num_layers):
            yield from _resnet(f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{block}.0")
            if has_attention:
                path = f"up_blocks.{level}.attentions.{layer}"
                yield from _transformer(path, f"output_blocks.{block}.1", _depth(config, mirrored))
            block += 1
        if mirrored > 0:
            place = 2 if has_attention else 1
            yield f"up_blocks.{level}.upsamplers.0.conv", f"output_blocks.{block - 1}.{place}.conv"


def _resnet(path: str, other: str) -> Iterator[Pair]:
    yield from ((f"{path}.{one}", f"{other}.{two}") for one, two in _RESNET)


def _transformer(path: str, other: str, depth: int) -> Iterator[Pair]:
    for name in ("norm", "proj_in", "proj_out"):
        yield f"{path}.{name}", f"{other}.{name}"
    for block in range(depth):
        for name in _TRANSFORMER_BLOCK:
            yield f"{path}.transformer_blocks.{block}.{name}", f"{other}.transformer_blocks.{block}.{name}"


def _depth(config: Mapping[str, Any], level: int) -> int:
    return _each(config.get("transformer_layers_per_block", 1), level)


def _each(value: Any, level: int) -> int:
    """A setting that is one number, or one for each level."""
    return int(value if isinstance(value, int) else value[level])


def vae_pairs(config: Mapping[str, Any]) -> Iterator[Pair]:
    """Modules of an AutoencoderKL that hold weights; files count the decoder's levels from the end."""
    last = len(config["block_out_channels"]) - 1
    yield from ((name, name) for name in ("quant_conv", "post_quant_conv"))
    for half, levels, sampler in (("encoder", "down", "downsample"), ("decoder", "up", "upsample")):
        yield f"{half}.conv_in", f"{half}.conv_in"
        yield f"{half}.conv_norm_out", f"{half}.norm_out"
        yield f"{half}.conv_out", f"{half}.conv_out"
        for number in (0, 1):
            yield from _vae_resnet(f"{half}.mid_block.resnets.{number}", f"{half}.mid.block_{number + 1}")
        for one, two in _VAE_ATTENTION:
            yield f"{half}.mid_block.attentions.0.{one}", f"{half}.mid.attn_1.{two}"
        for level in range(last + 1):
            path = f"{half}.{levels}_blocks.{level}"
            other = f"{half}.{levels}.{level if half == 'encoder' else last - level}"
            for layer in range(config["layers_per_block"] + (half == "decoder")):
                yield from _vae_resnet(f"{path}.resnets.{layer}", f"{other}.block.{layer}")
            if level < last:
                yield f"{path}.{sampler}rs.0.conv", f"{other}.{sampler}.conv"


def _vae_resnet(path: str, other: str) -> Iterator[Pair]:
    yield from ((f"{path}.{one}", f"{other}.{two}") for one, two in _VAE_RESNET)


def unet_to_ldm(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a UNet by the names of a single file.

    Raises:
        KeyError: a tensor that such a UNet has not.
    """
    modules = dict(unet_pairs(config))
    return {UNET + _renamed(name, modules): tensor for name, tensor in tensors.items()}


def unet_from_ldm(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a single file that belong to the UNet, by the names of diffusers.

    Raises:
        KeyError: a tensor that such a UNet has not.
    """
    modules = {other: path for path, other in unet_pairs(config)}
    return {_renamed(name, modules): tensor for name, tensor in under(tensors, UNET).items()}


def vae_to_ldm(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a VAE by the names of a single file, where its attention is of 1x1 convolutions.

    Raises:
        KeyError: a tensor that such a VAE has not.
    """
    modules = dict(vae_pairs(config))
    renamed = {VAE + _renamed(name, modules): tensor for name, tensor in tensors.items()}
    return {
        name: tensor[:, :, None, None] if ".attn_1." in name and tensor.dim() == 2 else tensor
        for name, tensor in renamed.items()
    }


def vae_from_ldm(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a VAE by the names of diffusers; names given are those under `first_stage_model.`.

    Raises:
        KeyError: a tensor that such a VAE has not.
    """
    modules = {other: path for path, other in vae_pairs(config)}
    renamed = {_renamed(name, modules): tensor for name, tensor in tensors.items()}
    return {name: _flat_attention(name, tensor) for name, tensor in renamed.items()}


def text_encoder_to_ldm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a CLIP text model, by whichever names, by those of a single file."""
    return {TEXT_ENCODER + name: tensor for name, tensor in canonical_text_encoder(tensors).items()}


def canonical_text_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names nested in `text_model`, whichever way they came; without the positions' numbers, 0, 1, 2, ..."""
    return {
        f"text_model.{name.removeprefix('text_model.')}": tensor
        for name, tensor in tensors.items()
        if not name.endswith("position_ids")
    }


def canonical_vae(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of diffusers since 0.17, from these or from older ones (`query`, `proj_attn`)."""
    renamed = {}
    for name, tensor in tensors.items():
        path, _, kind = name.rpartition(".")
        parent, _, last = path.rpartition(".")
        if ".attentions." in name and last in _OLD_VAE_ATTENTION:
            name = f"{parent}.{_OLD_VAE_ATTENTION[last]}.{kind}"
        renamed[name] = _flat_attention(name, tensor)
    return renamed


def _flat_attention(name: str, tensor: Tensor) -> Tensor:
    """A weight of the VAE's attention as a matrix, [out_features, in_features]."""
    return tensor.flatten(1) if ".attentions." in name and tensor.dim() == 4 else tensor


def _renamed(name: str, modules: Mapping[str, str]) -> str:
    path, _, kind = name.rpartition(".")
    return f"{modules[path]}.{kind}"


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
