"""What a step really takes, by torch's own profiler."""

from collections.abc import Callable

import torch


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that torch's allocator on the CPU gave out on top of what there was."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        run()
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    now = most = 0
    for event in sorted((one for one in events if one.name() == "[memory]"), key=lambda one: one.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most
