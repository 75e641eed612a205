"""Settings of the moving average of the weights."""

from dataclasses import dataclass
from typing import Literal

from pipeline.settings import option


@dataclass(frozen=True, kw_only=True)
class EmaSettings:
    """An exponential moving average of what learns, kept beside it."""

    ema: float = option(
        0.0,
        "Decay of the moving average of the weights a step, such as 0.999; 0 keeps no average.",
        min=0,
        max=0.999999,
    )
    ema_every: int = option(
        1, "Steps between two updates of the average; it means the same average, seen more rarely.", min=1
    )
    ema_device: Literal["device", "cpu"] = option(
        "device",
        "Where the average lies, in fp32: beside the weights, or in the machine's memory.",
        affects_result=False,
    )
    ema_save: Literal["beside", "instead"] = option(
        "beside",
        "Save the average beside the weights, as NAME-ema, or instead of them.",
        affects_result=False,
    )
    ema_validation: bool = option(
        True,
        "Validate the average, where there is one, instead of the weights that learn.",
        affects_result=False,
    )
    ema_samples: bool = option(
        True, "Draw samples with the average, where there is one.", affects_result=False
    )
