"""Whether a disk can make the links that a plan asks for, seen before anything of the plan is touched.

FAT and exFAT have no links, some network disks no hard ones; Windows lets few accounts make symbolic ones.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.content_steps import PlaceStep
from pipeline.errors import InputError
from pipeline.files import partial_path, place, unlink
from pipeline.folder_steps import PlaceFolderStep
from pipeline.steps import Step


def link_problems(steps: Iterable[Step], root: Path, folder: Path) -> list[str]:
    """Make one link of each kind in `folder`, take it away again, and say what could not be made.

    Args:
        folder: of our own, whose temporary files are cleared after a kill. Links that go to another disk than
            it lies on are not tried.
    """
    problems: dict[str, str] = {}
    tried: set[str] = set()
    for step in steps:
        if not isinstance(step, PlaceStep | PlaceFolderStep) or step.or_copy or step.how in tried:
            continue
        source = root / step.source
        if isinstance(step, PlaceFolderStep):
            source /= next((origin for origin, _ in step.pairs()), "")
        if step.how == "copy" or not source.is_file() or not _is_one_disk(root / step.destination, folder):
            continue
        tried.add(step.how)
        trial = partial_path(folder / "trial")
        try:
            place(source, trial, step.how, relative_link=True, sync=False)
        except InputError as error:
            problems[step.how] = (
                f"{error.message.replace(str(trial), str(root / step.destination))}: {error.hint}"
            )
        finally:
            with suppress(FileNotFoundError):
                unlink(trial)
    return list(problems.values())


def _is_one_disk(destination: Path, folder: Path) -> bool:
    above = next(path for path in destination.parents if path.exists())
    return os.stat(above).st_dev == os.stat(folder).st_dev
