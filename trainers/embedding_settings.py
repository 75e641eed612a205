"""Settings of embeddings that are trained together with an adapter or a model: pivotal tuning."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.settings import option


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """New words, and how their vectors learn."""

    embeddings: Path | None = option(
        None,
        "Words that get vectors of their own, which learn too (pivotal tuning): emb_init.json as celforge "
        'caption writes it, {"name": ["words to start it from"]}.',
        metavar="FILE",
    )
    embedding_vectors: int = option(
        0, "Vectors of each embedding; 0 takes one for each token of the words it starts from.", min=0, max=75
    )
    embedding_learning_rate: float | None = option(
        None, "Of the embeddings, where it differs from that of the text encoder.", min=0
    )
    embedding_weight_decay: float = option(0.0, "Weight decay of the embeddings.", min=0, max=1)
    embedding_norm_pull: float = option(
        0.1,
        "How far a vector's norm is taken back to the mean of the vocabulary's after a step, by its power: 0 "
        "leaves it, 1 holds it there.",
        min=0,
        max=1,
    )
    embedding_until: float = option(
        0.0,
        "Step from which on the embeddings learn no more; below 1 a share of the run, 0 never.",
        min=0,
    )
