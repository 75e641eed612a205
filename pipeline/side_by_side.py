"""A command of celforge in a process of its own, so that several can work at a time.

What it says goes to the log line by line under its name; what it answers, and the error that ended it, come
back as if it had been called here.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from pipeline.console import LOG
from pipeline.errors import ExitCode, InterruptedRunError, PipelineError

PROGRAM = (sys.executable, "-P", "-c", "from pipeline.cli import main; main()")
_WARNING, _ERROR, _TRY = "warning: ", "error: ", "  try: "


class Beside:
    """A command that works beside others.

    Args:
        name: before its lines.
        folder: where it works.
        share: of the processor's cores, that its arithmetic may take, where nothing else was said.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path, *, share: float) -> None:
        self.name = name
        self._error = PipelineError(f"{name} ended without a word")
        self._is_asked = False
        self._answer: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `answer` closes it
        threads = str(max(1, int((os.cpu_count() or 1) * share)))
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._answer,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={"OMP_NUM_THREADS": threads, **os.environ, "PYTHONIOENCODING": "utf-8"},
            start_new_session=sys.platform != "win32",  # whoever called it is asked to stop, and asks it once
        )
        self._reader = threading.Thread(target=self._relay, name=name, daemon=True)
        self._reader.start()

    def _relay(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                text = line.rstrip()
                if text.startswith(_ERROR):
                    self._error = PipelineError(text.removeprefix(_ERROR))
                elif text.startswith(_TRY):
                    self._error = PipelineError(self._error.message, hint=text.removeprefix(_TRY))
                elif text.startswith(_WARNING):
                    LOG.warning("%s: %s", self.name, text.removeprefix(_WARNING))
                elif text:
                    LOG.info("%s: %s", self.name, text)

    def is_working(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def ask_to_stop(self) -> None:
        """Let it finish what is in hand; on Windows the console has asked all of its processes already."""
        self._is_asked = True
        if sys.platform != "win32" and self.is_working():
            self._process.send_signal(signal.SIGTERM)

    def answer(self) -> tuple[int, str]:
        """Exit code and what it printed, after it ended.

        Raises:
            PipelineError: it failed; with its own words, fix and exit code.
        """
        code = self._process.wait()
        self._reader.join()
        self._answer.seek(0)
        printed = self._answer.read().decode("utf-8", "replace")
        self._answer.close()
        if code < 0 and self._is_asked:
            raise InterruptedRunError("interrupted before its first step")  # it did not listen yet
        if code not in (ExitCode.DONE, ExitCode.FAILED_ITEMS):
            known = {int(one): one for one in ExitCode}
            self._error.exit_code = known.get(code, ExitCode.FAILED)  # a signal gives a negative one
            raise self._error
        return code, printed
