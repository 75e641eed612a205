"""Steps as CUDA graphs: what a step asks of the GPU is recorded once for each shape of a batch, and replayed.

A step of an adapter over SD1.5 is thousands of small kernels, and a fast GPU is done with one before Python
has asked for the next; replayed, the host asks once. The first steps of a shape are computed as ever, so that
libraries choose their kernels; the next one is recorded, which computes nothing, and replayed. Graphs share
their memory, as only one runs at a time and nothing but a loss is left of it. Recorded kernels read and write
where they did when they were recorded: weights, gradients and the batch keep their places.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipeline.console import LOG
from pipeline.errors import SettingsError
from trainers.batches import Batch
from trainers.train_settings import Settings

WARM = 2  # steps of a shape before it is recorded
PYTHON_S = 0.1  # to ask for the kernels of a step of SD1.5: 0.17 s were measured, on a slow processor
MOST = 32  # shapes that are recorded: each keeps a list of its kernels
Gradients = Callable[[Batch, float], Tensor]


def refuse_graphs(settings: Settings, device: torch.device) -> None:
    """See that a step may be recorded: nothing in it may be decided anew by the host.

    Raises:
        SettingsError: it is, or there is no GPU of NVIDIA.
    """
    if not settings.cuda_graphs:
        return
    if device.type != "cuda":
        raise SettingsError(
            f"cuda_graphs = true needs an NVIDIA GPU, and this run is on {device}",
            hint="leave --cuda-graphs out",
        )
    found = in_the_way(settings)
    if found:
        raise SettingsError(
            f"--cuda-graphs replays a recorded step, which cannot have {' and '.join(found)}",
            hint="leave one of them out",
        )


def in_the_way(settings: Settings) -> list[str]:
    """What is asked for and cannot be in a recorded step, in words."""
    is_full = settings.kind == "full"
    drawn = settings.dropout or settings.rank_dropout or settings.module_dropout
    asked = {
        "--gradient-checkpointing": settings.gradient_checkpointing,
        "--fused-backward": is_full and settings.fused_backward,
        "--weight-precision bf16": is_full and settings.weight_precision != "fp32",
        "dropout of an adapter": not is_full and drawn,
        "--embeddings": settings.embeddings is not None,
    }
    return [name for name, is_asked in asked.items() if is_asked]


def graphs_note(settings: Settings, gpu_step_s: float | None) -> str | None:
    """That a step would wait for Python, where it is likely and can be helped.

    Args:
        gpu_step_s: of a batch; None on a device that is not known.
    """
    if gpu_step_s is None or settings.cuda_graphs or in_the_way(settings) or gpu_step_s > PYTHON_S:
        return None
    return (
        f"a step takes this GPU about {1000 * gpu_step_s:.0f} ms, less than Python needs to ask for its "
        "kernels: --cuda-graphs asks once"
    )


@dataclass(frozen=True, slots=True)
class Recorded:
    """One step: its graph, the batch it reads, the loss it writes."""

    graph: Any
    batch: Batch
    loss: Tensor


class StepGraphs:
    """Adds the gradients of a batch, as `compute` does, by a recorded graph where there is one.

    Args:
        compute: adds the gradients of a batch times a weight, and gives its loss.
        known_states: hidden states of a batch's captions, where they are remembered outside of a step.
        record: runs a function while its kernels are recorded, and gives the graph and what it returned.
        making: held by the thread that makes batches while it asks something of the GPU.
    """

    def __init__(
        self,
        compute: Gradients,
        device: torch.device,
        *,
        known_states: Callable[[Batch], Tensor | None] = lambda _: None,
        record: Callable[[Callable[[], Tensor]], tuple[Any, Tensor]] | None = None,
        making: AbstractContextManager[Any] = nullcontext(),  # noqa: B008 - it holds nothing
    ) -> None:
        self._compute = compute
        self._device = device
        self._known_states = known_states
        self._record = record or _Recorder()
        self._making = making
        self._recorded: dict[Any, Recorded] = {}
        self._visits: dict[Any, int] = {}
        self._is_off = False

    def __call__(self, batch: Batch, weight: float) -> Tensor:
        """Add the gradients of a batch.

        Returns: its loss before the weight, on the device.
        """
        states = self._known_states(batch)
        batch = batch if states is None else replace(batch, states=states)
        if self._is_off:
            return self._compute(batch, weight)
        key = (weight, *((name, value.shape, value.dtype) for name, value in _tensors(batch).items()))
        if key not in self._recorded:
            self._visits[key] = self._visits.get(key, 0) + 1
            if self._visits[key] <= WARM or len(self._recorded) >= MOST:
                return self._compute(batch, weight)
            held = self._held(batch)
            try:
                with self._making:
                    graph, loss = self._record(partial(self._compute, held, weight))
            except RuntimeError as error:
                self._turn_off(error)
                return self._compute(batch, weight)
            self._recorded[key] = Recorded(graph, held, loss)
        return self._replay(self._recorded[key], batch)

    def forget(self) -> None:
        """Something else learns from here on: every shape is recorded anew."""
        self._recorded, self._visits = {}, {}

    def _held(self, batch: Batch) -> Batch:
        """A batch in places of its own, on the device."""
        places: dict[str, Any] = {
            name: value.detach().to(self._device, copy=True) for name, value in _tensors(batch).items()
        }
        return replace(batch, **places)

    def _replay(self, recorded: Recorded, batch: Batch) -> Tensor:
        places = _tensors(recorded.batch)
        for name, value in _tensors(batch).items():
            places[name].copy_(value.detach(), non_blocking=True)
        recorded.graph.replay()
        return recorded.loss.clone()

    def _turn_off(self, error: RuntimeError) -> None:
        self._is_off = True
        self.forget()
        first: BaseException = error
        while first.__context__ is not None:  # what went wrong; the last error only says that something did
            first = first.__context__
        said = str(first).strip().splitlines() or [type(first).__name__]
        LOG.warning("steps cannot be recorded as CUDA graphs here, and are computed as ever: %s", said[0])


class _Recorder:
    """Records on a GPU; other threads go on making batches meanwhile."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, compute: Callable[[], Tensor]) -> tuple[Any, Tensor]:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            loss = compute()
        return graph, loss


def _tensors(batch: Batch) -> dict[str, Tensor]:
    values = {one.name: getattr(batch, one.name) for one in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
