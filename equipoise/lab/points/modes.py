"""GANs of points, watched while they train: their points at moments of training, and the distance to the data.

`ring`, `grid` and `swiss_roll` share this module. They differ in their data.
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
    """The name of a setting. The command line reads R1 as the penalty of that name, and this turns it back."""
    plain = dataclasses.is_dataclass(given) and not isinstance(given, type) and given == type(given)()
    return type(given).__name__ if plain else given


def known_setting(name: str) -> str:
    """Return `name`. Raises ValueError unless it is in `SETTINGS`."""
    if name not in SETTINGS:
        raise ValueError(f"there is no setting {name!r}{suggest(name, SETTINGS)}")
    return name


SettingName = Annotated[str, BeforeValidator(as_word), AfterValidator(known_setting)]


@component
class Setup:
    """The settings and methods of such an experiment. An experiment adds its name and a GAN.

    gan: a GAN of points, trained until D has seen `gan.total_kimg`.
    beside: one of `SETTINGS`, under which the same networks are trained too, for comparison. None trains `gan` alone.
    decay: a constant learning rate falls to 0 along half a cosine.
    moments: number of looks at the GAN, more of them early than late.  samples: points per look.
    compare: train all `SETTINGS` instead of `gan`'s own stabilisers, whatever `beside` says.
    seeds: number of seeds of each setting, from `gan.seed` on.  workers: processes; None takes one per core.
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
    """`cfg` with constant learning rates replaced by half a cosine that reaches 0 at the end of training."""

    def fall(optim: OptimConfig) -> OptimConfig:
        if isinstance(optim, Adam | RMSprop) and isinstance(optim.lr, float):
            return replace(optim, lr=Cosine(optim.lr, 0.0, kimg=cfg.total_kimg))
        return optim

    return replace(cfg, g_optim=fall(cfg.g_optim), d_optim=fall(cfg.d_optim))


@dataclass(frozen=True)
class Job:
    """A GAN to be watched. `watch` explains the fields."""

    setting: str
    cfg: TrainConfig
    moments: int
    samples: int
    surfaces: bool


def watch(job: Job) -> Iterator[dict[str, Any]]:
    """Train a GAN, and look at it `moments` + 1 times: at 0, at the end, and more often early than late.

    Look k is at total_kimg (k / moments)². Once its losses are not finite, a GAN gets one last look.

    Yields:
        nimg; samples (N, 2), or None if they are not finite; measures; diverged. With `surfaces`: D's surface, if it
        is finite.
    """
    gan = PointGAN(job.cfg)
    real = real_points(gan.distribution, job.samples)
    diverged = False
    for k in range(job.moments + 1):
        while gan.nimg < job.cfg.total_kimg * 1000 * (k / job.moments) ** 2 and not diverged:
            diverged = not all(map(math.isfinite, gan.iterate().values()))
        x = gan.samples(job.samples)
        moment = {
            "nimg": gan.nimg,
            "samples": x if x.isfinite().all() else None,
            "measures": measured(gan.distribution, x, real),
            "diverged": diverged,
        }
        if job.surfaces:
            of_d = surface(gan.value, extent=view_of(real), size=PIXELS)
            if of_d["values"].isfinite().all() and of_d["arrows"]["gradients"].isfinite().all():
                moment["surface"] = of_d
        yield moment
        if diverged:
            return


# ---- several of them -------------------------------------------------------------------------------------


def jobs_of(setup: Setup) -> list[Job]:
    """The GANs that `setup` asks for: `gan` and the GAN beside it, or every setting with every seed."""
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
    """The name in `SETTINGS` that gives `cfg`; "this GAN" if there is none."""
    return next((name for name, setting in SETTINGS.items() if setting(cfg) == cfg), "this GAN")


def run(setup: Setup) -> Numbers:
    """Train all GANs of `setup`.

    Returns:
        real (N, 2), the points that GANs are measured against, and `truth`, the measures of other real points. For each
        GAN its setting, seed, config, and moments from `watch`. A comparison keeps only the samples of the last moment.
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
    """A table of the final measures of each GAN, or of each setting over its seeds; and of real points."""
    measures = measures_of(points_of(setup.gan))
    finals: dict[str, list[dict[str, float | None]]] = {}
    for run in numbers["runs"]:
        finals.setdefault(run["setting"], []).append(run["moments"][-1]["measures"])
    rows = [
        [name, *(summary(measure, [final[key] for final in of_seeds]) for key, measure in measures.items())]
        for name, of_seeds in finals.items()
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
    """``mean (least–most)`` over several seeds; a single value as it is."""
    finite = [value for value in values if value is not None]
    if len(finite) < len(values):
        return f"{len(values) - len(finite)} of {len(values)} diverged"
    mean = measure.show(fmean(finite))
    return mean if len(finite) == 1 else f"{mean} ({measure.show(min(finite))}–{measure.show(max(finite))})"
