import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pipeline.cli import run
from pipeline.command_table import COMMANDS
from pipeline.errors import PipelineError
from tests.conftest import Celforge

ROOT = Path(__file__).parents[1]


def test_help_shows_every_command_with_its_summary(celforge: Celforge) -> None:
    answer = celforge("--help")
    assert answer.exit_code == 0
    text = " ".join(answer.stdout.split())
    for name, row in COMMANDS.items():
        assert f"{name} {row.summary}" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(celforge: Celforge, name: str) -> None:
    answer = celforge(name, "--help")
    assert answer.exit_code == 0
    assert "Usage:" in answer.stdout


def test_a_mistyped_command_names_the_nearest(celforge: Celforge) -> None:
    answer = celforge("stauts")
    assert answer.exit_code == 2
    assert 'Did you mean "status"?' in answer.stderr


def test_a_mistyped_flag_names_the_nearest(celforge: Celforge, tmp_path: Path) -> None:
    answer = celforge("ingest", "--max-failure", "3", tmp_path)
    assert answer.exit_code == 2
    assert "--max-failures" in answer.stderr


def test_a_flag_of_celforge_itself_behind_the_command_says_where_it_belongs(
    celforge: Celforge, tmp_path: Path
) -> None:
    answer = celforge("ingest", tmp_path, "-q")
    assert answer.exit_code == 2
    assert answer.stderr.splitlines()[-1] == "  try: celforge -q ingest ..."


def test_an_error_is_one_sentence_and_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def failing() -> None:
        raise PipelineError("ep\x1b[31m01 is gone", hint="bring it back")

    assert run(failing, []) == 1
    assert capsys.readouterr().err == "error: ep\\x1b[31m01 is gone\n  try: bring it back\n"


def test_ctrl_c_outside_a_job_is_exit_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert run(interrupted, []) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="POSIX accounting")
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_costs_less_than_three_tenths_of_a_second_of_processor_time(name: str) -> None:
    """One of five tries will do, on a busy or slow machine at most six bare imports of click: wall time stands
    in benchmarks/RESULTS.md.
    """
    arguments = [*([name] if name else []), "--help"]
    code = f"from pipeline.cli import main; main({arguments})"
    for _ in range(5):
        taken_s = processor_s(code)
        if taken_s < 0.3 or taken_s < 6 * processor_s("import click"):
            return
    raise AssertionError(f"{taken_s:.2f} s")


def processor_s(code: str) -> float:
    """Seconds of processor time of a Python process."""
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return float(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(celforge: Celforge, shell: str) -> None:
    answer = celforge("completion", shell)
    assert answer.exit_code == 0
    assert "_CELFORGE_COMPLETE" in answer.stdout


def test_completion_completes_commands_and_flags() -> None:
    def complete(line: str, word: int) -> str:
        environment = {
            **os.environ,
            "_CELFORGE_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(word),
        }
        code = "import sys; sys.argv = ['celforge']; from pipeline.cli import main; main()"
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False
        ).stdout

    assert complete("celforge in", 1).split() == ["plain,init", "plain,ingest"]
    assert "plain,--max-failures" in complete("celforge ingest --max", 2)
    assert "plain,header" in complete("celforge ingest --decode h", 3)


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_reader_that_goes_away_is_no_error() -> None:
    code = "from pipeline.cli import main; main(['config', 'show'])"
    command = f'{sys.executable} -c "{code}" | head -c 1'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, cwd=ROOT, check=False
    )
    assert b"Traceback" not in done.stderr
