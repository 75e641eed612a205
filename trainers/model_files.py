"""Where the weights of a base model lie, and their tensors; on the meta device without reading them."""

import hashlib
import json
import pickle
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.errors import HubError, InputError
from pipeline.hub import HubFile, Ledger, fetch
from trainers.export import DTYPE_NAMES
from trainers.train_settings import MODEL_SUFFIXES

STEMS: Mapping[str, str] = {  # of weights in a diffusers folder
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
_OLD_STEMS = {"text_encoder": "pytorch_model"}  # before safetensors
_TOKENIZER_FILES = tuple(
    f"tokenizer/{name}" for name in ("vocab.json", "merges.txt", "special_tokens_map.json")
)
_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
_READ_BYTES = 1 << 20
INSTEAD = "give a .safetensors file or a diffusers folder on this disk"  # where the hub gives nothing


@dataclass(frozen=True, slots=True)
class Place:
    """A base model found on this disk."""

    given: str
    path: Path  # a file, or a diffusers folder

    @property
    def name(self) -> str:
        """What metadata call it: the file's name, or the folder's or repository's."""
        is_local = Path(self.given).exists()
        return self.path.name if is_local else self.given

    @property
    def is_file(self) -> bool:
        """Whether it is a single-file checkpoint."""
        return self.path.is_file()


def locate(given: str, *, state_folder: Path | None = None, parts: Iterable[str] = STEMS) -> Place:
    """Find a base on this disk, or bring it there from the hub.

    Args:
        given: a diffusers folder, a single file, or `owner/name[@revision]` on the hub.
        state_folder: where commits of hub files are noted; without it beside the hub's own cache.
        parts: which parts of a hub's model are wanted.

    Raises:
        InputError: there is no such file.
        HubError: it is not on this disk, and the hub does not give it.
    """
    path = Path(given).expanduser()
    if path.exists():
        return Place(given, path)
    repo, _, revision = given.partition("@")
    is_id = repo.count("/") == 1 and not given.startswith((".", "/", "~")) and "\\" not in given
    if not is_id or path.suffix.lower() in MODEL_SUFFIXES:
        raise InputError(
            f"there is no model {given}",
            hint="give a .safetensors file, a diffusers folder, or owner/name of a model on the hub",
        )
    return Place(given, _from_hub(repo, revision or None, _ledger(state_folder), list(parts)))


def _ledger(state_folder: Path | None) -> Ledger:
    if state_folder is None:
        from huggingface_hub import constants

        state_folder = Path(constants.HF_HOME) / "celforge"
        state_folder.mkdir(parents=True, exist_ok=True)
    return Ledger(state_folder)


def _from_hub(repo: str, revision: str | None, ledger: Ledger, parts: list[str]) -> Path:
    """Bring the files of a diffusers model, or of a VAE with a repository of its own; returns the folder."""

    def bring(*names: str) -> tuple[str, Path]:
        """The first of these files that can be had, else what was wrong with the first."""
        first: HubError | None = None
        for name in names:
            try:
                return name, fetch(HubFile(repo, name, revision, instead=INSTEAD), ledger)
            except HubError as error:
                first = first or error
        assert first is not None
        raise first

    folder = None
    for part in parts:
        found, config = bring(f"{part}/config.json", *(["config.json"] if parts == ["vae"] else []))
        prefix = found.removesuffix("config.json")
        folder = config.parent.parent if prefix else config.parent
        stem, old_stem = STEMS[part], _OLD_STEMS.get(part, STEMS[part])
        endings = (f"{stem}.safetensors", f"{stem}.fp16.safetensors", f"{old_stem}.bin")
        bring(*(prefix + ending for ending in endings))
    if "unet" in parts:
        for name in ("scheduler/scheduler_config.json", *_TOKENIZER_FILES):
            bring(name)
    assert folder is not None
    return folder


def part_files(folder: Path, part: str) -> list[Path]:
    """The files with the weights of one part of a diffusers folder; more than one when it is sharded.

    Raises:
        InputError: there are none.
    """
    stems = [STEMS[part], *([_OLD_STEMS[part]] if part in _OLD_STEMS else [])]
    for suffix in ("safetensors", "fp16.safetensors", "bin", "fp16.bin"):
        for stem in stems:
            path = folder / f"{stem}.{suffix}"
            if path.is_file():
                return [path]
            index = folder / f"{path.name}.index.json"
            if index.is_file():
                names = read_json(index)["weight_map"].values()
                return [folder / name for name in sorted(set(names))]
    raise InputError(
        f"{folder} has no weights: no {stems[0]}.safetensors",
        hint="give a folder that diffusers has saved whole, or the single .safetensors file",
    )


def read_weights(paths: Iterable[Path], *, meta: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of model files by name, and their metadata.

    Args:
        meta: give them on the meta device, with shapes and dtypes only; `betas` are read all the same.

    Raises:
        InputError: not a model file, damaged, or a pickle that holds more than weights.
    """
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for path in paths:
        if path.suffix.lower() == ".safetensors":
            found, words = _read_safetensors(path, meta)
        else:
            found, words = _read_pickle(path, meta), {}
        tensors.update(found)
        metadata.update(words)
    return tensors, metadata


def _read_safetensors(path: Path, meta: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            tensors = {
                name: _outline(file.get_slice(name), name)
                if meta and name != "betas"
                else file.get_tensor(name)
                for name in names
            }
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}", hint="look at its name") from error
    except (SafetensorError, OSError) as error:
        hint = "download or copy it again: it is damaged, or only a part of it came"
        raise InputError(f"{path} is not a whole safetensors file: {error}", hint=hint) from error
    return tensors, metadata


def _outline(entry: Any, name: str) -> Tensor:
    """A tensor of the shape and dtype that the header says, without values."""
    dtype = _DTYPES.get(entry.get_dtype())
    if dtype is None:
        raise InputError(f"{name} is of {entry.get_dtype()}", hint="give the model in float16 or float32")
    return torch.empty(entry.get_shape(), dtype=dtype, device="meta")


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # files of torch before 1.6 cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_pickle(path: Path, meta: bool) -> dict[str, Tensor]:
    """Weights of a .ckpt; nothing in it is ever run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that it then refuses, or reads
            read = _load(path)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds objects of Python beside its weights, and celforge never runs what a file brings",
            hint="give the .safetensors of the same model",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a model file: {error}", hint="give a .safetensors or .ckpt file"
        ) from error
    if isinstance(read, dict):
        read = read.get("state_dict", read)
    tensors = (
        {str(name): one for name, one in read.items() if isinstance(one, Tensor)}
        if isinstance(read, dict)
        else {}
    )
    if not tensors:
        raise InputError(f"{path} holds no weights", hint="give a .safetensors or .ckpt file of a model")
    return {
        name: tensor.to("meta") if meta and name != "betas" else tensor for name, tensor in tensors.items()
    }


def read_json(path: Path) -> dict[str, Any]:
    """A configuration.

    Raises:
        InputError: it is missing or broken.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"there is no {path}", hint="give a folder that diffusers has saved whole"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", hint="copy it again") from error
    if not isinstance(read, dict):
        raise InputError(f"{path} is not a configuration", hint="copy it again")
    return read


def read_yaml_beside(path: Path) -> dict[str, Any]:
    """`model.params` of the .yaml that UIs want beside some single files; empty without one.

    Raises:
        InputError: it is there and broken.
    """
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        return {}
    try:
        read = yaml.safe_load(beside.read_text(encoding="utf-8"))
        return dict(read["model"]["params"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InputError(
            f"{beside} is not a model's configuration: {error}", hint="mend it, or move it away"
        ) from error


def sha256_of_files(paths: list[Path]) -> str:
    """sha256, hex, of one file; of several, of their hashes in order."""
    digests = []
    for path in paths:
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while data := stream.read(_READ_BYTES):
                digest.update(data)
        digests.append(digest.hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """sha256, hex, of what a network is: names, shapes and fp32 values, whatever file they came in."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
