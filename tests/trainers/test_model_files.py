import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError
from trainers.export import DTYPE_NAMES, read_hashes, write_safetensors


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "b.half": torch.randn(3, 5).half(),
        "a.single": torch.randn(2, 2),
        "é": torch.arange(4),
        "none": torch.empty(0, 3),
        "alpha": torch.tensor(1.0).bfloat16(),
        "strided": torch.randn(4, 6).t(),
    }


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    written = tensors()
    hashes = write_safetensors(tmp_path / "a.safetensors", written, {"ss_v2": "False", "é": "猫"})
    read = load_file(tmp_path / "a.safetensors")
    assert read.keys() == written.keys()
    for name, tensor in written.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata == {"ss_v2": "False", "é": "猫", "sshs_model_hash": hashes.tensors_sha256}


def test_tensors_lie_as_the_library_lays_them(tmp_path: Path) -> None:
    """So the hash of the tensors, which model sites know a file by, is the one it would have had."""
    write_safetensors(tmp_path / "ours", tensors(), {})
    save_file({name: one.contiguous() for name, one in tensors().items()}, tmp_path / "theirs")
    assert read_hashes(tmp_path / "ours").tensors_sha256 == read_hashes(tmp_path / "theirs").tensors_sha256


def test_the_same_content_gives_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    metadata = {f"key{number}": str(number) for number in range(20)}
    write_safetensors(tmp_path / "a", tensors(), metadata)
    write_safetensors(tmp_path / "b", dict(reversed(tensors().items())), dict(reversed(metadata.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_hashes_are_of_the_whole_file_and_of_the_tensors_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    hashes = write_safetensors(path, tensors(), {"title": "one"})
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    assert json.loads(data[8 : 8 + length])["__metadata__"]["title"] == "one"
    assert hashes.sha256 == hashlib.sha256(data).hexdigest()
    assert hashes.tensors_sha256 == hashlib.sha256(data[8 + length :]).hexdigest()
    assert (hashes.auto_v2, hashes.auto_v3) == (hashes.sha256[:10], hashes.tensors_sha256[:12])
    assert read_hashes(path) == hashes
    other = write_safetensors(tmp_path / "b", tensors(), {"title": "two"})
    assert other.tensors_sha256 == hashes.tensors_sha256
    assert other.sha256 != hashes.sha256


def test_what_is_no_model_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"<!DOCTYPE html><html>")
    with pytest.raises(InputError, match="not a safetensors file"):
        read_hashes(tmp_path / "page")
    with pytest.raises(InputError, match="cannot hold"):
        write_safetensors(tmp_path / "a", {"x": torch.zeros(1, dtype=torch.complex64)}, {})
    assert list(tmp_path.iterdir()) == [tmp_path / "page"]
    assert torch.complex64 not in DTYPE_NAMES
