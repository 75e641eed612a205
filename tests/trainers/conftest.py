from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.trainers.tiny_models import write_tiny_models

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other


@dataclass(frozen=True)
class TinyFiles:
    """One tiny model, written both ways; read only."""

    diffusers: Path
    single_file: Path


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> TinyFiles:
    return TinyFiles(*write_tiny_models(tmp_path_factory.mktemp("tiny")))
