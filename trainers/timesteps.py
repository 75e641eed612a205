"""Which timesteps are drawn, and how often: ranges, distributions, and what the plan shows of them.

A distribution is a curve from u, even between 0 and 1, to the place in the range: 1 is the noisiest.
"""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.charts import Bar, columns, document
from pipeline.files import write_atomic
from trainers import draws
from trainers.model_parts import Diffusion
from trainers.objective_settings import ObjectiveSettings
from trainers.objectives import make_objective, trained_range

BINS = 10  # of the plan
FINE = 200_000  # points of the curve that shares are counted by
WIDEST_BAR = 30  # letters


def draw_timesteps(settings: ObjectiveSettings, count: int, num_train: int, seed: int, number: int) -> Tensor:
    """Timesteps of a batch: [count], int64, on the CPU.

    Args:
        num_train: timesteps of the model.
        number: of the batch.
    """
    is_plain = settings.timestep_distribution == "uniform" and not settings.stratified_timesteps
    first, end = trained_range(settings, num_train)
    if is_plain:
        return first + draws.timesteps(count, end - first, "timesteps", seed, number)
    even = draws.uniform((count,), "timesteps", seed, number).double()
    if settings.stratified_timesteps:
        strata = torch.from_numpy(draws.permutation(count, "strata", seed, number))
        even = (strata + even) / count
    return _placed(settings, even, first, end)


def _placed(settings: ObjectiveSettings, even: Tensor, first: int, end: int) -> Tensor:
    places = _curve(settings, even)
    return (first + (places * (end - first)).floor().long()).clamp(first, end - 1)


def _curve(settings: ObjectiveSettings, even: Tensor) -> Tensor:
    """From uniform numbers to places in the range, fp64.

    "logit-normal" and "mode": Esser et al. 2024, arXiv:2403.03206, eq. 19 and 20, where 1 is noise alone.
    """
    if settings.timestep_distribution == "logit-normal":
        normal: Tensor = torch.special.ndtri(even)
        return (settings.timestep_mean + settings.timestep_deviation * normal).sigmoid()
    if settings.timestep_distribution == "mode":
        rounded = (math.pi / 2 * even).cos().square() - 1 + even
        return 1 - even - settings.timestep_mode_scale * rounded
    return even


def timestep_shares(settings: ObjectiveSettings, num_train: int) -> Tensor:
    """How often each timestep is drawn: [num_train], fp64, 1 in sum."""
    first, end = trained_range(settings, num_train)
    shares = torch.zeros(num_train, dtype=torch.float64)
    if settings.timestep_distribution == "uniform":
        shares[first:end] = 1 / (end - first)
        return shares
    even = (torch.arange(FINE, dtype=torch.float64) + 0.5) / FINE
    return shares + torch.bincount(_placed(settings, even, first, end), minlength=num_train) / FINE


def timestep_rows(settings: ObjectiveSettings, diffusion: Diffusion) -> list[dict[str, Any]]:
    """A histogram of timesteps as rows: how often they are drawn, what they weigh, and both together.

    Empty where all are drawn and weighed alike.
    """
    objective = make_objective(settings, diffusion)
    shares, weights = timestep_shares(settings, len(objective.alphas)), objective.timestep_weights.double()
    if bool((shares == shares[0]).all()) and bool((weights == weights[0]).all()):
        return []
    rows, length = [], len(shares)
    edges = [round(length * number / BINS) for number in range(BINS + 1)]
    most = max(float((shares * weights)[a:b].sum()) for a, b in pairwise(edges)) or 1
    for a, b in pairwise(edges):
        drawn, counts = float(shares[a:b].sum()), float((shares * weights)[a:b].sum())
        rows.append(
            {
                "timesteps": f"{a} to {b - 1}",
                "drawn": f"{drawn:.1%}",
                "weighs": round(counts / drawn, 3) if drawn else 0.0,
                "drawn x weighs": "#" * round(WIDEST_BAR * counts / most),
            }
        )
    return rows


def write_timestep_chart(path: Path, settings: ObjectiveSettings, diffusion: Diffusion) -> None:
    """The same as SVG: how often timesteps are drawn, and what that comes to with their weights.

    Nothing is written where all are drawn and weighed alike.
    """
    if not timestep_rows(settings, diffusion):
        return
    objective = make_objective(settings, diffusion)
    shares, weights = timestep_shares(settings, len(objective.alphas)), objective.timestep_weights.double()
    counts = shares * weights
    charts = [
        (name, columns(_bars(values / values.sum()), title=name, axis="timestep, from little noise to much"))
        for name, values in (("drawn", shares), ("drawn x weight", counts))
    ]
    write_atomic(path, document(charts, title="Timesteps"))


def _bars(shares: Tensor) -> list[Bar]:
    edges = [round(len(shares) * number / (2 * BINS)) for number in range(2 * BINS + 1)]
    return [
        Bar(str(a), float(shares[a:b].sum()) * 100, note=f"timesteps {a} to {b - 1}, percent")
        for a, b in pairwise(edges)
    ]
