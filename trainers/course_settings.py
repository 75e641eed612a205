"""Settings of what a batch holds and how long the text encoder learns."""

from dataclasses import dataclass
from typing import Literal

from pipeline.settings import option


@dataclass(frozen=True, kw_only=True)
class CourseSettings:
    """How concepts share the batches, and when the text encoder stops."""

    batch_concepts: Literal["random", "spread", "even"] = option(
        "random",
        "What a batch holds of each concept: chance decides; spread gives each its part of every batch, as "
        "its repeats have it; even gives all the same part, or parts by --concept-weight.",
    )
    concept_weight: tuple[str, ...] = option(
        (),
        "Part of a concept beside those of 1 that the others have; repeat it for more.",
        metavar="NAME=WEIGHT",
        only_if={"batch_concepts": ("even",)},
    )
    text_encoder_until: float = option(
        0.0,
        "Step from which on the text encoder learns no more; below 1 a share of the run, 0 never.",
        min=0,
        only_if={"train": ("both",)},
    )
