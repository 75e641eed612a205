"""Schedulers of diffusers by the names that prompts files give them, and by those that A1111 shows."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import diffusers

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


def make_scheduler(name: str, diffusion: Diffusion) -> Any:
    """A scheduler of diffusers for a model, fresh: it holds the state of one picture's way."""
    sampler = SAMPLERS[name]
    kind = getattr(diffusers, sampler.class_name)
    known = inspect.signature(kind.__init__).parameters
    config = {**diffusion.config(), "steps_offset": 1, **dict(sampler.options)}
    return kind(**{key: value for key, value in config.items() if key in known})
