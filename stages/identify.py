"""Name the characters in pictures, by their folders or by their tags.

--from-folders reads names from folders such as `1_character/Sabine`, `2_characters/Mireth+Sabine` or
`10_sabine`. --by-tags takes a tagger's own character tags and the signatures that celforge.toml gives: a
picture with the tags `pink hair` and `twintails` shows Sabine. Pictures on which the ways disagree, and those
that nobody named, are listed; nothing is guessed. What a person said of a picture always counts over this.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.catalog import Fact, MediaFile, split
from pipeline.characters import Character, NameBook, characters_of_job
from pipeline.errors import SettingsError
from pipeline.job import Job, Report, no_images
from pipeline.known_facts import all_facts
from pipeline.layouts.captions import tag_key
from pipeline.layouts.character_folders import (
    FOLDERS_SEEN,
    SEEN_BY,
    check_format,
    folder_below,
    names_of_folder,
)
from pipeline.plan import Plan, SetFact, SetOutcome
from pipeline.settings import option

HAS_PLAN = True
FACT, SOURCE = "characters", "identify"
FOLDERS, TAGS = "by folder", "by tags"  # reasons of the outcome: which way named a picture
UNNAMED, CONFLICT, BY_HAND = "unnamed", "conflict", "named by a person"
MANY = 6  # number of people that means six or more

Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [identify] of celforge.toml."""

    from_folders: bool = option(False, "Read names from folders.")
    by_tags: bool = option(False, "Read names from character tags, and from signatures in celforge.toml.")
    folder_format: str = option(
        "",
        "Which folder names the character, such as */character/*; understood by itself when left out.",
        metavar="FORMAT",
        only_if={"from_folders": (True,)},
    )
    all_character_tags: bool = option(
        False,
        "Take every character tag of a tagger by its own name, also without a table in celforge.toml.",
        only_if={"by_tags": (True,)},
    )
    prefer: Literal["nobody", "folders", "tags"] = option(
        "nobody", "Who is believed when folders and tags disagree; nobody lists the picture instead."
    )


@dataclass(frozen=True, slots=True)
class Word:
    """What one way says about one picture."""

    names: Names = ()
    problem: str = ""  # why it says nothing although it could


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a picture ended."""

    reason: str  # FOLDERS, TAGS, UNNAMED, CONFLICT
    names: Names = ()
    detail: str = ""


def run(job: Job, settings: Settings) -> Report:
    """Name what can be named, and list what cannot."""
    if not (settings.from_folders or settings.by_tags):
        raise SettingsError("identify was not told how", hint="add --from-folders, --by-tags, or both")
    characters = characters_of_job(job)
    format_parts = check_format(settings.folder_format)
    files = job.images()
    if not files and not job.failures:
        raise no_images(job.folder)
    by_content: dict[int, list[MediaFile]] = {}
    for file in files:
        by_content.setdefault(file.id, []).append(file)
    book = NameBook(characters)
    tags = TagReader(characters, all_tags=settings.all_character_tags)
    naming = Naming(job)
    names = (FACT, "tags", "character_tags", "num_people", FOLDERS_SEEN)
    for media_id, facts in all_facts(job.catalog, names, list(by_content)):
        places = by_content[media_id]
        words: dict[str, Word] = {}
        if settings.from_folders:
            words[FOLDERS] = read_folders(_folders_inside(job, places), format_parts, book)
        if settings.by_tags:
            words[TAGS] = tags.read({name: found[0].value for name, found in facts.items()})
        earlier = _earlier_word(job, places[0], facts, words)
        naming.take(places, decide(words, earlier, settings.prefer), facts.get(FACT, ()))
        naming.note_folders(places, facts.get(FOLDERS_SEEN, ()))
    report = job.apply(Plan("identify", naming.actions))
    if job.is_dry_run:
        report.planned = naming.preview
    else:
        report = job.report()
    report.values.update(naming.summary())
    if tags.strangers:
        report.values["character_tags_without_a_table"] = dict(tags.strangers.most_common())
    return report


def _folders_inside(job: Job, places: Sequence[MediaFile]) -> list[str]:
    """The picture's folders below the one that the command was given, which itself names nobody."""
    top = job.project.relative(job.folder)
    return [folder_below(split(file.relative)[0], top) for file in places]


