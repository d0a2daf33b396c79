"""Weights & Biases, of the extra `wandb`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from PIL import Image

from equipoise.config import TrainConfig
from equipoise.core.types import component

from .base import Tracker, keep, recall, settings

__all__ = ["WandB"]

NOTE = "wandb.json"


@component
class WandB(Tracker):
    """Send statistics, grids and the config to Weights & Biases. The x-axis of all charts is nimg.

    Its own files go to the run's folder. A resumed run continues the same run there: ``wandb.json`` has its id.

    project: the project.
    entity: user or team; None: your own.
    name: name of the run; None: the name of the run's folder.
    group: group of runs, such as the seeds of one setting.
    tags: words to find the run by.
    mode: online, offline (``wandb sync`` sends it later) or disabled; None: as ``WANDB_MODE`` says.
    """

    module: ClassVar[str] = "wandb"
    extra: ClassVar[str] = "wandb"

    project: str = "equipoise"
    entity: str | None = None
    name: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    mode: Literal["online", "offline", "disabled"] | None = None

    def begin(self, folder: Path, cfg: TrainConfig) -> WandBRun:
        wandb, note = self.package(), recall(folder, NOTE)
        run = wandb.init(
            project=note.get("project", self.project),
            entity=note.get("entity", self.entity),
            name=self.name or folder.resolve().name,
            group=self.group,
            tags=list(self.tags),
            mode=self.mode,
            dir=str(folder),
            id=note.get("id"),
            resume="allow",
            config=settings(cfg),
            allow_val_change=True,  # total_kimg and report may change when a run resumes
            settings=wandb.Settings(console="off"),  # the run survives output that fails; wandb's copy might not
        )
        run.define_metric("nimg")
        run.define_metric("*", step_metric="nimg")
        keep(folder, NOTE, {"id": run.id, "project": self.project, "entity": self.entity} | note)
        return WandBRun(wandb, run)


class WandBRun:
    """A run of Weights & Biases as a `Sink`."""

    def __init__(self, wandb: Any, run: Any):
        self.wandb, self.run = wandb, run

    def scalars(self, values: dict[str, float], nimg: int) -> None:
        self.run.log({"nimg": nimg, **values})

    def image(self, name: str, picture: Image.Image, nimg: int) -> None:
        self.run.log({"nimg": nimg, name: self.wandb.Image(picture)})

    def close(self, error: type[BaseException] | None) -> None:
        self.run.finish(exit_code=0 if error is None else 1)
