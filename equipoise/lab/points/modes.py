"""GANs of points, watched while they train: what they make at moments of training, and how far that is from the data.

What `ring`, `grid` and `swiss_roll` share; they differ in their data.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from equipoise.compute.cores import cores
from equipoise.config import TrainConfig
from equipoise.core.grammar import differences, suggest
from equipoise.core.schedules import Cosine
from equipoise.core.types import component
from equipoise.rules import Adam, OptimConfig, RMSprop

from ..base import Numbers, Table
from ..parallel import spread
from ..progress import say
from .gan import PointGAN, points_of
from .measures import Measure, measured, measures_of, real_points, truth
from .settings import SETTINGS
from .surface import surface, view_of

if TYPE_CHECKING:
    from equipoise.core.plots import Picture

__all__ = ["Job", "SettingName", "Setup", "check", "falling", "jobs_of", "name_of", "run", "table", "watch"]

PIXELS = 40
"""D's values on each side of a picture."""


def as_word(given: object) -> object:
    """The command line reads R1 as the penalty of that name."""
    known = dataclasses.is_dataclass(given) and not isinstance(given, type) and given == type(given)()
    return type(given).__name__ if known else given


def known_setting(name: str) -> str:
    """Raises ValueError for a name that is none of `SETTINGS`."""
    if name not in SETTINGS:
        raise ValueError(f"there is no setting {name!r}{suggest(name, SETTINGS)}")
    return name


SettingName = Annotated[str, BeforeValidator(as_word), AfterValidator(known_setting)]


@component
class Setup:
    """The settings of such an experiment, and what it does; an experiment adds its name and a GAN.

    gan: a GAN of points, trained until D has seen `gan.total_kimg`.
    beside: one of `SETTINGS`, under which the same networks are trained too, for comparison. None: nothing is.
    decay: a constant learning rate falls to 0 along half a cosine.
    moments: how often one looks at it, early more often than late.  samples: how many points one looks at.
    compare: all `SETTINGS` in place of what stabilises `gan`, `beside` or not.
    seeds: with how many seeds each, from `gan.seed` on.  workers: processes; None takes as many as there are cores.
    """

    name: ClassVar[str]

    gan: TrainConfig
    beside: SettingName | None = "minimax"
    decay: bool = True
    moments: int = Field(default=20, ge=1)
    samples: int = Field(default=1000, ge=10)
    compare: bool = False
    seeds: int = Field(default=3, ge=1)
    workers: int | None = Field(default=None, ge=1)

    def __post_init__(self) -> None:
        check(self)

    def run(self) -> Numbers:
        return run(self)

    def table(self, numbers: Numbers) -> Table:
        return table(self, numbers)

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        from .figures import draw

        return draw(self.name, numbers, measures_of(points_of(self.gan)), self.compare)


def check(setup: Setup) -> None:
    """Refuse what cannot be trained or drawn.

    Raises:
        ValueError: if `gan` is not of points of the plane; if the settings cannot be put into it, or would replace one
            of its own.
    """
    of = points_of(setup.gan)
    if of.dim != 2:
        raise ValueError(f"gan.data.of={of!r} is of dimension {of.dim}, and the pictures are of the plane: take Ring")
    if setup.compare:
        own = differences(SETTINGS["R1"](setup.gan), setup.gan)
        if own:
            raise ValueError(
                f"gan.{own[0]}: a comparison puts ten settings in its place; leave it as it is, or compare=false"
            )
        for setting in SETTINGS.values():
            setting(setup.gan)


# ---- training --------------------------------------------------------------------------------------------


def falling(cfg: TrainConfig) -> TrainConfig:
    """`cfg` with constant learning rates replaced by half a cosine that ends in 0 with the training."""

    def fall(optim: OptimConfig) -> OptimConfig:
        if isinstance(optim, Adam | RMSprop) and isinstance(optim.lr, float):
            return replace(optim, lr=Cosine(optim.lr, 0.0, kimg=cfg.total_kimg))
        return optim

    return replace(cfg, g_optim=fall(cfg.g_optim), d_optim=fall(cfg.d_optim))


@dataclass(frozen=True)
class Job:
    """A GAN to be watched. `watch` says what the fields are."""

    setting: str
    cfg: TrainConfig
    moments: int
    samples: int
    surfaces: bool


