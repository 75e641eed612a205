"""The command `celforge compare`, on a tiny model of the real classes."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.conftest import Answer, Celforge
from tests.trainers.conftest import TinyFiles
from tests.trainers.tiny_models import tiny_models
from trainers.adapters.network import AdapterSpec, attach
from trainers.compare_grid import draw_grid
from trainers.export import write_safetensors
from trainers.models import save_diffusers, save_single_file
from trainers.prompts import Prompt


def write_adapter(
    path: Path, algorithm: str, seed: int = 5, size: float = 0.4, step: int | None = None, **said: str
) -> None:
    models = tiny_models()
    spec = AdapterSpec(algorithm, 4, 1.0, 2, 1.0)  # type: ignore[arg-type]
    network = attach(spec, models.unet, models.text_encoder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in network.factors.values():
            one.flat.copy_(torch.randn(one.flat.shape, generator=generator) * size)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = said if step is None else {"ss_steps": str(step), **said}
    write_safetensors(path, network.file_tensors(torch.float32), metadata)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory, tiny_files: TinyFiles) -> Path:
    """Two runs, of which one has a step model, and two prompts; read only."""
    root = tmp_path_factory.mktemp("compare") / "anime"
    root.mkdir()
    (root / "prompts.txt").write_text("girl --s 1\ncat --s 1 --h 16\n", encoding="utf-8")
    (root / "celforge.toml").write_text("[compare]\nbatch_size = 2\n", encoding="utf-8")
    write_adapter(root / "models/locon/locon.safetensors", "locon", step=4)
    write_adapter(root / "models/loha/loha.safetensors", "loha", step=4)
    write_adapter(root / "models/loha/loha-step00000002.safetensors", "loha", seed=6)
    for kind in ("loha", "locon"):
        settings = {"kind": kind, "base": str(tiny_files.single_file), "prompts": "prompts.txt"}
        words = {"settings": settings, "total_steps": 4}
        (root / "models" / kind / "settings.json").write_text(json.dumps(words), encoding="utf-8")
    return root


@pytest.fixture
def project(tmp_path: Path, master: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = shutil.copytree(master, tmp_path / "anime")
    monkeypatch.chdir(root)
    return root


def pictures(project: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project / "compare/pictures").glob("*.png")}


def drawn(answer: Answer) -> int:
    assert answer.exit_code == 0, answer.stderr
    return int(answer.json["drawn"])


def test_a_project_with_runs_needs_no_arguments(celforge: Celforge, project: Path) -> None:
    planned = celforge("compare", "--dry-run", "--json")
    assert (planned.json["pictures"], planned.json["missing"]) == (8, 8)
    assert not (project / "compare").exists()
    answer = celforge("compare", "--json")
    assert drawn(answer) == 8
    columns = [(one["kind"], one["step"]) for one in answer.json["columns"]]
    assert columns == [("base", None), ("loha", 2), ("loha", 4), ("locon", 4)]
    facts = json.loads((project / "compare/settings.json").read_text(encoding="utf-8"))
    first, second = (
        Image.open(project / "compare" / one["picture"]) for one in facts["cells"] if one["column"] == 2
    )
    assert (first.size, second.size) == ((32, 32), (32, 16))
    first.load(), second.load()
    parameters = first.info["parameters"]
    assert (
        parameters.startswith("girl <lora:loha:1>\nSteps: 1, Sampler: DDIM") and "Lora hashes: " in parameters
    )
    with Image.open(project / "compare/grid.png") as grid:
        assert grid.width > 4 * 192 and grid.info["parameters"].startswith("girl\n")
    html = (project / "compare/index.html").read_text(encoding="utf-8")
    assert html.count("<img") == 8 and "<script" not in html and "http" not in html

    # again draws nothing; a file that was written anew is drawn anew, and its neighbours stay
    before = pictures(project)
    assert drawn(celforge("compare", "--json")) == 0
    write_adapter(project / "models/locon/locon.safetensors", "locon", seed=9, step=4)
    damaged = facts["cells"][0]["picture"].rpartition("/")[2]  # of the base
    (project / "compare/pictures" / damaged).write_bytes(b"damaged")
    assert drawn(celforge("compare", "--json")) == 3
    after = pictures(project)
    assert len(after) == 10 and all(after[name] == data for name, data in before.items())


def test_weight_0_is_the_base_and_each_picture_is_drawn_alone(celforge: Celforge, project: Path) -> None:
    one = drawn(celforge("compare", "models/loha/loha.safetensors", "--weights", "0,1", "--json"))
    assert one == 4  # two prompts, base and weight 1
    before = pictures(project)
    # with other columns before it, and one by one, the pictures are the same
    assert drawn(celforge("compare", "--out", "other", "--batch-size", 1, "--json")) == 8
    for name in before:
        here, there = (Image.open(project / folder / "pictures" / name) for folder in ("compare", "other"))
        difference = max(abs(a - b) for a, b in zip(here.tobytes(), there.tobytes(), strict=True))
        assert difference <= 1  # a batch rounds otherwise


def test_a_full_checkpoint_seeds_and_another_base(
    celforge: Celforge, project: Path, tiny_files: TinyFiles
) -> None:
    answer = celforge(
        *("compare", tiny_files.diffusers, "models/loha/loha-step00000002.safetensors", "--seed", "1,2"),
        *("--base", tiny_files.single_file, "--base", tiny_files.diffusers, "--dry-run", "--json"),
    )
    kinds = [one["kind"] for one in answer.json["columns"]]
    assert kinds == ["base", "loha", "base", "loha", "full"]
    assert [row["seed"] for row in answer.json["rows"]] == [1, 2, 1, 2]
    assert answer.json["pictures"] == 16  # the checkpoint is one of the bases


def test_steps_choose_columns(celforge: Celforge, project: Path) -> None:
    answer = celforge("compare", "--steps", "2", "--dry-run", "--json")
    assert [one["step"] for one in answer.json["columns"]] == [None, 2]


def test_a_bad_file_that_was_found_is_left_out(celforge: Celforge, project: Path) -> None:
    (project / "models/locon/locon.safetensors").write_bytes(b"nothing")
    answer = celforge("compare", "--dry-run", "--json")
    assert answer.exit_code == 3
    assert "not a whole safetensors file" in answer.json["failures"][0]["reason"]
    assert celforge("compare", "models/locon/locon.safetensors", "--dry-run").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.safetensors",), "there is no model"),
        (("--sampler", "eular"), "there is no sampler"),
        (("--weights", "a"), "commas between"),
        (("--steps", "7"), "no model was saved at step 7"),
        (("--max-tokens", "80"), "75, 150 or 225"),
        (("--sample-steps", "101"), "more than the 100 of the model"),
    ],
)
def test_wrong_words_end_with_2(
    celforge: Celforge, project: Path, arguments: tuple[str, ...], said: str
) -> None:
    answer = celforge("compare", *arguments)
    assert answer.exit_code == 2
    assert said in answer.stderr


def test_a_stopped_comparison_goes_on(
    celforge: Celforge, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainers import compare_drawing

    write = compare_drawing.write_atomic
    written: list[Path] = []

    def write_and_stop(path: Path, data: bytes | str) -> None:
        write(path, data)
        written.append(path)
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(compare_drawing, "write_atomic", write_and_stop)
    stopped = celforge("compare", "--batch-size", 1)
    assert stopped.exit_code == 130
    assert 3 <= len(written) < 8
    left = 8 - len(pictures(project))
    assert drawn(celforge("compare", "--json")) == left


def test_an_adapter_is_drawn_by_what_its_base_predicts(
    celforge: Celforge, project: Path, tmp_path: Path
) -> None:
    """A mismatch is named; a person may say what a base does not say of itself."""
    models = tiny_models()
    save_single_file(models, tmp_path / "noise.safetensors", torch.float32, {})
    models.diffusion = replace(models.diffusion, prediction_type="v_prediction", is_zero_terminal_snr=True)
    save_diffusers(models, tmp_path / "v", torch.float32, {})
    save_single_file(models, tmp_path / "v.safetensors", torch.float32, {})
    said = {"ss_zero_terminal_snr": "True", "modelspec.prediction_type": "v"}
    write_adapter(tmp_path / "a.safetensors", "locon", **said)

    def plan(base: str, *options: object) -> tuple[list[dict[str, Any]], list[str]]:
        answer = celforge(
            *("compare", tmp_path / "a.safetensors", "--base", tmp_path / base, "--prompts", "prompts.txt"),
            *("--dry-run", "--json", *options),
        )
        assert answer.exit_code == 0, answer.stderr
        return answer.json["columns"], answer.json["problems"]

    for base in ("v", "v.safetensors"):
        columns, problems = plan(base)
        assert {(one["prediction_type"], one["zero_terminal_snr"]) for one in columns} == {
            ("v_prediction", True)
        }
        assert problems == []
    _, problems = plan("noise.safetensors")
    assert len(problems) == 1 and "--prediction v" in problems[0]
    columns, problems = plan("noise.safetensors", "--prediction", "v")
    assert columns[0]["prediction_type"] == "v_prediction"
    assert len(problems) == 1 and "--zero-terminal-snr on" in problems[0]
    assert plan("noise.safetensors", "--prediction", "v", "--zero-terminal-snr", "on")[1] == []

    where = ("compare", tmp_path / "a.safetensors", "--base", tmp_path / "noise.safetensors", "--json")
    first = celforge(*where, "--prompts", "prompts.txt")
    assert drawn(first) == 4
    assert "was trained by v_prediction" in first.stderr
    assert drawn(celforge(*where, "--prompts", "prompts.txt", "--prediction", "v")) == 4  # other pictures
    assert drawn(celforge(*where, "--prompts", "prompts.txt", "--guidance-rescale", 0.7)) == 4
    assert len(set(pictures(project).values())) == 12


def test_small_pictures_are_enlarged_threefold_and_smoothly() -> None:
    """A blue half beside a red one: between them are mixtures, where squares would have none."""
    halves = Image.new("RGB", (64, 64), (255, 0, 0))
    halves.paste((0, 0, 255), (0, 0, 32, 64))
    grid = draw_grid([("base", "", "")], [Prompt(text="halves")], lambda *_: halves).convert("RGB")
    counts = {pixel: count for count, pixel in grid.getcolors(1 << 20) or ()}
    assert 0.9 * 96 * 192 < counts[0, 0, 255] <= 96 * 192
    assert any(green == 0 and 40 < red < 215 and 40 < blue < 215 for red, green, blue in counts)
