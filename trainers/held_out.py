"""Which pictures are held out from training, and which of them are measured.

A picture is held out when a hash of its content, as a number from 0 to 1, is below the share. So a picture
that was held out once stays so whatever is added, and of two files of one content both are. Frames of one
shot of a video are held out together, by a hash of the shot: most of them show one held picture. A concept is
a character where the folders name characters, else a folder; a picture of two characters counts for both.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.caption_files import decode_caption
from pipeline.errors import InputError, SettingsError
from pipeline.layouts.character_folders import names_of_folder
from pipeline.report import Failure
from trainers.dataset import Example, TrainingData, read_training_data
from trainers.shots import shots_of
from trainers.train_settings import Settings

DIGITS = 16  # hexadecimal, of the hash


def place_of(content: str) -> float:
    """A picture's place from 0 to 1, by its content alone, or by its shot."""
    digest = hashlib.sha256(f"held out {content}".encode()).hexdigest()[:DIGITS]
    return float(int(digest, 16) / 16**DIGITS)


def concepts_of(example: Example) -> tuple[str, ...]:
    """What a picture counts for: the characters its folder names, else the folder."""
    return names_of_folder(example.concept) or (example.concept or ".",)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Pictures that no step learns from.

    Args:
        examples: all of them, never mirrored.
        measured: those of them that validation looks at.
        compared: as many pictures that are trained on, measured the same way.
    """

    examples: Sequence[Example]
    measured: Sequence[Example]
    compared: Sequence[Example]

    @property
    def concepts(self) -> dict[str, int]:
        """Measured pictures of each concept, the most first."""
        counts = Counter(name for one in self.measured for name in concepts_of(one))
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def without(self, failures: Iterable[Failure]) -> "HeldOut":
        """Without pictures that cannot be read.

        Raises:
            InputError: none is left.
        """
        paths = {one.path for one in failures}
        kept = [
            [one for one in ones if str(one.path) not in paths]
            for ones in (self.examples, self.measured, self.compared)
        ]
        if not kept[1]:
            raise InputError(
                "none of the pictures to validate on can be read", hint="celforge check says why"
            )
        return HeldOut(*kept)


def hold_out(
    data: TrainingData, settings: Settings, *, count_tokens: Callable[[str], int]
) -> tuple[TrainingData, HeldOut | None]:
    """Part a data set into what is trained on and what is held out; None where nothing shall be.

    Raises:
        SettingsError: a share and a folder at once, or a share that holds out nothing.
        InputError: no such pictures, or none left to train on.
    """
    if settings.validation_share and settings.validation_data is not None:
        raise SettingsError(
            "validation_share and validation_data both say what is held out", hint="give one of them"
        )
    if settings.validation_data is not None:
        held = _named(data, settings.validation_data, settings, count_tokens)
    elif settings.validation_share:
        share, shots = settings.validation_share, shots_of(data.root, data.examples)
        held = [
            one
            for one in data.examples
            if place_of(shots.get(one.content, one.content)) < share and not one.terms.is_reg
        ]
        if not held:
            raise SettingsError(
                f"a validation_share of {settings.validation_share:g} holds out none of "
                f"{len(data.examples)} pictures",
                hint="raise --validation-share, or name pictures: --validation-data FOLDER",
            )
    else:
        return data, None
    contents = {one.content for one in held}
    left = [one for one in data.examples if one.content not in contents]
    if not left:
        raise InputError(
            "all pictures are held out, and none is left to train on", hint="lower --validation-share"
        )
    held = [replace(one, terms=replace(one.terms, flip_p=0.0)) for one in held]
    measured = _spread(held, settings.validation_pictures)
    compared = _alike(measured, left)
    return replace(data, examples=left), HeldOut(held, measured, compared)


def missing_concepts(data: TrainingData, held: HeldOut) -> list[str]:
    """Concepts that are trained on and of which no picture is measured."""
    trained = {name for one in data.examples for name in concepts_of(one)}
    return sorted(trained - held.concepts.keys())


def _spread(examples: Sequence[Example], most: int) -> list[Example]:
    """At most so many, evenly over the folders; a picture that was chosen stays so when others are added."""
    by_folder: dict[str, list[Example]] = {}
    for one in sorted(examples, key=lambda one: place_of(one.content)):
        by_folder.setdefault(one.concept, []).append(one)
    ranked = [(rank, name, one) for name, ones in by_folder.items() for rank, one in enumerate(ones)]
    chosen = sorted(ranked, key=lambda item: item[:2])[:most]
    return [one for _, _, one in sorted(chosen, key=lambda item: (item[1], item[0]))]


def _alike(measured: Sequence[Example], trained: Sequence[Example]) -> list[Example]:
    """As many trained pictures of each concept as are measured of it, as far as there are."""
    wanted = Counter(concepts_of(one) for one in measured)
    found = []
    for one in sorted(trained, key=lambda one: place_of(one.content)):
        if wanted[concepts_of(one)] > 0:
            wanted[concepts_of(one)] -= 1
            found.append(one)
    return found


def _named(
    data: TrainingData, path: Path, settings: Settings, count_tokens: Callable[[str], int]
) -> list[Example]:
    """The pictures of a folder or of a list, in the data set or beside it."""
    if not path.exists():
        raise InputError(f"there is nothing to validate on at {path}", hint="mend --validation-data")
    by_path = {str(one.path.resolve()): one for one in data.examples}
    if path.is_file() and not _below(path, by_path):
        return _listed(path, data.root, by_path)
    inside = _below(path, by_path)
    if inside:
        return inside
    others = read_training_data(
        path, settings, count_tokens=count_tokens, workers=settings.workers
    )  # a folder beside the data set
    return list(others.examples)


def _listed(path: Path, root: Path, by_path: Mapping[str, Example]) -> list[Example]:
    """What a list names, a picture or a folder a line, relative to the data set or to the list."""
    text, problem = decode_caption(path.read_bytes())
    if text is None:
        raise InputError(f"{path} is {problem}", hint="save it as UTF-8 text, a picture a line")
    found: dict[str, Example] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        places = [top / name for top in (root, path.parent)]
        ones = next((some for place in places if (some := _below(place, by_path))), [])
        if not ones:
            raise InputError(
                f"{path} line {number}: no picture of the data set is {name}",
                hint=f"write its path below {root}, or that of a folder",
            )
        found |= {str(one.path): one for one in ones}
    if not found:
        raise InputError(f"{path} names no picture", hint="write a picture or a folder a line")
    return list(found.values())


def _below(place: Path, by_path: Mapping[str, Example]) -> list[Example]:
    """The picture at a path, or the pictures in the folder there."""
    place = place.resolve()
    if str(place) in by_path:
        return [by_path[str(place)]]
    return [one for text, one in by_path.items() if Path(text).is_relative_to(place)]
