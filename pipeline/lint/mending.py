"""What `check --fix` does: renames and rewrites that cannot lose anything, as actions of a plan."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.actions import Action, Move, Place, Write
from pipeline.layouts.captions import SUFFIXES
from pipeline.layouts.everydream import FOLDER_FILES, Folder, Tree
from pipeline.lint.names import hidden_target, stems_of
from pipeline.lint.texts import decode
from pipeline.lint.traps import Finding
from pipeline.names import path_key

REWRITES = ("caption-bom", "control-file-bom", "caption-not-utf8")
_ANY_TEXT = ("batch_id.txt", "shuffle_tags.txt")  # no number: what stands in them is a person's
RENAMES = (
    "suffix-case",
    "control-file-case",
    "hidden-extension",
    "caption-named-after-file",
    "format-not-read",  # of .jfif
)


class Mending:
    """Collects actions for findings; names that are taken, by whatever spelling, are left alone.

    Args:
        fallback: encoding of captions that are not certain; None leaves them alone.
    """

    def __init__(self, tree: Tree, *, fallback: str | None = None) -> None:
        self.actions: list[Action] = []
        self.counts: Counter[str] = Counter()
        self._tree = tree
        self._fallback = fallback
        self._written: set[str] = set()
        self._renamed: dict[tuple[str, ...], dict[str, str]] = {}  # in each folder: name -> its new name
        self._taken: dict[tuple[str, ...], dict[str, str]] = {}

    def add(self, findings: Iterable[Finding]) -> None:
        """Mend what can be: texts first, while they have the names they were read by."""
        found = list(findings)
        for one in found:
            if one.trap in REWRITES:
                self._rewrite(one)
        for one in found:
            if one.trap in RENAMES:
                self._rename(one)

    def copy_captions(self, suffix: str) -> None:
        """Give every picture that has a caption of another suffix a copy with this one; after the renames."""
        for folder in self._tree.folders.values():
            renamed = self._renamed.get(folder.parts, {})
            files = {renamed.get(name, name) for name in folder.files}
            for stem in stems_of(folder):
                other = next((one for one in SUFFIXES if one != suffix and stem + one in files), None)
                if other is None or not self._take(folder, "", stem + suffix):
                    continue
                ends = Path(folder.path, stem + other), Path(folder.path, stem + suffix)
                self.actions.append(Place(*ends, "copy", f"copy of {other}"))
                self.counts["caption-extension"] += 1

    def _rewrite(self, finding: Finding, kind: str = "") -> None:
        folder, name = self._place(finding)
        path = Path(folder.path, name)
        if name in folder.links or finding.path in self._written:
            return
        data = path.read_bytes()
        found = decode(data, self._fallback)
        if found.text is None or found.text.encode() == data:
            return
        trap = finding.trap
        if trap not in REWRITES:
            trap = f"{kind}-bom" if found.is_utf8 or kind == "control-file" else "caption-not-utf8"
        expects = hashlib.sha256(data).hexdigest()
        self.actions.append(Write(path, found.text.encode(), trap, expects))
        self._written.add(finding.path)
        self.counts[trap] += 1

    def _rename(self, finding: Finding) -> None:
        folder, name = self._place(finding)
        target = next(_targets(finding.trap, folder, name), None)
        if target is None or not self._take(folder, name, target):
            return
        self._renamed.setdefault(folder.parts, {})[name] = target
        if target.endswith(SUFFIXES) and target not in _ANY_TEXT:
            kind = "control-file" if target in FOLDER_FILES else "caption"
            self._rewrite(finding, kind)  # what it holds is looked at only under its right name
        self.actions.append(Move(Path(folder.path, name), Path(folder.path, target), finding.trap))
        self.counts[finding.trap] += 1

    def _place(self, finding: Finding) -> tuple[Folder, str]:
        relative, _, name = finding.path.rpartition("/")
        return self._tree.folders[tuple(relative.split("/")) if relative else ()], name

    def _take(self, folder: Folder, name: str, target: str) -> bool:
        """Whether a name is free, or held by the file that is renamed; then it is taken."""
        if folder.parts not in self._taken:
            names = (*folder.files, *folder.folders, *folder.linked_folders, *folder.ignored_folders)
            self._taken[folder.parts] = {path_key(one): one for one in names}
        taken = self._taken[folder.parts]
        if taken.get(path_key(target), name) != name:
            return False
        taken[path_key(target)] = target
        return True


def _targets(trap: str, folder: Folder, name: str) -> Iterator[str]:
    """The name that a file should have, where the trap is one of names."""
    stem, extension = os.path.splitext(name)
    if trap == "suffix-case":
        yield stem + extension.lower()
    elif trap == "control-file-case":
        yield name.lower()
    elif trap == "hidden-extension":
        target = hidden_target(name, set(stems_of(folder)))
        yield from [target] if target else []
    elif trap == "caption-named-after-file":
        yield os.path.splitext(stem)[0] + extension.lower()
    elif trap == "format-not-read" and extension.lower() == ".jfif":
        yield stem + ".jpg"
