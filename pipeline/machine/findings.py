"""What `celforge doctor` finds: a status and the thing to type; and the facts that its checks look at."""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pipeline.machine.hardware import NvidiaReport
from pipeline.machine.packages import Answer, ask_python

Status = Literal["ok", "note", "problem"]

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 4  # shorter values ("1", "yes") would tear holes into ordinary text


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        status: `problem` when a command will fail or leave the card idle, `note` when it is good to know.
        fix: the exact thing to type, perhaps several lines; empty when there is nothing to do.
    """

    area: str
    name: str
    status: Status
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the checks look at, so that a test can describe any machine.

    Attributes:
        versions: of the installed distributions, by normal name.
        vendors: makers of the graphics cards that the system lists, driver or not.
        ask: runs code in a fresh Python: (code, time limit in seconds) -> answer.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    nvidia: NvidiaReport = field(default_factory=lambda: NvidiaReport(found=False))
    vendors: Sequence[str] = ()
    folder: Path = Path()
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    platform: str = sys.platform
    ask: Callable[[str, float], Answer] = ask_python


Check = Callable[[Facts], list[Finding]]


def without_secrets(finding: Finding, environment: Mapping[str, str]) -> Finding:
    """The finding with every secret of the environment, and passwords inside of addresses, struck out."""
    return replace(finding, text=_struck(finding.text, environment), fix=_struck(finding.fix, environment))


def _struck(text: str, environment: Mapping[str, str]) -> str:
    for name, value in environment.items():
        secret = value.strip()
        if _SECRET_NAME.search(name) and len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "[hidden]")
    text = re.sub(r"\bhf_\w{8,}", "[hidden]", text)
    return re.sub(r"://[^/\s@]+@", "://[hidden]@", text)


def gib(size_bytes: float) -> str:
    """A size as people read it: `15.6 GiB`, `512 MiB`."""
    mib = size_bytes / 2**20
    return f"{mib / 1024:,.1f} GiB" if mib >= 1024 else f"{mib:,.0f} MiB"


def short_path(path: Path) -> str:
    """A path with the home folder as `~`, so that a report can be shown to others."""
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except (ValueError, RuntimeError):  # not below it, or there is no home
        return str(path)
