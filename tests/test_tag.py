"""`celforge tag` with small models in the interfaces of the real ones."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import RED, exif, jpeg_with_exif, saved
from PIL import Image
from tiny_taggers import (
    GENERAL,
    TAGS,
    animetimm,
    camie,
    cl,
    csv_text,
    external,
    linear,
    tagger_model,
    wd,
    write,
)

from pipeline import hub
from pipeline.batches import run_in_batches
from pipeline.errors import DeviceError, SettingsError
from pipeline.onnx import Session
from pipeline.tagging.entries import read_entries
from pipeline.tagging.model import TaggerModel
from pipeline.workers import Failed
from stages.tag import ENTRIES_PATH
from tests.conftest import Answer, Celforge

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
FULL = pytest.approx(0.982, abs=0.001)  # sigmoid(4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three flat pictures, square so that no white is added."""
    made = tmp_path / "frames"
    made.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (24, 24), colour).save(made / f"{name}.png")
    return made


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def facts(folder: Path, *, source: str | None = None) -> dict[str, dict[str, Any]]:
    """{picture: {fact: value}} as noted, of one source or of the newest."""
    sql = "SELECT paths.name, facts.name, value FROM facts JOIN paths USING (media_id) WHERE source LIKE ? ORDER BY run_id"
    found: dict[str, dict[str, Any]] = {}
    connection = sqlite3.connect(folder / ".celforge" / "catalog.sqlite3")
    for path, name, value in connection.execute(sql, (source or "%",)):
        found.setdefault(path, {})[name] = json.loads(value)
    connection.close()
    return found


def done(answer: Answer, code: int = 0) -> Answer:
    assert answer.exit_code == code, answer.stderr
    return answer


def never(self: object, batch: object) -> Any:
    raise AssertionError("the model was run")


@pytest.mark.parametrize("make", [wd, cl, camie, animetimm, external])
def test_each_interface_reads_colours_ratings_and_characters(
    celforge: Celforge, folder: Path, models: Path, make: Any
) -> None:
    made = make(models / make.__name__)
    done(celforge("tag", folder, "--tagger", made, "--threshold", 0.5, "--character-threshold", 0.5))
    found = facts(folder)
    assert {name: set(one["tags"]) for name, one in found.items()} == {
        "red.png": {"red_background", "null"},
        "green.png": {"green_background", "nan"},
        "blue.png": {"blue_background", "^_^"},
    }
    assert [found[f"{name}.png"]["rating"] for name in COLOURS] == ["questionable", "general", "sensitive"]
    assert list(found["red.png"]["character_tags"]) == ["sabine_(tale)"]
    assert list(found["green.png"]["character_tags"]) == ["eileen"]
    if make is not camie:
        assert found["red.png"]["tags"]["null"] == FULL


def test_a_model_in_float16_gives_the_tags_of_its_twin_in_float32(
    celforge: Celforge, folder: Path, models: Path
) -> None:
    weights, biases = linear(TAGS, is_bgr=True, full=255)
    said = []
    for name, is_half in (("full", False), ("half", True)):
        model = tagger_model(weights, biases, is_half=is_half)
        made = write(models / name, {"model.onnx": model, "selected_tags.csv": csv_text(TAGS)})
        done(celforge("tag", folder, "--tagger", made, "--threshold", 0.01))
        said.append({path: one["tags"] for path, one in facts(folder, source=name).items()})
    assert {path: set(tags) for path, tags in said[0].items()} == {
        path: set(tags) for path, tags in said[1].items()
    }
    for path, tags in said[0].items():
        assert said[1][path] == pytest.approx(tags, abs=0.005)


def test_half_precision_without_tensorrt_is_said_to_have_no_effect(
    celforge: Celforge, folder: Path, models: Path
) -> None:
    answer = done(
        celforge("tag", folder, "--tagger", wd(models / "wd"), "--device", "cpu", "--half-precision")
    )
    assert "half_precision has no effect: it needs device" in answer.stderr


def test_copyright_artist_and_quality_have_facts_of_their_own(
    celforge: Celforge, folder: Path, models: Path
) -> None:
    done(celforge("tag", folder, "--tagger", cl(models / "cl")))
    found = facts(folder)
    assert found["red.png"]["artist"] == ["a_painter"]
    assert found["green.png"]["copyright"] == ["a_series"]
    assert found["blue.png"]["meta_tags"] == {"best_quality": FULL}


