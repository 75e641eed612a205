"""An adapter file added to the weights of a model, and taken off again exactly.

Files of celforge, kohya's scripts, LyCORIS, diffusers and PEFT are read: LoRA, LoCon, LoHa, also as
Tucker decompositions, whose core goes into the thin factors without loss. The change of a layer is worked out
in fp32 by the reference `delta` of its algorithm. The weights before it are kept, and put back when the
adapter leaves: taking the change off again would leave its rounding behind.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from trainers.adapters.foreign_names import kohya_tensors
from trainers.adapters.network import ALGORITHMS, SHOWN_KEYS, algorithm_of, tensors_by_layer
from trainers.adapters.paths import Algorithm, Shape, exact_products
from trainers.embedding_files import part_bundle
from trainers.layers import PREFIXES, Layer, find_text_encoder_layers, find_unet_layers
from trainers.model_files import read_weights

FileKind = Literal["loha", "locon", "lora"]
_UNDERSTOOD = {
    *("lora_up.weight", "lora_down.weight", "lora_mid.weight", "alpha", "scalar"),
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
}
_DIFFUSERS_METADATA = "lora_adapter_metadata"
_KINDS_NOT_READ: Mapping[str, str] = {  # by a suffix that only they have
    "dora_scale": "a DoRA, whose change depends on the length of the weights",
    "lokr_w1": "a LoKr",
    "lokr_w1_a": "a LoKr",
    "oft_blocks": "an OFT",
    "oft_diag": "a Diag-OFT",
    "a1.weight": "a GLoRA",
    "on_input": "an IA3",
    "diff": "a full difference (LyCORIS' full)",
    "w_norm": "an adapter of norms",
}


@dataclass(frozen=True, slots=True)
class LayerChange:
    """The factors of one layer, as the file has them.

    Args:
        scale: alpha / rank.
    """

    key: str
    algorithm: Algorithm
    factors: Mapping[str, Tensor]
    scale: float

    def check(self, layer: Layer, where: str) -> None:
        """See that the change has the size of a layer.

        Raises:
            InputError: it has not.
        """
        shape = Shape.of(layer.module)
        rank = next(iter(self.factors.values())).shape[-1 if "w1_a" in self.factors else 1]
        expected = self.algorithm.factor_shapes(shape, int(rank))
        for name, size in expected.items():
            found = tuple(self.factors[name].shape)
            if found != size:
                raise InputError(
                    f"{where} is for another model: {name} of {self.key} is {list(found)}, "
                    f"and the layer wants {list(size)}",
                    hint="give the base that it was made for: --base MODEL",
                )

    @torch.no_grad()
    def delta(self, layer: Layer, weight: float) -> Tensor:
        """The change of the layer's weight, in its shape, fp32, on its device."""
        device = layer.module.weight.device
        factors = {name: one.to(device, torch.float32) for name, one in self.factors.items()}
        with exact_products(device.type):
            delta = self.algorithm.delta(factors, self.scale * weight)
        return delta.view(layer.module.weight.shape)


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter as it lies on disk.

    Args:
        metadata: of the file, as texts.
        embeddings: bundled with it, {name: [vectors, width]}.
    """

    path: Path
    kind: FileKind
    changes: Mapping[str, LayerChange]  # by layer key
    metadata: Mapping[str, str]
    embeddings: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, *, meta: bool = False) -> "AdapterFile":
        """Read an adapter.

        Args:
            meta: shapes only, without reading the values; alphas are then not known.

        Raises:
            InputError: damaged, not an adapter, or of a kind that is not read; the kind is named.
        """
        tensors, metadata = read_weights([path], meta=meta)
        if any(key.startswith(("lora_te1_", "lora_te2_", "text_encoder_2.")) for key in tensors):
            raise InputError(
                f"{path.name} is for Stable Diffusion XL",
                hint="give adapters of Stable Diffusion 1.x",
            )
        tensors, embeddings = part_bundle(tensors, metadata)
        layers = tensors_by_layer(kohya_tensors(tensors))
        _take_alphas_of_diffusers(layers, metadata, path.name)
        changes = {key: _change(key, found, path.name) for key, found in layers.items()}
        return cls(path, _kind(layers), changes, metadata, embeddings)

    def pairs(self, unet: nn.Module, text_encoder: nn.Module) -> list[tuple[Layer, LayerChange]]:
        """Each layer that is changed with its change.

        Raises:
            InputError: a layer of the file has no place in the model, or another size.
        """
        layers = [*find_unet_layers(unet, "full+"), *find_text_encoder_layers(text_encoder)]
        known = {layer.key: layer for layer in layers}
        strangers = sorted(self.changes.keys() - known.keys())
        if strangers:
            shown = ", ".join(strangers[:SHOWN_KEYS]) + (", ..." if len(strangers) > SHOWN_KEYS else "")
            raise InputError(
                f"{len(strangers)} layers of {self.path.name} have no place in the model: {shown}",
                hint="give the base that it was made for: --base MODEL",
            )
        found = [(known[key], change) for key, change in self.changes.items()]
        for layer, change in found:
            change.check(layer, self.path.name)
        return found

    @contextmanager
    def merged(self, unet: nn.Module, text_encoder: nn.Module, weight: float) -> Iterator[None]:
        """The models with `weight` times the change in their weights; afterwards as they were, bit for bit.

        Raises:
            InputError: as `pairs`; nothing is changed then.
        """
        pairs = self.pairs(unet, text_encoder)
        before: list[tuple[Tensor, Tensor]] = []
        try:
            with torch.no_grad():
                for layer, change in pairs:
                    place = layer.module.weight.data
                    before.append((place, place.to("cpu", copy=True)))
                    place.copy_(place.float() + change.delta(layer, weight))
            yield
        finally:
            with torch.no_grad():
                for place, kept in before:
                    place.copy_(kept)


def _change(key: str, tensors: Mapping[str, Tensor], where: str) -> LayerChange:
    for suffix in tensors:
        named = _KINDS_NOT_READ.get(suffix)
        if named:
            raise InputError(f"{where} is {named}, which is not read", hint="give a LoRA, a LoCon or a LoHa")
    if not key.startswith(tuple(f"{prefix}_" for prefix in PREFIXES.values())):
        raise InputError(f"{where} is not an adapter: it has {key}", hint="give a LoRA, a LoCon or a LoHa")
    unknown = sorted(tensors.keys() - _UNDERSTOOD)
    if unknown:
        raise InputError(
            f"{where} is of a kind that is not read: {key} has {unknown[0]}",
            hint="give a LoRA, a LoCon or a LoHa",
        )
    plain = _without_cores(tensors)
    algorithm = cast(Algorithm, ALGORITHMS[algorithm_of(plain)])
    factors = algorithm.from_file(plain)
    rank = int(factors["down"].shape[0] if "down" in factors else factors["w1_b"].shape[0])
    return LayerChange(
        key, algorithm, factors, _number(tensors, "alpha", rank) * _number(tensors, "scalar", 1) / rank
    )


def _number(tensors: Mapping[str, Tensor], name: str, otherwise: float) -> float:
    found = tensors.get(name)
    return otherwise if found is None or found.is_meta else float(found)


def _without_cores(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The thin factors of a Tucker decomposition with its cores in them.

    Hyeon-Woo et al. 2021, arXiv:2108.06098, proposition 3.

    A core is [rank, rank, kernel height, kernel width]; its first rank meets the factor of the outputs, its
    second that of the inputs, so core and inputs together are an ordinary factor of [rank, flat_in].
    """
    found = {
        name: one for name, one in tensors.items() if name not in ("lora_mid.weight", "hada_t1", "hada_t2")
    }
    if "lora_mid.weight" in tensors:
        found["lora_down.weight"] = _joined(tensors["lora_mid.weight"], tensors["lora_down.weight"])
    for number in (1, 2):
        core = tensors.get(f"hada_t{number}")
        if core is not None:
            found[f"hada_w{number}_a"] = tensors[f"hada_w{number}_a"].mT  # [rank, out] of a Tucker LoHa
            found[f"hada_w{number}_b"] = _joined(core, tensors[f"hada_w{number}_b"])
    return found


