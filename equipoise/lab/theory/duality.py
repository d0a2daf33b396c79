"""A 1-Lipschitz critic's E D(x) - E D(x') beside the exact earth mover's distance (Arjovsky et al. 2017, sec. 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from equipoise.core.plots import COLORS, Figure, Picture, figure
from equipoise.core.randomness import Purpose, seed_torch, stream
from equipoise.core.types import ImageSpec, component
from equipoise.data import Distribution, Grid, Ring, SwissRoll
from equipoise.losses import GradientPenalty, Penalty, Wasserstein, discriminator_loss
from equipoise.metrics import wasserstein
from equipoise.models import Head, MLPDiscriminator
from equipoise.weights import ClipWeights, Constraint, NoNormalizer, Normalizer, SpectralNorm

from ..base import Experiment, Numbers, Table
from .optimal_discriminator import train_alone

__all__ = ["PAIRS", "Duality"]

Pair = Literal[
    "Gaussian, moved 0.3",
    "Gaussian, moved 1",
    "Gaussian, wider",
    "ring, smaller",
    "ring, much smaller",
    "Swiss roll, noise",
    "25 Gaussians, noise",
]
PAIRS: Mapping[Pair, tuple[Distribution, Distribution, float | None]] = {
    "Gaussian, moved 0.3": (Ring(num=1, radius=0.3, std=0.2), Grid(side=1, std=0.2), 0.3),
    "Gaussian, moved 1": (Ring(num=1, radius=1.0, std=0.2), Grid(side=1, std=0.2), 1.0),
    "Gaussian, wider": (Grid(side=1, std=0.6), Grid(side=1, std=0.2), 0.4 * math.sqrt(math.pi / 2)),
    "ring, smaller": (Ring(radius=1.0, std=0.02), Ring(radius=0.6, std=0.02), 0.4),
    "ring, much smaller": (Ring(radius=1.0, std=0.02), Ring(radius=0.2, std=0.02), 0.8),
    "Swiss roll, noise": (SwissRoll(), Grid(side=1, std=0.3), None),
    "25 Gaussians, noise": (Grid(spacing=0.5, std=0.02), Grid(side=1, std=0.7), None),
}
"""Data, generated samples, and W_1 of the distributions where it has a closed form.

A 1-Lipschitz function gives a lower bound of W_1, and a coupling an upper bound. For the moved Gaussians the function
<x, e> and the shift e give equal bounds. For the wider Gaussian ‖x‖ and the scaling do, with E ‖x‖ = std √(π/2). The
rings' bounds are less than 1e-3 apart.
"""


class Control(NamedTuple):
    """A bound on a critic's slope: penalties, a normaliser, constraints."""

    penalties: tuple[Penalty, ...] = ()
    normalizer: Normalizer = NoNormalizer()
    constraints: tuple[Constraint, ...] = ()


