"""Which model files a comparison shows: those of the runs under models/, or those that were named.

What cannot be read is named: a file that was typed ends the command, one that was found is left out.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from trainers.adapters.merging import AdapterFile
from trainers.embedding_files import files_beside
from trainers.families import family_of_tensors
from trainers.model_files import STEMS, part_files, read_weights, sha256_of_files
from trainers.run_folder import RunFolder
from trainers.train_settings import MODEL_SUFFIXES

KINDS = ("loha", "locon", "lora", "full")  # in the order of their columns
SHOWN_KINDS: Mapping[str, str] = {"loha": "LoHa", "locon": "LoCon", "lora": "LoRA", "full": "full"}
_STEP = re.compile(r"-step(\d{8,})$")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run's settings.json says; empty for a file of another tool."""

    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    total_steps: int | None = None

    @classmethod
    def read(cls, folder: Path) -> "RunFacts":
        """Of a run's folder; a missing or broken settings.json says nothing."""
        try:
            words = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
            settings = dict(words["settings"])
            return cls(
                str(settings.get("name") or settings["kind"]), settings, int(words.get("total_steps") or 0)
            )
        except (OSError, ValueError, KeyError, TypeError):
            return cls()


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file to compare.

    Args:
        step: of training; None where nothing says it.
        sha256: of the whole file.
        embeddings: it was trained with, {name: file}; none of a bundle, which has them in it.
    """

    path: Path
    kind: str  # one of KINDS
    name: str  # of its run, or of the file
    step: int | None
    sha256: str
    metadata: Mapping[str, str]
    run: RunFacts
    embeddings: Mapping[str, Path] = field(default_factory=dict)

    @property
    def is_adapter(self) -> bool:
        """Whether it changes a base, and is none itself."""
        return self.kind != "full"

    @property
    def predicts(self) -> str:
        """What it was trained to predict, "epsilon" or "v_prediction"; empty where nobody says it."""
        is_v = self.metadata.get("ss_v_parameterization") == "True"
        said = self.metadata.get("modelspec.prediction_type", "")
        if is_v or said in ("v", "v_prediction"):
            return "v_prediction"
        return said if said == "epsilon" else ""

    @property
    def is_zero_terminal_snr(self) -> bool:
        """Whether it was trained so, as far as it says."""
        return self.metadata.get("ss_zero_terminal_snr") == "True"

    @property
    def order(self) -> tuple[int, str, float, str]:
        """Place among the columns: kind, run, step."""
        step = float("inf") if self.step is None else self.step
        return KINDS.index(self.kind), self.name, step, self.path.name


@dataclass(slots=True)
class Found:
    """Files to compare, and what was left out: (path, sentence)."""

    files: list[ModelFile]
    failures: list[tuple[Path, str]] = field(default_factory=list)


def find_models(given: Sequence[Path], models_folder: Path, steps: Sequence[int]) -> Found:
    """The files of a comparison in the order of their columns.

    Args:
        given: files and folders of runs; every run in `models_folder` without any.
        steps: of training, to be shown; all without any. Files whose step nobody knows are shown always.

    Raises:
        InputError: a given file is missing, damaged or of a kind that is not read; or nothing is left.
    """
    found = Found([])
    paths = list(_given(given) if given else _discovered(models_folder))
    for path in dict.fromkeys(paths):
        try:
            one = _read(path, steps)
        except InputError as error:
            if given:
                raise
            found.failures.append((path, str(error)))
            continue
        if one is not None:
            found.files.append(one)
    found.files.sort(key=lambda one: one.order)
    if not found.files:
        raise _nothing(paths, found.failures, models_folder, steps)
    return found


def _nothing(
    paths: Sequence[Path], failures: Sequence[tuple[Path, str]], folder: Path, steps: Sequence[int]
) -> InputError:
    if failures:
        return InputError(f"none of the models can be shown: {failures[0][1]}", hint="give other files")
    if paths and steps:
        wanted = ", ".join(f"{step:,}" for step in steps)
        return InputError(f"no model was saved at step {wanted}", hint="look at the names under models/")
    return InputError(
        f"there is no model to compare in {folder}",
        hint="train one, or name files: celforge compare FILE... --base MODEL",
    )


def _given(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if (path / "unet").is_dir():
            yield path
        elif path.is_dir():
            inside = list(_of_run(path))
            if not inside:
                raise InputError(f"{path} holds no model file", hint="give a run's folder or a model file")
            yield from inside
        elif path.is_file():
            yield path
        else:
            raise InputError(f"there is no model {path}", hint="look at its name")


def _discovered(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for run in sorted(one for one in folder.iterdir() if (one / "settings.json").is_file()):
            yield from _of_run(run)


def _of_run(folder: Path) -> Iterator[Path]:
    """Step models, then the last one; every model file of a folder that is no run's."""
    facts = RunFacts.read(folder)
    if not facts.name:
        yield from sorted(one for one in folder.iterdir() if one.suffix.lower() in MODEL_SUFFIXES)
        return
    run = RunFolder(folder, facts.name)
    paths = [*(path for _, path in run.step_models()), run.model_path(), run.diffusers_folder()]
    for path in paths:  # a checkpoint that was saved both ways is shown once
        if path.is_file() or (
            (path / "unet").is_dir() and not path.with_name(f"{path.name}.safetensors").is_file()
        ):
            yield path


def _read(path: Path, steps: Sequence[int]) -> ModelFile | None:
    """One file; None where its step is not asked for, before its hash is worked out."""
    tensors, metadata = read_weights(_weights(path), meta=True)
    run = RunFacts.read(path.parent)
    if _STEP.sub("", _stem(path)) != run.name:
        run = RunFacts()  # a stranger in the folder
    step = _step(path, metadata, run)
    if steps and step is not None and step not in steps:
        return None
    kind = "full" if path.is_dir() else _kind(path, tensors)
    if run.settings and kind != "full":
        kind = str(run.settings.get("kind", kind))
    name = run.name or _stem(path)
    is_bundle = any(key.startswith("bundle_emb.") for key in tensors)
    embeddings = {} if is_bundle else files_beside(path, metadata)
    return ModelFile(path, kind, name, step, sha256_of_files(_weights(path)), metadata, run, embeddings)


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _weights(path: Path) -> list[Path]:
    return [one for part in STEMS for one in part_files(path / part, part)] if path.is_dir() else [path]


def _kind(path: Path, tensors: Mapping[str, Any]) -> str:
    if any(key.startswith("model.diffusion_model.") for key in tensors):
        family_of_tensors(tensors, path.name)
        return "full"
    return AdapterFile.read(path, meta=True).kind


def _step(path: Path, metadata: Mapping[str, str], run: RunFacts) -> int | None:
    match = _STEP.search(_stem(path))
    if match:
        return int(match[1])
    said = metadata.get("ss_steps", "")
    return int(said) if said.isdigit() else run.total_steps
