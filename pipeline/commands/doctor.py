"""Look at Python, GPU, packages and disk, and say what to mend.

Every line is ok, a note (good to know, nothing fails) or a problem; what to type stands below the table. The
exit code is 1 when there is a problem, else 0. No secret is ever shown, so the report can be given to others.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import console
from pipeline.errors import ExitCode

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.machine.findings import Finding

_WIDTH_WITHOUT_TERMINAL = 110
_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def _doctor(json: bool) -> None:
    from pipeline.machine.doctor import examine, gather_facts, has_problem

    findings = examine(gather_facts(Path.cwd()))
    if json:
        console.write_json([asdict(finding) for finding in findings])
    else:
        _draw(findings)
        for line in advice(findings):
            console.write(line)
    if has_problem(findings):
        click.get_current_context().exit(ExitCode.FAILED)


def _draw(findings: "Sequence[Finding]") -> None:
    """A headed table for each area, all with the same columns; plain lines where there is no terminal."""
    from rich.console import Console, Group
    from rich.text import Text

    areas = dict.fromkeys(finding.area for finding in findings)
    drawn = [
        part for area in areas for part in (Text(f"\n{area}", style="bold"), _area_table(area, findings))
    ]
    if sys.stdout.isatty():
        Console(highlight=False).print(Group(*drawn))
        return
    drawer = Console(width=_WIDTH_WITHOUT_TERMINAL, force_terminal=False, highlight=False)
    with drawer.capture() as captured:
        drawer.print(Group(*drawn))
    for line in captured.get().strip("\n").splitlines():
        console.write(line.rstrip())  # rich fills lines with spaces


def _area_table(area: str, findings: "Sequence[Finding]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    drawn = Table.grid(padding=(0, 2))
    drawn.add_column(no_wrap=True, width=2 + max(map(len, _STYLES)))
    drawn.add_column(no_wrap=True, width=max(len(finding.name) for finding in findings))
    drawn.add_column(overflow="fold")
    for row in (finding for finding in findings if finding.area == area):
        status = Text(f"  {row.status}", style=_STYLES[row.status])
        drawn.add_row(status, row.name, Text(console.printable(row.text)))
    return drawn


def advice(findings: "Sequence[Finding]") -> list[str]:
    """What to type, a command a line and never wrapped, then one line that sums up."""
    lines: list[str] = []
    for status, title in (("problem", "To mend"), ("note", "If you want to")):
        names: dict[str, list[str]] = {}
        for finding in findings:
            if finding.status == status and finding.fix:
                names.setdefault(finding.fix, []).append(f"{finding.area}, {finding.name}")
        for fix, those in names.items():
            lines += ["", f"{title} ({'; '.join(those)}):", *(f"  {line}" for line in fix.splitlines())]
    problems, notes = (
        sum(finding.status == status for finding in findings) for status in ("problem", "note")
    )
    return [*lines, "", f"{_count(problems, 'problem')}, {_count(notes, 'note')}"]


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


command = click.Command(
    "doctor",
    params=[click.Option(["--json"], is_flag=True, help="Print a JSON list on stdout instead of the table.")],
    callback=_doctor,
    help=__doc__,
)
