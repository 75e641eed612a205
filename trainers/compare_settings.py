"""Settings of `celforge compare`. Nothing here imports torch: `--help` and `celforge init` read it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.settings import option


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The section [compare] of celforge.toml."""

    models: tuple[Path, ...] = option(
        (),
        "Model files, or folders of runs; the command's own argument says it as well. Every run under "
        "models/ when left out.",
        metavar="PATH",
    )
    base: tuple[str, ...] = option(
        (),
        "Base model for the adapters; repeat it to see the same adapter on several. That of the run when "
        "left out.",
        metavar="MODEL",
    )
    vae: str = option(
        "", "Another VAE than the model's own: a file, a folder, or owner/name.", metavar="MODEL"
    )
    steps: tuple[int, ...] = option(
        (), "Training steps to show, such as 2000,4000; all when left out.", metavar="N,N", min=0
    )
    weights: tuple[float, ...] = option(
        (1.0,), "Weights of an adapter, a column for each, such as 0,0.5,1.", metavar="W,W", min=-10, max=10
    )
    prompts: Path | None = option(
        None,
        "Prompts, a row for each: kohya's .txt, .toml or .json, or EveryDream's .json; those of the runs, or "
        "their trigger words, when left out.",
        metavar="FILE",
    )
    seed: tuple[int, ...] = option(
        (),
        "Seeds, a row for each and every prompt, such as 1,2,3; the prompt's own, or 0, when left out.",
        metavar="N,N",
        min=0,
        max=2**63 - 1,
    )
    width_px: int = option(
        0, "Width of every picture; as the prompt or the model says when 0.", min=0, max=4096
    )
    height_px: int = option(
        0, "Height of every picture; as the prompt or the model says when 0.", min=0, max=4096
    )
    sampler: str = option(
        "", "Sampler of every picture, such as euler_a; as the prompt says when left out.", metavar="NAME"
    )
    sample_steps: int = option(
        0, "Sampling steps of every picture; as the prompt says when 0.", min=0, max=1000
    )
    guidance: float | None = option(
        None, "Guidance scale of every picture; as the prompt says when left out.", min=0, max=100
    )
    guidance_rescale: float | None = option(
        None,
        "How far guidance is brought back to the contrast of the prompt alone, for models of zero-terminal "
        "SNR; 0.7 is usual. As the prompt says when left out.",
        min=0,
        max=1,
    )
    prediction: Literal["model", "epsilon", "v"] = option(
        "model", "What bases and checkpoints predict: as they say, the noise, or the velocity v."
    )
    zero_terminal_snr: Literal["model", "on", "off"] = option(
        "model", "Whether their noise schedule ends at noise alone: as they say, or you."
    )
    clip_skip: int = option(
        0, "Layer of the text encoder from the end; as the run was trained when 0, else 1.", min=0, max=12
    )
    max_tokens: int = option(
        0, "Longest prompt in tokens: 75, 150 or 225; as the run was trained when 0, else 75.", min=0, max=225
    )
    out: Path | None = option(
        None,
        "Folder of the pictures; compare/ in the project when left out.",
        metavar="FOLDER",
        affects_result=False,
    )
    batch_size: int = option(1, "Pictures drawn at once.", min=1, max=256, affects_result=False)
    device: str = option("auto", "Device: auto, cpu, cuda, cuda:1, mps.", affects_result=False)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto",
        "Numbers of the arithmetic; auto takes bf16 where the GPU has it, else fp16, and fp32 on a CPU.",
    )
