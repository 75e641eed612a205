"""Checks of torch for `celforge doctor`: its build, whether it reaches the card, and the torchvision trap."""

from collections.abc import Mapping
from typing import Any

from pipeline.machine.findings import Facts, Finding
from pipeline.machine.packages import Answer, own_command, torch_command, uninstall_command

TRAINING = "Training"

OLDEST_TESTED, NEWEST_TESTED = "2.7", "2.14"
_PINNED = "torch==2.13.0"
_IMPORT_S = 120.0  # a first import from a slow disk takes a minute

_TORCH_CODE = """
import warnings
warnings.simplefilter("ignore")
import torch
answer = {"cuda": torch.version.cuda or "", "hip": torch.version.hip or "", "device": "", "reason": ""}
if torch.cuda.is_available():
    answer["device"] = torch.cuda.get_device_name(0)
    try:
        torch.ones(2, device="cuda").sum().item()
    except Exception as error:
        answer["reason"] = str(error).splitlines()[0]
else:
    try:
        torch.cuda.init()
    except Exception as error:
        answer["reason"] = str(error).splitlines()[0]
answer["mps"] = bool(getattr(torch.backends, "mps", None) and torch.backends.mps.is_available())
"""
_TORCHVISION_CODE = """
import torchvision
answer = torchvision.__version__
"""


def check_torch(facts: Facts) -> list[Finding]:
    """The version of torch against the tested range, and whether it reaches the card."""
    version = facts.versions.get("torch")
    if version is None:
        text = "not installed; only training needs it"
        return [Finding(TRAINING, "torch", "note", text, _first_install(facts))]
    answer = facts.ask(_TORCH_CODE, _IMPORT_S)
    findings = (
        [_cannot_import(version, answer, facts)]
        if answer.error
        else [_build_finding(version, answer.value, facts)]
    )
    return [*findings, *_range_findings(version), *_torchvision_findings(version, answer, facts)]


def _first_install(facts: Facts) -> str:
    """On Windows the plain package has no CUDA: torch comes first, in the build for the driver."""
    needs_build = facts.platform == "win32" and facts.nvidia.gpus
    return f"{torch_command(_PINNED)}\n{own_command('train')}" if needs_build else own_command("train")


def _cannot_import(version: str, answer: Answer, facts: Facts) -> Finding:
    error = answer.error.splitlines()[0]
    missing_dll = facts.platform == "win32" and ("DLL" in error or "WinError" in error)
    fix = "winget install Microsoft.VCRedist.2015+.x64" if missing_dll else torch_command(_PINNED)
    return Finding(TRAINING, "torch", "problem", f"{version} cannot be imported: {error}", fix)


def _build_finding(version: str, told: Mapping[str, Any], facts: Facts) -> Finding:
    build = f"CUDA {told['cuda']}" if told["cuda"] else f"ROCm {told['hip']}" if told["hip"] else "CPU build"
    text = f"{version} ({build})"
    if told["device"] and told["reason"]:
        why = f"{text} cannot compute on {told['device']}: {told['reason']}"
        return Finding(TRAINING, "torch", "problem", why, torch_command(_PINNED))
    if told["device"] or told["mps"]:
        return Finding(
            TRAINING, "torch", "ok", f"{text}, trains on {told['device'] or 'the Apple GPU (MPS)'}"
        )
    hidden = facts.environment.get("CUDA_VISIBLE_DEVICES")
    if facts.nvidia.gpus and told["cuda"] and hidden is not None and hidden.strip() in ("", "-1"):
        fix = "set CUDA_VISIBLE_DEVICES=" if facts.platform == "win32" else "unset CUDA_VISIBLE_DEVICES"
        return Finding(
            TRAINING, "torch", "note", f"{text}; CUDA_VISIBLE_DEVICES hides every card from it", fix
        )
    if facts.nvidia.gpus:
        return Finding(
            TRAINING, "torch", "problem", f"{text}: {_why_no_cuda(told, facts)}", torch_command(_PINNED)
        )
    return Finding(TRAINING, "torch", "note", f"{text}; no card to train on, so training runs on the CPU")


def _why_no_cuda(told: Mapping[str, Any], facts: Facts) -> str:
    """Why torch does not see a card that the driver sees."""
    if not told["cuda"]:
        return "it has no CUDA in it and leaves the card idle"
    driver = facts.nvidia.cuda
    if "too old" in told["reason"] or (driver and _numbers(driver) < _numbers(told["cuda"])[:1]):
        limit = f", which runs CUDA up to {driver}" if driver else ""
        return f"too new for the driver{limit}; update the driver, or change torch"
    return told["reason"] or "CUDA does not start, and torch gives no reason"


def _range_findings(version: str) -> list[Finding]:
    number = _numbers(version.split("+")[0])[:2]
    if number < _numbers(OLDEST_TESTED):
        text = f"{version} is older than any tested ({OLDEST_TESTED} to {NEWEST_TESTED})"
        return [Finding(TRAINING, "torch version", "problem", text, torch_command(_PINNED))]
    if number > _numbers(NEWEST_TESTED):
        text = f"{version} is newer than any tested ({OLDEST_TESTED} to {NEWEST_TESTED}); if training fails:"
        return [Finding(TRAINING, "torch version", "note", text, torch_command(_PINNED))]
    return []


def _numbers(version: str) -> tuple[int, ...]:
    """`2.13.0` -> (2, 13, 0); stops at the first part that is no number."""
    parts: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def _torchvision_findings(torch_version: str, torch: Answer, facts: Facts) -> list[Finding]:
    """A torchvision of another build than torch fails to load, and then transformers cannot import CLIP."""
    version = facts.versions.get("torchvision")
    if version is None:
        return []
    fix = uninstall_command("torchvision")
    answer = facts.ask(_TORCHVISION_CODE, _IMPORT_S)
    if answer.error:
        error = answer.error.splitlines()[0]
        text = f"{version} does not fit torch {torch_version} ({error}): this breaks CLIP; not needed"
        return [Finding(TRAINING, "torchvision", "problem", text, fix)]
    is_cpu = torch.value is not None and not torch.value["cuda"] and not torch.value["hip"]
    if is_cpu and facts.platform != "darwin":
        text = f"{version} beside a CPU build of torch: once they differ, CLIP breaks; not needed"
        return [Finding(TRAINING, "torchvision", "note", text, fix)]
    return [Finding(TRAINING, "torchvision", "ok", f"{version}, fits torch (not needed)")]
