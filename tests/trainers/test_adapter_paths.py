"""How a changed layer is computed: both paths, every kind of layer, every precision."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.trainers.tiny_models import tiny_text_encoder, tiny_unet
from trainers.adapters import base as adapters_base
from trainers.adapters import locon, loha
from trainers.adapters.base import AdaptedLayer
from trainers.adapters.network import AdapterNetwork, AdapterSpec, attach
from trainers.adapters.paths import Shape, choose_path, count_tokens, extra_cost
from trainers.layers import Layer, find_unet_layers

LOHA = AdapterSpec("loha", linear_dim=3, linear_alpha=1, conv_dim=2, conv_alpha=1)
LOCON = AdapterSpec("locon", linear_dim=4, linear_alpha=1, conv_dim=2, conv_alpha=2)
ALGORITHMS = pytest.mark.parametrize("algorithm", [locon, loha], ids=["locon", "loha"])
PATHS = pytest.mark.parametrize("path", ["low_rank", "dense"])
KINDS: dict[str, Callable[[], nn.Linear | nn.Conv2d]] = {
    "linear": lambda: nn.Linear(6, 5),
    "1x1": lambda: nn.Conv2d(6, 5, 1),
    "3x3": lambda: nn.Conv2d(6, 5, 3, padding=1),
    "3x3, stride 2, no bias": lambda: nn.Conv2d(6, 5, 3, stride=2, padding=1, bias=False),
}


def adapted(
    module: nn.Linear | nn.Conv2d, algorithm, *, rank: int, dtype=torch.float64, size=1.0
) -> AdaptedLayer:  # type: ignore[no-untyped-def]
    """One layer with random factors of a standard deviation of `size`."""
    parent = nn.Module()
    parent.one = module.requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    factors = {
        name: nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype) * size)
        for name, shape in algorithm.factor_shapes(Shape.of(module), rank).items()
    }
    return AdaptedLayer(
        Layer("unet", "one", module, parent, "one", "M00"),
        algorithm,
        factors,
        rank=rank,
        alpha=rank / 2,
        multiplier=torch.ones((), dtype=dtype),
    )


def force(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(adapters_base, "choose_path", lambda *_, **__: path)


# Exact, in fp64


@PATHS
@pytest.mark.parametrize("kind", KINDS)
@ALGORITHMS
def test_output_and_gradients_are_those_of_the_changed_weight(
    algorithm, kind: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    force(monkeypatch, path)
    torch.manual_seed(2)
    module = KINDS[kind]().double()
    layer = adapted(module, algorithm, rank=2)
    x = torch.randn((2, 3, 6) if kind == "linear" else (2, 6, 5, 4), dtype=torch.float64, requires_grad=True)
    names = list(layer.factors)

    def reference(x: Tensor, *factors: Tensor) -> Tensor:
        delta = algorithm.delta(dict(zip(names, factors, strict=True)), 0.5)
        weight = module.weight + delta.view(module.weight.shape)
        if isinstance(module, nn.Linear):
            return F.linear(x, weight, module.bias)
        return F.conv2d(x, weight, module.bias, module.stride, module.padding)

    factors = tuple(layer.factors[name] for name in names)
    expected, found = reference(x, *factors), layer(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, *factors), weights),
        torch.autograd.grad(expected, (x, *factors), weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@PATHS
@pytest.mark.parametrize("kind", KINDS)
@ALGORITHMS
def test_gradients_are_those_of_finite_differences(
    algorithm, kind: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    force(monkeypatch, path)
    torch.manual_seed(3)
    layer = adapted(KINDS[kind]().double(), algorithm, rank=2)
    x = torch.randn((3, 6) if kind == "linear" else (1, 6, 3, 3), dtype=torch.float64, requires_grad=True)

    def output(x: Tensor, *factors: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, factors, strict=True)), (x,))  # type: ignore[no-any-return]

    names = [f"factors.{name}" for name in layer.factors]
    assert torch.autograd.gradcheck(output, (x, *layer.factors.values()), fast_mode=True)


def test_the_dense_path_keeps_nothing_of_the_size_of_the_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, "dense")
    module = nn.Linear(64, 48)
    layer = adapted(module, loha, rank=2, dtype=torch.float32)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):  # type: ignore[func-returns-value]
        layer(torch.randn(3, 64, requires_grad=True))
    own = {module.weight.data_ptr()}
    assert kept
    assert all(one.numel() < 48 * 64 for one in kept if one.data_ptr() not in own)


# Precision


@pytest.mark.parametrize("way", ["autocast", "stored"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@PATHS
@pytest.mark.parametrize("kind", ["linear", "3x3"])
@ALGORITHMS
def test_the_change_in_16_bits_is_as_exact_as_its_numbers(
    algorithm, kind: str, path: str, dtype: torch.dtype, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    """The part that the adapter adds, at the size of the first steps: a sum of weights in 16 bits would lose
    most of it. Against fp64 on the same rounded inputs."""
    force(monkeypatch, path)
    torch.manual_seed(4)
    module: nn.Linear | nn.Conv2d = nn.Linear(96, 64) if kind == "linear" else nn.Conv2d(24, 64, 3, padding=1)
    module.weight.data.zero_()  # so that the rounding of the base does not hide it
    assert module.bias is not None
    module.bias.data.zero_()
    size = 0.004 if algorithm is locon else 0.05
    layer = adapted(module, algorithm, rank=4, dtype=torch.float32, size=size)
    delta = layer.delta().double()
    assert 2e-6 < float(delta.std()) < 5e-5
    x = torch.randn((8, 96) if kind == "linear" else (2, 24, 6, 6)).to(dtype)
    exact = F.linear(x.double(), delta) if kind == "linear" else F.conv2d(x.double(), delta, None, 1, 1)
    if way == "stored":
        layer.to(dtype)
    with torch.autocast("cpu", dtype, enabled=way == "autocast"):
        found = layer(x if way == "stored" else x.float())
    assert found.dtype == dtype
    assert all(factor.dtype == torch.float32 for factor in layer.factors.values())
    error = float((found.detach().double() - exact).norm() / exact.norm())
    assert error < (0.006 if dtype == torch.bfloat16 else 0.004)  # a merged bf16 weight: 0.5 and more


@PATHS
def test_large_factors_do_not_overflow_fp16(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scaled after the products, as others do it, they are over the 65,504 that fp16 holds."""
    force(monkeypatch, path)
    torch.manual_seed(0)
    module = nn.Linear(64, 64, bias=False).half()
    layer = adapted(module, loha, rank=128, dtype=torch.float32, size=6.0)
    layer.alpha = 1.0
    assert not bool(torch.isfinite((layer.delta() * 128).half()).all())
    x = (torch.randn(4, 64) / 64).half()
    found = layer(x).detach().double()
    exact = F.linear(x.double(), module.weight.double() + layer.delta().double())
    assert float((found - exact).norm() / exact.norm()) < 0.002


