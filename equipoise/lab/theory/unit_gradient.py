"""The best critic's gradient has length 1 on the lines of optimal transport and points along them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from equipoise.core.plots import COLORS, Axes, Figure, Picture, figure
from equipoise.core.randomness import Purpose, seed_torch, stream
from equipoise.core.types import ImageSpec, component
from equipoise.data import Distribution, Ring
from equipoise.losses import GradientPenalty, Wasserstein
from equipoise.metrics import transport, wasserstein
from equipoise.models import Head, MLPDiscriminator

from ..base import Experiment, Numbers, Table
from ..points.surface import draw_surface, gradient, surface
from .optimal_discriminator import train_alone

__all__ = ["UnitGradient"]

FRAMES = 20
LINES, INTERPOLATES, ANYWHERE = "transport lines", "random interpolates", "anywhere"


@component
class UnitGradient(Experiment):
    """The critic's gradient on the lines of optimal transport: length 1, along them (Gulrajani et al. 2017, prop. 1).

    Where x' and x are partners in the optimal coupling, the best critic D has ∇D = (x - x') / ‖x - x'‖ at all points
    (1 - t) x' + t x between. Two critics are trained. The two-sided penalty (‖∇D‖ - 1)² asks for length 1 wherever it
    looks, and the one-sided penalty only forbids more. Both look at random interpolates, between points that are not
    partners. A penalty of strength λ gives way: the length becomes about 1 + W/2λ (see `duality`).

    Gradients are taken on the lines between new points paired by linear assignment; between the same points paired at
    random; and anywhere in the square.

    real, fake: data and generated samples, in the plane.  points: number of each.  strength: of both penalties.
    steps, batch_size, lr: training of each critic.  width: units of each of its three hidden layers.

    Raises:
        ValueError: if `real` or `fake` is not in the plane.
    """

    real: Distribution = Ring(num=3, radius=1.2, std=0.1)
    fake: Distribution = Ring(num=5, radius=0.5, std=0.1)
    points: int = Field(default=500, ge=2, le=2000)
    strength: float = Field(default=10.0, gt=0)
    steps: int = Field(default=400, ge=1)
    batch_size: int = Field(default=128, ge=1)
    lr: float = Field(default=5e-3, gt=0)
    width: int = Field(default=64, ge=1)
    seed: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        for distribution in (self.real, self.fake):
            if distribution.dim != 2:
                raise ValueError(
                    f"expected distributions in the plane, (N, 2), got {distribution!r}: (N, {distribution.dim})"
                )

    def run(self) -> Numbers:
        generator = stream(self.seed, Purpose.SAMPLES, 0)
        # drawn in turn, so that x[i] and generated[i] are a random pair
        x, generated = (which.sample(self.points, generator) for which in (self.real, self.fake))
        partners = x[transport(generated, x)]
        reach = 1.3 * torch.cat([x, generated]).abs().max().item()
        t = torch.rand(self.points, 1, generator=generator)
        anywhere = reach * (2 * torch.rand(self.points, 2, generator=generator) - 1)
        places = {
            LINES: (torch.lerp(generated, partners, t), partners - generated),
            INTERPOLATES: (torch.lerp(generated, x, t), x - generated),
            ANYWHERE: (anywhere, None),
        }
        critics = {}
        for name, one_sided in (("two-sided", False), ("one-sided", True)):
            D, frames = self.train(GradientPenalty(strength=self.strength, one_sided=one_sided), reach)
            critics[name] = {
                "frames": frames,
                "estimate": (D(x) - D(generated)).mean().item(),
                "gradients": {place: compare(D, at, along) for place, (at, along) in places.items()},
            }
        return {
            "x": x,
            "generated": generated,
            "partners": partners,
            "exact": wasserstein(x, generated),
            "step": self.shown,
            "critics": critics,
        }

    @property
    def shown(self) -> list[int]:
        """Steps after which the critic is drawn: more at first, when it changes most."""
        return sorted({round(self.steps * (k / FRAMES) ** 2) for k in range(FRAMES + 1)})

    def train(self, penalty: GradientPenalty, reach: float) -> tuple[Callable[[Tensor], Tensor], list[dict[str, Any]]]:
        """Train a critic -> its function (N, 2) -> (N,), and its surface after each step in `shown`."""
        batches = stream(self.seed, Purpose.SAMPLES, 1)

        def draw() -> tuple[Tensor, Tensor]:
            return self.real.sample(self.batch_size, batches), self.fake.sample(self.batch_size, batches)

        def value(points: Tensor) -> Tensor:
            logits: Tensor = D(points).fun.squeeze(1)
            return logits

        shown, frames = set(self.shown), []
        with torch.random.fork_rng(devices=[]):
            seed_torch(self.seed, Purpose.WEIGHTS)
            D = Head().build(MLPDiscriminator(self.width, depth=3).build, ImageSpec(resolution=1, channels=2))
            for step in train_alone(D, Wasserstein(), draw, steps=self.steps, lr=self.lr, penalties=(penalty,)):
                if step in shown:
                    frames.append(surface(value, extent=(-reach, reach, -reach, reach), size=32))
        return value, frames

    def table(self, numbers: Numbers) -> Table:
        rows = []
        for name, critic in numbers["critics"].items():
            for place, found in critic["gradients"].items():
                cosines = found.get("cosines")
                rows.append(
                    [
                        f"{name} penalty, {place}",
                        f"{found['norms'].mean():.3f}",
                        f"{found['norms'].std():.3f}",
                        "" if cosines is None else f"{cosines.mean():.3f}",
                        "" if cosines is None else f"{(cosines > 0.95).float().mean():.0%}",
                    ]
                )
        return Table(["gradient", "length, mean", "length, std", "cosine with the line, mean", "above 0.95"], rows)

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        critics = numbers["critics"]
        fig, axes = figure(len(critics), 3, width=4.2, height=3.8)
        for i, (name, critic) in enumerate(critics.items()):
            plane, lengths, cosines = axes[3 * i : 3 * i + 3]
            draw_critic(plane, numbers, critic["frames"][-1])
            plane.set_title(f"critic with the {name} penalty")
            for color, (place, found) in zip(
                (COLORS[2], COLORS[3], COLORS[6]), critic["gradients"].items(), strict=True
            ):
                style = {"histtype": "stepfilled", "fill": place == LINES, "fc": color, "ec": color, "alpha": 0.7}
                lengths.hist(found["norms"], bins=50, range=(0, 1.5), label=place, **style)
                if "cosines" in found:
                    cosines.hist(found["cosines"], bins=50, range=(-1, 1), label=place, **style)
            lengths.axvline(1 + numbers["exact"] / (2 * self.strength), color="k", ls=":", lw=1, label="1 + W/2λ")
            lengths.set(title="length of the gradient", ylabel="points", xlim=(0, 1.5))
            cosines.set(title="cosine of the gradient and the line", ylabel="points")
            for ax in (lengths, cosines):
                ax.legend(frameon=False, fontsize="small", loc="upper left")
        axes[0].legend(frameon=True, fontsize="small", loc="lower left", markerscale=3, handletextpad=0.1)
        moving = [self.frame(numbers, i) for i in range(len(numbers["step"]))]
        return {"unit_gradient": fig, "unit_gradient_training": moving + moving[-1:] * 6}  # the last frame stands still

    def frame(self, numbers: Numbers, i: int) -> Figure:
        """Draw both critics after step `shown[i]`."""
        critics = numbers["critics"]
        fig, axes = figure(1, len(critics), width=3.6, height=3.8)
        for ax, (name, critic) in zip(axes, critics.items(), strict=True):
            draw_critic(ax, numbers, critic["frames"][i])
            ax.set_title(f"{name} penalty, step {numbers['step'][i]}")
        return fig


def compare(value: Callable[[Tensor], Tensor], at: Tensor, along: Tensor | None) -> dict[str, Tensor]:
    """Lengths of the gradient at points (N, 2), and its cosines with `along` (N, 2), if given; (N,) each."""
    gradients = gradient(value, at)
    norms = {"norms": gradients.norm(dim=1)}
    return norms if along is None else norms | {"cosines": torch.cosine_similarity(gradients, along)}


def draw_critic(ax: Axes, numbers: Numbers, found: Mapping[str, Any]) -> None:
    """Draw the critic's surface, the points, and the transport lines of some of them."""
    draw_surface(ax, found)
    ends = torch.stack([numbers["generated"], numbers["partners"]], dim=2)[:60]  # (60, 2, 2): coordinate, end
    for line in ends:
        ax.plot(*line, color=COLORS[2], lw=0.8, zorder=2)
    for name, key, color in (("data", "x", COLORS[0]), ("generated", "generated", COLORS[1])):
        points = numbers[key][:300]
        ax.scatter(points[:, 0], points[:, 1], s=3, color=color, lw=0, zorder=3, label=name)
