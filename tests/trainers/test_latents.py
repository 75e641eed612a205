"""The latent cache: what is in it is right, what changed misses, and nothing damaged is ever read."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import noise, saved
from PIL import Image
from stand_in_vae import AveragingVae

from pipeline.errors import DiskFullError
from pipeline.layouts.buckets import Bucket
from trainers import latents
from trainers.caption_rules import CaptionRules
from trainers.data_sources import Terms
from trainers.dataset import DataSettings, Example, read_training_data
from trainers.latent_shards import ShardWriter
from trainers.latents import LatentCache, flips_of, size_bytes

SETTINGS = DataSettings(resolution_px=64, bucket_step_px=16)
HERE = Path(__file__).parent


def read(folder: Path, settings: DataSettings = SETTINGS) -> list[Example]:
    return list(read_training_data(folder, settings, count_tokens=len, workers=1).examples)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures of noise in two buckets; files long as they are are quick to read."""
    made = tmp_path / "data"
    made.mkdir()
    for number in range(5):
        width = 160 if number % 2 else 96
        (made / f"p{number}.png").write_bytes(saved(noise(width, 96, seed=number), "PNG"))
    return made


def opened(tmp_path: Path, *, vae: str = "v", dtype: torch.dtype = torch.float32) -> LatentCache:
    return LatentCache.open(tmp_path / "latents", vae_identity=vae, dtype=dtype)


def filled(
    tmp_path: Path, examples: list[Example], vae: AveragingVae | None = None, workers: int = 2
) -> LatentCache:
    cache = opened(tmp_path)
    assert cache.fill(examples, vae or AveragingVae(), device="cpu", batch_size=2, workers=workers) == []
    return cache


