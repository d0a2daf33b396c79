"""Settings of training that belong to no network and no loss: games, growth, optimisers, averages, reports."""

from .critic import Rounds, ToConvergence
from .ema import EMA, EMAConfig
from .evaluation import Evaluate
from .game import Game, Generation, Shown
from .growth import Growth, NoGrowth, ProgressiveGrowing, Stages
from .history import History, Pool
from .optim import Adam, OptimConfig, RMSprop
from .report import Report, SymptomName
from .transfer import FreezeD, Start, Transfer

__all__ = [
    "EMA",
    "Adam",
    "EMAConfig",
    "Evaluate",
    "FreezeD",
    "Game",
    "Generation",
    "Growth",
    "History",
    "NoGrowth",
    "OptimConfig",
    "Pool",
    "ProgressiveGrowing",
    "RMSprop",
    "Report",
    "Rounds",
    "Shown",
    "Stages",
    "Start",
    "SymptomName",
    "ToConvergence",
    "Transfer",
]
