"""What the machine has: graphics cards, their driver, and the memory this process may use.

Cards are asked through `nvidia-smi` with a time limit and, where it is missing, through what the system
lists. CUDA is never initialised here, because a process that did so may not fork workers afterwards.
"""

import csv
import ctypes
import io
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_QUERY = ("index", "name", "driver_version", "memory.total", "memory.free", "compute_cap")
_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
_NO_LIMIT_BYTES = 1 << 60  # cgroup v1 writes a huge number where there is no limit


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA card as its driver reports it; a memory of 0 means the driver does not tell."""

    index: int
    name: str
    driver: str
    total_mib: int
    free_mib: int
    compute_capability: str


@dataclass(frozen=True, slots=True)
class NvidiaReport:
    """What nvidia-smi says.

    Attributes:
        cuda: newest CUDA version the driver can run, such as `12.4`; empty when unknown.
        error: why there are no cards; empty when nvidia-smi is missing or all is well.
    """

    found: bool
    gpus: tuple[Gpu, ...] = ()
    cuda: str = ""
    error: str = ""


def parse_nvidia_smi(query: str, banner: str) -> tuple[tuple[Gpu, ...], str]:
    """Cards, and the newest CUDA the driver can run, from two outputs of nvidia-smi.

    Args:
        query: of `--query-gpu=... --format=csv,noheader,nounits`.    banner: of a run without arguments.

    Drivers from 610 on write `CUDA UMD Version` where older ones write `CUDA Version`.
    """
    rows = csv.reader(io.StringIO(query), skipinitialspace=True)
    gpus = tuple(_gpu(row) for row in rows if len(row) == len(_QUERY) and row[0].isdigit())
    version = re.search(r"CUDA (?:UMD )?Version:\s*(\d+\.\d+)", banner)
    return gpus, version.group(1) if version else ""


def _gpu(row: Sequence[str]) -> Gpu:
    index, name, driver, total, free, capability = (cell.strip() for cell in row)
    return Gpu(int(index), name, driver, _number(total), _number(free), capability)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0  # "[N/A]" on cards that share memory with the CPU


def query_nvidia(timeout_s: float = 10.0) -> NvidiaReport:
    """Run nvidia-smi twice: once for the cards, once for its banner, which alone has the CUDA version."""
    program = shutil.which("nvidia-smi") or _unlisted_nvidia_smi()
    if program is None:
        return NvidiaReport(found=False)
    try:
        query = _run([program, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"], timeout_s)
        banner = _run([program], timeout_s)
    except subprocess.TimeoutExpired:
        return NvidiaReport(found=True, error=f"nvidia-smi did not answer within {timeout_s:.0f} s")
    except OSError as error:
        return NvidiaReport(found=True, error=f"nvidia-smi cannot be started: {error}")
    gpus, cuda = parse_nvidia_smi(query.stdout, banner.stdout)
    if gpus:
        return NvidiaReport(found=True, gpus=gpus, cuda=cuda)
    words = (query.stdout + query.stderr).split()
    return NvidiaReport(found=True, cuda=cuda, error=" ".join(words)[:300] or "nvidia-smi lists no card")


def _run(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _unlisted_nvidia_smi() -> str | None:
    """The places where a driver puts nvidia-smi without adding them to PATH (WSL, old Windows drivers)."""
    places = ("/usr/lib/wsl/lib/nvidia-smi", r"C:\Program Files\NVIDIA Corporation\NVSMI\nvidia-smi.exe")
    return next((place for place in places if Path(place).is_file()), None)


def has_nvidia_driver() -> bool:
    """Whether the driver's user library can be loaded; it is not initialised."""
    name = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}.get(sys.platform)
    if name is None:
        return False
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def graphics_vendors(devices: Path = Path("/sys/class/drm"), timeout_s: float = 8.0) -> list[str]:
    """Makers of the cards the system lists, driver or not: NVIDIA, AMD, Intel, Apple; [] when unknown."""
    if sys.platform == "darwin":
        return ["Apple"] if platform.machine() == "arm64" else []
    if sys.platform == "win32":
        return _windows_vendors(timeout_s)
    codes = {path.read_text().strip() for path in devices.glob("card*/device/vendor")}
    return sorted(_VENDORS[code] for code in codes if code in _VENDORS)


def _windows_vendors(timeout_s: float) -> list[str]:
    script = "(Get-CimInstance Win32_VideoController).Name"
    try:
        names = _run(["powershell", "-NoProfile", "-Command", script], timeout_s).stdout.casefold()
    except (OSError, subprocess.TimeoutExpired):
        return []
    makers = {"nvidia": "NVIDIA", "amd": "AMD", "radeon": "AMD", "intel": "Intel"}
    return sorted({maker for word, maker in makers.items() if word in names})


def memory_limit_bytes(groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The limit a container puts on this process's memory; None without one."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (groups / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _NO_LIMIT_BYTES:
            return int(text)
    return None
