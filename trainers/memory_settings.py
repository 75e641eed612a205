"""Settings of how much memory a step may take."""

from dataclasses import dataclass

from pipeline.errors import SettingsError
from pipeline.settings import option


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """How much of a batch is computed at once: what it is made of stays the same."""

    micro_batch_size: int = option(
        0,
        "Pictures of a batch computed at once; gradients are added up to those of the whole batch. 0 takes "
        "the whole batch, and smaller parts from the moment on when memory runs out.",
        min=0,
        max=4096,
        affects_result=False,
    )
    auto_batch: bool = option(
        False,
        "Try before the first step how many pictures of a batch the device computes at once, instead of "
        "--micro-batch-size, and say how large a batch it would take.",
        affects_result=False,
    )

    def check_memory(self) -> None:
        """See that they go together.

        Raises:
            SettingsError: the size of a part is both given and to be tried.
        """
        if self.auto_batch and self.micro_batch_size:
            raise SettingsError(
                f"auto_batch finds a size, and micro_batch_size = {self.micro_batch_size} gives it",
                hint="leave one of them out",
            )