# What each way says


def read_folders(folders: Sequence[str], format_parts: Sequence[str], book: NameBook) -> Word:
    """The names that all folders of one picture's copies agree on; folders that name nobody say nothing."""
    found = {
        tuple(sorted({book.name(name) for name in names})): folder
        for folder in folders
        if (names := names_of_folder(folder, format_parts, book.known))
    }
    if len(found) > 1:
        return Word(problem="lies in folders of " + " and of ".join(map(show, sorted(found))))
    return Word(next(iter(found), ()))


class TagReader:
    """Names by signatures and by a tagger's own character tags."""

    def __init__(self, characters: Mapping[str, Character], *, all_tags: bool) -> None:
        self._characters = characters
        self._all_tags = all_tags
        self._renamed = {tag_key(tag): name for name, one in characters.items() for tag in one.settings.tags}
        self.strangers: Counter[str] = Counter()  # character tags that no table takes

    def read(self, facts: Mapping[str, Any]) -> Word:
        """The names that tags give, unless there are more of them than people in the picture."""
        tags = {tag_key(tag) for tag in facts.get("tags") or {}}
        tagged = {tag_key(tag): tag for tag in facts.get("character_tags") or {}}
        by_tagger = set(self._tagged_names(tagged))
        for key in tagged.keys() & self._renamed.keys():
            tags.add(key)
        by_signature = {name for name, one in self._characters.items() if one.matches(tags)}
        names = tuple(sorted(by_tagger | by_signature))
        people = count_people(tags, facts.get("num_people"))
        most = people if people is not None else 1 if by_signature - by_tagger else len(names)
        if len(names) > max(most, 1):
            number = "unknown" if people is None else people
            return Word(problem=f"tags name {show(names)}, number of people: {number}")
        return Word(names)

    def _tagged_names(self, tagged: Mapping[str, str]) -> Iterator[str]:
        for key, tag in tagged.items():
            if key in self._renamed:
                yield self._renamed[key]
            elif self._all_tags:
                yield tag
            else:
                self.strangers[tag] += 1


def count_people(tags: set[str], num_people: object) -> int | None:
    """How many people a picture shows: the fact, else what tags say; None when nobody says."""
    if isinstance(num_people, int):
        return 99 if num_people >= MANY else num_people
    total = 0
    for tag in tags:
        digits = tag.removesuffix("s").removesuffix("girl").removesuffix("boy").removesuffix("other")
        if digits != tag and digits.rstrip("+").isdigit():
            total += 99 if digits.endswith("+") else int(digits)
    if any(tag.startswith("multiple_") for tag in tags):
        total = max(total, 99)
    return total or (1 if "solo" in tags else None)


def show(names: Names) -> str:
    """Names in a sentence."""
    return "+".join(names) or "nobody"


# What follows from it


def decide(words: Mapping[str, Word], earlier: tuple[str, Names] | None, prefer: str) -> Verdict:
    """Join what the ways say, of this run and of an earlier one.

    Args:
        words: by way.
        earlier: the way and names of an earlier run that this one does not ask.
        prefer: the way that is believed when they disagree, or nobody.
    """
    problems = [f"{way}: {word.problem}" for way, word in words.items() if word.problem]
    said = {way: word.names for way, word in words.items() if word.names}
    if earlier is not None:
        said.setdefault(*earlier)
    preferred = {"folders": FOLDERS, "tags": TAGS}.get(prefer)
    if preferred is not None and preferred in said:
        return Verdict(preferred, said[preferred])
    if problems:
        return Verdict(CONFLICT, (), "; ".join(problems))
    if len(set(said.values())) > 1:
        return Verdict(CONFLICT, (), "; ".join(f"{way} {show(names)}" for way, names in said.items()))
    if not said:
        return Verdict(UNNAMED)
    way = next(iter(said))
    return Verdict(way, said[way])


