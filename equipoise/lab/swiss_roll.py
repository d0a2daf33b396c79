"""The Swiss roll: a spiral without modes, of which a plain GAN finds pieces (Gulrajani et al. 2017)."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from ..config import TrainConfig
from ..data import SwissRoll
from ..types import component
from . import modes, modes_figures
from .base import Experiment, Numbers, Table
from .plots import Picture
from .points import Points, plain_gan
from .settings import SETTINGS

__all__ = ["SwissRollGAN"]


@component
class SwissRollGAN(Experiment):
    """A GAN on a Swiss roll: a plain one beside R1 (Gulrajani et al. 2017). Settings as those of `ring`.

    gan: a GAN of points, trained until D has seen `gan.total_kimg`.
    beside: one of `SETTINGS`, under which the same networks are trained too. None: nothing is.
    decay: constant learning rates fall to 0 along half a cosine.
    moments: how often one looks at it, early more often than late.  samples: how many points one looks at.
    compare: all ten of `SETTINGS`, in place of what stabilises `gan` and of `beside`.
    seeds: with how many seeds each, from `gan.seed` on.  workers: processes; None takes as many as there are cores.
    """

    gan: TrainConfig = SETTINGS["R1"](replace(plain_gan(), data=Points(of=SwissRoll()), total_kimg=400))
    beside: modes.SettingName | None = "minimax"
    decay: bool = True
    moments: int = Field(default=20, ge=1)
    samples: int = Field(default=1000, ge=10)
    compare: bool = False
    seeds: int = Field(default=3, ge=1)
    workers: int | None = Field(default=None, ge=1)

    def __post_init__(self) -> None:
        modes.check(self)

    def run(self) -> Numbers:
        return modes.run(self)

    def table(self, numbers: Numbers) -> Table:
        return modes.table(self, numbers)

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        return modes_figures.draw("swiss_roll", self, numbers)
