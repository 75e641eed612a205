import base64
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import SidecarError
from pipeline.sidecars import Sidecar, find_sidecars, read_sidecar
from tests.conftest import Celforge


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "anime" / "EP01_12.png"
    path.parent.mkdir()
    Image.new("RGB", (8, 8)).save(path)
    return path


def read(path: Path, picture: Path, content: Any) -> Sidecar | None:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    assert path in find_sidecars(picture)
    return read_sidecar(path, picture)


def test_waifuc_metadata_is_read(picture: Path) -> None:
    record = {
        "path": "C:\\anime\\EP01.mkv",
        "filename": "EP01_12.png",
        "video_file": "/mnt/d/EP01.mkv",
        "time": 12.25,
        "index": 294,
        "tags": {"1girl": 0.98, "solo": 0.5},
        "crop": {"type": "person", "score": 0.75},
        "group_id": "x",
    }
    sidecar = read(picture.with_name(".EP01_12_meta.json"), picture, record)
    assert sidecar is not None
    assert sidecar.tool == "waifuc"
    assert sidecar.facts == {
        "origin": {"name": "EP01.mkv"},
        "source": {"video": "EP01.mkv", "time_s": 12.25, "index": 294},
        "tags": {"1girl": 0.98, "solo": 0.5},
        "crop": {"type": "person", "score": 0.75},
    }
    assert sidecar.ignored == {"filename": "no equal here", "group_id": "no equal here"}


def test_todays_pipeline_metadata_is_read(picture: Path) -> None:
    record = {
        "current_path": "/data/EP01_12.png",
        "characters": ["Aoba", "Hifumi"],
        "processed_tags": ["smile", "blue hair"],
        "dropped_character_tags": ["twintails"],
        "caption": " Aoba, smile ",
        "type": "screenshots",
        "rating": "general",
        "copyright": ["new_game"],
        "artist": "nobody",
        "score": 7,
    }
    sidecar = read(picture.with_name(".EP01_12_meta.json"), picture, record)
    assert sidecar is not None
    assert sidecar.tool == "anime_screenshot_pipeline"
    assert sidecar.facts == {
        "characters": ["Aoba", "Hifumi"],
        "processed_tags": ["smile", "blue hair"],
        "dropped_character_tags": ["twintails"],
        "caption": "Aoba, smile",
        "image_type": "screenshots",
        "rating": "general",
        "copyright": ["new_game"],
        "artist": ["nobody"],
        "score": 7.0,
    }


def test_the_first_versions_metadata_is_read(picture: Path) -> None:
    record = {
        "n_faces": 1,
        "facepos": [[0.1, 0.2, 0.3, 1.04]],
        "fh_ratio": 0.25,
        "cropped": False,
        "general": "New Game",
        "tags": ["1girl", "solo", "1girl"],
        "n_people": "many",
        "character": ["Aoba", "unknown", "ood"],
    }
    sidecar = read(picture.with_name("EP01_12.json"), picture, record)
    assert sidecar is not None
    assert sidecar.facts == {
        "faces": {"num_faces": 1, "boxes": [[0.1, 0.2, 0.3, 1.0]], "height_ratio": 0.25},
        "is_cropped": False,
        "description": "New Game",
        "tags": {"1girl": None, "solo": None},
        "num_people": 6,
        "characters": ["Aoba"],
    }


@pytest.mark.parametrize(
    ("suffix", "text", "facts"),
    [
        ("EP01_12.tags", "1girl, smile,, solo\n", {"tags": {"1girl": None, "smile": None, "solo": None}}),
        ("EP01_12.png.tags", "1girl, smile", {"tags": {"1girl": None, "smile": None}}),
        ("EP01_12.processed_tags", "smile", {"processed_tags": ["smile"]}),
        ("EP01_12.characters", "Aoba,Hifumi", {"characters": ["Aoba", "Hifumi"]}),
        (
            "EP01_12.png.txt",
            "character: aoba, hifumi\ngeneral: 1girl, smile\nrating: safe\nscore: -3\n",
            {
                "characters": ["aoba", "hifumi"],
                "tags": {"1girl": None, "smile": None},
                "rating": "safe",
                "score": -3.0,
            },
        ),
    ],
)
def test_lists_and_grabber_texts_are_read(
    picture: Path, suffix: str, text: str, facts: dict[str, Any]
) -> None:
    sidecar = read(picture.with_name(suffix), picture, text)
    assert sidecar is not None
    assert sidecar.facts == facts


