"""The demo: from two drawn episodes to three trained models, and how much they learned. Run by `make demo`.

Everything is in out/ afterwards. What `celforge` does there it does by `celforge run`, as in any project: this
script brings the episodes, and asks the judge at the end. Again, it goes on where it stopped.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path

import measure
import torch
from judge import load_judge
from page import page

from pipeline import console
from trainers.models import load_models

HERE = Path(__file__).parent
OUT = HERE / "out"
MODELS, PRESETS, EPISODES = HERE / "models", HERE / "presets", HERE / "episodes"
RUNS = {"loha": "LoHa", "locon": "LoCon", "full": "full"}
EACH = 20  # pictures a character that the judge looks at: 100 of each model


def project_text() -> str:
    """celforge.toml of the demo on this machine."""
    text = (HERE / "project.toml").read_text(encoding="utf-8")
    for word, folder in (("MODELS", MODELS), ("PRESETS", PRESETS)):
        text = text.replace(f'"{word}/', f'"{folder.as_posix()}/')
    return text


def make_project() -> None:
    """Two episodes and their celforge.toml; an older demo's work is removed, this one's stays."""
    config, text = OUT / "celforge.toml", project_text()
    if not config.is_file() or config.read_text(encoding="utf-8") != text:
        shutil.rmtree(OUT, ignore_errors=True)
        (OUT / "videos").mkdir(parents=True)
        for episode in sorted(EPISODES.glob("*.mp4")):
            shutil.copyfile(episode, OUT / "videos" / episode.name)
        for name in ("prompts.txt", "weights.csv"):
            shutil.copyfile(HERE / name, OUT / name)
        config.write_text(text, encoding="utf-8")


def learned() -> dict[str, dict[str, float]]:
    """Signature rates by model and character, the base first: each draws the same prompts from the same noise.

    Two models at a time, on a share of the cores each: one of this size hardly gains by a second core.
    """
    runs = ["base", *RUNS]
    at_once = min(2, os.cpu_count() or 1)
    with (
        console.progress("judge", len(runs), "model") as bar,
        ProcessPoolExecutor(at_once, get_context("spawn"), _share_cores, (at_once,)) as pool,
    ):
        rates = {}
        for run, found in zip(runs, pool.map(signature_rates, runs), strict=True):
            rates[run] = found
            bar.advance()
    return rates


def _share_cores(at_once: int) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // at_once))


def signature_rates(run: str) -> dict[str, float]:
    """Of one model by character, and of all."""
    wanted = measure.trigger_prompts(EACH)
    names, prompts = [name for name, _ in wanted], [prompt for _, prompt in wanted]
    base, file = MODELS / "base", OUT / "models" / run / f"{run}.safetensors"
    with nullcontext(load_models(str(base))) if run == "base" else measure.trained(base, run, file) as models:
        images = measure.draw(models, prompts)
    return measure.signature_rate(load_judge(MODELS / "judge.safetensors"), names, images)


def table(rates: dict[str, dict[str, float]]) -> str:
    """Shares of right signatures as lines of text."""
    columns = list(next(iter(rates.values())))
    head = f"{'':8}" + "".join(f"{name:>9}" for name in columns)
    lines = [
        f"{RUNS.get(run, 'before'):8}" + "".join(f"{found[name]:9.2f}" for name in columns)
        for run, found in rates.items()
    ]
    return "\n".join([head, *lines])


def main() -> int:
    """Bring the episodes, run, ask the judge, say where to look."""
    began = time.monotonic()
    make_project()
    command = [Path(sys.executable).with_name("celforge"), "run", OUT]
    print(
        f"$ celforge run {OUT.relative_to(Path.cwd()) if OUT.is_relative_to(Path.cwd()) else OUT}", flush=True
    )
    code = subprocess.run(command, check=False).returncode
    if code not in (0, 3):  # 3: finished, with something that was named
        return code
    rates = learned()
    minutes = (time.monotonic() - began) / 60
    (OUT / "learned.json").write_text(json.dumps(rates, indent=2) + "\n", encoding="utf-8")
    (OUT / "index.html").write_text(page(rates, RUNS, EACH, minutes), encoding="utf-8")
    print(f"\nShare of {EACH} pictures of each name with the right hair colour, hair shape and outfit:")
    print(table(rates))
    print(f"\n{minutes:.1f} minutes. The picture to open is {OUT / 'compare' / 'grid.png'},")
    print(f"the page {OUT / 'index.html'}, the models are in {OUT / 'models'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
