"""Work of a model over many items: workers prepare ahead, one thread runs the model on whole batches.

While the model works on one batch, workers prepare the next ones and the caller keeps the results of the one
before, so that the device never waits for a decoder or for the disk while there is something to do.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pipeline.workers import Failed, run_in_workers

if TYPE_CHECKING:
    from numpy.typing import NDArray

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class BatchWork(Protocol[Item_contra, T_co]):
    """What is done with each item, in two halves."""

    @property
    def batch_items(self) -> int:
        """How many items go through the model together."""
        ...

    def prepare(self, item: Item_contra) -> "NDArray[Any]":
        """One item as the model takes it, of one shape for all; runs in threads, several at once."""

    def run(self, batch: "NDArray[Any]") -> Sequence[T_co | Failed]:
        """A result for each of a batch, [batch, ...]; runs in one thread, one batch at a time."""


def run_in_batches(
    work: BatchWork[Item, T],
    items: Sequence[Item],
    workers: int,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_quiet: Callable[[], None] = lambda: None,
    quiet_s: float | None = None,
) -> Iterator[tuple[Item, T | Failed]]:
    """Yield (item, result or Failed), batch by batch; an item that cannot be prepared fails alone.

    At most three batches of prepared items are held. An error of the model itself is raised: it is no item's
    fault.

    Args:
        on_quiet: called, in the caller's thread, after each batch, and when for `quiet_s` seconds no item was
            prepared and one is waited for.
        should_stop: asked before an item is handed out; the items in hand are finished and yielded.
    """
    size = work.batch_items
    ready = run_in_workers(
        work.prepare,
        items,
        workers,
        should_stop=should_stop,
        ahead_items=2 * size + workers,
        on_quiet=on_quiet,
        quiet_s=quiet_s,
    )
    with ThreadPoolExecutor(1) as device:
        running: tuple[list[Item], Future[Sequence[T | Failed]]] | None = None
        group: list[tuple[Item, NDArray[Any]]] = []
        for item, prepared in ready:
            if isinstance(prepared, Failed):
                yield item, prepared
                continue
            group.append((item, prepared))
            if len(group) == size:
                started = _start(device, work, group)
                group = []
                if running is not None:
                    yield from _finished(running)
                    on_quiet()
                running = started
        if running is not None:
            yield from _finished(running)
            on_quiet()
        if group:
            yield from _finished(_start(device, work, group))


def _start(
    device: ThreadPoolExecutor, work: BatchWork[Item, T], group: "list[tuple[Item, NDArray[Any]]]"
) -> "tuple[list[Item], Future[Sequence[T | Failed]]]":
    import numpy as np

    batch = np.stack([prepared for _, prepared in group])
    return [item for item, _ in group], device.submit(work.run, batch)


def _finished(
    running: "tuple[list[Item], Future[Sequence[T | Failed]]]",
) -> Iterator[tuple[Item, T | Failed]]:
    items, future = running
    yield from zip(items, future.result(), strict=True)
