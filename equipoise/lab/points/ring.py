"""Mode collapse on a ring of eight Gaussians, and settings that prevent it (Metz et al. 2017)."""

from __future__ import annotations

from typing import ClassVar

from equipoise.config import TrainConfig
from equipoise.core.types import component

from ..base import Experiment
from .gan import plain_gan
from .modes import Setup
from .settings import SETTINGS

__all__ = ["RingGAN"]


@component
class RingGAN(Setup, Experiment):
    """A GAN on a ring of eight Gaussians: the modes that a plain one loses, and R1 keeps (Metz et al. 2017).

    gan: a GAN of points, trained until D has seen `gan.total_kimg`.
    beside: one of `SETTINGS`, under which the same networks are trained too. None trains `gan` alone.
    decay: constant learning rates fall to 0 along half a cosine.
    moments: number of looks at the GAN, more of them early than late.  samples: points per look.
    compare: train all ten `SETTINGS`, instead of `gan`'s own stabilisers and of `beside`.
    seeds: number of seeds of each setting, from `gan.seed` on.  workers: processes; None takes one per core.
    """

    name: ClassVar[str] = "ring"

    gan: TrainConfig = SETTINGS["R1"](plain_gan())
