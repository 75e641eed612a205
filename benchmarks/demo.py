"""How surely the demo learns: each kind trained from several seeds on the demo's own data set, and judged.

    make demo && python benchmarks/demo.py [--seeds 3] [--each 20] [--plain 96] [--models FOLDER]

Presets, prompts and noise are those of the demo and the same for all; only the seed of the training differs.
Printed as a table: the share of pictures with the right hair colour, hair shape and outfit for prompts of a
name, before and after; and for prompts of tags alone, without a name, what share of each is right before, and
how much of it is lost. Models of --models are judged as they are.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "demo"
sys.path[:0] = [str(ROOT), str(DEMO)]

import measure  # noqa: E402 - found by the path above
from judge import Judge, load_judge  # noqa: E402 - found by the path above
from run import MODELS, OUT, PRESETS, RUNS  # noqa: E402 - found by the path above

from trainers.models import Models, load_models  # noqa: E402 - found by the path above

GOALS = {"loha": 0.85, "locon": 0.70, "full": 0.80}
MOST_BEFORE, MOST_LOST = 0.05, 0.25


def main() -> None:
    """Read the command line; models that need not be kept go to a temporary folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--each", type=int, default=20, help="pictures a name")
    parser.add_argument("--plain", type=int, default=96, help="pictures without a name")
    parser.add_argument("--kinds", nargs="*", default=list(RUNS))
    parser.add_argument("--models", type=Path, help="where models are kept, and not trained again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        compare(arguments, arguments.models or Path(temporary))


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Train, judge, print."""
    judge = load_judge(MODELS / "judge.safetensors")
    before = look(load_models(str(MODELS / "base")), judge, arguments.each, arguments.plain)
    kept = ", ".join(f"{field} {share:.2f}" for field, share in before.items() if field != "all")
    print(f"before: signature {before['all']:.2f} (goal {MOST_BEFORE} at most); without a name {kept}\n")
    print("| model | " + " | ".join(f"seed {seed}" for seed in range(1, arguments.seeds + 1))
          + " | mean | goal | most lost without a name (mean) | minutes a run |")  # fmt: skip
    print("| --- |" + " --- |" * (arguments.seeds + 4), flush=True)
    for kind in arguments.kinds:
        runs, minutes = [], []
        for seed in range(1, arguments.seeds + 1):
            file = folder / f"{kind}-{seed}" / f"{kind}.safetensors"
            if not file.is_file():
                began = time.monotonic()
                train(kind, seed, file.parent)
                minutes.append((time.monotonic() - began) / 60)
            with measure.trained(MODELS / "base", kind, file) as models:
                runs.append(look(models, judge, arguments.each, arguments.plain))
        rates = [one["all"] for one in runs]
        field, lost = max(
            (
                (field, before[field] - statistics.mean(one[field] for one in runs))
                for field in measure.SIGNATURE
            ),
            key=lambda pair: pair[1],
        )
        took = f"{statistics.mean(minutes):.1f}" if minutes else "kept"
        shown = " | ".join(f"{rate:.2f}" for rate in rates)
        print(
            f"| {RUNS[kind]} | {shown} | {statistics.mean(rates):.2f} | {GOALS[kind]:.2f} | "
            f"{lost:.2f} ({field.replace('_', ' ')}; goal {MOST_LOST}) | {took} |",
            flush=True,
        )


def train(kind: str, seed: int, folder: Path) -> None:
    """Train as the demo does, from another seed."""
    command = [
        Path(sys.executable).with_name("celforge"),
        "-q",
        "train",
        kind,
        "--preset",
        PRESETS / f"{kind}.toml",
    ]
    command += ["--data", OUT / "dataset", "--base", MODELS / "base", "--seed", str(seed)]
    command += ["--name", kind, "--out", folder, "--save-every", "0"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def look(models: Models, judge: Judge, each: int, plain: int) -> dict[str, float]:
    """{"all": signature rate of the names, field: share of right answers without a name}."""
    wanted, asked = measure.trigger_prompts(each), measure.plain_prompts(plain)
    images = measure.draw(models, [prompt for _, prompt in wanted])
    rates = measure.signature_rate(judge, [name for name, _ in wanted], images)
    images = measure.draw(models, [prompt for _, prompt in asked])
    return {"all": rates["all"], **measure.following(judge, [scene for scene, _ in asked], images)}


if __name__ == "__main__":
    main()
