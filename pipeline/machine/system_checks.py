"""Checks of the machine for `celforge doctor`: cards, driver, memory, disks, file system, the model cache."""

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.machine.findings import Facts, Finding, Status, gib, short_path
from pipeline.machine.hardware import Gpu, memory_limit_bytes
from pipeline.names import takes_long_paths

GRAPHICS, MACHINE, FILES, MODELS = "Graphics", "Machine", "Files", "Model cache"

_GIB = 2**30
_LITTLE_MEMORY_BYTES = 8 * _GIB
_LITTLE_DISK_BYTES, _NO_DISK_BYTES = 10 * _GIB, 1 * _GIB
_LITTLE_GPU_MIB = 6 * 1024
_FEW_DESCRIPTORS = 1024
_LONGEST_NAME_BYTES = 255
_CACHE_WALK_S = 2.0
_DRIVER_HELP = "install the driver from nvidia.com/drivers (Linux: from your distribution), then restart"


def check_graphics_card(facts: Facts) -> list[Finding]:
    """The cards, their memory and driver. No card is worth a note; a driver that fails is a problem."""
    report = facts.nvidia
    if report.gpus:
        return [_gpu_finding(gpu, report.cuda) for gpu in report.gpus]
    if report.error and "no devices were found" not in report.error.casefold():
        fix = "nvidia-smi" if facts.platform != "win32" else "nvidia-smi.exe"
        text = f"the NVIDIA driver does not answer ({report.error}); restart the machine, then type"
        return [Finding(GRAPHICS, "GPU", "problem", text, fix)]
    if "NVIDIA" in facts.vendors:
        text = f"an NVIDIA card without a driver: {_DRIVER_HELP}; in a container: docker run --gpus all"
        return [Finding(GRAPHICS, "GPU", "note", text)]
    return [Finding(GRAPHICS, "GPU", "note", _without_nvidia(facts))]


def _gpu_finding(gpu: Gpu, cuda: str) -> Finding:
    memory = (
        f"{gib(gpu.total_mib * 2**20)}, {gib(gpu.free_mib * 2**20)} free"
        if gpu.total_mib
        else "shared memory"
    )
    text = f"{gpu.name}, {memory}; driver {gpu.driver}" + (f" (CUDA up to {cuda})" if cuda else "")
    status: Status = "ok"
    if 0 < gpu.total_mib < _LITTLE_GPU_MIB:
        status, text = "note", f"{text}; little for training: take a batch of 1 and cached latents"
    elif gpu.total_mib and gpu.free_mib < gpu.total_mib // 2:
        status, text = "note", f"{text}; another program holds more than half of it"
    return Finding(GRAPHICS, f"GPU {gpu.index}", status, text)


def _without_nvidia(facts: Facts) -> str:
    if "AMD" in facts.vendors:
        return "AMD: training needs a ROCm build of torch; tagging, another build of onnxruntime"
    if "Apple" in facts.vendors:
        return "Apple: torch uses it through MPS, onnxruntime through CoreML"
    others = f" ({', '.join(facts.vendors)} graphics)" if facts.vendors else ""
    return f"no NVIDIA card{others}: everything works on the CPU; tagging takes longer, training much longer"


def check_system(facts: Facts) -> list[Finding]:
    """Operating system, cores and memory, the last within the limit of a container."""
    import psutil

    memory = psutil.virtual_memory()
    limit = memory_limit_bytes()
    total = min(memory.total, limit or memory.total)
    text = f"{gib(total)}, {gib(min(memory.available, total))} free"
    text += f", a container's limit; the machine has {gib(memory.total)}" if total < memory.total else ""
    status: Status = "ok"
    if total < _LITTLE_MEMORY_BYTES:
        status, text = "note", f"{text}: little for training"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    system = f"{_system_name()}, {platform.machine()}, {cores} core{'s' if cores > 1 else ''} to use"
    return [Finding(MACHINE, "System", "ok", system), Finding(MACHINE, "Memory", status, text)]


