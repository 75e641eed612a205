"""Numbers of the arithmetic: autocast, the scaler of fp16, and steps that a bad gradient never takes.

A gradient that is not finite must not reach the weights, nor the optimizer's memory of them. The norm of all
gradients tells it, and is worked out anyway where gradients are shortened; the fused AdamW skips such a step
on the device, without a question from the host.
"""

import contextlib
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.errors import DeviceError

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(asked: str) -> torch.device:
    """The device to train on.

    Args:
        asked: "auto", or as torch names devices.

    Raises:
        DeviceError: it is not there; "auto" never fails.
    """
    if asked == "auto":
        mps = getattr(torch.backends, "mps", None)
        name = "cuda" if torch.cuda.is_available() else "mps" if mps and mps.is_available() else "cpu"
        return torch.device(name)
    try:
        device = torch.device(asked)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(
            f"--device {asked} cannot be used: {reason}", hint="see what is there: celforge doctor"
        ) from error
    return device


def choose_precision(asked: str, device: torch.device) -> Precision:
    """The precision of a device: bf16 where it is native, else fp16 on a GPU, fp32 on a CPU."""
    if asked != "auto":
        return asked  # type: ignore[return-value]
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Arithmetic in that precision; nothing at all for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


class Stepper:
    """Backward passes and steps of an optimizer.

    Args:
        max_grad_norm: gradients are shortened to this norm; 0 leaves them.
        held: arguments of the optimizer that hold from now on, whatever a state that is taken back says.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[Tensor],
        device: torch.device,
        precision: Precision,
        max_grad_norm: float,
        held: Collection[str] = (),
    ) -> None:
        self.optimizer = optimizer
        self._held = frozenset(held)
        self._parameters = parameters
        self._max_grad_norm = max_grad_norm
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self._skips_on_device = bool(getattr(optimizer, "_step_supports_amp_scaling", False))

    @property
    def is_scaling(self) -> bool:
        """Whether losses are scaled, so that a step may be skipped now and then by right."""
        return bool(self._scaler.is_enabled())

    @property
    def scale(self) -> float:
        """What losses are scaled by; 1 without a scaler."""
        return float(self._scaler.get_scale())

    @property
    def effective_learning_rate(self) -> float | None:
        """Of an optimizer that estimates a factor of it by itself (`d` of Prodigy and D-Adaptation)."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"] * group["d"]) if "d" in group else None

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> Tensor:
        """Step, unless a gradient is not finite.

        Returns: the norm of all gradients before they are shortened, on the device; not finite when the step
            was skipped.
        """
        if self.is_scaling:
            self._scaler.unscale_(self.optimizer)
        gradients = [one.grad for one in self._parameters if one.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=None)
        if self._max_grad_norm:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self._max_grad_norm, norm)
        if self.is_scaling:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        elif self._skips_on_device:
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]
            self.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif bool(torch.isfinite(norm)):
            self.optimizer.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Of the optimizer and the scaler."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take both back."""
        self._load_optimizer(self.optimizer, state["optimizer"])
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])

    def _load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """All but what holds from now on."""
        held = [{name: group[name] for name in self._held & group.keys()} for group in optimizer.param_groups]
        optimizer.load_state_dict(state)
        for group, values in zip(optimizer.param_groups, held, strict=True):
            group.update(values)
