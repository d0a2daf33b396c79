"""Generators measured, compared and swept."""

from .compare import Compared, compare, compare_table, config_rows, draw_curves, draw_grids, write_compared
from .deep import deep_facts
from .discriminator import TrainedDiscriminator, load_discriminator, rebuild
from .evaluator import Evaluation, Evaluator, evaluate
from .sources import Drawn, Given, Source, of_dataset, of_generator, open_source
from .sweep import Step, sweep, thresholds, tradeoff_table, write_sweep

__all__ = [
    "Compared",
    "Drawn",
    "Evaluation",
    "Evaluator",
    "Given",
    "Source",
    "Step",
    "TrainedDiscriminator",
    "compare",
    "compare_table",
    "config_rows",
    "deep_facts",
    "draw_curves",
    "draw_grids",
    "evaluate",
    "load_discriminator",
    "of_dataset",
    "of_generator",
    "open_source",
    "rebuild",
    "sweep",
    "thresholds",
    "tradeoff_table",
    "write_compared",
    "write_sweep",
]