def _system_name() -> str:
    if sys.platform == "linux":
        try:
            name = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
        except OSError:
            name = "Linux"
        wsl = " under WSL" if "microsoft" in platform.release().casefold() else ""
        return f"{name}{wsl}, kernel {platform.release()}"
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    return f"{platform.system()} {platform.release()} ({platform.version()})"


def check_terminal(facts: Facts) -> list[Finding]:
    """Whether file names in any script can be printed."""
    encoding = getattr(sys.stdout, "encoding", None) or "unknown"
    if encoding.casefold().replace("-", "") in ("utf8", "utf8sig"):
        return [Finding(MACHINE, "Text output", "ok", "UTF-8")]
    fix = "setx PYTHONUTF8 1" if facts.platform == "win32" else "export PYTHONUTF8=1"
    text = f"{encoding}: names outside of it are shown with escapes"
    return [Finding(MACHINE, "Text output", "note", text, fix)]


def check_descriptors(facts: Facts) -> list[Finding]:
    """How many files a process may hold open; Windows has no such limit to speak of."""
    if sys.platform == "win32":
        return []
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _FEW_DESCRIPTORS:
        shown = "no limit" if soft == resource.RLIM_INFINITY else f"up to {soft:,}"
        return [Finding(MACHINE, "Open files", "ok", shown)]
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    return [Finding(MACHINE, "Open files", "note", f"only {soft:,} at once", f"ulimit -n {wanted}")]


def check_disk(facts: Facts) -> list[Finding]:
    """Room where we are, and whether we may write there."""
    if not os.access(facts.folder, os.W_OK):
        text = f"{short_path(facts.folder)} cannot be written: go to a folder of your own"
        return [Finding(FILES, "This folder", "note", text)]
    return [Finding(FILES, "This folder", *_disk_room(facts.folder))]


def _disk_room(folder: Path) -> tuple[Status, str]:
    free = shutil.disk_usage(folder).free
    text = f"{short_path(folder)}: {gib(free)} free"
    if free < _NO_DISK_BYTES:
        return "problem", f"{text}: make room, or work on another disk"
    if free < _LITTLE_DISK_BYTES:
        return "note", f"{text}: little, for frames and checkpoints of several GiB"
    return "ok", text


def check_file_system(facts: Facts) -> list[Finding]:
    """Hard links, symbolic links and capital letters, tried in a folder that is removed again."""
    if not os.access(facts.folder, os.W_OK):
        return []
    with tempfile.TemporaryDirectory(prefix=".celforge-doctor-", dir=facts.folder) as name:
        folder = Path(name)
        original = folder / "original"
        original.write_bytes(b"x")
        hard = _works(lambda: os.link(original, folder / "hard"))
        symbolic = _works(lambda: (folder / "symbolic").symlink_to(original))
        sensitive = not (folder / "ORIGINAL").exists()
    return [_hard_link_finding(hard), _symlink_finding(symbolic, facts.platform), _case_finding(sensitive)]


def _works(action: Callable[[], object]) -> bool:
    try:
        action()
    except (OSError, NotImplementedError):
        return False
    return True


def _hard_link_finding(works: bool) -> Finding:
    if works:
        return Finding(FILES, "Hard links", "ok", "work: the dataset tree takes no room of its own")
    text = "do not work on this disk: the dataset tree holds copies and takes the room twice"
    return Finding(FILES, "Hard links", "note", text)


def _symlink_finding(works: bool, system: str) -> Finding:
    if works:
        return Finding(FILES, "Symbolic links", "ok", "work")
    text = "do not work here"
    if system == "win32":
        text += ": switch on Developer Mode, else the model cache may keep files twice"
        return Finding(FILES, "Symbolic links", "note", text, "start ms-settings:developers")
    return Finding(FILES, "Symbolic links", "note", text)


def _case_finding(sensitive: bool) -> Finding:
    text = "A.png and a.png are two files" if sensitive else "A.png and a.png are the same file"
    return Finding(FILES, "Capital letters", "ok", text)


