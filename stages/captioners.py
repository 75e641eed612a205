"""Text for a picture from any captioner: a program, or a function in Python.

A program gets the path in the place of `{image}` and prints the text; a function `package.module:name` gets
the path and returns it. No shell is involved.
"""

import hashlib
import importlib
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError, SettingsError
from pipeline.settings import Json
from pipeline.sidecar_fields import plain_text

if TYPE_CHECKING:
    from pipeline.catalog import MediaFile

STEP = "caption.describe"
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class CaptionerError(PipelineError):
    """A captioner failed on one picture."""

    reason = "captioner failed"


@dataclass(frozen=True, slots=True)
class Captioner:
    """A captioner ready to be asked.

    Args:
        key: what may change its text: how it is called, and the bytes of its files.
    """

    name: str
    describe: "Callable[[MediaFile], str]"
    key: Mapping[str, Json]

    @property
    def source(self) -> str:
        """Who says so, in the catalogue."""
        return f"captioner {self.name}"


def load_captioner(text: str, timeout_s: float) -> Captioner:
    """Make a captioner of what a person typed.

    Raises:
        SettingsError: no such program, module or function, or `{image}` is missing.
    """
    if _FUNCTION.fullmatch(text):
        return _function(text)
    words = shlex.split(text, posix=os.name != "nt")
    if not words or not any("{image}" in word for word in words):
        hint = 'such as --captioner "describe --short {image}", or package.module:function'
        raise SettingsError(
            f'the captioner "{text}" does not say where the picture goes: {{image}}', hint=hint
        )
    program = shutil.which(words[0])
    if program is None:
        raise SettingsError(f"there is no program {words[0]}", hint="give its path, or add it to PATH")
    key: dict[str, Json] = {"program": text}
    for word in (program, *words[1:]):
        if os.path.isfile(word):
            key[f"sha256 of {word}"] = _sha256(Path(word))
    command = _Program((program, *words[1:]), timeout_s)
    return Captioner(Path(words[0]).name, command, key)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(text: object, who: str, file: "MediaFile") -> str:
    if not isinstance(text, str):
        raise CaptionerError(f"{who} gave no text for {file.relative}: {type(text).__name__}")
    line = plain_text(text)
    if not line:
        raise CaptionerError(f"{who} gave an empty text for {file.relative}")
    return line


@dataclass(frozen=True, slots=True)
class _Program:
    words: tuple[str, ...]
    timeout_s: float

    def __call__(self, file: "MediaFile") -> str:
        command = [word.replace("{image}", str(file.path)) for word in self.words]
        who = Path(self.words[0]).name
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=self.timeout_s, check=False, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            text = f"{who} took longer than {self.timeout_s:g} s for {file.relative}"
            raise CaptionerError(text, hint="allow more: --captioner-timeout-s") from None
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            said = f": {lines[-1]}" if lines else ""
            raise CaptionerError(f"{who} ended with {done.returncode} for {file.relative}{said}")
        return _checked(done.stdout.decode("utf-8", "replace"), who, file)


@dataclass(frozen=True, slots=True)
class _Function:
    name: str
    function: Callable[[str], object]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, file: "MediaFile") -> str:
        with self.lock:  # a model on a GPU is no place for several threads at once
            text = self.function(str(file.path))
        return _checked(text, self.name, file)


def _function(text: str) -> Captioner:
    module_name, _, name = text.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        hint = "install its package beside celforge, or add its folder to PYTHONPATH"
        raise SettingsError(f"the captioner {text} cannot be imported: {error}", hint=hint) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise SettingsError(f"{module_name} has no function {name}")
    key: dict[str, Json] = {"function": text}
    if module.__file__ and Path(module.__file__).is_file():
        key["sha256"] = _sha256(Path(module.__file__))
    return Captioner(text, _Function(text, function), key)
