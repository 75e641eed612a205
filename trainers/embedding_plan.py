"""Which embeddings a run trains: read from emb_init.json, looked for in its captions, shown in its plan."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, SettingsError
from pipeline.names import path_key, safe_name
from trainers.caption_rules import plain_captions
from trainers.conditioning import Tokenizer
from trainers.dataset import Example
from trainers.embedding_words import Words, spelling_key
from trainers.embeddings import Embedding, token_table, words_of
from trainers.models import Models
from trainers.train_settings import Settings

MANY_VECTORS = 16  # of one embedding, a fifth of a caption of 75 tokens
SHOWN = 10
FORM = '{"name": ["words", "to start it from"]}'


@dataclass(frozen=True, slots=True)
class EmbeddingPlan:
    """What embeddings a run trains.

    Args:
        first: id of their first vector, after the text encoder's own table.
        notes: {name: what is odd about it, a sentence each}.
    """

    embeddings: tuple[Embedding, ...]
    first: int
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """What is odd about them."""
        return [note for ones in self.notes.values() for note in ones]

    @property
    def words(self) -> Words:
        """Their names, for a tokenizer."""
        return words_of({one.name: one.num_vectors for one in self.embeddings}, self.first)

    @property
    def num_vectors(self) -> int:
        """Of all of them."""
        return sum(one.num_vectors for one in self.embeddings)

    @property
    def identity(self) -> str:
        """Names and sizes, which a state must fit."""
        return ", ".join(f"{one.name} x {one.num_vectors}" for one in self.embeddings)

    def shown(self) -> str:
        """In a line of the plan."""
        names = ", ".join(one.name for one in self.embeddings[:SHOWN])
        more = f", and {len(self.embeddings) - SHOWN} more" if len(self.embeddings) > SHOWN else ""
        return f"{len(self.embeddings)}, {self.num_vectors} vectors: {names}{more}"

    def rows(self) -> list[dict[str, Any]]:
        """A row of a table for each."""
        return [
            {
                "name": one.name,
                "vectors": one.num_vectors,
                "starts from": one.words,
                "captions": one.num_captions,
                "in UIs": one.called,
            }
            for one in self.embeddings
        ]

    def seen_in(self, examples: Sequence[Example]) -> "EmbeddingPlan":
        """Those that captions name, with how many do.

        Raises:
            InputError: none of them.
        """
        words = self.words
        counts: Counter[str] = Counter()
        for example in examples:
            counts.update({name for text in _texts(example) for name in words.names_in(text)})
        kept = tuple(
            replace(one, num_captions=counts[one.name]) for one in self.embeddings if counts[one.name]
        )
        gone = [one.name for one in self.embeddings if not counts[one.name]]
        if not kept:
            raise InputError(
                f"no caption has the name of an embedding: {', '.join(gone[:SHOWN])}",
                hint="write names in the file of --embeddings as the captions do, or leave it out",
            )
        notes = dict(self.notes)
        notes |= {name: (f'no caption has "{name}", so it gets no embedding',) for name in gone}
        return EmbeddingPlan(kept, self.first, notes)


def read_embeddings(settings: Settings, models: Models) -> EmbeddingPlan | None:
    """The embeddings that settings name, which the tokenizer knows from here on; None where there are none.

    Args:
        models: of which nothing but shapes is asked.

    Raises:
        InputError: the file is not there or of another form, a name that cannot be one, two that are one, or
            words that the vocabulary cannot write.
        SettingsError: more vectors than a caption has room for.
    """
    path = settings.embeddings
    if path is None:
        return None
    tokenizer = models.tokenizer
    found: list[Embedding] = []
    notes: dict[str, tuple[str, ...]] = {}
    for name, words in _table(path).items():
        one = _embedding(name, words, tokenizer, settings, path)
        notes[name] = tuple(_oddities(one, words, tokenizer, path))
        found.append(one)
    _refuse_doubles(found, path)
    plan = EmbeddingPlan(tuple(found), token_table(models.text_encoder).num_embeddings, notes)
    models.tokenizer = tokenizer.with_words(plan.words)
    return plan


def _texts(example: Example) -> list[str]:
    """Everything that may become a caption of a picture; all lines and choices where they are drawn."""
    source = example.caption
    if not source.rules.wildcards:
        return plain_captions(source)
    variants = [text for _, text in source.variants] or [source.text]
    return [*variants, source.rules.prefix, source.rules.suffix]


def _table(path: Path) -> dict[str, str]:
    """{name: words}, in the order of the file."""
    try:
        read = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
        assert isinstance(read, dict), "it is no object"
        table = {str(name): _joined(words) for name, words in read.items()}
    except OSError as error:
        raise InputError(
            f"the embeddings {path} cannot be read: {error.strerror}",
            hint="celforge caption --embedding-file writes emb_init.json",
        ) from error
    except (ValueError, AssertionError) as error:
        raise InputError(f"{path} names no embeddings: {error}", hint=f"write {FORM}") from error
    if not table:
        raise InputError(f"{path} names no embedding", hint=f"write {FORM}, or leave --embeddings out")
    return table


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of which Python would keep only the last of two equal names."""
    names = Counter(name for name, _ in pairs)
    assert not names or max(names.values()) == 1, f'"{names.most_common(1)[0][0]}" stands there twice'
    return dict(pairs)


