"""Settings of the objective: what the network is asked for, and how much each answer counts."""

from dataclasses import dataclass

from pipeline.settings import option


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """What is asked of the network, and what its errors weigh."""

    min_snr_gamma: float = option(
        0.0,
        "Weigh each timestep by min(SNR, this), so that the least noisy ones do not outweigh all others; "
        "5 is usual, 0 weighs all alike.",
        min=0,
    )
