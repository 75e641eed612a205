"""Random numbers as a pure function of what they are for: never of history, of the number of workers, or of
how often a run was resumed.

A key is hashed; the hash seeds a generator whose raw stream is promised to stay the same from version to
version (numpy's PCG64, `random.Random.random`), so that a run resumed under other versions goes on as it
began.
"""

import hashlib
import random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def stream(*key: int | str) -> random.Random:
    """A generator of its own for a key, such as `("caption", seed, content, visit)`."""
    return random.Random(_number(key))  # noqa: S311 - draws of training, no secret


def permutation(length: int, *key: int | str) -> NDArray[np.int64]:
    """The numbers from 0 to `length` - 1 in a random order that the key decides: [length]."""
    raw = np.random.PCG64(_number(key)).random_raw(length)
    return np.argsort(raw, kind="stable")


def ordered(count: int, draws: random.Random) -> list[int]:
    """The numbers from 0 to `count` - 1 in a random order."""
    keys = [draws.random() for _ in range(count)]
    return sorted(range(count), key=keys.__getitem__)


def _number(key: tuple[int | str, ...]) -> int:
    text = "\0".join(f"{type(part).__name__}:{part}" for part in key)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest, "little")


def normal(shape: tuple[int, ...], *key: int | str) -> Tensor:
    """Standard normal numbers, fp32, on the CPU: a key means the same on every device."""
    return torch.randn(shape, generator=_generator(key))


def generator_on(device: torch.device, *key: int | str) -> torch.Generator:
    """A generator of a device, that begins from a key; what it draws depends on the kind of device."""
    return torch.Generator(device).manual_seed(_number(key) >> 65)


def reseed(*key: int | str) -> None:
    """Let draws that a device makes by itself, such as those of dropout, begin anew from a key."""
    torch.manual_seed(_number(key) >> 65)


def uniform(shape: tuple[int, ...], *key: int | str) -> Tensor:
    """Uniform numbers from 0 to below 1, fp32, on the CPU."""
    return torch.rand(shape, generator=_generator(key))


def timesteps(count: int, num_train_timesteps: int, *key: int | str) -> Tensor:
    """Uniform timesteps from 0 to num_train_timesteps - 1: [count], int64, on the CPU."""
    return torch.randint(0, num_train_timesteps, (count,), generator=_generator(key))


def _generator(key: tuple[int | str, ...]) -> torch.Generator:
    return torch.Generator().manual_seed(_number(key) >> 65)
