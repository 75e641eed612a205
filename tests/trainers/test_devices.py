"""Nothing of a step is left on the CPU when the model is elsewhere: steps on torch's `meta` device, which holds
sizes without numbers and is there on every machine.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.trainers.tiny_models import tiny_models, tiny_unet
from trainers.batches import Batch
from trainers.ema import Ema
from trainers.loop import Run, batch_loss
from trainers.methods import make_method
from trainers.noises import batch_noise, input_noise
from trainers.objectives import make_objective, trained_diffusion
from trainers.optimizers import make_optimizer, traits_of
from trainers.precision import Stepper
from trainers.schedules import lr_schedule
from trainers.text_outputs import TextOutputs
from trainers.train_settings import resolve_train

META = torch.device("meta")
MAY_MIX = ("aten._to_copy", "aten.copy_", "aten._foreach_copy_")  # they bring tensors from one to the other
OBJECTIVES: Sequence[Mapping[str, Any]] = (
    {"min_snr_gamma": 5.0, "ip_noise_gamma": 0.1, "loss": "huber", "pyramid_noise": 3},
    {"prediction": "v", "zero_terminal_snr": "on", "masked_loss": "alpha", "train": "unet"},
    {"loss": "smooth-l1", "noise_offset": 0.1, "noise_offset_random": True, "adaptive_noise_scale": 0.1}
    | {"gradient_checkpointing": True, "ema": 0.9},
)
ADAPTER: Mapping[str, Any] = {
    **{"dropout": 0.1, "rank_dropout": 0.1, "module_dropout": 0.1},
    **{"scale_weight_norms": 1.0, "lora_plus_ratio": 4.0},
}


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices, as a GPU would; single numbers may come from anywhere."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        leaves = tree_leaves((args, kwargs or {}))
        devices = {one.device for one in leaves if isinstance(one, Tensor) and one.dim()}
        if len(devices) > 1 and not str(func).startswith(MAY_MIX):
            raise AssertionError(f"{func} of tensors on {devices}")
        return func(*args, **(kwargs or {}))


def step_on_meta(kind: str, more: Mapping[str, Any]) -> None:
    """One whole step, from a batch on the CPU."""
    settings = resolve_train({}, None, {"kind": kind, "base": "b", "optimizer": "adamw", **more})[0].settings
    models = tiny_models()
    models.unet = tiny_unet(channels=(16, 32)).eval()  # every kind of layer
    models.diffusion = trained_diffusion(settings, models.diffusion)
    method = make_method(settings, models, META, "fp32")
    groups = method.parameter_groups(
        {"unet": 1e-3, "text_encoder": 1e-3}, by_matrix=traits_of(settings.optimizer).sees_matrices
    )
    optimizer = make_optimizer(settings.optimizer, groups, {"weight_decay": 0.1})
    for group in optimizer.param_groups:
        group |= {
            "fused": False,
            "foreach": True,
        }  # no fused kernel for meta, and so nothing is skipped on it
    plain_step = optimizer.step

    def step() -> None:
        assert optimizer.found_inf.device == META  # type: ignore[attr-defined]
        del optimizer.found_inf  # type: ignore[attr-defined]
        plain_step()

    optimizer.step = step  # type: ignore[method-assign, assignment]
    stepper = Stepper(optimizer, method.parameters(), META, "fp32", 1.0)
    latents = torch.zeros(2, models.latent_channels, 8, 8)
    noise = batch_noise(settings, latents, 0, 0)
    captions = ("a", "b")
    batch = Batch(
        0,
        latents=latents,
        noise=noise,
        timesteps=torch.tensor([3, 500]),
        token_ids=models.tokenizer(captions, max_tokens=75),
        weights=torch.ones(2),
        captions=captions,
        input_noise=input_noise(settings, noise, 0, 0),
        mask=torch.ones(2, 1, 8, 8) if settings.masked_loss != "off" else None,
    )
    texts = TextOutputs(models, settings, META, is_learning=settings.trains_text_encoder, captions_vary=False)
    run = Run(
        models=models,
        method=method,
        stepper=stepper,
        batches=None,  # type: ignore[arg-type]
        texts=texts,
        objective=make_objective(settings, models.diffusion, META),
        lr_schedule=lr_schedule("constant", 1, warmup=0, decay_ratio=0.0),
        learning_rates=[],
        device=META,
        precision="fp32",
        accumulation=1,
        log_every=1,
        unet=models.unet,
    )
    average = Ema(method.tensors(), decay=settings.ema) if settings.ema else None
    method.zero_grad()
    method.begin_batch(0)
    loss = batch_loss(run, batch)
    assert loss.device == META
    stepper.backward(loss)
    assert stepper.step().device == META
    method.end_step()
    if average is not None:
        average.update(method.tensors(), 1)
    assert all(one.device == META for one in method.tensors().values())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("loha", OBJECTIVES[0]),
        ("loha", OBJECTIVES[2]),
        ("locon", {**OBJECTIVES[1], **ADAPTER}),
        ("full", OBJECTIVES[2]),
    ],
)
def test_a_step_leaves_nothing_on_the_cpu(kind: str, settings: Mapping[str, Any]) -> None:
    with OneDevice():
        step_on_meta(kind, settings)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda here, there: torch.nn.functional.linear(here, there),
        lambda here, there: here.mul_(there),
        lambda here, there: torch.cat([here, there]),
    ],
)
def test_tensors_of_two_devices_are_noticed(mixed: Callable[[Tensor, Tensor], Tensor]) -> None:
    with OneDevice(), pytest.raises((AssertionError, RuntimeError)):
        mixed(torch.zeros(2, 2, device=META), torch.zeros(2, 2))
