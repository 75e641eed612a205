"""Validation: which pictures are held out, what is measured of them, and that training does not notice."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import test_train as given
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file

from pipeline.catalog import Catalog
from tests.conftest import Celforge
from tests.trainers.conftest import TinyFiles, assert_same
from trainers.batches import Batch
from trainers.conditioning import encode
from trainers.held_out import place_of
from trainers.loop import Run
from trainers.shots import _by_fact, shots_of
from trainers.validation import Validator

dataset, train = given.dataset, given.train
Train = given.Train
OFTEN = ("--validation-every", 1, "--validation-timesteps", 2)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [line for line in given.metrics(folder) if "validation_loss" in line]


def plan(answer: Any) -> dict[str, Any]:
    assert answer.exit_code == 0, answer.stderr
    found: dict[str, Any] = answer.json["plan"]
    return found


# Which


def test_a_share_of_all_contents_is_held_out_and_each_by_itself() -> None:
    contents = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000)]
    held = sum(place_of(one) < 0.05 for one in contents)
    assert 880 < held < 1120  # 1000, and four standard deviations of a fair draw
    assert place_of(contents[0]) == place_of(contents[0])


def test_what_is_held_out_stays_when_pictures_are_added(train: Train, dataset: Path) -> None:
    options = ("--validation-share", 0.5, "--dry-run", "--json")
    before = plan(train("locon", *options))
    held = {path for path in dataset.rglob("*.png") if place_of(content(path)) < 0.5}
    assert 0 < len(held) < 6
    assert before["validation"]["held_out"] == len(held)
    assert sum(row["pictures"] for row in before["folders"]) == 6 - len(held)
    for number in range(50, 60):
        given.draw(dataset / "style" / f"{number}.png", number)
    after = {path for path in dataset.rglob("*.png") if place_of(content(path)) < 0.5}
    assert held <= after
    assert plan(train("locon", *options))["validation"]["held_out"] == len(after)


def content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_both_files_of_one_content_are_held_out(train: Train, dataset: Path) -> None:
    shutil.copy(dataset / "1_character/sabine/0.png", dataset / "style/twin.png")
    found = plan(
        train(
            "locon",
            "--validation-data",
            dataset / "1_character/sabine",
            "--dry-run",
            "--json",
            "--batch-size",
            1,
        )
    )
    assert {row["folder"]: row["pictures"] for row in found["folders"]} == {"style": 2}
    assert found["validation"]["concepts"] == {"sabine": 4}


def test_a_folder_beside_the_data_set_and_one_inside_and_a_list(
    train: Train, dataset: Path, tmp_path: Path
) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    given.draw(beside / "new.png", 70)
    shutil.copy(dataset / "style/4.png", beside / "known.png")
    many = tmp_path / "list.txt"
    many.write_text("# two and a folder\n1_character/sabine/1.png\n\nstyle\n", encoding="utf-8")
    for path, held, left in ((beside, 2, 5), (dataset / "style", 2, 4), (many, 3, 3)):
        found = plan(train("locon", "--validation-data", path, "--dry-run", "--json"))
        assert found["validation"]["held_out"] == held
        assert sum(row["pictures"] for row in found["folders"]) == left


def test_at_most_so_many_are_measured_evenly_over_folders(train: Train, dataset: Path) -> None:
    for number in range(20, 40):
        given.draw(dataset / "style" / f"{number}.png", number)
    many = dataset.parent / "list.txt"
    many.write_text("1_character/sabine/0.png\n1_character/sabine/1.png\nstyle\n", encoding="utf-8")
    options = ("--validation-data", many, "--validation-pictures", 4, "--dry-run", "--json")
    found = plan(train("locon", *options))
    assert found["validation"] == {"held_out": 24, "measured": 4, "concepts": {"sabine": 2, "style": 2}}
    assert "no picture of" not in " ".join(found["problems"])


# What


def test_the_loss_is_that_of_fixed_noise_at_one_timestep_of_each_stratum(
    train: Train, dataset: Path, tiny_files: TinyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each number again by diffusers' own scheduler, picture by picture."""
    seen: list[tuple[list[Any], Batch]] = []
    make = Validator._batch
    alone: list[list[float]] = []

    def kept(self: Validator, run: Run, slots: Any) -> Batch:
        batch = make(self, run, slots)
        if run.stepper.optimizer.state == {}:  # before the first step
            seen.append((list(slots), batch))
            alone.append([by_hand(run, batch, at) for at in range(len(slots))])
        return batch

    monkeypatch.setattr(Validator, "_batch", kept)
    options = ("--steps", 1, "--validation-data", dataset / "style", "--validation-timesteps", 5)
    assert train("locon", *options).exit_code == 0
    losses = {
        slot: loss
        for (slots, _), ones in zip(seen, alone, strict=True)
        for slot, loss in zip(slots, ones, strict=True)
    }
    pictures = sorted({number for number, _ in losses})
    assert len(losses) == len(pictures) * 5
    for slots, batch in seen:
        for (_, stratum), timestep in zip(slots, batch.timesteps.tolist(), strict=True):
            assert 20 * stratum <= timestep < 20 * (stratum + 1)  # of 100
    first, *_ = lines(given.run_folder(dataset, "locon"))
    measured = [sum(losses[number, stratum] for stratum in range(5)) / 5 for number in pictures[:2]]
    assert first["validation_loss"] == pytest.approx(sum(measured) / 2, rel=1e-5)
    assert first["validation"] == {"style": pytest.approx(sum(measured) / 2, rel=1e-5)}


