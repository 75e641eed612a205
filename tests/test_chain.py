"""The whole way from screenshots to a tree that trainers read: each stage sees what the one before left."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.conftest import Celforge
from tests.oracles.trainers import everydream_pass, kohya_toml, total
from tests.tiny_taggers import wd
from tests.trees import Tree, look

NUM_PICTURES = 6
STAGES: list[list[str]] = [
    ["dedupe"],
    ["tag", "--tagger", "TAGGER"],
    ["identify", "--by-tags", "--all-character-tags"],
    ["caption", "--trigger-words", "demo style"],
    ["arrange", "--min-images-per-combination", "1"],
    ["balance"],
]


def screenshot(number: int) -> Image.Image:
    """A drawing like no other number's, large enough to be compared."""
    random = np.random.default_rng(number)
    picture = Image.new("RGB", (320, 180), tuple(int(one) for one in random.integers(60, 200, 3)))
    pen = ImageDraw.Draw(picture)
    for _ in range(25):
        x, y, width, height = (int(one) for one in random.integers(0, (320, 180, 90, 60)))
        colour = tuple(int(one) for one in random.integers(0, 256, 3))
        pen.rectangle((x, y, x + width + 4, y + height + 4), fill=colour, outline="black", width=2)
    return picture


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "anime"
    for number in range(NUM_PICTURES):
        path = root / "screenshots" / f"ep{number % 2 + 1:02}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        screenshot(number).save(path)
    buffer = io.BytesIO()
    screenshot(0).resize((240, 135)).save(buffer, "JPEG", quality=85)
    (root / "screenshots" / "again.jpg").write_bytes(buffer.getvalue())
    (root / "celforge.toml").write_text("")
    wd(tmp_path / "tagger")
    return root


def run(celforge: Celforge, root: Path) -> None:
    for stage, *options in STAGES:
        given = [str(root.parent / "tagger") if one == "TAGGER" else one for one in options]
        answer = celforge(stage, root, *given)
        assert answer.exit_code == 0, f"{stage}: {answer.stderr}{answer.stdout}"
    assert celforge("check", root / "dataset").exit_code == 0
    assert celforge("flatten", root / "dataset").exit_code == 0
    assert celforge("report", root).exit_code == 0


def files(root: Path) -> Tree:
    """Everything but what the page is made anew of."""
    return {name: one for name, one in look(root).items() if not name.startswith("report")}


def test_from_screenshots_to_a_tree_that_both_trainers_read(celforge: Celforge, project: Path) -> None:
    before = files(project)
    run(celforge, project)
    pictures = sorted(project.glob("dataset/**/*.png"))
    assert len(pictures) == NUM_PICTURES, "the copy was dropped, nothing else"
    assert not (project / "screenshots/again.jpg").exists()
    for picture in pictures:
        caption = picture.with_suffix(".txt").read_text(encoding="utf-8")
        assert caption.startswith("demo style, ")
        assert (picture.parent / "multiply.txt").is_file()
    assert total(kohya_toml(project / "kohya/dataset.toml")) == everydream_pass(project / "dataset")
    status = celforge("status", project, "--json").json
    assert status["made_folders"] == ["dataset", "kohya", "report"]
    assert {row["stage"]: row["images"] for row in status["stages"] if row["outcome"] == "kept"}["tag"] == (
        NUM_PICTURES
    )
    page = (project / "report/index.html").read_text(encoding="utf-8")
    assert "dataset/" in page

    after = files(project)
    run(celforge, project)
    assert files(project) == after, "a second run changes nothing"

    for _ in range(20):
        if celforge("undo", project).exit_code:
            break
    assert files(project) == before, "undo goes back to the start"


def test_what_a_person_does_between_two_steps_stays(celforge: Celforge, project: Path) -> None:
    run(celforge, project)
    picture = next(project.glob("dataset/**/*.png"))
    caption = picture.with_suffix(".txt")
    caption.unlink()
    caption.write_text("written by hand", encoding="utf-8")
    screenshot(99).save(project / "screenshots/ep01/new.png")
    run(celforge, project)
    assert caption.read_text(encoding="utf-8") == "written by hand"
    assert len(list(project.glob("dataset/**/*.png"))) == NUM_PICTURES + 1