def _earlier_word(
    job: Job, file: MediaFile, facts: Mapping[str, Sequence[Fact]], words: Mapping[str, Word]
) -> tuple[str, Names] | None:
    """The way and names of an earlier run, if it is a way that this run does not ask."""
    fact = next((one for one in facts.get(FACT, ()) if one.source == SOURCE), None)
    if fact is None or not fact.value:
        return None
    outcome = job.catalog.read_outcome(file.content, SOURCE)
    way = outcome["detail"] if outcome else ""
    return (way, tuple(fact.value)) if way in (FOLDERS, TAGS) and way not in words else None


@dataclass(slots=True)
class Naming:
    """Collects verdicts: facts to be noted, outcomes, and lists for the report."""

    job: Job
    actions: list[SetFact | SetOutcome] = field(default_factory=list)
    preview: list[dict[str, str]] = field(default_factory=list)
    pictures: Counter[str] = field(default_factory=Counter)
    conflicts: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    overruled: list[str] = field(default_factory=list)

    def note_folders(self, places: Sequence[MediaFile], known: Sequence[Fact]) -> None:
        """Remember where the picture lies, so that `sync` can tell a move by hand from this run's words."""
        folders = sorted({split(file.relative)[0] for file in places})
        if not known or known[0].value != folders:
            self.actions.append(SetFact(places[0].content, FOLDERS_SEEN, folders, SEEN_BY))

    def take(self, places: Sequence[MediaFile], verdict: Verdict, known: Sequence[Fact]) -> None:
        """Note the verdict on one content, which may lie at several places."""
        own = next((fact for fact in known if fact.source == SOURCE), None)
        before: Names = tuple(own.value) if own else ()
        names = before if verdict.reason == CONFLICT else verdict.names
        reason = verdict.reason
        other = next((fact for fact in known if fact.by_hand or fact.source != SOURCE), None)
        if other is not None and other.by_hand:
            reason = BY_HAND
            self._count_by_hand(places, other, names)
        elif reason == CONFLICT:
            self.conflicts += [f"{file.relative}: {verdict.detail}" for file in places]
            self.job.warn(f"{places[0].relative}: not named, {verdict.detail}")
        elif reason == UNNAMED and other is not None and other.value and own is None:
            reason = f"named by {other.source}"
            self.pictures[show(tuple(sorted(other.value)))] += len(places)
        elif reason == UNNAMED:
            self.unnamed += [file.relative for file in places]
        else:
            self.pictures[show(names)] += len(places)
        if names != before:
            self._name(places, before, names, verdict.reason)
        self._settle(places[0], reason, verdict.reason)

    def _count_by_hand(self, places: Sequence[MediaFile], by_hand: Fact, names: Names) -> None:
        said = tuple(sorted(by_hand.value))
        self.pictures[show(said)] += len(places)
        if names and names != said:
            self.overruled += [f"{one.relative}: {show(names)}, a person says {show(said)}" for one in places]

    def _name(self, places: Sequence[MediaFile], before: Names, names: Names, way: str) -> None:
        self.actions.append(SetFact(places[0].content, FACT, list(names), SOURCE))
        change = f"{show(before)} -> {show(names)}"
        self.preview += [
            {"action": "name", "picture": one.relative, "characters": change, "reason": way} for one in places
        ]

    def _settle(self, file: MediaFile, reason: str, way: str) -> None:
        """The outcome; its detail is the way that gave the names which the catalogue holds."""
        before = self.job.catalog.read_outcome(file.content, SOURCE)
        if way == CONFLICT:
            way = before["detail"] if before else ""
        way = way if way in (FOLDERS, TAGS) else ""
        if before is None or (before["reason"], before["detail"]) != (reason, way):
            self.actions.append(SetOutcome(file.content, SOURCE, "kept", reason, way))

    def summary(self) -> dict[str, Any]:
        """What the report shows."""
        return {
            "pictures_by_character": dict(self.pictures.most_common()),
            "unnamed": self.unnamed,
            "conflicts": self.conflicts,
            "overruled_by_a_person": self.overruled,
        }
