"""Randomness as a function of (seed, purpose, rank or nimg): nothing to save, and no two uses share their numbers."""

from __future__ import annotations

from enum import IntEnum, auto

import numpy as np
import torch

__all__ = ["Purpose", "seed_torch", "stream"]


class Purpose(IntEnum):
    """What numbers are drawn for."""

    WEIGHTS = auto()
    """Initial weights, equal on every process."""
    DRAWS = auto()
    """What penalties, augmentation and networks draw themselves, different on every process."""
    Z_FOR_D = auto()
    Z_FOR_G = auto()
    SAMPLES = auto()
    STANDING = auto()
    """Latents that the statistics of a trained generator are taken from."""
    POINTS = auto()
    """Real points of a toy distribution."""
    STANDING_CLASSES = auto()
    """Classes that go with the latents of `STANDING`."""
    NOISE_ON_REAL = auto()
    """Dequantisation noise of the images that D is trained on, different on every process."""
    NOISE_ON_HELD_OUT = auto()
    NOISE_ON_LABELLED = auto()
    HISTORY = auto()
    """Which generated images D is shown again."""


def seed_torch(seed: int, purpose: Purpose, *key: int) -> None:
    """Seed torch's global generators."""
    torch.manual_seed(_number(seed, purpose, *key))


def stream(seed: int, purpose: Purpose, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own: equal arguments draw equal numbers on one kind of device."""
    return torch.Generator(device).manual_seed(_number(seed, purpose, *key))


def _number(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
