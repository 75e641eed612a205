"""Findings for a person: one paragraph a trap, however many files it has; and for a machine."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.lint.traps import SEVERITIES, Finding, Severity, Trap, traps

_MOST_EXAMPLE = 160  # characters
_EXPLAIN_OTHERS = ("nothing-read", "leaf-folder")  # come first


@dataclass(frozen=True, slots=True)
class Group:
    """All findings of one trap."""

    trap: Trap
    findings: Sequence[Finding]

    @property
    def count(self) -> int:
        """How many of the trap's unit."""
        return sum(one.count for one in self.findings)

    @property
    def num_folders(self) -> int:
        """In how many folders they lie."""
        return len({one.path.rpartition("/")[0] for one in self.findings})


def grouped(findings: Sequence[Finding]) -> list[Group]:
    """Findings by trap: errors first, and among equals the most frequent."""
    by_trap: dict[str, list[Finding]] = {}
    for one in findings:
        by_trap.setdefault(one.trap, []).append(one)
    groups = [Group(traps()[name], found) for name, found in by_trap.items()]
    return sorted(groups, key=_order)


def _order(group: Group) -> tuple[int, bool, int]:
    name = group.trap.name
    return SEVERITIES.index(group.trap.severity), name not in _EXPLAIN_OTHERS, -group.count


def _examples(findings: Sequence[Finding], most: int) -> list[Finding]:
    """A few findings from as many folders as can be, in their order."""
    turns: Counter[str] = Counter()
    ranked: list[tuple[int, int]] = []
    for one in findings:
        folder = one.path.rpartition("/")[0]
        ranked.append((turns[folder], len(ranked)))
        turns[folder] += 1
    return [findings[index] for index in sorted(index for _, index in sorted(ranked)[:most])]


def counts(groups: Sequence[Group]) -> dict[Severity, int]:
    """How many errors, warnings and notes."""
    found: Counter[Severity] = Counter()
    for group in groups:
        found[group.trap.severity] += group.count
    return {severity: found[severity] for severity in SEVERITIES}


def lines_of(groups: Sequence[Group], *, examples: int) -> list[str]:
    """Paragraphs for the terminal.

    Args:
        examples: places shown of each trap.
    """
    lines = []
    for severity in SEVERITIES:
        of_it = [group for group in groups if group.trap.severity == severity]
        if of_it:
            lines += ["", f"{severity}s"]
        for group in of_it:
            lines += _paragraph(group, examples)
    return lines


def _paragraph(group: Group, examples: int) -> list[str]:
    trap = group.trap
    where = f" in {plural(group.num_folders, 'folder')}" if group.num_folders > 1 else ""
    lines = [f"  {trap.name}: {plural(group.count, trap.unit)}{where}", f"    {trap.what}"]
    for one in _examples(group.findings, examples):
        text = f"{one.path}{_of_many(one, trap)}{': ' if one.detail else ''}{one.detail}"
        lines.append(f"      {_cut(text)}")
    left = len(group.findings) - examples
    if examples and left > 0:
        lines.append(f"      ... and {left:,} more; --json lists all")
    return [*lines, f"    -> {trap.fix}{' Or: --fix' if trap.mended and '--fix' not in trap.fix else ''}"]


def _of_many(finding: Finding, trap: Trap) -> str:
    return f" ({plural(finding.count, trap.unit)})" if finding.count > 1 else ""


def _cut(text: str) -> str:
    text = text.replace("\n", "\\n")  # a name may hold one, and is still one line here
    return text if len(text) <= _MOST_EXAMPLE else text[: _MOST_EXAMPLE - 3] + "..."


def plural(count: int, unit: str) -> str:
    """`1 picture`, `3,000 pictures`."""
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def as_json(groups: Sequence[Group]) -> dict[str, Any]:
    """`traps` (counted) and `findings` (each) for `--json`."""
    rows: list[dict[str, Any]] = [
        {
            "trap": group.trap.name,
            "severity": group.trap.severity,
            "count": group.count,
            "folders": group.num_folders,
            "what": group.trap.what,
            "fix": group.trap.fix,
            "mended_by_fix": group.trap.mended,
        }
        for group in groups
    ]
    findings: list[dict[str, Any]] = [
        {
            "trap": one.trap,
            "severity": group.trap.severity,
            "path": one.path,
            "detail": one.detail,
            "count": one.count,
        }
        for group in groups
        for one in group.findings
    ]
    return {"traps": rows, "findings": findings}
