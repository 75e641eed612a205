"""Dropout, norms that are limited, and LoRA+, on the layers of a tiny model."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.trainers.tiny_models import tiny_text_encoder, tiny_unet
from trainers.adapters.base import AdaptedLayer
from trainers.adapters.dropping import AdapterDropping
from trainers.adapters.network import AdapterNetwork, AdapterSpec, attach
from trainers.adapters.norms import limit_norms
from trainers.learning_rates import adapter_groups

KINDS: tuple[Any, ...] = ("locon", "loha")


def network(kind: Any, *, dim: int = 3, targets: Any = "attention") -> AdapterNetwork:
    """With random factors, so that it changes something."""
    spec = AdapterSpec(kind, dim, 1.5, 2, 1.0, targets=targets, trains_text_encoder=False)
    found = attach(spec, tiny_unet(), None)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for one in found.factors.values():
            one.flat.normal_(generator=generator)
    return found


def dropping(found: AdapterNetwork, **shares: float) -> AdapterDropping:
    given = {"dropout": 0.0, "rank_dropout": 0.0, "module_dropout": 0.0, **shares}
    return AdapterDropping(found.factors, **given, seed=5)


def change(layer: AdaptedLayer) -> torch.Tensor:
    """What the layer adds, told by its outputs for unit vectors: [in, out]."""
    eye = torch.eye(layer.shape.in_features)
    return layer(eye) - layer.base(eye)


def linear(found: AdapterNetwork) -> AdaptedLayer:
    return next(one for one in found.layers.values() if not one.shape.is_conv)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["prepared", "alone", "dense"])
@torch.no_grad()
def test_a_dropped_rank_is_gone_and_the_others_are_raised(
    kind: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the reference formula on factors whose ranks were left out by hand; three ways compute it."""
    monkeypatch.setattr(
        "trainers.adapters.base.choose_path", lambda *_, **__: "dense" if way == "dense" else "low_rank"
    )
    found = network(kind)
    layer = linear(found)
    drops = dropping(found, rank_dropout=0.4)
    seen = set()
    for batch in range(6):
        drops.draw(batch)
        if way == "prepared":
            found.factors["unet"].prepare(torch.ones(()), torch.float32)
        factors = {name: one.detach().clone() for name, one in layer.factors.items()}
        for name, mask in layer.masks.items():
            kept = tuple(mask.flatten().tolist())
            assert all(value in (0.0, pytest.approx(1 / 0.6)) for value in kept)
            seen.add(kept)
            for rank, value in enumerate(kept):
                factors[name][:, rank] *= 0 if value == 0 else 1 / 0.6
        expected = layer.algorithm.delta(factors, layer.scale).T
        torch.testing.assert_close(change(layer), expected, rtol=1e-4, atol=1e-4)
        found.factors["unet"].forget()
    assert len(seen) > 3
    drops.rest()
    torch.testing.assert_close(change(layer), layer.delta().T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_change_is_the_same_on_average(kind: Any) -> None:
    found = network(kind)
    layer = linear(found)
    drops = dropping(found, rank_dropout=0.3)
    total, rounds = torch.zeros_like(layer.delta().T), 250
    for batch in range(rounds):
        drops.draw(batch)
        total += change(layer)
    off = (total / rounds - layer.delta().T).norm() / layer.delta().norm()
    assert off < 0.15  # one draw is about 1 off


@torch.no_grad()
def test_layers_are_dropped_whole_as_often_as_asked_for() -> None:
    found = network("loha")
    drops = dropping(found, module_dropout=0.25)
    layer = linear(found)
    kept, count = 0, 0
    for batch in range(200):
        drops.draw(batch)
        for one in found.layers.values():
            assert one.keep is not None
            kept += int(one.keep)
            count += 1
        if batch < 20:
            expected = layer.delta().T * float(layer.keep)  # type: ignore[arg-type]
            torch.testing.assert_close(change(layer), expected, rtol=1e-4, atol=1e-4)
    assert kept / count == pytest.approx(0.75, abs=4 * (0.25 * 0.75 / count) ** 0.5)


@torch.no_grad()
def test_activations_are_dropped_number_by_number_and_only_while_training() -> None:
    found = network("locon")
    layer = linear(found)
    drops = dropping(found, dropout=0.5)
    x = torch.randn(4_000, layer.shape.in_features)
    plain = layer(x)
    drops.draw(7)
    first = layer(x)
    drops.draw(7)
    assert torch.equal(layer(x), first), "a batch that is computed again drops the same"
    drops.draw(8)
    assert not torch.equal(layer(x), first)
    up, down = layer.factors["up"].detach(), layer.factors["down"].detach() * layer.scale
    torch.manual_seed(0)
    drops.draw(7)
    mask = F.dropout(torch.ones(len(x), layer.rank), 0.5)  # the generator's next draws, as the layer's were
    torch.testing.assert_close(first, layer.base(x) + ((x @ down.T) * mask) @ up.T, rtol=1e-4, atol=1e-4)
    drops.rest()
    assert torch.equal(layer(x), plain)


def test_draws_follow_from_the_batch_alone() -> None:
    masks = []
    for before in ((), (1, 2, 3)):
        found = network("locon")
        drops = dropping(found, rank_dropout=0.5, module_dropout=0.5)
        for batch in (*before, 9):
            drops.draw(batch)
        masks.append([one.masks["up"] for one in found.layers.values()])
    assert all(torch.equal(one, other) for one, other in zip(*masks, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [2, 9])
def test_long_changes_are_shortened_to_the_limit_and_the_others_left(kind: Any, dim: int) -> None:
    """Against norms of the reference deltas; of rank 9 a LoHa is wide, and takes the other way."""
    found = network(kind, dim=dim, targets="full")
    with torch.no_grad():
        for number, layer in enumerate(found.layers.values()):
            for factor in layer.factors.values():
                factor.mul_(0.05 if number % 3 == 0 else 1)
    before = {key: layer.delta() for key, layer in found.layers.items()}
    limit = 1.001 * float(torch.tensor([one.norm() for one in before.values()]).median())  # none is on it
    norms = limit_norms(found.factors.values(), limit)
    expected = {key: one * min(1.0, limit / float(one.norm())) for key, one in before.items()}
    for key, layer in found.layers.items():
        scale = float(expected[key].abs().max())
        torch.testing.assert_close(layer.delta(), expected[key], rtol=1e-3, atol=1e-3 * scale)
    assert int(norms.num_scaled) == sum(float(one.norm()) > limit for one in before.values())
    assert 0 < int(norms.num_scaled) < len(before)
    assert float(norms.of_layers.max()) == pytest.approx(limit, rel=1e-3)
    assert float(norms.of_layers.mean()) == pytest.approx(
        float(torch.tensor([one.norm() for one in expected.values()]).mean()), rel=1e-3
    )


@pytest.mark.parametrize(("kind", "ups"), [("locon", ("up",)), ("loha", ("w1_a", "w2_a"))])
def test_lora_plus_raises_the_rate_of_the_outputs_side(kind: Any, ups: tuple[str, ...]) -> None:
    spec = AdapterSpec(kind, 3, 1.5, 2, 1.0)
    found = attach(spec, tiny_unet(), tiny_text_encoder())
    rates: dict[Any, float] = {"unet": 0.1, "text_encoder": 0.2}
    groups = adapter_groups(found, rates, up_ratios={"unet": 16, "text_encoder": 4}, by_matrix=False)
    of_tensor = {one.data_ptr(): group["lr"] for group in groups for one in group["params"]}
    assert len(of_tensor) == sum(len(layer.factors) for layer in found.layers.values())
    for layer in found.layers.values():
        for name, factor in layer.factors.items():
            ratio = {"unet": 16, "text_encoder": 4}[layer.part] if name in ups else 1
            assert of_tensor[factor.data_ptr()] == pytest.approx(rates[layer.part] * ratio)
    flat = adapter_groups(found, rates, by_matrix=False)
    assert [len(group["params"]) for group in flat] == [1, 1]


def test_a_step_with_two_rates_moves_each_side_by_its_own() -> None:
    """Adam's first step is the rate itself, whatever the gradient."""
    found = network("loha")
    groups = adapter_groups(found, {"unet": 1e-3}, up_ratios={"unet": 16}, by_matrix=False)
    before = {
        key: {name: one.detach().clone() for name, one in layer.factors.items()}
        for key, layer in found.layers.items()
    }
    for one in found.factors.values():
        assert one.flat.grad is not None
        one.flat.grad.fill_(1.0)
    torch.optim.AdamW(groups, weight_decay=0.0).step()
    layer = linear(found)
    for name, factor in layer.factors.items():
        moved = before[layer.layer_key][name] - factor.detach()
        torch.testing.assert_close(
            moved, torch.full_like(moved, 16e-3 if name.endswith("a") else 1e-3), rtol=1e-3, atol=1e-6
        )
