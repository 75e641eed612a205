"""Look at the machine and its packages, and say what is wrong and what to type, for `celforge doctor`.

Every check is isolated: one that crashes becomes a finding of its own, and the others still report.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.machine import package_checks, system_checks, torch_checks
from pipeline.machine.findings import Check, Facts, Finding, without_secrets
from pipeline.machine.hardware import graphics_vendors, query_nvidia
from pipeline.machine.packages import installed_versions

CHECKS: tuple[Check, ...] = (  # the order of the report; one area's checks stand together
    package_checks.check_python,
    package_checks.check_celforge,
    package_checks.check_dependencies,
    system_checks.check_graphics_card,
    package_checks.check_onnxruntime,
    package_checks.check_opencv,
    package_checks.check_av,
    package_checks.check_pillow,
    torch_checks.check_torch,
    package_checks.check_training_packages,
    system_checks.check_system,
    system_checks.check_terminal,
    system_checks.check_descriptors,
    system_checks.check_disk,
    system_checks.check_file_system,
    system_checks.check_names,
    system_checks.check_model_cache,
    system_checks.check_hub_settings,
)
_WORKERS = 4  # most of the time is waiting for other processes


def gather_facts(folder: Path) -> Facts:
    """Look at this machine once, for every check."""
    nvidia = query_nvidia()
    vendors = [] if nvidia.gpus else graphics_vendors()
    return Facts(versions=installed_versions(), nvidia=nvidia, vendors=vendors, folder=folder.absolute())


def examine(facts: Facts, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Run the checks, several at a time, and list what they find in the order of the checks."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        results = pool.map(lambda check: _isolated(check, facts), checks)
        return [without_secrets(finding, facts.environment) for findings in results for finding in findings]


def _isolated(check: Check, facts: Facts) -> list[Finding]:
    try:
        return check(facts)
    except Exception as error:  # the one place that isolates checks: a doctor must not faint
        name = check.__name__.removeprefix("check_").replace("_", " ")
        text = f"this check itself failed: {type(error).__name__}: {error}"
        return [Finding("Doctor", name, "problem", text)]


def has_problem(findings: Sequence[Finding]) -> bool:
    """Whether a command will fail, or leave the card idle, until something is mended."""
    return any(finding.status == "problem" for finding in findings)
