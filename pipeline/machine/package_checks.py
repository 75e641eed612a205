"""Checks of Python and its packages for `celforge doctor`; a fresh Python tries the imports."""

import os
import struct
import sys
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.machine.findings import Facts, Finding, Status, short_path
from pipeline.machine.packages import (
    SOURCE_FOLDER,
    Answer,
    celforge_version,
    declared_requirements,
    install_command,
    normal_name,
    own_command,
    uninstall_command,
)
from pipeline.providers import (
    FOR_CUDA_12,
    SHARING_DISTRIBUTIONS,
    distribution_conflict,
    onnxruntime_distributions,
)

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PYTHON, GRAPHICS, MEDIA, TRAINING = "Python", "Graphics", "Pictures and video", "Training"

_IMPORT_S = 30.0
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_OPTIONAL = {"bitsandbytes": "8-bit optimizers", "lycoris-lora": "only to compare with"}
_SYSTEM_LIBRARIES = {"libGL.so": "libgl1", "libglib": "libglib2.0-0", "libgthread": "libglib2.0-0"}
_VISUAL_C = "winget install Microsoft.VCRedist.2015+.x64"
_PLAIN_IMPORTS = {
    "numpy": "numpy",
    "imagehash": "imagehash",
    "psutil": "psutil",
    "filelock": "filelock",
    "huggingface_hub": "huggingface-hub",
}

_PLAIN_CODE = f"""
import importlib
answer = {{}}
for name in {list(_PLAIN_IMPORTS)!r}:
    try:
        importlib.import_module(name)
        answer[name] = ""
    except Exception as error:
        answer[name] = f"{{type(error).__name__}}: {{error}}"
"""
_OPENCV_CODE = """
import cv2
formats = {".jpg": "JPEG", ".png": "PNG", ".webp": "WebP"}
missing = [name for end, name in formats.items() if not cv2.haveImageWriter("a" + end)]
answer = [cv2.__version__, missing]
"""
_AV_CODE = """
import av
def has(name):
    try:
        return bool(av.codec.Codec(name, "r").name)
    except ValueError:
        return False
answer = {
    "version": av.__version__,
    "ffmpeg": str(getattr(av, "ffmpeg_version_info", "")),
    "libraries": {name: list(version) for name, version in av.library_versions.items()},
    "missing": [name for name in ("h264", "hevc", "av1", "vp9") if not has(name)],
    "av1": has("libdav1d") or has("libaom-av1") or has("libgav1"),
}
"""
_PILLOW_CODE = """
import PIL
from PIL import features
names = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "avif": "AVIF"}
answer = [PIL.__version__, [title for name, title in names.items() if not features.check(name)]]
"""


def check_python(facts: Facts) -> list[Finding]:
    """Version, 64 bits, and an environment of its own."""
    bits = struct.calcsize("P") * 8
    version = f"{'.'.join(str(part) for part in sys.version_info[:3])}, {bits}-bit"
    if bits < 64:
        text = f"{version}: neither torch nor onnxruntime exist for it; install a 64-bit Python"
        return [Finding(PYTHON, "Python", "problem", text)]
    is_conda = facts.environment.get("CONDA_PREFIX") == sys.prefix
    if sys.prefix == sys.base_prefix and not is_conda:
        text = f"{version}, shared with the whole system: other programs can change its packages"
        return [Finding(PYTHON, "Python", "note", text, f"{Path(sys.executable).stem} -m venv celforge-env")]
    kind = "conda" if is_conda else "virtual"
    text = f"{version}, {kind} environment {short_path(Path(sys.prefix))}"
    return [Finding(PYTHON, "Python", "ok", text)]


def check_celforge(facts: Facts) -> list[Finding]:
    """Our version, and that our three packages are found in one place: their names are common words."""
    for name in ("stages", "trainers"):
        found = util.find_spec(name)
        places = [Path(place).resolve() for place in found.submodule_search_locations or ()] if found else []
        if SOURCE_FOLDER / name not in places:
            where = places[0] if places else "nowhere"
            text = f"the package `{name}` is found in {where}, not beside `pipeline`"
            return [Finding(PYTHON, "celforge", "problem", text, own_command())]
    kind = "source tree" if (SOURCE_FOLDER / "pyproject.toml").is_file() else "installed"
    text = f"{celforge_version()}, {kind} {short_path(SOURCE_FOLDER)}"
    return [Finding(PYTHON, "celforge", "ok", text)]


