import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.trainers.tiny_models import tiny_unet
from trainers.narrow_norms import keep_norms_narrow, widens_norms


def norms() -> list[tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    group, layer = nn.GroupNorm(4, 8), nn.LayerNorm(8)
    for one in (group, layer):
        nn.init.normal_(one.weight)
        nn.init.normal_(one.bias)
    return [(group, torch.randn(2, 8, 3, 5)), (layer, torch.randn(2, 7, 8))]


@pytest.mark.parametrize("which", [0, 1])
def test_in_fp32_a_norm_is_as_it_was(which: int) -> None:
    norm, x = norms()[which]
    before = norm(x.clone().requires_grad_())
    keep_norms_narrow(nn.Sequential(norm))
    assert torch.equal(norm(x), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("which", [0, 1])
def test_in_16_bits_it_is_the_norm_in_fp32_rounded_once(which: int, dtype: torch.dtype) -> None:
    norm, x = norms()[which]
    x = x.to(dtype)
    norm.to(dtype)
    wide = (
        F.group_norm(x.float(), 4, norm.weight.float(), norm.bias.float())  # type: ignore[union-attr,operator]
        if which == 0
        else F.layer_norm(x.float(), (8,), norm.weight.float(), norm.bias.float())  # type: ignore[union-attr,operator]
    )
    keep_norms_narrow(nn.Sequential(norm))
    found = norm(x)
    assert found.dtype == dtype
    eps = torch.finfo(dtype).eps
    assert torch.allclose(found.float(), wide, rtol=eps, atol=2 * eps)


def test_weights_in_fp32_follow_the_input_and_get_gradients() -> None:
    for norm, x in norms():
        keep_norms_narrow(nn.Sequential(norm))
        found = norm(x.bfloat16())
        assert found.dtype == torch.bfloat16
        found.float().sum().backward()
        assert all(one.grad is not None and one.grad.dtype == torch.float32 for one in norm.parameters())


class Widened(nn.GroupNorm):
    """As autocast of a GPU computes it."""

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps)


class WidenedLayer(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(
            input.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )


def gradients(how: str) -> Tensor:
    """Of the first convolution of a UNet, for one batch, in bf16 unless `how` is "fp32"."""
    unet = tiny_unet()
    unet.requires_grad_(False)
    unet.conv_in.weight.requires_grad_()
    if how == "widened":
        for one in unet.modules():
            if type(one) is nn.GroupNorm:
                one.__class__ = Widened
            elif type(one) is nn.LayerNorm:
                one.__class__ = WidenedLayer
    elif how == "narrow":
        keep_norms_narrow(unet)
    generator = torch.Generator().manual_seed(3)
    latents, noise = (torch.randn(8, 4, 16, 16, generator=generator) for _ in range(2))
    states = torch.randn(8, 5, 16, generator=generator)
    with torch.autocast("cpu", torch.bfloat16, enabled=how != "fp32"):
        found = unet(latents, torch.arange(8) * 100, states, return_dict=False)[0]
    (found.float() - noise).square().mean().backward()
    assert unet.conv_in.weight.grad is not None
    return unet.conv_in.weight.grad


def test_gradients_are_as_near_to_those_of_fp32_as_with_norms_in_fp32() -> None:
    exact = gradients("fp32")
    off = {how: float((gradients(how) - exact).norm() / exact.norm()) for how in ("widened", "narrow")}
    assert 0 < off["narrow"] < 1.5 * off["widened"]


def test_what_is_saved_stays_as_it_is() -> None:
    unet = tiny_unet()
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    keep_norms_narrow(unet)
    after = unet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(type(one) in (nn.GroupNorm, nn.LayerNorm) for one in unet.modules())


def test_only_gpus_widen_them() -> None:
    assert widens_norms("cuda", torch.bfloat16)
    assert not widens_norms("cuda", torch.float32)
    assert not widens_norms("cpu", torch.bfloat16)