@pytest.mark.parametrize("text", ["1girl, smile", "general: smile\nand a sentence", "Aoba: a girl", ""])
def test_a_caption_is_not_metadata(picture: Path, text: str) -> None:
    assert read(picture.with_name("EP01_12.txt"), picture, text) is None


def test_a_pickled_value_is_never_run(picture: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "exploded",)

    pickled = {"__type": "builtins.object", "base64": base64.b64encode(pickle.dumps(Bomb())).decode()}
    record = {"tags": {"deep": [{"er": pickled}]}, "characters": pickled, "rating": "general"}
    sidecar = read(picture.with_name(".EP01_12_meta.json"), picture, record)
    assert sidecar is not None
    assert sidecar.facts == {"rating": "general"}
    assert sidecar.ignored == dict.fromkeys(("tags", "characters"), "a pickled value, never read")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tags", 3),
        ("tags", {"1girl": 7}),
        ("tags", {"1girl": "x"}),
        ("characters", [1]),
        ("facepos", [[1, 2, 3]]),
        ("time", -1),
        ("time", True),
        ("n_people", "lots"),
        ("index", 1.5),
        ("caption", ["a"]),
    ],
)
def test_a_value_that_makes_no_sense_is_passed_over_and_the_rest_read(
    picture: Path, name: str, value: Any
) -> None:
    sidecar = read(picture.with_name(".EP01_12_meta.json"), picture, {name: value, "rating": "general"})
    assert sidecar is not None
    assert sidecar.facts == {"rating": "general"}
    assert sidecar.ignored[name].startswith("not understood")


@pytest.mark.parametrize("text", ["{", "[]", '"text"', "[" * 100_000, '{"time": NaN'])
def test_a_broken_file_is_one_clear_error(picture: Path, text: str) -> None:
    with pytest.raises(SidecarError, match=r"EP01_12_meta\.json"):
        read(picture.with_name(".EP01_12_meta.json"), picture, text)


def test_a_file_in_another_encoding_is_one_clear_error(picture: Path) -> None:
    path = picture.with_name("EP01_12.json")
    path.write_bytes('{"general": "é"}'.encode("latin-1"))
    with pytest.raises(SidecarError, match="not UTF-8"):
        read_sidecar(path, picture)


def test_the_sidecar_of_a_namesake_is_left_to_it(picture: Path) -> None:
    twin = picture.with_suffix(".jpg")
    Image.new("RGB", (8, 8)).save(twin)
    record = {"filename": "EP01_12.jpg", "rating": "general"}
    path = picture.with_name(".EP01_12_meta.json")
    assert read(path, picture, record) is None
    assert read_sidecar(path, twin) is not None


def test_sidecars_become_facts_and_broken_ones_are_named(celforge: Celforge, picture: Path) -> None:
    picture.with_name(".EP01_12_meta.json").write_text('{"characters": ["Aoba"], "tags": {"1girl": 0.9}}')
    picture.with_name("EP01_12.characters").write_text("Hifumi")
    picture.with_name("EP01_12.json").write_text("{")
    answer = celforge("catalog", "sidecars", picture.parent, "--json")
    assert answer.exit_code == 3
    assert answer.json["sidecars"] == {"anime_screenshot_pipeline": 1, "waifuc": 1}
    assert [failure["reason"] for failure in answer.json["failures"]] == ["sidecar not understood"]
    exported = celforge("catalog", "export", picture.parent, "--no-history").stdout
    assert '{"by_hand":false,"name":"characters","source":"waifuc","value":["Aoba"]}' in exported
    assert '"source":"anime_screenshot_pipeline","value":["Hifumi"]' in exported
    again = celforge("catalog", "sidecars", picture.parent)
    assert again.exit_code == 3
    assert celforge("catalog", "export", picture.parent, "--no-history").stdout == exported