def _joined(words: Any) -> str:
    ones = [words] if isinstance(words, str) else words
    assert isinstance(ones, list), f"found {words!r} where words belong"
    assert all(isinstance(one, str) for one in ones), f"found {words!r} where words belong"
    return " ".join(" ".join(one.replace(",", " ").split()) for one in ones).strip()


def _embedding(name: str, words: str, tokenizer: Tokenizer, settings: Settings, path: Path) -> Embedding:
    if not any(sign.isalnum() for sign in name) or "," in name or name != name.strip():
        raise InputError(
            f'"{name}" in {path} cannot be the name of an embedding',
            hint="write a name as captions have it, without commas and spaces around it",
        )
    start = words or _plain(name)
    token_ids = tokenizer.plain_ids(start)
    marks = {tokenizer.begin, tokenizer.end, tokenizer.pad}
    if not token_ids or marks.intersection(token_ids):
        raise InputError(
            f'the model has no tokens for "{start}", from which the embedding {name} would start',
            hint=f"give it other words in {path}",
        )
    count = settings.embedding_vectors or len(token_ids)
    room = tokenizer.max_text_tokens - 2
    if count > room:
        raise SettingsError(
            f'the embedding {name} would have {count} vectors, and a caption has room for {room}: "{start}"',
            hint="give --embedding-vectors 4, or fewer words to start from",
        )
    return Embedding(name, _called(name), start, tuple(token_ids), count)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def _called(name: str) -> str:
    """What its file is called. Bundles are cut at the first dot of a name, so it has none."""
    return safe_name(name.replace(".", "_"), max_bytes=120)


def _oddities(one: Embedding, words: str, tokenizer: Tokenizer, path: Path) -> Iterator[str]:
    if not words:
        yield f'{path.name} gives no words to start "{one.name}" from: it starts as the model reads its name'
    if len(tokenizer.plain_ids(one.name)) == 1:
        yield (
            f'"{one.name}" is a word that the model knows, which means the embedding alone where that is '
            "loaded: give it another name to keep both"
        )
    if one.called != one.name:
        yield f'the embedding "{one.name}" is saved as "{one.called}", which UIs call it by'
    if one.num_vectors > MANY_VECTORS:
        yield (
            f'"{one.name}" takes {one.num_vectors} tokens of a caption each time: give '
            "--embedding-vectors 4, or fewer words to start from"
        )


def _refuse_doubles(embeddings: Iterable[Embedding], path: Path) -> None:
    keys: dict[tuple[str, str], str] = {}
    for one in embeddings:
        for key in (("spelling", spelling_key(one.name)), ("file", path_key(one.called))):
            other = keys.setdefault(key, one.name)
            if other != one.name:
                raise InputError(
                    f'"{other}" and "{one.name}" in {path} cannot be told apart',
                    hint="rename one of them, in the captions too",
                )
