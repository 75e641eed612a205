"""What a run was computed with: for its page and its settings.json, so that it can be told from another."""

import platform
from importlib import metadata

import torch

import pipeline
from trainers.precision import Precision

PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "numpy")


def environment(device: torch.device, precision: Precision) -> dict[str, str]:
    """{what: version or name}, without anything that names a machine or its owner."""
    found = {
        "celforge": pipeline.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "device": str(device),
        "precision": precision,
    }
    if device.type == "cuda":
        found["device"] = f"{torch.cuda.get_device_name(device)} ({device})"
        found["cuda"] = str(torch.version.cuda)
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
