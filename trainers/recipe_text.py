"""Command lines of trainers as people paste them: from a shell or a script, over several lines."""

import ast
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PureWindowsPath
from typing import Any

from pipeline.errors import InputError

_CONTINUED = re.compile(r"[ \t]*[\\^`][ \t]*\r?\n")  # sh, cmd, PowerShell
_ASSIGNED = re.compile(
    r"""^[ \t]*(?:export[ \t]+|set[ \t]+|\$)?"?(\w+)[ \t]*=[ \t]*(.*?)"?[ \t]*$""", re.MULTILINE
)
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)|%(\w+)%")
_DRIVE = re.compile(r"(?:^|[\s\"'=])[A-Za-z]:\\")
_SCRIPT = re.compile(r"[\w./\\:~-]*\.py$")


@dataclass(slots=True)
class CommandLine:
    """One command.

    Args:
        script: name of the Python file, "" where only options were given.
        launcher: options before the script, those of accelerate.
        options: what stands after it: True for a flag alone, a text, or a list of texts.
    """

    script: str
    launcher: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def read_command(text: str, source: str) -> CommandLine:
    """The one training command in a text.

    Raises:
        InputError: there is none, or there are several, or a quotation mark is missing.
    """
    text = _CONTINUED.sub(" ", text.replace("\ufeff", ""))
    lines = [line for line in text.splitlines() if _is_command(line)]
    if not lines:
        raise InputError(
            f"{source} holds no training command",
            hint="give a line such as: accelerate launch train_network.py --...",
        )
    if len(lines) > 1:
        raise InputError(f"{source} holds {len(lines)} commands", hint="keep the one you want")
    words = _words(_with_variables(lines[0], text), source)
    at = next((number for number, word in enumerate(words) if _SCRIPT.search(word)), -1)
    script = PureWindowsPath(words[at]).name if at >= 0 else ""
    start = 0 if at >= 0 else next(number for number, word in enumerate(words) if word.startswith("--"))
    return CommandLine(script, _options(words[:at] if at >= 0 else []), _options(words[max(at + 1, start) :]))


def _is_command(line: str) -> bool:
    line = line.strip()
    if line.startswith(("#", "::", "rem ", "REM ", "echo ")):
        return False
    return bool(re.search(r"(?:^|\s)--\w", line))


def _with_variables(line: str, text: str) -> str:
    known: dict[str, str] = {name: value.strip().strip("\"'") for name, value in _ASSIGNED.findall(text)}

    def value(match: re.Match[str]) -> str:
        name = str(next(filter(None, match.groups())))
        return known.get(name, str(match.group()))

    return _VARIABLE.sub(value, line)


def _words(line: str, source: str) -> list[str]:
    reader = shlex.shlex(line, posix=True)
    reader.whitespace_split = True
    reader.commenters = ""
    if _DRIVE.search(line):
        reader.escape = ""  # a path of Windows
    try:
        return list(reader)
    except ValueError as error:
        raise InputError(
            f"the command in {source} cannot be read: {error}", hint="mend its quotation marks"
        ) from error


def _options(words: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    name = ""
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, has_value, value = word[2:].partition("=")
            name = name.replace("-", "_")
            found[name] = value if has_value else True
        elif name:
            before = found[name]
            found[name] = (
                word if before is True else [*(before if isinstance(before, list) else [before]), word]
            )
    return found


def read_config(text: str, source: str) -> dict[str, Any]:
    """A config TOML of kohya's scripts: the names of its sections say nothing.

    Raises:
        InputError: it is not TOML.
    """
    try:
        data = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is not valid TOML: {error}", hint="mend that line") from error
    found: dict[str, Any] = {}
    for name, value in data.items():
        found.update(value if isinstance(value, dict) else {name: value})
    return found


def number(value: Any) -> Any:
    """A number that was written as a text; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return float(value)
    except ValueError:
        return value


def pairs(value: Any) -> dict[str, str]:
    """`name=value` texts, as `--network_args` and `--optimizer_args` take them."""
    texts = [value] if isinstance(value, str) else [] if value in (None, True) else list(value)
    split = (str(text).partition("=") for text in texts)
    return {name.strip(): given.strip() for name, _, given in split}


def is_python(text: str) -> bool:
    """Whether Python reads it as a value."""
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return True


def command_text(launcher: Sequence[str], options: Mapping[str, Any], *, is_windows: bool = False) -> str:
    """A command, one option a line."""
    quote = _quoted_for_windows if is_windows else shlex.quote
    lines = [" ".join(launcher)]
    for name, value in options.items():
        values = [] if value is True else value if isinstance(value, list) else [value]
        lines.append(" ".join([f"--{name}", *(quote(str(one)) for one in values)]))
    return (" ^\n  " if is_windows else " \\\n  ").join(lines) + "\n"


def _quoted_for_windows(text: str) -> str:
    return f'"{text}"' if not text or re.search(r"[\s&|<>^()%]", text) else text
