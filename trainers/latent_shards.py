"""Files of latents of one shape: written by appending, mapped into memory, never believed without a check.

A shard is two files. `NAME.latents` holds slots one after the other, each [2, channels, height, width]: mean
and standard deviation. `NAME.index` begins with a head of 4,096 bytes, JSON padded with spaces, and goes on
with a record of 24 bytes for each slot: key, checksum of the slot, checksum of the record. A slot is written
before its record, and a shard is only ever written by the process that made it, so that a killed one leaves
whole slots and nothing else; what a power cut, a full disk or a stranger left fails its checksum.
"""

import json
import os
import secrets
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from pipeline.files import disk_full_as_error

VERSION = 1
HEAD_BYTES = 4096
KEY_BYTES = 16
MOST_SHARD_BYTES = 256 << 20
DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_RECORD = np.dtype([("key", f"V{KEY_BYTES}"), ("slot_crc", "<u4"), ("record_crc", "<u4")])


@dataclass(frozen=True, slots=True)
class Head:
    """What all slots of a shard have in common.

    Args:
        vae: identity of the VAE, its sha256.
        recipe: version of how pictures were scaled and cut.
        dtype: one of DTYPES.
        shape: of a slot: [2, channels, height, width].
    """

    vae: str
    recipe: int
    dtype: str
    shape: tuple[int, ...]
    version: int = VERSION

    @property
    def slot_bytes(self) -> int:
        """Size of one slot."""
        return int(np.prod(self.shape)) * DTYPES[self.dtype].itemsize

    def block(self) -> bytes:
        """The head as it stands in the index file."""
        text = json.dumps({"celforge": "latents", **asdict(self)}, sort_keys=True).encode()
        return text.ljust(HEAD_BYTES - 1) + b"\n"


class Shard:
    """A shard that is read.

    Args:
        keys: of its sound records; None where a record is damaged or its slot is not wholly there, [slots].
        checksums: of the slots, [slots].
    """

    def __init__(
        self,
        path: Path,
        head: Head,
        keys: Sequence[bytes | None],
        checksums: Sequence[int],
        index_bytes: int,
    ) -> None:
        self.path = path  # of the index
        self.index_bytes = index_bytes  # when it was read; another process may still be adding to it
        self.head = head
        self.keys = keys
        self._checksums = checksums
        self._slots: Tensor | None = None

    @property
    def slots(self) -> Tensor:
        """All slots, mapped into memory: [slots, 2, channels, height, width]; never written to."""
        if self._slots is None:
            count = len(self.keys) * int(np.prod(self.head.shape))
            data_path = str(self.path.with_suffix(".latents"))
            flat = torch.from_file(data_path, shared=False, size=count, dtype=DTYPES[self.head.dtype])
            self._slots = flat.view(len(self.keys), *self.head.shape)
        return self._slots

    def is_sound(self, slot: int) -> bool:
        """Whether a slot holds the bytes that were written."""
        return checksum(self.slots[slot]) == self._checksums[slot]


def open_shard(path: Path, *, vae: str, recipe: int, dtype: str) -> Shard | None:
    """The shard of an index file; None where it is damaged at its head, foreign, or of another kind."""
    try:
        data = path.read_bytes()
        size_bytes = path.with_suffix(".latents").stat().st_size
        told = json.loads(data[:HEAD_BYTES])
        head = Head(told["vae"], told["recipe"], told["dtype"], tuple(told["shape"]), told["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_ours = told.get("celforge") == "latents" and data[:HEAD_BYTES] == head.block()
    if not is_ours or (head.vae, head.recipe, head.dtype, head.version) != (vae, recipe, dtype, VERSION):
        return None
    records = np.frombuffer(data, _RECORD, (len(data) - HEAD_BYTES) // _RECORD.itemsize, HEAD_BYTES)
    records = records[: size_bytes // head.slot_bytes]
    keys = [_sound_key(record.tobytes(), slot) for slot, record in enumerate(records)]
    return Shard(path, head, keys, records["slot_crc"].tolist(), len(data))


class ShardWriter:
    """A new shard in a folder; its files appear with the first slot."""

    def __init__(self, folder: Path, head: Head) -> None:
        self._path = folder / f"{head.shape[-1]}x{head.shape[-2]}-{secrets.token_hex(8)}.index"
        self._head = head
        self._files: tuple[BinaryIO, BinaryIO] | None = None
        self._count = 0

    @property
    def is_full(self) -> bool:
        """Whether the next slots belong into another shard."""
        return self._count * self._head.slot_bytes >= MOST_SHARD_BYTES

    def append(self, keys: Sequence[bytes], slots: Tensor) -> None:
        """Write slots, and then that they are there.

        Args:
            slots: on the CPU, [n, 2, channels, height, width].

        Raises:
            DiskFullError: no room; what was written before is whole.
        """
        with disk_full_as_error(self._path.parent, "keeping latents"):
            if self._files is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._files = self._path.open("xb"), self._path.with_suffix(".latents").open("xb")
                self._files[0].write(self._head.block())
            index, data = self._files
            data.write(_bytes(slots))
            data.flush()
            for key, slot in zip(keys, slots, strict=True):
                index.write(_record(key, checksum(slot), self._count))
                self._count += 1
            index.flush()

    def close(self) -> None:
        """Wait until everything is on the disk."""
        for file in reversed(self._files or ()):
            with disk_full_as_error(self._path.parent, "keeping latents"), file:
                file.flush()
                os.fsync(file.fileno())
        self._files = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def checksum(slot: Tensor) -> int:
    """crc32 of the bytes of a tensor on the CPU."""
    return zlib.crc32(_bytes(slot))


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data


def _record(key: bytes, slot_crc: int, slot: int) -> bytes:
    start = key + slot_crc.to_bytes(4, "little")
    return start + zlib.crc32(start + slot.to_bytes(8, "little")).to_bytes(4, "little")


def _sound_key(record: bytes, slot: int) -> bytes | None:
    key, slot_crc = record[:KEY_BYTES], int.from_bytes(record[KEY_BYTES : KEY_BYTES + 4], "little")
    return key if record == _record(key, slot_crc, slot) else None
