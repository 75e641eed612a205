"""`celforge run` with the real stages: from a video to trained adapters, killed in each stage, and again."""

import itertools
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import Any

import av  # noqa: F401  (loaded here, once, and not in each child)
import cv2  # noqa: F401
import onnxruntime  # noqa: F401
import pytest
import torch

import trainers.preflight
import trainers.train_run  # noqa: F401
from pipeline import run as run_module
from pipeline.chain import Link
from pipeline.command_table import settings_classes
from tests.conftest import Celforge
from tests.crashing import KILLED
from tests.tiny_taggers import wd
from tests.trainers.tiny_models import write_tiny_models
from tests.trees import Tree, linked, look
from tests.videos import scene, write_video
from trainers.forecast import Forecast

torch.set_num_threads(1)
SETTINGS = """
[extract]
[dedupe]
[tag]
tagger = ["tools/tagger"]
[identify]
by_tags = true
all_character_tags = true
[caption]
trigger_words = ["demo style"]
[arrange]
min_images_per_combination = 1
[balance]
[flatten]
[check]
[report]
"""
TRAIN = """
[[train]]
kind = "{kind}"
base = "tools/tiny"
steps = 3
batch_size = 1
save_every = 2
resolution_px = 64
bucket_step_px = 16
"""
OURS = ("pipeline", "stages", "trainers")


@pytest.fixture(autouse=True)
def _forecast_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forecast has tests of its own, and takes longer than a run of the tiny model."""
    monkeypatch.setattr("trainers.sizes.forecast_step", lambda *_, **__: Forecast(1, 1, 1, 1, 1))


def make_project(root: Path, kinds: tuple[str, ...], extract: str = "") -> Path:
    root.mkdir()
    wd(root / "tools/tagger")
    write_tiny_models(root / "tools")
    trains = "".join(TRAIN.format(kind=kind) for kind in kinds)
    (root / "celforge.toml").write_text(SETTINGS.replace("[extract]\n", f"[extract]\n{extract}") + trains)
    return root


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Three drawings, each held for half a second."""
    settings_classes()  # the stages are loaded here, and not in each child
    root = make_project(tmp_path / "anime", ("loha",))
    (root / "videos").mkdir()
    held = [scene(number) for number in (1, 2, 3) for _ in range(12)]
    write_video(root / "videos/ep 01.mp4", held)
    return root


def kept(root: Path) -> Tree:
    """All that a run makes, but for what tells when it was: pages, metrics, logs, states."""
    told = ("report", "metrics.jsonl", "train.log", "settings.json", "state", "lock")
    found = look(root, times=False)
    return {
        name: one
        for name, one in found.items()
        if not any(part in told for part in Path(name).parts) and not Path(name).match("models/*/index.html")
    }


def in_child(work: Callable[[], object]) -> int:
    """Run something in a child that may be killed; gives its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            code = int(work() or 0)  # type: ignore[call-overload]
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@cache
def is_ours(path: str) -> bool:
    return any(f"{os.sep}{one}{os.sep}" in path for one in OURS)


def traced(seen: Callable[[str], None], call: Any, stage: str = "") -> Any:
    """`_call` of the run, that tells of every call of a function of ours, by the stage it happens in.

    Args:
        stage: the only one that is looked at; every one when empty.
    """

    def inner(command: Any, link: Link) -> Any:
        if stage not in ("", link.name):
            return call(command, link)

        def trace(frame: FrameType, event: str, _: Any) -> None:
            if event == "call" and is_ours(frame.f_code.co_filename):
                seen(link.name)

        sys.settrace(trace)
        try:
            return call(command, link)
        finally:
            sys.settrace(None)

    return inner


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_killed_in_each_stage_and_run_again_all_is_as_if_it_was_not(
    celforge: Celforge, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, whole_one = project.with_name("fresh"), project.with_name("whole")
    shutil.copytree(project, fresh)
    counts = project.with_name("counts")

    def whole() -> int:
        calls: dict[str, int] = {}

        def seen(name: str) -> None:
            calls[name] = calls.get(name, 0) + 1

        monkeypatch.setattr(run_module, "_call", traced(seen, run_module._call))
        code = celforge("run", project).exit_code
        counts.write_text("\n".join(f"{name} {number}" for name, number in calls.items()))
        return code

    assert in_child(whole) == 0
    calls = {name: int(number) for name, number in map(str.split, counts.read_text().splitlines())}
    assert len(calls) == 11
    project.rename(whole_one)
    fresh.rename(project)  # kohya's TOML has whole paths

    def killed_in(stage: str) -> int:
        number = itertools.count(1)

        def seen(name: str) -> None:
            if next(number) == calls[name] // 2:
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(run_module, "_call", traced(seen, run_module._call, stage))
        return celforge("run", project).exit_code

    for stage in calls:
        assert in_child(partial(killed_in, stage)) == KILLED, stage
    assert in_child(lambda: celforge("run", project).exit_code) == 0
    assert kept(project) == kept(whole_one)
    assert linked(project) == linked(whole_one)

    before = look(project)
    assert in_child(lambda: 0 if says_nothing_to_do(celforge, project) else 1) == 0
    assert look(project) == before

    (project / "tools/tiny").rename(project.with_name("elsewhere"))  # what is trained needs its base no more
    assert in_child(lambda: 0 if says_nothing_to_do(celforge, project) else 1) == 0


def says_nothing_to_do(celforge: Celforge, root: Path) -> bool:
    answer = celforge("run", root)
    return answer.exit_code == 0 and "nothing to do: 11 stages up to date" in answer.stdout


def test_the_two_episodes_become_an_adapter(
    celforge: Celforge, shared_testdata: Path, tmp_path: Path
) -> None:
    """Key frames alone, so that it is quick; each hand-over is counted on the disk."""
    root = make_project(tmp_path / "anime", ("loha",), "keyframes = true\n")
    shutil.copytree(shared_testdata / "video", root / "videos", ignore=lambda *_: ["bigbuckbunny.mp4"])
    answer = celforge("run", root, "--json")
    assert answer.exit_code == 0, answer.stderr
    made = {one["stage"]: one for one in answer.json["stages"]}
    assert list(made) == [
        "extract", "dedupe", "tag", "identify", "caption", "arrange", "balance", "flatten", "check",
        "train.loha", "report",
    ]  # fmt: skip
    frames = sorted((root / "frames").rglob("*.jpg"))
    assert {path.parent.name for path in frames} == {"dev_E01", "dev_E02"}
    assert made["tag"]["result"] == f"{len(frames)} pictures tagged"
    captions = [path.with_suffix(".txt").read_text(encoding="utf-8") for path in frames]
    assert all(text.startswith("demo style") for text in captions)
    tree = sorted((root / "dataset").rglob("*.jpg"))
    assert {path.stat().st_ino for path in tree} == {path.stat().st_ino for path in frames}
    assert all((path.parent / "multiply.txt").is_file() for path in tree)
    assert f"{len(frames)} in the tree" in made["arrange"]["result"]
    assert (root / "kohya/dataset.toml").is_file()
    assert "0 errors" in made["check"]["result"]
    assert made["train.loha"]["made"][-1] == "models/loha/loha.safetensors"
    before = look(root)
    again = celforge("run", root)
    assert "nothing to do: 11 stages up to date" in again.stdout
    assert look(root) == before
