"""Settings of training that belong to no network and no loss."""

from .critic import Rounds, ToConvergence
from .ema import EMA, EMAConfig
from .evaluation import Evaluate
from .growth import Growth, NoGrowth, ProgressiveGrowing, Stages
from .optim import Adam, OptimConfig, RMSprop
from .transfer import FreezeD

__all__ = [
    "EMA",
    "Adam",
    "EMAConfig",
    "Evaluate",
    "FreezeD",
    "Growth",
    "NoGrowth",
    "OptimConfig",
    "ProgressiveGrowing",
    "RMSprop",
    "Rounds",
    "Stages",
    "ToConvergence",
]
