"""The interface of a tracker, and the notes with which a resumed run continues in the same place."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from equipoise.config import TrainConfig
from equipoise.core.extras import install
from equipoise.core.files import read_file, read_json, replace_file, writing
from equipoise.core.grammar import parse
from equipoise.core.types import RunError, component
from equipoise.runs import Sink
from equipoise.train import Moment

__all__ = ["Tracker", "keep", "recall", "settings", "tracker"]


@component
class Tracker(ABC):
    """An event that sends a run's statistics, grids and config to a program that keeps them: ``events=[WandB()]``.

    It joins the run's `Stats` at its first call, on rank 0. A run that resumes continues the tracker's run. A tracker
    that fails during the run is left out from there on, with a warning: the run trains on.

    module: name of the package that it needs.
    extra: extra of this package that installs it.

    Raises:
        ValueError: if the package is not installed.
    """

    module: ClassVar[str]
    extra: ClassVar[str]

    def __post_init__(self) -> None:
        self.package()

    def package(self) -> Any:
        """The package. Raises ValueError if it is not installed."""
        try:
            return import_module(self.module)
        except ImportError:
            raise ValueError(f"{type(self).__name__} needs {self.module}: {install(self.extra)}") from None

    def __call__(self, now: Moment) -> None:
        """Join the statistics of the run, at the first call.

        Raises:
            RunError: if the tracker cannot be reached, or refuses the run.
        """
        now.stats.join(self, lambda: self.begun(now.stats.path.parent, now.gan.cfg))

    def begun(self, folder: Path, cfg: TrainConfig) -> Sink:
        try:
            return self.begin(folder, cfg)
        except (ValueError, RunError):
            raise
        except Exception as error:  # each package has errors of its own: no network, no login, no such project
            raise RunError(
                f"{type(self).__name__} cannot begin: {one_line(error)}. Check its settings and login, or train "
                "without it; the same command resumes the run."
            ) from error

    @abstractmethod
    def begin(self, folder: Path, cfg: TrainConfig) -> Sink:
        """Begin the tracker's run for the run in `folder`, or continue it."""


def one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().partition("\n")[0].rstrip(".")


def settings(cfg: TrainConfig) -> dict[str, Any]:
    """Settings by dotted path: the name of every component, and every value in it. A list is counted by its items.

    >>> settings(cfg)["generator"], settings(cfg)["generator.width"]
    """
    found: dict[str, Any] = {}
    todo: list[tuple[str, Any]] = [("", cfg)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, tuple):
            inner: Iterable[tuple[str, Any]] = ((str(i), item) for i, item in enumerate(value))
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            if path:
                found[path] = type(value).__name__
            inner = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        else:
            found[path] = value if value is None or isinstance(value, bool | int | float | str) else repr(value)
            continue
        todo += [(f"{path}.{name}" if path else name, item) for name, item in reversed([*inner])]
    return found


def recall(folder: Path, name: str) -> dict[str, str]:
    """The note `name` that a tracker has left in a run's folder; empty at its first start.

    Raises:
        ValueError: if the note is damaged.
    """
    path = folder / name
    if not path.exists():
        return {}
    try:
        note: dict[str, str] = read_json(read_file(path), name)
        if not isinstance(note.get("id"), str):
            raise ValueError(f"{name} names no id")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}. Delete it to begin another run of the tracker") from None
    return note


def keep(folder: Path, name: str, note: dict[str, str | None]) -> None:
    """Leave a note for the next start."""
    with writing(folder):
        replace_file(folder / name, (json.dumps(note) + "\n").encode())


def tracker(text: str) -> Tracker:
    """The tracker that a text names, in the syntax of configs: ``WandB``, ``mlflow``, ``WandB(project=faces)``.

    Raises:
        ValueError: for any other text, or if its package is not installed.
    """
    kinds = {cls.__name__: cls for cls in Tracker.__subclasses__()}
    made = parse(text, kinds | {name.lower(): cls for name, cls in kinds.items()})
    if not isinstance(made, Tracker):
        names = " or ".join(kinds)
        raise ValueError(f"expected a tracker, {names}, such as {next(iter(kinds))}(name=first), got {text!r}")
    return made
