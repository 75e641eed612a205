"""Small ONNX taggers in the interfaces of the real ones, written byte by byte from the ONNX grammar.

    python tests/tiny_taggers.py FOLDER     # writes them all below FOLDER

Each output looks at the mean of one channel of the picture: score = weight * channel mean + bias, so a test
can say beforehand what a flat picture gives. Protobuf is (field << 3 | kind) and a value (onnx.proto3).
"""

import json
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SIZE = 16
FLOAT, FLOAT16 = 1, 10  # of TensorProto.DataType
GENERAL, ARTIST, COPYRIGHT, CHARACTER, META, RATING = 0, 1, 3, 4, 5, 9


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow."""
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def entry(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def value_info(name: str, shape: Sequence[int | str], kind: int = FLOAT) -> bytes:
    """ValueInfoProto: name = 1, type = 2; a dimension has its size in field 1, or its name in field 2."""
    sizes = [entry(1, entry(1 if isinstance(size, int) else 2, size)) for size in shape]
    return entry(1, name) + entry(2, entry(1, entry(1, kind) + entry(2, b"".join(sizes))))


def tensor(
    name: str, shape: Sequence[int], values: Sequence[float], external: str = "", kind: int = FLOAT
) -> bytes:
    """TensorProto: dims 1, data_type 2, name 8, raw_data 9, external_data 13, data_location 14."""
    dims = b"".join(entry(1, size) for size in shape)
    head = dims + entry(2, kind) + entry(8, name)
    if external:
        return head + entry(13, entry(1, "location") + entry(2, external)) + entry(14, 1)
    return head + entry(9, floats(values, "e" if kind == FLOAT16 else "f"))


def floats(values: Sequence[float], letter: str = "f") -> bytes:
    return struct.pack(f"<{len(values)}{letter}", *values)


def node(kind: str, inputs: Sequence[str], output: str, attributes: bytes = b"") -> bytes:
    names = b"".join(entry(1, name) for name in inputs)
    return names + entry(2, output) + entry(4, kind) + attributes


def ints(name: str, values: Sequence[int]) -> bytes:
    """AttributeProto: name 1, ints 8, type 20 (7 = INTS)."""
    return entry(5, entry(1, name) + b"".join(entry(8, value) for value in values) + entry(20, 7))


def integer(name: str, value: int) -> bytes:
    return entry(5, entry(1, name) + entry(3, value) + entry(20, 2))


def tagger_model(
    weights: Sequence[Sequence[float]],
    biases: Sequence[float],
    *,
    layout: str = "NHWC",
    size: int = SIZE,
    batch: int | str = "batch",
    has_sigmoid: bool = True,
    outputs: Sequence[str] = ("output",),
    external: str = "",
    is_half: bool = False,
) -> bytes:
    """A model: mean over the picture, a linear map from 3 channels to the tags, perhaps a sigmoid.

    Args:
        weights: [num_tags][3], for the channels in the order of the model's input.
        outputs: names; the last but one of three holds the tags, as in Camie, else the last.
        external: name of the file that holds the weights instead of the model.
        is_half: everything in float16, from input to output.
    """
    num_tags, kind = len(biases), FLOAT16 if is_half else FLOAT
    axes, shape = ((1, 2), [batch, size, size, 3]) if layout == "NHWC" else ((2, 3), [batch, 3, size, size])
    matrix = [weights[tag][channel] for channel in range(3) for tag in range(num_tags)]
    real = outputs[1] if len(outputs) == 3 else outputs[-1]
    nodes = [
        node("ReduceMean", ["input"], "mean", ints("axes", axes) + integer("keepdims", 0)),
        node("MatMul", ["mean", "weights"], "product"),
        node("Add", ["product", "biases"], "scores" if has_sigmoid else real),
    ]
    if has_sigmoid:
        nodes.append(node("Sigmoid", ["scores"], real))
    nodes += [node("Neg", [real], name) for name in outputs if name != real]
    tensors = [
        tensor("weights", [3, num_tags], matrix, external, kind),
        tensor("biases", [num_tags], biases, kind=kind),
    ]
    graph = b"".join(entry(1, one) for one in nodes) + entry(2, "tagger")
    graph += b"".join(entry(5, one) for one in tensors) + entry(11, value_info("input", shape, kind))
    graph += b"".join(entry(12, value_info(name, [batch, num_tags], kind)) for name in outputs)
    return entry(1, 8) + entry(7, graph) + entry(8, entry(2, 13))


def weights_file(weights: Sequence[Sequence[float]]) -> bytes:
    return floats([weights[tag][channel] for channel in range(3) for tag in range(len(weights))])


# name, category, which channel of RGB it answers to: a full channel gives sigmoid(4), an empty one sigmoid(-4)
TAGS: list[tuple[str, int, int]] = [
    ("general", RATING, 1),
    ("sensitive", RATING, 2),
    ("questionable", RATING, 0),
    ("explicit", RATING, 0),
    ("red_background", GENERAL, 0),
    ("green_background", GENERAL, 1),
    ("blue_background", GENERAL, 2),
    ("null", GENERAL, 0),
    ("nan", GENERAL, 1),
    ("^_^", GENERAL, 2),
    ("sabine_(tale)", CHARACTER, 0),
    ("eileen", CHARACTER, 1),
]


def linear(
    tags: Sequence[tuple[str, int, int]], *, is_bgr: bool, full: float, empty: float = 0.0
) -> tuple[list[list[float]], list[float]]:
    """Weights and biases: logit 4 where the tag's channel is `full`, -4 where it is `empty`."""
    rows = []
    for _, _, channel in tags:
        row = [0.0, 0.0, 0.0]
        row[2 - channel if is_bgr else channel] = 8.0 / (full - empty)
        rows.append(row)
    return rows, [-4.0 - 8.0 * empty / (full - empty)] * len(tags)


