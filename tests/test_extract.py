import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from videos import HEIGHT, WIDTH, held, plain, scene, title_page, with_mouth, write_sound, write_video

from pipeline.content_steps import file_sha256
from tests.conftest import Celforge

OLD_NS = 1_600_000_000_123_456_789


def frames(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every frame in place."""
    root = folder / "frames"
    return {
        path.relative_to(root).as_posix(): file_sha256(path) for path in root.rglob("*") if path.is_file()
    }


def age(folder: Path) -> None:
    for path in folder.rglob("*.*"):
        if path.is_file():
            os.utime(path, ns=(OLD_NS, OLD_NS))


@pytest.fixture(scope="session")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A, black, title, A again, B with three mouths: 8 frames each; a key frame at each."""
    pictures = held(
        scene(1), plain(0), title_page(), scene(1), *[with_mouth(scene(2), n) for n in (0, 1, 3)], frames=8
    )
    path = write_video(
        tmp_path_factory.mktemp("master") / "ep01.mkv", pictures, options={"g": "8", "crf": "14"}
    )
    age(path.parent)
    return path


@pytest.fixture
def folder(tmp_path: Path, master: Path) -> Path:
    made = tmp_path / "anime"
    (made / "videos").mkdir(parents=True)
    os.link(master, made / "videos" / master.name)
    return made


def test_extract_puts_each_picture_in_the_folder_of_its_episode(celforge: Celforge, folder: Path) -> None:
    answer = celforge("extract", folder, "--json")
    assert answer.exit_code == 0, answer.stderr
    found = frames(folder)
    assert len(found) == answer.json["frames_kept"] == 6  # A, black, title, three mouths
    assert all(name.startswith("ep01/ep01_00-00-0") and name.endswith(".jpg") for name in found)
    assert answer.json["frames_decoded"] == 56
    with Image.open(folder / "frames" / sorted(found)[0]) as image:
        assert image.size == (WIDTH, HEIGHT)


def test_facts_say_where_a_frame_comes_from(celforge: Celforge, folder: Path) -> None:
    celforge("extract", folder)
    exported = folder / "facts.jsonl"
    celforge("catalog", "export", folder, "-o", exported)
    lines = [json.loads(line) for line in exported.read_text(encoding="utf-8").splitlines()]
    facts = [fact for line in lines for fact in line.get("media", {}).get("facts", [])]
    sources = [fact["value"] for fact in facts if fact["name"] == "source"]
    assert len(sources) == 6
    for source in sources:
        assert source["video"] == "videos/ep01.mkv" and source["episode"] == "ep01"
        assert source["reason"] and source["shot"] >= 1 and 0 <= source["time_s"] < 56 / 24


def count(celforge: Celforge, folder: Path, *options: object) -> int:
    answer = celforge("extract", folder, *options)
    assert answer.exit_code == 0, answer.stderr
    return len(frames(folder))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--keyframes"], 6),
        (["--every", "0.3333333"], 6),
        (["--every", "0.3333333", "--repeats"], 7),
        (["--scenes", "1"], 5),
        (["--max-per-shot", "1"], 4),
        (["--skip", "black"], 5),
        (["--skip", "title"], 5),
        (["--skip", "black", "--skip", "title"], 4),
        (["--repeats"], 7),
        (["--min-hold-s", "0.5", "--motion-interval-s", "30"], 4),
    ],
)
def test_every_option_has_its_effect(
    celforge: Celforge, folder: Path, options: list[str], wanted: int
) -> None:
    assert count(celforge, folder, *options) == wanted


@pytest.mark.parametrize("kind", ["flash", "fade"])
def test_skip_leaves_out_a_shot_that_is_nothing_but_a_flash_or_a_fade(
    celforge: Celforge, tmp_path: Path, kind: str
) -> None:
    only = {"flash": held(plain(255), frames=4), "fade": fade_out(scene(2), frames=9)}[kind]
    pictures = [*held(scene(1), frames=24), *only, *held(scene(3), frames=24)]
    write_video(tmp_path / "ep.mkv", pictures)
    assert count(celforge, tmp_path) == 3
    answer = celforge("extract", tmp_path, "--skip", kind, "--json")
    assert answer.exit_code == 0 and answer.json["dropped_as"][kind] >= 1
    times_s = sorted(float(name[-10:-4]) for name in frames(tmp_path))
    assert len(times_s) == 2 and times_s[0] < 1 and times_s[1] >= 1 + len(only) / 24 - 0.001


def fade_out(picture: NDArray[np.uint8], frames: int) -> list[NDArray[np.uint8]]:
    shares = [1 - number / (frames + 1) for number in range(1, frames + 1)]
    return [np.rint(picture * share).astype(np.uint8) for share in shares]


