"""Work on hundreds of thousands of small objects without looking for cycles among them all the time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

OBJECTS = 100_000  # made before Python looks for cycles; by itself it does so after 700


@contextmanager
def many_objects() -> Iterator[None]:
    """Look for cycles seldom: names, paths and steps have none, and looking takes a third of the time."""
    before = gc.get_threshold()
    gc.set_threshold(OBJECTS, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
