"""What the catalogue knows of extracted episodes: their names, their frames, and the pictures in them."""

import base64
import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pipeline.catalog import Catalog, MediaFile
from pipeline.names import path_key, safe_name

STEP = "extract.frames"
SOURCE = "extract"  # of the facts here
EXTRACTED = "extracted"  # fact of a video: the frames that were put in place, and by which settings
EPISODE = "episode"  # fact of a video: the name of its folder of frames

STAGING_FOLDER = "extract"  # below .celforge: frames that are not in their place yet

_LONGEST_NAME_BYTES = 200


def staging_folder(state_folder: Path, video: MediaFile, key_digest: str) -> Path:
    """Where the frames of a video wait until they are put in their place."""
    return state_folder / STAGING_FOLDER / f"{video.content[:16]}-{key_digest[:8]}"


def remove_folder(folder: Path) -> None:
    """Remove a folder of waiting frames and what is in it, if it is there."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def facts_of_all(catalog: Catalog, name: str) -> Iterator[tuple[int, Any]]:
    """(media id, value) of what extract said under one name."""
    sql = "SELECT media_id, value FROM facts WHERE name = ? AND source = ? ORDER BY media_id"
    for media_id, value in catalog.rows(sql, (name, SOURCE)).fetchall():
        yield media_id, json.loads(value)


class EpisodeNames:
    """Names for the folders of frames: one a video, valid everywhere, the same in every run."""

    def __init__(self, catalog: Catalog) -> None:
        self._of_video = {media_id: str(name) for media_id, name in facts_of_all(catalog, EPISODE)}
        self._taken = {path_key(name) for name in self._of_video.values()}

    def name(self, video: MediaFile) -> str:
        """The stem of the file; its folder, suffix or content is added where another video has that name."""
        if video.id not in self._of_video:
            stem, parent = video.path.stem, video.path.parent.name
            wanted = (
                stem,
                f"{parent}_{stem}",
                f"{stem}_{video.path.suffix[1:]}",
                f"{stem}_{video.content[:8]}",
            )
            names = [safe_name(one, max_bytes=_LONGEST_NAME_BYTES) for one in wanted]
            free = next(name for name in names if path_key(name) not in self._taken)
            self._of_video[video.id] = free
            self._taken.add(path_key(free))
        return self._of_video[video.id]


def kept_signatures(catalog: Catalog, leave_out: Collection[int]) -> Iterator[bytes]:
    """Signatures of the pictures of every extracted episode, compressed together, one item an episode.

    Args:
        leave_out: media ids of videos that are not asked for.
    """
    for media_id, extracted in facts_of_all(catalog, EXTRACTED):
        if media_id in leave_out:
            continue
        sql = """SELECT steps.key, value FROM results JOIN steps ON steps.id = step_id
                 WHERE step = ? AND media_id = ?"""
        for key, value in catalog.rows(sql, (STEP, media_id)).fetchall():
            if hashlib.sha256(key.encode()).hexdigest() == extracted["key"]:
                yield base64.b64decode(json.loads(value)["signatures"])