def check_names(facts: Facts) -> list[Finding]:
    """How long a name and a path may be."""
    if sys.platform == "win32":
        return [_windows_path_finding(takes_long_paths(), facts.folder)]
    name_bytes = os.pathconf(facts.folder, "PC_NAME_MAX")
    text = f"up to {name_bytes} bytes, which is {name_bytes // 3} Japanese characters"
    status: Status = "ok" if name_bytes >= _LONGEST_NAME_BYTES else "note"
    return [Finding(FILES, "File names", status, text)]


def _windows_path_finding(enabled: bool, folder: Path) -> Finding:
    if enabled:
        return Finding(FILES, "File names", "ok", "long paths are enabled")
    text = f"paths end at 259 characters, and {len(str(folder.absolute()))} are taken here; as administrator:"
    key = r"HKLM\SYSTEM\CurrentControlSet\Control\FileSystem"
    fix = f"reg add {key} /v LongPathsEnabled /t REG_DWORD /d 1 /f"
    return Finding(FILES, "File names", "note", text, fix)


def check_model_cache(facts: Facts) -> list[Finding]:
    """Where downloaded models lie, how much there is, and the room left on that disk."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    status, room = _disk_room(existing)
    room = f"{room.split(': ', 1)[1]} on its disk"
    if not os.access(existing, os.W_OK):
        text = f"{short_path(folder)} cannot be written: no model can be downloaded"
        variable = (
            "setx HF_HOME D:\\huggingface" if facts.platform == "win32" else "export HF_HOME=~/huggingface"
        )
        return [Finding(MODELS, "Folder", "problem", text, variable)]
    if not folder.exists():
        return [Finding(MODELS, "Folder", status, f"{short_path(folder)}, not made yet; {room}")]
    size, whole = _folder_size(folder, _CACHE_WALK_S)
    text = f"{short_path(folder)}: {'' if whole else 'more than '}{gib(size)} in use; {room}"
    return [Finding(MODELS, "Folder", status, text)]


def _folder_size(folder: Path, limit_s: float) -> tuple[int, bool]:
    """Bytes in a folder, links not followed; and False where the time ran out before the end."""
    deadline = time.monotonic() + limit_s
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue  # a download in progress renames its files
        if time.monotonic() > deadline:
            return size, False
    return size, True


def check_hub_settings(facts: Facts) -> list[Finding]:
    """Variables that turn downloads off or send them elsewhere; of a token only whether there is one."""
    from huggingface_hub import constants

    environment = facts.environment
    findings = [_token_finding(environment.get("HF_TOKEN"), Path(constants.HF_TOKEN_PATH).is_file())]
    if any(_is_on(environment.get(name, "")) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")):
        text = "HF_HUB_OFFLINE is set: only models already here are used"
        findings.append(Finding(MODELS, "Network", "note", text, _unset("HF_HUB_OFFLINE", facts.platform)))
    if endpoint := environment.get("HF_ENDPOINT", "").strip():
        parts = urlsplit(endpoint)
        shown = f"{parts.scheme}://{parts.hostname}" if parts.hostname else "an address that cannot be read"
        findings.append(Finding(MODELS, "Endpoint", "note", f"HF_ENDPOINT sends downloads to {shown}"))
    return findings


def _token_finding(token: str | None, has_file: bool) -> Finding:
    if token is None:
        shown = "stored by `hf auth login`" if has_file else "none; public models need none"
        return Finding(MODELS, "Token", "ok", shown)
    if not token.strip() or token != token.strip():
        text = "HF_TOKEN is set, but empty or with a space or line end around it: downloads will be refused"
        return Finding(MODELS, "Token", "note", text)
    return Finding(MODELS, "Token", "ok", "HF_TOKEN is set (not shown)")


def _is_on(value: str) -> bool:
    return value.strip().upper() in ("1", "ON", "YES", "TRUE")


def _unset(name: str, system: str) -> str:
    return f"set {name}=" if system == "win32" else f"unset {name}"