def watch(job: Job) -> Iterator[dict[str, Any]]:
    """Train a GAN, and look at it `moments` + 1 times: at 0, at the end, and more often early than late.

    The k-th time is total_kimg (k / moments)². A GAN whose losses are not finite any more is looked at a last time.

    Yields:
        nimg; samples (N, 2), or None if they are not finite; measures; diverged; with `surfaces`, that of D, if it is
        finite.
    """
    gan = PointGAN(job.cfg)
    real = real_points(gan.distribution, job.samples)
    diverged = False
    for k in range(job.moments + 1):
        while gan.nimg < job.cfg.total_kimg * 1000 * (k / job.moments) ** 2 and not diverged:
            diverged = not all(map(math.isfinite, gan.iterate().values()))
        x = gan.samples(job.samples)
        found = {
            "nimg": gan.nimg,
            "samples": x if x.isfinite().all() else None,
            "measures": measured(gan.distribution, x, real),
            "diverged": diverged,
        }
        if job.surfaces:
            of_d = surface(gan.value, extent=view_of(real), size=PIXELS)
            if of_d["values"].isfinite().all() and of_d["arrows"]["gradients"].isfinite().all():
                found["surface"] = of_d
        yield found
        if diverged:
            return


# ---- several of them -------------------------------------------------------------------------------------


def jobs_of(setup: Setup) -> list[Job]:
    """The GANs that `setup` asks for: that of `gan` and the one beside it, or every setting with every seed."""
    base = falling(setup.gan) if setup.decay else setup.gan
    if setup.compare:
        return [
            Job(name, replace(setting(base), seed=base.seed + i), setup.moments, setup.samples, surfaces=False)
            for name, setting in SETTINGS.items()
            for i in range(setup.seeds)
        ]
    named = {} if setup.beside is None else {setup.beside: SETTINGS[setup.beside](base)}
    named[name_of(base)] = base
    return [Job(name, cfg, setup.moments, setup.samples, surfaces=True) for name, cfg in named.items()]


def name_of(cfg: TrainConfig) -> str:
    """The setting that `cfg` is under, if it is one of `SETTINGS`."""
    return next((name for name, setting in SETTINGS.items() if setting(cfg) == cfg), "this GAN")


def run(setup: Setup) -> Numbers:
    """Train them all.

    Returns:
        real (N, 2), by which is measured, and the measures of other real points, `truth`. For each GAN its setting,
        seed, config and what `watch` saw of it; of a comparison the samples of the last moment alone.
    """
    jobs = jobs_of(setup)
    seen: list[list[dict[str, Any]]] = [[] for _ in jobs]
    for number, moment in spread(watch, jobs, min(setup.workers or cores(), len(jobs))):
        if setup.compare and seen[number]:
            del seen[number][-1]["samples"]
        seen[number].append(moment)
        under_way = [
            job
            for job, moments in zip(jobs, seen, strict=True)
            if 0 < len(moments) <= setup.moments and not moments[-1]["diverged"]
        ]
        behind = sum((len(moments) - 1) ** 2 for moments in seen if moments)
        say(
            ", ".join(f"{job.setting} (seed {job.cfg.seed})" for job in under_way) or "...",
            behind / (setup.moments**2 * len(jobs)),
        )
    of = points_of(setup.gan)
    runs = [
        {"setting": job.setting, "seed": job.cfg.seed, "config": repr(job.cfg), "moments": moments}
        for job, moments in zip(jobs, seen, strict=True)
    ]
    return {"real": real_points(of, setup.samples), "truth": truth(of, setup.samples), "runs": runs}


def table(setup: Setup, numbers: Numbers) -> Table:
    """What came of each GAN, or of each setting with all its seeds; and of real points."""
    measures = measures_of(points_of(setup.gan))
    finals: dict[str, list[dict[str, float | None]]] = {}
    for run in numbers["runs"]:
        finals.setdefault(run["setting"], []).append(run["moments"][-1]["measures"])
    rows = [
        [name, *(summary(measure, [final[key] for final in found]) for key, measure in measures.items())]
        for name, found in finals.items()
    ]
    truth = ["real points", *(measure.show(numbers["truth"][key]) for key, measure in measures.items())]
    return Table(
        [
            "mean (range)" if setup.compare and setup.seeds > 1 else "",
            *(measure.title for measure in measures.values()),
        ],
        [*rows, truth],
    )


def summary(measure: Measure, values: list[float | None]) -> str:
    """``mean (least–most)`` of several seeds; a single value as it is."""
    found = [value for value in values if value is not None]
    if len(found) < len(values):
        return f"{len(values) - len(found)} of {len(values)} diverged"
    mean = measure.show(fmean(found))
    return mean if len(found) == 1 else f"{mean} ({measure.show(min(found))}–{measure.show(max(found))})"
