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
    """A GAN on a Swiss roll: a plain one beside R1 (Gulrajani et al. 2017). Settings as in `ring`.

    gan: a GAN of points, trained until D has seen `gan.total_kimg`.
    beside: one of `SETTINGS`, under which the same networks are trained too. None trains `gan` alone.
    decay: constant learning rates fall to 0 along half a cosine.
    moments: number of looks at the GAN, more of them early than late.  samples: points per look.
    compare: train all ten `SETTINGS`, instead of `gan`'s own stabilisers and of `beside`.
    seeds: number of seeds of each setting, from `gan.seed` on.  workers: processes; None takes one per core.
    """

    name: ClassVar[str] = "swiss_roll"

    gan: TrainConfig = SETTINGS["R1"](replace(plain_gan(), data=Points(of=SwissRoll()), total_kimg=400))
