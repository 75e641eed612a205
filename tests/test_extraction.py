from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from videos import held, plain, scene, write_video

from pipeline import extraction
from pipeline.extraction import Request, extract_video, pack_signatures, unpack_signatures
from pipeline.frame_choice import FrameChooser
from pipeline.frame_files import encode, time_text
from pipeline.picture_memory import SignatureIndex, signature
from pipeline.video import read_frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "ep.mkv", held(scene(1), scene(2), frames=12))


def test_the_example_of_the_page_runs(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "extract.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0].replace('"ep01.mkv"', repr(str(clip)))
    found: dict[str, object] = {}
    exec(code, found)
    kept = found["kept"]
    assert isinstance(kept, list) and [shot for _, shot, _ in kept] == [1, 2]
    assert all(rgb.dtype == np.uint8 and rgb.shape == (180, 320, 3) for _, _, rgb in kept)


def test_extract_video_writes_what_it_says(clip: Path, tmp_path: Path) -> None:
    told = []
    with ThreadPoolExecutor(2) as pool:
        found = extract_video(clip, tmp_path, Request(format="png"), pool, on_frames=told.append)
    assert sum(told) == found.num_frames == 24
    assert sorted(path.name for path in tmp_path.iterdir()) == [one.file.name for one in found.kept]
    assert len(found.kept) + sum(found.dropped.values()) == 24
    assert found.cuts_s == [0.5]
    frame = next(one for one in read_frames(clip) if one.time_s == found.kept[0].time_s)
    with Image.open(tmp_path / found.kept[0].file.name) as image:
        assert (np.asarray(image) == frame.rgb()).all()


def test_a_stop_breaks_the_pass_off(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(extraction, "TICK_FRAMES", 4)
    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyboardInterrupt):
        extract_video(clip, tmp_path, Request(), pool, check_stop=stop)


def test_every_frame_waits_for_few_others(clip: Path) -> None:
    """Frames belong to the decoder's pool: a long episode must not be held in memory."""
    waiting, most = 0, 0
    frames = read_frames(clip)

    def counted():  # type: ignore[no-untyped-def]
        nonlocal waiting
        for frame in frames:
            waiting += 1
            yield frame

    for _ in extraction.chosen_frames(counted(), FrameChooser()):
        waiting -= 1
        most = max(most, waiting)
    assert most < 20


def test_signatures_come_out_as_they_went_in() -> None:
    one, two = signature(np.asarray(scene(1)[..., 0])), signature(np.asarray(scene(2)[..., 0]))
    assert unpack_signatures(pack_signatures([one, two])) == [one, two]
    assert unpack_signatures(pack_signatures([])) == []
    index = SignatureIndex([one])
    assert index.holds(one) and not index.holds(two)
    assert not SignatureIndex().holds(one)


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(0, "00-00-00.000"), (754.5, "00-12-34.500"), (3599.9996, "01-00-00.000"), (-0.04, "00-00-00.000")],
)
def test_times_as_names(time_s: float, text: str) -> None:
    assert time_text(time_s) == text


@pytest.mark.parametrize("shape", [(180, 320), (101, 77), (1, 1)])
def test_png_and_webp_of_100_are_lossless(shape: tuple[int, int]) -> None:
    import io

    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for name in ("png", "webp"):
        with Image.open(io.BytesIO(encode(pixels, name, 100))) as image:  # type: ignore[arg-type]
            assert (np.asarray(image.convert("RGB")) == pixels).all()


def test_bars_are_found_and_a_dark_picture_is_none(tmp_path: Path) -> None:
    pictures = held(scene(1), scene(2), frames=4)
    for picture in pictures:
        picture[:20] = picture[-24:] = 0
    barred = write_video(tmp_path / "bars.mkv", pictures, options={"g": "2"})
    assert extraction.find_bars(barred, Request()) == (0, 20, 320, 156)
    dark = write_video(tmp_path / "dark.mkv", [plain(3)] * 4)
    assert extraction.find_bars(dark, Request()) is None
    assert extraction.find_bars(write_video(tmp_path / "full.mkv", [scene(1)] * 4), Request()) is None
