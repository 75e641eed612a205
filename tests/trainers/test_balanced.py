"""How concepts share the batches, and that repeats hold where they shall."""

import math
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import test_train as given
import test_visits as visiting
from hypothesis import given as every
from hypothesis import settings
from hypothesis import strategies as st

from tests.trainers.conftest import assert_same
from trainers.visits import Visits

dataset, train = given.dataset, given.train
Train = given.Train
CONCEPTS = st.lists(st.sampled_from("abc"), min_size=8, max_size=8)


@settings(max_examples=40)
@every(visiting.PICTURES, CONCEPTS, visiting.BATCHES, visiting.SEEDS, st.integers(1, 7))
def test_spreading_changes_nothing_of_how_often_a_picture_is_seen(
    pictures: list[visiting.Picture], concepts: list[str], batch_size: int, seed: int, epochs: int
) -> None:
    spread = Visits(pictures, batch_size=batch_size, seed=seed, concepts=concepts[: len(pictures)])
    plain = Visits(pictures, batch_size=batch_size, seed=seed)
    assert spread.queued(epochs) == plain.queued(epochs)
    number = spread.batches_before(epochs)
    shown = [visit for at in range(number) for visit in spread.batch(at)]
    assert len(set(shown)) == len(shown) == number * batch_size
    for example, count in Counter(visit.example for visit in shown).items():
        assert count <= math.ceil(epochs * pictures[example].repeats)


def shares(concepts: list[str], repeats: dict[str, Fraction], *, is_spread: bool) -> list[Counter[str]]:
    """What 200 batches of 8 hold."""
    pictures = [visiting.Picture(repeats[name]) for name in concepts]
    visits = Visits(pictures, batch_size=8, seed=3, concepts=concepts if is_spread else None)
    return [Counter(concepts[visit.example] for visit in visits.batch(at)) for at in range(200)]


def test_every_batch_holds_each_concept_in_proportion() -> None:
    concepts = ["a"] * 40 + ["b"] * 20 + ["c"] * 20
    repeats = {"a": Fraction(1), "b": Fraction(1), "c": Fraction(1)}
    spread = shares(concepts, repeats, is_spread=True)
    assert all(3 <= one["a"] <= 5 and 1 <= one["b"] <= 3 and 1 <= one["c"] <= 3 for one in spread)
    by_chance = shares(concepts, repeats, is_spread=False)
    assert not all(3 <= one["a"] <= 5 for one in by_chance)


def test_a_rare_concept_is_not_in_two_batches_running_while_others_wait() -> None:
    concepts = ["a"] * 78 + ["b"] * 2
    found = shares(concepts, {"a": Fraction(1), "b": Fraction(1)}, is_spread=True)
    assert max(one["b"] for one in found) == 1
    assert sum(one["b"] for one in found) == 40  # 2 of 80, 1600 visits


def test_the_order_is_another_in_every_epoch() -> None:
    concepts = ["a", "b"] * 8
    visits = Visits([visiting.Picture()] * 16, batch_size=4, seed=0, concepts=concepts)
    epochs = [tuple(visit.example for at in range(4) for visit in visits.batch(4 * k + at)) for k in range(4)]
    assert len(set(epochs)) == 4


def seen(answer: Any) -> dict[str, float]:
    assert answer.exit_code == 0, answer.stderr
    return {row["folder"]: row["seen a pass"] for row in answer.json["plan"]["folders"]}


