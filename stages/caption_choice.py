"""Which tags go into the caption of a picture: pruned, without what its characters' names say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.caption_files import CAPTION, last_caption
from pipeline.catalog import Catalog, MediaFile
from pipeline.known_facts import counting_facts
from pipeline.layouts.captions import tag_key, tag_text
from stages.caption_text import FACTS, Composed, TextRules, character_text, compose
from stages.caption_writing import Facts
from stages.character_forms import embedding_name
from stages.core_tags import CoreTags, Counts, categorize
from stages.pruning import Dropped, Implications, Looks, prune, shorter_tags

CORE, LOOKS = "a core tag", "the looks of a character"


@dataclass(frozen=True, slots=True)
class ChoiceRules:
    """How tags are chosen; see the settings of stages/caption.py."""

    mode: str  # none, minimal, core, all
    blacklist: frozenset[str]
    implications: Implications | None
    looks: Looks
    drops_all_core: bool
    core_frequency: float
    embedding_looks: Looks
    core: Mapping[str, CoreTags] | None  # given by a person
    needs_core: bool


@dataclass(slots=True)
class Chooser:
    """Composes captions; `prepare` goes through all pictures once, for what characters have in common."""

    rules: ChoiceRules
    text: TextRules
    core: Mapping[str, CoreTags] = field(default_factory=dict)
    known_names: set[str] = field(default_factory=set)
    image_types: set[str] = field(default_factory=set)
    fact_names: tuple[str, ...] = (CAPTION, *FACTS)
    _said_by: dict[str, frozenset[str]] = field(default_factory=dict)

    def prepare(self, catalog: Catalog, media_ids: Sequence[int]) -> None:
        """Count core tags, and learn which characters there are."""
        counts = Counts()
        for _, facts in counting_facts(
            catalog, ("characters", "tags", "image_type", "num_people"), media_ids
        ):
            values = {name: fact.value for name, fact in facts.items()}
            names = values.get("characters") or []
            self.known_names.update(names)
            if values.get("image_type"):
                self.image_types.add(values["image_type"])
            tags = values.get("tags") or {}
            if (
                self.rules.needs_core
                and tags
                and len(names) == 1
                and is_alone(tags, values.get("num_people"))
            ):
                counts.add(names[0], prune(tags, self.rules.implications, self.rules.blacklist).kept)
        if self.rules.core is not None:
            self.core = self.rules.core
        elif self.rules.needs_core:
            looks = None if self.rules.drops_all_core else self.rules.looks
            self.core = categorize(counts.core(self.rules.core_frequency), looks, self.rules.embedding_looks)

    @property
    def embedding_names(self) -> list[str]:
        """The words that embeddings of the characters are called by."""
        return list(dict.fromkeys(map(embedding_name, self.core)))

    def compose(self, file: MediaFile, facts: Facts) -> Composed:
        """The caption of one picture."""
        values = {name: found[0].value for name, found in facts.items()}
        tags, dropped = self.choose(values)
        composed = compose(self.text, file.content, values, tags, last_caption(facts))
        composed.dropped[:0] = dropped
        return composed

    def choose(self, values: Mapping[str, Any]) -> tuple[list[str], list[Dropped]]:
        """The tags that stay, and those that do not."""
        pruned = prune(values.get("tags") or {}, self.rules.implications, self.rules.blacklist)
        owners = self._owners(values.get("characters") or [])
        dropped = pruned.dropped
        dropped += [Dropped(tag, *owners[tag]) for tag in pruned.kept if tag in owners]
        kept = [tag for tag in pruned.kept if tag not in owners]
        if self.rules.mode == "all" and values.get("characters"):
            dropped += [Dropped(tag, LOOKS) for tag in kept if self.rules.looks.has(tag)]
            kept = [tag for tag in kept if not self.rules.looks.has(tag)]
        return kept, dropped

    def _owners(self, names: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Tags that characters' names say: tag -> (reason, character)."""
        if self.rules.mode != "core":
            return {}
        for name in names:
            if name not in self._said_by:
                self._said_by[name] = self._said_by_name(name)
        return {tag: (CORE, name) for name in names for tag in self._said_by[name]}

    def _said_by_name(self, name: str) -> frozenset[str]:
        """Core tags that are left out, and looks that these say: `long_hair` with `very_long_hair`."""
        if name not in self.core:
            return frozenset()
        left_out = self.core[name].left_out
        implies = self.rules.implications.implies if self.rules.implications else {}
        also = {other for tag in left_out for other in (*shorter_tags(tag), *implies.get(tag, ()))}
        return left_out | {tag for tag in also if self.rules.looks.has(tag)}

    def prompt(self, name: str, tags: Sequence[str]) -> str:
        """A prompt of one character, with some tags."""
        parts = [*self.text.trigger_words, *character_text(self.text, name), *map(tag_text, tags)]
        return self.text.separator.join(parts)


def is_alone(tags: Mapping[str, Any], num_people: Any) -> bool:
    """Say whether a picture of one named character shows nobody else, as far as tags and detectors tell."""
    if isinstance(num_people, int):
        return num_people <= 1
    keys = {tag_key(tag) for tag in tags}
    several = any(key.startswith("multiple_") for key in keys)
    counted = [
        key for key in keys if key[:1].isdigit() and key.rstrip("s").endswith(("girl", "boy", "other"))
    ]
    return not several and len(counted) <= 1 and all(key.startswith("1") for key in counted)