@torch.no_grad()
def by_hand(run: Run, batch: Batch, at: int) -> float:
    models = run.models
    scheduler = DDPMScheduler(**models.diffusion.config())
    timestep, noise = batch.timesteps[at : at + 1], batch.noise[at : at + 1]
    noisy = scheduler.add_noise(batch.latents[at : at + 1], noise, timestep)
    hidden = encode(models.text_encoder, models.tokenizer([batch.captions[at]], max_tokens=75), clip_skip=1)
    predicted = models.unet(noisy, timestep, hidden).sample
    return float(torch.nn.functional.mse_loss(predicted, noise))


def test_a_model_that_is_not_changed_is_measured_the_same_every_time(train: Train, dataset: Path) -> None:
    options = ("--steps", 2, "--learning-rate", 0, "--validation-data", dataset / "style", *OFTEN)
    for name, seed in (("one", 0), ("two", 9)):
        assert train("locon", "--name", name, "--seed", seed, *options).exit_code == 0
    found = [lines(given.run_folder(dataset, name)) for name in ("one", "two")]
    assert [line["step"] for line in found[0]] == [0, 1, 2]
    assert len({line["validation_loss"] for ones in found for line in ones}) == 1


# Training does not notice


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("loha", ("--shuffle", "--gradient-checkpointing")),
        ("full", ("--optimizer", "adamw", "--train", "unet")),
    ],
)
def test_training_is_bit_for_bit_that_without_the_held_out_pictures(
    train: Train, dataset: Path, kind: str, options: tuple[object, ...]
) -> None:
    held = ("1_character/sabine/0.png", "style/5.png")
    (dataset.parent / "held.txt").write_text("\n".join(held), encoding="utf-8")
    common = ("--name", "a", "--steps", 2, *options)
    validation = ("--out", dataset.parent / "with", "--validation-data", dataset.parent / "held.txt", *OFTEN)
    validated = train(kind, *common, *validation)
    assert validated.exit_code == 0, validated.stderr
    assert len(lines(dataset.parent / "with")) == 3
    for name in held:
        (dataset / name).unlink()
    assert train(kind, *common, "--out", dataset.parent / "without").exit_code == 0
    files = [load_file(dataset.parent / name / "a.safetensors") for name in ("with", "without")]
    assert_same(*files)


