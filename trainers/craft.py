"""What a plan says of averages, optimizers and regularisation: in its lines, as notes, and as refusals."""

from collections.abc import Iterator, Mapping

from pipeline.errors import SettingsError
from trainers.metadata import embedding_rate, learning_rates
from trainers.optimizers import traits_of
from trainers.train_settings import Settings

LEAST_FACTOR = 0.01  # of a learning rate that an optimizer finds by itself
COUPLED = ("Adadelta", "Adagrad", "Adam", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD")


def craft_shown(settings: Settings) -> dict[str, str]:
    """Lines of the plan, name and text, of what is in force."""
    lines: dict[str, str] = {}
    if settings.ema:
        saved = (
            "saved beside the weights" if settings.ema_save == "beside" else "saved instead of the weights"
        )
        drawn = "drawn with" if settings.ema_samples else "not drawn with"
        every = f", every {settings.ema_every} steps" if settings.ema_every > 1 else ""
        lines["average"] = f"moving average, decay {settings.ema:g} a step{every}; {saved}, {drawn}"
    if settings.kind != "full":
        lines |= _regularisation_shown(settings)
    elif settings.steps_singly:
        kept = f"weights in {settings.weight_precision}"
        rounded = ", rounded by chance" if settings.weight_precision == "bf16" else ""
        fused = "; each is stepped as soon as its gradient is there" if settings.fused_backward else ""
        lines["weights"] = kept + rounded + fused
    return lines


def _regularisation_shown(settings: Settings) -> dict[str, str]:
    lines: dict[str, str] = {}
    dropped = {
        "activations": settings.dropout,
        "ranks": settings.rank_dropout,
        "layers": settings.module_dropout,
    }
    told = [f"{share:g} of the {what}" for what, share in dropped.items() if share]
    if told:
        lines["dropout"] = ", ".join(told)
    if settings.scale_weight_norms:
        lines["norms"] = f"changes of layers are kept at {settings.scale_weight_norms:g} or less"
    unet, text = settings.lora_plus_ratios
    if (unet, text) != (1, 1):
        ratios = f"{unet:g}" if unet == text else f"UNet {unet:g}, text encoder {text:g}"
        lines["LoRA+"] = f"the factors on the output's side learn at {ratios} times the rate"
    return lines


def network_args(settings: Settings) -> dict[str, str]:
    """Arguments of kohya's networks for what is in force here, as `ss_network_args` has them."""
    unet, text = settings.lora_plus_ratios
    values = {
        "rank_dropout": settings.rank_dropout or None,
        "module_dropout": settings.module_dropout or None,
        "loraplus_lr_ratio": unet if unet == text and unet != 1 else None,
        "loraplus_unet_lr_ratio": unet if unet != text else None,
        "loraplus_text_encoder_lr_ratio": text if unet != text else None,
    }
    return {name: f"{value:g}" for name, value in values.items() if value is not None}


def craft_notes(settings: Settings, total_steps: int, sources: Mapping[str, str]) -> Iterator[str]:
    """What is odd and does not stop the run, a sentence each, with what mends it.

    Args:
        sources: where each setting came from.
    """
    if settings.ema:
        span = round(1 / (1 - settings.ema))
        if 2 * span > total_steps:
            yield (
                f"an average of decay {settings.ema:g} looks back over about {span:,} steps, and the run has "
                f"{total_steps:,}: lower --ema"
            )
    else:
        yield from _without_average(sources)
    if settings.embeddings is None:
        names = ("vectors", "learning_rate", "weight_decay", "norm_pull", "until")
        for name in (f"embedding_{one}" for one in names):
            if sources.get(name, "default") != "default":
                yield f"{name} has no effect without embeddings: give --embeddings emb_init.json"
    yield from _of_optimizer(settings, sources)


def _without_average(sources: Mapping[str, str]) -> Iterator[str]:
    for name in ("ema_every", "ema_device", "ema_save", "ema_samples"):
        if sources.get(name, "default") != "default":
            yield f"{name} has no effect without an average: give --ema 0.999"


def _of_optimizer(settings: Settings, sources: Mapping[str, str]) -> Iterator[str]:
    name = settings.optimizer
    is_presets_rate = sources.get("learning_rate", "default") not in ("flag", "celforge.toml")
    if name in ("lion", "lion8bit") and is_presets_rate:
        yield (
            f"{name} steps by the sign alone and wants a third to a tenth of AdamW's learning rate, and the "
            f"preset's {settings.learning_rate:g} is for AdamW: lower --learning-rate"
        )
    if name == "schedule-free-adamw" and settings.lr_schedule != "constant":
        yield "schedule-free-adamw takes the place of a schedule: give --lr-schedule constant"
    module, _, class_name = name.rpartition(".")
    if module == "torch.optim" and class_name in COUPLED and settings.weight_decay:
        yield (
            f"{name} adds the weight decay to the gradient, where its step is scaled like the gradient's: "
            "--optimizer adamw keeps them apart"
        )


def refuse_senseless(settings: Settings, precision: str) -> None:
    """See that settings go together, before anything large is loaded.

    Raises:
        SettingsError: they do not; the sentence says what to change.
    """
    _refuse_odd_optimizer(settings)
    if settings.embeddings is not None:
        _refuse_odd_embeddings(settings)
    if settings.kind == "full" and settings.steps_singly:
        _refuse_odd_single_steps(settings, precision)


def _refuse_odd_single_steps(settings: Settings, precision: str) -> None:
    asked = "--fused-backward" if settings.fused_backward else "--weight-precision bf16"
    if traits_of(settings.optimizer).is_alike or settings.optimizer == "schedule-free-adamw":
        raise SettingsError(
            f"{settings.optimizer} looks at all weights at once, and {asked} steps them one by one",
            hint="give --optimizer adamw",
        )
    if settings.fused_backward and settings.max_grad_norm:
        raise SettingsError(
            "--fused-backward steps before the norm of all gradients is known, so it cannot shorten them",
            hint="give --max-grad-norm 0",
        )
    if settings.fused_backward and (settings.micro_batch_size or settings.auto_batch):
        raise SettingsError(
            "--fused-backward steps with the gradients of a whole batch, and a batch in parts adds some up",
            hint="leave --micro-batch-size and --auto-batch out, or --fused-backward",
        )
    if settings.fused_backward and settings.accumulation > 1:
        raise SettingsError(
            "--fused-backward steps with the gradients of one batch, and --accumulation wants to add some up",
            hint="give --accumulation 1, or leave --fused-backward out",
        )
    if settings.weight_precision == "bf16" and precision != "bf16":
        raise SettingsError(
            f"weights in bf16 want arithmetic in bf16, and it would be {precision}",
            hint="give --precision bf16",
        )
    if precision == "fp16":
        raise SettingsError(
            "fp16 looks at all gradients before a step, and --fused-backward never has them all",
            hint="give --precision bf16 or fp32",
        )


def _refuse_odd_embeddings(settings: Settings) -> None:
    name, rate = settings.optimizer, embedding_rate(settings)
    unet, text = learning_rates(settings)
    if traits_of(name).is_alike and rate != (unet if settings.trains_unet else text):
        raise SettingsError(
            f"{name} steps everything alike, found a learning rate of {rate:g} for the embeddings",
            hint="leave --embedding-learning-rate out, or --optimizer adamw",
        )
    if name == "schedule-free-adamw" and settings.embedding_norm_pull:
        raise SettingsError(
            "schedule-free-adamw learns at another point than it saves, so norms cannot be taken back there",
            hint="give --embedding-norm-pull 0, or --optimizer adamw",
        )


def _refuse_odd_optimizer(settings: Settings) -> None:
    name, rate = settings.optimizer, settings.learning_rate
    if traits_of(name).is_alike:
        unet, text = learning_rates(settings)
        if settings.train == "both" and unet != text:
            raise SettingsError(
                f"{name} steps everything alike, found learning rates {unet:g} of the UNet and {text:g} "
                "of the text encoder",
                hint="give one --learning-rate, or --optimizer adamw",
            )
        if max(unet, text) < LEAST_FACTOR:
            raise SettingsError(
                f"{name} finds the learning rate by itself; multiplied by {rate:g} it would learn nothing",
                hint="give --learning-rate 1",
            )
        if settings.block_learning_rates:
            raise SettingsError(
                f"{name} steps everything alike, and blocks want learning rates of their own",
                hint="leave --block-learning-rates out, or --optimizer adamw",
            )
        if settings.kind != "full" and settings.lora_plus_ratios != (1, 1):
            raise SettingsError(
                f"{name} steps everything alike, and LoRA+ wants two learning rates",
                hint="leave --lora-plus-ratio out, or --optimizer adamw",
            )
    if name == "schedule-free-adamw" and settings.kind != "full" and settings.scale_weight_norms:
        raise SettingsError(
            "schedule-free-adamw learns at another point than it saves, so norms cannot be limited there",
            hint="leave --scale-weight-norms out, or --optimizer adamw",
        )
    if name == "schedule-free-adamw" and settings.ema:
        raise SettingsError(
            "schedule-free-adamw keeps an average of the weights already, and that is what is saved",
            hint="leave --ema out",
        )