def _joined(core: Tensor, inputs: Tensor) -> Tensor:
    """[rank, flat_in], fp32."""
    return torch.einsum("rshw,si->rihw", core.float(), inputs.float().flatten(1)).flatten(1)


def _take_alphas_of_diffusers(
    layers: Mapping[str, dict[str, Tensor]], metadata: Mapping[str, str], where: str
) -> None:
    """A LoRA that diffusers saved says its alpha in the metadata alone: `unet.lora_alpha`, as PEFT calls it.

    Raises:
        InputError: the metadata are damaged, or say what is not read.
    """
    try:
        told = json.loads(metadata.get(_DIFFUSERS_METADATA, "{}"))
    except ValueError as error:
        raise InputError(f"{where} has damaged metadata", hint="save it again") from error
    for part, prefix in PREFIXES.items():
        if told.get(f"{part}.use_dora") or told.get(f"{part}.alpha_pattern"):
            raise InputError(
                f"{where} is a DoRA, or has another alpha for each layer in its metadata, which is not read",
                hint="give a LoRA with one alpha",
            )
        alpha = told.get(f"{part}.lora_alpha")
        for key, tensors in layers.items():
            if alpha is not None and key.startswith(f"{prefix}_") and "alpha" not in tensors:
                rank = tensors["lora_down.weight"].shape[0]
                widened = math.sqrt(rank) if told.get(f"{part}.use_rslora") else 1.0
                tensors["alpha"] = torch.tensor(float(alpha) * widened)


def _kind(layers: Mapping[str, Mapping[str, Tensor]]) -> FileKind:
    """LoCon where a convolution of a larger kernel takes part, as people tell them apart."""
    if any("hada_w1_a" in one for one in layers.values()):
        return "loha"
    downs = (one["lora_down.weight"] for one in layers.values() if "lora_down.weight" in one)
    has_kernels = any(down.dim() == 4 and down[0, 0].numel() > 1 for down in downs)
    has_cores = any("lora_mid.weight" in one for one in layers.values())
    return "locon" if has_kernels or has_cores else "lora"
