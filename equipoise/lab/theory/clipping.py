"""Weight clipping in a deep critic: its gradients explode or vanish with depth (Gulrajani et al. 2017, fig. 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from equipoise.core.plots import COLORS, Figure, Picture, figure
from equipoise.core.randomness import Purpose, seed_torch, stream
from equipoise.core.types import ImageSpec, component
from equipoise.data import SwissRoll
from equipoise.losses import GANLoss, GradientPenalty, Penalty, Wasserstein
from equipoise.models import Head, MLPDiscriminator
from equipoise.nn import Discriminator
from equipoise.weights import ClipWeights, Constraint, effective_weight, weighted_layers

from ..base import Experiment, Numbers, Table
from ..points.surface import draw_surface, surface
from .optimal_discriminator import train_alone

__all__ = ["Clipping", "gradient_norms"]

LOSS = Wasserstein()
SEEN = 1000
"""Points of each distribution that a trained critic is measured on."""
EXTENT = (-2.5, 2.5, -2.5, 2.5)
"""Rectangle in which a critic's values are drawn: left, right, bottom, top."""
BINS = 41
"""Bins of a histogram of weights."""


@component
class Clipping(Experiment):
    """Weight clipping against the gradient penalty: a deep critic's gradients by layer (Gulrajani et al. 2017, fig. 1).

    The critic is a multilayer perceptron with ReLU and without norms. It tells a Swiss roll from the same roll under
    Gaussian noise of variance 1. The noisy roll stands for G's samples and stays frozen (as in their fig. 1a). All
    critics start from the same weights. Clipped critics start with them clipped to [-c, c].

    A layer with weights ±c, half of whose units are active, multiplies the gradient on its way back: by c √(width/2) if
    the signs are random, and by c width/2 if all units agree about them. Twelve layers raise the factor to a power,
    which explodes or vanishes unless c happens to be right. Adam divides by √v + ε, and ε = 1e-8 hides a gradient that
    has vanished: such a critic learns nothing.

    bounds: c of each clipped critic.  penalty: penalty of the critic that is not clipped.
    depth, width: number of hidden layers, and units of each.  steps, batch_size, lr: training of each critic.
    """

    bounds: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.1, 0.01, 0.001), min_length=1, max_length=len(COLORS) - 1
    )
    penalty: GradientPenalty = GradientPenalty()
    depth: int = Field(default=12, ge=2, le=50)
    width: int = Field(default=128, ge=1)
    steps: int = Field(default=400, ge=1)
    batch_size: int = Field(default=128, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    seed: int = Field(default=0, ge=0)

    def run(self) -> Numbers:
        with torch.random.fork_rng(devices=[]):
            real, fake = samples(SEEN, stream(self.seed, Purpose.POINTS, 1))
            critics = {}
            for bound in self.bounds:
                results, first, last = self.train(real, fake, constraints=(ClipWeights(bound=bound),))
                clipped = [share_at(bound, first), share_at(bound, last)]
                theory = [bound * math.sqrt(self.width / 2), bound * self.width / 2]
                critics[f"c = {bound:g}"] = results | {"at_bound": clipped, "theory": theory}
            critics["gradient penalty"] = self.train(real, fake, penalties=(self.penalty,))[0]
            before = gradient_norms(self.critic().double(), LOSS, real.double(), fake.double())
        return {"before": before, "critics": critics, "points": real.flatten(1)}

    def critic(self, constraints: Sequence[Constraint] = ()) -> Discriminator:
        """Build a critic with its initial weights, under the constraints."""
        seed_torch(self.seed, Purpose.WEIGHTS)
        D = Head().build(MLPDiscriminator(self.width, self.depth).build, ImageSpec(resolution=1, channels=2))
        assert isinstance(D, Discriminator)
        for constrain in constraints:
            constrain(D)
        return D

    def train(
        self,
        real: Tensor,
        fake: Tensor,
        *,
        penalties: Sequence[Penalty] = (),
        constraints: Sequence[Constraint] = (),
    ) -> tuple[dict[str, Any], Tensor, Tensor]:
        """Train a critic -> its results at these points, and its weights before and after training, flat."""
        D = self.critic(constraints)
        first, points = weights(D), stream(self.seed, Purpose.POINTS)
        for _ in train_alone(
            D,
            LOSS,
            lambda: samples(self.batch_size, points),
            steps=self.steps,
            lr=self.lr,
            penalties=penalties,
            constraints=constraints,
        ):
            pass
        last = weights(D)
        wide, real, fake = D.double(), real.double(), fake.double()  # float32 ends far above 1e-50
        norms = gradient_norms(wide, LOSS, real, fake)
        with torch.no_grad():
            gain = -LOSS.d(wide(real).fun, wide(fake).fun).mean().item()
        results = {
            "norms": norms,
            "factor": (norms[1] / norms[-1]).item() ** (1 / (self.depth - 1)),
            "gain": gain,
            "weights": histograms(first, last),
            "surface": surface(lambda x: wide(x.double().view(-1, 2, 1, 1)).fun[:, 0], extent=EXTENT),
        }
        return results, first, last

    def table(self, numbers: Numbers) -> Table:
        rows = []
        for name, found in numbers["critics"].items():
            theory = " to ".join(f"{factor:.2g}" for factor in found.get("theory", ()))
            at_bound = ", ".join(f"{share:.0%}" for share in found.get("at_bound", ()))
            norms = (f"{found['norms'][layer].item():.1e}" for layer in (-1, 1))
            rows.append([name, *norms, f"{found['factor']:.2g}", theory, at_bound, f"{found['gain']:.1e}"])
        return Table(
            [
                "critic",
                f"gradient at layer {self.depth}",
                "at layer 1",
                "factor per layer",
                "theory: random signs to equal ones",
                "weights at ±c, before and after",
                "E D(x) - E D(x')",
            ],
            rows,
        )

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        fig, (ax,) = figure(1, 1, width=6.4, height=4.4)
        for color, (name, found) in zip(COLORS, numbers["critics"].items(), strict=False):
            ax.semilogy(found["norms"], "o-", color=color, markersize=4, label=name)
        ax.semilogy(numbers["before"], ":", color="k", linewidth=1, label="initial weights")
        ax.set(
            title="gradient of a critic's loss, layer by layer",
            xlabel="layer (0: the points)",
            ylabel="mean norm",
        )
        ax.legend(frameon=False, fontsize="small")
        return {"clipping": fig, "clipping_critics": draw_critics(numbers)}


def samples(num: int, points: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points of the Swiss roll, and other points of it under noise, (num, 2, 1, 1) each."""
    real, fake = (SwissRoll().sample(num, points).view(num, 2, 1, 1) for _ in range(2))
    return real, fake + torch.randn(fake.shape, generator=points)


def gradient_norms(D: Discriminator, loss: GANLoss, real: Tensor, fake: Tensor) -> Tensor:
    """‖∂/∂h_l loss.d‖ for the loss of an image's pair, as a mean over the images of all pairs -> (1 + L,).

    h_0 is the image, and h_l the output of ReLU number l of the L in D's body.  real, fake: (N, ...), N pairs.
    """
    assert isinstance(D.body, nn.Sequential)
    h = torch.cat([real, fake]).requires_grad_(True)
    outputs = [h]
    for layer in D.body:
        h = layer(h)
        if isinstance(layer, nn.ReLU):
            outputs.append(h)
    total = loss.d(*D.head(h).fun.chunk(2)).sum()
    return torch.stack([gradient.flatten(1).norm(dim=1).mean() for gradient in torch.autograd.grad(total, outputs)])


def weights(D: nn.Module) -> Tensor:
    """A copy of the weights of D's layers, without biases, flat."""
    return torch.cat([effective_weight(layer).detach().flatten() for _, layer in weighted_layers(D)])


def share_at(bound: float, values: Tensor) -> float:
    """The share of the values that are exactly ±bound."""
    return (values.abs() == torch.tensor(bound, dtype=values.dtype)).double().mean().item()


def histograms(*several: Tensor) -> dict[str, Any]:
    """Histograms of several sets of weights as shares (BINS,), from -reach to reach."""
    last = several[-1]
    reach = min(last.abs().max(), 4 * last.square().mean().sqrt()).item()
    shares = [torch.histc(values, BINS, -reach, reach) / values.numel() for values in several]
    return {"reach": reach, "shares": shares}


def draw_critics(numbers: Numbers) -> Figure:
    """Draw a column for each critic: its weights, and below them its values."""
    critics = numbers["critics"]
    fig, axes = figure(2, len(critics), width=2.9, height=2.9)
    above, below = axes[: len(critics)], axes[len(critics) :]
    for color, upper, lower, (name, found) in zip(COLORS, above, below, critics.items(), strict=False):
        reach, (first, last) = found["weights"]["reach"], found["weights"]["shares"]
        edges = torch.linspace(-reach, reach, BINS + 1)
        upper.stairs(last, edges, fill=True, color=color, alpha=0.7, label="trained")
        upper.stairs(first, edges, color="k", linewidth=1, label="before")
        upper.set(title=f"{name}: weights", yticks=[])
        upper.set_xticks((-reach, 0, reach), [f"{at:.2g}" for at in (-reach, 0, reach)])
        draw_surface(lower, found["surface"])
        x, y = numbers["points"].T
        lower.plot(x, y, ".", color="k", markersize=1, alpha=0.4)
        span = (found["surface"]["values"].max() - found["surface"]["values"].min()).item()
        lower.set(title=f"values, over a range of {span:.0e}" if span else "values, all alike", xticks=[], yticks=[])
    above[0].legend(frameon=False, fontsize="small")
    return fig
