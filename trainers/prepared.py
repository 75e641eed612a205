"""A run that is ready to begin: what was read and worked out, its counts, and how they are shown."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import psutil
import torch

from pipeline.console import LOG
from pipeline.files import format_bytes
from pipeline.layouts.buckets import Bucket
from pipeline.machine.hardware import memory_limit_bytes
from pipeline.project import Project
from pipeline.report import Failure, Table, failure_limit
from pipeline.settings import as_json
from trainers.balanced import class_of
from trainers.craft import craft_shown
from trainers.dataset import Example, TrainingData
from trainers.embedding_plan import EmbeddingPlan
from trainers.forecast import CONTEXT_BYTES, OVERHEAD, Forecast
from trainers.held_out import HeldOut
from trainers.metadata import embedding_rate, learning_rates
from trainers.models import BaseFacts
from trainers.objectives import objective_words
from trainers.physical_limits import attainable_flop_per_s
from trainers.precision import DTYPES, Precision
from trainers.prompts import Prompt
from trainers.regularisation import in_words
from trainers.run_folder import RunFolder
from trainers.timesteps import timestep_rows
from trainers.train_settings import Settings
from trainers.visits import Visits

ROWS_SHOWN = 20
LIKELY_SHARES = (0.1, 0.25)  # of the physical bound that a step reaches: 0.12 and 0.21 were seen on an H200


@dataclass(slots=True)
class Prepared:
    """A run that is ready to begin.

    Args:
        sources: where each setting came from.
        changed: {setting: (value of the preset, value in force)}.
        problems: what is odd and does not stop the run, a sentence each, with what mends it.
        failures: pictures that cannot be read, left out of the run.
        optimizer_bytes: of the optimizer's memory.
        file_bytes: of one saved model.
        embeddings: that learn too; None where none do.
    """

    settings: Settings
    sources: Mapping[str, str]
    changed: Mapping[str, tuple[Any, Any]]
    project: Project
    folder: RunFolder
    data: TrainingData
    held_out: HeldOut | None
    facts: BaseFacts
    device: torch.device
    precision: Precision
    prompts: Sequence[Prompt]
    num_trainable: int
    optimizer_bytes: int
    num_layers: Mapping[str, int]
    block_rows: list[dict[str, Any]]
    file_bytes: int
    forecast: Forecast
    embeddings: EmbeddingPlan | None = None
    problems: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic."""
        return DTYPES[self.precision]

    @property
    def repeats_sum(self) -> float:
        """Pictures that one pass shows."""
        return float(self.data.images_per_epoch)

    @property
    def total_steps(self) -> int:
        """Steps of the run."""
        settings = self.settings
        if not settings.epochs:
            return settings.steps
        images = self.repeats_sum * settings.epochs
        return max(1, math.ceil(images / (settings.batch_size * settings.accumulation)))

    @property
    def text_encoder_until(self) -> int | None:
        """Steps after which the text encoder learns no more; None where it learns to the end, or never."""
        return self._step_of(self.settings.text_encoder_until) if self.settings.train == "both" else None

    @property
    def embeddings_until(self) -> int | None:
        """Steps after which the embeddings learn no more; None where they learn to the end, or never."""
        return self._step_of(self.settings.embedding_until) if self.embeddings else None

    @property
    def texts_until(self) -> int | None:
        """Steps after which the text encoder always says the same of a caption; None for never."""
        ends = [self.text_encoder_until] if self.settings.trains_text_encoder else []
        ends += [self.embeddings_until] if self.embeddings else []
        known = [one for one in ends if one is not None]
        return max(known) if known and len(known) == len(ends) else None

    def _step_of(self, until: float) -> int | None:
        """A step, also said as a share of the run; 0 is never."""
        if not until:
            return None
        return round(until * self.total_steps) if until < 1 else round(until)

    @property
    def memory_bytes(self) -> int:
        """What the run will need of the device's memory, about."""
        allocated = self.forecast.allocated_bytes
        if self.device.type != "cuda":
            return allocated
        return allocated + int(OVERHEAD * self.forecast.step_bytes) + CONTEXT_BYTES

    @property
    def total_images(self) -> int:
        """Pictures that the run shows, each as often as it is seen."""
        return self.total_steps * self.settings.batch_size * self.settings.accumulation

    def visits(self) -> Visits:
        """Which picture comes when."""
        settings, examples = self.settings, self.data.examples
        concepts = None if settings.batch_concepts == "random" else [class_of(one) for one in examples]
        return Visits(examples, batch_size=settings.batch_size, seed=settings.seed, concepts=concepts)

    @property
    def encoded(self) -> list[Example]:
        """Every picture whose latents are needed: those that are trained on, and those held out."""
        return [*self.data.examples, *(self.held_out.measured if self.held_out else ())]

    def leave_out(self, failures: Sequence[Failure]) -> None:
        """Take pictures that cannot be read out of the run.

        Raises:
            TooManyFailuresError: more than --max-failures.
            InputError: nothing is left.
        """
        self.data = self.data.without(failures)
        if self.held_out is not None:
            self.held_out = self.held_out.without(failures)
        self.count_failures(failures)

    def count_failures(self, failures: Sequence[Failure]) -> None:
        """Name pictures that are left out.

        Raises:
            TooManyFailuresError: more than --max-failures.
        """
        num_pictures = len(self.data.examples) + len(self.data.unreadable)
        limit = failure_limit(self.settings.max_failures, num_pictures)
        for failure in failures:
            LOG.warning("%s: %s", failure.path, failure.detail)
            self.failures.append(failure)
        for _ in self.failures:
            limit.count(self.failures)

    @property
    def captions_vary(self) -> bool:
        """Whether a picture's caption may be another one on each visit."""
        rules = (example.caption.rules for example in self.data.examples)
        return any(one.vary for one in rules)

    def data_digests(self) -> dict[str, str]:
        """What the pictures and the captions are, for states to compare."""
        pictures, captions = hashlib.sha256(), hashlib.sha256()
        for example in self.data.examples:
            shape = f"{example.repeats} {example.bucket} {example.crop} {example.flip_p} {example.loss_scale}"
            pictures.update(f"{example.content} {shape} {example.batch_id}\n".encode())
            captions.update(f"{example.content} {example.caption} {example.conditional_dropout}\n".encode())
        return {"pictures": pictures.hexdigest(), "captions": captions.hexdigest()}

    def share_of_bound(self, images_per_s: float) -> float | None:
        """How near a rate comes to what the GPU's arithmetic allows; None for one that is not known."""
        peak = self._attainable_flop_per_s()
        if peak is None:
            return None
        return images_per_s * self.forecast.step_flop / self.settings.batch_size / peak

    def _attainable_flop_per_s(self) -> float | None:
        if self.device.type != "cuda" or self.precision == "fp32":
            return None
        return attainable_flop_per_s(torch.cuda.get_device_name(self.device))

    def hours(self) -> tuple[float, float] | None:
        """Shortest and longest likely time of the run; None on a device that is not known."""
        peak = self._attainable_flop_per_s()
        if peak is None:
            return None
        at_the_bound = self.forecast.step_flop * self.settings.accumulation * self.total_steps / peak / 3600
        slow, fast = LIKELY_SHARES
        return at_the_bound / fast, at_the_bound / slow

    def gpu_step_s(self) -> float | None:
        """What a batch will take the GPU at best, about; None for one that is not known."""
        peak = self._attainable_flop_per_s()
        return None if peak is None else self.forecast.step_flop / peak / LIKELY_SHARES[1]

    def disk_bytes(self) -> int:
        """What the run will write into its folder."""
        settings = self.settings
        saves = self.total_steps // settings.save_every if settings.save_every else 1
        kept = min(saves, settings.keep_last + 1) if settings.keep_last else max(1, saves)
        forms = 2 if settings.kind == "full" and settings.save_as == "both" else 1
        forms *= 2 if settings.ema and settings.ema_save == "beside" else 1
        state = self.num_trainable * (8 if settings.ema else 4) + self.optimizer_bytes
        if self.embeddings is not None and settings.kind != "full":
            forms *= 2  # adapters come once more with the embeddings in them
        return kept * forms * self.file_bytes + 2 * state

    # What a person and a machine are shown

    def facts_shown(self) -> dict[str, str]:
        """The plan in lines of a name and a text."""
        settings = self.settings
        batch = f"{settings.batch_size}"
        if settings.micro_batch_size:
            batch += f" in parts of {min(settings.micro_batch_size, settings.batch_size)}"
        elif settings.auto_batch:
            batch += " in parts as large as fit"
        if settings.accumulation > 1:
            batch += f" x {settings.accumulation} accumulated"
        epochs = self.total_images / max(self.repeats_sum, 1e-9)
        lines = {
            "data": f"{self.data.root} ({self.data.layout}): {len(self.data.examples):,} pictures, seen "
            f"{self.repeats_sum:,.2f} times in one pass",
            "course": f"{self.total_steps:,} steps of batch {batch}: {self.total_images:,} pictures, "
            f"{epochs:,.1f} passes",
            "base": self._base(),
            **self._batches(),
            "what learns": self._learns(),
            "objective": objective_words(settings, self.facts.models.diffusion),
            **self._embeddings_shown(),
            "learning rate": self._rates(),
            **craft_shown(settings),
            "arithmetic": f"{self.precision} on {self._device_name()}",
            "memory": self._memory(),
            "disk": f"{format_bytes(self.disk_bytes())} in {self.folder.path}",
        }
        if self.held_out is not None:
            lines["validation"] = self._validation(self.held_out)
        if text := in_words(self.data.examples, settings.prior_loss_weight):
            lines["regularisation"] = text
        hours = self.hours()
        if hours is not None:
            lines["time"] = (
                f"{hours[0]:.1f} to {hours[1]:.1f} hours, at a quarter and a tenth of the GPU's bound"
            )
        return lines

    def lines(self) -> Iterator[str | Table]:
        """The plan, for a person."""
        for name, text in self.facts_shown().items():
            yield f"{name}: {text}"
        yield Table("buckets", self.bucket_rows()[:ROWS_SHOWN])
        yield Table("folders", self.folder_rows()[:ROWS_SHOWN])
        if self.embeddings is not None:
            yield Table("embeddings", self.embeddings.rows())
        if self.block_rows:
            yield Table("blocks", self.block_rows)
        if rows := timestep_rows(self.settings, self.facts.models.diffusion):
            yield Table("timesteps", rows)
        if self.changed:
            rows = [
                {"setting": name, "preset": _shown(before), "here": _shown(after), "from": self.sources[name]}
                for name, (before, after) in self.changed.items()
            ]
            yield Table("other than the preset", rows)
        for problem in self.problems:
            yield f"note: {problem}"

    def bucket_rows(self) -> list[dict[str, Any]]:
        """Pictures and visits a pass by bucket, the fullest first."""
        pictures = Counter(example.bucket for example in self.data.examples)
        seen: dict[Bucket, Fraction] = {}
        for example in self.data.examples:
            seen[example.bucket] = seen.get(example.bucket, Fraction(0)) + example.repeats
        return [
            {
                "bucket": str(bucket),
                "pictures": pictures[bucket],
                "seen a pass": round(float(count), 2),
                "batches a pass": round(float(count) / self.settings.batch_size, 2),
            }
            for bucket, count in sorted(seen.items(), key=lambda pair: (-pair[1], pair[0]))
        ]

    def folder_rows(self) -> list[dict[str, Any]]:
        """Pictures, repeats and visits a pass by folder, the most seen first."""
        ones: dict[str, list[Example]] = {}
        for example in self.data.examples:
            ones.setdefault(example.concept or ".", []).append(example)
        rows = [
            {
                "folder": concept,
                "pictures": len(examples),
                "seen a pass": round(float(sum(one.repeats for one in examples)), 2),
            }
            for concept, examples in ones.items()
        ]
        return sorted(rows, key=lambda row: (-row["seen a pass"], row["folder"]))

    def as_json(self) -> dict[str, Any]:
        """The plan, for a machine; also what settings.json keeps."""
        return {
            "settings": as_json(self.settings),
            "sources": dict(self.sources),
            "plan": self.facts_shown(),
            "total_steps": self.total_steps,
            "total_images": self.total_images,
            "num_trainable": self.num_trainable,
            "file_bytes": self.file_bytes,
            "memory_bytes": self.memory_bytes,
            "step_flop": self.forecast.step_flop,
            "disk_bytes": self.disk_bytes(),
            "buckets": self.bucket_rows(),
            "folders": self.folder_rows(),
            "blocks": self.block_rows,
            "embeddings": self.embeddings.rows() if self.embeddings is not None else [],
            "timesteps": timestep_rows(self.settings, self.facts.models.diffusion),
            "other_than_the_preset": {
                name: {"preset": before, "here": after} for name, (before, after) in self.changed.items()
            },
            "problems": list(self.problems),
            "validation": {}
            if self.held_out is None
            else {
                "held_out": len(self.held_out.examples),
                "measured": len(self.held_out.measured),
                "concepts": self.held_out.concepts,
            },
            "failures": [{"path": one.path, "detail": one.detail} for one in self.failures],
        }

    def _base(self) -> str:
        facts, diffusion = self.facts, self.facts.models.diffusion
        return (
            f"{self.settings.base} ({facts.kind}): Stable Diffusion 1.x, {diffusion.prediction_type}, "
            f"{sum(facts.num_parameters.values()) / 1e6:,.1f} million numbers, "
            f"{format_bytes(facts.size_bytes)}"
        )

    def _learns(self) -> str:
        settings = self.settings
        layers = ", ".join(
            f"{count} layers of the {part}" for part, count in self.num_layers.items() if count
        )
        size = format_bytes(self.file_bytes)
        text = f"{settings.kind}: {layers}; {self.num_trainable:,} numbers; a file of {size}"
        if settings.kind == "full":
            return text
        scale = f"alpha/rank {settings.linear_alpha / settings.linear_dim:.4g}"
        if settings.conv_dim:
            scale += f" linear, {settings.conv_alpha / settings.conv_dim:.4g} convolutions"
        return f"{text}; {scale}"

    def _rates(self) -> str:
        settings = self.settings
        unet, text = learning_rates(settings)
        rates = f"{unet:g}" if unet == text else f"UNet {unet:g}, text encoder {text:g}"
        until = self.text_encoder_until
        stop = "" if until is None else f"; the text encoder until step {until:,}"
        return f"{rates}, {settings.lr_schedule}, {settings.optimizer}{stop}"

    def _embeddings_shown(self) -> dict[str, str]:
        """What embeddings learn, where they do."""
        if self.embeddings is None:
            return {}
        settings, until = self.settings, self.embeddings_until
        parts = [self.embeddings.shown(), f"learning rate {embedding_rate(settings):g}"]
        if settings.embedding_weight_decay:
            parts.append(f"weight decay {settings.embedding_weight_decay:g}")
        if settings.embedding_norm_pull:
            parts.append(f"norms taken back by {settings.embedding_norm_pull:g}")
        if until is not None:
            parts.append(f"until step {until:,}")
        return {"embeddings": "; ".join(parts)}

    def _batches(self) -> dict[str, str]:
        """How concepts share the batches, where they do."""
        if self.settings.batch_concepts == "random":
            return {}
        sums: dict[str, Fraction] = {}
        for one in self.data.examples:
            sums[class_of(one)] = sums.get(class_of(one), Fraction(0)) + one.repeats
        part = self.settings.batch_size / max(self.repeats_sum, 1e-9)
        shown = [f"{name} {float(count) * part:.2f}" for name, count in sorted(sums.items())]
        more = f", and {len(shown) - 12} more" if len(shown) > 12 else ""
        return {"batches": f"of {self.settings.batch_size}, on average: {', '.join(shown[:12])}{more}"}

    def _validation(self, held: HeldOut) -> str:
        settings, forecast = self.settings, self.forecast
        passes = (len(held.measured) + len(held.compared)) * settings.validation_timesteps
        longer = passes / settings.batch_size * forecast.forward_flop
        longer /= settings.validation_every * settings.accumulation * forecast.step_flop
        shown = [f"{name} {count:,}" for name, count in held.concepts.items()]
        average = ", of the moving average" if settings.ema and settings.ema_validation else ""
        concepts = ", ".join(shown[:8]) + (f", and {len(shown) - 8} more" if len(shown) > 8 else "")
        return (
            f"{len(held.examples):,} of {len(held.examples) + len(self.data.examples):,} pictures held out, "
            f"{len(held.measured):,} of them measured ({concepts}), beside {len(held.compared):,} that are "
            f"trained on, at {settings.validation_timesteps} timesteps every {settings.validation_every:,} "
            f"steps: about {longer:.1%} more to compute{average}"
        )

    def _device_name(self) -> str:
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)} ({self.device})"
        return str(self.device)

    def _memory(self) -> str:
        forecast = self.forecast
        there = available_bytes(self.device)
        return (
            f"about {format_bytes(self.memory_bytes)} of {format_bytes(there)}: model "
            f"{format_bytes(forecast.weight_bytes)}, what learns {format_bytes(forecast.trainable_bytes)}, "
            f"a step {format_bytes(forecast.step_bytes)}"
        )


def available_bytes(device: torch.device) -> int:
    """Memory of a device: of the whole GPU, or of the machine as far as this process may use it."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    total = int(psutil.virtual_memory().total)
    limit = memory_limit_bytes()
    return min(total, limit) if limit else total


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