def test_change_levels_say_how_small_a_change_is_another_picture(celforge: Celforge, tmp_path: Path) -> None:
    brighter = np.clip(scene(1).astype(int) + 6, 0, 255).astype(np.uint8)
    write_video(tmp_path / "ep.mkv", held(scene(1), brighter, frames=12))
    assert count(celforge, tmp_path) == 2
    assert count(celforge, tmp_path, "--change-levels", "20") == 1


@pytest.mark.parametrize(("format", "pillow"), [("png", "PNG"), ("webp", "WEBP"), ("jpg", "JPEG")])
def test_format_is_that_of_the_files(celforge: Celforge, folder: Path, format: str, pillow: str) -> None:
    assert count(celforge, folder, "--format", format) == 6
    for name in frames(folder):
        with Image.open(folder / "frames" / name) as image:
            assert image.format == pillow
            image.load()


def test_quality_makes_files_smaller_and_is_refused_for_png(celforge: Celforge, folder: Path) -> None:
    def size() -> int:
        return sum((folder / "frames" / name).stat().st_size for name in frames(folder))

    celforge("extract", folder, "--quality", "95")
    fine = size()
    celforge("extract", folder, "--quality", "30")
    assert size() < 0.7 * fine
    answer = celforge("extract", folder, "--format", "png", "--quality", "30")
    assert "quality" in answer.stderr


def test_modes_exclude_each_other(celforge: Celforge, folder: Path) -> None:
    answer = celforge("extract", folder, "--keyframes", "--every", "1")
    assert answer.exit_code == 2 and "exclude each other" in answer.stderr


@pytest.mark.parametrize("workers", [1, 3])
def test_frames_are_the_same_by_any_number_of_workers(
    celforge: Celforge, folder: Path, workers: int, tmp_path: Path
) -> None:
    celforge("extract", folder, "--workers", 2)
    other = tmp_path / "other" / "videos"
    other.mkdir(parents=True)
    os.link(folder / "videos" / "ep01.mkv", other / "ep01.mkv")
    celforge("extract", other.parent, "--workers", workers)
    assert frames(other.parent) == frames(folder)


def test_again_does_nothing_twice_and_with_again_everything(celforge: Celforge, folder: Path) -> None:
    celforge("extract", folder)
    before = frames(folder)
    second = celforge("extract", folder, "--json").json
    assert second["frames_in_place"] == 6 and frames(folder) == before
    third = celforge("extract", folder, "--again", "--json").json
    assert third["frames_kept"] == 6 and frames(folder) == before


def test_undo_takes_the_frames_away(celforge: Celforge, folder: Path) -> None:
    celforge("extract", folder)
    assert celforge("undo", folder).exit_code == 0
    assert frames(folder) == {}
    assert count(celforge, folder) == 6


def test_dry_run_puts_nothing_in_place(celforge: Celforge, folder: Path) -> None:
    answer = celforge("extract", folder, "--dry-run")
    assert answer.exit_code == 0 and not (folder / "frames").exists()
    assert count(celforge, folder) == 6


def test_frames_that_were_moved_are_left_where_they_are(celforge: Celforge, folder: Path) -> None:
    celforge("extract", folder)
    name = sorted(frames(folder))[0]
    (folder / "sorted").mkdir()
    (folder / "frames" / name).rename(folder / "sorted" / "mine.jpg")
    celforge("extract", folder)
    assert (folder / "sorted" / "mine.jpg").is_file() and len(frames(folder)) == 5


def test_a_shared_opening_is_kept_once_also_when_an_episode_comes_later(
    celforge: Celforge, folder: Path
) -> None:
    celforge("extract", folder)
    before = frames(folder)
    write_video(folder / "videos" / "ep02.mkv", held(scene(1), scene(7), frames=12))
    answer = celforge("extract", folder, "--json")
    assert answer.json["dropped_as"]["kept in another episode"] == 1
    found = frames(folder)
    assert {name: found[name] for name in before} == before
    assert len(found) == 7


def test_a_picture_of_several_episodes_is_kept_in_the_first_also_beside_a_copy(
    celforge: Celforge, tmp_path: Path
) -> None:
    first = write_video(tmp_path / "ep1.mkv", held(scene(1), scene(2), frames=12))
    write_video(tmp_path / "ep2.mkv", held(scene(1), scene(3), frames=12))
    os.link(first, tmp_path / "ep3.mkv")
    celforge("extract", tmp_path)
    assert sorted(name.split("/")[0] for name in frames(tmp_path)) == ["ep1", "ep1", "ep2"]


