"""Weights stepped one by one: as soon as their gradient is there, or kept in bf16 and rounded by chance.

Each weight has an optimizer of its own. So its gradient can be forgotten before the next one is worked out
(fused backward), and a weight in bf16 is widened to fp32 for its own step only: no copy of the model in fp32
is kept. Rounded to the nearest number most steps of fine-tuning would be lost, as bf16 holds 8 bits; rounded
up or down by chance they are kept on average (Gupta et al. 2015, arXiv:1502.02551, section 3).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainers import draws
from trainers.precision import Stepper

MakeOptimizer = Callable[[Sequence[Mapping[str, Any]]], torch.optim.Optimizer]
_CUT = 16  # bits of fp32 that bf16 does not have


def round_by_chance(values: Tensor, generator: torch.Generator) -> Tensor:
    """fp32 to bf16, up with a probability of the share that is cut off: right on average.

    A random number of 16 bits is added to the 32 of each value, and the lower 16 are cut off. What bf16 holds
    stays as it is; NaN and infinity too.
    """
    bits = values.contiguous().view(torch.int32)
    noise = torch.randint(
        0, 1 << _CUT, bits.shape, generator=generator, device=bits.device, dtype=torch.int32
    )
    rounded = ((bits + noise) & -(1 << _CUT)).view(torch.float32)
    return torch.where(torch.isfinite(values), rounded, values).to(torch.bfloat16)


class _Single:
    """One weight and its optimizer, which steps a stand-in of fp32 where the weight is kept in bf16."""

    def __init__(self, weight: nn.Parameter, group: Mapping[str, Any], make: MakeOptimizer) -> None:
        self.weight = weight
        self.is_wide = weight.dtype == torch.float32
        self._stand_in = weight if self.is_wide else nn.Parameter(torch.empty(0, device=weight.device))
        self.optimizer = make([{**group, "params": [self._stand_in]}])
        self._skips_on_device = bool(getattr(self.optimizer, "_step_supports_amp_scaling", False))

    def step(self, is_finite: Tensor | None, generator: Callable[[], torch.Generator]) -> None:
        """Step, unless the gradient is not finite.

        Args:
            is_finite: no dimensions, on the device; None where it is known to be.
            generator: of this step and weight, for rounding.
        """
        if is_finite is not None:
            if self._skips_on_device:
                self.optimizer.grad_scale = None  # type: ignore[attr-defined]
                self.optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]
            elif not bool(is_finite):
                return
        if self.is_wide:
            self.optimizer.step()
            return
        assert self.weight.grad is not None
        self._stand_in.data = self.weight.detach().float()
        self._stand_in.grad = self.weight.grad.float()
        self.optimizer.step()
        with torch.no_grad():
            self.weight.copy_(round_by_chance(self._stand_in.detach(), generator()))
        self._stand_in.grad = None
        self._stand_in.data = torch.empty(0, device=self.weight.device)


class _Groups:
    """All groups of all optimizers, where the loop sets learning rates."""

    def __init__(self, singles: Sequence[_Single]) -> None:
        self._singles = singles

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """In the order of the weights."""
        return [group for one in self._singles for group in one.optimizer.param_groups]


class SingleStepper(Stepper):
    """Steps weights one by one.

    Args:
        groups: as optimizers take them.
        make: makes an optimizer over a group.
        max_grad_norm: as `Stepper` has it; 0 with a fused backward, which never knows the norm of all.
        is_fused: step in the backward pass.
        seed: of rounding.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, Any]],
        make: MakeOptimizer,
        device: torch.device,
        *,
        max_grad_norm: float,
        is_fused: bool,
        seed: int,
        held: Collection[str] = (),
    ) -> None:
        self._singles = [
            _Single(weight, {key: value for key, value in group.items() if key != "params"}, make)
            for group in groups
            for weight in group["params"]
        ]
        weights = [one.weight for one in self._singles]
        super().__init__(_Groups(self._singles), weights, device, "fp32", max_grad_norm, held)  # type: ignore[arg-type]
        assert not (is_fused and max_grad_norm)
        self._is_fused = is_fused
        self._device = device
        self._seed = seed
        self._step = 0
        self._squares: list[Tensor] = []
        self._is_loss_finite = torch.ones((), dtype=torch.bool, device=device)
        if is_fused:
            for number, weight in enumerate(weights):
                weight.register_post_accumulate_grad_hook(self._when_ready(number))  # type: ignore[no-untyped-call]

    def _when_ready(self, number: int) -> Callable[[Tensor], None]:
        def step(weight: Tensor) -> None:
            assert weight.grad is not None
            square = weight.grad.detach().float().square().sum()
            self._squares.append(square)
            is_finite = torch.isfinite(square) & self._is_loss_finite
            self._singles[number].step(is_finite, self._generator(number))
            weight.grad = None

        return step

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, or step by them; one that is not finite steps nothing."""
        self._is_loss_finite = torch.isfinite(loss.detach())
        super().backward(loss)

    def _generator(self, number: int) -> Callable[[], torch.Generator]:
        key = ("rounding", self._seed, self._step, number)
        return lambda: draws.generator_on(self._device, *key)

    def step(self) -> Tensor:
        """Step what is not stepped yet; the norm of all gradients before they were shortened."""
        if self._is_fused:
            norm = torch.stack(self._squares).sum().sqrt()
            self._squares = []
        else:
            weights = [one.weight for one in self._singles]
            norm = torch.nn.utils.get_total_norm([one.grad for one in weights if one.grad is not None])
            if self._max_grad_norm:
                torch.nn.utils.clip_grads_with_norm_(weights, self._max_grad_norm, norm)
            if bool(torch.isfinite(norm)):
                for number, one in enumerate(self._singles):
                    if one.weight.grad is not None:
                        one.step(None, self._generator(number))
        self._step += 1
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Of all optimizers, and the number of the step that rounding draws from."""
        return {"step": self._step, "optimizers": [one.optimizer.state_dict() for one in self._singles]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self._step = state["step"]
        for one, values in zip(self._singles, state["optimizers"], strict=True):
            self._load_optimizer(one.optimizer, values)
