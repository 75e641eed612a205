"""Keys of files that other tools wrote, in the names of kohya's scripts that all UIs know.

Understood:
    lora_te_encoder_layers_0_...: LyCORIS 4.1 beside transformers 5.6 and later, which took `text_model` out
    unet.down_blocks.0. ... .to_q.lora_A.weight, lora_B: diffusers and PEFT, also with `base_model.model.`
    unet. ... .to_q.lora.down.weight, lora_linear_layer.up.weight, processor.to_q_lora.down.weight: diffusers
        until 0.21
diffusers writes no alpha into its tensors where it is the rank; a layer without one is read so.
"""

import re
from collections.abc import Mapping

from torch import Tensor

_FLAT_CLIP = re.compile(r"lora_te_(?=encoder_layers_)")
_DOTTED = re.compile(r"(?:base_model\.model\.)?(?P<part>unet|text_encoder)\.(?P<path>.+)")
_PROCESSOR = re.compile(r"\.processor\.(to_(?:q|k|v|out))_lora\.")
_SUFFIXES = (
    (
        re.compile(r"\.(?:lora_A(?:\.default)?|lora\.down|lora_linear_layer\.down)\.weight$"),
        "lora_down.weight",
    ),
    (re.compile(r"\.(?:lora_B(?:\.default)?|lora\.up|lora_linear_layer\.up)\.weight$"), "lora_up.weight"),
    (re.compile(r"(?:\.lora)?\.alpha$"), "alpha"),
)
_PREFIXES = {"unet": "lora_unet", "text_encoder": "lora_te"}


def kohya_key(key: str) -> str:
    """The key of one tensor in kohya's names; one that is not understood as it is."""
    dotted = _DOTTED.fullmatch(key)
    if dotted is None:
        return _FLAT_CLIP.sub("lora_te_text_model_", key)
    path = _PROCESSOR.sub(lambda found: f".{_attention(found[1])}.lora.", dotted["path"])
    for suffix, ours in _SUFFIXES:
        if suffix.search(path):
            layer = suffix.sub("", path).replace(".", "_")
            return kohya_key(f"{_PREFIXES[dotted['part']]}_{layer}.{ours}")
    return key


def _attention(name: str) -> str:
    return "to_out.0" if name == "to_out" else name


def kohya_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a file under kohya's keys."""
    return {kohya_key(key): tensor for key, tensor in tensors.items()}
