"""What a stage reports, as a person and as a machine are told it."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.command_table import COMMANDS, stage
from pipeline.job import Job, Report
from pipeline.report import Details, Table
from tests.conftest import Celforge


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stage that looks for errors, as the command `ingest`."""
    from stages.ingest import Settings

    def run_stage(job: Job, settings: Settings) -> Report:
        job.found_errors = True
        report = job.report(pictures=3)
        files = [{"file": f"{number}.txt"} for number in range(3)]
        report.parts += [
            Table("errors", [{"trap": "bom", "files": 2}]),
            Table("marked files", files, "marked", most_shown=2),
            "mend them",
            Details({"findings": [{"trap": "bom", "path": "a.txt"}]}),
        ]
        return report

    made = ModuleType("made_up_stage", "Look for errors.")
    made.Settings, made.run = Settings, run_stage  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setitem(COMMANDS, "ingest", stage(made.__name__, "Look for errors."))
    return made


@pytest.mark.usefixtures("module")
def test_a_stage_that_found_errors_ends_with_3_and_its_run_is_noted_so(
    celforge: Celforge, tmp_path: Path
) -> None:
    assert celforge("ingest", tmp_path).exit_code == 3
    assert celforge("status", "--json", tmp_path).json["last_runs"][0]["exit_code"] == 3


@pytest.mark.usefixtures("module")
def test_tables_and_lines_are_for_people_and_details_for_machines(celforge: Celforge, tmp_path: Path) -> None:
    shown = celforge("ingest", tmp_path).stdout
    assert [line.split() for line in shown.splitlines() if "bom" in line] == [["bom", "2"]]
    assert "mend them" in shown
    assert "1.txt" in shown
    assert "2.txt" not in shown
    assert "... and 1 more; --json shows all" in shown
    assert shown.index("errors") < shown.index("marked files") < shown.index("pictures: 3")
    assert "findings" not in shown
    told = celforge("ingest", "--json", tmp_path).json
    assert told["findings"] == [{"trap": "bom", "path": "a.txt"}]
    assert told["pictures"] == 3
    assert told["marked"] == [{"file": f"{number}.txt"} for number in range(3)]
    assert not {"errors", "parts"} & told.keys()
