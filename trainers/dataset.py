"""The training set: every picture with its repeats, bucket, crop, caption and chances, and what is wrong.

Nothing here decodes a picture: headers give sizes, the catalogue contents. Pictures that turn out to be
damaged when they are encoded are taken out by `TrainingData.without`.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.layouts.buckets import Bucket, nearest_bucket
from pipeline.lint.reading import plain
from pipeline.names import natural_key
from pipeline.report import Failure
from trainers.caption_rules import CaptionSource, plain_captions
from trainers.crops import crop_corner
from trainers.data_settings import CAPTION_LENGTHS, DataSettings
from trainers.data_sources import Layout, Picture, Terms, list_pictures
from trainers.picture_facts import Looked, look_at

__all__ = ["DataSettings", "Example", "TrainingData", "read_training_data"]


@dataclass(frozen=True, slots=True)
class Example:
    """One picture of the training set.

    Args:
        content: sha256 of the file's bytes, hex.
        width_px, height_px: of the file, turned by EXIF.
        repeats: showings in an epoch, above 0; any fraction.
        crop: left and top of what is kept, in pixels after scaling to the bucket.
        terms: what all pictures of its folder share.
    """

    folder_path: str
    name: str
    content: str
    width_px: int
    height_px: int
    repeats: Fraction
    caption: CaptionSource
    bucket: Bucket
    crop: tuple[int, int]
    terms: Terms

    @property
    def path(self) -> Path:
        """Absolute."""
        return Path(self.folder_path, self.name)

    @property
    def concept(self) -> str:
        """Its folder below the tree, "" for the tree itself."""
        return self.terms.concept

    @property
    def conditional_dropout(self) -> float:
        """Chance of its caption to be left out."""
        return self.terms.conditional_dropout

    @property
    def flip_p(self) -> float:
        """Chance of being shown mirrored."""
        return self.terms.flip_p

    @property
    def loss_scale(self) -> float:
        """What its loss is multiplied by."""
        return self.terms.loss_scale

    @property
    def batch_id(self) -> str:
        """Pictures of one batch_id come into one batch where they can; empty for none."""
        return self.terms.batch_id


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What is trained on.

    Args:
        notes: how the data set was read, one sentence each.
        problems: what is wrong with it, one sentence each, with the remedy.
        unreadable: pictures that are left out, with the reason.
        num_long_captions: pictures whose caption has more than `max_tokens`.
    """

    root: Path
    layout: Layout
    examples: Sequence[Example]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    unreadable: tuple[Failure, ...] = ()
    num_long_captions: int = 0
    max_tokens: int = 0

    @property
    def images_per_epoch(self) -> Fraction:
        """Showings in an epoch, repeats counted."""
        return sum((one.repeats for one in self.examples), Fraction(0))

    def without(self, failures: Iterable[Failure]) -> "TrainingData":
        """Without pictures that could not be encoded, which become unreadable ones.

        Raises:
            InputError: none is left.
        """
        failed = tuple(failures)
        paths = {one.path for one in failed}
        left = [one for one in self.examples if str(one.path) not in paths]
        if not left:
            raise InputError(
                f"none of the pictures in {self.root} can be read", hint="celforge check says why"
            )
        return replace(self, examples=left, unreadable=self.unreadable + failed)

    def summary(self) -> dict[str, Any]:
        """Counts for a preflight, as plain JSON values."""
        origins = Counter(one.caption.origin for one in self.examples)
        return {
            "root": str(self.root),
            "layout": self.layout,
            "images": len(self.examples),
            "images_per_epoch": plain(self.images_per_epoch),
            "unreadable": len(self.unreadable),
            "folders": self._folders(),
            "buckets": self._buckets(),
            "captions": {
                "from_files": origins["file"],
                "from_names": origins["name"],
                "from_folder_names": origins["class"],
                "empty": origins["none"],
                "too_long": self.num_long_captions,
                "max_tokens": self.max_tokens,
            },
            "enlarged": sum(_is_enlarged(one) for one in self.examples),
            "mirrored": sum(one.flip_p > 0 for one in self.examples),
        }

    def _folders(self) -> list[dict[str, Any]]:
        images: Counter[str] = Counter()
        showings: dict[str, Fraction] = {}
        for one in self.examples:
            images[one.concept] += 1
            showings[one.concept] = showings.get(one.concept, Fraction(0)) + one.repeats
        return [
            {"folder": name or ".", "images": images[name], "images_per_epoch": plain(showings[name])}
            for name in sorted(images, key=natural_key)
        ]

    def _buckets(self) -> list[dict[str, Any]]:
        images: Counter[Bucket] = Counter()
        showings: dict[Bucket, Fraction] = {}
        for one in self.examples:
            images[one.bucket] += 1
            showings[one.bucket] = showings.get(one.bucket, Fraction(0)) + one.repeats
        return [
            {"bucket": str(one), "images": images[one], "images_per_epoch": plain(showings[one])}
            for one in sorted(images)
        ]


