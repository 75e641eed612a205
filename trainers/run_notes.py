"""What the course of a run says that a person should know, each thing once: it overfits, or it falls apart.

A pure function of the lines of metrics.jsonl: a run that goes on knows what was said before it.
"""

from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.curves import value_text

RISEN = 1.01  # over the lowest validation loss; the same pictures with the same noise vary by nothing
TIMES_RISEN = 3  # validations one after the other above it
EXPLODED = 2.5  # over the median of the smoothed loss; that of single pictures is smoothed away by then
ENOUGH_LINES = 20  # before a median is one
FALLEN_APART = 2.0  # over the lowest validation loss


@dataclass(frozen=True, slots=True)
class Note:
    """One thing, in a sentence with its remedy."""

    step: int
    kind: Literal["overfits", "diverges"]
    text: str


@dataclass(slots=True)
class Watch:
    """Looks at every line of a run once, in their order."""

    notes: list[Note] = field(default_factory=list)
    _smoothed: list[float] = field(default_factory=list)  # sorted
    _best: Mapping[str, Any] | None = None
    _above: int = 0  # validations since the best one that are clearly worse

    def look(self, line: Mapping[str, Any]) -> list[Note]:
        """What this line is the first to show."""
        found = [one for one in (self._validation(line), self._training(line)) if one is not None]
        known = {note.kind for note in self.notes}
        new = [one for one in {note.kind: note for note in found}.values() if one.kind not in known]
        self.notes += new
        return new

    def _validation(self, line: Mapping[str, Any]) -> Note | None:
        loss = line.get("validation_loss")
        if loss is None:
            return None
        best = self._best
        if best is None or loss < best["validation_loss"]:
            self._best, self._above = line, 0
            return None
        lowest, step = best["validation_loss"], best["step"]
        self._above = self._above + 1 if loss > RISEN * lowest else 0
        if loss > FALLEN_APART * lowest:
            return _diverged(line["step"], "validation loss", loss, f"{value_text(lowest)} at step {step:,}")
        if self._above < TIMES_RISEN or not _learns(best, line):
            return None
        return Note(
            line["step"],
            "overfits",
            f"it overfits since step {step:,}: there the loss of held-out pictures was {value_text(lowest)}, "
            f"now it is {value_text(loss)}, while that of training pictures fell from "
            f"{value_text(best['validation_train_loss'])} to {value_text(line['validation_train_loss'])}; "
            "take a model from about there, train for fewer steps, or give more pictures",
        )

    def _training(self, line: Mapping[str, Any]) -> Note | None:
        smoothed = line.get("smoothed_loss")
        if smoothed is None:
            return None
        seen = self._smoothed
        median = seen[len(seen) // 2] if len(seen) >= ENOUGH_LINES else None
        insort(seen, smoothed)
        if median is None or smoothed <= EXPLODED * median:
            return None
        return _diverged(line["step"], "loss", smoothed, f"about {value_text(median)} before")


def _learns(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether training pictures are known better than then."""
    name = "validation_train_loss"
    return name in then and name in now and now[name] < then[name]


def _diverged(step: int, what: str, loss: float, before: str) -> Note:
    return Note(
        step,
        "diverges",
        f"it diverges: the {what} is {value_text(loss)} at step {step:,} and was {before}; lower "
        "--learning-rate and start from the last good model",
    )


def notes_of(lines: Iterable[Mapping[str, Any]]) -> list[Note]:
    """All notes of a run's lines."""
    watch = Watch()
    for line in lines:
        watch.look(line)
    return watch.notes