@component
class Duality(Experiment):
    """A critic's estimate of W_1 beside the exact earth mover's distance, for seven pairs and five ways to bound D.

    W_1(p, q) = sup over 1-Lipschitz D of E D(x) - E D(x') (Arjovsky et al. 2017, eq. 2): the negative of the critic's
    loss. The critic is evaluated on the points of the exact distance, which a 1-Lipschitz D cannot exceed there. It is
    trained on other points, new ones at every step.

    A gradient penalty of strength λ lets the slope be s = 1 + W/2λ, where s W - λ (s - 1)² is largest. The estimate is
    then s W = W + W²/2λ. Spectral norm makes D 1-Lipschitz, but few of its functions have slope 1 in more than one
    direction. Clipping bounds the slope by a number that depends on the network: the unit of its estimate is unknown.

    pairs: names in `PAIRS`.  points: points of each distribution, for the exact distance.
    strength: strength of both penalties.  clips: bounds of the weights.
    steps, batch_size, lr: training of each critic.  width: units of each of its three hidden layers.
    """

    pairs: tuple[Pair, ...] = Field(default=tuple(PAIRS), min_length=1)
    points: int = Field(default=1000, ge=1, le=2000)
    strength: float = Field(default=10.0, gt=0)
    clips: tuple[Annotated[float, Field(gt=0)], ...] = (0.1, 0.01)
    steps: int = Field(default=300, ge=1)
    batch_size: int = Field(default=128, ge=1)
    lr: float = Field(default=5e-3, gt=0)
    width: int = Field(default=64, ge=1)
    seed: int = Field(default=0, ge=0)

    @property
    def controls(self) -> dict[str, Control]:
        """Bounds on D, by name."""
        return {
            "gradient penalty": Control(penalties=(GradientPenalty(strength=self.strength),)),
            "one-sided penalty": Control(penalties=(GradientPenalty(strength=self.strength, one_sided=True),)),
            "spectral norm": Control(normalizer=SpectralNorm()),
            **{f"clipping {bound:g}": Control(constraints=(ClipWeights(bound=bound),)) for bound in self.clips},
        }

    def run(self) -> Numbers:
        results = {}
        for name in self.pairs:
            real, fake, known = PAIRS[name]
            points = stream(self.seed, Purpose.SAMPLES, 0)
            x, generated = real.sample(self.points, points), fake.sample(self.points, points)
            results[name] = {
                "x": x[:300],
                "generated": generated[:300],
                "known": known,
                "exact": wasserstein(x, generated),
                "estimates": {
                    title: self.estimates(control, real, fake, x, generated) for title, control in self.controls.items()
                },
            }
        return {"step": self.shown, "pairs": results}

    @property
    def shown(self) -> list[int]:
        """Steps after which a critic is evaluated."""
        return sorted({round(self.steps * k / 40) for k in range(41)})

    def estimates(
        self, control: Control, real: Distribution, fake: Distribution, x: Tensor, generated: Tensor
    ) -> list[float]:
        """Estimates E D(x) - E D(x') of a critic in training, one for each step in `shown`."""
        batches = stream(self.seed, Purpose.SAMPLES, 1)

        def draw() -> tuple[Tensor, Tensor]:
            return real.sample(self.batch_size, batches), fake.sample(self.batch_size, batches)

        shown, estimates = set(self.shown), []
        with torch.random.fork_rng(devices=[]):
            seed_torch(self.seed, Purpose.WEIGHTS)
            D = Head().build(MLPDiscriminator(self.width, depth=3).build, ImageSpec(resolution=1, channels=2))
            control.normalizer(D)
            for step in train_alone(
                D,
                Wasserstein(),
                draw,
                steps=self.steps,
                lr=self.lr,
                penalties=control.penalties,
                constraints=control.constraints,
            ):
                if step in shown:
                    estimates.append(dual(D, x, generated))
        return estimates

    def table(self, numbers: Numbers) -> Table:
        rows = [
            [
                name,
                "" if pair["known"] is None else f"{pair['known']:.3f}",
                f"{pair['exact']:.3f}",
                *(f"{curve[-1]:.3g} (× {curve[-1] / pair['exact']:.3g})" for curve in pair["estimates"].values()),
            ]
            for name, pair in numbers["pairs"].items()
        ]
        return Table(["data, generated", "W₁", "W₁ of the points", *self.controls], rows)

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        pairs = numbers["pairs"]
        fig, (training, bounded, ratios) = figure(1, 3, width=4.8, height=4)
        for i, (name, pair) in enumerate(pairs.items()):
            color, by_step = COLORS[i % len(COLORS)], pair["estimates"]["gradient penalty"]
            training.axhline(pair["exact"], color=color, ls="--", lw=0.8)
            training.plot(numbers["step"], by_step, color=color)
            training.text(1.06 * self.steps, by_step[-1], name, color=color, fontsize="small", va="center")
        training.set(title="gradient penalty: estimate, exact dashed", xlabel="step", xlim=(0, 1.04 * self.steps))
        exact = torch.tensor([pair["exact"] for pair in pairs.values()])
        w = torch.linspace(0, 1.15 * exact.max().item(), 50)
        bounded.fill_between(w, 0.9 * w, 1.1 * w, color=COLORS[6], alpha=0.2, lw=0, label="W ± 10 %")
        bounded.plot(w, w, "k--", lw=0.8, label="W")
        bounded.plot(w, w + w**2 / (2 * self.strength), "k:", lw=1, label="W + W²/2λ")
        for title, color, marker in zip(self.controls, COLORS, "ox^sdv<", strict=False):
            last = torch.tensor([pair["estimates"][title][-1] for pair in pairs.values()])
            ratios.plot(last / exact, marker, color=color, ms=5, label=title)
            if not title.startswith("clipping"):
                bounded.plot(exact, last, marker, color=color, ms=5, label=title)
        bounded.set(title="estimates in the unit of W", xlabel="exact distance W", ylabel="estimate", xlim=(0, None))
        ratios.axhline(1, color="k", ls="--", lw=0.8)
        ratios.set(title="estimate / W: clipping has a unit of its own", yscale="log")
        ratios.set_xticks(range(len(pairs)), list(pairs), rotation=35, ha="right", fontsize="small")
        for ax in (bounded, ratios):
            ax.legend(frameon=False, fontsize="small")
        return {"duality": fig, "duality_pairs": draw_pairs(pairs)}


def draw_pairs(pairs: Mapping[str, Any]) -> Figure:
    """Draw the points of each pair, with their distance."""
    fig, axes = figure(1, len(pairs), width=2.3, height=2.5)
    for ax, (name, pair) in zip(axes, pairs.items(), strict=True):
        for title, points, color in (("data", pair["x"], COLORS[0]), ("generated", pair["generated"], COLORS[1])):
            ax.scatter(points[:, 0], points[:, 1], s=4, color=color, lw=0, label=title)
        ax.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
        ax.set_title(f"{name}\nW₁ = {pair['exact']:.3f}", fontsize="medium")
    axes[0].legend(frameon=False, fontsize="small", loc="upper left", markerscale=3, handletextpad=0)
    return fig


@torch.no_grad()
def dual(D: nn.Module, x: Tensor, generated: Tensor) -> float:
    """E D(x) - E D(x'). The vectors of a spectral norm stay where they are, and D ends in training mode."""
    D.eval()
    estimate = -discriminator_loss(Wasserstein(), D(x), D(generated)).item()
    D.train()
    return estimate
