"""Regularisation pictures: which they are, how often they are shown, and what their loss weighs."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from pipeline.errors import InputError
from tests.conftest import Celforge
from tests.trainers.conftest import TinyFiles
from tests.trainers.test_train import FAST, draw
from trainers.dataset import TrainingData
from trainers.regularisation import read_data
from trainers.train_settings import resolve_train
from trainers.visits import Visits


def pictures(folder: Path, count: int, first: int = 0) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        draw(folder / f"{number}.png", first + number)
        (folder / f"{number}.txt").write_text("girl")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures three times a pass, and one once: 7."""
    pictures(tmp_path / "data" / "3_sabine", 2)
    pictures(tmp_path / "data" / "1_style", 1, 10)
    return tmp_path / "data"


def read(data: Path, **values: Any) -> TrainingData:
    table = {"resolution_px": 64, "bucket_step_px": 16, **values}
    settings = resolve_train({}, None, {"kind": "loha", **table})[0].settings
    return read_data(data, settings, count_tokens=len)


def by_kind(data: TrainingData) -> tuple[list[Fraction], list[Fraction]]:
    kinds = ([one for one in data.examples if one.terms.is_reg is is_reg] for is_reg in (False, True))
    trained, reg = ([one.repeats for one in ones] for ones in kinds)
    return trained, reg


@pytest.mark.parametrize("count", [1, 3, 20])
def test_a_pass_shows_one_for_each_picture_whatever_their_number(
    data: Path, tmp_path: Path, count: int
) -> None:
    pictures(tmp_path / "reg" / "1_girl", count, 20)
    found = read(data, reg_data=tmp_path / "reg")
    trained, reg = by_kind(found)
    assert sum(trained) == 7
    assert reg == [Fraction(7, count)] * count
    # after `count` passes each was queued equally often, to the picture
    visits = Visits(found.examples, batch_size=2, seed=0)
    assert visits.queued(count)[-count:] == [7] * count


def test_repeats_and_multiplies_of_their_own_keep_their_proportions(data: Path, tmp_path: Path) -> None:
    many, few = pictures(tmp_path / "reg" / "many", 1, 20), pictures(tmp_path / "reg" / "few", 1, 30)
    (many / "multiply.txt").write_text("3")
    (few / "loss_scale.txt").write_text("0.5")
    equal = read(data, reg_data=tmp_path / "reg", prior_loss_weight=0.5)
    assert by_kind(equal)[1] == [Fraction(7, 4), Fraction(21, 4)]
    assert [one.loss_scale for one in equal.examples] == [1, 1, 1, 0.25, 0.5]
    assert by_kind(read(data, reg_data=tmp_path / "reg", reg_ratio=0.5))[1] == [
        Fraction(7, 8),
        Fraction(21, 8),
    ]
    assert by_kind(read(data, reg_data=tmp_path / "reg", reg_ratio=0.0))[1] == [1, 3]


def test_subsets_of_a_dataset_toml_say_it_themselves(data: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "class", 2, 20)
    config = tmp_path / "set.toml"
    config.write_text(
        '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "data/3_sabine"\nnum_repeats = 3\n'
        '[[datasets.subsets]]\nimage_dir = "class"\nis_reg = true\nclass_tokens = "girl"\n'
    )
    found = read(config, prior_loss_weight=0.3)
    trained, reg = by_kind(found)
    assert (sum(trained), reg) == (6, [3, 3])
    assert {one.loss_scale for one in found.examples if one.terms.is_reg} == {0.3}


def test_what_makes_no_sense_is_said(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lie in each other"):
        read(data, reg_data=data / "1_style")
    with pytest.raises(InputError, match="there is no folder of regularisation pictures"):
        read(data, reg_data=tmp_path / "nowhere")
    config = tmp_path / "set.toml"
    config.write_text('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "data/1_style"\nis_reg = true\n')
    with pytest.raises(InputError, match="and nothing else"):
        read(config)
    assert any("prior_loss_weight has no effect" in one for one in read(data, prior_loss_weight=0.5).problems)
    pictures(tmp_path / "reg", 1, 20)
    zero = read(data, reg_data=tmp_path / "reg", prior_loss_weight=0.0)
    assert any("not learned" in one for one in zero.problems)


def test_the_plan_and_the_file_tell_them(
    celforge: Celforge, data: Path, tmp_path: Path, tiny_files: TinyFiles
) -> None:
    pictures(tmp_path / "reg" / "1_girl", 2, 20)
    given = ("--data", data, "--base", tiny_files.diffusers, *FAST, "--out", tmp_path / "out")
    answer = celforge("train", "loha", *given, "--steps", 1, "--reg-data", tmp_path / "reg", "--name", "a")
    assert answer.exit_code == 0, answer.stderr
    assert "regularisation: 2 pictures, seen 7.00 times in one pass, their loss times 1" in answer.stdout
    with safe_open(tmp_path / "out" / "a.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_num_train_images"] == "7"
    assert metadata["ss_num_reg_images"] == "8"  # 7/2 is written as 4, twice
    assert metadata["ss_prior_loss_weight"] == "1.0"
    assert metadata["ss_reg_dataset_dirs"] == '{"reg/1_girl": {"n_repeats": 4, "img_count": 2}}'
    assert "1_girl" not in metadata["ss_dataset_dirs"]