def expected(example: Example, *, flip: bool = False) -> torch.Tensor:
    """Latents by another way: Pillow scales the whole picture and crops, numpy mirrors."""
    image = Image.open(example.path)
    left, top = example.crop
    scale = max(example.bucket.width_px / image.width, example.bucket.height_px / image.height)
    whole = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    part = np.asarray(whole)[top : top + example.bucket.height_px, left : left + example.bucket.width_px]
    part = part[:, ::-1] if flip else part
    pixels = torch.tensor(part.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    mean: torch.Tensor = AveragingVae().encode(pixels).latent_dist.mean
    return mean[0]


def test_latents_are_those_of_the_scaled_and_cut_picture(tmp_path: Path, folder: Path) -> None:
    examples = read(folder)
    cache = filled(tmp_path, examples)
    assert {str(one.bucket) for one in examples} == {"64x64", "80x48"}
    for example in examples:
        mean, std = cache.gather([(example, False)], "cpu")
        torch.testing.assert_close(mean[0], expected(example), atol=0.02, rtol=0)
        torch.testing.assert_close(std, mean.abs() / 8)


def test_a_real_vae_gives_what_it_gives_without_the_cache(tmp_path: Path, folder: Path) -> None:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        norm_num_groups=4,
        latent_channels=3,
        sample_size=16,
    )
    example = replace(read(folder)[0], bucket=Bucket(32, 16), crop=(0, 8))
    cache = opened(tmp_path)
    assert cache.fill([example], vae, device="cpu", batch_size=3) == []
    mean, std = cache.gather([(example, False)], "cpu")
    assert mean.shape == (1, 3, 8, 16)
    pixels = latents._decode(latents._Work(example, (False,)))[0]
    with torch.no_grad():
        posterior = vae.encode(torch.tensor(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1).latent_dist
    torch.testing.assert_close(mean, posterior.mean)
    torch.testing.assert_close(std, posterior.std)


def test_mirrored_variants_are_encoded_not_mirrored_latents(tmp_path: Path, folder: Path) -> None:
    examples = read(folder, replace(SETTINGS, flip_p=0.5))
    cache = filled(tmp_path, examples)
    plain, _ = cache.gather([(examples[0], False)], "cpu")
    mirrored, _ = cache.gather([(examples[0], True)], "cpu")
    torch.testing.assert_close(mirrored[0], expected(examples[0], flip=True), atol=0.02, rtol=0)
    assert not torch.allclose(mirrored, plain.flip(-1))


def test_nothing_is_encoded_twice_and_batches_have_one_size(tmp_path: Path, folder: Path) -> None:
    examples, vae = read(folder), AveragingVae()
    filled(tmp_path, examples, vae)
    assert vae.sizes == [2, 2, 2]  # three of one bucket, two of the other
    filled(tmp_path, examples, vae)
    assert vae.sizes == [2, 2, 2]


def test_two_files_of_the_same_bytes_are_encoded_once(tmp_path: Path, folder: Path) -> None:
    (folder / "copy.png").write_bytes((folder / "p0.png").read_bytes())
    examples, done = read(folder), []
    cache, vae = opened(tmp_path), AveragingVae()
    cache.fill(examples, vae, device="cpu", batch_size=1, on_done=lambda: done.append(1))
    assert (vae.num_encoded, len(done)) == (5, 6)
    assert cache.missing(examples) == []


@pytest.mark.parametrize("change", ["edited", "vae", "dtype", "resolution", "crop", "flip"])
def test_whatever_changes_latents_misses(tmp_path: Path, folder: Path, change: str) -> None:
    examples = read(folder)
    filled(tmp_path, examples)
    cache = opened(tmp_path)
    if change == "edited":
        (folder / "p0.png").write_bytes(saved(noise(96, 96, seed=99), "PNG"))
        assert [one.name for one in cache.missing(read(folder))] == ["p0.png"]
        return
    if change == "vae":
        cache = opened(tmp_path, vae="w")
    elif change == "dtype":
        cache = opened(tmp_path, dtype=torch.bfloat16)
    elif change == "resolution":
        examples = read(folder, replace(SETTINGS, resolution_px=128))
    elif change == "crop":
        examples = [replace(one, crop=(1, 1)) for one in examples]
    else:
        examples = read(folder, replace(SETTINGS, flip_p=1.0))
    assert len(cache.missing(examples)) == 5


def test_a_changed_recipe_misses(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, read(folder))
    monkeypatch.setattr(latents, "RECIPE", latents.RECIPE + 1)
    assert len(opened(tmp_path).missing(read(folder))) == 5


def test_moved_and_renamed_pictures_hit(tmp_path: Path, folder: Path) -> None:
    filled(tmp_path, read(folder))
    (folder / "sub").mkdir()
    (folder / "p0.png").rename(folder / "sub" / "other name.png")
    assert opened(tmp_path).missing(read(folder)) == []


def test_how_many_workers_decode_changes_no_byte(tmp_path: Path, folder: Path) -> None:
    examples = read(folder)
    pairs = [[(one, False)] for one in examples]
    several = [filled(tmp_path / str(workers), examples, workers=workers) for workers in (1, 4)]
    assert all(torch.equal(*(cache.gather(pair, "cpu")[0] for cache in several)) for pair in pairs)


def test_preloaded_latents_are_the_same(tmp_path: Path, folder: Path) -> None:
    examples = read(folder, replace(SETTINGS, flip_p=0.5))
    cache = filled(tmp_path, examples)
    square = [(one, flip) for one in examples if str(one.bucket) == "64x64" for flip in (True, False)]
    before = cache.gather(square, "cpu")
    taken = cache.preload(examples, "cpu")
    assert taken == size_bytes(examples, latent_factor=8, channels=3, dtype=torch.float32)
    for shard in cache.folder.glob("*.latents"):
        shard.unlink()  # what is preloaded needs no file
    assert all(torch.equal(*pair) for pair in zip(before, cache.gather(square, "cpu"), strict=True))


@pytest.mark.parametrize(
    "damage", ["cut data", "cut index", "bit of data", "bit of index", "head", "foreign"]
)
def test_damaged_shards_are_found_and_redone(tmp_path: Path, folder: Path, damage: str) -> None:
    examples = read(folder)
    whole = filled(tmp_path, examples)
    good = {one.name: whole.gather([(one, False)], "cpu")[0].clone() for one in examples}
    index = sorted(whole.folder.glob("*.index"))[0]
    path = index.with_suffix(".latents") if "data" in damage else index
    data = bytearray(path.read_bytes())
    if damage.startswith("cut"):
        data = data[:-5]
    elif damage == "foreign":
        data = bytearray(b"[1, 2]" * 900)
    else:
        data[10 if damage == "head" else -3] ^= 4
    path.unlink()  # the damaged one is another file: `whole` still maps the old one
    path.write_bytes(data)
    again, vae = opened(tmp_path), AveragingVae()
    assert 0 < len(again.missing(examples)) < 5
    assert again.foreign == ([index] if damage in ("head", "foreign") else [])
    again.fill(examples, vae, device="cpu", batch_size=1)
    assert vae.num_encoded == (1 if damage not in ("head", "foreign") else vae.num_encoded) > 0
    for one in examples:
        assert torch.equal(again.gather([(one, False)], "cpu")[0], good[one.name])


def test_pictures_that_cannot_be_encoded_are_named_and_the_others_done(tmp_path: Path, folder: Path) -> None:
    whole = (folder / "p2.png").read_bytes()
    (folder / "p2.png").write_bytes(whole[: len(whole) // 2])  # its header is sound
    (folder / "dark.png").write_bytes(saved(Image.new("RGB", (96, 96)), "PNG"))
    examples = read(folder)
    (folder / "p0.png").write_bytes(saved(noise(96, 96, seed=50), "PNG"))
    cache, done = opened(tmp_path), []
    vae = AveragingVae(nan_below=-0.99)
    failures = cache.fill(examples, vae, device="cpu", batch_size=4, on_done=lambda: done.append(1))
    reasons = {Path(one.path).name: one.reason for one in failures}
    assert reasons == {
        "p2.png": "truncated",
        "p0.png": "changed while it was read",
        "dark.png": "NaN latents",
    }
    assert len(done) == 6
    assert {one.name for one in cache.missing(examples)} == set(reasons)
    with pytest.raises(KeyError, match=r"dark\.png"):
        cache.gather([(next(one for one in examples if one.name == "dark.png"), False)], "cpu")


def test_a_full_disk_is_said_and_what_was_written_stays(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, append = read(folder), ShardWriter.append
    written: list[int] = []

    def full_after_one(self: ShardWriter, keys: list[bytes], slots: torch.Tensor) -> None:
        if written:
            raise DiskFullError("no room")
        written.append(len(keys))
        append(self, keys, slots)

    monkeypatch.setattr(ShardWriter, "append", full_after_one)
    with pytest.raises(DiskFullError):
        opened(tmp_path).fill(examples, AveragingVae(), device="cpu", batch_size=1)
    assert len(opened(tmp_path).missing(examples)) == 4


def test_a_stopped_fill_goes_on_where_it_was(tmp_path: Path, folder: Path) -> None:
    examples, vae, done = read(folder), AveragingVae(), []
    opened(tmp_path).fill(
        examples,
        vae,
        device="cpu",
        batch_size=1,
        on_done=lambda: done.append(1),
        should_stop=lambda: bool(done),
    )
    assert 0 < vae.num_encoded < 5
    filled(tmp_path, examples, vae)
    assert vae.num_encoded <= 6  # a padded batch of two counts its padding


KILLED = """
import sys
from pathlib import Path
from stand_in_vae import AveragingVae
from test_latents import opened, read
opened(Path(sys.argv[1])).fill(read(Path(sys.argv[2])), AveragingVae(pause_s=0.05), device="cpu", batch_size=1)
"""


def test_a_killed_fill_loses_no_whole_picture_and_goes_on(tmp_path: Path, folder: Path) -> None:
    for number in range(5, 40):
        (folder / f"p{number}.png").write_bytes(saved(noise(96, 96, seed=number), "PNG"))
    examples = read(folder)
    paths = os.pathsep.join(map(str, (HERE, HERE.parent, HERE.parents[1])))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path, folder], env={**os.environ, "PYTHONPATH": paths}
    )
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 3 * 1536 for path in tmp_path.rglob("*.latents")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    cache, vae = opened(tmp_path), AveragingVae()
    missing = len(cache.missing(examples))
    assert 0 < missing <= len(examples) - 3
    cache.fill(examples, vae, device="cpu", batch_size=1)
    assert vae.num_encoded == missing
    fresh = filled(tmp_path / "fresh", examples)
    for one in examples:
        assert torch.equal(*(each.gather([(one, False)], "cpu")[0] for each in (cache, fresh)))


def test_a_second_run_uses_what_a_first_wrote_meanwhile(tmp_path: Path, folder: Path) -> None:
    examples = read(folder)
    first, second = opened(tmp_path), opened(tmp_path)
    assert len(second.missing(examples)) == 5
    first.fill(examples, AveragingVae(), device="cpu")
    assert second.missing(examples) == []


def test_variants_asked_for_are_those_that_can_be_drawn() -> None:
    terms = Terms("", CaptionRules(), 0.0, 0.0, 1.0, "", (Bucket(64, 64),), is_everydream=True)
    example = Example("", "", "", 1, 1, Fraction(1), None, Bucket(64, 64), (0, 0), terms)  # type: ignore[arg-type]
    drawn = [flips_of(replace(example, terms=replace(terms, flip_p=chance))) for chance in (0.0, 0.3, 1.0)]
    assert drawn == [(False,), (False, True), (True,)]