def check_dependencies(facts: Facts) -> list[Finding]:
    """Every declared dependency present, in its range, and importable where nothing else here tries it."""
    from packaging.requirements import Requirement

    requirements = [Requirement(line) for line in declared_requirements()]
    base = [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = {str(one).split(";")[0].strip(): said for one in base if (said := _amiss(one, facts.versions))}
    if wrong:
        text = "; ".join(wrong.values())
        return [Finding(PYTHON, "Dependencies", "problem", text, install_command(*wrong))]
    answer = facts.ask(_PLAIN_CODE, _IMPORT_S)
    broken = {_PLAIN_IMPORTS[name]: said for name, said in (answer.value or {}).items() if said}
    if broken or answer.error:
        text = (
            "; ".join(f"{name} cannot be imported ({said})" for name, said in broken.items()) or answer.error
        )
        fix = install_command("--force-reinstall", *(broken or _PLAIN_IMPORTS.values()))
        return [
            Finding(PYTHON, "Dependencies", "problem", text, _libraries_first(text, facts.platform) or fix)
        ]
    text = f"all {len(base)} present and in range, numpy {facts.versions.get('numpy')} among them"
    return [Finding(PYTHON, "Dependencies", "ok", text)]


def _amiss(requirement: "Requirement", versions: Mapping[str, str]) -> str:
    """What is wrong with one requirement; empty when it is met, also by another build of the same thing."""
    name = normal_name(requirement.name)
    builds = next((group for group in (SHARING_DISTRIBUTIONS, _OPENCV) if name in group), (name,))
    found = [build for build in (name, *builds) if build in versions]
    if not found:
        return f"{name} is not installed"
    version = versions[found[0]]
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{found[0]} is {version}, declared is {requirement.specifier}"
    return ""


def check_onnxruntime(facts: Facts) -> list[Finding]:
    """One distribution, its version, where models run, and why not on the other devices."""
    present = onnxruntime_distributions(facts.versions)
    if conflict := distribution_conflict(list(present), facts.platform):
        return [Finding(GRAPHICS, "onnxruntime", "problem", conflict.reason, conflict.fix)]
    answer = facts.ask("from pipeline.onnx import self_test; answer = self_test()", _IMPORT_S)
    wanted = next(iter(present), "onnxruntime" if facts.platform == "darwin" else "onnxruntime-gpu")
    if answer.error:
        text = f"{wanted} does not work: {answer.error.splitlines()[0]}"
        fix = install_command(*(["--force-reinstall", "--no-deps"] if present else []), wanted)
        return [
            Finding(GRAPHICS, "onnxruntime", "problem", text, _libraries_first(text, facts.platform) or fix)
        ]
    return [_onnxruntime_finding(facts, wanted, answer.value)]


def _onnxruntime_finding(facts: Facts, distribution: str, told: Mapping[str, Any]) -> Finding:
    built = f" for CUDA {told['cuda']}" if told["cuda"] else ""
    device = "the CPU" if told["device"] == "cpu" else told["device"]
    text = f"{told['version']} ({distribution}{built}); models run on {device}{_others(told['unused'])}"
    if facts.nvidia.gpus and told["device"] == "cpu":
        fix = told["unused"].get("cuda", ("", ""))[1]
        if 0 < _major(facts.nvidia.cuda) < _major(told["cuda"]):
            text += (
                f". The driver runs CUDA up to {facts.nvidia.cuda}: update it, or take an older onnxruntime"
            )
            fix = install_command(FOR_CUDA_12)
        return Finding(GRAPHICS, "onnxruntime", "problem", text, fix)
    return Finding(GRAPHICS, "onnxruntime", "ok", text)


def _major(version: str) -> int:
    """`12.4` -> 12; 0 where there is no version."""
    return int(version.split(".")[0]) if version else 0


def _others(unused: Mapping[str, tuple[str, str]]) -> str:
    """Why not on the devices that this platform has; those of one reason stand together."""
    reasons: dict[str, list[str]] = {}
    for device in sorted(unused, key=lambda name: name != "cuda"):
        reason = unused[device][0].split(": install")[0]
        if not reason.startswith("only on ") or reason.startswith("only on request"):
            reasons.setdefault(reason, []).append(device)
    return "".join(f". Not on {' or '.join(devices)}: {reason}" for reason, devices in reasons.items())


def check_opencv(facts: Facts) -> list[Finding]:
    """One distribution of cv2, which can be imported and writes the usual formats."""
    present = [name for name in _OPENCV if name in facts.versions]
    if len(present) > 1:
        text = (
            f"{' and '.join(present)} are installed together: they share one folder and overwrite each other"
        )
        fix = f"{uninstall_command(*present)}\n{install_command('opencv-python')}"
        return [Finding(MEDIA, "OpenCV", "problem", text, fix)]
    name = next(iter(present), "opencv-python")
    answer = facts.ask(_OPENCV_CODE, _IMPORT_S)
    if answer.error:
        return [_import_problem("OpenCV", name, answer, facts)]
    version, missing = answer.value
    if missing:
        text = f"{version} ({name}) without {', '.join(missing)}"
        return [
            Finding(MEDIA, "OpenCV", "problem", text, install_command("--force-reinstall", "--no-deps", name))
        ]
    return [Finding(MEDIA, "OpenCV", "ok", f"{version} ({name}), with JPEG, PNG, WebP")]


def check_av(facts: Facts) -> list[Finding]:
    """PyAV, the FFmpeg in it, and the decoders that episodes need."""
    answer = facts.ask(_AV_CODE, _IMPORT_S)
    if answer.error:
        return [_import_problem("PyAV", "av", answer, facts)]
    told = answer.value
    codec, format_ = (
        ".".join(map(str, told["libraries"].get(name, ()))) for name in ("libavcodec", "libavformat")
    )
    ffmpeg = f"FFmpeg {told['ffmpeg']}, " if told["ffmpeg"] else ""
    text = f"{told['version']}, {ffmpeg}libavcodec {codec}, libavformat {format_}"
    missing = [*told["missing"], *([] if told["av1"] or "av1" in told["missing"] else ["av1 without a GPU"])]
    if not missing:
        return [Finding(MEDIA, "PyAV", "ok", f"{text}; decodes h264, hevc, av1, vp9")]
    status: Status = "problem" if {"h264", "hevc"} & set(missing) else "note"
    fix = install_command("--force-reinstall", "--no-deps", "--only-binary=av", "av")
    return [Finding(MEDIA, "PyAV", status, f"{text}; cannot decode {', '.join(missing)}", fix)]


def check_pillow(facts: Facts) -> list[Finding]:
    """Pillow and its formats; only AVIF can be missed."""
    answer = facts.ask(_PILLOW_CODE, _IMPORT_S)
    if answer.error:
        return [_import_problem("Pillow", "pillow", answer, facts)]
    version, missing = answer.value
    if not missing:
        return [Finding(MEDIA, "Pillow", "ok", f"{version}, with JPEG, PNG, WebP, AVIF")]
    status: Status = "note" if missing == ["AVIF"] else "problem"
    fix = install_command("--force-reinstall", "--no-deps", "--only-binary=pillow", "pillow")
    return [Finding(MEDIA, "Pillow", status, f"{version}, without {', '.join(missing)}", fix)]


def _import_problem(title: str, name: str, answer: Answer, facts: Facts) -> Finding:
    error = answer.error.splitlines()[0]
    reinstall = install_command("--force-reinstall", "--no-deps", name)
    fix = _libraries_first(error, facts.platform) or (
        reinstall if name in facts.versions else install_command(name)
    )
    return Finding(MEDIA, title, "problem", f"{name} cannot be imported: {error}", fix)


def _libraries_first(error: str, system: str) -> str:
    """The command that brings the system library an import misses; empty when it misses none we know."""
    if system == "win32":
        return _VISUAL_C if "DLL load failed" in error or "WinError 126" in error else ""
    if not any(start in error for start in _SYSTEM_LIBRARIES):
        return ""
    administrator = "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "sudo "
    packages = " ".join(dict.fromkeys(_SYSTEM_LIBRARIES.values()))  # who lacks one usually lacks the other
    return f"{administrator}apt-get update\n{administrator}apt-get install -y {packages}"


def check_training_packages(facts: Facts) -> list[Finding]:
    """The packages of `celforge[train]` beside torch, and the optional ones."""
    from packaging.requirements import Requirement

    requirements = [Requirement(line) for line in declared_requirements()]
    wanted = [one for one in requirements if _is_only_in(one, "train") and one.name != "torch"]
    present = {normal_name(one.name) for one in wanted} & facts.versions.keys()
    wrong = [said for one in wanted if (said := _amiss(one, facts.versions))]
    if not present:
        text = "not installed; only training needs them"
        packages = Finding(TRAINING, "Packages", "note", text, own_command("train"))
    elif wrong:
        packages = Finding(TRAINING, "Packages", "problem", "; ".join(wrong), own_command("train"))
    else:
        shown = ", ".join(f"{name} {facts.versions[name]}" for name in sorted(present))
        packages = Finding(TRAINING, "Packages", "ok", shown)
    optional = [
        f"{name} {facts.versions.get(name, 'not installed')} ({use})" for name, use in _OPTIONAL.items()
    ]
    return [packages, Finding(TRAINING, "Optional", "ok", ", ".join(optional))]


def _is_only_in(requirement: "Requirement", extra: str) -> bool:
    """Whether a requirement belongs to the extra and not to the base."""
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})
