"""Tagging beside the bare model and beside kohya's way: whole loops, ratios within one run.

    python benchmarks/tag.py pixels [--images 60]              # preprocessing, processor time per 1080p JPEG
    python benchmarks/tag.py device [--images 400] [--rate 150] [--fast-decode]     # a device of fixed rate
    python benchmarks/tag.py vit [--images 24]                 # ViT-B/16 448 of random weights, this machine
    python benchmarks/tag.py thresholds [--images 10000]       # another threshold, whole command
    python benchmarks/tag.py memory [--images 10000]           # resident memory while tagging

kohya's way is that of its script, re-stated: Pillow decodes, np.pad to a square, OpenCV's area resize, all in
the main thread, or in the workers of a torch DataLoader (`peer 2 workers`). The device is a sleep of fixed
length a picture, which a graphics card is not; `vit` needs the package onnx, for building the model only.
Pixels are compared first. What --fast-decode does to tags: benchmarks/fast_decode.py.
"""

import argparse
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from pipeline.batches import run_in_batches  # noqa: E402 - found by the path above
from pipeline.images import Room, read_image  # noqa: E402 - found by the path above
from pipeline.tagging.pixels import Fit, Recipe, prepare_picture  # noqa: E402 - found by the path above
from pipeline.tagging.probabilities import pack  # noqa: E402 - found by the path above

SIZE, NUM_TAGS, BATCH = 448, 10_861, 8
KOHYA = Recipe((Fit("pad", resampling="area"),))
WD = Recipe((Fit("pad", resampling="bicubic"),))


