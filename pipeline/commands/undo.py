"""Take back the last change of files.

Files moved, linked, copied, dropped or written by the last command that changed any are put back as they
were, byte for byte, and what that command noted in the catalogue is taken back with them. Again takes back
the one before.
"""

from pathlib import Path
from typing import Any

import click

from pipeline import console
from pipeline.catalog import Catalog
from pipeline.errors import InputError
from pipeline.interruption import interruptible
from pipeline.journal import Journal, list_journals, undo_last
from pipeline.project import find_project, locked
from pipeline.stage_command import folder_argument, json_option


def _undo(folder: Path, **given: Any) -> None:
    project = find_project(folder)
    journals = [journal for journal in list_journals(project.state_folder) if not journal.is_undone]
    if given["list"] or given["dry_run"]:
        shown = journals if given["list"] else journals[-1:]
        _show([_row(journal) for journal in reversed(shown)], is_json=given["json"])
        return
    if not journals:
        raise InputError(f"there is nothing to take back in {project.root}", hint="see: celforge status")
    with (
        locked(project),
        interruptible() as interruption,
        Catalog.open(project.catalog_path) as catalog,
        console.progress("undo", journals[-1].num_steps, "step") as bar,
    ):
        journal = undo_last(
            project.root,
            project.state_folder,
            catalog,
            force=given["force"],
            on_step=bar.advance,
            should_stop=lambda: interruption.is_asked,
        )
    for note in journal.notes:
        console.LOG.warning("%s", note)
    _show([_row(journal)], is_json=given["json"])


def _row(journal: Journal) -> dict[str, Any]:
    return {
        "journal": journal.name,
        "stage": journal.stage,
        "started": journal.started,
        "changes": journal.num_steps,
        "state": journal.status,
    }


def _show(rows: list[dict[str, Any]], *, is_json: bool) -> None:
    if is_json:
        console.write_json(rows)
    elif rows:
        console.table(rows)
    else:
        console.write("there is nothing to take back")


command = click.Command(
    "undo",
    params=[
        folder_argument(),
        click.Option(
            ["--list"], is_flag=True, help="Show every change that can be taken back, the newest first."
        ),
        click.Option(["--dry-run"], is_flag=True, help="Show what would be taken back, and do nothing."),
        click.Option(
            ["--force"],
            is_flag=True,
            help="Go on where files changed since; those are kept in .celforge/dropped/.",
        ),
        json_option(),
    ],
    callback=_undo,
    help=__doc__,
)
