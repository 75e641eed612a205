"""Model files as safetensors: the same tensors and metadata always give the same bytes and the same hashes.

The safetensors library writes metadata in random order, and with it another file hash every time; here
metadata are sorted. A file is 8 bytes with the length of its header (little-endian), the header as JSON
padded with spaces to a multiple of 8, and the tensors: wider dtypes first, then by name, as the library lays
them.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.files import disk_full_as_error, partial_path
from pipeline.renaming import replace, sync_folder

DTYPE_NAMES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.bool: "BOOL",
}
MODEL_HASH = "sshs_model_hash"  # metadata: sha256 of the tensors' bytes, which metadata do not change
MOST_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class FileHashes:
    """What UIs and model sites know a file by."""

    sha256: str  # of the whole file
    tensors_sha256: str  # of the tensors' bytes alone; AutoV3, and `sshs_model_hash`

    @property
    def auto_v2(self) -> str:
        """The short hash of A1111 for checkpoints, and of Civitai: 10 hex digits of the file's."""
        return self.sha256[:10]

    @property
    def auto_v3(self) -> str:
        """The short hash of A1111 for adapters: 12 hex digits of the tensors'."""
        return self.tensors_sha256[:12]


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> FileHashes:
    """Write a model file whole or not at all; the hash of its tensors is put into its metadata.

    Args:
        tensors: on any device; each is copied to the CPU when its turn comes.
        metadata: texts only; `sshs_model_hash` is added.

    Raises:
        DiskFullError: no room; nothing is left behind.
        InputError: a dtype that the format does not know.
    """
    ordered = _in_order(tensors)
    of_tensors = hashlib.sha256()
    for _, tensor in ordered:
        of_tensors.update(_bytes(tensor))
    header = _header(ordered, {**metadata, MODEL_HASH: of_tensors.hexdigest()})
    whole = hashlib.sha256()
    temporary = partial_path(path)
    with disk_full_as_error(path.parent, f"writing {path.name}"):
        try:
            with temporary.open("xb") as file:
                whole.update(header)
                file.write(header)
                for _, tensor in ordered:
                    data = _bytes(tensor)
                    whole.update(data)
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            replace(temporary, path)
            sync_folder(path.parent)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
    return FileHashes(whole.hexdigest(), of_tensors.hexdigest())


def file_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    """Exact size of the file that `write_safetensors` makes; nothing is read, so meta tensors do."""
    ordered = _in_order(tensors)
    header = _header(ordered, {**metadata, MODEL_HASH: "0" * 64})
    return len(header) + sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _header(ordered: list[tuple[str, Tensor]], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _in_order(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    return sorted(tensors.items(), key=lambda one: (-_width(one[1], one[0]), one[0]))


def _width(tensor: Tensor, name: str) -> int:
    if tensor.dtype not in DTYPE_NAMES:
        raise InputError(f"{name} is {tensor.dtype}, which safetensors files cannot hold")
    return tensor.element_size()


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().to("cpu").contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def read_hashes(path: Path) -> FileHashes:
    """The hashes of a safetensors file of any maker, read through once.

    Raises:
        InputError: not a safetensors file.
    """
    whole, of_tensors = hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as file:
        size = file.read(8)
        length = struct.unpack("<Q", size)[0] if len(size) == 8 else 0
        if not 2 <= length <= MOST_HEADER_BYTES:
            raise InputError(
                f"{path} is not a safetensors file", hint="give a file that ends in .safetensors"
            )
        whole.update(size)
        whole.update(file.read(length))
        while block := file.read(1 << 20):
            whole.update(block)
            of_tensors.update(block)
    return FileHashes(whole.hexdigest(), of_tensors.hexdigest())
