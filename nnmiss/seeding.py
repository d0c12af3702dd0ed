"""Randomness that can be replayed: every generator is derived from named parts such as (seed, stage, epoch, iteration)."""
from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any number of names and integers; equal parts give equal seeds on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def torch_generator(*parts: int | str) -> torch.Generator:
    """A CPU torch generator for these parts."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def seed_libraries(*parts: int | str) -> None:
    """Seeds the global generators of random, NumPy and torch, which nnU-Net's loader and augmentation draw from."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
