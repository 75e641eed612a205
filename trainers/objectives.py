"""The objective of a run: noisy latents, what is asked for, how far off an answer is, what that weighs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.errors import SettingsError
from trainers.loss_weights import debiased_weights, huber_bounds, min_snr_weights, signal_to_noise
from trainers.losses import add_noise, cumulative_alphas, errors, masked_mean, velocity
from trainers.model_parts import Diffusion, PredictionType
from trainers.objective_settings import ObjectiveSettings

_PREDICTIONS: dict[str, PredictionType] = {"epsilon": "epsilon", "v": "v_prediction"}


@dataclass(frozen=True, slots=True)
class Objective:
    """What a step asks for; its tables lie on the device.

    Args:
        alphas: cumulative, [num_train_timesteps].
        timestep_weights: [num_train_timesteps].
        loss: one of "l2", "l1", "huber", "smooth-l1".
        bounds: of the latter two, [num_train_timesteps].
    """

    prediction: PredictionType
    alphas: Tensor
    timestep_weights: Tensor
    loss: str
    bounds: Tensor

    def noisy_latents(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network is shown, [batch, channels, height, width]."""
        return add_noise(latents, noise, self.alphas, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What it is asked for: the noise or the velocity, [batch, channels, height, width]."""
        if self.prediction == "epsilon":
            return noise
        return velocity(latents, noise, self.alphas, timesteps)

    def losses(
        self, model_pred: Tensor, target: Tensor, timesteps: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Loss of each picture, weighed by its timestep, fp32: [batch].

        Args:
            timesteps: [batch].
            mask: what each place counts, 0 to 1, [batch, 1, height, width].
        """
        off = errors(model_pred, target, self.loss, self.bounds[timesteps])
        means = off.flatten(1).mean(1) if mask is None else masked_mean(off, mask)
        return means * self.timestep_weights[timesteps]


def make_objective(
    settings: ObjectiveSettings, diffusion: Diffusion, device: torch.device | str = "cpu"
) -> Objective:
    """The objective that settings ask for.

    Args:
        diffusion: as it is trained, from `trained_diffusion`.
    """
    alphas = cumulative_alphas(diffusion)
    weights = torch.ones_like(alphas)
    snr = signal_to_noise(alphas)
    if settings.min_snr_gamma > 0:
        weights = min_snr_weights(snr, settings.min_snr_gamma, diffusion.prediction_type)
    elif settings.debiased_estimation:
        weights = debiased_weights(snr, diffusion.prediction_type)
    bounds = huber_bounds(alphas, settings.huber_schedule, settings.huber_c)
    return Objective(
        diffusion.prediction_type,
        alphas.to(device),
        weights.to(device),
        settings.loss,
        bounds.to(device),
    )


def trained_range(settings: ObjectiveSettings, num_train: int) -> tuple[int, int]:
    """The first timestep that is drawn, and the one behind the last.

    Args:
        num_train: timesteps of the model.

    Raises:
        SettingsError: the model has not so many.
    """
    end = settings.max_timestep or num_train
    if end > num_train or settings.min_timestep >= end:
        raise SettingsError(
            f"timesteps from {settings.min_timestep} to below {end} are asked for; the model has {num_train}",
            hint=f"give --min-timestep and --max-timestep between 0 and {num_train}",
        )
    return settings.min_timestep, end


class AskedDiffusion(Protocol):
    """What a person says of a model that may not say it itself."""

    @property
    def prediction(self) -> str:
        """One of "model", "epsilon" and "v"."""

    @property
    def zero_terminal_snr(self) -> str:
        """One of "model", "on" and "off"."""


def asked_diffusion(settings: AskedDiffusion, diffusion: Diffusion) -> Diffusion:
    """How a model is noised and what it predicts, as a person says, else as the model does."""
    prediction = _PREDICTIONS.get(settings.prediction, diffusion.prediction_type)
    is_zero = diffusion.is_zero_terminal_snr
    if settings.zero_terminal_snr != "model":
        is_zero = settings.zero_terminal_snr == "on"
    return replace(diffusion, prediction_type=prediction, is_zero_terminal_snr=is_zero)


def trained_diffusion(settings: ObjectiveSettings, diffusion: Diffusion) -> Diffusion:
    """How the model is noised and what it predicts in this run, and so in every file that it saves.

    Args:
        diffusion: as the base says.

    Raises:
        SettingsError: the noise shall be predicted where there is nothing else.
    """
    trained = asked_diffusion(settings, diffusion)
    if trained.is_zero_terminal_snr and trained.prediction_type == "epsilon":
        raise SettingsError(
            "with zero-terminal SNR the last timestep is noise alone, which a model that predicts noise can "
            "only repeat",
            hint="train it to predict v: --prediction v; or give --zero-terminal-snr off",
        )
    return trained


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
    if trained.is_zero_terminal_snr and (settings.noise_offset or settings.pyramid_noise):
        yield (
            "with zero-terminal SNR pictures begin at plain noise, which offset and pyramid noise are not: "
            "leave them out"
        )
    if said.is_zero_terminal_snr != trained.is_zero_terminal_snr:
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
    words += [text for text, is_there in _words(settings) if is_there]
    return ", ".join(words)


def _words(settings: ObjectiveSettings) -> Iterator[tuple[str, object]]:
    """What differs from plain training, and whether it does."""
    yield f"min-SNR {settings.min_snr_gamma:g}", settings.min_snr_gamma
    yield "debiased estimation", settings.debiased_estimation
    has_bound = settings.loss in ("huber", "smooth-l1")
    yield f"loss {settings.loss}", settings.loss in ("l1", "huber", "smooth-l1")
    yield f"bound {settings.huber_c:g} ({settings.huber_schedule})", has_bound
    strength = "up to " if settings.noise_offset_random else ""
    yield f"noise offset {strength}{settings.noise_offset:g}", settings.noise_offset
    yield f"adaptive by {settings.adaptive_noise_scale:g}", settings.adaptive_noise_scale
    yield f"pyramid noise {settings.pyramid_noise} x {settings.pyramid_discount:g}", settings.pyramid_noise
    strength = "up to " if settings.ip_noise_random else ""
    yield f"input noise {strength}{settings.ip_noise_gamma:g}", settings.ip_noise_gamma
    first, end = settings.min_timestep, settings.max_timestep
    yield f"timesteps from {first}" + (f" to below {end}" if end else ""), first or end
    yield f"{settings.timestep_distribution} timesteps", settings.timestep_distribution != "uniform"
    yield "stratified timesteps", settings.stratified_timesteps
    outside = f", {settings.unmasked_weight:g} outside" if settings.unmasked_weight else ""
    yield f"loss masked by {settings.masked_loss}{outside}", settings.masked_loss != "off"


def objective_metadata(settings: ObjectiveSettings, diffusion: Diffusion) -> dict[str, Any]:
    """The same in the words of kohya's scripts, for the metadata of files; None for what is not in use."""
    is_v = diffusion.prediction_type == "v_prediction"
    has_bound = settings.loss in ("huber", "smooth-l1")
    first, end = trained_range(settings, diffusion.num_train_timesteps)
    is_part = (first, end) != (0, diffusion.num_train_timesteps)
    return {
        "ss_base_model_version": "sd_v1_v" if is_v else "sd_v1",
        "ss_v_parameterization": is_v or None,
        "ss_zero_terminal_snr": diffusion.is_zero_terminal_snr,
        "ss_min_snr_gamma": settings.min_snr_gamma or None,
        "ss_debiased_estimation": settings.debiased_estimation,
        "ss_noise_offset": settings.noise_offset or None,
        "ss_noise_offset_random_strength": settings.noise_offset_random or None,
        "ss_adaptive_noise_scale": settings.adaptive_noise_scale or None,
        "ss_multires_noise_iterations": settings.pyramid_noise or None,
        "ss_multires_noise_discount": settings.pyramid_discount if settings.pyramid_noise else None,
        "ss_ip_noise_gamma": settings.ip_noise_gamma or None,
        "ss_ip_noise_gamma_random_strength": settings.ip_noise_random or None,
        "ss_loss_type": settings.loss.replace("-", "_"),
        "ss_huber_schedule": settings.huber_schedule if has_bound else None,
        "ss_huber_c": settings.huber_c if has_bound else None,
        "ss_masked_loss": settings.masked_loss != "off" or None,
        "modelspec.timestep_range": ",".join(map(str, (first, end - 1))) if is_part else None,
    }
