"""What --fast-decode does to tags: a small network trained here, on drawn scenes of 1080p JPEGs.

    python benchmarks/fast_decode.py [--train 240] [--images 120] [--epochs 12]

No tagger's own weights are used: the figures say how far probabilities move for a network that learned to
tell these tags apart as well as it says (thin lines, small marks, colours, shapes), not how far those of WD
move. Beside it stands what another resampling (area instead of bicubic) does to the same network. Needs
torch. One thread, fixed seeds; minutes.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).parents[1])]

from pipeline.images import read_image  # noqa: E402 - found by the path above
from pipeline.tagging.pixels import Fit, Recipe, prepare_picture  # noqa: E402 - found by the path above

SIZE = 448
TAGS = ("thin lines", "small marks", "circle", "triangle", "red", "stripes", "text", "gradient")
THRESHOLD = 0.5
BICUBIC = Recipe((Fit("pad", resampling="bicubic"),), "NCHW", "RGB", 1)
AREA = Recipe((Fit("pad", resampling="area"),), "NCHW", "RGB", 1)


def draw_scene(path: Path, seed: int) -> list[float]:
    """A 1080p JPEG with some of the tags; returns which."""
    random = np.random.default_rng(seed)
    has = random.random(len(TAGS)) < 0.4
    coarse = random.integers(60, 200, (9 if has[7] else 1, 16 if has[7] else 1, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((1920, 1080), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)

    def at() -> tuple[float, float]:
        return float(random.uniform(100, 1700)), float(random.uniform(100, 900))

    if has[5]:
        for x in range(0, 1920, 24):
            draw.line((x, 0, x, 1080), (90, 110, 90), 5)
    if has[4]:
        x, y = at()
        draw.rectangle((x, y, x + 260, y + 160), (220, 30, 40))
    if has[2]:
        x, y = at()
        draw.ellipse((x, y, x + 190, y + 190), outline=(20, 20, 20), width=9)
    if has[3]:
        x, y = at()
        draw.polygon([(x, y + 180), (x + 200, y + 180), (x + 100, y)], (245, 235, 120))
    for _ in range(14 if has[0] else 0):
        draw.line((*at(), *at()), (15, 15, 15), 2)
    for _ in range(60 if has[1] else 0):
        x, y = at()
        draw.ellipse((x, y, x + 9, y + 9), (250, 250, 250))
    for _ in range(3 if has[6] else 0):
        draw.text(at(), "the quick brown fox", (10, 10, 10), font_size=38)
    grain = random.normal(0, 4, (1080, 1920, 1))
    noisy = np.clip(np.asarray(image, np.float32) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(path, quality=92)
    return has.astype(float).tolist()


def network() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width, stride in ((16, 2), (24, 2), (32, 2), (48, 2), (64, 2)):
        layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, len(TAGS)))


def read(paths: list[Path], recipe: Recipe, *, fast: bool = False) -> Tensor:
    reduce_to_px = 2 * SIZE if fast else None
    planes = [
        prepare_picture(read_image(path, reduce_to_px=reduce_to_px).pixels, recipe, SIZE) for path in paths
    ]
    return torch.from_numpy(np.stack(planes))


def train(pixels: Tensor, wanted: Tensor, epochs: int) -> nn.Sequential:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(pixels)).split(16):
            loss = nn.functional.binary_cross_entropy_with_logits(model(pixels[rows]), wanted[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=int, default=240)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        paths = [Path(temporary) / f"{number}.jpg" for number in range(given.train + given.images)]
        wanted = torch.tensor([draw_scene(path, number) for number, path in enumerate(paths)])
        model = train(read(paths[: given.train], BICUBIC), wanted[: given.train], given.epochs)
        unseen, truth = paths[given.train :], wanted[given.train :]
        with torch.no_grad():
            plain = read(unseen, BICUBIC)
            usual = model(plain).sigmoid()
            right = ((usual >= THRESHOLD) == truth.bool()).float().mean()
            print(f"the network is right on {100 * right:.1f} % of {truth.numel():,} tags of unseen pictures")
            for name, pixels in (
                ("fast decode", read(unseen, BICUBIC, fast=True)),
                ("area instead of bicubic", read(unseen, AREA)),
            ):
                other = model(pixels).sigmoid()
                moved = (other - usual).abs()
                changed = ((other >= THRESHOLD) != (usual >= THRESHOLD)).float().mean()
                still_right = ((other >= THRESHOLD) == truth.bool()).float().mean()
                print(
                    f"{name}: pixels differ by {255 * (pixels - plain).abs().mean():.2f} of 255; "
                    f"probabilities by {moved.mean():.4f} on average, {moved.max():.3f} at most; "
                    f"{100 * changed:.2f} % of tags change; right on {100 * still_right:.1f} %"
                )


if __name__ == "__main__":
    main()
