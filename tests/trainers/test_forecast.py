from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from tests.trainers.peak_memory import peak_bytes
from tests.trainers.tiny_models import tiny_unet
from trainers.adapters.network import AdapterSpec, attach
from trainers.forecast import MetaModel, Stepping, StepSizes, forecast_step
from trainers.losses import squared_error
from trainers.methods import checkpoint_activations
from trainers.optimizers import make_optimizer, traits_of
from trainers.prepared import Prepared
from trainers.sd1_shapes import sd1_configs

BATCH = 2
SPEC = AdapterSpec("loha", 8, 1.0, 4, 1.0, trains_text_encoder=False)


def meta_unet(kind: str = "full", **config: Any) -> MetaModel:
    """A UNet, fed with hidden states that need a gradient, as those of a text encoder that learns."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    if kind != "full":
        network = attach(SPEC, unet, None)
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
        model, StepSizes((1, 4, 64, 64), (1, 1, 77)), dtype=torch.float32, stepping=Stepping()
    )
    if kind == "full":
        assert found.forward_flop == pytest.approx(0.803e12, rel=0.005)
    # attention's backward pass computes the matrix again: half a forward product more, 0.063 TFLOP
    assert found.step_flop == pytest.approx(bound + 0.063e12, rel=0.03)


@pytest.mark.parametrize(
    ("kind", "is_checkpointed", "dtype"),
    [
        ("full", False, torch.float32),
        ("full", True, torch.float32),
        ("full", False, torch.bfloat16),
        ("loha", False, torch.bfloat16),
    ],
)
def test_a_real_step_takes_what_was_forecast(kind: str, is_checkpointed: bool, dtype: torch.dtype) -> None:
    real = tiny_unet(channels=(16, 32))
    config = dict(real.config)
    model = meta_unet(kind, **config)
    if kind != "full":
        network = attach(SPEC, real, None)
        for module in (real, model.unet):
            nn.Module.to(module, dtype=dtype)
        assert network.num_trainable == sum(one.numel() for one in model.trainable)
    if is_checkpointed:
        checkpoint_activations(real, None)
        model = replace(model, checkpoint=partial(checkpoint_activations, model.unet, None))
    sizes = StepSizes((BATCH, 4, 32, 32), (BATCH, 1, 77))
    found = forecast_step(model, sizes, dtype=dtype, stepping=Stepping(), device_type="cpu")
    timesteps = torch.zeros(BATCH, dtype=torch.int64)

    def step() -> None:
        latents = torch.randn(sizes.latents)
        hidden = torch.randn(BATCH, 77, int(config["cross_attention_dim"]))
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            noise_pred = real(latents, timesteps, hidden, return_dict=False)[0]
        squared_error(noise_pred, latents).mean().backward()  # type: ignore[no-untyped-call]

    assert found.step_bytes == pytest.approx(peak_bytes(step), rel=0.15)


def test_gradients_that_are_stepped_at_once_are_never_all_there() -> None:
    sizes = StepSizes((1, 4, 8, 8), (1, 1, 77))
    found = [
        forecast_step(meta_unet(**tiny_unet().config), sizes, dtype=torch.float32, stepping=stepping)
        for stepping in (Stepping(), Stepping(is_fused=True), Stepping(held_bytes=7, adds_gradients=True))
    ]
    plain, fused, added = found
    assert plain.trainable_bytes == fused.trainable_bytes == 0
    assert added.trainable_bytes == 7 + plain.weight_bytes
    assert fused.step_bytes < plain.step_bytes - plain.weight_bytes / 2


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 4), (6,)])
def test_memory_of_optimizers_by_shape(name: str, shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(torch.ones(shape))
    weight.grad = torch.ones(shape)
    optimizer = make_optimizer(name, [{"params": [weight], "lr": 1e-3}], {})
    optimizer.step()
    kept = [one for one in optimizer.state[weight].values() if isinstance(one, Tensor) and one.numel() > 1]
    assert traits_of(name).memory_bytes([shape]) == sum(one.numel() * 4 for one in kept)


def test_checkpointing_keeps_less_and_computes_more() -> None:
    sizes = StepSizes((8, 4, 64, 64), (8, 1, 77))
    found = []
    for is_checkpointed in (False, True):
        model = meta_unet(**tiny_unet(channels=(16, 32)).config)
        if is_checkpointed:
            model = replace(model, checkpoint=partial(checkpoint_activations, model.unet, None))
        found.append(forecast_step(model, sizes, dtype=torch.bfloat16, stepping=Stepping()))
    plain, thrifty = found
    assert thrifty.step_bytes < plain.step_bytes / 1.5
    assert thrifty.step_flop > plain.step_flop * 1.25


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
    assert hours[0] == pytest.approx(20_000 * 8 / (bound / 4) / 3600)
    assert hours[1] == pytest.approx(2.5 * hours[0])
    assert run.gpu_step_s() == pytest.approx(8 / (bound / 4))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "Abacus 9000")
    assert run.share_of_bound(100) is None
    run.device = torch.device("cpu")
    assert run.hours() is None
