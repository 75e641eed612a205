"""Averages of model files after the fact."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.conftest import Celforge
from tests.trainers.tiny_models import tiny_models
from trainers.adapters.merging import AdapterFile
from trainers.adapters.network import AdapterSpec, attach, file_metadata
from trainers.export import write_safetensors

base = functools.cache(tiny_models)


def adapter(path: Path, kind: Any, seed: int, *, dim: int = 3, spread: float = 1.0, step: int = 0) -> Path:
    """Random factors near one point, so that `spread` tells how far files lie apart."""
    models = base()
    spec = AdapterSpec(kind, dim, 1.5, 2, 1.0)
    network = attach(spec, models.unet, models.text_encoder)
    with torch.no_grad():
        for one in network.factors.values():
            common = torch.randn(one.flat.shape, generator=torch.Generator().manual_seed(99))
            own = torch.randn(one.flat.shape, generator=torch.Generator().manual_seed(seed))
            one.flat.copy_(common + spread * own)
    metadata = {"ss_output_name": "run", "ss_steps": str(step), **dict(file_metadata(spec))}
    write_safetensors(path, network.file_tensors(torch.float32), metadata)
    network.restore()
    return path


def changes(path: Path) -> dict[str, torch.Tensor]:
    """The change of each layer, by the reference formula, in fp64."""
    models = base()
    found = {}
    for layer, change in AdapterFile.read(path).pairs(models.unet, models.text_encoder):
        factors = {name: one.double() for name, one in change.factors.items()}
        found[layer.key] = change.algorithm.delta(factors, change.scale).float()
    return found


@pytest.mark.parametrize("kind", ["locon", "loha"])
def test_the_exact_average_is_the_mean_of_the_changes(celforge: Celforge, tmp_path: Path, kind: str) -> None:
    """Files of different ranks that have nothing to do with each other."""
    files = [adapter(tmp_path / f"{seed}.safetensors", kind, seed, dim=dim) for seed, dim in ((1, 3), (2, 4))]
    out = tmp_path / "out.safetensors"
    given = ("--weights", "1,3", "--exact", "--precision", "fp32")
    answer = celforge("average", *files, *given, "--out", out)
    assert answer.exit_code == 0, answer.stderr
    first, second, found = changes(files[0]), changes(files[1]), changes(out)
    assert found.keys() == first.keys()
    for key, one in found.items():
        expected = 0.25 * first[key] + 0.75 * second[key]
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_near_files_are_averaged_by_their_factors_and_far_ones_told(
    celforge: Celforge, tmp_path: Path
) -> None:
    distances = []
    for name, spread in (("near", 0.02), ("far", 1.0)):
        files = [
            adapter(tmp_path / f"{name}{seed}.safetensors", "loha", seed, spread=spread) for seed in (1, 2)
        ]
        out = tmp_path / f"{name}.safetensors"
        answer = celforge("average", *files, "--out", out, "--json")
        assert answer.exit_code == 0, answer.stderr
        one, other, mean = (load_file(path) for path in (*files, out))
        for key, value in mean.items():
            torch.testing.assert_close(value, (one[key] + other[key]) / 2)
        first, second, found = changes(files[0]), changes(files[1]), changes(out)
        means = torch.cat([(first[key] + second[key]).flatten() / 2 for key in found])
        off = torch.cat([one.flatten() for one in found.values()]) - means
        assert answer.json["distance"] == pytest.approx(float(off.norm() / means.norm()), rel=1e-3)
        distances.append(answer.json["distance"])
    assert distances[0] < 0.01 < 0.1 < distances[1]
    files = [tmp_path / f"far{seed}.safetensors" for seed in (1, 2)]
    assert "give --exact" in celforge("average", *files, "--out", tmp_path / "again.safetensors").stdout


def test_the_step_files_of_a_run_are_weighed_in_the_order_of_their_steps(
    celforge: Celforge, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name, step in (("run", 30), ("run-step00000010", 10), ("run-step00000020", 20), ("run-ema", 30)):
        adapter(run / f"{name}.safetensors", "locon", step, step=step)
    out = tmp_path / "out.safetensors"
    answer = celforge("average", run, "--decay", 0.5, "--out", out, "--json")
    assert answer.exit_code == 0, answer.stderr
    named = {Path(path).name: weight for path, weight in answer.json["files"].items()}
    assert named == pytest.approx(
        {
            "run-step00000010.safetensors": 1 / 7,
            "run-step00000020.safetensors": 2 / 7,
            "run.safetensors": 4 / 7,
        }
    )
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_output_name"] == "out"
    assert [one["weight"] for one in json.loads(metadata["celforge.average"])["files"]] == [
        pytest.approx(part / 7, abs=1e-8) for part in (1, 2, 4)
    ]
    assert str(tmp_path) not in "".join(metadata.values())
    before = out.read_bytes()
    assert celforge("average", run, "--decay", 0.5, "--out", out, "--overwrite").exit_code == 0
    assert out.read_bytes() == before


def test_full_checkpoints_are_averaged_in_fp64_and_kept_in_their_numbers(
    celforge: Celforge, tmp_path: Path
) -> None:
    files = []
    for number in range(3):
        tensors = {
            "model.a": torch.full((2,), 1 + number * 2.0**-10, dtype=torch.float16),
            "position_ids": torch.arange(3),
        }
        save_file(tensors, tmp_path / f"{number}.safetensors")
        files.append(tmp_path / f"{number}.safetensors")
    answer = celforge("average", *files, "--out", tmp_path / "out.safetensors")
    assert answer.exit_code == 0, answer.stderr
    found = load_file(tmp_path / "out.safetensors")
    assert found["model.a"].dtype == torch.float16
    assert found["model.a"].tolist() == [1 + 2.0**-10] * 2
    assert found["position_ids"].tolist() == [0, 1, 2]


def test_what_cannot_be_averaged_gets_a_sentence(celforge: Celforge, tmp_path: Path) -> None:
    one, other = (
        adapter(tmp_path / "1.safetensors", "locon", 1),
        adapter(tmp_path / "2.safetensors", "locon", 2),
    )
    wide = adapter(tmp_path / "3.safetensors", "locon", 3, dim=4)
    loha = adapter(tmp_path / "4.safetensors", "loha", 4)
    out = ("--out", tmp_path / "out.safetensors")
    cases = [
        ((one, *out), "at least two files"),
        ((one, tmp_path / "nowhere.safetensors", *out), "there is no file"),
        ((one, wide, *out), "with other ranks: --exact"),
        ((one, loha, *out), "do not have the same tensors"),
        ((one, other, "--weights", "1", *out), "2 files and 1 weights"),
        ((one, other, "--weights", "1,x", *out), "numbers with commas"),
        ((one, other, "--weights", "0,0", *out), "0 or more"),
        ((one, other, "--weights", "1,1", "--decay", "0.5", *out), "exclude each other"),
        ((one, other, "--out", one), "is there already"),
        ((one, other, "--out", tmp_path / "out.ckpt"), "written as .safetensors"),
    ]
    for arguments, said in cases:
        answer = celforge("average", *arguments)
        assert answer.exit_code == 2, answer.stderr
        assert said in answer.stderr
    assert not (tmp_path / "out.safetensors").exists()
