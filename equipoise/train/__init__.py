"""The training loop: players, the step, an open run, events."""

from .batches import BatchesByStage
from .choosing import choice_for
from .context import StepContext
from .cost import iteration_flops
from .evaluations import Evaluations
from .events import Event, Moment
from .gan import GAN
from .geometry import Moments, field_of, fields_of_run
from .loop import train
from .memory import Memory, fit_or_say_so, host_memory, require_fitting
from .pace import images_per_second
from .players import Player
from .snapshot import Snapshots
from .start import load_networks
from .steps import d_step, g_step, loss_on, step
from .tuning import tune
from .watching import Watching

__all__ = [
    "GAN",
    "BatchesByStage",
    "Evaluations",
    "Event",
    "Memory",
    "Moment",
    "Moments",
    "Player",
    "Snapshots",
    "StepContext",
    "Watching",
    "choice_for",
    "d_step",
    "field_of",
    "fields_of_run",
    "fit_or_say_so",
    "g_step",
    "host_memory",
    "images_per_second",
    "iteration_flops",
    "load_networks",
    "loss_on",
    "require_fitting",
    "step",
    "train",
    "tune",
]
