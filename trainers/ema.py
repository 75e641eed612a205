"""An exponential moving average of the weights, in fp32 whatever they are kept in."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.errors import InputError

MOST_AT_ONCE = 50_000_000  # numbers: 200 MB, where weights lie elsewhere or in other numbers than fp32


class Ema:
    """The average, by the names that `Method.tensors` gives.

    Args:
        tensors: what learns, as it is now: the average begins there.
        decay: of one step, 0 to 1.
        every: steps between two updates.
        device: where the average lies; that of each tensor where it is None.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        *,
        decay: float,
        every: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self._decay = decay
        self._every = every
        self.tensors = {
            name: one.detach().to(device or one.device, torch.float32, copy=True)
            for name, one in tensors.items()
        }

    def decay_of(self, step: int) -> float:
        """What is kept of the average at a step, counted from 1.

        It rises as (1 + step) / (10 + step) to the decay asked for, so that the untrained beginning is soon
        forgotten (`ExponentialMovingAverage` of TensorFlow with `num_updates`; `EMAModel` of diffusers with
        `inv_gamma` 1 and `power` 1 rises likewise). Of several steps at once it is the power.
        """
        return float(min(self._decay, (1 + step) / (10 + step)) ** self._every)

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take in the weights after a step, if its turn has come: average += (1 - decay) * (w - average).

        Args:
            step: steps that are done.
        """
        if step % self._every:
            return
        weight = 1 - self.decay_of(step)
        averages: list[Tensor] = []
        now: list[Tensor] = []
        for name, average in self.tensors.items():
            averages.append(average)
            now.append(tensors[name].detach().to(average.device, torch.float32))
            if sum(one.numel() for one in now) > MOST_AT_ONCE:
                torch._foreach_lerp_(averages, now, weight)
                averages, now = [], []
        if averages:
            torch._foreach_lerp_(averages, now, weight)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take an average back, bit for bit.

        Raises:
            InputError: it is of other layers.
        """
        if tensors.keys() != self.tensors.keys() or any(
            tensors[name].shape != one.shape for name, one in self.tensors.items()
        ):
            raise InputError(
                "the state holds an average of other layers than this run trains",
                hint="start another run: give another --name or --out",
            )
        for name, place in self.tensors.items():
            place.copy_(tensors[name])