def test_a_stopped_run_is_validated_as_one_that_was_not(
    train: Train, dataset: Path, stop_after: Callable[[int], None]
) -> None:
    options = ("--name", "a", "--steps", 2, "--validation-data", dataset / "style", *OFTEN)
    assert train("locon", *options, "--out", dataset.parent / "whole").exit_code == 0
    stop_after(1)
    assert train("locon", *options).exit_code == 130
    again = train("locon", *options)
    assert again.exit_code == 0, again.stderr
    whole, halves = (lines(folder) for folder in (dataset.parent / "whole", given.run_folder(dataset, "a")))
    for line in (*whole, *halves):
        del line["time_s"]
    assert whole == halves
    assert [line["step"] for line in whole] == [0, 1, 2]


# Best


def test_the_best_step_and_its_file_are_named_and_stay(
    train: Train, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([0.9, 0.5, 0.3, 0.4, 0.45, 0.46])
    monkeypatch.setattr(
        Validator, "measure", lambda *_, **__: {"validation_loss": next(measured), "validation": {}}
    )
    options = ("--steps", 5, "--save-every", 1, "--keep-last", 1, "--validation-data", dataset / "style")
    answer = train("locon", *options)
    assert answer.exit_code == 0, answer.stderr
    assert "lowest validation loss: 0.3 at step 2, locon-step00000002.safetensors" in answer.stdout
    folder = given.run_folder(dataset, "locon")
    assert {path.name for path in folder.glob("*-step*")} == {
        "locon-step00000002.safetensors",
        "locon-step00000004.safetensors",
    }
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "locon-step00000002.safetensors</a> <strong" in page
    again = train("locon", *options, "--json")
    assert again.json["best"]["file_step"] == 2


# Refused, told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--validation-share", 0.1, "--validation-data", "DATA/style"), "both say what is held out"),
        (("--validation-share", 0.0001), "holds out none of 6 pictures"),
        (("--validation-data", "DATA/nowhere"), "nothing to validate on at"),
        (("--validation-data", "DATA"), "none is left to train on"),
        (("--validation-data", "DATA/bad.txt"), "bad.txt line 2: no picture of the data set is 99.png"),
        (("--validation-data", "DATA/empty.txt"), "names no picture"),
    ],
)
def test_what_makes_no_sense_is_refused(
    train: Train, dataset: Path, options: tuple[object, ...], said: str
) -> None:
    (dataset / "bad.txt").write_text("style/4.png\n99.png\n", encoding="utf-8")
    (dataset / "empty.txt").write_text("\n", encoding="utf-8")
    arguments = [str(one).replace("DATA", str(dataset)) for one in options]
    answer = train("locon", *arguments)
    assert answer.exit_code in (1, 2)
    assert said in answer.stderr
    assert not (dataset.parent / "models").exists()


def test_the_plan_says_what_is_held_out_and_what_is_not(train: Train, dataset: Path) -> None:
    answer = train("locon", "--validation-data", dataset / "style/4.png", "--dry-run")
    assert answer.exit_code == 0, answer.stderr
    assert (
        "1 of 6 pictures held out, 1 of them measured (style 1), beside 1 that are trained on"
        in answer.stdout
    )
    assert "no picture of sabine is held out" in answer.stdout


def test_other_pictures_held_out_are_another_run(celforge: Celforge, train: Train, dataset: Path) -> None:
    assert train("locon", "--steps", 1, "--validation-data", dataset / "style/4.png").exit_code == 0
    other = train("locon", "--steps", 2, "--validation-data", dataset / "style/5.png")
    assert other.exit_code == 2
    assert "the pictures are not those of before" in other.stderr
    kept = json.loads((given.run_folder(dataset, "locon") / "settings.json").read_text(encoding="utf-8"))
    assert kept["validation"]["concepts"] == {"style": 1}


