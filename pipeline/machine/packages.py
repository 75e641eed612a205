"""What is installed beside us: versions, declared requirements, and the command lines that change them.

Nothing here imports the packages it speaks of: versions come from the metadata that pip leaves behind, and
what only an import can tell is asked of a fresh Python, which may be slow, crash or hang without harm.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

DISTRIBUTION = "celforge"
SOURCE_FOLDER = Path(__file__).resolve().parents[2]  # holds pipeline, stages and trainers


# the answer leaves through a copy of stdout, what packages print goes to stderr; os._exit: no slow teardown
_WRAPPER = """
import json, os, sys
answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
scope = {}
try:
    exec(sys.argv[1], scope)
except BaseException as error:
    scope = {"answer": None, "error": f"{type(error).__name__}: {str(error).strip()}"}
answers.write(json.dumps([scope.get("answer"), scope.get("error", "")]))
answers.flush()
os._exit(0)
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a fresh Python said: a value of JSON types, or why there is none."""

    value: Any = None
    error: str = ""


def ask_python(code: str, timeout_s: float) -> Answer:
    """Run `code`, which assigns to `answer`, in a fresh Python like this one.

    Args:
        code: statements; an exception in them becomes the answer's `error`.
    """
    paths = [str(SOURCE_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"}
    # -P: a file named numpy.py in the current folder must not be taken for numpy
    command = [sys.executable, "-P", "-c", _WRAPPER, code]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return Answer(error=f"no answer within {timeout_s:.0f} s")
    try:
        value, error = json.loads(done.stdout)
    except ValueError:
        return Answer(error=f"Python died: {_exit_reason(done.returncode)}")
    return Answer(value, error)


def _exit_reason(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return (
            f"exit code {code & 0xFFFFFFFF:#x}"  # Windows gives its crashes as NTSTATUS, read in hexadecimal
        )


def normal_name(name: str) -> str:
    """The one spelling of a distribution's name: `Opencv_Python` -> `opencv-python` (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_versions() -> dict[str, str]:
    """Version of every installed distribution, by normal name."""
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # a half-removed package leaves a folder without a name
            versions.setdefault(normal_name(name), distribution.version)
    return versions


def celforge_version() -> str:
    """Our own version; `unknown` in a source tree that was never installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        import pipeline

        return str(getattr(pipeline, "__version__", "unknown"))


def declared_requirements() -> list[str]:
    """Our requirement lines (PEP 508), those of an extra with `extra == "..."` in their marker.

    From the installed metadata; in a source tree that was never installed, from its pyproject.toml.
    """
    try:
        return list(metadata.requires(DISTRIBUTION) or [])
    except metadata.PackageNotFoundError:
        pass
    project_file = SOURCE_FOLDER / "pyproject.toml"
    if not project_file.is_file():
        return []
    project = tomllib.loads(project_file.read_text(encoding="utf-8")).get("project", {})
    if project.get("name") != DISTRIBUTION:
        return []
    lines = list(project.get("dependencies", []))
    for extra, requirements in project.get("optional-dependencies", {}).items():
        lines += [_with_extra(line, extra) for line in requirements]
    return lines


def _with_extra(line: str, extra: str) -> str:
    requirement, _, marker = line.partition(";")
    condition = f'extra == "{extra}"'
    return f"{requirement.strip()}; " + (f"({marker.strip()}) and {condition}" if marker else condition)


def own_command(extra: str = "") -> str:
    """The line that installs celforge itself, with an extra; from the source tree where we run from one."""
    brackets = f"[{extra}]" if extra else ""
    if (SOURCE_FOLDER / "pyproject.toml").is_file():
        return install_command("-e", f"{SOURCE_FOLDER}{brackets}")
    return install_command(*([] if extra else ["--force-reinstall"]), f"{DISTRIBUTION}{brackets}")


def has_pip() -> bool:
    """Whether this environment has pip; those that uv and pipx make have none."""
    return util.find_spec("pip") is not None


@cache
def python_command() -> str:
    """How this Python is typed: `python` where the shell finds this one, else its full path."""
    for name in ("python", "python3", "py"):
        found = shutil.which(name)
        # not resolve(): every virtual environment's python links to the same base interpreter
        if found and Path(found).absolute() == Path(sys.executable).absolute():
            return name
    return _quoted(sys.executable)


def install_command(*arguments: str) -> str:
    """The line that installs: requirements, and options such as `--upgrade`."""
    return _pip_line("install", arguments)


def uninstall_command(*names: str) -> str:
    """The line that removes distributions without asking."""
    return _pip_line("uninstall", ("-y", *names) if has_pip() else names)


def torch_command(requirement: str) -> str:
    """The lines that exchange torch for the build which fits this machine's driver: uv finds out which."""
    words = ("--torch-backend=auto", "--reinstall-package", "torch", _quoted(requirement))
    uv = f"uv pip install --python {_quoted(sys.executable)} {' '.join(words)}"
    return f"{install_command('uv')}\n{python_command()} -m {uv}" if has_pip() else uv


def _pip_line(verb: str, arguments: Iterable[str]) -> str:
    words = " ".join(_quoted(argument) for argument in arguments)
    if has_pip():
        return f"{python_command()} -m pip {verb} {words}"
    return f"uv pip {verb} --python {_quoted(sys.executable)} {words}"


def _quoted(argument: str) -> str:
    windows = sys.platform == "win32"
    if re.fullmatch(r"[\w@%+=:,./~\\-]+" if windows else r"[\w@%+=:,./-]+", argument):
        return argument
    # double quotes mean the same to cmd, PowerShell and sh while nothing inside is special to sh
    if windows or re.fullmatch(r"[\w @%+=:,./~<>\[\]*()-]+", argument):
        return f'"{argument}"'
    return shlex.quote(argument)
