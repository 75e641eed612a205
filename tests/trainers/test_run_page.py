"""The page of a run, its notes, and what the report shows of it, from files written by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_report import PageParser

from pipeline.made_folders import MARK
from pipeline.settings import as_json
from pipeline.training_runs import TrainingRun
from tests.conftest import Celforge
from trainers.prompts import Prompt
from trainers.run_folder import RunFolder
from trainers.run_notes import Watch, notes_of
from trainers.run_page import write_page
from trainers.sample_sheet import SampleSheet
from trainers.samples import save_sample
from trainers.train_settings import Settings

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run of 40 steps of which 20 are done, with validation, samples and a hostile prompt."""
    found = RunFolder(tmp_path / "anime" / "models" / "sabine", "sabine")
    found.prepare()
    (tmp_path / "anime" / "celforge.toml").write_text("", encoding="utf-8")
    (found.path / MARK).write_text("", encoding="utf-8")
    lines: list[dict[str, Any]] = [
        {
            "step": step,
            "loss": 0.2 + step % 3 / 50,
            "smoothed_loss": 0.2,
            "learning_rate": 1e-4,
            "grad_norm": 1.0,
        }
        for step in range(1, 21)
    ]
    lines += [
        {"step": step, "validation_loss": loss, "validation_train_loss": 0.2, "validation": {"Iris": loss}}
        for step, loss in ((0, 0.3), (10, 0.21), (20, 0.25))
    ]
    found.metrics_path.write_text(
        "".join(json.dumps(one) + "\n" for one in lines) + '{"step": 2', encoding="utf-8"
    )
    settings = as_json(Settings(kind="locon", name="sabine", base="/models/base.safetensors", steps=40))
    found.write_settings(
        {
            "settings": settings,
            "sources": dict.fromkeys(settings, "default") | {"steps": "flag"},
            "total_steps": 40,
            "problems": [f"{HOSTILE} is odd; rename it"],
            "folders": [{"folder": "1_character/Iris", "pictures": 4, "seen a pass": 4.0}],
            "buckets": [{"bucket": "512x512", "pictures": 4, "seen a pass": 4.0}],
            "other_than_the_preset": {"steps": {"preset": 20_000, "here": 40}},
            "environment": {"torch": "2.13.0"},
            "plan": {"course": "40 steps"},
            "failures": [{"path": "x.png", "detail": "truncated"}],
            "validation": {"measured": 3, "concepts": {"Iris": 3}},
        }
    )
    found.samples_folder.mkdir()
    prompt = Prompt(text=f"sabine {HOSTILE}", width_px=32, height_px=32, seed=1)
    for step in (0, 10):
        path = found.sample_path(step, 0)
        save_sample(path, Image.new("RGB", (32, 32)), replace(prompt, number=0), step=step, facts={})
    SampleSheet.read(found.samples_folder.glob("*.png")).save(found.sheet_path)
    for step in (10, 20):
        found.model_path(step).write_bytes(b"12345")
    return found


def read(path: Path) -> PageParser:
    return PageParser(path.read_text(encoding="utf-8"))


def test_the_page_shows_the_run_whole_and_safely(folder: RunFolder) -> None:
    write_page(folder, "stopped", ended="training met NaN")
    found = read(folder.page_path)
    for words in (
        *("20 of 40", "Training met NaN.", "locon, trained on base.safetensors", "2.13.0", "x.png"),
        *(
            "sabine-step00000010.safetensors best of those saved",
            "1_character/Iris",
            "3 pictures that no step",
        ),
        f"{HOSTILE} is odd",
    ):
        assert words in found.shown, words
    assert not found.all("script")
    names = {section["id"] for section in found.all("section")}
    assert names == {
        *("notes", "curves", "validation", "samples", "models", "data", "settings", "environment"),
    }
    for link in (*found.all("img"), *found.all("a")):
        place = link.get("src") or link["href"]
        assert place.startswith("#") or (folder.path / place).is_file(), place
    assert len(found.all("img")) == 2
    row = found.shown[found.shown.index("steps40flag") :]
    assert row.startswith("steps40flag20000")
    assert "--page: #12161d" in folder.page_path.read_text(encoding="utf-8")  # dark on dark screens
    assert "prefers-color-scheme: dark" in folder.loss_path.read_text(encoding="utf-8")


