"""Points that D alone moves: the points are the generator's weights, and each descends G's loss through D."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from equipoise.config import TrainConfig
from equipoise.core.plots import COLORS, Axes, Figure, Picture, figure
from equipoise.core.randomness import Purpose, stream
from equipoise.core.types import ImageSpec, component
from equipoise.data import Distribution, Points, Ring
from equipoise.losses import R1, GANLoss, GradientPenalty, NonSaturating, Penalty, Saturating, Wasserstein
from equipoise.metrics import wasserstein
from equipoise.models import GeneratorConfig
from equipoise.rules import OptimConfig

from ..base import Experiment, Numbers, Table
from ..points.gan import PointGAN, plain_gan

__all__ = ["Cloud", "GradientDescent", "Particles"]

GAMES: Mapping[str, tuple[GANLoss, tuple[Penalty, ...]]] = {
    "saturating": (Saturating(), ()),
    "non-saturating": (NonSaturating(), ()),
    "Wasserstein, gradient penalty": (Wasserstein(), (GradientPenalty(strength=1.0),)),
    "non-saturating, R1": (NonSaturating(), (R1(gamma=0.1, every=1),)),
}
GRID = 20
"""D is shown by its values at GRID x GRID points of a square."""


# ---- a generator without a network -------------------------------------------------------------------------


@component
class Cloud(GeneratorConfig):
    """A generator whose weights are its samples, `num` of them, one batch: x_i = θ_i, at first from N(0, std²)."""

    z_dim: int = 1
    num: int = Field(default=256, ge=1)
    std: float = Field(default=0.1, gt=0)

    def build(self, spec: ImageSpec) -> nn.Module:
        return Samples(self.std * torch.randn(self.num, spec.channels, 1, 1))


class Samples(nn.Module):
    def __init__(self, x: Tensor):
        super().__init__()
        self.x = nn.Parameter(x)

    def forward(self, _z: Tensor, _y: Tensor | None = None) -> Tensor:
        return self.x


@component
class GradientDescent(OptimConfig):
    """Plain descent θ - lr · gradient. Adam would turn a gradient that has all but vanished into a long step."""

    lr: float = Field(gt=0)

    def build(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=self.lr)

    def apply(self, optimizer: torch.optim.Optimizer, nimg: int) -> None:
        """The rate is constant."""


# ---- the experiment ----------------------------------------------------------------------------------------


@component
class Particles(Experiment):
    """Points without a generator, each moved by D's gradient: dx/dt = -g'(D(x)) ∇D(x), D trained all the while.

    So a loss is seen at work alone. Where D is sure, g' of the saturating loss is 0 and the points stand still
    (Goodfellow et al. 2014, sec. 3). The slope of a Wasserstein critic is near 1, so points keep moving after they have
    arrived. R1 flattens D on the data. W_1 to `num` points of the data measures how far the points are.

    num: number of points, and batch size of D.  start: standard deviation of the points around 0 at first.
    steps: steps of the points.  speed: time of a step, so a point moves by speed · ‖gradient‖.
    d_steps: updates of D before each step.  frames: number of moments shown, dense at first.
    """

    data: Distribution = Ring()
    num: int = Field(default=200, ge=2, le=1000)
    start: float = Field(default=0.1, gt=0)
    steps: int = Field(default=300, ge=1)
    speed: float = Field(default=0.1, gt=0)
    d_steps: int = Field(default=3, ge=1)
    frames: int = Field(default=36, ge=2)
    seed: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        if self.data.dim != 2:
            raise ValueError(f"these points move in the plane, and {self.data!r} has dim {self.data.dim}: take Ring()")

    def run(self) -> Numbers:
        moments = torch.linspace(0, 1, self.frames).square().mul(self.steps).round().int().unique().tolist()
        real = self.data.sample(self.num, stream(self.seed, Purpose.SAMPLES))
        reach = 1.5 * real.abs().max().item()
        side = torch.linspace(-reach, reach, GRID)
        games = {}
        for name, (loss, penalties) in GAMES.items():
            game: dict[str, list[Any]] = {"points": [], "value": [], "speed": [], "w": []}
            for x, value, speed in self.play(loss, penalties, moments, torch.cartesian_prod(side, side)):
                game["points"].append(x.double().round(decimals=3))
                game["value"].append(value.view(GRID, GRID).T.double().round(decimals=2))
                game["speed"].append(speed)
                game["w"].append(wasserstein(x, real))
            games[name] = game
        floor = wasserstein(self.data.sample(self.num, stream(self.seed, Purpose.STANDING)), real)
        return {"steps": moments, "real": real, "side": side, "games": games, "floor": floor}

    def config(self, loss: GANLoss, penalties: tuple[Penalty, ...]) -> TrainConfig:
        return replace(
            plain_gan(),
            data=Points(of=self.data),
            generator=Cloud(num=self.num, std=self.start),
            loss=loss,
            terms=penalties,
            g_optim=GradientDescent(lr=self.speed * self.num),  # the loss is a mean over the points
            batch_size=self.num,
            d_steps=self.d_steps,
            seed=self.seed,
        )

    def play(
        self, loss: GANLoss, penalties: tuple[Penalty, ...], moments: list[int], lattice: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Yield points (num, 2), D at `lattice` (P,) scaled to [0, 1], and the mean speed of the last step."""
        gan, speed = PointGAN(self.config(loss, penalties)), 0.0
        for step in range(self.steps + 1):
            x = positions(gan)
            if step in moments:
                value = gan.value(lattice)
                low, high = value.min(), value.max()
                yield x, (value - low) / (high - low).clamp_min(1e-12), speed
            if step < self.steps:
                gan.iterate()
                speed = (positions(gan) - x).norm(dim=1).mean().item() / self.speed

    def table(self, numbers: Numbers) -> Table:
        rows = [
            [name, f"{found['w'][0]:.2f}", f"{found['w'][-1]:.2f}", f"{found['speed'][-1]:.1e}"]
            for name, found in numbers["games"].items()
        ]
        rows.append(["other points of the data", "", f"{numbers['floor']:.2f}", ""])
        return Table(["loss", "W at first", "W at the end", "mean speed at the end"], rows)

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        fig, (*planes, distance) = figure(1, 1 + len(GAMES), width=3.0, height=3.2)
        for i, (ax, (name, found)) in enumerate(zip(planes, numbers["games"].items(), strict=True)):
            draw_points(ax, numbers, found, -1)
            paths = torch.stack(found["points"])[:, ::4]  # (frames, a quarter of the points, 2)
            ax.plot(*paths.unbind(-1), color=COLORS[1], lw=0.5, alpha=0.35)
            ax.set(title=name)
            distance.plot(numbers["steps"], found["w"], color=COLORS[i], label=name)
        distance.axhline(numbers["floor"], color="k", ls=":", lw=1, label="other points of the data")
        distance.set(title="W to the data", xlabel="step", ylim=(0, None))
        distance.legend(edgecolor="none", fontsize="small", loc="upper right", bbox_to_anchor=(1, 0.93))
        return {"particles": fig, "particles_moving": self.moving(numbers)}

    def moving(self, numbers: Numbers) -> list[Figure]:
        made = []
        for k, step in enumerate(numbers["steps"]):
            fig, axes = figure(1, len(GAMES), width=2.6, height=3.2)
            for ax, (name, found) in zip(axes, numbers["games"].items(), strict=True):
                draw_points(ax, numbers, found, k)
                ax.set_title(f"{name}\nstep {step}: W = {found['w'][k]:.2f}", fontsize="medium")
            made.append(fig)
        return made


def positions(gan: PointGAN) -> Tensor:
    """A copy of the points, (num, 2)."""
    (x,) = gan.gan.G.parameters()
    return x.detach().flatten(1).clone()


def draw_points(ax: Axes, numbers: Numbers, found: Mapping[str, Any], k: int) -> None:
    """Draw filled level lines of D, darker where D is higher; data in blue, the points in red."""
    side = numbers["side"]
    ax.contourf(side, side, found["value"][k], levels=9, cmap="Greys", alpha=0.45)
    ax.plot(*numbers["real"].T, ".", color=COLORS[0], ms=5)
    ax.plot(*found["points"][k].T, ".", color=COLORS[1], ms=3)
    reach = side.max().item()
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=(), yticks=(), aspect="equal")
