"""Settings that keep an adapter from learning its pictures by heart, and of LoRA+."""

from dataclasses import dataclass

from pipeline.settings import option

_ADAPTERS = ("lora", "locon", "loha")
MOST = 0.999


@dataclass(frozen=True, kw_only=True)
class RegularisationSettings:
    """Dropout, limits, and the learning rates of the two sides of an adapter."""

    dropout: float = option(
        0.0,
        "Share of the activations inside an adapter that are dropped, number by number.",
        min=0,
        max=MOST,
        only_if={"kind": _ADAPTERS},
    )
    rank_dropout: float = option(
        0.0,
        "Share of the ranks of each layer that are dropped for a batch; the others are raised for them.",
        min=0,
        max=MOST,
        only_if={"kind": _ADAPTERS},
    )
    module_dropout: float = option(
        0.0,
        "Share of the layers that are left unchanged for a batch.",
        min=0,
        max=MOST,
        only_if={"kind": _ADAPTERS},
    )
    scale_weight_norms: float = option(
        0.0,
        "Largest norm of the change of a layer; a longer one is shortened after the step. 0 leaves them.",
        min=0,
        only_if={"kind": _ADAPTERS},
    )
    lora_plus_ratio: float = option(
        1.0,
        "Learning rate of the factors on the output's side (lora_up; w1_a and w2_a of a LoHa) over that of "
        "the others: LoRA+; 16 is its authors' start.",
        min=0.001,
        max=1000,
        only_if={"kind": _ADAPTERS},
    )
    unet_lora_plus_ratio: float | None = option(
        None, "Of the UNet, where it differs.", min=0.001, max=1000, only_if={"kind": _ADAPTERS}
    )
    text_encoder_lora_plus_ratio: float | None = option(
        None, "Of the text encoder, where it differs.", min=0.001, max=1000, only_if={"kind": _ADAPTERS}
    )

    @property
    def lora_plus_ratios(self) -> tuple[float, float]:
        """Of the UNet and of the text encoder."""
        both, unet, text = (
            self.lora_plus_ratio,
            self.unet_lora_plus_ratio,
            self.text_encoder_lora_plus_ratio,
        )
        return both if unet is None else unet, both if text is None else text
