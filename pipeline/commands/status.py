"""Show what is known about a folder, by stage, outcome and reason.

Reads no picture and writes nothing: it compares names, sizes and times with the catalogue, and says what
changed since.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pipeline import console
from pipeline.catalog import Catalog, below
from pipeline.journal import list_journals
from pipeline.project import Project, existing_folder, find_project
from pipeline.report import outcome_counts
from pipeline.scan import survey
from pipeline.settings import Json
from pipeline.stage_command import folder_argument, json_option


def folder_status(folder: Path) -> dict[str, Any]:
    """What the catalogue knows about a folder, and what changed on disk since.

    Raises:
        InputError: no such folder.
    """
    folder = existing_folder(folder)
    project = find_project(folder)
    with Catalog.open(project.catalog_path, read_only=True) as catalog:
        disk = {kind: survey(catalog, project, folder, (kind,)) for kind in ("image", "video")}
        return {
            "project": str(project.root),
            "folder": str(folder),
            "files": [
                {
                    "files": f"{kind}s",
                    **{key: value for key, value in asdict(one).items() if key not in ("problems", "made")},
                }
                for kind, one in disk.items()
                if kind == "image" or one.unchanged + one.changed + one.new + one.gone
            ],
            "unreadable": [
                f"{problem.path}: {problem.reason}" for one in disk.values() for problem in one.problems
            ],
            "made_folders": disk["image"].made,
            "contents": _count_contents(catalog, project, folder),
            "stages": list(_stages(catalog, project, folder)),
            "last_runs": _last_runs(catalog),
            "undo": _undoable(project),
        }


def _count_contents(catalog: Catalog, project: Project, folder: Path) -> int:
    condition, parameters = below(project.relative(folder))
    sql = f"SELECT COUNT(DISTINCT media_id) FROM paths WHERE NOT is_gone AND {condition}"
    return int(catalog.rows(sql, parameters).fetchone()[0])


def _stages(catalog: Catalog, project: Project, folder: Path) -> list[dict[str, Json]]:
    sql = "SELECT stage FROM outcomes GROUP BY stage ORDER BY MAX(run_id)"
    return [
        {"stage": stage, "outcome": outcome, "reason": reason, "images": count}
        for (stage,) in catalog.rows(sql).fetchall()
        for outcome, reason, count in outcome_counts(catalog, project, folder, stage)
    ]


def _last_runs(catalog: Catalog, most: int = 5) -> list[dict[str, Json]]:
    sql = "SELECT id, stage, folder, started_at, ended_at, exit_code FROM runs ORDER BY id DESC LIMIT ?"
    names = ("run", "stage", "folder", "started", "ended", "exit_code")
    return [dict(zip(names, row, strict=True)) for row in catalog.rows(sql, (most,))]


def _undoable(project: Project) -> str | None:
    journals = [one for one in list_journals(project.state_folder) if not one.is_undone]
    return f"{journals[-1].stage}, {journals[-1].started}" if journals else None


def _status(folder: Path, **given: Any) -> None:
    status = folder_status(folder)
    if given["json"]:
        console.write_json(status)
        return
    console.write(
        f"{status['folder']}" + ("" if status["folder"] == status["project"] else f" in {status['project']}")
    )
    console.table(status["files"])
    for line in status["unreadable"]:
        console.LOG.warning("%s", line)
    if status["made_folders"]:
        console.write(f"made by celforge, and counted apart: {', '.join(status['made_folders'])}")
    if any(row["new"] or row["changed"] for row in status["files"]):
        console.write("new and changed files are taken in by the next stage, or by: celforge ingest")
    if status["stages"]:
        console.table(status["stages"])
    else:
        console.write("no stage has run here yet")
    if status["undo"]:
        console.write(f"`celforge undo` would take back: {status['undo']}")


command = click.Command("status", params=[folder_argument(), json_option()], callback=_status, help=__doc__)
