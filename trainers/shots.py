"""Which pictures come from one shot of a video: near copies of each other, often of one held picture.

A model is not measured fairly on one of them when it has learned another.

`celforge extract` remembers the shot of each frame in the catalogue, by content. Where there is no catalogue
the names that it gives to frames say the second.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.catalog import Catalog
from pipeline.known_facts import counting_facts
from pipeline.project import find_project
from trainers.dataset import Example

_TIME = re.compile(r"(\d{2,}-\d{2}-\d{2})\.\d{3}(?!\d)")  # as pipeline.frame_files.time_text writes it
SOURCE = "source"  # the fact of a frame


def shots_of(root: Path, examples: Iterable[Example]) -> dict[str, str]:
    """{content: name of its shot, or of its second where no shot is known}, of frames alone.

    Raises:
        CatalogError: the catalogue is damaged, or made by a newer celforge.
    """
    found = {one.content: name for one in examples if (name := _by_name(one)) is not None}
    project = find_project(root)
    with Catalog.open(project.catalog_path, read_only=True) as catalog:
        contents = {catalog.media_id(one.content): one.content for one in examples}
        contents.pop(None, None)
        ids = [one for one in contents if one is not None]
        for media_id, facts in counting_facts(catalog, [SOURCE], ids):
            name = _by_fact(facts[SOURCE].value) if SOURCE in facts else None
            if name is not None:
                found[contents[media_id]] = name
    return found


def _by_fact(value: Any) -> str | None:
    if not isinstance(value, Mapping) or not isinstance(value.get("time_s"), int | float):
        return None
    video = value.get("video_sha256") or value.get("video")
    if value.get("shot"):
        return f"{video} shot {value['shot']}"
    return f"{video} second {int(value['time_s'])}"


def _by_name(example: Example) -> str | None:
    match = _TIME.search(example.name)
    return f"{example.name[: match.start()]}{match[1]}" if match else None
