"""One training step of a UNet: frozen, ours, the peers', and plain fine-tuning; ratios within one run.

    python benchmarks/train_step.py [--rounds 3] [--steps 3] [--batch 2] [--ways frozen ours-locon ...]
    python benchmarks/train_step.py --device cuda --batch 8 [--graphs] [--compile] [--rounds 5] [--steps 20]
    python benchmarks/train_step.py --flop [--batch 8]          # operations of SD1.5, counted on meta tensors

A step is a forward pass, a mean squared error, a backward pass and, where anything learns, AdamW. Each way
runs in a process of its own; rounds go through all of them in turn, so that other work on the machine meets
them alike. Printed: medians over rounds of a round's median step, ratios to the frozen UNet, whose backward
pass goes to its input, and peak memory: of the GPU's allocator, or resident memory of the process.

On the CPU the UNet is a reduced one (--full for SD1.5), fp32; on a GPU it is SD1.5's at 512 px, bf16, fused
AdamW, and norms stay in 16 bits but for the peers, as in `celforge train`; --graphs replays all but the
optimizer as a CUDA graph, so that Python takes no part in the times.

Ranks: LoHa 8 and 4, LoCon and LoRA 16 and 8, alpha 1. Text encoder and VAE take
no part. lycoris-lora trains its modules under autocast from fp32 factors; its preset names two layers twice
and refuses itself, which is repaired here. "diffusers, all weights" is its training script's loop: fp32
weights under autocast.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from trainers.adapters import base as adapters_base  # noqa: E402 - found by the path above
from trainers.adapters.network import AdapterNetwork, AdapterSpec, attach  # noqa: E402 - found by the path above
from trainers.compiling import compiled  # noqa: E402 - found by the path above
from trainers.narrow_norms import keep_norms_narrow  # noqa: E402 - found by the path above
from trainers.physical_limits import attainable_flop_per_s  # noqa: E402 - found by the path above

GOALS = {"ours-locon": 1.15, "ours-loha": 1.25}  # of the frozen UNet, on a GPU
LOHA = AdapterSpec("loha", 8, 1, 4, 1, trains_text_encoder=False)
LOCON = AdapterSpec("locon", 16, 1, 8, 1, trains_text_encoder=False)
LORA = AdapterSpec("lora", 16, 1, 0, 0, targets="attention", trains_text_encoder=False)
REDUCED = {"block_out_channels": (64, 128, 256, 256), "cross_attention_dim": 256, "attention_head_dim": 4}
SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8}
NO_META = ("lycoris", "peft")  # they ask tensors without numbers for values
Way = Callable[[nn.Module], "tuple[list[Tensor], Callable[[], None]]"]  # what learns; forget gradients


def build_unet(full: bool) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(sample_size=64, **(SD15 if full else REDUCED))


# Ways of training


def frozen(unet: nn.Module) -> tuple[list[Tensor], Callable[[], None]]:
    unet.requires_grad_(False)
    return [], lambda: None


def ours(spec: AdapterSpec) -> Way:
    def begin(unet: nn.Module) -> tuple[list[Tensor], Callable[[], None]]:
        network: AdapterNetwork = attach(spec, unet, None)
        return [one.flat for one in network.factors.values()], network.zero_grad

    return begin


def lycoris(algorithm: str, dims: tuple[int, int]) -> Way:
    def begin(unet: nn.Module) -> tuple[list[Tensor], Callable[[], None]]:
        from lycoris import config, kohya

        unet.requires_grad_(False)
        # the layers of "full", as ours: the preset names two twice, and adds four by name
        config.PRESET["full"]["unet_target_module"] = [
            one for one in config.PRESET["full"]["unet_target_module"] if one != "TimestepEmbedding"
        ]
        config.PRESET["full"]["unet_target_name"] = []
        network = kohya.create_network(
            1.0, dims[0], 1, None, [], unet, conv_dim=dims[1], conv_alpha=1, algo=algorithm
        )
        network.apply_to(None, unet, False, True)
        network.to(next(unet.parameters()).device)
        return _learning(network)

    return begin


def peft_loha(unet: nn.Module) -> tuple[list[Tensor], Callable[[], None]]:
    from peft import LoHaConfig, inject_adapter_in_model

    from trainers.layers import find_unet_layers

    unet.requires_grad_(False)
    layers = find_unet_layers(unet)
    convolutions = {layer.path: 4 for layer in layers if layer.kernel_area > 1}
    config = LoHaConfig(
        r=8,
        alpha=1,
        rank_pattern=convolutions,
        target_modules=[layer.path for layer in layers],
        use_effective_conv2d=False,
    )
    inject_adapter_in_model(config, unet)
    return _learning(unet)


def all_weights(unet: nn.Module) -> tuple[list[Tensor], Callable[[], None]]:
    unet.requires_grad_(True)
    return _learning(unet)


def _learning(module: nn.Module) -> tuple[list[Tensor], Callable[[], None]]:
    learning = [one for one in module.parameters() if one.requires_grad]

    def forget() -> None:
        for one in learning:
            one.grad = None

    return [*learning], forget


WAYS: dict[str, Way] = {
    "frozen": frozen,
    "ours-locon": ours(LOCON),
    "ours-loha": ours(LOHA),
    "ours-lora": ours(LORA),
    "lycoris-locon": lycoris("locon", (16, 8)),
    "lycoris-loha": lycoris("loha", (8, 4)),
    "peft-loha": peft_loha,
    "diffusers, all weights": all_weights,
}


# One way, in a process of its own


def measure(way: str, given: argparse.Namespace) -> dict[str, float]:
    device = torch.device(given.device)
    torch.manual_seed(0)
    is_gpu = device.type == "cuda"
    is_full = given.full or is_gpu
    with device:
        unet = build_unet(is_full)
    trains_weights = way.startswith("diffusers")
    if is_gpu and not trains_weights:
        unet.to(torch.bfloat16)
    learning, forget = WAYS[way](unet)
    if is_gpu and way.startswith(("frozen", "ours")):
        keep_norms_narrow(unet)
    optimizer = torch.optim.AdamW(learning, lr=1e-4, fused=is_gpu or None) if learning else None
    model = compiled(unet) if given.compile else unet
    gradients = make_gradients(model, given, device, learning, is_full)
    for _ in range(max(1, given.warmup)):
        forget()
        gradients()
    if given.graphs:
        forget()
        gradients = replayed(gradients)
    keeps = given.graphs and not way.startswith("ours")  # a replay writes their gradients anew

    def step() -> None:
        if not keeps:
            forget()
        gradients()
        if optimizer is not None:
            optimizer.step()

    step()
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(given.steps):
        _wait(device)
        started = time.perf_counter()
        step()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    if is_gpu:
        peak = float(torch.cuda.max_memory_allocated())
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    return {
        "seconds": statistics.median(seconds),
        "peak_bytes": peak,
        "learning": float(sum(one.numel() for one in learning)),
    }


def replayed(gradients: Callable[[], None]) -> Callable[[], None]:
    """The same as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gradients()
    return graph.replay