def draw_frames(folder: Path, count: int) -> list[Path]:
    """1080p JPEGs of about the size and detail of screenshots; many names for few different files."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        path = folder / f"{number:05}.jpg"
        if number < 40:
            coarse = Image.fromarray(random.integers(0, 256, (34, 60, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((1920, 1080), Image.Resampling.BICUBIC), np.int16)
            grain = random.normal(0, 4, smooth.shape[:2])[:, :, None]
            Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(path, quality=92)
        else:
            path.write_bytes(paths[number % 40].read_bytes() + number.to_bytes(4, "big"))
        paths.append(path)
    return paths


def kohya_pixels(path: Path) -> np.ndarray:
    import cv2

    image = np.array(Image.open(path).convert("RGB"))[:, :, ::-1]
    side = max(image.shape[:2])
    pad_x, pad_y = side - image.shape[1], side - image.shape[0]
    margins = ((pad_y // 2, pad_y - pad_y // 2), (pad_x // 2, pad_x - pad_x // 2), (0, 0))
    image = np.pad(image, margins, mode="constant", constant_values=255)
    return cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float32)


ROOM = Room()


def our_pixels(path: Path, recipe: Recipe = KOHYA, *, fast: bool = False) -> np.ndarray:
    decoded = read_image(path, reduce_to_px=2 * SIZE if fast else None, room=ROOM)
    return prepare_picture(decoded.pixels, recipe, SIZE)


def cpu_ms(work: Callable[[Path], Any], paths: Sequence[Path]) -> float:
    work(paths[0])
    started = time.process_time()
    for path in paths:
        work(path)
    return 1000 * (time.process_time() - started) / len(paths)


def bare_decode(path: Path, *, fast: bool = False) -> np.ndarray:
    """What no way of reading the same pixels can do without."""
    import simplejpeg

    return simplejpeg.decode_jpeg(path.read_bytes(), "RGB", min_width=2 * SIZE if fast else 1920)


def bare_area(path: Path, *, fast: bool = False) -> Callable[[Path], Any]:
    """OpenCV's own filter on the picture alone, without margins."""
    import cv2

    decoded = bare_decode(path, fast=fast)
    size = (SIZE, SIZE * decoded.shape[0] // decoded.shape[1])
    return lambda _: cv2.resize(decoded, size, interpolation=cv2.INTER_AREA)


def pixels(paths: Sequence[Path]) -> None:
    """One thread for everybody: OpenCV's own threads would count as processor time too."""
    import cv2

    cv2.setNumThreads(1)
    differing = sum(not np.array_equal(kohya_pixels(path), our_pixels(path)) for path in paths[:40])
    fast_error = np.mean([np.abs(kohya_pixels(p) - our_pixels(p, fast=True)).mean() for p in paths[:10]])
    peer = cpu_ms(kohya_pixels, paths)
    rows = {
        "kohya's way": peer,
        "ours, the same pixels (area)": cpu_ms(our_pixels, paths),
        "ours, bicubic": cpu_ms(lambda path: our_pixels(path, WD), paths),
        "ours, area, fast decode": cpu_ms(lambda path: our_pixels(path, fast=True), paths),
        "of ours: the bare decoder": cpu_ms(bare_decode, paths),
        "of ours: the bare area filter": cpu_ms(bare_area(paths[0]), paths),
    }
    for name, value in rows.items():
        print(f"{name:32} {value:7.1f} ms-cpu   {value / peer:5.2f} of kohya's")
    print(f"pictures with any differing pixel: {differing}; fast decode differs by {fast_error:.3f} of 255")


class FixedRate:
    """A device that takes a fixed time for a picture, and hands out the same probabilities."""

    batch_items = BATCH

    def __init__(self, rate: float, *, fast: bool) -> None:
        self._rate, self._fast = rate, fast
        self._row = pack(np.random.default_rng(1).random(NUM_TAGS).astype(np.float32) ** 12)

    def prepare(self, path: Path) -> np.ndarray:
        return our_pixels(path, fast=self._fast)

    def run(self, batch: np.ndarray) -> list[bytes]:
        time.sleep(len(batch) / self._rate)
        return [self._row] * len(batch)


class KohyaFrames:
    """What a DataLoader draws from."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return kohya_pixels(self._paths[index])


def device(paths: Sequence[Path], rate: float, *, fast: bool) -> None:
    """Beside them what decoder and filter alone allow, in two threads, whatever the device."""
    import cv2

    cv2.setNumThreads(1)  # as the command does

    def limit() -> None:
        area = bare_area(paths[0], fast=fast)
        with ThreadPoolExecutor(2) as pool:
            for _ in pool.map(lambda path: (bare_decode(path, fast=fast), area(path)), paths):
                pass

    def ours() -> None:
        for _ in run_in_batches(FixedRate(rate, fast=fast), paths, 2):
            pass

    def sequential() -> None:
        for start in range(0, len(paths), BATCH):
            batch = np.stack([kohya_pixels(path) for path in paths[start : start + BATCH]])
            time.sleep(len(batch) / rate)

    def workers() -> None:
        from torch.utils.data import DataLoader

        loader = DataLoader(
            KohyaFrames(paths),  # type: ignore[arg-type]
            batch_size=BATCH,
            num_workers=2,
            collate_fn=list,
            multiprocessing_context="fork",
        )
        batches = iter(loader)  # its workers start here
        start_at[0] = time.perf_counter()
        for batch in batches:
            np.stack(batch)
            time.sleep(len(batch) / rate)

    start_at = [0.0]
    for name, loop in (
        ("only decode and shrink", limit),
        ("ours, 2 workers", ours),
        ("peer sequential", sequential),
        ("peer 2 workers", workers),
    ):
        start_at[0] = time.perf_counter()
        loop()
        speed = len(paths) / (time.perf_counter() - start_at[0])
        print(f"{name:22} {speed:7.1f} images/s   {100 * speed / rate:5.1f} % of the device")


def vit(paths: Sequence[Path], folder: Path) -> None:
    """The whole command against the same session fed with one ready batch."""
    from pipeline.onnx import open_session

    model = folder / "vit"
    build_vit(model)
    session = open_session(model / "model.onnx", "cpu")
    batch = our_pixels(paths[0], WD)[None]
    session.run(batch)

    def bare() -> float:
        started = time.perf_counter()
        for _ in paths:
            session.run(batch)
        return len(paths) / (time.perf_counter() - started)

    ratios = []
    for number in range(3):  # taking turns, as the machine may have other things to do
        limit = bare()
        seconds = tag_seconds(paths[0].parent, model, number)
        limit = (limit + bare()) / 2
        ratios.append(len(paths) / seconds / limit)
        print(f"bare {limit:.3f} images/s, celforge {len(paths) / seconds:.3f}: {100 * ratios[-1]:.1f} %")
    print(f"median: {100 * statistics.median(ratios):.1f} % of the bare session")


def tag_seconds(frames: Path, model: Path, run: int) -> float:
    """Seconds that `Job.map_batches` took with the model already loaded, in this process."""
    from pipeline.hub import Ledger
    from pipeline.job import open_job
    from pipeline.tagging.model import Options, find_tagger
    from stages.tag import ENTRIES_PATH

    options = Options(device="cpu")
    with open_job(frames, "tag") as job:
        files = job.images()
        tagger = find_tagger(str(model), ENTRIES_PATH, job.root, Ledger(job.project.state_folder), options)
        loaded = tagger.open(options, frames)
        started = time.perf_counter()
        key = {**tagger.key(options), "run": run}  # not what an earlier run kept
        job.map_batches(lambda: loaded, files, step="tag.benchmark", key=key)
        return time.perf_counter() - started


def build_vit(folder: Path) -> None:
    """ViT-B/16 for 448 px, NHWC in, 10,861 probabilities out, random weights."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    random = np.random.default_rng(0)
    nodes, tensors = [], []

    def weight(name: str, *shape: int, scale: float = 0.02) -> str:
        values = (random.standard_normal(shape, dtype=np.float32) * scale).astype(np.float32)
        tensors.append(numpy_helper.from_array(values, name))
        return name

    def constant(name: str, values: Any) -> str:
        tensors.append(numpy_helper.from_array(np.array(values), name))
        return name

    def node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def norm(x: str, name: str) -> str:
        ones = constant(f"{name}.w", np.ones(768, np.float32))
        return node("LayerNormalization", [x, ones, constant(f"{name}.b", np.zeros(768, np.float32))], name)

    def linear(x: str, name: str, rows: int, columns: int) -> str:
        product = node("MatMul", [x, weight(f"{name}.w", rows, columns)], f"{name}.p")
        return node("Add", [product, weight(f"{name}.b", columns)], name)

    x = node("Transpose", ["input"], "nchw", perm=[0, 3, 1, 2])
    x = node("Mul", [x, constant("scale", np.float32(1 / 127.5))], "scaled")
    patches = weight("patch.w", 768, 3, 16, 16)
    x = node("Conv", [x, patches], "patches", kernel_shape=[16, 16], strides=[16, 16])
    x = node("Reshape", [x, constant("flat", np.array([0, 768, 784], np.int64))], "tokens.t")
    x = node("Transpose", [x], "tokens", perm=[0, 2, 1])
    x = node("Add", [x, weight("positions", 1, 784, 768)], "embedded")
    heads = constant("heads", np.array([0, 784, 12, 64], np.int64))
    joined = constant("joined", np.array([0, 784, 768], np.int64))
    root = constant("root", np.float32(1 / 8))
    for layer in range(12):
        name = f"l{layer}"
        normed = norm(x, f"{name}.n1")
        parts = []
        for part, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
            flat = linear(normed, f"{name}.{part}", 768, 768)
            split = node("Reshape", [flat, heads], f"{name}.{part}.h")
            parts.append(node("Transpose", [split], f"{name}.{part}.t", perm=order))
        scores = node("Mul", [node("MatMul", parts[:2], f"{name}.qk"), root], f"{name}.scores")
        mixed = node("MatMul", [node("Softmax", [scores], f"{name}.a", axis=-1), parts[2]], f"{name}.m")
        mixed = node(
            "Reshape", [node("Transpose", [mixed], f"{name}.mt", perm=[0, 2, 1, 3]), joined], f"{name}.j"
        )
        x = node("Add", [x, linear(mixed, f"{name}.o", 768, 768)], f"{name}.x1")
        hidden = linear(norm(x, f"{name}.n2"), f"{name}.f1", 768, 3072)
        hidden = node("Gelu", [hidden], f"{name}.g")
        x = node("Add", [x, linear(hidden, f"{name}.f2", 3072, 768)], f"{name}.x2")
    pooled = node(
        "ReduceMean", [norm(x, "last"), constant("axis", np.array([1], np.int64))], "pooled", keepdims=0
    )
    node("Sigmoid", [linear(pooled, "head", 768, NUM_TAGS)], "output")
    shape = ["batch", SIZE, SIZE, 3]
    graph = helper.make_graph(
        nodes,
        "vit",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", NUM_TAGS])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    save(model, folder / "model.onnx")
    (folder / "selected_tags.csv").write_text(many_labels())


def many_labels() -> str:
    """As many tags as WD v3 has: 4 ratings, 8,106 general ones, 2,751 characters."""
    kinds = [9] * 4 + [0] * 8106 + [4] * 2751
    return "tag_id,name,category,count\n" + "".join(f"{i},tag_{i},{kind},1\n" for i, kind in enumerate(kinds))


def tiny_project(folder: Path, count: int) -> tuple[Path, Path]:
    """Tiny pictures of `count` contents, tagged by a small model of 10,861 tags."""
    from tiny_taggers import tagger_model, write

    frames = folder / "frames"
    frames.mkdir(parents=True)
    for number in range(count):
        colour = (number % 256, number // 256 % 256, 7 * number % 256)
        Image.new("RGB", (16, 16), colour).save(frames / f"{number:06}.png")
    random = np.random.default_rng(2)
    weights = (random.standard_normal((NUM_TAGS, 3)) / 128).tolist()
    biases = np.where(random.random(NUM_TAGS) < 0.02, -1.0, -9.0).tolist()
    model = write(
        folder / "model", {"model.onnx": tagger_model(weights, biases), "selected_tags.csv": many_labels()}
    )
    return frames, model


def celforge(*arguments: object) -> list[str]:
    code = "from pipeline.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def timed(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
    )
    return time.perf_counter() - started


def thresholds(folder: Path, count: int) -> None:
    frames, model = tiny_project(folder, count)
    print(f"first time: {timed(celforge('tag', frames, '--tagger', model)):.1f} s")
    for value in (0.3, 0.5):
        seconds = timed(celforge("tag", frames, "--tagger", model, "--threshold", value))
        print(f"threshold {value} on {count:,} pictures, the whole command: {seconds:.1f} s")
    print(f"celforge tags, the whole command: {timed(celforge('tags', frames)):.1f} s")
    with sqlite3.connect(frames / ".celforge" / "catalog.sqlite3") as catalog:
        (size,) = catalog.execute("SELECT AVG(LENGTH(value)) FROM results").fetchone()
    print(f"kept of each picture: {size:.0f} bytes on average")


def memory(folder: Path, count: int) -> None:
    frames, model = tiny_project(folder, count)
    process = psutil.Popen(
        celforge("-q", "tag", frames, "--tagger", model),
        stdout=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
    )
    samples = list(_resident(process))
    quarter = max(1, len(samples) // 4)
    parts = [max(samples[start : start + quarter]) for start in range(0, len(samples) - quarter + 1, quarter)]
    print("most resident memory in each quarter of the run, MB:", ", ".join(f"{part:.0f}" for part in parts))


def _resident(process: "psutil.Popen") -> Iterator[float]:
    while process.poll() is None:
        yield process.memory_info().rss / 1e6
        threading.Event().wait(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("pixels", "device", "vit", "thresholds", "memory"))
    parser.add_argument("--images", type=int)
    parser.add_argument("--rate", type=float, default=150.0)
    parser.add_argument("--fast-decode", action="store_true")
    given = parser.parse_args()
    usual = {"pixels": 60, "device": 400, "vit": 24, "thresholds": 10_000, "memory": 10_000}
    count = given.images or usual[given.what]
    folder = Path(tempfile.mkdtemp(prefix="celforge-tag-"))
    try:
        paths = (
            draw_frames(folder / "frames-1080p", count) if given.what in ("pixels", "device", "vit") else []
        )
        run = SimpleNamespace(
            pixels=lambda: pixels(paths),
            device=lambda: device(paths, given.rate, fast=given.fast_decode),
            vit=lambda: vit(paths, folder),
            thresholds=lambda: thresholds(folder, count),
            memory=lambda: memory(folder, count),
        )
        getattr(run, given.what)()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
