"""The Swiss roll: a spiral without modes, of which a plain GAN finds pieces (Gulrajani et al. 2017)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from equipoise.config import TrainConfig
from equipoise.core.types import component
from equipoise.data import Points, SwissRoll

from ..base import Experiment
from .gan import plain_gan
from .modes import Setup
from .settings import SETTINGS

__all__ = ["SwissRollGAN"]


@component
class SwissRollGAN(Setup, Experiment):
    """A GAN on a Swiss roll: a plain one beside R1 (Gulrajani et al. 2017). Settings as those of `ring`.

    gan: a GAN of points, trained until D has seen `gan.total_kimg`.
    beside: one of `SETTINGS`, under which the same networks are trained too. None: nothing is.
    decay: constant learning rates fall to 0 along half a cosine.
    moments: how often one looks at it, early more often than late.  samples: how many points one looks at.
    compare: all ten of `SETTINGS`, in place of what stabilises `gan` and of `beside`.
    seeds: with how many seeds each, from `gan.seed` on.  workers: processes; None takes as many as there are cores.
    """

    name: ClassVar[str] = "swiss_roll"

    gan: TrainConfig = SETTINGS["R1"](replace(plain_gan(), data=Points(of=SwissRoll()), total_kimg=400))