def read_training_data(
    path: Path,
    settings: DataSettings,
    *,
    count_tokens: Callable[[str], int],
    workers: int = 0,
    check_stop: Callable[[], None] = lambda: None,
) -> TrainingData:
    """Read a data set of any layout.

    Args:
        path: a tree, a folder of kohya's or the parent of such folders, or a dataset TOML.
        count_tokens: of a caption, without begin and end.
        workers: threads that read; 0 takes one for each processor core.
        check_stop: called now and then; raises to stop.

    Raises:
        InputError: no such folder, no pictures in it, none that can be read, or a broken TOML.
        SettingsError: settings that do not go together.
    """
    settings.check()
    listing = list_pictures(path, settings)
    pictures = [one for one in listing.pictures if one.repeats > 0]
    if not pictures:
        said = f": {listing.problems[0]}" if listing.problems else ""
        raise InputError(
            f"{listing.root} holds nothing to train on{said}", hint="give the folder of pictures"
        )
    looked = look_at(
        pictures,
        listing.tops,
        workers=workers or os.cpu_count() or 1,
        captions_from_names=settings.captions_from_names,
        wants_faces=settings.crop == "face",
        check_stop=check_stop,
    )
    remarks = _Remarks()
    examples: list[Example] = []
    for picture, one in zip(pictures, looked, strict=True):
        if isinstance(one, Looked):
            examples.append(_example(picture, one, settings))
            remarks.look(picture, one)
    unreadable = tuple(one for one in looked if isinstance(one, Failure))
    if not examples:
        first = unreadable[0]
        raise InputError(f"none of the pictures in {listing.root} can be read; {first.path}: {first.reason}")
    num_long = _count_long(examples, settings.max_tokens, count_tokens)
    problems = (*listing.problems, *remarks.sentences(), *_say_long(num_long, settings.max_tokens))
    return TrainingData(
        listing.root,
        listing.layout,
        examples,
        tuple(listing.notes),
        problems,
        unreadable,
        num_long,
        settings.max_tokens,
    )


def _say_long(num_long: int, max_tokens: int) -> list[str]:
    if not num_long:
        return []
    hint = (
        "shorten them" if max_tokens == CAPTION_LENGTHS[-1] else "give a larger --max-tokens, or shorten them"
    )
    return [f"{num_long} captions have more than {max_tokens} tokens, and what is over is not seen; {hint}"]


def _example(picture: Picture, looked: Looked, settings: DataSettings) -> Example:
    bucket = nearest_bucket(looked.width_px, looked.height_px, picture.terms.sizes)
    faces = looked.faces if settings.crop == "face" else ()
    return Example(
        picture.folder_path,
        picture.name,
        looked.content,
        looked.width_px,
        looked.height_px,
        picture.repeats,
        looked.caption,
        bucket,
        crop_corner(looked.width_px, looked.height_px, bucket, faces),
        picture.terms,
    )


def _is_enlarged(one: Example) -> bool:
    return one.width_px < one.bucket.width_px or one.height_px < one.bucket.height_px


def _count_long(examples: Sequence[Example], max_tokens: int, count_tokens: Callable[[str], int]) -> int:
    """How many captions have too many tokens; a text of so many bytes cannot have more."""
    counts: dict[str, int] = {}
    num_long = 0
    for one in examples:
        for text in plain_captions(one.caption):
            if len(text.encode()) > max_tokens:
                if text not in counts:
                    counts[text] = count_tokens(text)
                num_long += counts[text] > max_tokens
    return num_long


@dataclass(slots=True)
class _Remarks:
    """What is odd about captions: how many of each kind, and the first."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def look(self, picture: Picture, looked: Looked) -> None:
        if looked.caption_problem:
            self._note("broken", f"{picture.path}: {looked.caption_problem}")
        elif looked.caption.origin == "name":
            self._note("name", f'{picture.path}: "{looked.caption.text}"')
        elif looked.caption.origin == "class":
            self._note("class", f'{picture.path}: "{looked.caption.text}"')
        elif looked.caption.origin == "none":
            self._note("none", str(picture.path))

    def _note(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        self.first.setdefault(kind, text)

    def sentences(self) -> list[str]:
        return [
            text.format(count=self.counts[kind], first=self.first[kind])
            for kind, text in _SENTENCES.items()
            if self.counts[kind]
        ]


_SENTENCES = {
    "broken": "{count} caption files cannot be read ({first}); save them as UTF-8 text",
    "name": "{count} pictures have no caption file and are trained with their names ({first}); write "
    "captions, or give --no-captions-from-names",
    "class": "{count} pictures have no caption file and are trained with the name of their folder ({first}); "
    "write captions, or give --caption-extension",
    "none": "{count} pictures are trained without a caption ({first}); write captions, or give "
    "--caption-extension",
}