def test_even_gives_every_concept_the_same_part_and_keeps_the_length_of_a_pass(
    train: Train, dataset: Path
) -> None:
    (dataset / "style/multiply.txt").write_text("0.5", encoding="utf-8")
    options = ("--dry-run", "--json")
    assert seen(train("locon", *options)) == {"1_character/sabine": 6.0, "style": 1.0}
    assert seen(train("locon", *options, "--batch-concepts", "spread")) == {
        "1_character/sabine": 6.0,
        "style": 1.0,
    }
    even = train("locon", *options, "--batch-concepts", "even")
    assert seen(even) == {"1_character/sabine": 3.5, "style": 3.5}
    assert even.json["plan"]["plan"]["batches"] == "of 2, on average: sabine 1.00, style 1.00"
    weighed = train("locon", *options, "--batch-concepts", "even", "--concept-weight", "sabine=2.5")
    assert seen(weighed) == {"1_character/sabine": 5.0, "style": 2.0}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--batch-concepts", "even", "--concept-weight", "sabin=2"), 'did you mean "sabine"'),
        (("--batch-concepts", "even", "--concept-weight", "sabine=0"), "a weight above 0"),
        (("--batch-concepts", "even", "--concept-weight", "sabine"), "must be NAME=WEIGHT"),
        (("--batch-concepts", "spread"), 'batch_id "twins"'),
    ],
)
def test_what_makes_no_sense_is_refused(
    train: Train, dataset: Path, options: tuple[object, ...], said: str
) -> None:
    if "batch_id" in said:
        (dataset / "style/batch_id.txt").write_text("twins", encoding="utf-8")
    answer = train("locon", "--dry-run", *options)
    assert answer.exit_code == 2
    assert said in answer.stderr


# The text encoder stops


@pytest.mark.parametrize(
    ("kind", "options"),
    [("loha", ("--precision", "bf16")), ("full", ("--optimizer", "adamw", "--lr-schedule", "constant"))],
)
def test_the_text_encoder_stays_as_it_is_from_its_step_on(
    train: Train, dataset: Path, stop_after: Any, kind: str, options: tuple[object, ...]
) -> None:
    """Its numbers after the stop are those of the run that ended there; the UNet goes on; resuming is exact."""
    common = ("--name", "a", *options)
    short, whole = dataset.parent / "short", dataset.parent / "whole"
    assert train(kind, *common, "--steps", 1, "--out", short).exit_code == 0
    assert train(kind, *common, "--steps", 3, "--text-encoder-until", 1, "--out", whole).exit_code == 0
    then, now = (
        given.torch.load(path)["tensors"]
        for path in (short / "state/step-00000001.pt", whole / "state/step-00000003.pt")
    )
    for name in then:
        is_same = given.torch.equal(then[name], now[name])
        assert is_same == name.startswith("text_encoder") or "position" in name, name
    stop_after(2)
    assert train(kind, *common, "--steps", 3, "--text-encoder-until", 0.4).exit_code == 130
    again = train(kind, *common, "--steps", 3, "--text-encoder-until", 0.4)
    assert again.exit_code == 0, again.stderr
    path = given.run_folder(dataset, "a") / "state/step-00000003.pt"
    assert_same(given.torch.load(path)["tensors"], dict(now))


def test_a_frozen_text_encoder_is_asked_once_a_caption(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainers.text_outputs import TextOutputs

    known: list[int] = []
    call = TextOutputs.__call__

    def noted(self: TextOutputs, batch: Any) -> Any:
        found = call(self, batch)
        known.append(self.num_known)
        assert not found.requires_grad or self.num_known == 0
        return found

    monkeypatch.setattr(TextOutputs, "__call__", noted)
    assert train("locon", "--steps", 4, "--text-encoder-until", 2, "--no-shuffle").exit_code == 0
    assert known[:2] == [0, 0]
    assert known[2] > 0


def test_a_stop_that_does_nothing_is_said(train: Train) -> None:
    late = train("locon", "--steps", 3, "--text-encoder-until", 5, "--dry-run")
    assert "the text encoder learns to the end, as the run has no step 5" in late.stdout
    none = train("locon", "--train", "unet", "--text-encoder-until", 5, "--dry-run")
    assert "text_encoder_until has no effect" in none.stderr
    plan = train("locon", "--steps", 10, "--text-encoder-until", 0.5, "--dry-run")
    assert "the text encoder until step 5" in plan.stdout
