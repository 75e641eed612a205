"""The demo's models and project: whole, small, and strangers to the five characters."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import run
from characters import CAST, random_scene, tags_of
from drawing import draw_scene
from fields import is_seen, value_of
from judge import load_judge, look_at
from measure import SIGNATURE, plain_prompts, trigger_prompts
from PIL import Image

from tests.conftest import Celforge
from trainers.models import load_models
from trainers.prompts import read_prompts
from trainers.samples import sample_images

MOST_BYTES = 35_000_000


def test_all_models_of_the_demo_take_little_room() -> None:
    files = [path for path in run.MODELS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    assert not [path.name for path in files if any(name in path.name for name in CAST)]


def test_the_project_of_the_demo_is_one_that_celforge_carries_out(
    celforge: Celforge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "OUT", tmp_path / "out")
    run.make_project()
    answer = celforge("run", tmp_path / "out", "--plan", "--json")
    assert answer.exit_code == 0, answer.stderr
    stages = [stage["stage"] for stage in answer.json["plan"]]
    assert stages[0] == "extract"
    assert {"train.loha", "train.locon", "train.full", "compare", "report"} <= set(stages)


def test_prompts_say_a_name_and_nothing_of_its_signature() -> None:
    asked = [(name, prompt.text) for name, prompt in trigger_prompts(4)]
    asked += [(one.text.split(",")[0], one.text) for one in read_prompts(run.HERE / "prompts.txt")][
        : len(CAST)
    ]
    for name, text in asked:
        parts = set(text.split(", "))
        assert name in parts
        assert not parts & set(CAST[name].signature)
    for scene, prompt in plain_prompts(8):
        assert scene.look.signature not in {look.signature for look in CAST.values()}
        assert not set(prompt.text.split(", ")) & CAST.keys()


def test_the_base_draws_and_does_the_same_again() -> None:
    models = load_models(str(run.MODELS / "base"))
    _, prompt = plain_prompts(1)[0]
    drawn = [next(iter(sample_images(models, [prompt])))[1] for _ in range(2)]
    assert drawn[0].size == (64, 64)
    assert drawn[0].tobytes() == drawn[1].tobytes()
    assert np.asarray(drawn[0]).std() > 20  # a picture, not grey


def test_the_judge_is_right_on_new_drawings_as_often_as_its_card_says() -> None:
    card = json.loads((run.MODELS / "judge.json").read_text(encoding="utf-8"))["right on drawings"]
    scenes = [random_scene(np.random.default_rng((99, number))) for number in range(100)]
    seen = look_at(
        load_judge(run.MODELS / "judge.safetensors"),
        [Image.fromarray(np.asarray(draw_scene(one, 64))) for one in scenes],
    )
    for field in SIGNATURE:
        right = [
            one[field] == value_of(scene, field)
            for one, scene in zip(seen, scenes, strict=True)
            if is_seen(scene, field)
        ]
        assert sum(right) / len(right) > card[field] - 0.1


def test_the_tagger_speaks_as_the_wd_taggers_do() -> None:
    session = onnxruntime.InferenceSession(
        run.MODELS / "tagger" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    lines = (run.MODELS / "tagger" / "selected_tags.csv").read_text(encoding="utf-8").splitlines()
    scene = random_scene(np.random.default_rng(7))
    picture = np.asarray(draw_scene(scene, given.shape[1]))[None, :, :, ::-1].astype(np.float32)
    (found,) = session.run(None, {given.name: picture})
    assert found.shape == (1, len(lines) - 1)
    names = [line.split(",")[1].replace("_", " ") for line in lines[1:]]
    said = {name for name, share in zip(names, found[0], strict=True) if share > 0.5}
    assert len(said & set(tags_of(scene))) >= 4