def test_thresholds_of_single_tags_come_from_the_model(
    celforge: Celforge, folder: Path, models: Path
) -> None:
    done(celforge("tag", folder, "--tagger", animetimm(models / "a")))
    assert list(facts(folder)["red.png"]["tags"]) == ["null"]  # red_background wants 0.99


def test_another_threshold_needs_no_model_and_no_picture(
    celforge: Celforge, folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = wd(models / "wd")
    done(celforge("tag", folder, "--tagger", made))
    monkeypatch.setattr(Session, "run", never)
    monkeypatch.setattr(TaggerModel, "prepare", never)
    done(celforge("tag", folder, "--tagger", made, "--threshold", 0.99))
    assert facts(folder)["red.png"]["tags"] == {}
    done(celforge("tag", folder, "--tagger", made, "--tag-threshold", "null=0.99", "--categories", "general"))
    found = facts(folder)["red.png"]
    assert list(found["tags"]) == ["red_background"]
    assert "rating" not in found
    assert "character_tags" not in found


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--threshold=0.4", "--mcut=general"), "threshold has no effect: mcut cuts these tags"),
        (
            ("--character-threshold=0.4", "--categories=general"),
            "character_threshold has no effect: no character tags are taken",
        ),
        (("--other-threshold=0.4",), "other_threshold has no effect: no artist or copyright or meta tags"),
        (("--mcut=character", "--categories=general"), "mcut character has no effect"),
        (("--mcut=rating",), "mcut rating has no effect: the likeliest one is taken"),
        (("--tag-threshold=null=0.5", "--categories=character"), "tag_threshold null has no effect"),
        (("--combine=vote",), "combine vote has no effect: there is one tagger"),
    ],
)
def test_what_has_no_effect_is_said(
    celforge: Celforge, folder: Path, models: Path, flags: Sequence[str], said: str
) -> None:
    answer = done(celforge("tag", folder, "--tagger", wd(models / "wd"), *flags, "--json"))
    assert len(answer.json["warnings"]) == 1
    assert said in answer.json["warnings"][0]


def test_what_has_an_effect_is_no_warning(celforge: Celforge, folder: Path, models: Path) -> None:
    flags = ("--threshold=0.4", "--character-threshold=0.4", "--other-threshold=0.4", "--combine=max")
    taggers = ("--tagger", wd(models / "wd"), "--tagger", cl(models / "cl"))
    answer = done(celforge("tag", folder, *taggers, *flags, "--tag-threshold=null=0.5", "--json"))
    assert answer.json["warnings"] == []
    mcut = ("--mcut=general", "--tag-threshold=null=0.99")  # a tag's own stands above the cut
    answer = done(celforge("tag", folder, *taggers[:2], *mcut, "--json"))
    assert answer.json["warnings"] == []
    assert "null" not in facts(folder, source="wd")["red.png"]["tags"]


def test_a_threshold_below_what_is_kept_is_refused(celforge: Celforge, folder: Path, models: Path) -> None:
    made = wd(models / "wd")
    assert "0.01" in done(celforge("tag", folder, "--tagger", made, "--threshold", 0.005), 2).stderr
    assert (
        "0.01" in done(celforge("tag", folder, "--tagger", made, "--tag-threshold", "null=0.001"), 2).stderr
    )
    assert "null" in done(celforge("tag", folder, "--tagger", made, "--tag-threshold", "nul=0.5"), 2).stderr


