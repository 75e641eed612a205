"""Settings of the objective: what the network is asked for, and how much each answer counts."""

from dataclasses import dataclass
from typing import Literal

from pipeline.settings import option


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """What is asked of the network, and what its errors weigh."""

    prediction: Literal["model", "epsilon", "v"] = option(
        "model", "What the model is trained to predict: as the base says, the noise, or the velocity v."
    )
    zero_terminal_snr: Literal["model", "on", "off"] = option(
        "model", "Stretch the noise schedule until its last timestep is noise alone; the base says, or you."
    )
    min_snr_gamma: float = option(
        0.0,
        "Weigh each timestep by min(SNR, this), so that the least noisy ones do not outweigh all others; "
        "5 is usual, 0 weighs all alike.",
        min=0,
    )
