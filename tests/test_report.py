"""The page of `celforge report`: it parses, every picture it names is there, and names stay text."""

import os
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from pictures import noise, saved
from PIL import Image
from test_charts import contrast

from pipeline.job import Job, open_job
from pipeline.layouts.buckets import Bucket
from pipeline.made_folders import MARK
from pipeline.plan import Drop, Plan, SetOutcome
from pipeline.report_page.page import _labels
from pipeline.report_page.pictures import quotas, spread
from pipeline.report_page.survey import bucket_use
from tests.conftest import Celforge

VOID = {"meta", "img", "br", "hr", "link", "input", "rect", "circle", "line"}
HOSTILE = "<script>alert('x')</script>"


class PageParser(HTMLParser):
    """Reads a page, and sees that every element is closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def shown(self) -> str:
        return " ".join("".join(self.text).split())


def read_page(root: Path, folder: str = "report") -> PageParser:
    return PageParser((root / folder / "index.html").read_text(encoding="utf-8"))


def save(path: Path, *, size: tuple[int, int] = (64, 48), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(saved(noise(*size, seed), "PNG"))
    return path


def facts(root: Path, **by_name: object) -> None:
    with open_job(root, "hand") as job:
        for file in job.images():
            for name, value in by_name.items():
                job.set_fact(file, name, value, source="test")  # type: ignore[arg-type]


def tiles(page: PageParser) -> dict[str, str]:
    """The numbers at the top of the page, by what they count."""
    text = page.shown
    found = re.findall(
        r"(pictures|places where they lie|dropped|failed|captions|shown in an epoch)([\d.,]+)", text
    )
    return dict(reversed(found))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for number in range(3):
        save(tmp_path / "a" / f"{number}.png", seed=number)
    save(tmp_path / "b" / "wide.png", size=(128, 72), seed=9)
    (tmp_path / "a" / "0.txt").write_text("sabine, 1girl", encoding="utf-8")
    (tmp_path / "a" / "multiply.txt").write_text("2.5", encoding="utf-8")
    return tmp_path


def test_the_page_counts_pictures_captions_and_exposures(celforge: Celforge, project: Path) -> None:
    answer = celforge("report", project)
    assert answer.exit_code == 0, answer.stderr
    assert f"made: {project / 'report' / 'index.html'}" in answer.stdout
    counted = tiles(read_page(project))
    assert counted["pictures"] == "4"
    assert counted["captions"] == "1"
    assert counted["shown in an epoch"] == "8.5"  # 3 * 2.5 + 1


def test_every_picture_and_link_of_the_page_is_there(celforge: Celforge, project: Path) -> None:
    save(project / "odd #1 100%" / "a?b & 猫.png", seed=5)
    celforge("report", project)
    page = read_page(project)
    folder = project / "report"
    images = page.all("img")
    assert len(images) == 5
    for image in images:
        assert (folder / unquote(image["src"])).is_file()
        assert image["alt"]
        assert image["loading"] == "lazy"
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for link in page.all("a"):
        target = link["href"]
        assert (
            target[1:] in anchors
            if target.startswith("#")
            else (folder / unquote(target)).resolve().is_file()
        )


def test_small_pictures_are_small_and_keep_their_shape(celforge: Celforge, tmp_path: Path) -> None:
    save(tmp_path / "x" / "big.png", size=(640, 320))
    celforge("report", tmp_path, "--thumbnail-px", 128)
    (image,) = read_page(tmp_path).all("img")
    with Image.open(tmp_path / "report" / image["src"]) as small:
        assert small.size == (128, 64)
        assert small.format == "WEBP"
    assert (image["width"], image["height"]) == ("640", "320")


def test_small_pictures_are_no_pictures_of_the_data_set(celforge: Celforge, project: Path) -> None:
    celforge("report", project)
    celforge("report", project)
    assert tiles(read_page(project))["pictures"] == "4"


def test_the_folder_of_the_report_is_marked_and_one_that_a_person_named_is_not(
    celforge: Celforge, project: Path
) -> None:
    before = celforge("ingest", project, "--json").json["counts"]
    celforge("report", project)
    save(project / "report" / "small.png", seed=99)
    assert celforge("ingest", project, "--json").json["counts"] == before
    assert celforge("status", project, "--json").json["made_folders"] == ["report"]
    celforge("report", project, "--out", project / "a")
    assert not (project / "a" / MARK).exists()


def test_the_same_catalogue_gives_the_same_bytes(celforge: Celforge, project: Path) -> None:
    facts(project, tags={"1girl": 0.9, "smile": 0.5})
    celforge("report", project)
    first = (project / "report" / "index.html").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in (project / "report").rglob("*.webp")}
    answer = celforge("report", project, "--json", "--workers", 1)
    assert (project / "report" / "index.html").read_bytes() == first
    assert {path: path.stat().st_mtime_ns for path in (project / "report").rglob("*.webp")} == times
    assert answer.json["small_pictures_written"] == 0


def test_small_pictures_that_no_page_shows_go(celforge: Celforge, project: Path) -> None:
    celforge("report", project)
    (project / "b" / "wide.png").unlink()
    foreign = project / "report" / ".thumbs" / "mine.txt"
    foreign.write_text("mine", encoding="utf-8")
    celforge("report", project)
    assert len(list((project / "report").rglob("*.webp"))) == 3
    assert foreign.is_file()


def test_hostile_names_tags_and_captions_stay_text(celforge: Celforge, tmp_path: Path) -> None:
    name = "<script>alert(1)<\u2215script>" if os.sep == "/" else "script"
    save(tmp_path / name / "\"onerror='x' <b>&amp;.png")
    (tmp_path / name / "\"onerror='x' <b>&amp;.txt").write_text(f'"{HOSTILE}', encoding="utf-8")
    facts(
        tmp_path,
        tags={HOSTILE: 1.0, "quote\"'": None, "猫耳": 0.5, "bell\x07": 0.1},
        characters=[HOSTILE],
        rating=HOSTILE,
    )
    with open_job(tmp_path, "tag") as job:
        for file in job.images():
            job.settle(file, "failed", HOSTILE, HOSTILE)
    celforge("report", tmp_path)
    page = read_page(tmp_path)
    assert not page.all("script")
    assert not page.all("b")
    for _, attributes in page.tags:
        assert not any(key.startswith("on") for key in attributes)
    assert HOSTILE in page.shown
    assert "猫耳" in page.shown
    assert "\x07" not in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_the_page_asks_nothing_from_elsewhere(celforge: Celforge, project: Path) -> None:
    celforge("report", project)
    page = read_page(project)
    text = (project / "report" / "index.html").read_text(encoding="utf-8")
    assert not [one for one in re.findall(r"https?://[^\"' ]+", text) if "www.w3.org" not in one]
    assert not page.all("link")
    policy = next(one for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy["content"]
    assert "script-src" not in policy["content"]


def test_an_empty_project_has_a_page(celforge: Celforge, tmp_path: Path) -> None:
    answer = celforge("report", tmp_path)
    assert answer.exit_code == 0, answer.stderr
    page = read_page(tmp_path)
    assert tiles(page)["pictures"] == "0"
    assert not page.all("img")


def test_without_tags_there_is_no_part_about_them(celforge: Celforge, project: Path) -> None:
    celforge("report", project)
    assert "tags" not in {one.get("id") for one in read_page(project).all("section")}
    facts(project, tags={})
    celforge("report", project)
    assert "tags" not in {one.get("id") for one in read_page(project).all("section")}


def test_tags_are_counted_by_the_word_that_counts(celforge: Celforge, project: Path) -> None:
    with open_job(project, "tag") as job:
        for file in job.images():
            job.set_fact(file, "tags", {"machine": 0.9}, source="wd")
            if file.relative == "a/0.png":
                job.set_fact(file, "tags", {"person": None, "1girl": None}, source="hand", by_hand=True)
    celforge("report", project)
    tips = re.findall(r"(machine|person|1girl): (\d+)<", (project / "report/index.html").read_text("utf-8"))
    assert tips == [("machine", "3"), ("1girl", "1"), ("person", "1")]


def test_characters_are_weighed_by_repeats(celforge: Celforge, project: Path) -> None:
    with open_job(project, "identify") as job:
        for file in job.images():
            job.set_fact(file, "characters", ["sabine"] if file.relative.startswith("a/") else ["mika"])
    celforge("report", project)
    text = (project / "report" / "index.html").read_text(encoding="utf-8")
    assert "sabine: 7.5, 3 pictures of it<" in text
    assert "mika: 1, 1 picture of it<" in text


def test_failures_are_named_with_stage_reason_and_file(celforge: Celforge, project: Path) -> None:
    celforge("report", project)
    (project / "b" / "empty.png").write_bytes(b"")
    whole = (project / "a" / "0.png").read_bytes()
    (project / "b" / "cut.png").write_bytes(whole[: len(whole) // 2])  # its header can be read
    assert celforge("report", project).exit_code == 3, "nobody had named them"
    assert celforge("ingest", project).exit_code == 3
    answer = celforge("report", project)
    assert answer.exit_code == 0, "what another stage found broken is told by the page, not found again"
    page = read_page(project)
    assert "b/empty.png" in page.shown
    assert "empty file" in page.shown
    assert "truncated" in page.shown
    assert tiles(page)["failed"] == "2"
    assert "no picture to show" in page.shown


def test_a_broken_picture_that_no_stage_saw_fails_here(celforge: Celforge, project: Path) -> None:
    (project / "b" / "page.png").write_bytes(b"<html>404</html>")
    answer = celforge("report", project)
    assert answer.exit_code == 3
    assert "not a picture" in read_page(project).shown


def drop(job: Job, dropped: str, survivor: str) -> None:
    file = next(one for one in job.images() if one.relative == dropped)
    outcome = SetOutcome(file.content, job.stage, "dropped", "same picture", survivor)
    job.apply(Plan(job.stage, [outcome, Drop(file.path, "same picture", survivor)]))


def test_dropped_pictures_are_shown_beside_the_one_that_stayed(celforge: Celforge, project: Path) -> None:
    with open_job(project, "dedupe") as job:
        drop(job, "a/1.png", "a/0.png")
    celforge("report", project)
    page = read_page(project)
    (section,) = [one for one in page.all("section") if one.get("id") == "dropped"]
    assert "dedupe: same picture" in page.shown
    assert "kept 0.png" in page.shown
    assert "dropped 1.png" in page.shown
    assert tiles(page)["dropped"] == "1"
    assert len(page.all("img")) == 3 + 2
    assert section


def test_a_drop_whose_detail_is_no_path_is_told_in_words(celforge: Celforge, project: Path) -> None:
    with open_job(project, "select") as job:
        for file in job.images()[:1]:
            job.settle(file, "dropped", "too dark", "mean of 3")
    celforge("report", project)
    page = read_page(project)
    assert "select: too dark" in page.shown
    assert "mean of 3" in page.shown


def test_runs_are_listed_without_those_of_report(celforge: Celforge, project: Path) -> None:
    celforge("ingest", project)
    celforge("report", project)
    celforge("report", project)
    (table,) = [one for one in read_page(project).shown.split("Runs") if "ended" in one]
    assert "ingest" in table
    assert "[ingest] decode" in table
    assert "report" not in table.split("Made by")[0]


def test_only_so_many_pictures_are_shown(celforge: Celforge, project: Path) -> None:
    celforge("report", project, "--pictures", 2)
    page = read_page(project)
    assert len(page.all("img")) == 2
    assert "1 of 3 shown" in page.shown


def test_in_a_project_the_dataset_is_what_is_trained_on(celforge: Celforge, project: Path) -> None:
    (project / "celforge.toml").touch()
    for number in range(2):
        (project / "dataset" / "a").mkdir(parents=True, exist_ok=True)
        os.link(project / "a" / f"{number}.png", project / "dataset" / "a" / f"{number}.png")
    (project / "dataset" / "a" / "multiply.txt").write_text("3", encoding="utf-8")
    facts(project, tags={"1girl": 0.9})
    celforge("report", project)
    page = read_page(project)
    counted = tiles(page)
    assert (counted["pictures"], counted["places where they lie"]) == ("4", "6")
    assert len(page.all("img")) == 4
    assert counted["shown in an epoch"] == "6"
    assert "1 picture, not trained on" in page.shown
    assert "2 further lie in the tree that is trained on too" in page.shown
    assert "1girl: 4<" in (project / "report/index.html").read_text(encoding="utf-8"), (
        "each picture counts once"
    )


def test_a_folder_of_nothing_but_the_trees_pictures_says_so(celforge: Celforge, project: Path) -> None:
    (project / "celforge.toml").touch()
    (project / "dataset" / "all").mkdir(parents=True)
    for folder in ("a", "b"):
        for path in (project / folder).glob("*.png"):
            os.link(path, project / "dataset" / "all" / f"{folder}{path.name}")
    answer = celforge("report", project, "--json")
    page = read_page(project)
    assert answer.json["pictures"] * 2 == answer.json["places"] == int(tiles(page)["places where they lie"])
    assert "pictures that lie in the tree too" in page.shown
    assert len(page.all("img")) == answer.json["pictures"]


def test_folders_are_named_by_their_last_part_where_that_tells_them_apart() -> None:
    assert _labels(["d/1/Asuka", "d/2/Rei"]) == ["Asuka", "Rei"]
    assert _labels(["d/1/Asuka", "d/2/Asuka", "Rei"]) == ["1/Asuka", "2/Asuka", "Rei"]
    assert _labels(["x/1/a", "y/1/a", "b"]) == ["x/1/a", "y/1/a", "b"]
    assert _labels([]) == []
    assert _labels(["a", "a"]) == ["a", "a"]


def test_the_report_of_one_folder(celforge: Celforge, project: Path) -> None:
    save(project / "c.png", seed=20)
    celforge("report", project, "--json")  # makes the project
    celforge("report", project / "a", "--out", project / "of a")
    page = read_page(project, "of a")
    assert tiles(page)["pictures"] == "3"
    assert "folder a of" in page.shown


def test_a_page_of_someone_else_is_not_written_over(celforge: Celforge, project: Path) -> None:
    (project / "report").mkdir()
    (project / "report" / "index.html").write_text("<p>mine</p>", encoding="utf-8")
    answer = celforge("report", project)
    assert answer.exit_code == 2
    assert "--out" in answer.stderr
    assert (project / "report" / "index.html").read_text(encoding="utf-8") == "<p>mine</p>"


def test_repeats_of_a_kohya_tree_stand_in_its_folder_names(celforge: Celforge, tmp_path: Path) -> None:
    save(tmp_path / "3_sabine" / "a.png")
    save(tmp_path / "1_mika" / "b.png", seed=2)
    celforge("report", tmp_path)
    assert tiles(read_page(tmp_path))["shown in an epoch"] == "4"


def test_what_is_wrong_with_a_small_file_of_the_tree_is_said(celforge: Celforge, project: Path) -> None:
    (project / "b" / "multiply.txt").write_text("abc", encoding="utf-8")
    answer = celforge("report", project)
    assert answer.exit_code == 0
    assert 'multiply must be a number, found "abc"' in answer.stderr


def test_headings_labels_and_language_for_screen_readers(celforge: Celforge, project: Path) -> None:
    facts(project, tags={"1girl": 0.9})
    celforge("report", project)
    page = read_page(project)
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert len(page.all("main")) == 1
    identifiers = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for section in page.all("section"):
        assert section["aria-labelledby"] in identifiers
    charts = [one for one in page.all("svg") if "chart" in one.get("class", "")]
    assert charts
    assert all(one["role"] == "img" and one["aria-label"] for one in charts)


def test_the_colours_of_the_page_can_be_read_in_both_schemes() -> None:
    style = (Path(__file__).parents[1] / "pipeline" / "report_page" / "page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r"--page:[^}]*", style)
    for scheme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        for ground in ("page", "surface"):
            for ink in ("ink", "muted", "accent", "good", "warn", "bad"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert contrast(colours["bad"], colours["bad-well"]) >= 4.5
        assert contrast(colours["muted"], colours["well"]) >= 4.5


# Which pictures, which buckets


def test_small_folders_are_shown_whole_and_large_ones_share_the_rest() -> None:
    assert quotas({"a": 2, "b": 100, "c": 100}, 12) == {"a": 2, "b": 5, "c": 5}
    assert quotas({"a": 2, "b": 100}, 0) == {"a": 2, "b": 100}
    assert quotas({"a": 2, "b": 3}, 9) == {"a": 2, "b": 3}
    assert sum(quotas(dict.fromkeys(range(50), 7), 20).values()) == 20


def test_pictures_are_spread_evenly() -> None:
    assert spread(list(range(10)), 2) == [2, 7]
    assert spread(list(range(3)), 3) == [0, 1, 2]
    assert spread([1, 2], 0) == []


def test_pictures_are_counted_by_bucket_and_enlarged_ones_told() -> None:
    use = bucket_use({(1920, 1080): 3, (500, 500): 2}, 512)
    assert use.counts == {Bucket(640, 384): 3, Bucket(512, 512): 2}
    assert use.num_enlarged == 2