# The choice


def test_the_cheaper_path_by_operations_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 R (o + n) < o n, at many tokens and memory left out: 40 of SD1.5's 278 layers fall the other way."""
    monkeypatch.setattr("trainers.adapters.paths.FLOP_OF_A_MOVE", 0)
    monkeypatch.setattr("trainers.adapters.paths.REBUILD", 0)
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    dense = 0
    for layer in find_unet_layers(unet):
        rank = 4 if layer.kernel_area > 1 else 8
        shape = Shape.of(layer.module)
        path = choose_path(shape, rank=rank, width=rank**2, num_tokens=4096, dtype=torch.float32)
        cheaper = 3 * rank**2 * (shape.out_features + shape.flat_in) > shape.out_features * shape.flat_in
        assert (path == "dense") == cheaper
        dense += path == "dense"
        assert (
            choose_path(shape, rank=rank, width=rank**2, num_tokens=4096, dtype=torch.bfloat16) == "low_rank"
        )
    assert dense == 40


def test_few_tokens_favour_the_path_that_builds_no_weight() -> None:
    shape = Shape(1280, 1280, (1, 1), is_conv=False)
    for tokens, path in ((32, "low_rank"), (64 * 4096, "dense")):
        assert choose_path(shape, rank=16, width=256, num_tokens=tokens, dtype=torch.float32) == path
    # in 16 bits the change is never added to the weight, so it must be far wider before a matrix pays
    assert choose_path(shape, rank=16, width=256, num_tokens=64 * 4096, dtype=torch.bfloat16) == "low_rank"
    assert choose_path(shape, rank=32, width=1024, num_tokens=64 * 4096, dtype=torch.bfloat16) == "dense"