def test_a_page_loads_itself_anew_only_while_the_run_goes_on(folder: RunFolder) -> None:
    write_page(folder, "running")
    running = folder.page_path.read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' in running
    write_page(folder, "done")
    assert 'http-equiv="refresh"' not in folder.page_path.read_text(encoding="utf-8")


def test_a_run_without_measurements_has_a_page(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new", "new")
    folder.prepare()
    write_page(folder, "running")
    assert not folder.page_path.exists()
    folder.write_settings({"settings": {}, "total_steps": 3})
    write_page(folder, "running")
    assert "Nothing was measured yet" in read(folder.page_path).shown


def test_the_best_step_is_the_first_with_the_lowest_validation_loss(folder: RunFolder) -> None:
    run = TrainingRun.read(folder.path)
    assert run is not None
    assert run.best is not None
    assert (run.best["step"], run.step, run.last("validation_loss")) == (10, 20, 0.25)


def test_the_report_leads_to_the_page_and_shows_loss_and_sheet(celforge: Celforge, folder: RunFolder) -> None:
    write_page(folder, "done")
    root = folder.path.parents[1]
    assert celforge("report", root).exit_code == 0
    text = (root / "report/index.html").read_text(encoding="utf-8")
    found = PageParser(text)
    links = [one["href"] for one in found.all("a")]
    assert "../models/sabine/index.html" in links
    (sheet,) = found.all("img")
    with Image.open(root / "report" / sheet["src"]) as small, Image.open(folder.sheet_path) as large:
        assert small.size == large.size  # it is not wide
    assert text.count("<polyline") == 5  # measured, smoothed, held out, trained on; a concept
    celforge("report", root)
    assert (root / "report/index.html").read_text(encoding="utf-8") == text
    folder.sheet_path.write_bytes(b"broken")
    again = celforge("report", root)
    assert again.exit_code == 0
    assert "samples.png cannot be read" in again.stderr


# Notes


def validations(*losses: float, train: tuple[float, ...] | None = None) -> list[dict[str, Any]]:
    train = train or tuple(0.2 - 0.01 * at for at in range(len(losses)))
    return [
        {"step": 100 * at, "validation_loss": loss, "validation_train_loss": other}
        for at, (loss, other) in enumerate(zip(losses, train, strict=True))
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (validations(0.2, 0.18, 0.17, 0.17, 0.16), []),
        (validations(0.2, 0.15, 0.16, 0.17), []),  # twice above is an accident
        (validations(0.2, 0.15, 0.16, 0.17, 0.18), [("overfits", 400)]),
        (validations(0.2, 0.15, 0.16, 0.17, 0.18, 0.19, 0.2), [("overfits", 400)]),  # once
        (validations(0.2, 0.15, 0.151, 0.151, 0.151), []),  # hardly above
        (validations(0.2, 0.15, 0.16, 0.16, 0.16, train=(0.2, 0.15, 0.16, 0.16, 0.16)), []),  # both rise
        (validations(0.2, 0.15, 0.31), [("diverges", 200)]),
        (
            [{"step": at, "smoothed_loss": 0.1} for at in range(30)] + [{"step": 30, "smoothed_loss": 0.26}],
            [("diverges", 30)],
        ),
        (
            [{"step": at, "smoothed_loss": 0.1} for at in range(30)] + [{"step": 30, "smoothed_loss": 0.24}],
            [],
        ),
        ([{"step": at, "smoothed_loss": 0.1} for at in range(3)] + [{"step": 3, "smoothed_loss": 0.9}], []),
    ],
)
def test_overfitting_and_divergence_are_said_once(
    lines: list[dict[str, Any]], said: list[tuple[str, int]]
) -> None:
    assert [(note.kind, note.step) for note in notes_of(lines)] == said


def test_the_note_says_from_which_step_on_it_overfits() -> None:
    (note,) = notes_of(validations(0.2, 0.15, 0.16, 0.17, 0.18))
    assert "since step 100: there the loss of held-out pictures was 0.15, now it is 0.18" in note.text


def test_what_was_said_before_a_stop_is_not_said_again() -> None:
    lines = validations(0.2, 0.15, 0.16, 0.17, 0.18, 0.19)
    watch = Watch()
    for line in lines[:5]:
        watch.look(line)
    assert watch.look(lines[5]) == []