def test_the_average_is_validated_unless_the_weights_are_asked_for(
    train: Train, dataset: Path, tmp_path: Path
) -> None:
    found = {}
    share = ("--validation-share", 0.5, "--validation-timesteps", 2)
    options = (*share, "--steps", 2, "--ema", 0.9, "--learning-rate", 0.01)
    for name, more in (("average", ()), ("weights", ("--no-ema-validation",))):
        answer = train("full", "--name", name, *options, *more)
        assert answer.exit_code == 0, answer.stderr
        found[name] = lines(given.run_folder(dataset, name))
        assert ("of the moving average" in answer.stderr) == (name == "average")
    assert {one.get("validated") for one in found["average"]} == {"moving average"}
    assert all("validated" not in one for one in found["weights"])
    first, last = ([one[at]["validation_loss"] for one in found.values()] for at in (0, -1))
    assert first[0] == first[1] and last[0] != last[1]
    # the file of the average, measured by a run that changes nothing, has the loss that was told
    base = given.run_folder(dataset, "average") / "average-ema.safetensors"
    again = (*share, "--steps", 1, "--learning-rate", 0.0)
    assert train("full", "--name", "again", *again, base=base).exit_code == 0
    (measured, *_) = lines(given.run_folder(dataset, "again"))
    assert measured["validation_loss"] == pytest.approx(found["average"][-1]["validation_loss"], rel=1e-3)


def frame_facts(project: Path, facts: dict[Path, dict[str, Any]]) -> None:
    """What `celforge extract` remembers of frames."""
    (project / ".celforge").mkdir(exist_ok=True)
    with Catalog.open(project / ".celforge/catalog.sqlite3") as catalog, catalog.transaction():
        run_id = catalog.start_run("extract", "", {}, "0")
        for path, value in facts.items():
            media_id = catalog.add_media(content(path), "image", path.stat().st_size)
            catalog.set_fact(media_id, "source", value, source="extract", run_id=run_id)
        catalog.end_run(run_id, 0)


def test_frames_of_one_shot_are_held_out_together(train: Train, dataset: Path) -> None:
    shots = {}
    for number in range(100, 124):
        path = dataset / "style" / f"{number}.png"
        given.draw(path, number)
        shots[path] = {"video_sha256": "a", "time_s": number / 10, "shot": (number - 100) // 4 + 1}
    frame_facts(dataset.parent, shots)
    found = plan(train("locon", "--validation-share", 0.5, "--dry-run", "--json"))
    names = [f"a shot {one['shot']}" for one in shots.values()]
    held = sum(place_of(name) < 0.5 for name in names)
    assert held % 4 == 0 and 0 < held < 24  # whole shots, some of them
    others = [path for path in dataset.rglob("*.png") if path not in shots]
    assert found["validation"]["held_out"] == held + sum(place_of(content(path)) < 0.5 for path in others)


def test_names_of_frames_tell_their_second_where_no_catalogue_does(tmp_path: Path) -> None:
    names = ("E01 00-01-02.003.png", "E01 00-01-02.900.jpg", "E02 00-01-02.003.png", "4.png")
    examples = [SimpleNamespace(name=name, content=str(at)) for at, name in enumerate(names)]
    found = shots_of(tmp_path, examples)  # type: ignore[arg-type]
    assert found == {"0": "E01 00-01-02", "1": "E01 00-01-02", "2": "E02 00-01-02"}
    seconds = (
        _by_fact({"video": "v", "time_s": time_s, "shot": shot})
        for time_s, shot in ((1.2, 0), (1.9, 0), (2.0, 0), (2.0, 7))
    )
    assert list(seconds) == ["v second 1", "v second 1", "v second 2", "v shot 7"]


def test_timesteps_that_are_not_trained_are_not_validated() -> None:
    validator = object.__new__(Validator)
    validator._settings = SimpleNamespace(validation_timesteps=4)  # type: ignore[assignment]
    for at in range(20):
        example: Any = SimpleNamespace(content=str(at))
        found = [validator._timestep(example, stratum, 40, 80) for stratum in range(4)]
        assert all(40 + 10 * stratum <= one < 50 + 10 * stratum for stratum, one in enumerate(found))
