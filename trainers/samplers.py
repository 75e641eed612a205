"""Schedulers of diffusers by the names that prompts files give them, and by those that A1111 shows."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np

from trainers.model_parts import Diffusion


@dataclass(frozen=True, slots=True)
class Sampler:
    """One way from noise to a picture."""

    class_name: str  # of diffusers
    shown: str  # as A1111 writes it
    options: tuple[tuple[str, Any], ...] = ()


SAMPLERS: Mapping[str, Sampler] = {
    "ddim": Sampler("DDIMScheduler", "DDIM", (("clip_sample", False), ("set_alpha_to_one", False))),
    "ddpm": Sampler("DDPMScheduler", "DDPM", (("clip_sample", False),)),
    "pndm": Sampler("PNDMScheduler", "PLMS", (("skip_prk_steps", True), ("set_alpha_to_one", False))),
    "euler": Sampler("EulerDiscreteScheduler", "Euler"),
    "euler_a": Sampler("EulerAncestralDiscreteScheduler", "Euler a"),
    "heun": Sampler("HeunDiscreteScheduler", "Heun"),
    "dpm_2": Sampler("KDPM2DiscreteScheduler", "DPM2"),
    "dpm_2_a": Sampler("KDPM2AncestralDiscreteScheduler", "DPM2 a"),
    "dpmsolver++": Sampler("DPMSolverMultistepScheduler", "DPM++ 2M"),
    "dpmsolver++_karras": Sampler(
        "DPMSolverMultistepScheduler", "DPM++ 2M Karras", (("use_karras_sigmas", True),)
    ),
    "unipc": Sampler("UniPCMultistepScheduler", "UniPC"),
}
LEAST_ALPHA = 2.0**-24  # for 0 at the last timestep, as Euler of diffusers takes it: sigma is finite
_ALIASES = {
    "k_euler": "euler",
    "k_euler_a": "euler_a",
    "euler a": "euler_a",
    "k_dpm_2": "dpm_2",
    "k_dpm_2_a": "dpm_2_a",
    "dpmsolver": "dpmsolver++",
    "dpm++": "dpmsolver++",
    "dpm++ 2m": "dpmsolver++",
    "dpm++ 2m karras": "dpmsolver++_karras",
    "plms": "pndm",
}


def canonical_name(name: str) -> str | None:
    """A key of SAMPLERS for any of the names in use, in any case; None for an unknown one."""
    lower = name.strip().lower()
    lower = _ALIASES.get(lower, lower)
    return lower if lower in SAMPLERS else None


def begins_at_noise(name: str) -> bool:
    """Whether a sampler can begin where there is nothing but noise, at zero-terminal SNR.

    PNDM divides the cumulative alphas of neighbouring timesteps, and the last one is 0 there.
    """
    return SAMPLERS[name].class_name != "PNDMScheduler"


def _from_noise_alone(diffusion: Diffusion, *, knows: bool) -> dict[str, Any]:
    """Options to draw by the stretched schedule: its betas, and steps that begin at the last timestep.

    Lin et al. 2023, arXiv:2305.08891, sections 3.1 and 3.3.

    Args:
        knows: whether the scheduler stretches them itself; others are given the betas as a table.
    """
    if knows:
        return {"timestep_spacing": "trailing"}
    alphas = diffusers.DDPMScheduler(**diffusion.config()).alphas_cumprod.double().numpy().copy()
    alphas[-1] = LEAST_ALPHA
    betas = 1 - alphas / np.concatenate([[1.0], alphas[:-1]])
    return {"timestep_spacing": "trailing", "trained_betas": betas}


def make_scheduler(name: str, diffusion: Diffusion) -> Any:
    """A scheduler of diffusers for a model, fresh: it holds the state of one picture's way."""
    sampler = SAMPLERS[name]
    kind = getattr(diffusers, sampler.class_name)
    known = inspect.signature(kind.__init__).parameters
    config = {**diffusion.config(), "steps_offset": 1, **dict(sampler.options)}
    if diffusion.is_zero_terminal_snr:
        config |= _from_noise_alone(diffusion, knows="rescale_betas_zero_snr" in known)
    return kind(**{key: value for key, value in config.items() if key in known})
