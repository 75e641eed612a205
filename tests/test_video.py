from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from videos import HEIGHT, WIDTH, held, luma_of, plain, scene, write_video

from pipeline.video import VideoFrame, VideoReader, read_frames, square_size
from pipeline.video_headers import UnreadableVideoError


def frames_of(path: Path, **options: object) -> list[VideoFrame]:
    return list(read_frames(path, **options))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of 8 frames, a key frame at each."""
    pictures = held(scene(1), scene(2), scene(3), frames=8)
    return write_video(
        tmp_path_factory.mktemp("clip") / "clip.mkv", pictures, options={"g": "8", "crf": "14"}
    )


def cell_means(luma: NDArray[np.float64], cell_px: int) -> NDArray[np.float64]:
    """Means over square cells, by numpy alone."""
    height, width = (length // cell_px * cell_px for length in luma.shape)
    return np.asarray(
        luma[:height, :width].reshape(height // cell_px, cell_px, width // cell_px, cell_px).mean((1, 3))
    )


@pytest.mark.parametrize(
    ("codec", "pixel_format", "full_range"),
    [
        ("libx264", "yuv420p", False),
        ("libx264", "yuv420p", True),
        ("libx264", "yuv420p10le", False),
        ("libx265", "yuv420p10le", False),
        ("libx265", "yuv420p12le", False),
        ("ffv1", "yuv420p16le", False),
        ("ffv1", "bgr0", False),
    ],
)
def test_grid_is_the_mean_luma_of_each_cell_in_full_range(
    tmp_path: Path, codec: str, pixel_format: str, full_range: bool
) -> None:
    picture = scene(5, 640, 360)
    path = write_video(
        tmp_path / "one.mkv", [picture] * 3, codec=codec, pixel_format=pixel_format, full_range=full_range
    )
    grid = frames_of(path)[1].luma_grid(80)
    wanted = cell_means(luma_of(picture), 8)
    assert grid.dtype == np.uint8 and grid.shape == wanted.shape == (45, 80)
    # half of the lines of a cell are read, so edges may stand a few levels off; the mean must not
    assert np.abs(grid - wanted).mean() < 1.2
    assert abs(float(grid.mean()) - wanted.mean()) < 0.7


@pytest.mark.parametrize("width", [160, 320, 640, 960, 1280, 1600, 1920, 2560, 3840])
@pytest.mark.parametrize("level", [0, 255])
def test_grid_of_black_and_white_is_0_and_255_at_any_size(tmp_path: Path, width: int, level: int) -> None:
    path = write_video(tmp_path / "one.mkv", [plain(level, width, width * 9 // 16 // 2 * 2)])
    grid = frames_of(path)[0].luma_grid()
    assert (grid.min(), grid.max()) == (level, level)
    assert grid.shape[1] <= 400


def test_luma_grid_of_1080_lines_is_320_by_180(tmp_path: Path) -> None:
    picture = scene(6, 1920, 1080)
    frame = frames_of(write_video(tmp_path / "one.mkv", [picture]))[0]
    wanted = cell_means(luma_of(picture), 6)
    assert frame.luma_grid().shape == (180, 320)
    assert np.abs(frame.luma_grid() - wanted).mean() < 0.8


def test_sharpness_falls_when_a_picture_is_blurred(tmp_path: Path) -> None:
    import cv2

    sharp = scene(7)
    blurred = np.asarray(cv2.GaussianBlur(sharp, (0, 0), 2), np.uint8)
    for pixel_format in ("yuv420p", "yuv420p10le"):
        first, second = frames_of(
            write_video(tmp_path / "b.mkv", [sharp, blurred], pixel_format=pixel_format)
        )
        assert 0 < second.sharpness() < first.sharpness() < 60


@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv420p10le", "yuv444p10le"])
@pytest.mark.parametrize("full_range", [False, True])
def test_rgb_is_what_was_encoded(tmp_path: Path, pixel_format: str, full_range: bool) -> None:
    if full_range and pixel_format.endswith("10le"):
        pytest.skip("the encoder's side of the test would lose the range")
    picture = scene(8)
    frame = frames_of(
        write_video(tmp_path / "one.mkv", [picture], pixel_format=pixel_format, full_range=full_range)
    )[0]
    assert np.abs(frame.rgb().astype(int) - picture).mean() < 2.5


def test_times_are_those_of_the_file_also_at_a_variable_rate(tmp_path: Path) -> None:
    times_s = [0.0, 0.1, 0.5, 0.9, 1.0, 3.25]
    path = write_video(tmp_path / "vfr.mkv", held(scene(1), frames=6), times_s=times_s)
    assert [frame.time_s for frame in read_frames(path)] == pytest.approx(times_s, abs=1e-3)


def test_times_count_from_the_start_of_a_stream_that_does_not_begin_at_0(tmp_path: Path) -> None:
    path = write_video(tmp_path / "late.ts", held(scene(1), frames=6))
    assert [frame.time_s for frame in read_frames(path)] == pytest.approx(
        [i / 24 for i in range(6)], abs=1e-3
    )


def test_keyframes_alone_are_the_frames_marked_as_such(clip: Path) -> None:
    whole = frames_of(clip)
    alone = frames_of(clip, only_keyframes=True)
    assert [frame.time_s for frame in alone] == [frame.time_s for frame in whole if frame.is_key]
    assert len(alone) == 3


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_frames_are_the_same_by_any_number_of_threads(clip: Path, threads: int) -> None:
    one = [frame.luma_grid().tobytes() for frame in read_frames(clip, threads=1)]
    assert [frame.luma_grid().tobytes() for frame in read_frames(clip, threads=threads)] == one


# Interlaced


def combed(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two moments woven line by line, as an interlaced camera does."""
    woven = first.copy()
    woven[1::2] = second[1::2]
    return woven


