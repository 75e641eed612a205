"""The way back from an output beside the tree: what a person did in it is brought to the tree.

Files that were added go beside the pictures of their folder, edited ones take the place of the tree's own
(which is kept in `.celforge/dropped/`), unless that was edited too. Caches that trainers left stay behind.
Then the output is moved to `.celforge/dropped/`.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.actions import Drop, FileAction, Move
from pipeline.flattening.back import Back
from pipeline.flattening.manifest import NAME, TOML_NAME, FlatFolder, Manifest, stamp
from pipeline.flattening.survey import some
from pipeline.made_folders import MARK
from pipeline.project import STATE_FOLDER

_CACHES = (".npz", ".safetensors")
_CACHE_NAMES = frozenset({"metadata_cache.json"})


@dataclass(slots=True)
class _Found:
    """Paths in the output, by what happened to them."""

    added: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    both: list[str] = field(default_factory=list)
    caches: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)


def plan_back_beside(root: Path, output: Path, manifest: Manifest) -> Back:
    """The actions that bring changes of an output to its tree, and take the output away."""
    back, found = Back(), _Found()
    taken: set[Path] = set()
    known = {one.name for one in manifest.folders} | {NAME, TOML_NAME, MARK, STATE_FOLDER}
    found.strangers = [str(output / name) for name in sorted(os.listdir(output)) if name not in known]
    for flat in manifest.folders:
        if (output / flat.name).is_dir():
            back.actions += _brought(root, output, flat, found, taken)
        elif flat.names:
            found.deleted.append(str(output / flat.name))
    back.actions.append(Drop(output, "the tree has what was new in it"))
    back.changes = {"added": len(found.added), "edited": len(found.edited), "deleted": len(found.deleted)}
    back.notes = list(_notes(found))
    return back


def _brought(root: Path, output: Path, flat: FlatFolder, found: _Found, taken: set[Path]) -> list[FileAction]:
    actions: list[FileAction] = []
    old = flat.old()
    folder = output / flat.name
    names = sorted(os.listdir(folder))
    found.deleted += [str(folder / name) for name in sorted(old.keys() - set(names))]
    for name in names:
        now = stamp(f"{folder}{os.sep}{name}")
        if name in old and now == old[name]:
            continue
        path, home = folder / name, root / flat.folder / name
        if name not in old and (name.endswith(_CACHES) or name in _CACHE_NAMES):
            found.caches.append(str(path))
            continue
        own = stamp(home)
        if now == own:
            continue
        if home in taken or (own is not None and own != old.get(name)):
            found.both.append(str(path))
            continue
        taken.add(home)
        if own is not None:
            actions.append(Drop(home, "edited in the output"))
        (found.edited if name in old else found.added).append(str(path))
        actions.append(Move(path, home, "edited" if name in old else "added", as_is=True))
    return actions


def _notes(found: _Found) -> list[str]:
    lines = {
        "added to the output, and brought to the tree": found.added,
        "edited in the output, and brought to the tree": found.edited,
        "deleted in the output; the tree keeps them": found.deleted,
        "changed in the output and in the tree; the tree's own stay": found.both,
        "caches of trainers, left in .celforge/dropped/ with the output": found.caches,
        "not made by flatten, left in .celforge/dropped/ with the output": found.strangers,
    }
    return [f"{what}: {some(names)}" for what, names in lines.items() if names]
