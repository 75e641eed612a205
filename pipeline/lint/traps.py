"""The catalogue of traps: a name, how bad it is, whom it catches, what goes wrong, and what to do.

They are described in traps.toml; the table in docs/check.md is made from it.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from pipeline.errors import SettingsError
from pipeline.settings import nearest

Trainer = Literal["kohya", "everydream"]
Severity = Literal["error", "warning", "note"]

TRAINERS: tuple[Trainer, ...] = ("kohya", "everydream")
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Trap:
    """One way in which a tree is not trained as its owner thinks.

    Attributes:
        severity: `error` where pictures or captions are lost or taken wrongly, or the trainer stops;
            `warning` where that may be meant; `note` where it is good to know.
        unit: what is counted, in the singular.
        what: what goes wrong.
        fix: the next thing to do.
        mended: whether `--fix` does it.
    """

    name: str
    severity: Severity
    trainers: tuple[Trainer, ...]
    unit: str
    what: str
    fix: str
    mended: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A trap at one place.

    Attributes:
        path: below the folder that is checked, with forward slashes; `.` is that folder.
        detail: what is special about this one.
        count: how many of the trap's unit it stands for.
    """

    trap: str
    path: str
    detail: str = ""
    count: int = 1


@cache
def traps() -> dict[str, Trap]:
    """Every trap by its name, in the order of traps.toml."""
    data = tomllib.loads(files("pipeline.lint").joinpath("traps.toml").read_text(encoding="utf-8"))
    return {name: Trap(name, **{**row, "trainers": tuple(row["trainers"])}) for name, row in data.items()}


def known_traps(names: Iterable[str], flag: str) -> frozenset[str]:
    """Names of traps as somebody typed them.

    Raises:
        SettingsError: there is no such trap; the nearest is named.
    """
    found = frozenset(names)
    for name in sorted(found - set(traps())):
        near = nearest(name, [known.replace("-", "_") for known in traps()])
        hint = f'did you mean "{near.replace("_", "-")}"?' if near else f"known: {', '.join(sorted(traps()))}"
        raise SettingsError(f'{flag}: there is no trap "{name}"', hint=hint)
    return found


def trap_table() -> str:
    """Every trap as a Markdown table, errors first."""
    lines = ["| trap | severity | for | what goes wrong | what to do |", "| --- | --- | --- | --- | --- |"]
    for severity in SEVERITIES:
        for trap in traps().values():
            if trap.severity == severity:
                whom = "both" if trap.trainers == TRAINERS else trap.trainers[0]
                fix = trap.fix + (" (`--fix`)" if trap.mended else "")
                lines.append(f"| `{trap.name}` | {severity} | {whom} | {trap.what} | {fix} |")
    return "\n".join(lines) + "\n"
