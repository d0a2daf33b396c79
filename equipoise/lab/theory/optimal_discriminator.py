"""The best D for two known densities is p/(p + q), its value -log 4 + 2 JSD(p, q) (Goodfellow et al. 2014, sec. 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, Normal

from equipoise.core.plots import COLORS, Axes, Figure, Picture, figure
from equipoise.core.randomness import Purpose, seed_torch
from equipoise.core.schedules import Cosine
from equipoise.core.types import Batch, ImageSpec, component
from equipoise.losses import GANLoss, NonSaturating, Penalty, discriminator_loss
from equipoise.models import Head, MLPDiscriminator
from equipoise.rules import Adam
from equipoise.weights import Constraint

from ..base import Experiment, Numbers, Table

__all__ = ["OptimalDiscriminator", "expected_d_loss", "jsd", "kl", "mixture", "train_alone"]

LOSS = NonSaturating()
"""D's loss in the minimax game. `Saturating` has the same loss of D."""
DATA = ((0.6, 0.4), (-1.5, 1.5), (0.6, 0.4))
"""Weights, means and standard deviations of the data."""
FRAMES = 40
COVERED = 0.99
"""Share of the samples in the region where D is judged. D learns nothing where there are no samples."""


# ---- densities on a line ---------------------------------------------------------------------------------


def mixture(weights: Sequence[float], means: Sequence[float], stds: Sequence[float]) -> Distribution:
    """A mixture of Gaussians on the line, in float64."""
    parts = Normal(torch.tensor(means, dtype=torch.float64), torch.tensor(stds, dtype=torch.float64))
    return MixtureSameFamily(Categorical(torch.tensor(weights, dtype=torch.float64)), parts)


def kl(log_p: Tensor, log_q: Tensor, dx: float) -> Tensor:
    """KL(p‖q) = ∫ p log(p/q), nats, from log densities (..., P) at points dx apart -> (...)."""
    return (log_p.exp() * (log_p - log_q)).sum(-1) * dx


def jsd(log_p: Tensor, log_q: Tensor, dx: float) -> Tensor:
    """½ KL(p‖m) + ½ KL(q‖m), m = ½ (p + q): at most log 2. Takes the arguments of `kl`."""
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (kl(log_p, log_m, dx) + kl(log_q, log_m, dx)) / 2


