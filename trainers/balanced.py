"""How concepts share the batches.

`spread` changes nothing of how often a picture is seen: the visits of each concept are laid evenly along the
queue of their bucket, so that every batch holds each in proportion. `even` gives every concept the same part
of an epoch of the same length, or a part by its weight: the repeats of a concept's pictures are multiplied by
one factor, so that they count among themselves as before, exactly, and between concepts no more. A batch is
of one bucket: a concept that has no picture in it has no part of it, and gets its own in others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from pipeline.errors import SettingsError
from pipeline.settings import nearest
from trainers.dataset import Example, TrainingData
from trainers.held_out import concepts_of
from trainers.train_settings import Settings


def class_of(example: Example) -> str:
    """What a picture counts for in a batch; one of two characters is a class of its own."""
    return "+".join(concepts_of(example))


def balanced(data: TrainingData, settings: Settings) -> TrainingData:
    """The data with repeats that give every concept its part.

    Raises:
        SettingsError: a weight of no concept, or no number above 0; pictures that shall share a batch.
    """
    if settings.batch_concepts == "random":
        return data
    grouped = next((one for one in data.examples if one.batch_id), None)
    if grouped is not None:
        raise SettingsError(
            f'batch_concepts = "{settings.batch_concepts}" spreads pictures over the batches, and batch_id '
            f'"{grouped.batch_id}" in {grouped.folder_path} keeps some together',
            hint='take batch_id out of the tree, or write batch_concepts = "random"',
        )
    if settings.batch_concepts == "spread":
        return data
    sums: dict[str, Fraction] = {}
    for one in data.examples:
        if one.terms.is_reg:  # shown as often as --reg-ratio says, beside all concepts
            continue
        sums[class_of(one)] = sums.get(class_of(one), Fraction(0)) + one.repeats
    weights = dict.fromkeys(sums, Fraction(1)) | dict(_weights(settings.concept_weight, sums))
    total, whole = sum(sums.values(), Fraction(0)), sum(weights.values(), Fraction(0))
    factors = {name: weights[name] / whole * total / sums[name] for name in sums}
    return replace(
        data,
        examples=[
            one if one.terms.is_reg else replace(one, repeats=one.repeats * factors[class_of(one)])
            for one in data.examples
        ],
    )


def _weights(texts: Sequence[str], known: Mapping[str, Fraction]) -> Iterator[tuple[str, Fraction]]:
    for text in texts:
        name, _, number = (part.strip() for part in text.rpartition("="))
        try:
            weight = Fraction(number)
        except (ValueError, ZeroDivisionError):
            weight = Fraction(0)
        if not name or weight <= 0:
            raise SettingsError(
                f'concept_weight must be NAME=WEIGHT with a weight above 0, found "{text}"',
                hint="for instance --concept-weight Sabine=2",
            )
        if name not in known:
            near = nearest(name, known)
            hint = f'did you mean "{near}"?' if near else f"known: {', '.join(sorted(known)[:20])}"
            raise SettingsError(f'concept_weight: there is no concept "{name}" in the data set', hint=hint)
        yield name, weight
