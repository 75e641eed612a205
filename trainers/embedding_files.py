"""Embeddings in files: by themselves as A1111 has them, or bundled with the adapter they learned with."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pipeline.errors import InputError
from trainers.model_files import read_weights

PARAMETER = "emb_params"  # the one tensor of a file, [vectors, width]
METADATA = "celforge.embeddings"  # of a model trained with them: {name: {"called", "vectors", "words"}}
FOLDER = "embeddings"  # beside the model
_BUNDLED, _VECTORS = "bundle_emb", "string_to_param.*"


def bundled_key(called: str) -> str:
    """The key of an embedding in an adapter's file; A1111 cuts it at its first two dots."""
    return f"{_BUNDLED}.{called}.{_VECTORS}"


def part_bundle(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The adapter's own tensors, and {name: vectors} of the embeddings that are bundled with it."""
    names = {called: name for name, called in _told(metadata).items()}
    own: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key.startswith(f"{_BUNDLED}."):
            called = key.split(".")[1]
            found[names.get(called, called)] = tensor if tensor.dim() == 2 else tensor.view(1, -1)
        else:
            own[key] = tensor
    return own, found


def files_beside(path: Path, metadata: Mapping[str, str]) -> dict[str, Path]:
    """{name: file} of the embeddings that a model was trained with.

    Args:
        path: of the model; its metadata say which.

    Raises:
        InputError: one is missing.
    """
    stem = path.name.removesuffix(".safetensors")
    folder = path.parent / FOLDER / stem
    folder = folder if folder.is_dir() else folder.parent
    found = {name: folder / f"{called}.safetensors" for name, called in _told(metadata).items()}
    for name, one in found.items():
        if not one.is_file():
            raise InputError(
                f"{path.name} was trained with the embedding {name}, and {one} is missing",
                hint="put it back, or give the bundle of the adapter",
            )
    return found


def read_vectors(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """{name: [vectors, width]}.

    Raises:
        InputError: a file is damaged, or no embedding of A1111's form.
    """
    found: dict[str, Tensor] = {}
    for name, path in files.items():
        tensors, _ = read_weights([path], meta=False)
        if PARAMETER not in tensors:
            raise InputError(
                f"{path} is no embedding: it has no {PARAMETER}", hint="give one of A1111's form"
            )
        found[name] = tensors[PARAMETER]
    return found


def _told(metadata: Mapping[str, str]) -> dict[str, str]:
    """{name: what its file is called}; nothing where metadata are not ours."""
    try:
        return {str(name): str(one["called"]) for name, one in json.loads(metadata[METADATA]).items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
