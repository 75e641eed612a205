"""Model files come from the disk where they are, and are never other than they should be."""

import hashlib
import http.server
import json
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from pipeline import hub
from pipeline.errors import DiskFullError, HubError
from pipeline.hub import HubFile, Ledger, fetch, known_sha256

COMMIT, OTHER = "a" * 40, "b" * 40
DATA = b"weights"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def put(cache: Path, data: bytes = DATA, commit: str = COMMIT, *, is_main: bool = True) -> Path:
    """A file as huggingface_hub keeps it."""
    repo = cache / "models--somebody--tagger"
    path = repo / "snapshots" / commit / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    if is_main:
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / "main").write_text(commit)
    return path


def wanted(revision: str | None = COMMIT, sha256: str | None = SHA256) -> HubFile:
    return HubFile("somebody/tagger", "model.onnx", revision, sha256, instead="give --tagger FOLDER")


def downloads(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[dict[str, Any]]:
    """Put a stand-in in place of the hub; returns what it is asked."""
    asked: list[dict[str, Any]] = []

    def download(repo_id: str, filename: str, *, revision: str | None = None, tqdm_class: Any = None) -> str:
        asked.append({"repo": repo_id, "file": filename, "revision": revision, "tqdm": tqdm_class})
        if isinstance(answer, Exception):
            raise answer
        return str(answer())

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def http_error(kind: type[Exception], code: int) -> Exception:
    import httpx2

    request = httpx2.Request("GET", "http://127.0.0.1/")
    return kind("refused", response=httpx2.Response(code, request=request))  # type: ignore[call-arg]


@pytest.mark.usefixtures("no_network")
def test_a_file_on_disk_is_taken_without_a_network(cache: Path, ledger: Ledger) -> None:
    path = put(cache, is_main=False)
    assert fetch(wanted(), ledger) == path


@pytest.mark.usefixtures("no_network")
def test_other_bytes_than_those_pinned_are_refused(cache: Path, ledger: Ledger) -> None:
    path = put(cache, b"something else")
    with pytest.raises(HubError, match="not the file that is pinned") as caught:
        fetch(wanted(), ledger)
    assert f"delete {path}" in caught.value.hint


@pytest.mark.usefixtures("no_network")
def test_what_a_pinned_file_must_be_is_known_before_it_is_here(ledger: Ledger) -> None:
    assert known_sha256(wanted(), ledger) == SHA256
    assert known_sha256(wanted(None, None), ledger) is None


def test_an_unpinned_file_is_noted_the_first_time_and_held_to_it_ever_after(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = downloads(monkeypatch, lambda: put(cache))
    fetch(wanted(None, None), Ledger(tmp_path))
    assert "is not pinned by celforge: noted commit aaaaaaaaaaaa" in caplog.text
    assert json.loads((tmp_path / "models.json").read_text())["pins"] == {
        "somebody/tagger@main/model.onnx": {"commit": COMMIT, "sha256": SHA256}
    }
    put(cache, b"a newer version", OTHER)  # the main branch went on
    caplog.clear()
    assert fetch(wanted(None, None), Ledger(tmp_path)).read_bytes() == DATA
    assert caplog.text == ""
    assert [one["revision"] for one in asked] == [None]
    (cache / "models--somebody--tagger" / "snapshots" / COMMIT / "model.onnx").write_bytes(b"touched")
    with pytest.raises(HubError, match="not the file that is pinned"):
        fetch(wanted(None, None), Ledger(tmp_path))


def test_an_unpinned_file_that_is_gone_is_asked_for_by_the_commit_noted(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache)
    fetch(wanted(None, None), Ledger(tmp_path))
    (cache / "models--somebody--tagger" / "snapshots" / COMMIT / "model.onnx").unlink()
    asked = downloads(monkeypatch, http_error(errors.RevisionNotFoundError, 404))
    with pytest.raises(HubError, match=f"no revision {COMMIT}"):
        fetch(wanted(None, None), Ledger(tmp_path))
    assert asked[0]["revision"] == COMMIT


def test_a_file_is_hashed_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.onnx"
    path.write_bytes(DATA)
    assert Ledger(tmp_path).sha256(path) == SHA256
    monkeypatch.setattr(hashlib, "sha256", None)  # hashing would fail now
    assert Ledger(tmp_path).sha256(path) == SHA256
    path.write_bytes(b"longer than before")
    with pytest.raises(TypeError):
        Ledger(tmp_path).sha256(path)


@pytest.mark.usefixtures("cache")
def test_what_lies_behind_an_unreachable_hub_is_said_and_its_library_stays_silent(
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def download(repo_id: str, filename: str, *, revision: str) -> str:
        for number in (1, 2):
            logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry %s/5].", number)
        missing = OSError("Name or service not known")
        raise errors.LocalEntryNotFoundError("Please check your connection") from missing

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    caplog.set_level(logging.INFO, "celforge")
    with pytest.raises(HubError, match="the hub gave: Name or service not known") as caught:
        fetch(wanted(), ledger)
    assert caught.value.hint.endswith("or give --tagger FOLDER")
    assert capsys.readouterr().err == ""
    assert [one.getMessage() for one in caplog.records if one.levelname == "INFO"][1:] == [
        "the hub does not answer; trying again for half a minute"
    ]


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (
            lambda: http_error(errors.GatedRepoError, 403),
            "is gated",
            "hf auth login; or give --tagger FOLDER",
        ),
        (
            lambda: http_error(errors.RepositoryNotFoundError, 404),
            "no model somebody/tagger",
            "or give --tagger FOLDER",
        ),
        (
            lambda: http_error(errors.RemoteEntryNotFoundError, 404),
            "has no file model.onnx",
            "--tagger FOLDER",
        ),
        (lambda: errors.LocalEntryNotFoundError("offline mode"), "offline mode", f"--revision {COMMIT}"),
        (lambda: http_error(errors.HfHubHTTPError, 503), "the hub gave: refused", "hf download"),
        (lambda: ConnectionError("no route"), "the hub gave: no route", "hf download"),
    ],
)
@pytest.mark.usefixtures("cache")
def test_a_hub_that_does_not_give_says_why_and_what_to_type(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, error: Any, message: str, hint: str
) -> None:
    downloads(monkeypatch, error())
    with pytest.raises(HubError, match=message) as caught:
        fetch(wanted(), ledger)
    assert hint in caught.value.hint


