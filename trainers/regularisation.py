"""Regularisation pictures (prior preservation): pictures of the class beside those of the subject.

Ruiz et al. 2022, arXiv:2208.12242, section 3.2: the second term of the loss, weighed by lambda. As in kohya's
scripts the two kinds share batches, and a pass shows as many of one as of the other. There the list of
regularisation pictures is repeated, or cut, until the numbers are equal; here their repeats are scaled, so
that all of them are seen, each equally often.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from pipeline.errors import InputError
from trainers.dataset import Example, TrainingData, read_training_data
from trainers.train_settings import Settings


def read_data(root: Path, settings: Settings, *, count_tokens: Callable[[str], int]) -> TrainingData:
    """The data set with its regularisation pictures.

    Raises:
        InputError: as `read_training_data`; nothing else is in it; or one folder lies in the other.
    """
    data = read_training_data(root, settings, count_tokens=count_tokens, workers=settings.workers)
    if settings.reg_data is not None:
        path = settings.reg_data
        if not path.exists():
            raise InputError(f"there is no folder of regularisation pictures {path}", hint="mend --reg-data")
        _refuse_overlap(root, path)
        found = read_training_data(path, settings, count_tokens=count_tokens, workers=settings.workers)
        data = _joined(data, found)
    return _weighed(data, settings)


def _refuse_overlap(root: Path, reg_data: Path) -> None:
    one, other = root.resolve(), reg_data.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise InputError(
            f"{reg_data} and {root} lie in each other, and its pictures would be of both kinds",
            hint="keep regularisation pictures in a folder beside the data set",
        )


def _joined(data: TrainingData, found: TrainingData) -> TrainingData:
    name = found.root.name
    terms = {id(one.terms): one.terms for one in found.examples}
    marked = {
        key: replace(one, is_reg=True, concept=f"{name}/{one.concept}".rstrip("/"))
        for key, one in terms.items()
    }
    added = [replace(one, terms=marked[id(one.terms)]) for one in found.examples]
    return replace(
        data,
        examples=[*data.examples, *added],
        notes=(*data.notes, *found.notes),
        problems=(*data.problems, *found.problems),
        unreadable=(*data.unreadable, *found.unreadable),
        num_long_captions=data.num_long_captions + found.num_long_captions,
    )


def _weighed(data: TrainingData, settings: Settings) -> TrainingData:
    reg = regularisation(data.examples)
    if not reg:
        weight = settings.prior_loss_weight
        if weight == 1 and settings.reg_ratio == 1:
            return data
        said = "prior_loss_weight" if weight != 1 else "reg_ratio"
        sentence = f"{said} has no effect: there are no regularisation pictures; give --reg-data"
        return replace(data, problems=(*data.problems, sentence))
    if len(reg) == len(data.examples):
        raise InputError(
            f"{data.root} holds regularisation pictures (is_reg) and nothing else",
            hint="name a subset without is_reg",
        )
    trained = sum((one.repeats for one in data.examples if not one.terms.is_reg), Fraction(0))
    shown = sum((one.repeats for one in reg), Fraction(0))
    wanted = Fraction(settings.reg_ratio).limit_denominator(10_000)
    factor = trained * wanted / shown if settings.reg_ratio else Fraction(1)
    terms = {id(one.terms): one.terms for one in reg}
    weighed = {
        key: replace(one, loss_scale=one.loss_scale * settings.prior_loss_weight)
        for key, one in terms.items()
    }
    examples = [
        replace(one, repeats=one.repeats * factor, terms=weighed[id(one.terms)]) if one.terms.is_reg else one
        for one in data.examples
    ]
    problems = data.problems
    if settings.prior_loss_weight == 0:
        problems = (*problems, "prior_loss_weight is 0: regularisation pictures are shown and not learned")
    return replace(data, examples=examples, problems=problems)


def regularisation(examples: Sequence[Example]) -> list[Example]:
    """Those that are regularisation pictures."""
    return [one for one in examples if one.terms.is_reg]


def in_words(examples: Sequence[Example], weight: float) -> str:
    """What a plan says of them, "" when there are none."""
    reg = regularisation(examples)
    if not reg:
        return ""
    shown = float(sum(one.repeats for one in reg))
    return f"{len(reg):,} pictures, seen {shown:,.2f} times in one pass, their loss times {weight:g}"
