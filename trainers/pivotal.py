"""Pivotal tuning: embeddings that learn together with an adapter or a model, and the files they come in.

One file an embedding, `emb_params` [vectors, width], as A1111, Forge and ComfyUI have them in their folders
of embeddings; they call it by the file's name, so those of steps lie in folders. And a bundle: the adapter's
own tensors with `bundle_emb.<name>.string_to_param.*` beside them, one file for A1111's and Forge's folder of
LoRAs (AUTOMATIC1111/stable-diffusion-webui: extensions-builtin/Lora/networks.py, as behaviour).
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pipeline
from trainers.embedding_files import METADATA, PARAMETER, bundled_key
from trainers.embedding_plan import EmbeddingPlan
from trainers.embeddings import Vectors
from trainers.export import FileHashes, write_safetensors
from trainers.layers import Part
from trainers.metadata import embedding_rate
from trainers.methods import AdapterMethod, Method
from trainers.models import Models
from trainers.muon import TABLE
from trainers.run_folder import RunFolder
from trainers.train_settings import Settings

KEY = "embeddings"  # of their vectors in states and averages
_KEPT_METADATA = ("ss_sd_model_name", "ss_new_sd_model_hash", "ss_steps", "ss_clip_skip", "modelspec.license")


def attach_embeddings(plan: EmbeddingPlan | None, models: Models, settings: Settings) -> Vectors | None:
    """Teach a model the words of a plan: its text encoder their vectors, its tokenizer their names.

    Args:
        models: as they were loaded.
    """
    if plan is None:
        return None
    models.tokenizer = models.tokenizer.with_words(plan.words)
    return Vectors(plan.embeddings, models.text_encoder, norm_pull=settings.embedding_norm_pull)


class PivotalMethod:
    """Another method, and the vectors of embeddings beside what it trains."""

    def __init__(self, method: Method, vectors: Vectors, settings: Settings, device: torch.device) -> None:
        self._method = method
        self._vectors = vectors
        self._settings = settings
        vectors.move(device)

    @property
    def num_trainable(self) -> int:
        """Trainable numbers."""
        return self._method.num_trainable + self._vectors.flat.numel()

    def parameters(self) -> list[Tensor]:
        """Those of the method, and the vectors."""
        return [*self._method.parameters(), self._vectors.flat]

    def parameter_groups(
        self, learning_rates: Mapping[Part, float], *, by_matrix: bool
    ) -> list[dict[str, Any]]:
        """Those of the method, and one of the vectors, which are a table and not a matrix."""
        settings = self._settings
        group: dict[str, Any] = {"params": [self._vectors.flat], "lr": embedding_rate(settings)}
        group["weight_decay"] = settings.embedding_weight_decay
        if by_matrix:
            group[TABLE] = True
        return [*self._method.parameter_groups(learning_rates, by_matrix=by_matrix), group]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._method.zero_grad()
        self._vectors.flat.grad = None

    def begin_batch(self, number: int) -> None:
        """As the method."""
        self._method.begin_batch(number)

    def end_step(self) -> None:
        """As the method; norms of the vectors are taken back."""
        self._method.end_step()
        self._vectors.pull_norms()

    def measurements(self) -> dict[str, float]:
        """Of the method, and the mean norm of the vectors over that of the vocabulary."""
        return {**self._method.measurements(), "embedding_norm": self._vectors.mean_norm()}

    def freeze_text_encoder(self) -> None:
        """The vectors learn on."""
        self._method.freeze_text_encoder()

    def freeze_embeddings(self) -> None:
        """Let the vectors be as they are."""
        self._vectors.freeze()

    def tensors(self) -> dict[str, Tensor]:
        """Those of the method, and the vectors."""
        return {**self._method.tensors(), KEY: self._vectors.flat.data}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take them back; that the vectors are of the same embeddings is a condition of the run."""
        self._method.load(_without(tensors))
        self._vectors.flat.copy_(tensors[KEY])

    @contextmanager
    def replaced(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Those of the method as it does it; the vectors are copied."""
        before = self._vectors.flat.detach().clone()
        with self._method.replaced(_without(tensors)):
            try:
                self._take(tensors[KEY])
                yield
            finally:
                self._take(before)

    @torch.no_grad()
    def _take(self, values: Tensor) -> None:
        self._vectors.flat.copy_(values)

    def named_trainable(self) -> Iterator[tuple[str, Tensor]]:
        """Those of the method, and the vectors."""
        yield from self._method.named_trainable()
        yield KEY, self._vectors.flat

    def save(
        self, folder: RunFolder, step: int | None, metadata: Mapping[str, str]
    ) -> list[tuple[Path, FileHashes | None]]:
        """The method's files, a file for each embedding, and an adapter with all of them in it."""
        metadata = {**metadata, METADATA: self._told()}
        made = self._method.save(folder, step, metadata)
        made += [(path, None) for path in self._save_each(folder.embeddings_folder(step), metadata)]
        if isinstance(self._method, AdapterMethod):
            path = folder.bundle_path(step)
            path.parent.mkdir(exist_ok=True)
            tensors = {**self._method.file_tensors(), **self._bundled()}
            made.append((path, write_safetensors(path, tensors, self._method.file_metadata(metadata))))
        return made

    def _save_each(self, folder: Path, metadata: Mapping[str, str]) -> Iterator[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        told = {name: metadata[name] for name in _KEPT_METADATA if name in metadata}
        for one, vectors in self._vectors.by_name():
            path = folder / f"{one.called}.safetensors"
            own = {
                "celforge.version": pipeline.__version__,
                "modelspec.architecture": "stable-diffusion-v1/textual-inversion",
                "modelspec.sai_model_spec": metadata["modelspec.sai_model_spec"],
                "modelspec.title": one.called,
                "modelspec.trigger_phrase": one.called,
                "celforge.words": one.words,
            }
            write_safetensors(path, {PARAMETER: vectors}, {**told, **own})
            yield path

    def _bundled(self) -> dict[str, Tensor]:
        return {bundled_key(one.called): vectors for one, vectors in self._vectors.by_name()}

    def _told(self) -> str:
        return json.dumps(
            {
                one.name: {"called": one.called, "vectors": one.num_vectors, "words": one.words}
                for one in self._vectors.embeddings
            },
            ensure_ascii=False,
        )


def _without(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one for name, one in tensors.items() if name != KEY}
