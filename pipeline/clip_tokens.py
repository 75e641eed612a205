"""How many tokens CLIP's text encoder makes of a text: 75 of them fit beside its begin and end marks.

The byte pair encoding itself is done by the `tokenizers` library, put together here as transformers does it
for CLIP, so that what is counted is what a trainer reads. The merges are OpenAI's (clip_merges.LICENSE).
"""

import gzip
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_TOKENS = 75  # 77 positions, less begin and end
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
# openai/CLIP: clip/simple_tokenizer.py; its marks of begin and end are added tokens here
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def count_tokens(text: str) -> int:
    """Tokens of a text, begin and end marks not counted.

    No token reaches over a space, so words are counted one by one, and known words not again: captions are
    made of the same few thousand.
    """
    return sum(map(_count_word, text.split(" ")))


def fits(text: str, max_tokens: int = MAX_TOKENS) -> bool:
    """Say whether a trainer reads the whole text."""
    return count_tokens(text) <= max_tokens


def is_one_token(word: str) -> bool:
    """Say whether a word is a token of its own, so that an embedding of that name would hide it."""
    return clip_tokenizer().token_to_id(f"{word.lower()}</w>") is not None


@cache
def _count_word(word: str) -> int:
    return len(clip_tokenizer().encode(word, add_special_tokens=False).ids)


@cache
def clip_tokenizer() -> "Tokenizer":
    """CLIP's tokenizer, with the ids of OpenAI's models; made at the first call, in a tenth of a second."""
    packed = files("pipeline").joinpath("clip_merges.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()
    merges = [(first, second) for first, second in (line.split(" ") for line in lines)]
    letters = _byte_letters()
    words = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *(first + second for first, second in merges),
    ]
    return byte_pair_tokenizer({word: number for number, word in enumerate([*words, BEGIN, END])}, merges)


def byte_pair_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> "Tokenizer":
    """A tokenizer made as CLIP's is, of any vocabulary that has the marks of begin and end."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    model = models.BPE(
        vocab=vocabulary,
        merges=merges,
        continuing_subword_prefix="",
        end_of_word_suffix="</w>",
        unk_token=END,
        fuse_unk=False,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in (BEGIN, END)])
    return tokenizer


def _byte_letters() -> list[str]:
    """One printable letter for each of the 256 bytes, in the order of CLIP's first ids.

    The printable ones of Latin-1 stand for themselves, the others are moved up to 256 and beyond.
    """
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(code) for code in (*own, *range(256, 256 + 256 - len(own)))]