def csv_text(tags: Sequence[tuple[str, int, int]], thresholds: Sequence[float] | None = None) -> str:
    head = "tag_id,name,category,count" + (",best_threshold" if thresholds else "")
    lines = [
        f"{index},{name},{category},{100 - index}" + (f",{thresholds[index]}" if thresholds else "")
        for index, (name, category, _) in enumerate(tags)
    ]
    return "\n".join([head, *lines]) + "\n"


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def wd(folder: Path, *, batch: int | str = "batch", size: int = SIZE, tags: Any = TAGS) -> Path:
    """WD's interface: NHWC, BGR, 0 to 255, sigmoid inside, selected_tags.csv."""
    weights, biases = linear(tags, is_bgr=True, full=255)
    model = tagger_model(weights, biases, batch=batch, size=size)
    return write(folder, {"model.onnx": model, "selected_tags.csv": csv_text(tags)})


def cl(folder: Path) -> Path:
    """cl_tagger's: NCHW, BGR, -1 to 1, logits, tag_mapping.json; described by its tagger.toml."""
    names = {
        GENERAL: "General",
        CHARACTER: "Character",
        RATING: "Rating",
        ARTIST: "Artist",
        COPYRIGHT: "Copyright",
        META: "Quality",
    }
    tags = [*TAGS, ("a_painter", ARTIST, 0), ("a_series", COPYRIGHT, 1), ("best_quality", META, 2)]
    weights, biases = linear(tags, is_bgr=True, full=1, empty=-1)
    mapping = {str(i): {"tag": name, "category": names[kind]} for i, (name, kind, _) in enumerate(tags)}
    return write(
        folder,
        {
            "model.onnx": tagger_model(weights, biases, layout="NCHW", has_sigmoid=False),
            "tag_mapping.json": json.dumps(mapping),
            "tagger.toml": 'base = "cl"\nmodel = "model.onnx"\nlabels = "tag_mapping.json"\n',
        },
    )


def camie(folder: Path) -> Path:
    """Camie's: NCHW, RGB, ImageNet's mean and std, three outputs of which the second counts, logits."""
    tags = [(f"rating_{name}" if kind == RATING else name, kind, channel) for name, kind, channel in TAGS]
    tags += [("year_2020", META, 2)]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    rows, biases = [], []
    for _, _, channel in tags:
        row = [0.0, 0.0, 0.0]
        row[channel] = 8.0 * std[channel]
        rows.append(row)
        biases.append(-4.0 + 8.0 * mean[channel])
    kinds = {GENERAL: "general", CHARACTER: "character", RATING: "rating", META: "year"}
    mapping = {
        "idx_to_tag": {str(index): name for index, (name, _, _) in enumerate(tags)},
        "tag_to_category": {name: kinds[kind] for name, kind, _ in tags},
    }
    outputs = ("initial_predictions", "refined_predictions", "selected_candidates")
    model = tagger_model(rows, biases, layout="NCHW", has_sigmoid=False, outputs=outputs)
    entry_text = 'base = "camie"\nmodel = "camie.onnx"\nlabels = "metadata.json"\n'
    metadata = json.dumps({"dataset_info": {"tag_mapping": mapping}})
    return write(folder, {"camie.onnx": model, "metadata.json": metadata, "tagger.toml": entry_text})


def animetimm(folder: Path) -> Path:
    """animetimm's: preprocess.json, a threshold for every tag, outputs embedding, logits and prediction."""
    weights, biases = linear(TAGS, is_bgr=False, full=1, empty=-1)
    stages = [
        {
            "type": "pad_to_size",
            "size": [2 * SIZE] * 2,
            "background_color": "white",
            "interpolation": "bilinear",
        },
        {"type": "resize", "size": SIZE, "interpolation": "bicubic", "antialias": True, "max_size": None},
        {"type": "center_crop", "size": [SIZE, SIZE]},
        {"type": "maybe_to_tensor"},
        {"type": "normalize", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    ]
    thresholds = [0.5] * len(TAGS)
    thresholds[4] = 0.99  # red_background: above what a full channel gives
    names = [
        {"category": 0, "name": "general"},
        {"category": 4, "name": "character"},
        {"category": 9, "name": "rating"},
    ]
    return write(
        folder,
        {
            "model.onnx": tagger_model(weights, biases, layout="NCHW", outputs=("embedding", "prediction")),
            "selected_tags.csv": csv_text(TAGS, thresholds),
            "preprocess.json": json.dumps({"test": stages, "val": stages}),
            "categories.json": json.dumps(names),
            "thresholds.csv": "category,name,threshold\n0,general,0.4\n4,character,0.6\n",
        },
    )


def external(folder: Path) -> Path:
    """WD's interface with the weights in a file beside the model."""
    weights, biases = linear(TAGS, is_bgr=True, full=255)
    model = tagger_model(weights, biases, external="weights.data")
    return write(
        folder,
        {"model.onnx": model, "weights.data": weights_file(weights), "selected_tags.csv": csv_text(TAGS)},
    )


def write_all(folder: Path) -> None:
    for make in (wd, cl, camie, animetimm, external):
        make(folder / make.__name__)
    wd(folder / "fixed", batch=1)


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
