"""Settings of the trainer's craft that do not go together, and what a plan says of those that do."""

from typing import Any

import pytest

from pipeline.errors import SettingsError
from trainers.craft import craft_notes, craft_shown, network_args, refuse_senseless
from trainers.train_settings import Settings

FUSED: dict[str, Any] = {"kind": "full", "fused_backward": True, "max_grad_norm": 0.0}


@pytest.mark.parametrize(
    ("given", "precision", "said"),
    [
        ({**FUSED, "max_grad_norm": 1.0}, "fp32", "cannot shorten them"),
        ({**FUSED, "accumulation": 2}, "fp32", "wants to add some up"),
        (FUSED, "fp16", "fp16 looks at all gradients"),
        ({**FUSED, "optimizer": "prodigy", "learning_rate": 1.0}, "fp32", "looks at all weights at once"),
        ({**FUSED, "optimizer": "schedule-free-adamw"}, "fp32", "looks at all weights at once"),
        ({"kind": "full", "weight_precision": "bf16"}, "fp32", "and it would be fp32"),
        (
            {"optimizer": "prodigy", "learning_rate": 1.0, "lora_plus_ratio": 4.0},
            "fp32",
            "two learning rates",
        ),
        (
            {"optimizer": "prodigy", "learning_rate": 1.0, "block_learning_rates": "M00=0"},
            "fp32",
            "learning rates of their own",
        ),
        (
            {"optimizer": "schedule-free-adamw", "scale_weight_norms": 1.0},
            "fp32",
            "norms cannot be limited there",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_fix(
    given: dict[str, Any], precision: str, said: str
) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        refuse_senseless(Settings(**given), precision)
    assert caught.value.hint


@pytest.mark.parametrize(
    "given",
    [
        FUSED,
        {"kind": "full", "weight_precision": "bf16", "accumulation": 2},
        {"optimizer": "prodigy", "learning_rate": 1.0},
        {"fused_backward": True},  # has no effect on an adapter, which the settings say themselves
    ],
)
def test_what_goes_together_is_taken(given: dict[str, Any]) -> None:
    refuse_senseless(Settings(**given), "bf16")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"optimizer": "lion"}, "a third to a tenth"),
        ({"optimizer": "schedule-free-adamw", "lr_schedule": "cosine"}, "takes the place of a schedule"),
        ({"optimizer": "torch.optim.Adam"}, "adds the weight decay to the gradient"),
        ({"ema": 0.9999}, "looks back over about 10,000 steps, and the run has 500"),
    ],
)
def test_what_is_odd_is_said(given: dict[str, Any], said: str) -> None:
    assert any(said in one for one in craft_notes(Settings(**given), 500, {"learning_rate": "preset loha"}))
    assert not list(craft_notes(Settings(), 500, {}))


def test_the_plan_tells_what_is_on_and_nothing_else() -> None:
    assert craft_shown(Settings()) == {}
    assert craft_shown(Settings(**{**FUSED, "weight_precision": "bf16"})) == {
        "weights": "weights in bf16, rounded by chance; each is stepped as soon as its gradient is there"
    }
    shown = craft_shown(Settings(module_dropout=0.1, unet_lora_plus_ratio=16.0))
    assert shown == {
        "dropout": "0.1 of the layers",
        "LoRA+": "the factors on the output's side learn at UNet 16, text encoder 1 times the rate",
    }
    assert network_args(Settings(module_dropout=0.1, unet_lora_plus_ratio=16.0)) == {
        "module_dropout": "0.1",
        "loraplus_unet_lr_ratio": "16",
        "loraplus_text_encoder_lr_ratio": "1",
    }
