"""Masks of the loss: where they come from, that they go with the crop and the mirror, what they count."""

import hashlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from stand_in_vae import AveragingVae

import trainers.masks
from pipeline.errors import InputError, SettingsError
from pipeline.images import read_alpha
from pipeline.layouts.buckets import Bucket
from trainers.caption_rules import CaptionRules, CaptionSource
from trainers.data_sources import Terms
from trainers.dataset import Example
from trainers.latents import LatentCache
from trainers.losses import masked_mean
from trainers.masks import MaskCache, mask_problems, open_masks
from trainers.objective_settings import ObjectiveSettings

ALPHA = ObjectiveSettings(masked_loss="alpha")


def example(path: Path, bucket: Bucket, corner: tuple[int, int] = (0, 0), concept: str = "") -> Example:
    with Image.open(path) as image:
        width_px, height_px = image.size
    rules = CaptionRules()
    terms = Terms(concept, rules, 0.0, 0.0, 1.0, "", (bucket,), is_everydream=True)
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    caption = CaptionSource("", rules, origin="none")
    return Example(
        str(path.parent), path.name, content, width_px, height_px, Fraction(1), caption, bucket, corner, terms
    )


def transparent(path: Path, width_px: int, height_px: int, opaque: slice) -> Path:
    """Grey, and opaque only between two columns."""
    pixels = np.full((height_px, width_px, 4), 128, np.uint8)
    pixels[..., 3] = 0
    pixels[:, opaque, 3] = 255
    Image.fromarray(pixels).save(path)
    return path


def masks(settings: ObjectiveSettings, folder: Path, *examples: Example) -> MaskCache:
    found = open_masks(settings, folder / "cache", examples, latent_factor=8, workers=1)
    assert found is not None
    assert found.fill(examples, workers=1) == []
    return found


def test_alpha_goes_with_the_crop_and_the_mirror(tmp_path: Path) -> None:
    """Of 128 x 64 the right half is opaque; a window of 64 pixels, three quarters of it to the right."""
    path = transparent(tmp_path / "a.png", 128, 64, slice(64, 128))
    one = example(path, Bucket(64, 64), corner=(48, 0))
    found = masks(ALPHA, tmp_path, one).gather([(one, False), (one, True)])
    assert found.shape == (2, 1, 8, 8)
    assert found[0, 0].tolist() == [[0.0] * 2 + [1.0] * 6] * 8
    assert found[1, 0].tolist() == [[1.0] * 6 + [0.0] * 2] * 8


def test_a_latent_counts_as_much_as_its_pixels(tmp_path: Path) -> None:
    path = transparent(tmp_path / "a.png", 64, 64, slice(0, 12))
    one = example(path, Bucket(64, 64))
    row = masks(ALPHA, tmp_path, one).gather([(one, False)])[0, 0, 3]
    assert row.tolist() == [1.0, 0.5, *[0.0] * 6]


def test_a_picture_is_scaled_with_its_mask(tmp_path: Path) -> None:
    path = transparent(tmp_path / "a.png", 128, 128, slice(0, 64))
    one = example(path, Bucket(64, 64))
    row = masks(ALPHA, tmp_path, one).gather([(one, False)])[0, 0, 3]
    torch.testing.assert_close(row, torch.tensor([1.0] * 4 + [0.0] * 4), rtol=0, atol=0.03)