def make_gradients(
    model: Any, given: argparse.Namespace, device: torch.device, learning: list[Tensor], is_full: bool
) -> Callable[[], None]:
    side = given.side or (64 if is_full else 32)
    latents, noise = (torch.randn(given.batch, 4, side, side, device=device) for _ in range(2))
    states = torch.randn(
        given.batch, 77, (SD15 if is_full else REDUCED)["cross_attention_dim"], device=device
    )
    timesteps = torch.randint(0, 1000, (given.batch,), device=device)
    latents.requires_grad_(not learning)  # a frozen UNet's gradient goes to its input
    context: AbstractContextManager[Any] = nullcontext()
    if device.type == "cuda":
        context = torch.autocast("cuda", torch.bfloat16)

    def gradients() -> None:
        with context:
            found = model(latents, timesteps, states, return_dict=False)[0]
        (found.float() - noise).square().mean().backward()

    return gradients


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


# All of them


def run_all(given: argparse.Namespace) -> None:
    found: dict[str, list[dict[str, float]]] = {way: [] for way in given.ways}
    for number in range(given.rounds):
        for way in given.ways:
            command = [sys.executable, __file__, *sys.argv[1:], "--one", way]
            answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if answer.returncode:
                print(f"{way}: failed: {answer.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            found[way].append(json.loads(answer.stdout.splitlines()[-1]))
            print(f"round {number + 1}, {way}: {found[way][-1]['seconds']:.3f} s", file=sys.stderr)
    print(heading(given))
    rows = {way: _medians(measured) for way, measured in found.items() if measured}
    limit = attainable_flop_per_s(torch.cuda.get_device_name()) if given.device == "cuda" else None
    print("| way | learning | step s | img/s | of frozen | goal | peak MiB | of the bound |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for way, row in rows.items():
        ratio = f"{row['seconds'] / rows['frozen']['seconds']:.2f}" if "frozen" in rows else ""
        goal = f"{GOALS[way]}" if way in GOALS and given.device == "cuda" else ""
        share = ""
        if limit is not None and not way.startswith(NO_META):
            share = f"{100 * step_flop(way, given) / row['seconds'] / limit:.0f} %"
        print(
            f"| {way} | {row['learning'] / 1e6:.2f} M | {row['seconds']:.3f} "
            f"| {given.batch / row['seconds']:.2f} "
            f"| {ratio} | {goal} | {row['peak_bytes'] / 2**20:.0f} | {share} |"
        )
    if {"ours-loha", "lycoris-loha"} <= rows.keys():
        times = rows["lycoris-loha"]["seconds"] / rows["ours-loha"]["seconds"]
        print(f"\nours-loha is {times:.2f}x as fast as lycoris-loha; the goal on a GPU is 2")


def heading(given: argparse.Namespace) -> str:
    """Machine and sizes."""
    is_full = given.full or given.device == "cuda"
    name = torch.cuda.get_device_name() if given.device == "cuda" else f"CPU, {os.cpu_count()} cores"
    side = given.side or (64 if is_full else 32)
    size = "SD1.5" if is_full else f"reduced UNet {REDUCED['block_out_channels']}"
    compiled = (", compiled" if given.compile else "") + (", replayed" if given.graphs else "")
    return (
        f"{name}, torch {torch.__version__}, {size}, batch {given.batch}, latents {side} x {side}{compiled}, "
        f"{given.rounds} rounds of {given.steps} steps\n"
    )


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


# Operations


def step_flop(way: str, given: argparse.Namespace) -> int:
    """Of a step of SD1.5 on meta tensors, or of the reduced UNet; the optimizer left out."""
    is_full = given.full or given.flop or given.device == "cuda"
    side = given.side or (64 if is_full else 32)
    # meta tensors have no autocast: numbers of 16 bits choose the paths as a GPU's do
    is_16_bit = (given.device == "cuda" or given.flop) and not way.startswith("diffusers")
    with torch.device("meta"):
        unet = build_unet(is_full).to(torch.bfloat16 if is_16_bit else torch.float32)
        dtype = next(unet.parameters()).dtype
        latents = torch.randn(given.batch, 4, side, side, dtype=dtype)
        states = torch.randn(given.batch, 77, unet.config.cross_attention_dim, dtype=dtype)
        timesteps = torch.zeros(given.batch)
        learning, _ = WAYS[way](unet)
        latents.requires_grad_(not learning)
        with FlopCounterMode(display=False) as counter:
            unet(latents, timesteps, states, return_dict=False)[0].sum().backward()
    return int(counter.get_total_flops())


def print_flop(given: argparse.Namespace) -> None:
    """Ours, also by one path alone, and plain fine-tuning."""
    base = step_flop("frozen", given)
    rows = {way: step_flop(way, given) for way in given.ways if not way.startswith(NO_META)}
    choose = adapters_base.choose_path
    for path in ("low_rank", "dense"):
        adapters_base.choose_path = lambda *_, path=path, **__: path  # type: ignore[assignment]
        for way in ("ours-locon", "ours-loha"):
            if way in rows:
                rows[f"{way}, {path} everywhere"] = step_flop(way, given)
    adapters_base.choose_path = choose
    print(f"SD1.5, batch {given.batch}, 512 px, forward and backward, without the optimizer\n")
    print("| way | TFLOP | of frozen |\n| --- | --- | --- |")
    for way, flop in rows.items():
        print(f"| {way} | {flop / 1e12:.2f} | {flop / base:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--side", type=int, help="of the latents")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    parser.add_argument("--full", action="store_true", help="SD1.5 on the CPU too")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--graphs", action="store_true", help="replay a recorded step, on a GPU")
    parser.add_argument("--flop", action="store_true")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.batch = given.batch or (8 if given.flop or given.device == "cuda" else 2)
    warnings.filterwarnings("ignore")
    if given.one:
        print(json.dumps(measure(given.one, given)))
    elif given.flop:
        print_flop(given)
    else:
        run_all(given)


if __name__ == "__main__":
    main()
