"""When a journal's log must be on the disk before the next step."""

from collections.abc import Iterator

from pipeline.folder_steps import MoveFilesStep, MoveFoldersStep, PlaceFolderStep
from pipeline.names import path_key
from pipeline.steps import MoveStep, Step

_OF_FOLDERS = (MoveFilesStep, MoveFoldersStep, PlaceFolderStep)


class Touched:
    """Which paths were touched since the log was last synced.

    Steps that share no path can be told done from undone by looking at the disk, in whatever order a power
    cut left them. A step that meets an earlier one cannot, so the log must be on the disk before it begins.
    """

    def __init__(self) -> None:
        self._changed: set[str] = set()
        self._read: set[str] = set()
        self._above: set[str] = set()  # every folder above a path in those two
        self._moved: set[str] = set()  # both ends of moved, filled and placed folders

    def meets(self, step: Step) -> bool:
        """Whether a step meets an earlier one, which are then forgotten; the step itself is remembered."""
        changed = [_key(stored) for stored in step.paths()]
        read = [_key(stored) for stored in step.reads()]
        keys = [*changed, *read]
        is_folder = step.what == "folder" if isinstance(step, MoveStep) else isinstance(step, _OF_FOLDERS)
        is_met = (
            not self._changed.isdisjoint(keys)
            or not self._read.isdisjoint(changed)
            or (is_folder and not self._above.isdisjoint(changed))
            or (bool(self._moved) and any(map(self._is_moved, keys)))
        )
        if is_met:
            for known in (self._changed, self._read, self._above, self._moved):
                known.clear()
        self._changed.update(changed)
        self._read.update(read)
        if is_folder:
            self._moved.update(keys)
        for key in keys:
            self._remember_above(key)
        return is_met

    def _is_moved(self, key: str) -> bool:
        return not self._moved.isdisjoint(_folders_above(key))

    def _remember_above(self, key: str) -> None:
        for above in _folders_above(key):
            if above in self._above:
                break
            self._above.add(above)


def _key(stored: str) -> str:
    """Paths outside the project are stored as the system writes them; one sync too many does no harm."""
    return path_key(stored).replace("\\", "/")


def _folders_above(key: str) -> Iterator[str]:
    end = key.rfind("/")
    while end > 0:
        yield key[:end]
        end = key.rfind("/", 0, end)
