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
    """A GAN on 25 Gaussians: a plain one beside R1 (Srivastava et al. 2017, VEEGAN). Settings as in `ring`.

    gan: a GAN of points, trained until D has seen `gan.total_kimg`.
    beside: one of `SETTINGS`, under which the same networks are trained too. None trains `gan` alone.
    decay: constant learning rates fall to 0 along half a cosine.
    moments: number of looks at the GAN, more of them early than late.  samples: points per look.
    compare: train all ten `SETTINGS`, instead of `gan`'s own stabilisers and of `beside`.
    seeds: number of seeds of each setting, from `gan.seed` on.  workers: processes; None takes one per core.
    """

    name: ClassVar[str] = "grid"

    gan: TrainConfig = SETTINGS["R1"](replace(plain_gan(), data=Points(of=Grid()), total_kimg=2000))
