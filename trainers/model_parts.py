"""A model in pieces, as files hold it: configurations and tensors of each part, before modules are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor

from pipeline.errors import InputError
from trainers.conditioning import Tokenizer

PredictionType = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True, slots=True)
class Diffusion:
    """How a model was taught to be noised, as the model says."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"  # "linear", "scaled_linear" or "squaredcos_cap_v2"
    prediction_type: PredictionType = "epsilon"
    is_zero_terminal_snr: bool = False  # betas are stretched until the last timestep is noise alone

    @classmethod
    def of_config(cls, config: Mapping[str, Any], where: str) -> "Diffusion":
        """From a scheduler's configuration of diffusers.

        Raises:
            InputError: a schedule given as a table, or a prediction that is neither noise nor velocity.
        """
        known = cls()
        prediction = config.get("prediction_type", known.prediction_type)
        if prediction not in get_args(PredictionType):
            raise InputError(
                f"{where} predicts {prediction!r}", hint="give a model that predicts epsilon or v_prediction"
            )
        if config.get("trained_betas") is not None:
            raise InputError(
                f"{where} has a noise schedule of its own, as a table", hint="give another base model"
            )
        return cls(
            num_train_timesteps=int(config.get("num_train_timesteps", known.num_train_timesteps)),
            beta_start=float(config.get("beta_start", known.beta_start)),
            beta_end=float(config.get("beta_end", known.beta_end)),
            beta_schedule=str(config.get("beta_schedule", known.beta_schedule)),
            prediction_type=prediction,
            is_zero_terminal_snr=bool(config.get("rescale_betas_zero_snr", False)),
        )

    def config(self) -> dict[str, Any]:
        """The same for a scheduler of diffusers."""
        return {
            "num_train_timesteps": self.num_train_timesteps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "beta_schedule": self.beta_schedule,
            "prediction_type": self.prediction_type,
            **({"rescale_betas_zero_snr": True} if self.is_zero_terminal_snr else {}),
        }


@dataclass(slots=True)
class Part:
    """One network: its configuration, and its tensors by canonical names of diffusers and transformers."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]


@dataclass(slots=True)
class Parts:
    """All that a model file, or folder, holds."""

    unet: Part
    text_encoder: Part
    vae: Part | None  # a file may leave it out, when one is given beside it
    tokenizer: Tokenizer
    diffusion: Diffusion
    notes: list[str] = field(default_factory=list)  # what was guessed or left out, a sentence each
