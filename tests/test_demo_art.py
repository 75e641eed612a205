"""The drawings and episodes of the demonstration: what they say of themselves is what they show."""

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import av
import backgrounds
import characters
import numpy as np
import pytest
from characters import CAST, Look, Scene, random_scene, tags_of
from drawing import draw_scene
from episodes import SIZE, truth
from storyboard import storyboard

EPISODES = Path(__file__).parents[1] / "examples" / "demo" / "episodes"
LOOK = Look("green hair", "bob cut", "red eyes", "maid")
LISTS = {
    "hair_color": characters.HAIR_COLORS,
    "hair_shape": characters.HAIR_SHAPES,
    "eye_color": characters.EYE_COLORS,
    "outfit": characters.OUTFITS,
    "accessory": characters.ACCESSORIES,
    "expression": characters.EXPRESSIONS,
    "pose": characters.POSES,
    "framing": characters.FRAMINGS,
    "background": characters.BACKGROUNDS,
}


def with_value(field: str, value: str) -> Scene:
    """A scene that differs in one choice: cowboy shots for poses, for only there all are seen."""
    scene = Scene(LOOK, framing="cowboy shot" if field == "pose" else "upper body")
    if field in Look.__dataclass_fields__:
        return replace(scene, look=replace(LOOK, **{field: value}))
    return replace(scene, **{field: value})  # type: ignore[arg-type]


def pixels(scene: Scene) -> np.ndarray[Any, Any]:
    return np.asarray(draw_scene(scene, 64)).astype(int)


@pytest.mark.parametrize("field", LISTS)
def test_every_choice_looks_unlike_the_others_at_64_pixels(field: str) -> None:
    drawn = [pixels(with_value(field, value)) for value in LISTS[field]]
    for (a, one), (b, other) in combinations(enumerate(drawn), 2):
        seen = (np.abs(one - other).max(axis=2) > 40).sum()
        assert seen >= 8, f"{LISTS[field][a]} and {LISTS[field][b]} differ in {seen} pixels"


def test_the_same_scene_gives_the_same_bytes_whatever_was_drawn_before() -> None:
    scenes = [random_scene(np.random.default_rng(seed)) for seed in range(12)]
    first = [draw_scene(scene, 64).tobytes() for scene in scenes]
    backgrounds._painting.cache_clear()
    again = [draw_scene(scene, 64).tobytes() for scene in reversed(scenes)]
    assert first == again[::-1]
    assert len(set(first)) == len(scenes)


@pytest.mark.parametrize("size", [64, 96, 360])
def test_a_drawing_is_square_and_in_colour(size: int) -> None:
    image = draw_scene(random_scene(np.random.default_rng(3)), size)
    assert (image.size, image.mode) == ((size, size), "RGB")


def test_random_scenes_reach_every_value_and_none_of_the_cast() -> None:
    rng = np.random.default_rng(11)
    scenes = [random_scene(rng) for _ in range(3000)]
    assert not {scene.look.signature for scene in scenes} & {look.signature for look in CAST.values()}
    for field, values in LISTS.items():
        found = {
            getattr(scene.look if field in Look.__dataclass_fields__ else scene, field) for scene in scenes
        }
        assert found == set(values)
    assert scenes[:50] == [random_scene(again) for again in [np.random.default_rng(11)] for _ in range(50)]


def test_the_cast_share_no_part_of_their_signatures() -> None:
    for part in zip(*(look.signature for look in CAST.values()), strict=True):
        assert len(set(part)) == len(CAST)


def test_tags_say_what_the_scene_shows_and_no_more() -> None:
    rng = np.random.default_rng(5)
    for scene in (random_scene(rng) for _ in range(500)):
        tags = tags_of(scene)
        assert tags[:2] == ("1girl", "solo")
        counts = {field: sum(tag in values for tag in tags) for field, values in LISTS.items()}
        assert len(tags) == 2 + sum(counts.values()) == len(set(tags))
        assert all(
            counts[field] == 1 for field in ("hair_color", "hair_shape", "outfit", "framing", "background")
        )
        assert counts["accessory"] == (scene.look.accessory != "none")
        assert counts["eye_color"] == (scene.expression != "closed eyes")
        assert counts["expression"] == (scene.framing != "full body")
        if scene.framing == "close-up":
            assert not counts["pose"]


# ---- the episodes ---------------------------------------------------------------------------------------


def committed(number: int) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((EPISODES / f"episode_{number:02d}.json").read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("number", [1, 2])
def test_the_committed_truth_is_the_storyboards(number: int) -> None:
    assert committed(number) == json.loads(json.dumps(truth(number, storyboard(number))))


@pytest.mark.parametrize("number", [1, 2])
def test_shots_and_holds_follow_each_other_without_gaps(number: int) -> None:
    facts = committed(number)
    assert 40 <= facts["frames"] / facts["fps"] <= 60
    assert facts["shots"][0]["start"] == 0
    assert facts["shots"][-1]["end"] == facts["frames"]
    for before, after in pairwise(facts["shots"]):
        assert before["end"] == after["start"]
    for shot in facts["shots"]:
        edges = [hold["start"] for hold in shot["holds"]] + [shot["end"]]
        assert edges[1:] == [hold["end"] for hold in shot["holds"]]
        assert edges[0] == shot["start"]


def test_each_of_the_cast_is_alone_in_many_drawings_and_together_with_others() -> None:
    alone, together = Counter[str](), Counter[str]()
    for number in (1, 2):
        for shot in committed(number)["shots"]:
            names = shot["characters"]
            alone.update({names[0]: len(shot["drawings"])} if len(names) == 1 else {})
            together.update(names if len(names) > 1 else [])
    assert min(alone[name] for name in CAST) >= 30
    assert min(together[name] for name in CAST) >= 3


def test_nobody_sits_where_only_the_upper_body_is_seen() -> None:
    drawings = [
        drawing for number in (1, 2) for shot in committed(number)["shots"] for drawing in shot["drawings"]
    ]
    sitting = [who["tags"] for drawing in drawings for who in drawing if "sitting" in who["tags"]]
    assert sitting
    assert all({"cowboy shot", "full body"} & set(tags) for tags in sitting)


def test_the_opening_is_the_same_in_both() -> None:
    openings = [
        [shot for shot in committed(number)["shots"] if shot["kind"] == "opening"] for number in (1, 2)
    ]
    assert openings[0] == openings[1]
    assert len(openings[0]) > 5


def _grey(frame: av.VideoFrame) -> np.ndarray[Any, Any]:
    """Brightness of every fourth pixel of every fourth row."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: SIZE[1] : 4, : SIZE[0] : 4].astype(np.int16)


@pytest.mark.parametrize("number", [1, 2])
def test_the_video_shows_the_cuts_and_holds_of_the_truth(number: int) -> None:
    facts = committed(number)
    path = EPISODES / facts["video"]
    assert path.stat().st_size < 4_000_000
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (*SIZE, facts["fps"])
        grey = [_grey(frame) for frame in container.decode(stream)]
    assert len(grey) == facts["frames"]
    change = np.array([0.0, *(np.abs(b - a).mean() for a, b in pairwise(grey))])
    assert change[facts["cuts"]].min() > 4
    faded = {frame for fade in facts["fades"] for frame in range(fade["start"], fade["end"] + 1)}
    still = [
        frame
        for shot in facts["shots"]
        if shot["camera"] == "still" and shot["kind"] != "credits"
        for hold in shot["holds"]
        for frame in range(hold["start"] + 1, hold["end"])
        if frame not in faded
    ]
    assert change[still].max() < 1
