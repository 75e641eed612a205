"""Cuts found beside those of PySceneDetect's detectors, on videos with their truth beside them.

    python benchmarks/cuts.py VIDEO [VIDEO ...]

VIDEO.json beside each VIDEO holds {"cuts": [first frame of each shot but the first]}. PySceneDetect is not
needed by the project: install `scenedetect[opencv]` to see its rows. Its detectors run with their own
settings, and with shots of 6 frames and of 1 frame allowed (they merge shots of under 15 frames otherwise).
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path


def our_cuts(path: Path) -> set[int]:
    from pipeline.extraction import chosen_frames
    from pipeline.frame_choice import FrameChooser
    from pipeline.video import VideoReader

    chooser = FrameChooser()
    with VideoReader(path) as reader:
        for _ in chosen_frames(reader, chooser):
            pass
    return set(chooser.cuts)


def peer_cuts(path: Path) -> Iterator[tuple[str, set[int]]]:
    import scenedetect

    for name in ("ContentDetector", "AdaptiveDetector", "HashDetector", "HistogramDetector"):
        for settings in ({}, {"min_scene_len": 6}, {"min_scene_len": 1}):
            manager = scenedetect.SceneManager()
            manager.add_detector(getattr(scenedetect, name)(**settings))
            manager.detect_scenes(scenedetect.open_video(str(path)))
            found = {start.frame_num for start, _ in manager.get_scene_list()} - {0}
            yield f"PySceneDetect {scenedetect.__version__} {name} {settings or ''}", found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path, nargs="+")
    print("| video | detector | found | of | false |")
    print("| --- | --- | --- | --- | --- |")
    for path in parser.parse_args().videos:
        truth = set(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["cuts"])
        rows = [("celforge", our_cuts(path))]
        try:
            rows += peer_cuts(path)
        except ImportError:
            print("PySceneDetect is not installed: pip install 'scenedetect[opencv]'")
        for name, found in rows:
            print(f"| {path.name} | {name} | {len(found & truth)} | {len(truth)} | {len(found - truth)} |")


if __name__ == "__main__":
    main()
