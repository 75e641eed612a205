"""One comparison from its settings to its files: what is planned, drawn, and put together."""

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from PIL import Image

from pipeline.console import LOG
from pipeline.errors import InputError, LockedError
from pipeline.files import write_atomic
from pipeline.interruption import interruptible
from pipeline.made_folders import mark_made
from pipeline.project import Project
from pipeline.settings import Resolved, as_json
from trainers.compare_drawing import Pictures, draw, parameters
from trainers.compare_grid import draw_grid
from trainers.compare_page import page
from trainers.compare_plan import Plan, make_plan
from trainers.compare_settings import Settings
from trainers.precision import choose_device, choose_precision
from trainers.prompts import to_words
from trainers.samples import PARAMETERS_KEY, png_bytes

GRID, PAGE, FACTS, SINGLE = "grid.png", "index.html", "settings.json", "pictures"
CACHED_PICTURES = 64  # decoded, while the grid is drawn


def run_comparison(resolved: Resolved[Settings], project: Project, *, is_dry_run: bool) -> dict[str, Any]:
    """Draw what is missing, then the grid and the page. Returns: the report.

    Raises:
        InputError, SettingsError: as `make_plan`; the folder cannot be written.
        InterruptedRunError: asked to stop; what is drawn is on disk.
        LockedError, DeviceError, DiskFullError.
    """
    settings = resolved.settings
    device = choose_device(settings.device)
    is_project = project.config_path is not None or project.state_folder.is_dir()
    root = project.root if is_project else Path.cwd()
    plan = make_plan(settings, project, root / "models", choose_precision(settings.precision, device))
    for problem in plan.problems:
        LOG.warning("%s", problem)
    for path, sentence in plan.failures:
        LOG.warning("%s is left out: %s", path, sentence)
    out = settings.out or root / "compare"
    pictures = Pictures(out / SINGLE)
    missing = pictures.missing(plan)
    report = _report(plan, len(missing))
    if is_dry_run:
        return report
    with _folder(out), interruptible() as interruption:
        state_folder = project.state_folder if project.state_folder.is_dir() else None
        draw(plan, missing, pictures, device=device, state_folder=state_folder, interruption=interruption)
        report["drawn"] = len(missing)
        report["made"] = [str(path) for path in _write(plan, pictures, out, resolved)]
    return report


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """The folder, made and held by this process."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for mark in mark_made(out, "compare"):
            write_atomic(mark.path, mark.content)
        lock = FileLock(out / ".lock", timeout=0.2)
        lock.acquire()
    except Timeout:
        raise LockedError(
            f"another celforge is drawing into {out}", hint="wait for it, or give another --out"
        ) from None
    except OSError as error:
        raise InputError(
            f"{out} cannot be written: {error.strerror}", hint="give another folder: --out FOLDER"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _write(plan: Plan, pictures: Pictures, out: Path, resolved: Resolved[Settings]) -> list[Path]:
    read = functools.lru_cache(CACHED_PICTURES)(pictures.read)

    def of_cell(down: int, across: int) -> Image.Image | None:
        return read(plan.cells[down, across].key)

    grid = draw_grid(plan.labels(), plan.rows, of_cell)
    first = plan.cells[0, 0]
    columns = " | ".join(", ".join(part for part in label if part) for label in plan.labels())
    more = {"Grid columns": columns, "Grid rows": len(plan.rows)}
    write_atomic(
        out / GRID, png_bytes(grid, {PARAMETERS_KEY: parameters(plan, first.column, first.prompt, more)})
    )
    words = {
        "settings": as_json(resolved.settings),
        "sources": dict(resolved.sources),
        **_report(plan, 0),
        "cells": [
            {"row": down, "column": across, "picture": f"{SINGLE}/{cell.key}.png"}
            for (down, across), cell in sorted(plan.cells.items())
        ],
    }
    del words["missing"], words["drawn"], words["made"]
    write_atomic(out / FACTS, json.dumps(words, indent=2, ensure_ascii=False) + "\n")
    shown = {key: f"{SINGLE}/{key}.png" for key in plan.pictures() if pictures.path(key).is_file()}
    made = {"the grid as one PNG": GRID, "settings": FACTS}
    write_atomic(out / PAGE, page(plan, shown, made))
    return [out / GRID, out / PAGE]


def _report(plan: Plan, missing: int) -> dict[str, Any]:
    return {
        "columns": [
            {
                "base": one.base.given,
                "base_sha256": one.base.sha256,
                "prediction_type": one.base.facts.models.diffusion.prediction_type,
                "zero_terminal_snr": one.base.facts.models.diffusion.is_zero_terminal_snr,
                "model": None if one.model is None else str(one.model.path),
                "sha256": None if one.model is None else one.model.sha256,
                "kind": "base" if one.model is None else one.model.kind,
                "step": None if one.model is None else one.model.step,
                "weight": one.weight if one.model and one.model.is_adapter else None,
            }
            for one in plan.columns
        ],
        "rows": [to_words(one) for one in plan.rows],
        "clip_skip": plan.clip_skip,
        "max_tokens": plan.max_tokens,
        "precision": plan.precision,
        "pictures": len(plan.pictures()),
        "missing": missing,
        "drawn": 0,
        "problems": list(plan.problems),
        "failures": [{"path": str(path), "reason": sentence} for path, sentence in plan.failures],
        "made": [],
    }
