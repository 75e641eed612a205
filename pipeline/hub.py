"""Model files of a hub: found on disk without a network, else downloaded once; sha256 checked every time.

Files lie where huggingface_hub keeps them (HF_HOME), and its own words count: HF_ENDPOINT for a mirror,
HF_TOKEN, HF_HUB_OFFLINE. A file whose sha256 is not known beforehand is taken at its word the first time; the
commit and sha256 found then are noted in `.celforge/models.json`, and any other file is refused ever after.
"""

import hashlib
import inspect
import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.console import LOG
from pipeline.errors import DiskFullError, HubError
from pipeline.files import write_atomic
from pipeline.workers import describe

READ_BYTES = 1 << 20
LEDGER_NAME = "models.json"
_COMMIT = re.compile(r"[/\\]snapshots[/\\]([0-9a-f]{40})[/\\]")


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a model repository.

    Args:
        instead: what a person can do where the hub does not give it, as the end of a sentence: the caller
            knows by which option a model on disk is named.
    """

    repo: str  # owner/name
    path: str  # inside the repository
    revision: str | None = None  # a commit; None follows the main branch until the first download
    sha256: str | None = None
    size_bytes: int | None = None
    instead: str = "take another model"

    @property
    def key(self) -> str:
        """Its name in the ledger."""
        return f"{self.repo}@{self.revision or 'main'}/{self.path}"


class Ledger:
    """What a project knows of model files: commit and sha256 of unpinned ones, and what was hashed."""

    def __init__(self, state_folder: Path) -> None:
        self.path = state_folder / LEDGER_NAME
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            data = {}
        except (OSError, ValueError) as error:
            hint = "mend it, or move it away: then unpinned models are taken at their word once more"
            raise HubError(f"{self.path} cannot be read: {error}", hint=hint) from error
        self._pins: dict[str, dict[str, str]] = data.get("pins", {})
        self._hashed: dict[str, list[Any]] = data.get("hashed", {})

    def pin(self, file: HubFile) -> dict[str, str]:
        """`commit` and `sha256` noted at the first download of an unpinned file; empty before it."""
        return self._pins.get(file.key, {})

    def note(self, file: HubFile, commit: str, sha256: str) -> None:
        """Remember what an unpinned file turned out to be."""
        self._pins[file.key] = {"commit": commit, "sha256": sha256}
        self._save()

    def sha256(self, path: Path) -> str:
        """sha256, hex, of a file; one whose size and time are those of the last time is not read again."""
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        known = self._hashed.get(str(path))
        if known is not None and known[:2] == stamp:
            return str(known[2])
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while data := stream.read(READ_BYTES):
                digest.update(data)
        self._hashed[str(path)] = [*stamp, digest.hexdigest()]
        self._save()
        return digest.hexdigest()

    def _save(self) -> None:
        text = json.dumps({"pins": self._pins, "hashed": self._hashed}, indent=1, sort_keys=True)
        write_atomic(self.path, text + "\n")


def known_sha256(file: HubFile, ledger: Ledger) -> str | None:
    """The sha256 that a file must have, or None when it was never seen; asks neither disk nor network."""
    return file.sha256 or ledger.pin(file).get("sha256")


def fetch(file: HubFile, ledger: Ledger) -> Path:
    """A file on this disk that is what it should be; the network is asked only for one that is not here.

    Raises:
        HubError: gated, missing, no network, or other bytes than those pinned.
        DiskFullError: no room for it.
    """
    revision = file.revision or ledger.pin(file).get("commit")
    path = _cached(file, revision) or _download(file, revision)
    found, wanted = ledger.sha256(path), known_sha256(file, ledger)
    if wanted is not None and found != wanted:
        hint = f"delete {path.resolve()} and run again; if it stays so, {file.instead}"
        raise HubError(
            f"{file.path} of {file.repo} is not the file that is pinned: its sha256 is {found}, not {wanted}",
            hint=hint,
        )
    if wanted is None:
        commit = match[1] if (match := _COMMIT.search(str(path))) else ""
        ledger.note(file, commit, found)
        text = (
            "%s of %s is not pinned by celforge: noted commit %s and sha256 %s; other files are refused now"
        )
        LOG.warning(text, file.path, file.repo, commit[:12] or "(none)", found[:12])
    return path


def _cached(file: HubFile, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(file.repo, file.path, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _download(file: HubFile, revision: str | None) -> Path:
    """Ask the hub, with a bar; what came half way is gone on with by huggingface_hub."""
    from huggingface_hub import errors, hf_hub_download

    LOG.info("downloading %s of %s%s", file.path, file.repo, _size_text(file.size_bytes))
    with _hub_log_held_back(), _bar(file) as bar:
        options: dict[str, Any] = {"revision": revision}
        if "tqdm_class" in inspect.signature(hf_hub_download).parameters:
            options["tqdm_class"] = _bar_class(bar)
        try:
            return Path(hf_hub_download(file.repo, file.path, **options))
        except errors.GatedRepoError as error:
            raise _gated(file) from error
        except errors.RepositoryNotFoundError as error:
            hint = f"see that the name is right; a private one needs: hf auth login; or {file.instead}"
            raise HubError(f"there is no model {file.repo} on the hub", hint=hint) from error
        except errors.RevisionNotFoundError as error:
            raise _missing(file, f"has no revision {revision}") from error
        except errors.LocalEntryNotFoundError as error:  # no answer, or HF_HUB_OFFLINE
            raise _offline(file, error) from error
        except errors.EntryNotFoundError as error:
            raise _missing(file, f"has no file {file.path}") from error
        except errors.HfHubHTTPError as error:
            raise _offline(file, error) from error
        except OSError as error:
            if describe(error).is_disk_full:
                raise DiskFullError(f"no room for {file.path} of {file.repo}", hint="set HF_HOME") from error
            raise _offline(file, error) from error


@contextmanager
def _hub_log_held_back() -> Iterator[None]:
    """What huggingface_hub remarks goes into our log; that it tries again is said once, in our words."""
    logger = logging.getLogger("huggingface_hub")
    handlers, propagates = logger.handlers[:], logger.propagate
    logger.handlers[:], logger.propagate = [_HubRemarks()], False
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = handlers, propagates


class _HubRemarks(logging.Handler):
    has_said = False

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        LOG.debug("huggingface_hub: %s", text)
        if "Retrying" in text and not self.has_said:
            self.has_said = True
            LOG.info("the hub does not answer; trying again for half a minute")


def _bar(file: HubFile) -> AbstractContextManager[console.Counter]:
    return console.progress(file.path, file.size_bytes, "byte")


def _bar_class(counter: console.Counter) -> type:
    """huggingface_hub's own bar, which tells ours and draws nothing itself."""
    from huggingface_hub import utils

    bar_class: Any = utils.tqdm  # type: ignore[attr-defined]

    def start(self: Any, *arguments: Any, **options: Any) -> None:
        bar_class.__init__(self, *arguments, **{**options, "file": io.StringIO()})

    def update(self: Any, n: float | None = 1) -> Any:
        counter.advance(int(n or 0))
        return bar_class.update(self, n)

    return type("Told", (bar_class,), {"__init__": start, "update": update})


def _size_text(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f" ({size_bytes / 1e6:,.0f} MB)"


def _gated(file: HubFile) -> HubError:
    from huggingface_hub import constants

    page = f"{constants.ENDPOINT}/{file.repo}"
    hint = f"accept its terms at {page}, then: hf auth login; or {file.instead}"
    return HubError(f"{file.repo} is gated: its owner wants to know who downloads it", hint=hint)


def _missing(file: HubFile, what: str) -> HubError:
    hint = f"it was moved or deleted; {file.instead}"
    return HubError(f"{file.repo} on the hub {what}", hint=hint)


def _offline(file: HubFile, error: Exception) -> HubError:
    at = f" --revision {file.revision}" if file.revision else ""
    root: BaseException = error
    while (deeper := root.__cause__ or root.__context__) is not None:
        root = deeper  # the hub's own words for a missing network say nothing of what failed
    first = (str(root).strip().splitlines() or [type(root).__name__])[0]
    hint = f"where there is a network: hf download {file.repo} {file.path}{at}; or {file.instead}"
    return HubError(f"{file.path} of {file.repo} is not on this disk, and the hub gave: {first}", hint=hint)
