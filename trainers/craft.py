"""What a plan says of averages, optimizers and regularisation: in its lines, as notes, and as refusals."""

from collections.abc import Iterator, Mapping

from trainers.train_settings import Settings


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
    return lines


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
        for name in ("ema_every", "ema_device", "ema_save", "ema_samples"):
            if sources.get(name, "default") != "default":
                yield f"{name} has no effect without an average: give --ema 0.999"


def refuse_senseless(settings: Settings) -> None:
    """See that settings go together, before anything large is loaded.

    Raises:
        SettingsError: they do not; the sentence says what to change.
    """
