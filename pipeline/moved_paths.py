"""Keep the catalogue's paths in step with what a journal did, so that moved and linked files are not hashed
again.

It only saves time: where it is not sure (another size or mtime than the source had), the file is left to be
hashed.
"""

from pathlib import Path

from pipeline.catalog import Catalog, below, join, split
from pipeline.content_steps import PlaceStep
from pipeline.folder_steps import MoveFilesStep, MoveFoldersStep, PlaceFolderStep
from pipeline.media_names import kind_of
from pipeline.records import Journal, Steps
from pipeline.steps import MoveStep


def follow(catalog: Catalog, root: Path, journal: Journal) -> None:
    """Note where the files of a finished journal lie now."""
    if catalog.rows("SELECT 1 FROM paths LIMIT 1").fetchone() is None:
        return
    known: dict[str, set[str]] = {}  # folder -> names that the catalogue knows there
    with catalog.transaction():
        for step in Steps(journal):
            if isinstance(step, MoveStep) and step.what == "folder":
                _note_folder(catalog, step)
            elif isinstance(step, MoveFoldersStep):
                for move in step.moves():
                    _note_folder(catalog, move)
            elif isinstance(step, MoveStep):
                _note(catalog, root, step.source, step.destination, is_moved=True, is_hidden=step.is_drop)
            elif isinstance(step, PlaceStep):
                _note(catalog, root, step.source, step.destination, is_moved=False, is_hidden=False)
            elif isinstance(step, MoveFilesStep):
                for name in _known_names(catalog, step.source).intersection(step.names):
                    ends = join(step.source, name), join(step.destination, name)
                    _note(catalog, root, *ends, is_moved=True, is_hidden=False)
            elif isinstance(step, PlaceFolderStep):
                for origin, name in _known_files(catalog, step, known):
                    ends = origin, join(step.destination, name)
                    _note(catalog, root, *ends, is_moved=False, is_hidden=False)


def _note_folder(catalog: Catalog, step: MoveStep) -> None:
    """A moved folder takes its files along, with their sizes and times: two statements for all of them."""
    condition, parameters = below(step.source)
    there = f"NOT is_gone AND {condition}"
    if step.is_drop or Path(step.destination).is_absolute():
        catalog.rows(f"UPDATE paths SET is_gone = 1 WHERE {there}", parameters)
        return
    values = parameters | {"to": step.destination, "from": len(step.source) + 1}
    media = f"SELECT media_id FROM paths WHERE {there}"
    catalog.rows(f"DELETE FROM paths WHERE is_gone AND media_id IN ({media})", parameters)
    moved = "UPDATE OR REPLACE paths SET folder = :to || substr(folder, :from)"
    catalog.rows(f"{moved} WHERE {there}", values)


def _known_names(catalog: Catalog, folder: str) -> set[str]:
    sql = "SELECT name FROM paths WHERE folder = ? AND NOT is_gone"
    return {row[0] for row in catalog.rows(sql, (folder,))}


def _known_files(
    catalog: Catalog, step: PlaceFolderStep, known: dict[str, set[str]]
) -> list[tuple[str, str]]:
    """(path, name in the new folder) of the files that the catalogue knows."""
    found = []
    for origin, name in step.pairs():
        path = origin if step.source == "." else join(step.source, origin)
        folder, file = split(path)
        if folder not in known:
            known[folder] = _known_names(catalog, folder)
        if file in known[folder]:
            found.append((path, name))
    return found


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
