"""Settings of validation: which pictures are held out, and how often they are measured."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.settings import option


@dataclass(frozen=True, kw_only=True)
class ValidationSettings:
    """Pictures that no step learns from, and on which the model is measured."""

    validation_share: float = option(
        0.0,
        "Share of the pictures that is held out to validate on; chosen by content, so that it stays as it is "
        "when pictures are added.",
        min=0,
        max=0.5,
    )
    validation_data: Path | None = option(
        None,
        "Pictures to validate on instead: a folder, or a text file with a picture or a folder a line; those "
        "that are in the data set are not trained on.",
        metavar="FOLDER|FILE",
    )
    validation_every: int = option(
        500,
        "Steps between two validations; the start, the end and each saved model are validated in any case.",
        min=1,
        affects_result=False,
    )
    validation_pictures: int = option(
        200,
        "Most pictures that are measured, spread over the folders; others that are held out wait unused.",
        min=1,
        affects_result=False,
    )
    validation_timesteps: int = option(
        4, "Timesteps at which each of them is measured, spread evenly.", min=1, max=64, affects_result=False
    )
