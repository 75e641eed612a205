"""Folders of small pictures whose facts stand in the catalogue, as `tag` and `identify` leave them."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.catalog import Catalog
from tests.conftest import Celforge

OLD_S = 1_600_000_000


def draw(path: Path, number: int) -> str:
    """A small picture like no other number's; returns its content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (number % 256, number // 256, 7)).save(path, "PNG")
    os.utime(path, (OLD_S + number, OLD_S + number))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def described(
    celforge: Celforge, root: Path, pictures: Mapping[str, Mapping[str, Any]], *, source: str = "tagger"
) -> dict[str, str]:
    """Draw pictures by relative path and note their facts; returns their contents."""
    contents = {name: draw(root / name, number) for number, name in enumerate(pictures)}
    assert celforge("ingest", root, "--decode", "header").exit_code == 0
    with Catalog.open(root / ".celforge" / "catalog.sqlite3") as catalog:
        run = catalog.start_run("tag", "", {}, "test")
        for name, facts in pictures.items():
            media_id = catalog.media_id(contents[name])
            assert media_id is not None
            for fact, value in facts.items():
                catalog.set_fact(media_id, fact, value, source, run_id=run)
    return contents


def fact(root: Path, content: str, name: str) -> Any:
    """The word that counts about a content."""
    with Catalog.open(root / ".celforge" / "catalog.sqlite3", read_only=True) as catalog:
        media_id = catalog.media_id(content)
        assert media_id is not None
        return catalog.fact(media_id, name)


def captions(root: Path) -> dict[str, str]:
    """Every caption file below a folder, by relative path."""
    paths = sorted(path for path in root.rglob("*") if path.suffix in (".txt", ".caption"))
    return {path.relative_to(root).as_posix(): path.read_bytes().decode() for path in paths}