@pytest.mark.parametrize("path", ["low_rank", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["linear", "3x3"])
def test_the_cost_is_what_is_computed(
    kind: str, dtype: torch.dtype, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by torch, with memory and the rebuilding of small products left out."""
    force(monkeypatch, path)
    monkeypatch.setattr("trainers.adapters.paths.FLOP_OF_A_MOVE", 0)
    monkeypatch.setattr("trainers.adapters.paths.REBUILD", 0)
    module: nn.Linear | nn.Conv2d = nn.Linear(64, 48) if kind == "linear" else nn.Conv2d(16, 48, 3, 1, 1)
    layer = adapted(module.to(dtype), locon, rank=4, dtype=torch.float32)
    x = torch.randn((2, 2048, 64) if kind == "linear" else (2, 16, 32, 64), dtype=dtype, requires_grad=True)

    def flop(one: nn.Module) -> int:
        with FlopCounterMode(display=False) as counter:
            one(x).sum().backward()
        return int(counter.get_total_flops())

    tokens = count_tokens(module, x)
    assert tokens == 4096
    predicted = extra_cost(path, layer.shape, rank=4, width=4, num_tokens=tokens, dtype=dtype)  # type: ignore[arg-type]
    assert flop(layer) - flop(module) == pytest.approx(predicted, rel=0.01)


def test_tokens_are_output_positions() -> None:
    for module, size in ((nn.Conv2d(3, 4, 3, 2, 1), (2, 3, 9, 6)), (nn.Linear(3, 4), (2, 5, 3))):
        x = torch.randn(size)
        assert count_tokens(module, x) == module(x).numel() // 4


# Over a whole model


def run_unet(unet: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=generator).to(dtype)
    states = torch.randn(2, 5, 16, generator=generator).to(dtype)
    return unet(latents, torch.tensor([3, 700]), encoder_hidden_states=states).sample  # type: ignore[no-any-return]


def stirred(spec: AdapterSpec, unet: UNet2DConditionModel) -> AdapterNetwork:
    network = attach(spec, unet, tiny_text_encoder())
    generator = torch.Generator().manual_seed(5)
    for one in network.factors.values():
        one.flat.data.copy_(torch.randn(one.flat.shape, generator=generator) * 0.1)
    return network


def gradients(network: AdapterNetwork, unet: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    network.zero_grad()
    run_unet(unet, dtype).float().square().mean().backward()
    gradient = network.factors["unet"].flat.grad
    assert gradient is not None
    return gradient.clone()


@pytest.mark.parametrize("spec", [LOHA, LOCON], ids=["loha", "locon"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_gradient_checkpointing_and_layers_by_themselves_give_the_same(
    spec: AdapterSpec, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet = tiny_unet().to(dtype)
    network = stirred(spec, unet)
    prepared = gradients(network, unet, dtype)
    assert bool(prepared.any())
    unet.enable_gradient_checkpointing()
    unet.train()
    assert torch.equal(gradients(network, unet, dtype), prepared)
    monkeypatch.setattr(adapters_base.FlatFactors, "prepare", lambda *_: None)
    alone = gradients(network, unet, dtype)
    torch.testing.assert_close(alone, prepared, rtol=1e-4, atol=1e-6 if dtype == torch.float32 else 1e-4)


def test_bf16_gradients_of_a_whole_unet_point_where_fp64_points() -> None:
    exact_unet = tiny_unet().double()
    unet = copy.deepcopy(exact_unet).bfloat16()
    network, exact = stirred(LOHA, unet), stirred(LOHA, exact_unet)
    for layer in exact.layers.values():  # in fp64 itself
        for name in list(layer.factors):
            layer.factors[name] = nn.Parameter(layer.factors[name].data.double())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapters_base.FlatFactors, "prepare", lambda *_: None)
        run_unet(exact_unet, torch.float64).square().mean().backward()
    found = gradients(network, unet, torch.bfloat16)
    views = network.layers
    pairs = [
        (views[key].factors[name].grad, factor.grad)
        for key, layer in exact.layers.items()
        if layer.part == "unet"
        for name, factor in layer.factors.items()
    ]
    ours = torch.cat([one.double().flatten() for one, _ in pairs if one is not None])
    theirs = torch.cat([one.flatten() for _, one in pairs if one is not None])
    assert found.numel() == ours.numel()
    assert float(F.cosine_similarity(ours, theirs, dim=0)) > 0.99


def test_several_passes_before_one_step_add_their_gradients() -> None:
    unet = tiny_unet()
    network = stirred(LOHA, unet)
    once = gradients(network, unet)
    network.zero_grad()
    for _ in range(2):
        run_unet(unet).square().mean().backward()
    gradient = network.factors["unet"].flat.grad
    torch.testing.assert_close(gradient, 2 * once)


def test_new_numbers_are_seen_by_the_next_pass_however_they_came() -> None:
    unet, other = tiny_unet(), tiny_unet()
    network, changed = stirred(LOCON, unet), attach(LOCON, other, tiny_text_encoder())
    before = run_unet(unet)
    file = network.file_tensors(torch.float32)
    file = {key: one * 3 if key.endswith("alpha") else one for key, one in file.items()}
    run_unet(other)
    changed.load(file)
    network.factors["unet"].flat.data.mul_(3**0.5)  # of two factors each
    found = run_unet(other)
    assert not torch.allclose(found, before)
    torch.testing.assert_close(found, run_unet(unet), rtol=1e-3, atol=1e-4)


def test_moving_a_model_leaves_factors_as_they_are() -> None:
    unet = tiny_unet()
    network = stirred(LOHA, unet)
    flat = network.factors["unet"].flat.clone()
    unet.to(torch.bfloat16)
    assert torch.equal(network.factors["unet"].flat, flat)
    one = next(iter(network.layers.values()))
    assert one.base.weight.dtype == torch.bfloat16
    assert bool(gradients(network, unet, torch.bfloat16).any())
