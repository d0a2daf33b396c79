"""Randomness as a function of (seed, purpose, rank or nimg): no state to save, and no two uses share random numbers."""

from __future__ import annotations

from enum import IntEnum, auto

import numpy as np
import torch

__all__ = ["Purpose", "seed_torch", "stream"]


class Purpose(IntEnum):
    """The use of a random stream."""

    WEIGHTS = auto()
    """Initial weights, equal on every process."""
    DRAWS = auto()
    """Numbers drawn inside penalties, augmentation and networks, different on every process."""
    Z_FOR_D = auto()
    Z_FOR_G = auto()
    SAMPLES = auto()
    STANDING = auto()
    """Latents for the standing statistics of a trained generator."""
    POINTS = auto()
    """Real points of a toy distribution."""
    STANDING_CLASSES = auto()
    """Classes that go with the latents of `STANDING`."""
    NOISE_ON_REAL = auto()
    """Dequantisation noise of the images that D is trained on, different on every process."""
    NOISE_ON_HELD_OUT = auto()
    NOISE_ON_LABELLED = auto()
    HISTORY = auto()
    """Choice of earlier generated images to show D again."""
    Z_FOR_TERMS_OF_D = auto()
    """Latents of a step that D's terms take on their own."""
    Z_FOR_TERMS_OF_G = auto()
    METRIC_MOTIONS = auto()
    """Translations, rotations and places on a path that metrics ask a generator for."""
    METRIC_NOISE = auto()
    """Stored noise images of a generator that a metric asks."""
    WATCH = auto()
    """Latents and images on which the doctor looks at a run."""


def seed_torch(seed: int, purpose: Purpose, *key: int) -> None:
    """Seed torch's global generators."""
    torch.manual_seed(_number(seed, purpose, *key))


def stream(seed: int, purpose: Purpose, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A new generator. Equal arguments draw equal numbers on one kind of device."""
    return torch.Generator(device).manual_seed(_number(seed, purpose, *key))


def _number(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
