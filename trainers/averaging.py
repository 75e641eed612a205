"""The average of model files after the fact: weighted means of their tensors, or of the changes they make.

A change of a layer is a product of factors, and the mean of products is not the product of means. Files of
one run lie near each other, so their mean factors make nearly the mean change (as in Izmailov et al. 2018,
arXiv:1803.05407, for weights); of files that have nothing to do with each other they make nonsense. The
distance is worked out and told.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import InputError, SettingsError
from trainers.adapters.foreign_names import kohya_tensors
from trainers.adapters.merging import AdapterFile, LayerChange
from trainers.adapters.network import SHOWN_KEYS
from trainers.export import MODEL_HASH, FileHashes, read_hashes, write_safetensors
from trainers.model_files import read_weights
from trainers.precision import DTYPES

FAR = 0.1  # of the mean change: above it the mean factors are another adapter
_ADAPTER_KEYS = (
    "lora_unet_",
    "lora_te_",
    "lora_te1_",
    "unet.",
    "text_encoder.",
    "base_model.",
    "bundle_emb.",
)


@dataclass(frozen=True, slots=True)
class Averaged:
    """What was made.

    Args:
        weights: of each file, which sum to 1.
        distance: of the change of the mean factors from the mean change, over the mean change; None of full
            checkpoints, and of an exact average.
    """

    path: Path
    files: tuple[Path, ...]
    weights: tuple[float, ...]
    hashes: FileHashes
    distance: float | None

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "made": str(self.path),
            "files": {str(path): weight for path, weight in zip(self.files, self.weights, strict=True)},
            "distance": self.distance,
            "hashes": {"AutoV2": self.hashes.auto_v2, "AutoV3": self.hashes.auto_v3},
        }

    def lines(self) -> Iterator[str]:
        """For a person."""
        for path, weight in zip(self.files, self.weights, strict=True):
            yield f"{weight:7.2%}  {path}"
        if self.distance is not None:
            yield f"the change is {self.distance:.2%} off the average of the files' changes"
            if self.distance > FAR:
                yield "note: these files are too far apart for an average of factors: give --exact"
        yield f"made: {self.path}  AutoV2 {self.hashes.auto_v2}  AutoV3 {self.hashes.auto_v3}"


def average_files(
    given: Sequence[Path],
    out: Path,
    *,
    weights: Sequence[float] = (),
    decay: float = 1.0,
    is_exact: bool = False,
    precision: str | None = None,
    overwrite: bool = False,
) -> Averaged:
    """Average model files into one.

    Args:
        given: files, or folders of runs.
        weights: of the files; all alike when empty.
        decay: weight of a file over that of the next one.
        is_exact: average the changes of adapters.
        precision: of the file's numbers; None keeps that of the first.

    Raises:
        InputError: fewer than two files, or files that do not go together; or the file is there.
        SettingsError: weights that do not fit the files.
    """
    if out.exists() and not overwrite:
        raise InputError(f"{out} is there already", hint="give another --out, or --overwrite")
    if out.suffix != ".safetensors":
        raise SettingsError(f"an average is written as .safetensors, found {out.name}", hint="mend --out")
    files = _in_order(_files(given))
    shares = _shares(len(files), weights, decay)
    metadata = read_weights([files[-1]], meta=True)[1]
    metadata |= {
        "ss_output_name": out.stem,
        "modelspec.title": out.stem,
        "celforge.average": _said(files, shares, is_exact),
    }
    metadata.pop(MODEL_HASH, None)
    is_adapter = _is_adapter(files[0])
    if is_exact and not is_adapter:
        raise SettingsError("--exact is for adapters: a checkpoint's mean is exact", hint="leave it out")
    distance = None
    if is_exact:
        adapters = [AdapterFile.read(path) for path in files]
        if any(one.embeddings for one in adapters):
            raise SettingsError(
                "--exact averages the changes of layers, and a bundle has embeddings too", hint="leave it out"
            )
        tensors = dict(_concatenated(adapters, shares))
        metadata |= _exact_metadata(tensors)
    else:
        tensors = _mean(files, shares)
        if is_adapter:
            distance = _distance([AdapterFile.read(path) for path in files], shares)
    if precision or is_exact:
        dtype = DTYPES[precision or "fp16"]
        tensors = {name: one.to(dtype) if one.is_floating_point() else one for name, one in tensors.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    return Averaged(out, tuple(files), shares, write_safetensors(out, tensors, metadata), distance)


def _files(given: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(one for one in path.glob("*.safetensors") if not one.stem.endswith("-ema"))
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"there is no file {path}", hint="give model files, or the folder of a run")
    unique = list(dict.fromkeys(found))
    if len(unique) < 2:
        raise InputError(
            f"an average takes at least two files, found {len(unique)}",
            hint="give several step files, or the folder of a run that saved some: --save-every",
        )
    return unique


def _in_order(files: list[Path]) -> list[Path]:
    """By their steps, where all of them belong to one run; else as they were given."""
    metadata = [read_weights([path], meta=True)[1] for path in files]
    is_one_run = len({one.get("ss_output_name", "") for one in metadata}) == 1
    steps = [one.get("ss_steps", "") for one in metadata]
    if not is_one_run or not all(step.isdigit() for step in steps):
        return files
    return [path for _, path in sorted(zip(map(int, steps), files, strict=True), key=lambda pair: pair[0])]


def _shares(count: int, weights: Sequence[float], decay: float) -> tuple[float, ...]:
    if weights and len(weights) != count:
        raise SettingsError(
            f"there are {count} files and {len(weights)} weights",
            hint="one for each: --weights 1,1,2",
        )
    if weights and decay != 1:
        raise SettingsError("--weights and --decay exclude each other", hint="leave one of them out")
    raw = list(weights) or [decay ** (count - 1 - number) for number in range(count)]
    if any(one < 0 or not math.isfinite(one) for one in raw) or sum(raw) <= 0:
        raise SettingsError(f"weights must be 0 or more, found {raw}", hint="give one above 0")
    return tuple(one / math.fsum(raw) for one in raw)


def _said(files: Sequence[Path], shares: Sequence[float], is_exact: bool) -> str:
    """Without the paths of a machine."""
    parts = [
        {"file": path.name, "tensors_sha256": read_hashes(path).tensors_sha256, "weight": round(share, 9)}
        for path, share in zip(files, shares, strict=True)
    ]
    return json.dumps({"of": "changes" if is_exact else "tensors", "files": parts}, ensure_ascii=False)


def _is_adapter(path: Path) -> bool:
    names, _ = read_weights([path], meta=True)
    return all(name.startswith(_ADAPTER_KEYS) for name in names)


def _mean(files: Sequence[Path], shares: Sequence[float]) -> dict[str, Tensor]:
    """Weighted means in fp64, in the numbers of the first file; one file is in memory at a time."""
    sums: dict[str, Tensor] = {}
    first: dict[str, Tensor] = {}
    for path, share in zip(files, shares, strict=True):
        tensors = kohya_tensors(read_weights([path], meta=False)[0])
        first = first or dict(tensors)
        _require_alike(first, tensors, files[0], path)
        for name, one in tensors.items():
            if one.is_floating_point() and not name.endswith(".alpha"):
                part = one.double() * share
                sums[name] = sums[name] + part if name in sums else part
            elif not torch.equal(one, first[name]):
                raise InputError(
                    f"{name} is {one.tolist()} in {path.name} and {first[name].tolist()} in {files[0].name}",
                    hint="average files of one run; of adapters with other alphas: --exact",
                )
    return {name: sums[name].to(one.dtype) if name in sums else one for name, one in first.items()}


def _require_alike(first: Mapping[str, Tensor], other: Mapping[str, Tensor], one: Path, path: Path) -> None:
    strangers = sorted(first.keys() ^ other.keys())
    if strangers:
        shown = ", ".join(strangers[:SHOWN_KEYS])
        raise InputError(
            f"{one.name} and {path.name} do not have the same tensors: {shown}",
            hint="average files of one run; of adapters with other layers: --exact",
        )
    for name, tensor in first.items():
        if tensor.shape != other[name].shape:
            raise InputError(
                f"{name} is {list(tensor.shape)} in {one.name} and {list(other[name].shape)} in {path.name}",
                hint="average files of one run; of adapters with other ranks: --exact",
            )


def _concatenated(adapters: Sequence[AdapterFile], shares: Sequence[float]) -> Iterator[tuple[str, Tensor]]:
    """The mean change of each layer as one LoCon: the thin factors of all files side by side.

    sum_i w_i up_i @ down_i = [up_1, up_2, ...] @ [w_1 down_1; w_2 down_2; ...], and alpha is the rank.
    """
    for key in dict.fromkeys(key for one in adapters for key in one.changes):
        ups: list[Tensor] = []
        downs: list[Tensor] = []
        for adapter, share in zip(adapters, shares, strict=True):
            change = adapter.changes.get(key)
            if change is None:
                continue
            factors = {name: one.float() for name, one in change.factors.items()}
            up, down = change.algorithm.low_rank(factors, change.scale * share)
            ups.append(up)
            downs.append(down)
        if len({(up.shape[0], down.shape[1]) for up, down in zip(ups, downs, strict=True)}) > 1:
            raise InputError(f"{key} has another size in each file", hint="average adapters of one base")
        up, down = torch.cat(ups, 1), torch.cat(downs, 0)
        side = _kernel_side(key)
        if side:
            up, down = up[:, :, None, None], down.view(down.shape[0], -1, side, side)
        yield f"{key}.lora_down.weight", down
        yield f"{key}.lora_up.weight", up
        yield f"{key}.alpha", torch.tensor(float(up.shape[1]))


def _kernel_side(key: str) -> int:
    """Of a layer of Stable Diffusion 1.x; 0 of a linear one. A LoHa's tensors are flat and do not tell it."""
    if key.endswith(("_conv1", "_conv2", "_conv", "_conv_in", "_conv_out")):
        return 3
    return 1 if key.endswith(("_proj_in", "_proj_out", "_conv_shortcut")) else 0


def _exact_metadata(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    ranks = [one.shape[0] for name, one in tensors.items() if name.endswith("lora_down.weight")]
    rank = str(max(ranks))
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "ss_network_args": json.dumps({"conv_alpha": rank, "conv_dim": rank}),
    }


def _distance(adapters: Sequence[AdapterFile], shares: Sequence[float]) -> float:
    """|mean change - change of the mean factors| / |mean change|, of all layers together (Frobenius)."""
    off, whole = 0.0, 0.0
    for key, first in adapters[0].changes.items():
        mean = torch.zeros(())
        factors: dict[str, Tensor] = {}
        for adapter, share in zip(adapters, shares, strict=True):
            change: LayerChange = adapter.changes[key]
            own = {name: one.float() for name, one in change.factors.items()}
            mean = mean + change.algorithm.delta(own, change.scale * share)
            factors = {name: factors.get(name, 0) + share * one for name, one in own.items()}
        delta = first.algorithm.delta(factors, first.scale)
        off += float((mean - delta).square().sum())
        whole += float(mean.square().sum())
    return math.sqrt(off / whole) if whole else 0.0
