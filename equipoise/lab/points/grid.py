"""The 25 Gaussians: more modes than a plain GAN finds, at scales that differ a hundredfold (Srivastava et al. 2017)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from equipoise.config import TrainConfig
from equipoise.core.types import component
from equipoise.data import Grid, Points

from ..base import Experiment
from .gan import plain_gan
from .modes import Setup
from .settings import SETTINGS

__all__ = ["GridGAN"]


@component
class GridGAN(Setup, Experiment):
    """A GAN on 25 Gaussians: a plain one beside R1 (Srivastava et al. 2017, VEEGAN). Settings as those of `ring`.

    gan: a GAN of points, trained until D has seen `gan.total_kimg`.
    beside: one of `SETTINGS`, under which the same networks are trained too. None: nothing is.
    decay: constant learning rates fall to 0 along half a cosine.
    moments: how often one looks at it, early more often than late.  samples: how many points one looks at.
    compare: all ten of `SETTINGS`, in place of what stabilises `gan` and of `beside`.
    seeds: with how many seeds each, from `gan.seed` on.  workers: processes; None takes as many as there are cores.
    """

    name: ClassVar[str] = "grid"

    gan: TrainConfig = SETTINGS["R1"](replace(plain_gan(), data=Points(of=Grid()), total_kimg=2000))