def test_names_stay_unique_and_valid_on_windows(celforge: Celforge, tmp_path: Path) -> None:
    names = ["s1/ep.mkv", "s2/ep.MKV", "s2/EP.mp4", "猫 第1話.mkv", "CON.mkv", "dots...mkv", "a/b/c/deep.TS"]
    for seed, name in enumerate(names):
        write_video(
            tmp_path / name,
            held(scene(20 + seed), frames=8),
            container_format=None if seed != 1 else "matroska",
        )
    answer = celforge("extract", tmp_path, "--json")
    assert answer.exit_code == 0, answer.stderr
    folders = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert len(folders) == len({name.casefold() for name in folders}) == len(names)
    assert "猫 第1話" in folders
    assert not any(name.endswith((".", " ")) or name.upper() == "CON" for name in folders)


def test_what_is_no_video_is_named_and_what_is_damaged_gives_what_decodes(
    celforge: Celforge, folder: Path
) -> None:
    videos = folder / "videos"
    (videos / "empty.mkv").touch()
    (videos / "words.mp4").write_text("not a film")
    (videos / "folder.mkv").mkdir()
    whole = write_video(videos / "half.mkv", held(*[scene(seed) for seed in range(30, 36)], frames=16))
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    answer = celforge("extract", folder, "--json")
    assert answer.exit_code == 3
    assert [one["path"] for one in answer.json["failures"]] == ["videos/half.mkv"]
    assert "empty.mkv: empty file; skipped" in answer.stderr
    assert "words.mp4: not a video; skipped" in answer.stderr
    found = frames(folder)
    assert sum(name.startswith("half/") for name in found) >= 2
    assert sum(name.startswith("ep01/") for name in found) == 6


def test_a_file_of_only_sound_is_named_and_skipped(celforge: Celforge, tmp_path: Path) -> None:
    write_video(tmp_path / "ep.mkv", held(scene(1), frames=8))
    write_sound(tmp_path / "theme.mp4")
    write_sound(tmp_path / "voices.MKV")
    answer = celforge("extract", tmp_path, "--json")
    assert answer.exit_code == 0 and answer.json["failures"] == []
    for name in ("theme.mp4", "voices.MKV"):
        assert f"{name}: only sound; skipped" in answer.stderr
    assert len(frames(tmp_path)) == 1


def test_crop_bars_cuts_black_bars_off(celforge: Celforge, tmp_path: Path) -> None:
    pictures = held(scene(1), scene(2), frames=8)
    for picture in pictures:
        picture[:22] = picture[-22:] = 0
    write_video(tmp_path / "wide.mkv", pictures, options={"g": "4"})
    celforge("extract", tmp_path, "--crop-bars")
    for name in frames(tmp_path):
        with Image.open(tmp_path / "frames" / name) as image:
            assert image.size == (WIDTH, HEIGHT - 44)


def test_video_stream_chooses_the_stream(celforge: Celforge, tmp_path: Path) -> None:
    write_video(tmp_path / "two.mkv", held(scene(1), frames=8), second=held(scene(2), scene(3), frames=4))
    assert count(celforge, tmp_path, "--min-hold-s", "0.1") == 1
    assert count(celforge, tmp_path, "--min-hold-s", "0.1", "--video-stream", "1") == 2


def test_deinterlace_off_leaves_the_lines_as_they_are(celforge: Celforge, tmp_path: Path) -> None:
    picture = scene(1)
    picture[1::2] = scene(1)[1::2, ::-1]
    options = {"x264-params": "interlaced=1:tff=1"}
    write_video(tmp_path / "i.mkv", [picture] * 8, options=options)
    celforge("extract", tmp_path)
    mended = frames(tmp_path)
    celforge("extract", tmp_path, "--deinterlace", "off")
    assert set(frames(tmp_path).values()) != set(mended.values())


def test_killed_in_the_middle_and_run_again_ends_as_if_never_killed(
    celforge: Celforge, folder: Path, tmp_path: Path
) -> None:
    for seed in (40, 41):
        write_video(
            folder / "videos" / f"more{seed}.mkv", held(*[scene(seed * 10 + n) for n in range(6)], frames=12)
        )
    whole = tmp_path / "whole"
    (whole / "videos").mkdir(parents=True)
    for path in (folder / "videos").iterdir():
        os.link(path, whole / "videos" / path.name)
    celforge("extract", whole)
    code = "import sys; from pipeline.cli import cli, run; sys.exit(int(run(cli, sys.argv[1:])))"
    for wait_s in (0.5, 0.9):
        child = subprocess.Popen(
            [sys.executable, "-c", code, "extract", str(folder), "--workers", "1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            child.wait(wait_s)
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
    answer = celforge("extract", folder)
    assert answer.exit_code == 0, answer.stderr
    assert frames(folder) == frames(whole)
    staged = folder / ".celforge" / "extract"
    assert not staged.is_dir() or list(staged.iterdir()) == []
