"""Settings of the objective: what the network is asked for, and how much each answer counts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import SettingsError
from pipeline.settings import option

MOST_MODE_SCALE = 1.75  # above 2 / (pi - 2) the curve of SD3's distribution turns back


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
    debiased_estimation: bool = option(
        False, "Weigh each timestep by 1 / sqrt(SNR) of the noise's error, in place of min-SNR."
    )
    loss: Literal["l2", "l1", "huber", "smooth-l1"] = option(
        "l2", "How an error counts: squared, plainly, or squared while it is small."
    )
    huber_schedule: Literal["constant", "exponential", "snr"] = option(
        "snr",
        "How the bound between small and large falls from the first timestep to the last.",
        only_if={"loss": ("huber", "smooth-l1")},
    )
    huber_c: float = option(
        0.1,
        "That bound; of the two schedules, where they end.",
        min=0.0001,
        max=1,
        only_if={"loss": ("huber", "smooth-l1")},
    )
    noise_offset: float = option(
        0.0, "Shift the noise of each channel by so much, for darker darks; 0.05 is usual.", min=0, max=1
    )
    noise_offset_random: bool = option(
        False, "Draw the strength of the offset between 0 and --noise-offset for each picture."
    )
    adaptive_noise_scale: float = option(
        0.0, "Add so much times the mean of each channel of the latents to the offset.", min=-10, max=10
    )
    pyramid_noise: int = option(
        0, "Add noise of so many coarser and coarser sizes; 6 to 10 are usual.", min=0, max=10
    )
    pyramid_discount: float = option(0.3, "What each size counts beside the one before.", min=0, max=1)
    ip_noise_gamma: float = option(
        0.0, "Disturb the noise in the input, not in the target, by so much; 0.1 is usual.", min=0, max=1
    )
    ip_noise_random: bool = option(
        False, "Draw the strength of that between 0 and --ip-noise-gamma for each picture."
    )
    min_timestep: int = option(0, "First timestep that is drawn.", min=0)
    max_timestep: int = option(0, "Timesteps from this one on are not drawn; 0 draws all.", min=0)
    timestep_distribution: Literal["uniform", "logit-normal", "mode"] = option(
        "uniform", "How often each timestep is drawn: evenly, or more in the middle in one of two ways."
    )
    timestep_mean: float = option(
        0.0,
        "Middle of the logit-normal distribution; above 0 is noisier.",
        min=-5,
        max=5,
        only_if={"timestep_distribution": ("logit-normal",)},
    )
    timestep_deviation: float = option(
        1.0,
        "Its width.",
        min=0.05,
        max=5,
        only_if={"timestep_distribution": ("logit-normal",)},
    )
    timestep_mode_scale: float = option(
        1.29,
        "How much more the middle is drawn; below 0 the ends are.",
        min=-1,
        max=MOST_MODE_SCALE,
        only_if={"timestep_distribution": ("mode",)},
    )
    stratified_timesteps: bool = option(
        False, "Spread the timesteps of a batch evenly over the distribution: a calmer loss."
    )

    masked_loss: Literal["off", "alpha", "files"] = option(
        "off", "Where pictures count: everywhere, where they are opaque, or where a mask is white."
    )
    masks: Path | None = option(
        None,
        "Folder of masks, laid out like the data set: the same folders and names.",
        metavar="FOLDER",
        only_if={"masked_loss": ("files",)},
        affects_result=False,
    )
    unmasked_weight: float = option(
        0.0,
        "What counts outside the mask, beside 1 inside.",
        min=0,
        max=1,
        only_if={"masked_loss": ("alpha", "files")},
    )

    def check_objective(self) -> None:
        """See that the values go together.

        Raises:
            SettingsError: they do not.
        """
        if self.debiased_estimation and self.min_snr_gamma > 0:
            raise SettingsError(
                "min-SNR and debiased estimation both weigh timesteps, each in its own way",
                hint="give one of --min-snr-gamma and --debiased-estimation",
            )
        for name, is_given in (
            ("noise_offset_random", self.noise_offset_random),
            ("adaptive_noise_scale", self.adaptive_noise_scale != 0),
        ):
            if is_given and not self.noise_offset:
                flag = "--" + name.replace("_", "-")
                raise SettingsError(
                    f"{name} changes the offset of the noise, and there is none",
                    hint=f"give --noise-offset 0.05 beside it, or leave {flag} out",
                )
        if self.ip_noise_random and not self.ip_noise_gamma:
            raise SettingsError(
                "ip_noise_random changes the noise of the input, and there is none",
                hint="give --ip-noise-gamma 0.1 beside it, or leave --ip-noise-random out",
            )
        if self.masked_loss == "files" and self.masks is None:
            raise SettingsError("masked_loss = files needs their folder", hint="give --masks FOLDER")
        if self.max_timestep and self.min_timestep >= self.max_timestep:
            raise SettingsError(
                f"no timestep is from {self.min_timestep} to below {self.max_timestep}",
                hint="lower --min-timestep, or raise --max-timestep",
            )