@pytest.fixture(scope="module")
def interlaced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bar that moves, woven of two moments: marked as interlaced, and not marked."""
    pictures = []
    for step in range(8):
        early, late = plain(40), plain(40)
        early[:, 20 + 30 * step : 40 + 30 * step] = 220
        late[:, 35 + 30 * step : 55 + 30 * step] = 220
        pictures.append(combed(early, late))
    folder = tmp_path_factory.mktemp("interlaced")
    marked = {"x264-params": "interlaced=1:tff=1", "crf": "10"}
    return (
        write_video(folder / "marked.mkv", pictures, options=marked),
        write_video(folder / "unmarked.mkv", pictures, options={"crf": "10"}),
    )


def combing(frame: VideoFrame) -> float:
    """How much odd lines differ from the mean of their neighbours."""
    luma = frame.luma_levels().astype(float)
    return float(np.abs(luma[1:-1:2] - (luma[:-2:2] + luma[2::2]) / 2).mean())


def test_marked_interlaced_frames_are_deinterlaced_unless_told_off(interlaced: tuple[Path, Path]) -> None:
    marked, _ = interlaced
    left, mended = frames_of(marked, deinterlace="off"), frames_of(marked)
    assert len(mended) == len(left) == 8
    assert [frame.time_s for frame in mended] == pytest.approx([frame.time_s for frame in left])
    assert combing(mended[4]) < 0.3 * combing(left[4])
    with VideoReader(marked) as reader:
        list(reader)
        assert reader.is_interlaced


def test_unmarked_interlaced_frames_are_deinterlaced_on_request(interlaced: tuple[Path, Path]) -> None:
    _, unmarked = interlaced
    assert combing(frames_of(unmarked, deinterlace="on")[4]) < 0.3 * combing(frames_of(unmarked)[4])
    with VideoReader(unmarked) as reader:
        list(reader)
        assert not reader.is_interlaced


# Anamorphic, streams


@pytest.mark.parametrize(
    ("aspect", "size"),
    [(Fraction(4, 3), (427, 180)), (Fraction(8, 9), (320, 202)), (Fraction(1), (320, 180))],
)
def test_anamorphic_pixels_are_made_square(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    picture = plain(20)
    picture[60:120, 110:210] = 230
    frame = frames_of(write_video(tmp_path / "wide.mkv", [picture], aspect=aspect))[0]
    rgb = frame.rgb()
    assert rgb.shape == (size[1], size[0], 3)
    bright = np.argwhere(rgb[..., 0] > 128)
    height, width = np.ptp(bright, axis=0) + 1
    assert width / height == pytest.approx(100 / 60 * aspect, rel=0.05)


def test_square_size_grows_the_short_measure() -> None:
    assert square_size(720, 480, Fraction(32, 27)) == (853, 480)
    assert square_size(720, 480, Fraction(8, 9)) == (720, 540)
    assert square_size(720, 480, Fraction(0)) == (720, 480)


def test_a_second_stream_is_read_when_asked_for(tmp_path: Path) -> None:
    path = write_video(tmp_path / "two.mkv", [scene(1)] * 3, second=[plain(200)] * 3)
    first, second = frames_of(path)[0].luma_grid(), frames_of(path, stream=1)[0].luma_grid()
    assert first.std() > 20 > 1 > second.std()
    with pytest.raises(UnreadableVideoError, match="has 2 video streams") as caught:
        VideoReader(path, stream=2)
    assert "from 0 to 1" in caught.value.hint


def test_a_cover_picture_is_no_stream(tmp_path: Path) -> None:
    path = write_video(tmp_path / "cover.mp4", [scene(1)] * 3, cover=True)
    with VideoReader(path) as reader:
        assert reader.info.num_streams == 1
        assert [frame.luma().shape for frame in reader] == [(HEIGHT, WIDTH)] * 3
    with pytest.raises(UnreadableVideoError):
        VideoReader(path, stream=1)


# Damage


@pytest.mark.parametrize("name", ["half.mkv", "half.ts", "half.avi"])
def test_a_truncated_file_gives_what_decodes_and_says_so(tmp_path: Path, name: str) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    whole = write_video(tmp_path / name, held(scene(1), scene(2), scene(3), scene(4), frames=24), codec=codec)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with VideoReader(whole) as reader:
        num_frames = sum(1 for _ in reader)
        assert 10 < num_frames < 90
        if name != "half.ts":  # a transport stream does not say how long it is
            assert reader.problems


def test_damage_in_the_middle_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "torn.ts", held(*[scene(seed) for seed in range(6)], frames=12), options={"g": "12"}
    )
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 6000] = np.random.default_rng(0).integers(0, 256, 6000, np.uint8).tobytes()
    path.write_bytes(data)
    with VideoReader(path) as reader:
        times_s = [frame.time_s for frame in reader]
        assert {problem.reason for problem in reader.problems} == {"corrupt"}
    assert times_s[-1] > 2.8


@pytest.mark.parametrize(
    ("content", "reason", "is_damaged"),
    [
        (b"", "empty file", False),
        (b"plain words, not a film\n" * 50, "not a video", False),
        (b"\x1aE\xdf\xa3" + bytes(400), "damaged, or cut off", True),
        (b"\x00\x00\x00\x20ftypisom" + bytes(400), "damaged, or cut off", True),
    ],
)
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes, reason: str, is_damaged: bool) -> None:
    path = tmp_path / "x.mkv"
    path.write_bytes(content)
    with pytest.raises(UnreadableVideoError) as caught:
        frames_of(path)
    assert (caught.value.reason, caught.value.is_damaged) == (reason, is_damaged)


def test_a_file_with_only_sound_is_named(tmp_path: Path) -> None:
    import av

    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        from videos import add_silence

        add_silence(container, container.add_stream("aac", rate=48000, layout="mono"), 0.5)
    with pytest.raises(UnreadableVideoError) as caught:
        VideoReader(path)
    assert (caught.value.reason, caught.value.is_damaged) == ("only sound", False)


def test_sound_that_is_longer_than_the_picture_is_no_damage(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mkv", held(scene(1), frames=24), sound_s=5)
    with VideoReader(path) as reader:
        list(reader)
        assert reader.problems == []
