"""A tagger made ready: its files found, its labels read, and its model loaded when there is work for it."""

import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.console import LOG
from pipeline.errors import DeviceError, InputError, SettingsError
from pipeline.hub import HubFile, Ledger, fetch, known_sha256
from pipeline.images import Room, read_image
from pipeline.onnx import Device, Session, open_session
from pipeline.settings import Json, nearest
from pipeline.tagging.entries import (
    FOLDER_ENTRY,
    Entry,
    FilePin,
    base_entry,
    read_entries,
    read_folder_entry,
    read_steps,
    recipe_key,
)
from pipeline.tagging.labels import Labels, read_labels
from pipeline.tagging.pixels import Recipe, Resampling, prepare_picture
from pipeline.tagging.probabilities import KEPT_FROM, pack
from pipeline.workers import Failed

if TYPE_CHECKING:
    from pipeline.catalog import MediaFile

INSTEAD = "take another tagger, or a folder with its files: --tagger FOLDER"  # where the hub gives nothing
VERSION = 1  # of what is kept of a picture
GPU_BATCH = 16  # pictures of 448 px; larger ones fewer
FAST_DECODE_SIDES = 2  # a JPEG may be decoded smaller, but not below this many times the model's size
# StringStringEntryProto of a tensor kept in another file: key (field 1) "location", value (field 2)
_LOCATION = re.compile(rb"\x0a\x08location\x12(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Options:
    """How a tagger is run, whatever tagger it is."""

    device: Device = "auto"
    batch_images: int = 0  # 0: by the device
    fast_decode: bool = False
    half_precision: bool = False
    resampling: Resampling | None = None  # instead of the entry's own


@dataclass(frozen=True, slots=True)
class Tagger:
    """A tagger whose labels are read; its model may still be on the hub.

    Attributes:
        model_sha256: of the model and of files that hold its weights; part of the key of its results.
    """

    entry: Entry
    labels: Labels
    recipe: Recipe
    model_sha256: str
    ledger: Ledger
    folder: Path | None  # of a local one

    @property
    def name(self) -> str:
        """What facts name as their source."""
        return self.entry.name

    @property
    def kinds(self) -> set[int]:
        """Which categories its tags are of, by number."""
        return {int(number) for number in np.unique(self.labels.categories) if number >= 0}

    def key(self, options: Options) -> dict[str, Json]:
        """All that may change a probability."""
        return {
            "version": VERSION,
            "model": self.model_sha256,
            "pixels": recipe_key(self.recipe),
            "size_px": self.entry.size_px,
            "output": self.entry.output,
            "activation": self.entry.activation,
            "kept_from": KEPT_FROM,
            "fast_decode": options.fast_decode,
            "half_precision": options.half_precision and options.device == "tensorrt",
        }

    def open(self, options: Options, cache_folder: Path) -> "TaggerModel":
        """Load the model, downloaded first where it is not here."""
        path = _file(self.entry, self.entry.model, self.ledger, self.folder)
        session = open_session(
            path, options.device, cache_folder=cache_folder, half_precision=options.half_precision
        )
        return TaggerModel(self, session, options)


def find_tagger(
    name: str, entries_path: Path, project_root: Path, ledger: Ledger, options: Options
) -> Tagger:
    """A tagger by its name in taggers.toml, or by a folder with a model and its labels.

    Raises:
        SettingsError: there is neither.
        InputError: the folder lacks a file, or a file is not understood.
        HubError: its labels are not here and cannot be downloaded.
    """
    entries = read_entries(entries_path)
    entry, folder = entries.get(name), None
    if entry is None:
        folder = next(
            (path for path in (Path(name).expanduser(), project_root / name) if path.is_dir()), None
        )
        if folder is None:
            near = nearest(name, entries)
            hint = f'did you mean "{near}"?' if near else f"known: {', '.join(entries)}"
            raise SettingsError(f'there is no tagger "{name}", nor a folder of that name', hint=hint)
        folder = folder.resolve()
        entry = read_folder_entry(folder, entries_path) or _guessed(folder, entries_path)
    recipe = entry.recipe or read_steps(_file(entry, entry.preprocess_file or "", ledger, folder))
    if options.resampling is not None:
        fits = tuple(replace(fit, resampling=options.resampling) for fit in recipe.fits)
        recipe = replace(recipe, fits=fits)
    labels = read_labels(
        _file(entry, entry.labels, ledger, folder),
        entry.label_format,
        categories_path=_optional(entry, entry.categories_file, ledger, folder),
        thresholds_path=_optional(entry, entry.thresholds_file, ledger, folder),
    )
    return Tagger(entry, labels, recipe, _model_sha256(entry, ledger, folder), ledger, folder)


def _guessed(folder: Path, entries_path: Path) -> Entry:
    """The entry of a folder that does not describe itself: by preprocess.json, else as WD taggers are."""
    if not (folder / "model.onnx").is_file():
        found = ", ".join(sorted(path.name for path in folder.glob("*.onnx"))) or "no .onnx at all"
        hint = f"name its files in {folder / FOLDER_ENTRY}, see the page of celforge tag"
        raise InputError(f"{folder} holds no model.onnx ({found})", hint=hint)
    if not (folder / "preprocess.json").is_file():
        return base_entry(folder.name, "wd", entries_path)
    extra = {
        key: name
        for key, name in (("categories_file", "categories.json"), ("thresholds_file", "thresholds.csv"))
        if (folder / name).is_file()
    }
    return base_entry(folder.name, "steps", entries_path, **extra)


def _file(entry: Entry, name: str, ledger: Ledger, folder: Path | None) -> Path:
    if folder is None:
        return fetch(_hub_file(entry, name), ledger)
    path = folder / name
    if not path.is_file():
        raise InputError(f"{folder} holds no {name}", hint=f"put it there, or name it in {FOLDER_ENTRY}")
    return path


def _optional(entry: Entry, name: str | None, ledger: Ledger, folder: Path | None) -> Path | None:
    return None if name is None else _file(entry, name, ledger, folder)


def _hub_file(entry: Entry, name: str) -> HubFile:
    pin = entry.files.get(name) or FilePin()
    return HubFile(entry.repo, name, entry.revision, pin.sha256, pin.size_bytes, INSTEAD)


def _model_sha256(entry: Entry, ledger: Ledger, folder: Path | None) -> str:
    if folder is None:
        file = _hub_file(entry, entry.model)
        return known_sha256(file, ledger) or ledger.sha256(fetch(file, ledger))
    model = _file(entry, entry.model, ledger, folder)
    digests = [ledger.sha256(path) for path in (model, *external_files(model))]
    return "+".join(digests)


def external_files(model: Path) -> list[Path]:
    """Files beside a model that hold its weights.

    Raises:
        InputError: one of them is not there.
    """
    if not model.stat().st_size:
        return []
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = {data[match.end() : match.end() + match[1][0]] for match in _LOCATION.finditer(data)}
    paths = sorted(model.parent / name.decode("utf-8", "replace") for name in found)
    for path in paths:
        if not path.is_file():
            raise InputError(
                f"{model.name} keeps its weights in {path}, which is not there", hint="put it there"
            )
    return paths


class TaggerModel:
    """A loaded tagger: pictures in workers, batches on the device; memory that runs out halves the batch."""

    def __init__(self, tagger: Tagger, session: Session, options: Options) -> None:
        import cv2

        cv2.setNumThreads(1)  # the workers are enough: its own threads only take turns with them
        self._tagger = tagger
        self._session = session
        self._room = Room()
        self._fast_decode = options.fast_decode
        self._size_px = _input_size(tagger, session)
        self._output = _output_number(tagger, session)
        automatic = _automatic_batch(session, self._size_px)
        self.batch_items = options.batch_images or automatic
        self._most = self.batch_items  # what the device took so far

    @property
    def device(self) -> str:
        """Where it runs."""
        return self._session.device

    def prepare(self, file: "MediaFile") -> NDArray[Any]:
        """One picture as the model takes it."""
        at_least = FAST_DECODE_SIDES * self._size_px if self._fast_decode else None
        pixels = read_image(file.path, reduce_to_px=at_least, room=self._room).pixels
        prepared = prepare_picture(pixels, self._tagger.recipe, self._size_px)
        return prepared.astype(self._session.input_dtype, copy=False)

    def run(self, batch: NDArray[Any]) -> Sequence[bytes | Failed]:
        """What is kept of each picture's probabilities."""
        scores = self._scores(batch).astype(np.float32, copy=False)
        if scores.shape[1] != len(self._tagger.labels):
            file = self._tagger.entry.labels
            raise InputError(
                f"{self._tagger.name} gives {scores.shape[1]:,} values, and {file} names "
                f"{len(self._tagger.labels):,} tags",
                hint="the model and its label file do not belong together",
            )
        if self._tagger.entry.activation == "sigmoid":
            with np.errstate(over="ignore"):  # exp of a very negative logit: the probability is 0
                scores = np.float32(1) / (np.float32(1) + np.exp(-scores))
        return [
            pack(row) if np.isfinite(row).all() else Failed("not a number", "the model gave no probabilities")
            for row in scores
        ]

    def _scores(self, batch: NDArray[Any]) -> NDArray[Any]:
        pieces = []
        start = 0
        while start < len(batch):
            piece = batch[start : start + self._most]
            try:
                pieces.append(self._session.run(self._filled(piece))[self._output][: len(piece)])
            except DeviceError as error:
                if len(piece) == 1:
                    raise
                self._most = max(1, len(piece) // 2)
                LOG.warning("%s; going on with batches of %s", error.message, self._most)
            else:
                start += len(piece)
        return np.concatenate(pieces)

    def _filled(self, piece: NDArray[Any]) -> NDArray[Any]:
        """TensorRT builds an engine for every shape, which takes minutes: the last batch is filled up."""
        missing = self._most - len(piece)
        if self._session.device != "tensorrt" or not missing:
            return piece
        return np.concatenate([piece, np.zeros((missing, *piece.shape[1:]), piece.dtype)])


def _automatic_batch(session: Session, size_px: int) -> int:
    """One picture on a CPU, where batches gain nothing; else as many as a card of 8 GB holds with room."""
    if session.fixed_batch is not None:
        return session.fixed_batch
    if session.device == "cpu":
        return 1
    return max(1, GPU_BATCH * 448 * 448 // (size_px * size_px))


def _input_size(tagger: Tagger, session: Session) -> int:
    """Side of the square that the model takes, in pixels."""
    shape, layout = session.input_shape, tagger.recipe.layout
    channels, sides = (shape[-1], shape[1:-1]) if layout == "NHWC" else (shape[1:2], shape[2:])
    channels = channels[0] if isinstance(channels, tuple) else channels
    described = f"{session.name} takes {_shape_text(session.input_shape)}"
    if len(shape) != 4 or channels not in (3, None):
        hint = f'say so in {FOLDER_ENTRY} beside it, such as layout = "NCHW", see the page of celforge tag'
        raise InputError(f"{described}, which is not {layout} with 3 channels", hint=hint)
    sizes = {size for size in sides if size is not None} or {tagger.entry.size_px}
    if len(sizes) != 1 or 0 in sizes:
        raise InputError(f"{described}: no square of a known size", hint=f"set size_px in {FOLDER_ENTRY}")
    return sizes.pop()


def _shape_text(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"


def _output_number(tagger: Tagger, session: Session) -> int:
    wanted, names = tagger.entry.output, session.output_names
    if isinstance(wanted, int) and wanted < len(names):
        return wanted
    if isinstance(wanted, str) and wanted in names:
        return names.index(wanted)
    hint = f"set output in {FOLDER_ENTRY} to one of them"
    raise InputError(f"{session.name} has no output {wanted!r}, only {', '.join(names)}", hint=hint)