def expected_d_loss(loss: GANLoss, logits: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """E loss.d(D(x), D(x')) over real x ~ p and generated x' ~ q, for an unpaired loss -> (...).

    logits: D at points of the line, (..., P).  p, q: probabilities of the points, (..., P), with sum 1.

    An unpaired loss is a term of the real logit plus a term of the generated logit. So each term is evaluated with the
    other logit held at 0.
    """
    held = torch.zeros_like(logits)
    terms = p * (loss.d(logits, held) - loss.d(held, held)) + q * loss.d(held, logits)
    return terms.sum(-1)


def where_samples_are(p: Tensor, q: Tensor) -> Tensor:
    """Mask (P,) of the fewest points that hold the share `COVERED` of the samples of p and q."""
    both = (p + q) / 2
    order = both.argsort(descending=True)
    within = torch.zeros_like(both, dtype=torch.bool)
    within[order] = both[order].cumsum(0) <= COVERED
    return within


# ---- D without G -----------------------------------------------------------------------------------------


def train_alone(
    D: nn.Module,
    loss: GANLoss,
    draw: Callable[[], tuple[Tensor, Tensor]],
    *,
    steps: int,
    lr: float,
    penalties: Sequence[Penalty] = (),
    constraints: Sequence[Constraint] = (),
) -> Iterator[int]:
    """Train D on fixed distributions, with the learning rate falling to 0. Yields the number of steps made so far.

    draw: gives a batch of real and a batch of generated samples.  lr: the first learning rate.
    constraints: imposed on D after every step.
    """
    optim = Adam(lr=Cosine(lr, 0.0, kimg=steps / 1000), betas=(0.5, 0.99))  # a step counts as an image
    optimizer = optim.build(D)
    yield 0
    for step in range(steps):
        real, fake = (Batch(x) for x in draw())
        optim.apply(optimizer, step)
        value = discriminator_loss(loss, D(real.x), D(fake.x))
        for penalty in penalties:
            value = value + penalty.weight(step) * penalty(lambda x, y: D(x, y).fun, real, fake).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        for constrain in constraints:
            constrain(D)
        yield step + 1


# ---- the experiment --------------------------------------------------------------------------------------


@component
class OptimalDiscriminator(Experiment):
    """D trained on two known densities: it finds p/(p + q) and the value -log 4 + 2 JSD (Goodfellow et al. 2014).

    p, the data, is a mixture of two Gaussians. q, the density of G's samples, is one Gaussian. D sees samples only, new
    ones at every step. Its value E log s(D(x)) + E log(1 - s(D(x'))), the negative of its loss, is integrated over the
    densities.

    mean, std: of q.  steps, batch_size, lr: D's training.  width: units of each of its three hidden layers.
    """

    mean: float = Field(default=0.5, ge=-10, le=10)
    std: float = Field(default=1.2, ge=0.05, le=5)
    steps: int = Field(default=1200, ge=1)
    batch_size: int = Field(default=512, ge=1)
    lr: float = Field(default=5e-3, gt=0)
    width: int = Field(default=64, ge=1)
    seed: int = Field(default=0, ge=0)

    def run(self) -> Numbers:
        real, fake = mixture(*DATA), mixture((1.0,), (self.mean,), (self.std,))
        reach = max(7.0, abs(self.mean) + 8 * self.std)
        x = torch.linspace(-reach, reach, 2001, dtype=torch.float64)
        dx = 2 * reach / 2000
        log_p, log_q = real.log_prob(x), fake.log_prob(x)
        p, q = log_p.exp() * dx, log_q.exp() * dx
        best = (log_p - log_q).sigmoid()  # p/(p + q)

        def draw() -> tuple[Tensor, Tensor]:
            size = torch.Size((self.batch_size, 1, 1, 1))
            return real.sample(size).float(), fake.sample(size).float()

        curve: dict[str, list[float]] = {"step": [], "value": []}
        shown = {0, self.steps // 30, self.steps}
        learned: dict[str, Tensor] = {}
        frames = torch.linspace(0, 1, FRAMES).square().mul(self.steps).round().int().tolist()  # dense at first
        moving: dict[str, list[Any]] = {"step": [], "output": []}
        with torch.random.fork_rng(devices=[]):
            seed_torch(self.seed, Purpose.WEIGHTS)
            D = Head().build(MLPDiscriminator(self.width, depth=3).build, ImageSpec(resolution=1, channels=1))
            for step in train_alone(D, LOSS, draw, steps=self.steps, lr=self.lr):
                if step not in shown and step not in frames and step % max(1, self.steps // 60):
                    continue
                with torch.no_grad():
                    logits = D(x.float().view(-1, 1, 1, 1)).fun.double().squeeze(1)
                curve["step"].append(step)
                curve["value"].append(-expected_d_loss(LOSS, logits, p, q).item())
                if step in shown:
                    learned[str(step)] = logits.sigmoid()
                if step in frames:
                    moving["step"].append(step)
                    moving["output"].append(logits.sigmoid()[::10])
        within = where_samples_are(p, q)
        error = (learned[str(self.steps)] - best)[within].abs().max().item()
        densities = {"x": x, "p": p / dx, "q": q / dx, "within": within}
        return densities | {
            "best": best,
            "learned": learned,
            "moving": moving,
            "error": error,
            "curve": curve,
            "jsd": jsd(log_p, log_q, dx).item(),
        }

    def table(self, numbers: Numbers) -> Table:
        value, divergence = numbers["curve"]["value"][-1], numbers["jsd"]
        return Table(
            ["", "D trained", "theory"],
            [
                ["largest |s(D) - p/(p + q)| where there is data", f"{numbers['error']:.4f}", "0"],
                ["value", f"{value:.4f}", f"{-math.log(4) + 2 * divergence:.4f}"],
                ["JSD, (log 4 + value) / 2", f"{(math.log(4) + value) / 2:.4f}", f"{divergence:.4f}"],
            ],
        )

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        fig, (densities, outputs, values) = figure(1, 3)
        x = numbers["x"]
        draw_densities(densities, numbers)
        densities.set(title="two densities", xlabel="x", ylim=(0, None))
        *before, (last, learned) = numbers["learned"].items()
        for style, (step, output) in zip((":", "-"), before, strict=False):
            outputs.plot(x, output, style, color=COLORS[6], label=f"s(D), step {step}")
        outputs.plot(x, learned, color=COLORS[2], lw=2, label=f"s(D), step {last}")
        outputs.plot(x, numbers["best"], "k--", lw=1, label="p/(p + q)")
        outputs.set(title="D's output where the samples are", xlabel="x", ylim=(-0.02, 1.02))
        data = x[numbers["within"]]
        for ax in (densities, outputs):
            ax.set_xlim(data.min().item(), data.max().item())
        values.plot(numbers["curve"]["step"], numbers["curve"]["value"], color=COLORS[2], label="trained D")
        values.axhline(-math.log(4) + 2 * numbers["jsd"], color="k", ls="--", lw=1, label="-log 4 + 2 JSD")
        values.axhline(-math.log(4), color=COLORS[6], ls=":", label="-log 4, where p = q")
        values.set(title="the value of the game for D", xlabel="step")
        for ax in (densities, outputs, values):
            ax.legend(frameon=False, fontsize="small")
        return {"optimal_discriminator": fig, "optimal_discriminator_moving": self.moving(numbers)}

    def moving(self, numbers: Numbers) -> list[Figure]:
        """Frames of D's output on its way to p/(p + q), over the densities."""
        made = []
        x, best = numbers["x"], numbers["best"]
        seen = x[numbers["within"]]
        values = dict(zip(numbers["curve"]["step"], numbers["curve"]["value"], strict=True))
        for step, output in zip(numbers["moving"]["step"], numbers["moving"]["output"], strict=True):
            fig, (ax,) = figure(width=6, height=3.6)
            draw_densities(ax, numbers)
            ax.plot(x, best, "k--", lw=1, label="p/(p + q)")
            ax.plot(x[::10], output, color=COLORS[2], lw=2, label="s(D)")
            ax.set(xlim=(seen.min().item(), seen.max().item()), ylim=(0, 1.25), xlabel="x")
            ax.set(title=f"step {step}: value {values[step]:.3f}, at most {-math.log(4) + 2 * numbers['jsd']:.3f}")
            ax.legend(frameon=False, fontsize="small", loc="upper center", ncols=4)
            made.append(fig)
        return made


def draw_densities(ax: Axes, numbers: Numbers) -> None:
    for name, label, color in (("p", "data p", COLORS[0]), ("q", "generated q", COLORS[1])):
        ax.fill_between(numbers["x"], numbers[name], color=color, alpha=0.3, lw=0, label=label)
