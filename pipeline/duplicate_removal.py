"""What is done with pictures that are there twice: which of them stays, and what goes with the others."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.companions import Companions
from pipeline.contact_sheet import Cell, Group, write_sheet
from pipeline.duplicates import ALIKE, Found, has_overlay, is_part, reason
from pipeline.errors import SettingsError
from pipeline.files import format_bytes
from pipeline.plan import Action, Drop, SetFact, SetOutcome
from pipeline.star_groups import Member

if TYPE_CHECKING:
    from pipeline.catalog import MediaFile
    from pipeline.comparing import Comparer
    from pipeline.job import Job
    from pipeline.picture_quality import Quality

STAGE = "dedupe"
DUPLICATE_OF = "duplicate_of"  # fact of a dropped content: {"content": the one that stayed, "tier"}
TIERS = ("bytes", "pixels", "near", "model")
SAME_BYTES, SAME_PIXELS, KNOWN = "identical bytes", "identical pixels", "copy of one dropped before"
BEST = "best of its group"
_NAMED = 5  # lost captions named in the warning


@dataclass(slots=True)
class Removal:
    """Collects what is dropped, in the order it is found.

    Args:
        protected: absolute folders in which nothing is dropped.
    """

    job: "Job"
    protected: Sequence[Path]
    actions: list[Action] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    place_of: dict[int, int] = field(default_factory=dict)  # of each content, in natural order
    num_groups: int = 0
    num_companions: int = 0
    _paths: dict[int, "list[MediaFile]"] = field(
        default_factory=dict
    )  # of each content, those that stay so far
    _companions: Companions = field(default_factory=Companions)
    _dropped: set[Path] = field(default_factory=set)
    _lost_captions: list[str] = field(default_factory=list)
    _sheet: "list[tuple[float, Group]]" = field(default_factory=list)
    _files: "Sequence[MediaFile]" = ()
    _comparer: "Comparer | None" = None

    def is_protected(self, file: "MediaFile") -> bool:
        """Whether one of the paths of a content lies in a protected folder."""
        return any(self._is_in_protected(one.path) for one in self._paths.get(file.id, [file]))

    def _is_in_protected(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in self.protected)

    # Identical bytes

    def take_copies(self, pictures: "Sequence[MediaFile]") -> "list[MediaFile]":
        """Take all copies of a content but one; hard links and links are no copies. Returns one file each."""
        of_content: dict[int, list[MediaFile]] = {}
        for file in pictures:
            of_content.setdefault(file.id, []).append(file)
        kept: list[MediaFile] = []
        for files in of_content.values():
            first = files[0] if len(files) == 1 else min(files, key=self._copy_order)
            stays = [first]
            own = _inode(first.path)
            for file in files:
                if file is first:
                    continue
                if self._is_in_protected(file.path) or _inode(file.path) == own:
                    stays.append(file)
                else:
                    self._drop(file, SAME_BYTES, first)
            self._paths[first.id] = stays
            self.place_of[first.id] = len(kept)
            kept.append(first)
        return kept

    def _copy_order(self, file: "MediaFile") -> tuple[bool, bool]:
        return not self._is_in_protected(file.path), not self._has_own_caption(file)

    def take_known(self, contents: "Sequence[MediaFile]", most_tier: int) -> "list[MediaFile]":
        """Take what was dropped before and is here again, where the one that stayed then is still here."""
        sql = """SELECT content, value FROM facts JOIN media ON media.id = facts.media_id
                 JOIN outcomes ON outcomes.media_id = facts.media_id
                 WHERE name = ? AND source = ? AND stage = ? AND outcome = 'dropped'"""
        rows = self.job.catalog.rows(sql, (DUPLICATE_OF, STAGE, STAGE))
        stayed = {content: json.loads(value) for content, value in rows}
        here = {file.content: file for file in contents}
        left = []
        for file in contents:
            keeper = self._keeper(file.content, stayed, here, most_tier)
            if keeper is None or self.is_protected(file):
                left.append(file)
                continue
            value = stayed[file.content]
            self._drop_content(file, KNOWN, keeper, str(value["tier"]))
        return left

    def _keeper(
        self, content: str, stayed: Mapping[str, Any], here: "Mapping[str, MediaFile]", most_tier: int
    ) -> "MediaFile | None":
        seen = {content}
        while content in stayed and TIERS.index(stayed[content]["tier"]) <= most_tier:
            content = stayed[content]["content"]
            if content in here and content not in stayed:
                return here[content]
            if content in seen:
                return None
            seen.add(content)
        return None

    # Groups

    def look(self, files: "Sequence[MediaFile]", comparer: "Comparer") -> None:
        """Take note of the set that groups speak of by places."""
        self._files, self._comparer = files, comparer

    def take_groups(
        self, groups: Mapping[int, Sequence[Member[Found]]], qualities: "Mapping[int, Quality]"
    ) -> set[int]:
        """Take all of each group but the best, and but what is protected; returns the places that go."""
        taken: set[int] = set()
        for first in sorted(groups, key=lambda place: self.place_of[self._files[place].id]):
            taken |= self._take_group(first, groups[first], qualities)
        return taken

    def _take_group(
        self, first: int, group: Sequence[Member[Found]], qualities: "Mapping[int, Quality]"
    ) -> set[int]:
        places = [first, *(one.picture for one in group)]
        places = [place for place in places if self._files[place].id in qualities]
        if len(places) < 2:
            return set()
        marked, cut = has_overlay(group, first), is_part(group, first)

        of_group = [qualities[self._files[place].id] for place in places]
        largest_px = max(one.resolved_px for one in of_group)
        sharpest = max(one.sharpness for one in of_group if one.resolved_px >= 0.85 * largest_px)

        def worth(place: int) -> tuple[Any, ...]:
            file = self._files[place]
            return (
                self.is_protected(file),
                any(self._has_own_caption(one) for one in self._paths[file.id]),
                place not in marked,
                place not in cut,
                qualities[file.id].rank(largest_px, sharpest),
                -self.place_of[file.id],
            )

        best = max(places, key=worth)
        found = {one.picture: one.found for one in group}
        goes = [
            place
            for place in places
            if place != best
            and not self.is_protected(self._files[place])
            and self._is_one_picture(best, place, found)
        ]
        if not goes:
            return set()
        kept = self._files[best]
        words = {}
        for place in goes:
            one = found[place] if place in found else found[best]
            words[place], tier = self._word(one, qualities[self._files[place].id], qualities[kept.id])
            self._drop_content(self._files[place], words[place], kept, tier)
        self.actions.append(SetOutcome(kept.content, STAGE, "kept", BEST))
        self.num_groups += 1
        self._note_group([place for place in places if place not in goes], words, best, group)
        return set(goes)

    def _is_one_picture(self, best: int, place: int, found: Mapping[int, Found]) -> bool:
        """Whether a picture is the same as the best itself, not only as the one that began the group.

        That may be a copy so soft, or so bright, that another mouth is lost in it.
        """
        assert self._comparer is not None
        ways = [found[one] for one in (best, place) if one in found]
        if any(one.cosine is not None for one in ways):
            return True
        is_mirrored = sum(one.is_mirrored for one in ways) == 1
        return self._comparer.compare(best, place, is_mirrored=is_mirrored).is_same

    def _word(self, found: Found, mine: "Quality", kept: "Quality") -> tuple[str, str]:
        """The reason for dropping a picture, and its tier."""
        if mine.pixels_sha256 == kept.pixels_sha256:
            return SAME_PIXELS, "pixels"
        word = reason(found)
        return word, "model" if word == ALIKE else "near"

    # Dropping

    def _drop_content(self, file: "MediaFile", word: str, kept: "MediaFile", tier: str) -> None:
        for one in self._paths[file.id]:
            self._drop(one, word, kept)
        self.actions.append(SetOutcome(file.content, STAGE, "dropped", word, kept.relative))
        value = {"content": kept.content, "tier": tier}
        self.actions.append(SetFact(file.content, DUPLICATE_OF, value, STAGE))

    def _drop(self, file: "MediaFile", word: str, kept: "MediaFile") -> None:
        """Drop one file, and what belongs to it unless another picture of its name still needs that."""
        self.actions.append(Drop(file.path, word, f"for {kept.relative}"))
        self._dropped.add(file.path)
        self.reasons[word] += 1
        self._note_caption(file, kept)
        if all(one in self._dropped for one in self._companions.namesakes(file.path)):
            for path in self._companions.of(file.path):
                if path not in self._dropped:
                    self._dropped.add(path)
                    self.num_companions += 1
                    self.actions.append(Drop(path, "belongs to a picture that is dropped", file.relative))

    def _own_caption(self, file: "MediaFile") -> bytes | None:
        """The caption beside a picture, where it is not one that we wrote."""
        path = self._companions.caption(file.path)
        if path is None:
            return None
        text = path.read_bytes()
        sha256 = hashlib.sha256(text).hexdigest()
        subjects = (file.content, self.job.project.relative(path))
        return None if any(self.job.catalog.is_ours(one, sha256) for one in subjects) else text.strip()

    def _has_own_caption(self, file: "MediaFile") -> bool:
        return bool(self._own_caption(file))

    def _note_caption(self, file: "MediaFile", kept: "MediaFile") -> None:
        text = self._own_caption(file)
        if text and text != self._own_caption(kept):
            self._lost_captions.append(file.relative)

    # Telling

    def _note_group(
        self, stay: Sequence[int], words: Mapping[int, str], best: int, group: Sequence[Member[Found]]
    ) -> None:
        assert self._comparer is not None
        excess = max((one.found.comparison.excess for one in group), default=0.0)
        cells = []
        for place in (best, *(one for one in stay if one != best), *words):
            file, signature = self._files[place], self._comparer.entries[place].signature
            note = f"{signature.width_px} × {signature.height_px}, {format_bytes(file.size_bytes)}"  # noqa: RUF001
            if file.relative in self._lost_captions:
                note += "; has a caption of its own"
            word = words.get(place, "kept" if place == best else "kept, protected")
            cells.append(Cell(file.relative, signature.thumb, word, note, place not in words))
        title = f"{self._files[best].relative}: {len(words):,} dropped"
        self._sheet.append((excess, Group(title, cells)))

    def write_sheets(self, path: Path | None) -> list[Path]:
        """The contact sheet, where asked for or something is dropped; the most doubtful groups first."""
        if path is None and (self.job.is_dry_run or not self._sheet):
            return []
        if path is None:
            path = self.job.root / "report" / f"{STAGE}-{self.job.run_id:06d}.html"
        dropped = sum(len(group.cells) for _, group in self._sheet)
        summary = (
            f"{len(self._sheet):,} groups, {dropped:,} pictures; those that differ most come first. "
            "Green stays; red goes to .celforge/dropped/. To bring it back: celforge undo"
        )
        ordered = [group for _, group in sorted(self._sheet, key=lambda one: -one[0])]
        return write_sheet(path, f"Near-duplicates in {self.job.folder.name}", summary, ordered)

    def warn(self) -> None:
        """Say which captions written by hand go while the kept pictures have none, or others."""
        if self._lost_captions:
            names = ", ".join(self._lost_captions[:_NAMED])
            more = ", ..." if len(self._lost_captions) > _NAMED else ""
            self.job.warn(
                f"dropped with a caption that the picture kept does not have: {len(self._lost_captions):,} "
                f"({names}{more}); the captions lie beside them in .celforge/dropped/"
            )

    def summary(self, num_pictures: int) -> dict[str, Any]:
        """Counts for the report."""
        return {
            "pictures": num_pictures,
            "groups": self.num_groups,
            "dropped_files": dict(self.reasons.most_common()),
            "files_that_went_with_them": self.num_companions,
            "captions_dropped": len(self._lost_captions),
        }


def check_sheet(path: Path | None) -> None:
    """Refuse a contact sheet that is no page.

    Raises:
        SettingsError: another suffix than .html.
    """
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(
            f"sheet must be an .html file, found {path}", hint="give a name such as groups.html"
        )


def _inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