@pytest.mark.usefixtures("cache")
def test_a_full_disk_is_called_so(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads(monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(DiskFullError, match=r"no room for model\.onnx"):
        fetch(wanted(), ledger)


@pytest.mark.usefixtures("cache")
def test_progress_goes_to_our_own_bar(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = downloads(monkeypatch, lambda: path)
    path = tmp_path / "x"
    path.write_bytes(DATA)
    counted: list[int] = []

    class Counter:
        def __enter__(self) -> "Counter":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def advance(self, count: int = 1) -> None:
            counted.append(count)

    monkeypatch.setattr(hub.console, "progress", lambda *_: Counter())
    fetch(wanted(), ledger)
    with asked[0]["tqdm"](total=7, desc="x") as bar:
        bar.update(3)
        bar.update(4)
    assert counted == [3, 4]


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text("{")
    with pytest.raises(HubError, match=r"models\.json cannot be read"):
        Ledger(tmp_path)


@pytest.fixture
def mirror() -> Iterator[str]:
    """A hub of one file on this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            is_there = self.path.split("?")[0] == f"/somebody/tagger/resolve/{COMMIT}/model.onnx"
            self.send_response(200 if is_there else 404)
            self.send_header("Content-Length", str(len(DATA) if is_there else 0))
            self.send_header("ETag", f'"{SHA256}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if is_there and with_body:
                self.wfile.write(DATA)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_mirror_is_asked_in_place_of_the_hub(
    mirror: str, cache: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", mirror)  # what HF_ENDPOINT sets
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", mirror + "/{repo_id}/resolve/{revision}/{filename}"
    )
    path = fetch(wanted(), ledger)
    assert path.read_bytes() == DATA
    assert cache in path.parents
