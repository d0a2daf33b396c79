"""Mode collapse on a ring of eight Gaussians, and what a GAN is kept from it by (Metz et al. 2017)."""

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
    beside: one of `SETTINGS`, under which the same networks are trained too. None: nothing is.
    decay: constant learning rates fall to 0 along half a cosine.
    moments: how often one looks at it, early more often than late.  samples: how many points one looks at.
    compare: all ten of `SETTINGS`, in place of what stabilises `gan` and of `beside`.
    seeds: with how many seeds each, from `gan.seed` on.  workers: processes; None takes as many as there are cores.
    """

    name: ClassVar[str] = "ring"

    gan: TrainConfig = SETTINGS["R1"](plain_gan())