def test_what_is_not_transparent_counts_whole_and_outside_may_count_a_little(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    transparent(tmp_path / "a.png", 64, 64, slice(0, 32))
    settings = ObjectiveSettings(masked_loss="alpha", unmasked_weight=0.25)
    ones = [example(tmp_path / name, Bucket(64, 64)) for name in ("b.png", "a.png")]
    found = masks(settings, tmp_path, *ones).gather([(one, False) for one in ones])
    assert found[0].min() == 1
    assert found[1, 0, 0].tolist() == [1.0] * 4 + [0.25] * 4


def test_alpha_is_turned_as_the_picture_is(tmp_path: Path) -> None:
    image = Image.new("RGBA", (40, 20), (9, 9, 9, 255))
    image.paste((9, 9, 9, 0), (0, 0, 10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "a.png", exif=exif)
    alpha = read_alpha(tmp_path / "a.png")
    assert alpha is not None
    assert alpha.shape == (40, 20)
    assert alpha[:10].max() == 0
    assert alpha[10:].min() == 255
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    assert read_alpha(tmp_path / "b.png") is None


@pytest.fixture
def tree(tmp_path: Path) -> list[Example]:
    """Two pictures in a folder; the mask of the first has half its size."""
    for folder in ("data/sabine", "masks/sabine"):
        (tmp_path / folder).mkdir(parents=True)
    ones = []
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (64, 64), (len(ones), 0, 0)).save(tmp_path / "data/sabine" / name)
        ones.append(example(tmp_path / "data/sabine" / name, Bucket(64, 64), concept="sabine"))
    mask = np.zeros((32, 32), np.uint8)
    mask[:16] = 255
    Image.fromarray(mask).save(tmp_path / "masks/sabine/a.png")
    return ones


def test_mask_files_lie_as_the_pictures_do(tree: list[Example], tmp_path: Path) -> None:
    settings = ObjectiveSettings(masked_loss="files", masks=tmp_path / "masks")
    found = masks(settings, tmp_path, *tree).gather([(one, False) for one in tree])
    assert found[0, 0, :3].min() > 0.99
    assert found[0, 0, 5:].max() < 0.01
    assert found[1].min() == 1
    (problem,) = mask_problems(settings, tree)
    assert problem.startswith("1 of 2 pictures have no mask")
    assert mask_problems(ObjectiveSettings(), tree) == []


def test_an_edited_mask_is_another_one(
    tree: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ObjectiveSettings(masked_loss="files", masks=tmp_path / "masks")
    before = masks(settings, tmp_path, *tree).digest(tree)
    made: list[Any] = []
    make = trainers.masks._make
    monkeypatch.setattr("trainers.masks._make", lambda work: made.append(work) or make(work))
    assert masks(settings, tmp_path, *tree).digest(tree) == before
    assert made == []  # they were on the disk
    Image.new("L", (64, 64)).save(tmp_path / "masks/sabine/a.png")
    again = masks(settings, tmp_path, *tree)
    assert again.digest(tree) != before
    assert len(made) == 1
    assert again.gather([(tree[0], False)]).max() == 0


def test_masks_that_cannot_be_had_are_told(tree: list[Example], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="needs their folder"):
        ObjectiveSettings(masked_loss="files").check_objective()
    nowhere = ObjectiveSettings(masked_loss="files", masks=tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no mask of any picture") as raised:
        mask_problems(nowhere, tree)
    assert str(Path("nowhere/sabine/a.png")) in (raised.value.hint or "")
    (tmp_path / "masks/sabine/a.png").write_bytes(b"broken")
    settings = ObjectiveSettings(masked_loss="files", masks=tmp_path / "masks")
    found = open_masks(settings, tmp_path / "cache", tree, latent_factor=8, workers=1)
    assert found is not None
    (failure,) = found.fill(tree, workers=1)
    assert failure.path.endswith("a.jpg")


def test_the_loss_is_the_mean_over_the_mask_by_hand() -> None:
    errors = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 2, 2).repeat(3, 2, 1, 1)
    mask = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0.5], [0, 0, 0, 0]]).view(3, 1, 2, 2)
    assert masked_mean(errors, mask).tolist() == pytest.approx([1.0, (2 + 0.5 * 4) / 1.5, 0.0])
    whole = torch.ones(3, 1, 2, 2)
    torch.testing.assert_close(masked_mean(errors, whole), errors.flatten(1).mean(1))


def test_nothing_is_learned_outside_the_mask() -> None:
    pred = torch.zeros(1, 4, 2, 2, requires_grad=True)
    mask = torch.tensor([1.0, 0, 0, 0]).view(1, 1, 2, 2)
    masked_mean((pred - 1).square(), mask).sum().backward()
    assert pred.grad is not None
    assert pred.grad.flatten(2).abs().sum(1)[0].tolist() == pytest.approx([2.0, 0, 0, 0])


def test_masks_lie_where_latents_show_what_counts(tmp_path: Path) -> None:
    """Black where it is opaque, and so white elsewhere: the mask can be read off the latents themselves, in two
    buckets, cut off centre, mirrored or not."""
    random = np.random.default_rng(3)
    examples = []
    for number, (width, height, bucket, corner) in enumerate(
        [
            (96, 96, Bucket(64, 64), (0, 0)),
            (160, 96, Bucket(64, 64), (29, 0)),
            (160, 96, Bucket(96, 48), (0, 7)),
        ]
    ):
        blocks = random.integers(0, 2, (4, 5), dtype=np.uint8) * 255
        alpha = Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)
        image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
        image.putalpha(alpha)
        image.save(tmp_path / f"{number}.png")
        one = example(tmp_path / f"{number}.png", bucket, corner)
        examples.append(replace(one, terms=replace(one.terms, flip_p=0.5)))
    cache = LatentCache.open(tmp_path / "latents", vae_identity="v", dtype=torch.float32)
    assert cache.fill(examples, AveragingVae(), device="cpu", batch_size=2, workers=1) == []
    found = masks(ALPHA, tmp_path, *examples)
    for one in examples:
        for flip in (False, True):
            shown, _ = cache.gather([(one, flip)], "cpu")
            opaque = (1 - shown[:, :1] + torch.linspace(0, 1, shown.shape[-1])) / 2
            mask = found.gather([(one, flip)])
            assert mask.shape == opaque.shape
            assert 0.2 < mask.mean() < 0.8
            torch.testing.assert_close(mask, opaque, atol=0.06, rtol=0)  # ringing of Lanczos at the edges