def test_what_a_killed_run_did_is_not_done_again(
    celforge: Celforge, folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, run, seen = wd(models / "wd"), TaggerModel.run, list[int]()

    def breaks(self: TaggerModel, batch: NDArray[Any]) -> Sequence[bytes | Failed]:
        seen.append(len(batch))
        if len(seen) == 3:
            raise DeviceError("the power went")
        return run(self, batch)

    monkeypatch.setattr(TaggerModel, "run", breaks)
    done(celforge("tag", folder, "--tagger", made, "--workers", 1), 1)
    done(celforge("tag", folder, "--tagger", made))
    assert sum(seen) in (4, 5)  # what ran beside the broken batch may not have been kept
    assert len(facts(folder)) == 3


def test_another_model_or_other_pixels_are_worked_out_anew(
    celforge: Celforge, folder: Path, models: Path
) -> None:
    made = wd(models / "wd")
    done(celforge("tag", folder, "--tagger", made))
    swapped = [(name, kind, (channel + 1) % 3) for name, kind, channel in TAGS]
    weights, biases = linear(swapped, is_bgr=True, full=255)
    (made / "model.onnx").write_bytes(tagger_model(weights, biases))
    answer = done(celforge("tag", folder, "--tagger", made))
    assert "3 images are worked on again" in answer.stderr
    assert "red_background" in facts(folder)["green.png"]["tags"]
    for option in ("--fast-decode", "--resampling=area"):
        assert (
            "3 images are worked on again" in done(celforge("tag", folder, "--tagger", made, option)).stderr
        )


def test_weights_in_a_file_of_their_own_belong_to_the_model(
    celforge: Celforge, folder: Path, models: Path
) -> None:
    made = external(models / "external")
    done(celforge("tag", folder, "--tagger", made))
    data = bytearray((made / "weights.data").read_bytes())
    data[3] ^= 0x80
    (made / "weights.data").write_bytes(data)
    assert "worked on again" in done(celforge("tag", folder, "--tagger", made)).stderr
    (made / "weights.data").unlink()
    assert "weights.data, which is not there" in done(celforge("tag", folder, "--tagger", made), 2).stderr


def test_broken_pictures_fail_alone_once_and_are_tried_again(
    celforge: Celforge, folder: Path, models: Path
) -> None:
    whole = (folder / "red.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[:60])
    (folder / "empty.jpg").write_bytes(b"")
    pair = ("--tagger", wd(models / "wd"), "--tagger", cl(models / "cl"))
    answer = done(celforge("tag", folder, *pair, "--json"), 3)
    assert sorted(one["path"] for one in answer.json["failures"]) == ["cut.png", "empty.jpg"]
    assert answer.json["pictures"] == 3
    (folder / "cut.png").write_bytes(saved(Image.new("RGB", (5, 5), RED), "PNG"))
    (folder / "empty.jpg").unlink()
    done(celforge("tag", folder, *pair))
    assert "null" in facts(folder)["cut.png"]["tags"]


def test_a_model_that_gives_no_numbers_fails_that_picture_only(
    celforge: Celforge, folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Session.run

    def spoilt(self: Session, batch: NDArray[Any]) -> list[NDArray[Any]]:
        outputs = run(self, batch)
        outputs[0][batch[:, 0, 0, 2] == 255] = np.nan  # the red one; channels are BGR
        return outputs

    monkeypatch.setattr(Session, "run", spoilt)
    answer = done(celforge("tag", folder, "--tagger", wd(models / "wd"), "--json"), 3)
    assert [(one["path"], one["reason"]) for one in answer.json["failures"]] == [("red.png", "not a number")]


def test_a_folder_without_pictures_says_so(celforge: Celforge, tmp_path: Path, models: Path) -> None:
    (tmp_path / "nothing").mkdir()
    assert (
        "holds no pictures"
        in done(celforge("tag", tmp_path / "nothing", "--tagger", wd(models / "wd")), 2).stderr
    )


def test_a_fixed_batch_is_fed_one_by_one(celforge: Celforge, folder: Path, models: Path) -> None:
    done(celforge("tag", folder, "--tagger", wd(models / "one", batch=1), "--batch-images", 3))
    done(celforge("tag", folder, "--tagger", wd(models / "two", batch=2)))
    assert facts(folder, source="one") == facts(folder, source="two")


def test_the_size_comes_from_the_model(celforge: Celforge, folder: Path, models: Path) -> None:
    done(celforge("tag", folder, "--tagger", wd(models / "small", size=7)))
    assert set(facts(folder)["red.png"]["tags"]) == {"red_background", "null"}


def test_memory_that_runs_out_halves_the_batch_and_loses_nothing(
    celforge: Celforge, folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        Image.new("RGB", (24, 24), (number + 1, 0, 255)).save(folder / f"{number}.png")
    run, sizes = Session.run, list[int]()

    def small_card(self: Session, batch: NDArray[Any]) -> list[NDArray[Any]]:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise DeviceError("failed on cuda: out of memory")
        return run(self, batch)

    monkeypatch.setattr(Session, "run", small_card)
    answer = done(celforge("tag", folder, "--tagger", wd(models / "wd"), "--batch-images", 8))
    assert "going on with batches of 4" in answer.stderr
    assert "going on with batches of 2" in answer.stderr
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2]
    assert len(facts(folder)) == 12


def test_memory_that_runs_out_for_one_picture_ends_the_run(
    celforge: Celforge, folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_card(self: Session, batch: NDArray[Any]) -> list[NDArray[Any]]:
        raise DeviceError("failed on cuda: out of memory", hint="take --device cpu")

    monkeypatch.setattr(Session, "run", no_card)
    answer = done(celforge("tag", folder, "--tagger", wd(models / "wd"), "--batch-images", 2), 1)
    assert "take --device cpu" in answer.stderr


def test_a_device_by_name_that_is_not_there_ends_the_run(
    celforge: Celforge, folder: Path, models: Path
) -> None:
    answer = done(celforge("tag", folder, "--tagger", wd(models / "wd"), "--device", "cuda"), 1)
    assert "--device cuda" in answer.stderr
    assert "try:" in answer.stderr


def test_several_taggers_are_one_source_and_need_no_model_the_second_time(
    celforge: Celforge, folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_tags = [("blue_background", GENERAL, 0), ("null", GENERAL, 0)]  # the first is wrong about blue
    pair = ("--tagger", wd(models / "wd"), "--tagger", wd(models / "odd", tags=two_tags))
    done(celforge("tag", folder, *pair, "--combine", "max"))
    assert set(facts(folder, source="max(wd,odd)")["red.png"]["tags"]) == {
        "red_background",
        "null",
        "blue_background",
    }
    monkeypatch.setattr(Session, "run", never)
    done(celforge("tag", folder, *pair, "--combine", "vote"))
    assert set(facts(folder, source="vote(wd,odd)")["red.png"]["tags"]) == {"red_background", "null"}


def test_a_persons_tags_stand_above_every_tagger(celforge: Celforge, folder: Path, models: Path) -> None:
    made = wd(models / "wd")
    done(celforge("tag", folder, "--tagger", made))
    done(celforge("tags", folder, "--add", "smile", "--search", "null"))
    answer = done(celforge("tag", folder, "--tagger", made, "--threshold", 0.4, "--json"))
    assert answer.json["tags_by_hand_kept"] == 1
    assert "smile" in facts(folder, source="hand")["red.png"]["tags"]
    found = celforge("tags", folder, "--search", "smile", "--files", "--json").json
    assert found == {"files": ["red.png"]}


def test_pictures_are_read_as_everywhere(celforge: Celforge, tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(folder / "clear.png")  # transparent: white
    Image.new("RGB", (20, 20), (255, 255, 255)).save(folder / "white.png")
    wide = Image.new("RGB", (40, 20), (255, 0, 0))
    (folder / "turned.jpg").write_bytes(jpeg_with_exif(wide, exif(6)))
    done(celforge("tag", folder, "--tagger", wd(models / "wd"), "--threshold", 0.5))
    found = facts(folder)
    assert found["clear.png"] == found["white.png"]
    assert len(found["white.png"]["tags"]) == 6
    assert found["turned.jpg"]["tags"]["null"] == FULL


def test_a_model_and_labels_that_do_not_belong_together_are_named(
    celforge: Celforge, folder: Path, models: Path
) -> None:
    made = wd(models / "wd")
    write(made, {"selected_tags.csv": csv_text(TAGS[:-1])})
    assert "gives 12 values" in done(celforge("tag", folder, "--tagger", made), 2).stderr


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('base = "wdd"\n', 'did you mean "wd"?'),
        ('base = "wd"\nchanels = "RGB"\n', 'did you mean "channels"?'),
        ('base = "wd"\nlayout = "HWC"\n', "cannot be 'HWC'"),
        ('base = "wd"\nlayout = "NCHW"\n', "not NCHW with 3 channels"),
        ('base = "wd"\noutput = "prediction"\n', "only output"),
        ('base = "wd"\nmodel = "other.onnx"\n', "holds no other.onnx"),
        ('fit = "pad"\n', 'lacks "model"'),
        ('base = "wd"\nmean = [1, 2]\n', '"mean"'),
        ('base = "wd"\nthresholds = { mood = 1 }\n', 'unknown category "mood"'),
        ("base = \n", "cannot be read"),
    ],
)
def test_a_tagger_toml_that_is_wrong_is_named(
    celforge: Celforge, folder: Path, models: Path, toml: str, said: str
) -> None:
    made = write(wd(models / "wd"), {"tagger.toml": toml})
    assert said in done(celforge("tag", folder, "--tagger", made), 2).stderr


def test_an_unknown_tagger_gets_the_nearest_name(celforge: Celforge, folder: Path, models: Path) -> None:
    answer = done(celforge("tag", folder, "--tagger", "wd-vit-tager-v3"), 2)
    assert 'did you mean "wd-vit-tagger-v3"?' in answer.stderr
    models.mkdir()
    assert "holds no model.onnx" in done(celforge("tag", folder, "--tagger", models), 2).stderr


def test_a_tagger_of_the_hub_is_used_from_disk_and_its_model_not_even_looked_at_when_all_is_done(
    celforge: Celforge, folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, asked = wd(models / "wd"), list[str]()

    def cached(file: hub.HubFile, revision: str | None) -> Path:
        asked.append(file.path)
        return made / file.path

    def pinned(file: hub.HubFile, ledger: hub.Ledger) -> str:
        return ledger.sha256(made / file.path)

    monkeypatch.setattr(hub, "_cached", cached)
    monkeypatch.setattr(hub, "known_sha256", pinned)
    monkeypatch.setattr("pipeline.tagging.model.known_sha256", pinned)
    done(celforge("tag", folder))
    assert asked == ["selected_tags.csv", "model.onnx"]
    assert set(facts(folder, source="wd-swinv2-tagger-v3")) == {"red.png", "green.png", "blue.png"}
    asked.clear()
    done(celforge("tag", folder, "--threshold", 0.9))
    assert asked == ["selected_tags.csv"]


def test_every_entry_of_taggers_toml_is_pinned_and_whole() -> None:
    entries = read_entries(ENTRIES_PATH)
    assert len(entries) >= 14
    for entry in entries.values():
        needed = {
            entry.model,
            entry.labels,
            entry.categories_file,
            entry.thresholds_file,
            entry.preprocess_file,
        }
        assert needed - {None} == set(entry.files), entry.name
        assert entry.recipe is not None or entry.preprocess_file, entry.name
        assert entry.revision is not None and len(entry.revision) == 40, entry.name
        assert all(pin.sha256 is not None and len(pin.sha256) == 64 for pin in entry.files.values()), (
            entry.name
        )


def test_the_table_of_taggers_in_the_page_is_not_stale() -> None:
    page = (ENTRIES_PATH.parents[1] / "docs" / "tag.md").read_text(encoding="utf-8")
    for entry in read_entries(ENTRIES_PATH).values():
        threshold = "per tag" if entry.thresholds_file else f"{entry.thresholds['general']:g}"
        licence = entry.licence + (", gated" if entry.is_gated else "")
        assert f"| `{entry.name}` | {entry.repo} | {threshold} | {licence} |" in page


class Counted:
    """Work of which one knows what was prepared before each batch."""

    batch_items = 4

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def prepare(self, item: int) -> NDArray[Any]:
        if item == 5:
            raise SettingsError("five")
        return np.array([item])

    def run(self, batch: NDArray[Any]) -> Sequence[int | Failed]:
        self.batches.append(batch[:, 0].tolist())
        return [int(value) * 2 for value in batch[:, 0]]


def test_batches_are_full_but_the_last_and_each_result_finds_its_item() -> None:
    work = Counted()
    results = dict(run_in_batches(work, range(11), 3))
    failed = results.pop(5)
    assert isinstance(failed, Failed)
    assert failed.detail == "five"
    assert results == {item: item * 2 for item in range(11) if item != 5}
    assert [len(batch) for batch in work.batches] == [4, 4, 2]


def test_no_batch_begins_after_a_stop() -> None:
    work, finished = Counted(), list[int]()
    for item, _ in run_in_batches(work, range(1000, 2000), 2, should_stop=lambda: bool(finished)):
        finished.append(item)
    assert 0 < len(finished) < 60
