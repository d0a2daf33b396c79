"""Two parallel lines: JSD = log 2 and KL is infinite at any distance, W is the distance (Arjovsky et al. 2017)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Normal

from equipoise.core.plots import COLORS, Picture, figure
from equipoise.core.randomness import Purpose, seed_torch
from equipoise.core.types import ImageSpec, component
from equipoise.losses import (
    GANLoss,
    GradientPenalty,
    Penalty,
    Saturating,
    Wasserstein,
    discriminator_loss,
    generator_loss,
)
from equipoise.models import Head, MLPDiscriminator

from ..base import Experiment, Numbers, Table
from .optimal_discriminator import kl, train_alone

__all__ = ["ParallelLines", "earth_movers_distance", "line"]

NOISE = (0.1, 0.01, 0.001)
"""Standard deviations of the noise. Noise makes KL finite."""


def line(theta: float | Tensor, z: Tensor) -> Tensor:
    """Points (theta, z) of a line, z (N,) -> (N, 2, 1, 1)."""
    return torch.stack([theta * torch.ones_like(z), z], dim=1).view(-1, 2, 1, 1)


def earth_movers_distance(theta: float, z: Tensor, other: Tensor) -> float:
    """The exact distance between N samples of each line, at heights z and `other`, (N,) each.

    Points whose heights differ by h are √(theta² + h²) apart. This is convex in h, so the best coupling pairs the
    lowest with the lowest, and so on upwards.
    """
    return (z.sort().values - other.sort().values).square().add(theta**2).sqrt().mean().item()


@component
class ParallelLines(Experiment):
    """Two lines (0, z) and (θ, z), z ~ U[0, 1], as data and generated samples (Arjovsky et al. 2017, example 1).

    For every θ but 0, JSD = log 2 and KL is infinite, while W = |θ|. W is computed exactly, between samples, and
    estimated as E D(x) - E D(G(z)) of a critic that `penalty` keeps near 1-Lipschitz. With strength λ the critic's
    slope is 1 + |θ|/2λ. JSD = log 2 - (smallest loss of D) / 2 comes from a trained D. KL is computed for lines blurred
    by less and less noise across them.

    G's only weight is θ. The slope of G's loss in θ is shown for `Wasserstein` and for the minimax game.

    thetas: distances of the lines.  penalty: penalty of the critic.
    samples: number of samples for the exact W and for every estimate.
    steps, batch_size: training of each D.  critic_lr, judge_lr: learning rates of D for W and for JSD.
    width: units of each of the two hidden layers of a D.
    """

    thetas: tuple[Annotated[float, Field(ge=-10, le=10)], ...] = (-1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0)
    penalty: GradientPenalty = GradientPenalty()
    samples: int = Field(default=4000, ge=1)
    steps: int = Field(default=300, ge=1)
    batch_size: int = Field(default=128, ge=1)
    critic_lr: float = Field(default=2e-3, gt=0)
    judge_lr: float = Field(default=1e-2, gt=0)
    width: int = Field(default=64, ge=1)
    seed: int = Field(default=0, ge=0)

    def run(self) -> Numbers:
        lines = []
        for theta in self.thetas:
            with torch.random.fork_rng(devices=[]):
                seed_torch(self.seed, Purpose.WEIGHTS)
                critic = self.best_d(Wasserstein(), theta, self.critic_lr, (self.penalty,))
                judge = self.best_d(Saturating(), theta, self.judge_lr)
                z, other = torch.rand(2, self.samples)
            lines.append(
                {
                    "theta": theta,
                    "exact": earth_movers_distance(theta, z, other),
                    "critic": -self.d_loss(Wasserstein(), critic, theta, z, other),
                    "jsd": math.log(2) - self.d_loss(Saturating(), judge, theta, z, other) / 2,
                    "critic_slope": self.slope(Wasserstein(), critic, theta, other),
                    "jsd_slope": self.slope(Saturating(), judge, theta, other),
                    "kl": [blurred_kl(theta, noise) for noise in NOISE],
                }
            )
        return {"lines": lines}

    def best_d(self, loss: GANLoss, theta: float, lr: float, penalties: tuple[Penalty, ...] = ()) -> nn.Module:
        D = Head().build(MLPDiscriminator(self.width, depth=2).build, ImageSpec(resolution=1, channels=2))

        def draw() -> tuple[Tensor, Tensor]:
            return line(0, torch.rand(self.batch_size)), line(theta, torch.rand(self.batch_size))

        for _ in train_alone(D, loss, draw, steps=self.steps, lr=lr, penalties=penalties):
            pass
        return D

    @torch.no_grad()
    def d_loss(self, loss: GANLoss, D: nn.Module, theta: float, z: Tensor, other: Tensor) -> float:
        return discriminator_loss(loss, D(line(0, z)), D(line(theta, other))).item()

    def slope(self, loss: GANLoss, D: nn.Module, theta: float, z: Tensor) -> float:
        """d/dθ of G's loss."""
        weight = torch.tensor(theta, requires_grad=True)
        generator_loss(loss, D(line(weight, z))).backward()
        assert weight.grad is not None
        return weight.grad.item()

    def table(self, numbers: Numbers) -> Table:
        rows = [
            [
                f"{found['theta']:g}",
                *(f"{found[key]:.3f}" for key in ("exact", "critic", "jsd")),
                *(f"{k:.3g}" for k in found["kl"]),
            ]
            for found in numbers["lines"]
        ]
        return Table(
            ["θ", "W, samples", "W, critic", "JSD, trained D", *(f"KL, noise {noise:g}" for noise in NOISE)], rows
        )

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        fig, (earth, js, infinite, slopes) = figure(1, 4, width=3.3)
        lines = sorted(numbers["lines"], key=lambda found: found["theta"])
        thetas = [found["theta"] for found in lines]
        earth.plot(thetas, [abs(theta) for theta in thetas], "k--", lw=1, label="|θ|")
        earth.plot(thetas, [found["exact"] for found in lines], "o", color=COLORS[0], label="between samples")
        earth.plot(thetas, [found["critic"] for found in lines], "x", color=COLORS[1], label="critic's estimate")
        earth.set(title="W, the earth mover's distance")
        js.axhline(math.log(2), color="k", ls="--", lw=1, label="log 2")
        js.plot(thetas, [found["jsd"] for found in lines], "x", color=COLORS[1], label="of a trained D")
        js.set(title="JSD", ylim=(-0.05, 0.8))
        for i, noise in enumerate(NOISE):
            infinite.plot(
                thetas, [found["kl"][i] for found in lines], "o-", color=COLORS[i], ms=3, label=f"noise {noise:g}"
            )
        infinite.set(title="KL of blurred lines", yscale="symlog")
        slopes.axhline(0, color=COLORS[6], lw=0.8)
        slopes.plot(
            thetas,
            [found["critic_slope"] for found in lines],
            "o-",
            color=COLORS[0],
            ms=4,
            label="Wasserstein: that of W",
        )
        slopes.plot(
            thetas, [found["jsd_slope"] for found in lines], "x-", color=COLORS[1], ms=4, label="minimax: that of 2 JSD"
        )
        slopes.set(title="slope of G's loss in θ", ylim=(-1.6, 1.6))
        for ax in (earth, js, infinite, slopes):
            ax.set(xlabel="θ")
            ax.legend(frameon=False, fontsize="small")
        return {"parallel_lines": fig}


def blurred_kl(theta: float, noise: float) -> float:
    """KL of two lines under Gaussian noise across them, by integration. Their heights share one distribution."""
    low, high = min(0.0, theta) - 10 * noise, max(0.0, theta) + 10 * noise
    x = torch.linspace(low, high, math.ceil((high - low) / noise) * 20, dtype=torch.float64)
    return kl(Normal(0.0, noise).log_prob(x), Normal(theta, noise).log_prob(x), x[1].item() - x[0].item()).item()
