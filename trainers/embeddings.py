"""Embeddings that learn: vectors beside the text encoder's own table, for new words in captions.

The table itself is left as it is: token ids above the vocabulary are looked up in vectors of their own, which
alone get gradients. So what a text without these words means never changes by a bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextModel

from trainers.embedding_words import Words


@dataclass(frozen=True, slots=True)
class Embedding:
    """One word and what it starts from.

    Args:
        name: as captions write it.
        called: as files are named, and so what UIs call it by.
        words: it starts from; its own name where nothing was given.
        token_ids: of these words.
        num_captions: that hold it.
    """

    name: str
    called: str
    words: str
    token_ids: tuple[int, ...]
    num_vectors: int
    num_captions: int = 0


class ExtendedTable(nn.Embedding):
    """A table of embeddings with more rows than it has: those of `vectors`, which are no part of the model.

    Args:
        table: keeps its weight, which stays the model's parameter of the same name.
        vectors: [rows, width]; ids count on from the table's last one.
    """

    def __init__(self, table: nn.Embedding, vectors: Tensor) -> None:
        super().__init__(table.num_embeddings, table.embedding_dim, _weight=table.weight)
        self.weight = table.weight
        self._vectors = (vectors,)  # in a tuple, so that torch does not take it for a parameter of the model

    def forward(self, input: Tensor) -> Tensor:
        """[...] of ids to [..., width], in the dtype of the table."""
        first = self.num_embeddings
        known: Tensor = F.embedding(input.clamp(max=first - 1), self.weight)
        own: Tensor = F.embedding((input - first).clamp(min=0), self._vectors[0])
        return torch.where((input >= first).unsqueeze(-1), own.to(known.dtype), known)


def words_of(sizes: Mapping[str, int], first: int) -> Words:
    """Names for a tokenizer, with an id for each of their vectors.

    Args:
        sizes: {name: vectors}.
        first: id after the last of the text encoder's table.
    """
    ids: dict[str, tuple[int, ...]] = {}
    for name, count in sizes.items():
        ids[name] = tuple(range(first, first + count))
        first += count
    return Words.of(ids)


def starting_vectors(table: Tensor, token_ids: Sequence[int], count: int) -> Tensor:
    """Vectors of an embedding before it learns, fp32, [count, width].

    Of more tokens than vectors each vector is the mean of its part of them, as long as they are on average (a
    mean is shorter than what it is the mean of); of fewer, tokens are repeated in their order, as A1111 does.

    Args:
        table: [tokens, width] of the text encoder.
    """
    rows = table.detach().float()[list(token_ids)]
    total = len(token_ids)
    if total <= count:
        return rows[[number * total // count for number in range(count)]]
    parts = [rows[number * total // count : (number + 1) * total // count] for number in range(count)]
    means = torch.stack([part.mean(0) for part in parts])
    lengths = torch.stack([part.norm(dim=1).mean() for part in parts])
    factors: Tensor = lengths / means.norm(dim=1).clamp(min=1e-12)
    return means * factors.unsqueeze(1)


def token_table(text_encoder: CLIPTextModel) -> nn.Embedding:
    """The text encoder's table of tokens, in either layout of transformers."""
    table: nn.Embedding = _tables(text_encoder).token_embedding
    return table


def _tables(text_encoder: CLIPTextModel) -> Any:
    return getattr(text_encoder, "text_model", text_encoder).embeddings


def extend_table(text_encoder: CLIPTextModel, values: Tensor | int) -> nn.Parameter:
    """Put more rows beside the table of a text encoder.

    Args:
        values: [rows, width]; or how many, of a model on the meta device.
    """
    table = token_table(text_encoder)
    if isinstance(values, int):
        values = torch.empty(values, table.embedding_dim, device=table.weight.device)
    flat = nn.Parameter(values)
    _tables(text_encoder).token_embedding = ExtendedTable(table, flat)
    return flat


class Vectors:
    """The vectors of a run's embeddings, in one stretch, in the place of a text encoder's table.

    Args:
        embeddings: at least one.
        text_encoder: as it was loaded, in fp32.
        norm_pull: how far norms are taken back after a step, 0 to 1.
    """

    def __init__(
        self, embeddings: Sequence[Embedding], text_encoder: CLIPTextModel, *, norm_pull: float
    ) -> None:
        table = token_table(text_encoder)
        starts = [starting_vectors(table.weight, one.token_ids, one.num_vectors) for one in embeddings]
        self.embeddings = tuple(embeddings)
        self.flat = extend_table(text_encoder, torch.cat(starts))
        self._norm_pull = norm_pull
        self._usual_norm = float(table.weight.detach().float().norm(dim=1).mean())

    def move(self, device: torch.device) -> None:
        """To the device of the model; they stay fp32."""
        self.flat.data = self.flat.data.to(device)

    def freeze(self) -> None:
        """Have no gradients any more: an optimizer passes over what has none."""
        self.flat.requires_grad_(False)
        self.flat.grad = None

    @torch.no_grad()
    def pull_norms(self) -> None:
        """Keep norms near those of the vocabulary, in which the text encoder was trained.

        Each is multiplied by (mean norm of the vocabulary / its norm) ** pull: the power is that of pivotal
        tuning in replicate/cog-sdxl and diffusers (`retract_embeddings`, there 0.1, of the deviation).
        """
        if self._norm_pull and self.flat.requires_grad:
            norms = self.flat.norm(dim=1, keepdim=True).clamp(min=1e-12)
            self.flat.mul_((self._usual_norm / norms) ** self._norm_pull)

    def mean_norm(self) -> float:
        """Over the mean norm of the vocabulary."""
        return float(self.flat.detach().norm(dim=1).mean()) / self._usual_norm

    def by_name(self) -> Iterator[tuple[Embedding, Tensor]]:
        """Each embedding with its vectors, [vectors, width], fp32, on the CPU."""
        sizes = [one.num_vectors for one in self.embeddings]
        parts = torch.split(self.flat.detach().to("cpu", torch.float32), sizes)
        yield from zip(self.embeddings, parts, strict=True)


@contextmanager
def in_place(text_encoder: CLIPTextModel, vectors: Mapping[str, Tensor]) -> Iterator[Words | None]:
    """Let a text encoder know embeddings for a while.

    Args:
        vectors: {name: [vectors, width]}.
    Yields: their names for its tokenizer; None where there are none.
    """
    if not vectors:
        yield None
        return
    table = token_table(text_encoder)
    flat = torch.cat([one.to(table.weight.device, torch.float32) for one in vectors.values()])
    _tables(text_encoder).token_embedding = ExtendedTable(table, flat)
    try:
        yield words_of({name: len(one) for name, one in vectors.items()}, table.num_embeddings)
    finally:
        _tables(text_encoder).token_embedding = table
