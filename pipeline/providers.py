"""Providers of onnxruntime: which one serves which device, and why the others are not used.

Pure: nothing here imports onnxruntime. `pipeline.onnx` opens sessions with what is chosen here.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import DeviceError
from pipeline.machine.packages import install_command, installed_versions, uninstall_command

Device = Literal["auto", "cuda", "tensorrt", "directml", "coreml", "openvino", "rocm", "cpu"]

CPU = "CPUExecutionProvider"
PROVIDERS: Mapping[str, tuple[str, ...]] = {  # best first: the order of `auto`
    "tensorrt": ("TensorrtExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    "rocm": ("MIGraphXExecutionProvider", "ROCMExecutionProvider"),
    "directml": ("DmlExecutionProvider",),
    "openvino": ("OpenVINOExecutionProvider",),
    "coreml": ("CoreMLExecutionProvider",),
    "cpu": (CPU,),
}
_PLATFORMS: Mapping[str, tuple[str, ...]] = {
    "tensorrt": ("linux", "win32"),
    "cuda": ("linux", "win32"),
    "rocm": ("linux",),
    "directml": ("win32",),
    "openvino": ("linux", "win32"),
    "coreml": ("darwin",),
}
_PLATFORM_NAMES = {"linux": "Linux", "win32": "Windows", "darwin": "macOS"}
DISTRIBUTIONS: Mapping[str, str] = {
    "tensorrt": "onnxruntime-gpu",
    "cuda": "onnxruntime-gpu",
    "rocm": "onnxruntime-migraphx",
    "directml": "onnxruntime-directml",
    "openvino": "onnxruntime-openvino",
    "coreml": "onnxruntime",
}
FOR_CUDA_12 = "onnxruntime-gpu[cuda,cudnn]<1.27"  # 1.27 is the first release built for CUDA 13
# every one of these installs the same folder, `onnxruntime`
SHARING_DISTRIBUTIONS = (
    *(
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-directml",
        "onnxruntime-openvino",
        "onnxruntime-migraphx",
    ),
    *(
        "onnxruntime-rocm",
        "onnxruntime-qnn",
        "onnxruntime-silicon",
        "onnxruntime-training",
        "ort-nightly",
        "ort-nightly-gpu",
    ),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a device is not used, and what to type to have it; `fix` may be several lines, or empty."""

    reason: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class ProviderChoice:
    """Which providers a session asks for.

    Attributes:
        requested: provider names in order, the CPU last: it takes the nodes that the others cannot run.
        unused: the devices that are not asked for, each with its reason.
    """

    device: Device
    requested: tuple[str, ...]
    unused: Mapping[str, Refusal]


def choose_providers(
    device: Device,
    available: Sequence[str],
    *,
    unusable: Mapping[str, Refusal] | None = None,
    platform: str = sys.platform,
) -> ProviderChoice:
    """Providers for a device, out of those in this onnxruntime build.

    Args:
        available: what `onnxruntime.get_available_providers()` lists: the build has them, working or not.
        unusable: devices that `auto` must leave out although the build has them.

    Raises:
        DeviceError: a device asked for by name is not in the build.
    """
    if device == "auto":
        return _choose_best(available, unusable or {}, platform)
    providers = _available(device, available)
    if not providers:
        refusal = _absence(device, platform)
        hint = what_to_type(refusal) or "take --device auto"
        raise DeviceError(f"--device {device} cannot be used: {refusal.reason}", hint=hint)
    if device == "tensorrt":  # CUDA takes the nodes TensorRT leaves
        providers += _available("cuda", available)
    others = {name: Refusal("not asked for") for name in PROVIDERS if name not in (device, "cpu")}
    return ProviderChoice(device, tuple(dict.fromkeys((*providers, CPU))), others)


def _choose_best(available: Sequence[str], unusable: Mapping[str, Refusal], platform: str) -> ProviderChoice:
    requested: list[str] = []
    unused: dict[str, Refusal] = {}
    for device in PROVIDERS:
        providers = _available(device, available)
        if not providers and device != "cpu":
            unused[device] = _absence(device, platform)
        elif device in unusable:
            unused[device] = unusable[device]
        elif device == "tensorrt":
            unused[device] = Refusal("only on request (--device tensorrt): its first build takes minutes")
        else:
            requested += providers or [CPU]
    return ProviderChoice("auto", tuple(requested), unused)


def _available(device: str, available: Sequence[str]) -> list[str]:
    return [name for name in PROVIDERS[device] if name in available]


def _absence(device: str, platform: str) -> Refusal:
    """Why a build has no provider for a device."""
    platforms = _PLATFORMS.get(device, ())
    if platforms and platform not in platforms:
        return Refusal("only on " + " and ".join(_PLATFORM_NAMES[name] for name in platforms))
    wanted = DISTRIBUTIONS.get(device, "onnxruntime")
    return Refusal(f"not in this onnxruntime build: install {wanted}", replacement_commands(wanted))


def replacement_commands(wanted: str, present: Sequence[str] = ("onnxruntime", "onnxruntime-gpu")) -> str:
    """Two lines that leave exactly one onnxruntime; the others go first, because they share one folder."""
    return f"{uninstall_command(*present)}\n{install_command(wanted)}"


def onnxruntime_distributions(installed: Mapping[str, str] | None = None) -> dict[str, str]:
    """Installed distributions of the module `onnxruntime`, with versions; two of them break each other."""
    versions = installed_versions() if installed is None else installed
    return {name: versions[name] for name in SHARING_DISTRIBUTIONS if name in versions}


def distribution_conflict(names: Sequence[str], platform: str = sys.platform) -> Refusal | None:
    """What is wrong with several distributions of onnxruntime, and the commands that leave the right one."""
    if len(names) < 2:
        return None
    chosen = [name for name in names if name not in ("onnxruntime", "onnxruntime-silicon")]
    default = "onnxruntime" if platform == "darwin" else "onnxruntime-gpu"
    keep = chosen[0] if len(chosen) == 1 and platform != "darwin" else default
    reason = f"{' and '.join(names)} are installed together: they share one folder and overwrite each other"
    return Refusal(reason, replacement_commands(keep, names))


def what_to_type(refusal: Refusal) -> str:
    """The fix as the hint of an error; empty when there is none."""
    return "type: " + ", then: ".join(refusal.fix.splitlines()) if refusal.fix else ""
