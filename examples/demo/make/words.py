"""Captions of drawings, and the vocabulary made of them: CLIP's byte pair encoding with a few hundred tokens."""

import json
import random
from collections.abc import Sequence

from characters import Scene, tags_of
from tokenizers import Tokenizer as BytePairs
from tokenizers import models, pre_tokenizers, trainers

from pipeline.clip_tokens import BEGIN, END, byte_pair_tokenizer, clip_tokenizer
from trainers.conditioning import Tokenizer

MAX_TEXT_TOKENS = 48
MOST_TOKENS = 1400  # enough that every word of a tag becomes one token


def shuffled(scene: Scene, rng: random.Random, *, dropout: float = 0.0) -> list[str]:
    """The tags of a scene in any order, some left out."""
    tags = [tag for tag in tags_of(scene) if rng.random() >= dropout]
    rng.shuffle(tags)
    return tags


def new_tokenizer(captions: Sequence[str]) -> Tokenizer:
    """Learn a vocabulary from captions, with CLIP's rules and its marks of begin and end."""
    clip = clip_tokenizer()
    learner = BytePairs(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    course = trainers.BpeTrainer(
        vocab_size=MOST_TOKENS, end_of_word_suffix="</w>", initial_alphabet=letters, show_progress=False
    )
    learner.train_from_iterator(captions, course)
    merges = [(first, second) for first, second in json.loads(learner.to_str())["model"]["merges"]]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(a + b for a, b in merges), BEGIN, END]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    inner = byte_pair_tokenizer(vocabulary, merges)
    end = vocabulary[END]
    return Tokenizer(inner, MAX_TEXT_TOKENS, begin=vocabulary[BEGIN], end=end, pad=end)
