"""The training loop."""

from .batches import BatchesByStage
from .cost import iteration_flops
from .gan import GAN
from .loop import train
from .memory import Memory, fit_or_say_so, host_memory, require_fitting
from .snapshot import Evaluations, Snapshots
from .start import load_networks
from .steps import d_step, g_step
from .tuning import tune

__all__ = [
    "GAN",
    "BatchesByStage",
    "Evaluations",
    "Memory",
    "Snapshots",
    "d_step",
    "fit_or_say_so",
    "g_step",
    "host_memory",
    "iteration_flops",
    "load_networks",
    "require_fitting",
    "train",
    "tune",
]
