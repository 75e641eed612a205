import contextlib
import gc
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from pipeline import console
from pipeline.cli import cli, run

# Tests are of the CPU, on every machine alike: where autograd knows of a GPU, a fork (crashing.py) cannot train.
if "CELFORGE_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "demo"))  # its modules are flat

# a busy machine fails no test, and two runs of one commit draw the same; elsewhere each run looks further
settings.register_profile("celforge", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("celforge")


def pytest_collection_finish() -> None:
    """What was imported stays to the end: it is neither walked in every collection of garbage nor copied to children."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Answer:
    """What a command returned and said."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


Celforge = Callable[..., Answer]


@pytest.fixture
def celforge() -> Celforge:
    """Run a command line as a person would, in this process."""

    def call(*arguments: object) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(cli, [str(argument) for argument in arguments])
        return Answer(int(code), out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session", autouse=True)
def _quick_disk() -> Iterator[None]:
    """Nothing waits for the disk, as no power is cut here; what is waited for, and when, is counted by its tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(os, "sync", lambda: None, raising=False)
        yield


@pytest.fixture(autouse=True)
def _log_left_as_found() -> Iterator[None]:
    yield
    console.LOG.handlers[:] = []
    console.LOG.propagate = True
    console.LOG.setLevel(0)


@pytest.fixture
def shared_testdata() -> Path:
    """Pictures and episodes that do not travel with the project."""
    folder = Path(__file__).parents[2] / "shared" / "testdata"
    if not folder.is_dir():
        pytest.skip("the shared test data is not beside this checkout")
    return folder
