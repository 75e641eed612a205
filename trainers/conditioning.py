"""From captions to what the UNet is conditioned on: tokens in chunks, CLIP's states, clip skip.

A chunk is as long as the text encoder's positions are: 77 of Stable Diffusion 1.x, of which 75 are the
text's. Longer texts are cut into 2 or 3 chunks, encoded one by one and joined as kohya's scripts do
(sd-scripts: library/train_util.py): the first begin mark, the 75 inner states of each, the last end mark.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tokenizers
import torch
from torch import Tensor, nn
from transformers import CLIPTextModel

from pipeline.clip_tokens import BEGIN, END, byte_pair_tokenizer, clip_tokenizer
from pipeline.errors import InputError
from trainers.embedding_words import Words

TOKENS_PER_CHUNK = 75  # of the option `max_tokens`: 75, 150 and 225 are 1, 2 and 3 chunks of any model


def num_chunks(max_tokens: int) -> int:
    """Chunks of a text of at most so many tokens, in the words of the option: 75, 150, 225 and so on.

    Raises:
        InputError: not a multiple of 75.
    """
    if max_tokens < TOKENS_PER_CHUNK or max_tokens % TOKENS_PER_CHUNK:
        raise InputError(
            f"captions cannot be read in pieces of {max_tokens} tokens", hint="write 75, 150 or 225"
        )
    return max_tokens // TOKENS_PER_CHUNK


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """CLIP's byte pair encoding, with the vocabulary of one model.

    Args:
        max_text_tokens: positions of the text encoder, begin and end marks counted: 77 of SD1.x.
        words: names of embeddings, whose ids lie above the vocabulary's; None where there are none.
    """

    inner: tokenizers.Tokenizer
    max_text_tokens: int
    begin: int
    end: int
    pad: int
    words: Words | None = None

    @classmethod
    def bundled(cls, max_text_tokens: int) -> "Tokenizer":
        """OpenAI's vocabulary of 49,408 tokens, which every SD1.x model has."""
        return cls._of(clip_tokenizer(), max_text_tokens, pad_mark=END)

    @classmethod
    def read(cls, folder: Path, max_text_tokens: int) -> "Tokenizer":
        """The `tokenizer` folder of a diffusers model: vocab.json and merges.txt, or tokenizer.json.

        Raises:
            InputError: neither is there, or they cannot be read.
        """
        try:
            marks = _read_json(folder / "special_tokens_map.json") or _read_json(
                folder / "tokenizer_config.json"
            )
            if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
                vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
                lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
                vocabulary[BEGIN], vocabulary[END]
                inner = byte_pair_tokenizer(vocabulary, _merges(lines))
            else:
                inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            return cls._of(inner, max_text_tokens, pad_mark=_mark(marks.get("pad_token"), END))
        except Exception as error:  # the library raises bare Exception for a broken file
            raise InputError(
                f"the tokenizer in {folder} cannot be read: {error}",
                hint="copy vocab.json and merges.txt of the model into it",
            ) from error

    @classmethod
    def from_text(cls, text: str, max_text_tokens: int) -> "Tokenizer":
        """What `to_text` wrote."""
        read = json.loads(text)
        inner = byte_pair_tokenizer(read["vocabulary"], _merges(read["merges"]))
        return cls._of(inner, max_text_tokens, pad_mark=read["pad"])

    @classmethod
    def _of(cls, inner: tokenizers.Tokenizer, max_text_tokens: int, *, pad_mark: str) -> "Tokenizer":
        inner.no_padding()
        inner.no_truncation()
        begin, end, pad = (inner.token_to_id(mark) for mark in (BEGIN, END, pad_mark))
        if begin is None or end is None or pad is None:
            raise InputError(f"the vocabulary lacks one of the tokens {BEGIN}, {END} and {pad_mark}")
        return cls(inner, max_text_tokens, begin, end, pad)

    @property
    def vocab_size(self) -> int:
        """Tokens it can give: one row each in the text encoder's embedding."""
        return int(self.inner.get_vocab_size())

    def limit(self, max_tokens: int) -> int:
        """Tokens of one text that are read at all: 75, 150 or 225 of SD1.x, less of a smaller model."""
        return num_chunks(max_tokens) * (self.max_text_tokens - 2)

    def count(self, text: str) -> int:
        """Tokens of a text, begin and end marks not counted, however many there are."""
        return len(self._ids([text])[0])

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of the vocabulary alone, without begin and end."""
        return list(self.inner.encode(text, add_special_tokens=False).ids)

    def with_words(self, words: Words | None) -> "Tokenizer":
        """The same vocabulary with names of embeddings beside it."""
        return replace(self, words=words)

    def __call__(self, texts: Sequence[str], *, max_tokens: int = TOKENS_PER_CHUNK) -> Tensor:
        """Token ids, int64, [batch, chunks, max_text_tokens]; what is longer than `limit` is cut off."""
        chunks = num_chunks(max_tokens)
        rows = [self._chunks(ids, chunks) for ids in self._ids(texts)]
        return torch.tensor(rows, dtype=torch.int64).view(len(rows), chunks, self.max_text_tokens)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; a name of an embedding is a token for each of its vectors."""
        pieces = [[text] if self.words is None else self.words.pieces(text) for text in texts]
        plain = [piece for of_text in pieces for piece in of_text if isinstance(piece, str)]
        encoded = iter(self.inner.encode_batch(plain, add_special_tokens=False))
        return [
            [one for piece in of_text for one in (next(encoded).ids if isinstance(piece, str) else piece)]
            for of_text in pieces
        ]

    def _chunks(self, ids: list[int], chunks: int) -> list[list[int]]:
        """Every chunk is closed by an end mark, unless the text ended in it before."""
        inner = self.max_text_tokens - 2
        stream = ids[: chunks * inner]
        stream = [*stream, self.end, *[self.pad] * (chunks * inner)][: chunks * inner]
        rows = []
        for start in range(0, chunks * inner, inner):
            part = stream[start : start + inner]
            if start and part[0] == self.pad:
                part = [self.end, *part[1:]]
            is_full = part[-1] not in (self.end, self.pad)
            rows.append([self.begin, *part, self.end if is_full else self.pad])
        return rows

    def files(self) -> dict[str, str]:
        """The files of a `tokenizer` folder that diffusers and transformers read, by name."""
        model = json.loads(self.inner.to_str())["model"]
        merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
        pad = self.inner.id_to_token(self.pad)
        marks = {"bos_token": BEGIN, "eos_token": END, "pad_token": pad, "unk_token": END}
        return {
            "vocab.json": json.dumps(model["vocab"], ensure_ascii=False, separators=(",", ":")),
            "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
            "special_tokens_map.json": json.dumps(marks, indent=2),
            "tokenizer_config.json": json.dumps(
                {**marks, "model_max_length": self.max_text_tokens, "tokenizer_class": "CLIPTokenizer"},
                indent=2,
            ),
        }

    def to_text(self) -> str:
        """The whole vocabulary as one text, for the metadata of a file whose model has its own."""
        model = json.loads(self.inner.to_str())["model"]
        merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
        read = {"vocabulary": model["vocab"], "merges": merges, "pad": self.inner.id_to_token(self.pad)}
        return json.dumps(read, separators=(",", ":"), sort_keys=True)


