"""Keep the catalogue's paths in step with what a journal did, so that moved and linked files are not hashed
again.

It only saves time: where it is not sure (another size or mtime than the source had), the file is left to be
hashed.
"""

from collections.abc import Iterable
from pathlib import Path

from pipeline.catalog import Catalog, below, join, split
from pipeline.content_steps import PlaceStep
from pipeline.media_names import kind_of
from pipeline.records import Journal, Steps
from pipeline.steps import MoveStep


def follow(catalog: Catalog, root: Path, journal: Journal) -> None:
    """Note where the files of a finished journal lie now."""
    with catalog.transaction():
        for step in Steps(journal):
            if isinstance(step, MoveStep):
                for source, destination in _files_moved(catalog, step):
                    _note(catalog, root, source, destination, is_moved=True, is_hidden=step.is_drop)
            elif isinstance(step, PlaceStep):
                _note(catalog, root, step.source, step.destination, is_moved=False, is_hidden=False)


def _files_moved(catalog: Catalog, step: MoveStep) -> Iterable[tuple[str, str]]:
    if step.what != "folder":
        return [(step.source, step.destination)]
    condition, parameters = below(step.source)
    rows = catalog.rows(f"SELECT folder, name FROM paths WHERE NOT is_gone AND {condition}", parameters)
    sources = [join(folder, name) for folder, name in rows]
    return [(source, step.destination + source[len(step.source) :]) for source in sources]


def _note(
    catalog: Catalog, root: Path, source: str, destination: str, *, is_moved: bool, is_hidden: bool
) -> None:
    sql = "SELECT media_id, size_bytes, mtime_ns FROM paths WHERE folder = ? AND name = ? AND NOT is_gone"
    row = catalog.rows(sql, split(source)).fetchone()
    if row is None:
        return
    if is_moved:
        catalog.rows("UPDATE paths SET is_gone = 1 WHERE folder = ? AND name = ?", split(source))
    if is_hidden or kind_of(destination) is None or Path(destination).is_absolute():
        return
    try:
        found = (root / destination).stat()
    except OSError:
        return
    if (found.st_size, found.st_mtime_ns) == row[1:]:
        catalog.rows("DELETE FROM paths WHERE media_id = ? AND is_gone", (row[0],))
        catalog.rows("INSERT OR REPLACE INTO paths VALUES (?, ?, ?, ?, ?, 0)", (*split(destination), *row))
