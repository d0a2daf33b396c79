"""Trackers of experiments, as events of a run: statistics, grids and the config, sent to Weights & Biases or MLflow."""

from .base import Tracker, settings, tracker
from .mlflow import MLflow
from .wandb import WandB

__all__ = ["MLflow", "Tracker", "WandB", "settings", "tracker"]
