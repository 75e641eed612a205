"""Which layers of a Stable Diffusion 1.x model an adapter changes, and what files call them.

Names are built from the model's configuration by the rules of its architecture, never read off
`named_modules()`: libraries rename their modules (transformers 5.6 took `text_model.` out of CLIP's paths),
and every file written after such a day would be one that no UI can read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import nn

from pipeline.errors import InputError
from trainers.blocks import BASE, Blocks

Part = Literal["unet", "text_encoder"]
Targets = Literal["attention", "full", "full+"]
AdaptableModule: TypeAlias = nn.Linear | nn.Conv2d

PREFIXES: Mapping[Part, str] = {"unet": "lora_unet", "text_encoder": "lora_te"}
OUTER_UNET = ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")
_BLOCK = (
    *(f"attn{number}.to_{one}" for number in (1, 2) for one in ("q", "k", "v", "out.0")),
    "ff.net.0.proj",
    "ff.net.2",
)
_CLIP_LAYER = (*(f"self_attn.{one}_proj" for one in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2")


@dataclass(frozen=True, slots=True)
class Layer:
    """One linear or convolutional layer of a model, found by its canonical path."""

    part: Part
    path: str  # canonical: as diffusers and transformers before 5.6 nest it
    module: AdaptableModule
    parent: nn.Module
    attribute: str  # of the parent
    block: str  # as trainers/blocks.py names it

    @property
    def key(self) -> str:
        """What files call it, such as `lora_unet_mid_block_resnets_0_conv1`."""
        return f"{PREFIXES[self.part]}_{self.path.replace('.', '_')}"

    @property
    def kernel_area(self) -> int:
        """Width times height of the kernel; 1 of a linear layer."""
        return int(self.module.weight[0, 0].numel())

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution, of any size."""
        return isinstance(self.module, nn.Conv2d)

    @property
    def out_features(self) -> int:
        """Rows of its weight."""
        return int(self.module.weight.shape[0])

    @property
    def in_features(self) -> int:
        """Columns of its weight, without the kernel."""
        return int(self.module.weight.shape[1])


def unet_paths(config: Mapping[str, Any], targets: Targets = "full") -> list[str]:
    """Canonical paths of the layers of a UNet2DConditionModel, from its configuration.

    Args:
        targets: "attention" is what the networks.lora of kohya's scripts takes (192 of SD1.5), "full" what
            LoCon and LoHa take (278), "full+" also the first and last layers (282).
    """
    paths = [*_down_paths(config), *_up_paths(config), *_mid_paths(config)]
    if targets == "attention":
        return [path for path in paths if ".attentions." in path]
    return paths + list(OUTER_UNET if targets == "full+" else ())


def text_encoder_paths(num_layers: int) -> list[str]:
    """Canonical paths of the layers of a CLIP text model: 72 of SD1.5's twelve layers."""
    return [
        f"text_model.encoder.layers.{number}.{name}" for number in range(num_layers) for name in _CLIP_LAYER
    ]


def _down_paths(config: Mapping[str, Any]) -> Iterator[str]:
    channels = config["block_out_channels"]
    for number, kind in enumerate(config["down_block_types"]):
        before = channels[max(0, number - 1)]
        for layer in range(_each(config["layers_per_block"], number)):
            inputs = before if layer == 0 else channels[number]
            yield from _resnet(f"down_blocks.{number}.resnets.{layer}", inputs, channels[number])
            if "CrossAttn" in kind:
                yield from _transformer(f"down_blocks.{number}.attentions.{layer}", config, number)
        if number < len(channels) - 1:
            yield f"down_blocks.{number}.downsamplers.0.conv"


def _up_paths(config: Mapping[str, Any]) -> Iterator[str]:
    channels = config["block_out_channels"][::-1]
    last = len(channels) - 1
    for number, kind in enumerate(config["up_block_types"]):
        before, after = channels[max(0, number - 1)], channels[min(number + 1, last)]
        num_layers = _each(config["layers_per_block"], last - number) + 1
        for layer in range(num_layers):
            inputs = before if layer == 0 else channels[number]
            skipped = after if layer == num_layers - 1 else channels[number]
            yield from _resnet(f"up_blocks.{number}.resnets.{layer}", inputs + skipped, channels[number])
            if "CrossAttn" in kind:
                yield from _transformer(f"up_blocks.{number}.attentions.{layer}", config, last - number)
        if number < last:
            yield f"up_blocks.{number}.upsamplers.0.conv"


def _mid_paths(config: Mapping[str, Any]) -> Iterator[str]:
    channels = config["block_out_channels"][-1]
    yield from _resnet("mid_block.resnets.0", channels, channels)
    yield from _transformer("mid_block.attentions.0", config, -1)
    yield from _resnet("mid_block.resnets.1", channels, channels)


def _resnet(path: str, inputs: int, outputs: int) -> Iterator[str]:
    yield f"{path}.conv1"
    yield f"{path}.time_emb_proj"
    yield f"{path}.conv2"
    if inputs != outputs:
        yield f"{path}.conv_shortcut"


def _transformer(path: str, config: Mapping[str, Any], number: int) -> Iterator[str]:
    yield f"{path}.proj_in"
    for block in range(_each(config.get("transformer_layers_per_block", 1), number)):
        yield from (f"{path}.transformer_blocks.{block}.{name}" for name in _BLOCK)
    yield f"{path}.proj_out"


def _each(value: Any, number: int) -> int:
    """A setting that is one number, or one for each block."""
    return int(value if isinstance(value, int) else value[number])


def find_unet_layers(unet: nn.Module, targets: Targets = "full") -> list[Layer]:
    """The layers of a UNet by name.

    Raises:
        InputError: a layer is missing, or the UNet has layers that these names do not cover.
    """
    config: Mapping[str, Any] = unet.config  # type: ignore[assignment]
    known = set(unet_paths(config, "full+"))
    strangers = [
        path
        for path, module in unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and path not in known
    ]
    if strangers:
        raise InputError(
            f"this UNet is not one of Stable Diffusion 1.x: it has {strangers[0]}",
            hint="give a model of the SD1 family",
        )
    blocks = Blocks.of(config)
    return [_find(unet, "unet", path, path, blocks.of_path(path)) for path in unet_paths(config, targets)]


def find_text_encoder_layers(text_encoder: nn.Module) -> list[Layer]:
    """The layers of a CLIP text model by name, whether its module is nested in `text_model` or not.

    Raises:
        InputError: a layer is missing.
    """
    is_flat = not hasattr(text_encoder, "text_model")
    paths = text_encoder_paths(int(text_encoder.config.num_hidden_layers))  # type: ignore[union-attr,arg-type]
    return [
        _find(text_encoder, "text_encoder", path, path.removeprefix("text_model.") if is_flat else path, BASE)
        for path in paths
    ]


def _find(model: nn.Module, part: Part, path: str, place: str, block: str) -> Layer:
    parent_path, _, attribute = place.rpartition(".")
    try:
        parent = model.get_submodule(parent_path)
        module = parent.get_submodule(attribute)
    except AttributeError as error:
        raise InputError(
            f"the {part.replace('_', ' ')} has no layer {place}", hint="give a model of the SD1 family"
        ) from error
    if not isinstance(module, nn.Linear | nn.Conv2d):
        kind = type(module).__name__
        raise InputError(
            f"the layer {place} of the {part.replace('_', ' ')} is a {kind}",
            hint="give a model without adapters",
        )
    return Layer(part, path, module, parent, attribute, block)
