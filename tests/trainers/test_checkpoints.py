import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import InputError, MissingPackageError, SettingsError
from trainers.checkpoints import State, compare_conditions, load_state, save_state
from trainers.metrics import Metrics
from trainers.nan_guard import first_gradient, watching
from trainers.run_folder import RunFolder

CONDITIONS = {"kind": "loha", "linear_dim": 8, "learning_rate": 1e-4, "shuffle": True, "pictures": "abc"}


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "step-00000002.pt"
    tensors = {"unet": torch.randn(5)}
    save_state(path, State(2, tensors, {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, CONDITIONS))
    found = load_state(path)
    assert (found.step, found.conditions) == (2, CONDITIONS)
    assert torch.equal(found.tensors["unet"], tensors["unet"])
    assert torch.equal(found.stepper["optimizer"]["state"][0]["exp_avg"], torch.ones(2))
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "code"])
def test_a_damaged_state_is_named_and_never_run(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "step-00000002.pt"
    save_state(path, State(2, {"unet": torch.randn(50)}, {}, CONDITIONS))
    whole = path.read_bytes()
    if damage == "code":
        torch.save({"format": 1, "step": print}, path)
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(InputError, match="cannot be read"):
        load_state(path)


def test_equal_conditions_say_nothing() -> None:
    assert compare_conditions(CONDITIONS, dict(CONDITIONS), accept_changes=False) == []


def test_a_learning_rate_may_change_and_it_is_said() -> None:
    said = compare_conditions(CONDITIONS, {**CONDITIONS, "learning_rate": 5e-5}, accept_changes=False)
    assert said == ["learning_rate was 0.0001 and is 5e-05"]


def test_other_changes_are_named_and_need_a_word() -> None:
    changed = {**CONDITIONS, "shuffle": False, "pictures": "xyz"}
    with pytest.raises(
        SettingsError, match="shuffle was True and is False; the pictures are not those"
    ) as caught:
        compare_conditions(CONDITIONS, changed, accept_changes=False)
    assert "--accept-changes" in caught.value.hint
    assert len(compare_conditions(CONDITIONS, changed, accept_changes=True)) == 2


def test_what_does_not_fit_is_refused_whatever_is_accepted() -> None:
    with pytest.raises(SettingsError, match="linear_dim = 8"):
        compare_conditions(CONDITIONS, {**CONDITIONS, "linear_dim": 4}, accept_changes=True)


def test_files_are_named_as_kohya_names_them_and_old_ones_go_when_asked(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "models" / "a.b", "a.b")
    folder.prepare()
    assert folder.model_path(2_000).name == "a.b-step00002000.safetensors"
    assert folder.model_path().name == "a.b.safetensors"
    for step in (5, 10, 15):
        folder.model_path(step).write_bytes(b"x")
        folder.state_path(step).write_bytes(b"x")
        folder.embeddings_folder(step).mkdir(parents=True)
        folder.bundle_path(step).parent.mkdir(exist_ok=True)
        folder.bundle_path(step).write_bytes(b"x")
    folder.diffusers_folder(5).mkdir()
    (folder.path / "a.b-step00000099-mine.safetensors").write_bytes(b"x")
    assert [step for step, _ in folder.states()] == [5, 10, 15]
    folder.forget_old_states()
    assert [step for step, _ in folder.states()] == [15]
    folder.forget_old_models(0, 15)
    assert len(folder.step_models()) == 4
    folder.forget_old_models(2, 15)
    assert sorted({step for step, _ in folder.step_models()}) == [10, 15]
    assert not folder.diffusers_folder(5).exists()
    assert [folder.bundle_path(step).exists() for step in (5, 10, 15)] == [False, True, True]
    assert [folder.embeddings_folder(step).exists() for step in (5, 10, 15)] == [False, True, True]
    assert (folder.path / "a.b-step00000099-mine.safetensors").exists()


def test_metrics_after_the_resumed_step_are_written_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = Metrics(path, resumed_step=0, tensorboard_folder=None)
    first.write(10, {"loss": 1.0})
    first.write(20, {"loss": 0.0})
    first.close()
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 30, "lo')
    second = Metrics(path, resumed_step=10, tensorboard_folder=None)
    second.write(20, {"loss": 2.0})
    second.close()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [10, 20]
    assert lines[1]["smoothed_loss"] == pytest.approx(0.9 * 1.0 + 0.1 * 2.0)


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = Metrics(tmp_path / "m.jsonl", resumed_step=0, tensorboard_folder=tmp_path / "board")
    metrics.write(10, {"loss": 0.5})
    metrics.close()
    found = EventAccumulator(str(tmp_path / "board"))
    found.Reload()
    assert [(one.step, one.value) for one in found.Scalars("train/loss")] == [(10, 0.5)]


def test_without_tensorboard_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingPackageError, match="TensorBoard is not installed"):
        Metrics(tmp_path / "m.jsonl", resumed_step=0, tensorboard_folder=tmp_path / "board")


def test_the_first_layer_with_a_bad_output_is_named() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        network[1].weight[0, 0] = float("inf")
    with watching({"unet": network}) as found:
        network(torch.ones(1, 2))
    assert found[0] == "unet.1"
    network(torch.ones(1, 2))
    assert found == ["unet.1", "unet.2"]  # and nothing is watched any longer


def test_the_first_bad_gradient_is_named() -> None:
    good, bad = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    good.grad, bad.grad = torch.ones(1), torch.tensor([float("nan")])
    assert first_gradient(iter([("a", good), ("b", bad)])) == "b"
    assert first_gradient(iter([("a", good)])) is None
