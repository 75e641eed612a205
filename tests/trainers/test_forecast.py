from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from tests.trainers.tiny_models import tiny_unet
from trainers.adapters.network import AdapterSpec, attach
from trainers.forecast import MetaModel, StepSizes, _Kept, forecast_step
from trainers.losses import squared_error
from trainers.methods import checkpoint_activations
from trainers.prepared import Prepared
from trainers.sd1_shapes import sd1_configs

BATCH = 2


def meta_unet(kind: str = "full", **config: Any) -> MetaModel:
    """A UNet, fed with hidden states that need a gradient, as those of a text encoder that learns."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    if kind != "full":
        network = attach(AdapterSpec(kind, 8, 1.0, 4, 1.0, trains_text_encoder=False), unet, None)  # type: ignore[arg-type]
        trainable: list[Tensor] = [one.flat for one in network.factors.values()]
    else:
        trainable = list(unet.parameters())
    width = int(config["cross_attention_dim"])
    return MetaModel(
        unet, nn.Identity(), lambda ids: torch.empty(len(ids), 77, width, device="meta"), trainable
    )


@pytest.mark.parametrize(("kind", "bound"), [("full", 2.41e12), ("loha", 1.90e12)])
def test_operations_of_sd15_are_the_known_ones(kind: str, bound: float) -> None:
    """0.803 TFLOP forward, and 2.407 for a whole step of full training, of one picture of 512 x 512."""
    model = meta_unet(kind, **sd1_configs()["unet"])
    found = forecast_step(
        model, StepSizes((1, 4, 64, 64), (1, 1, 77)), dtype=torch.float32, optimizer_bytes=8
    )
    if kind == "full":
        assert found.forward_flop == pytest.approx(0.803e12, rel=0.005)
    # attention's backward pass computes the matrix again: half a forward product more, 0.063 TFLOP
    assert found.step_flop == pytest.approx(bound + 0.063e12, rel=0.03)


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_what_is_kept_is_what_a_real_step_keeps(is_checkpointed: bool) -> None:
    real = tiny_unet()
    config = dict(real.config)
    model = meta_unet(**config)
    if is_checkpointed:
        checkpoint_activations(real, None)
        model = replace(model, checkpoint=partial(checkpoint_activations, model.unet, None))
    sizes = StepSizes((BATCH, 4, 32, 32), (BATCH, 1, 77))
    found = forecast_step(model, sizes, dtype=torch.float32, optimizer_bytes=8)
    kept = _Kept(list(real.parameters()))
    latents = torch.randn(sizes.latents)
    hidden = torch.randn(BATCH, 77, int(config["cross_attention_dim"]))
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        noise_pred = real(latents, torch.zeros(BATCH, dtype=torch.int64), hidden, return_dict=False)[0]
        loss = squared_error(noise_pred, latents).mean()
    assert found.activation_bytes == pytest.approx(kept.num_bytes, rel=0.05)
    loss.backward()


def test_checkpointing_keeps_less_and_computes_more() -> None:
    sizes = StepSizes((1, 4, 64, 64), (1, 1, 77))
    found = []
    for is_checkpointed in (False, True):
        model = meta_unet(**sd1_configs()["unet"])
        if is_checkpointed:
            model = replace(model, checkpoint=partial(checkpoint_activations, model.unet, None))
        found.append(forecast_step(model, sizes, dtype=torch.bfloat16, optimizer_bytes=2))
    plain, thrifty = found
    assert thrifty.activation_bytes < plain.activation_bytes / 4
    assert thrifty.step_flop > plain.step_flop * 1.25
    # bf16 copies of fp32 weights are kept for the step
    numbers = plain.weight_bytes // 4
    assert plain.trainable_bytes == numbers * (4 + 2) + numbers * 2


def test_the_share_of_the_bound_is_told_for_cards_that_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    forecast = SimpleNamespace(step_flop=8 * 1.8e12)
    settings = SimpleNamespace(batch_size=8, accumulation=1, steps=20_000, epochs=0.0)
    run = object.__new__(Prepared)
    run.settings, run.forecast = settings, forecast  # type: ignore[assignment]
    run.device, run.precision = torch.device("cuda"), "bf16"
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "NVIDIA H200")
    bound = 989.4e12 * 0.8 / 1.8e12
    assert run.share_of_bound(bound / 2) == pytest.approx(0.5)
    hours = run.hours()
    assert hours is not None
    assert hours[0] == pytest.approx(20_000 * 8 / (bound / 2) / 3600)
    assert hours[1] == pytest.approx(2 * hours[0])
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "Abacus 9000")
    assert run.share_of_bound(100) is None
    run.device = torch.device("cpu")
    assert run.hours() is None
