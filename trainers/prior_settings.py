"""Settings of regularisation pictures."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.settings import option


@dataclass(frozen=True, kw_only=True)
class PriorSettings:
    """Pictures of the class, trained beside those of the subject, so that the class keeps its meaning."""

    reg_data: Path | None = option(
        None,
        "Regularisation pictures: kohya's folders N_name, an EveryDream tree, or a folder. Subsets of a "
        "dataset TOML with is_reg are such without it.",
        metavar="PATH",
    )
    reg_ratio: float = option(
        1.0,
        "Regularisation pictures shown for each picture that is trained on, as kohya's scripts do with 1; 0 "
        "shows them as often as their own repeats or multiply.txt say.",
        min=0,
        max=100,
    )
    prior_loss_weight: float = option(
        1.0, "What the loss of regularisation pictures is multiplied by.", min=0, max=100
    )