def _merges(lines: Sequence[str]) -> list[tuple[str, str]]:
    pairs = (line.split(" ") for line in lines if line.strip() and not line.startswith("#version"))
    return [(first, second) for first, second in pairs]


def _read_json(path: Path) -> Mapping[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _mark(value: Any, default: str) -> str:
    """A special token, which files write as a text or as an object around it."""
    return str(value["content"] if isinstance(value, dict) else value or default)


def encode(text_encoder: CLIPTextModel, token_ids: Tensor, *, clip_skip: int = 1) -> Tensor:
    """What the UNet attends to: CLIP's states of all chunks, joined.

    Args:
        token_ids: [batch, chunks, n], int64, as the tokenizer gives them, on the encoder's device.
        clip_skip: 1 is the last layer, 2 the one before it, as kohya's scripts and A1111 count (diffusers
            counts one less); the final layer norm is applied to either.
    Returns: [batch, chunks * (n - 2) + 2, dim], differentiable.

    Raises:
        InputError: more layers are skipped than there are.
    """
    batch, chunks, length = token_ids.shape
    num_layers = int(text_encoder.config.num_hidden_layers)
    if not 1 <= clip_skip <= num_layers:
        raise InputError(
            f"clip skip {clip_skip} is not possible with a text encoder of {num_layers} layers",
            hint=f"write 1 to {num_layers}",
        )
    flat = token_ids.view(batch * chunks, length)
    states: Tensor
    if clip_skip == 1:
        states = text_encoder(flat).last_hidden_state
    else:
        hidden = text_encoder(flat, output_hidden_states=True).hidden_states[-clip_skip]
        states = final_layer_norm(text_encoder)(hidden)
    states = states.view(batch, chunks, length, -1)
    if chunks == 1:
        return states[:, 0]
    inner = states[:, :, 1:-1].flatten(1, 2)
    return torch.cat([states[:, 0, :1], inner, states[:, -1, -1:]], dim=1)


def final_layer_norm(text_encoder: nn.Module) -> nn.Module:
    """The layer norm after the last layer, nested in `text_model` or not (transformers since 5.6)."""
    inner: nn.Module = getattr(text_encoder, "text_model", text_encoder)
    return inner.get_submodule("final_layer_norm")
