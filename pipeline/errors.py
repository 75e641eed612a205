"""Every way a command can fail: one class a cause, each with its exit code and the next thing to type.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 finished with failed items, 130 interrupted.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process returns to the shell."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    FAILED_ITEMS = 3
    INTERRUPTED = 130


class PipelineError(Exception):
    """A failure a person can act on.

    Args:
        message: what went wrong and where, one sentence without a final full stop.
        hint: the next thing to type or to change; empty when there is nothing to add.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class SettingsError(PipelineError):
    """A flag or a key of celforge.toml is unknown, of the wrong type or out of bounds."""

    exit_code = ExitCode.USAGE


class InputError(PipelineError):
    """The folder or file given does not exist, cannot be used, or holds nothing to work on."""

    exit_code = ExitCode.USAGE


class UnreadableImageError(PipelineError):
    """One picture cannot be decoded: truncated, empty, not a picture, or a decompression bomb.

    Args:
        reason: the same short words for every picture of its kind, so that they can be counted.
    """

    def __init__(self, message: str, *, reason: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class SidecarError(PipelineError):
    """A file that another tool wrote beside a picture cannot be understood."""

    reason = "sidecar not understood"


class LockedError(PipelineError):
    """Another process is working in this project."""


class DiskFullError(PipelineError):
    """No room left on the disk; everything written so far is whole."""


class CatalogError(PipelineError):
    """The catalogue is damaged, or was made by a newer celforge."""


class PlanError(PipelineError):
    """A plan cannot be carried out as it stands; nothing was touched."""


class JournalError(PipelineError):
    """A journal cannot be finished or taken back, because files changed since."""


class TooManyFailuresError(PipelineError):
    """More items failed than --max-failures allows; what succeeded is kept."""


class MissingPackageError(PipelineError):
    """A command needs an optional package that is not installed."""


class DeviceError(PipelineError):
    """The device asked for (a GPU, usually) cannot be used on this machine, or failed while it worked."""


class HubError(PipelineError):
    """A model file cannot be had: gated, missing, no network, or not the file that is pinned."""


class InterruptedRunError(PipelineError):
    """SIGINT or SIGTERM arrived; the items in hand were finished and saved."""

    exit_code = ExitCode.INTERRUPTED
