"""MLflow, of the extra `mlflow`."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from equipoise.compute.interrupt import Interrupted
from equipoise.config import TrainConfig, to_text
from equipoise.core.types import component

from .base import Tracker, keep, recall, settings

__all__ = ["MLflow"]

NOTE = "mlflow.json"
LONGEST = 500
"""Most characters of a setting. Older servers take no more."""
MOST = 100
"""Most settings in a request."""
OTHER = re.compile(r"[^\w./ -]")
"""Characters that MLflow takes in no name."""


@component
class MLflow(Tracker):
    """Send statistics, grids and the config to MLflow. The step of every value is nimg.

    A resumed run continues the same run there: ``mlflow.json`` has its id.

    uri: the tracking server or a database, such as sqlite:///mlflow.db; None: as ``MLFLOW_TRACKING_URI`` says, else
        MLflow's default.
    experiment: name of the experiment, which is created if there is none.
    name: name of the run; None: the name of the run's folder.
    """

    module: ClassVar[str] = "mlflow"
    extra: ClassVar[str] = "mlflow"

    uri: str | None = None
    experiment: str = "equipoise"
    name: str | None = None

    def begin(self, folder: Path, cfg: TrainConfig) -> MLflowRun:
        mlflow, note = self.package(), recall(folder, NOTE)
        client = mlflow.MlflowClient(tracking_uri=self.uri)
        if note:
            client.update_run(note["id"], status="RUNNING")
            return MLflowRun(mlflow, client, note["id"])
        found = client.get_experiment_by_name(self.experiment)
        place = client.create_experiment(self.experiment) if found is None else found.experiment_id
        number = client.create_run(place, run_name=self.name or folder.resolve().name).info.run_id
        given = [mlflow.entities.Param(key, str(value)[:LONGEST]) for key, value in settings(cfg).items()]
        for i in range(0, len(given), MOST):
            client.log_batch(number, params=given[i : i + MOST])
        client.log_text(number, to_text(cfg), "config.txt")
        keep(folder, NOTE, {"id": number})
        return MLflowRun(mlflow, client, number)


class MLflowRun:
    """A run of MLflow as a `Sink`."""

    def __init__(self, mlflow: Any, client: Any, number: str):
        self.mlflow, self.client, self.number = mlflow, client, number

    def scalars(self, values: dict[str, float], nimg: int) -> None:
        now, kind = round(time.time() * 1000), self.mlflow.entities.Metric
        metrics = [kind(OTHER.sub("_", name), value, now, nimg) for name, value in values.items()]
        self.client.log_batch(self.number, metrics=metrics)

    def image(self, name: str, picture: Image.Image, nimg: int) -> None:
        self.client.log_image(self.number, picture, key=name, step=nimg)

    def close(self, error: type[BaseException] | None) -> None:
        asked = error is not None and issubclass(error, Interrupted | KeyboardInterrupt)
        self.client.set_terminated(self.number, "FINISHED" if error is None else "KILLED" if asked else "FAILED")
