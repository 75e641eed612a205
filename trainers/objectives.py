"""The objective of a run: noisy latents, what is asked for, how far off an answer is, what that weighs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import SettingsError
from trainers.loss_weights import min_snr_weights, signal_to_noise
from trainers.losses import add_noise, cumulative_alphas, squared_error, velocity
from trainers.model_parts import Diffusion, PredictionType
from trainers.objective_settings import ObjectiveSettings

_PREDICTIONS: dict[str, PredictionType] = {"epsilon": "epsilon", "v": "v_prediction"}


@dataclass(frozen=True, slots=True)
class Objective:
    """What a step asks for; its tables lie on the device.

    Args:
        alphas: cumulative, [num_train_timesteps].
        timestep_weights: [num_train_timesteps].
    """

    prediction: PredictionType
    alphas: Tensor
    timestep_weights: Tensor

    def noisy_latents(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network is shown, [batch, channels, height, width]."""
        return add_noise(latents, noise, self.alphas, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What it is asked for: the noise or the velocity, [batch, channels, height, width]."""
        if self.prediction == "epsilon":
            return noise
        return velocity(latents, noise, self.alphas, timesteps)

    def losses(self, model_pred: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
        """Loss of each picture, weighed by its timestep, fp32: [batch].

        Args:
            timesteps: [batch].
        """
        return squared_error(model_pred, target) * self.timestep_weights[timesteps]


def make_objective(
    settings: ObjectiveSettings, diffusion: Diffusion, device: torch.device | str = "cpu"
) -> Objective:
    """The objective that settings ask for.

    Args:
        diffusion: as it is trained, from `trained_diffusion`.
    """
    alphas = cumulative_alphas(diffusion)
    weights = torch.ones_like(alphas)
    if settings.min_snr_gamma > 0:
        snr = signal_to_noise(alphas)
        weights = min_snr_weights(snr, settings.min_snr_gamma, diffusion.prediction_type)
    return Objective(diffusion.prediction_type, alphas.to(device), weights.to(device))


def trained_diffusion(settings: ObjectiveSettings, diffusion: Diffusion) -> Diffusion:
    """How the model is noised and what it predicts in this run, and so in every file that it saves.

    Args:
        diffusion: as the base says.

    Raises:
        SettingsError: the noise shall be predicted where there is nothing else.
    """
    prediction = _PREDICTIONS.get(settings.prediction, diffusion.prediction_type)
    is_zero = diffusion.is_zero_terminal_snr
    if settings.zero_terminal_snr != "model":
        is_zero = settings.zero_terminal_snr == "on"
    if is_zero and prediction == "epsilon":
        raise SettingsError(
            "with zero-terminal SNR the last timestep is noise alone, which a model that predicts noise can "
            "only repeat",
            hint="train it to predict v: --prediction v; or give --zero-terminal-snr off",
        )
    return replace(diffusion, prediction_type=prediction, is_zero_terminal_snr=is_zero)


def objective_problems(
    settings: ObjectiveSettings, base: str, said: Diffusion, trained: Diffusion
) -> Iterator[str]:
    """What is odd about the objective, a sentence each.

    Args:
        base: as given.
        said: by the base.
        trained: of this run.
    """
    if said.prediction_type != trained.prediction_type:
        yield (
            f"{base} predicts {said.prediction_type} and is trained to predict {trained.prediction_type}: "
            "it has to learn that anew, which takes thousands of steps of a full checkpoint, and an adapter "
            "only works with its --prediction"
        )
    elif said.is_zero_terminal_snr != trained.is_zero_terminal_snr:
        yield f"the noise schedule of {base} ends elsewhere: --zero-terminal-snr {settings.zero_terminal_snr}"
    if trained.prediction_type == "epsilon" and any(
        one in base.lower() for one in ("vpred", "v-pred", "v_pred")
    ):
        yield f"{base} is named as a v-prediction model and does not say so inside; if it is: --prediction v"


def objective_words(settings: ObjectiveSettings, diffusion: Diffusion) -> str:
    """The objective in one line of the plan."""
    words: list[str] = [diffusion.prediction_type]
    if diffusion.is_zero_terminal_snr:
        words.append("zero-terminal SNR")
    if settings.min_snr_gamma > 0:
        words.append(f"min-SNR {settings.min_snr_gamma:g}")
    return ", ".join(words)


def objective_metadata(settings: ObjectiveSettings, diffusion: Diffusion) -> dict[str, Any]:
    """The same in the words of kohya's scripts, for the metadata of files; None for what is not in use."""
    is_v = diffusion.prediction_type == "v_prediction"
    return {
        "ss_base_model_version": "sd_v1_v" if is_v else "sd_v1",
        "ss_v_parameterization": is_v or None,
        "ss_zero_terminal_snr": diffusion.is_zero_terminal_snr,
        "ss_min_snr_gamma": settings.min_snr_gamma or None,
    }
