"""What a model file says of itself: `ss_*` as kohya's scripts write it and A1111 shows it, `modelspec.*`, and
our own recipe.

Nothing of it depends on when or where a run was: the same run gives the same bytes.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pipeline
from pipeline.settings import Json, as_json, canonical_json
from trainers.caption_rules import plain_caption
from trainers.dataset import Example
from trainers.models import Models
from trainers.objectives import objective_metadata
from trainers.train_settings import Settings

MODELSPEC = "1.0.0"
MOST_TAG_COUNTS = (
    2_000  # of one folder, the commonest: metadata are read by UIs whenever they list their files
)


def file_metadata(
    settings: Settings,
    models: Models,
    examples: Sequence[Example],
    *,
    step: int,
    total_steps: int,
    batches_per_epoch: float,
    precision: str,
) -> dict[str, str]:
    """Metadata of a file saved after a step; what an adapter adds of itself comes on top."""
    epoch = int(step * settings.accumulation / batches_per_epoch)
    unet_rate, text_rate = learning_rates(settings)
    values: dict[str, Any] = {
        "ss_output_name": settings.run_name,
        "ss_sd_model_name": models.source.name,
        "ss_sd_model_hash": models.source.sha256[:8],
        "ss_new_sd_model_hash": models.source.sha256,
        "ss_v2": "False",
        "ss_clip_skip": settings.clip_skip,
        "ss_resolution": f"({settings.resolution_px}, {settings.resolution_px})",
        "ss_max_token_length": settings.max_tokens,
        "ss_seed": settings.seed,
        "ss_steps": step,
        "ss_max_train_steps": total_steps,
        "ss_epoch": epoch,
        "ss_num_epochs": math.ceil(total_steps * settings.accumulation / batches_per_epoch),
        "ss_num_batches_per_epoch": max(1, round(batches_per_epoch)),
        "ss_batch_size_per_device": settings.batch_size,
        "ss_total_batch_size": settings.batch_size * settings.accumulation,
        "ss_gradient_accumulation_steps": settings.accumulation,
        "ss_gradient_checkpointing": settings.gradient_checkpointing,
        "ss_learning_rate": settings.learning_rate,
        "ss_unet_lr": unet_rate if settings.trains_unet else None,
        "ss_text_encoder_lr": text_rate if settings.trains_text_encoder else None,
        "ss_lr_scheduler": settings.lr_schedule,
        "ss_lr_warmup_steps": settings.warmup,
        "ss_optimizer": settings.optimizer
        + (f"({','.join(settings.optimizer_arg)})" if settings.optimizer_arg else ""),
        "ss_network_dropout": settings.dropout or None,
        "ss_scale_weight_norms": settings.scale_weight_norms or None,
        "ss_max_grad_norm": settings.max_grad_norm,
        "ss_mixed_precision": {"fp32": "no"}.get(precision, precision),
        **objective_metadata(settings, models.diffusion),
        "ss_caption_dropout_rate": settings.conditional_dropout,
        "ss_caption_tag_dropout_rate": settings.tag_dropout,
        "ss_shuffle_caption": settings.shuffle,
        "ss_keep_tokens": settings.keep_tokens,
        **_pictures(settings, examples),
        "ss_training_comment": "trained by celforge",
        "celforge.version": pipeline.__version__,
        "celforge.recipe": canonical_json(recipe(settings)),
        **_modelspec(settings, models),
    }
    return {name: _text(value) for name, value in values.items() if value is not None and value != ""}


def learning_rates(settings: Settings) -> tuple[float, float]:
    """Of the UNet and of the text encoder."""
    unet, text = settings.unet_learning_rate, settings.text_encoder_learning_rate
    both = settings.learning_rate
    return both if unet is None else unet, both if text is None else text


def embedding_rate(settings: Settings) -> float:
    """Of the embeddings."""
    own = settings.embedding_learning_rate
    return learning_rates(settings)[1] if own is None else own


def recipe(settings: Settings) -> dict[str, Json]:
    """Every setting that shapes the result, without the paths of a machine."""
    return {
        name: value
        for name, value in as_json(settings, only_results=True).items()
        if name not in ("data", "reg_data", "validation_data", "base", "vae", "preset", "embeddings")
    }


def _pictures(settings: Settings, examples: Sequence[Example]) -> dict[str, Any]:
    trained = [one for one in examples if not one.terms.is_reg]
    reg = [one for one in examples if one.terms.is_reg]
    return {
        "ss_num_train_images": sum(max(1, round(one.repeats)) for one in trained),
        "ss_num_reg_images": sum(max(1, round(one.repeats)) for one in reg),
        "ss_prior_loss_weight": settings.prior_loss_weight,
        "ss_dataset_dirs": _folders(trained),
        "ss_reg_dataset_dirs": _folders(reg),
        "ss_bucket_info": _buckets(examples),
        "ss_tag_frequency": _tag_counts(examples),
    }


def _modelspec(settings: Settings, models: Models) -> dict[str, Any]:
    """The Stability model metadata standard; without a date, which would make every file another."""
    is_full = settings.kind == "full"
    return {
        "modelspec.sai_model_spec": MODELSPEC,
        "modelspec.architecture": "stable-diffusion-v1" if is_full else "stable-diffusion-v1/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": settings.run_name,
        "modelspec.author": settings.author,
        "modelspec.license": settings.license,
        "modelspec.trigger_phrase": ", ".join(settings.trigger_words),
        "modelspec.resolution": f"{settings.resolution_px}x{settings.resolution_px}",
        "modelspec.prediction_type": "epsilon" if models.diffusion.prediction_type == "epsilon" else "v",
        "modelspec.encoder_layer": settings.clip_skip,
    }


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _by_concept(examples: Sequence[Example]) -> Mapping[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for example in examples:
        found.setdefault(example.concept or ".", []).append(example)
    return found


def _folders(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    return {
        concept: {"n_repeats": max(1, round(float(ones[0].repeats))), "img_count": len(ones)}
        for concept, ones in _by_concept(examples).items()
    }


def _buckets(examples: Sequence[Example]) -> dict[str, Any]:
    counts = Counter(example.bucket for example in examples)
    return {
        "buckets": {
            str(number): {"resolution": [bucket.width_px, bucket.height_px], "count": counts[bucket]}
            for number, bucket in enumerate(sorted(counts))
        }
    }


def _tag_counts(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    """{folder: {tag: captions that have it}}, as A1111 lists them."""
    found = {}
    for concept, ones in _by_concept(examples).items():
        counts = Counter(tag for one in ones for tag in _tags(one))
        ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        found[concept] = dict(ordered[:MOST_TAG_COUNTS])
    return found


def _tags(example: Example) -> Mapping[str, None]:
    """The parts of a caption, each once, as kohya's scripts count them."""
    parts = plain_caption(example.caption).split(example.caption.rules.separator)
    return dict.fromkeys(part.strip().lower() for part in parts if part.strip())
