"""The best D under label smoothing: one-sided bounds it, two-sided spares G's mistakes (Salimans et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from equipoise.core.plots import COLORS, Picture, figure
from equipoise.core.types import component
from equipoise.losses import NonSaturating

from ..base import Experiment, Numbers, Table
from .optimal_discriminator import mixture

__all__ = ["Smoothing", "best_logits", "two_sided"]

DLoss = Callable[[Tensor, Tensor], Tensor]
"""A function like `GANLoss.d`: logits of real and generated samples -> loss."""
MISTAKE = -2.0
"""Place of half of G's samples, without data. The other half is at -MISTAKE, with the data."""
NEWTON_STEPS = 100


def two_sided(alpha: float, beta: float) -> DLoss:
    """D's loss with the targets 1 - alpha for real and beta for generated samples.

    d(-fake, -real) is d with real and generated exchanged, so its smoothing applies to the generated samples.
    """
    plain, of_real, of_fake = NonSaturating(), NonSaturating(smoothing=alpha), NonSaturating(smoothing=beta)
    return lambda real, fake: of_real.d(real, fake) + of_fake.d(-fake, -real) - plain.d(real, fake)


def best_logits(d: DLoss, p: Tensor, q: Tensor) -> Tensor:
    """The logits that minimise E d(D(x), D(x')), x ~ p, x' ~ q, at points of these probabilities, (P,) each -> (P,).

    d is a term of D(x) plus a term of D(x'), both convex. So each point is a problem of its own, solved by Newton's
    method from 0.
    """
    t = torch.zeros_like(p)
    for _ in range(NEWTON_STEPS):
        t.requires_grad_(True)
        held = torch.zeros_like(t)
        value = (p * d(t, held) + q * d(held, t)) / (p + q)
        (slope,) = torch.autograd.grad(value.sum(), t, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), t)
        t = (t - slope / curvature).detach()
    return t


@component
class Smoothing(Experiment):
    """D* without label smoothing, one-sided and two-sided, and its gradient for G (Salimans et al. 2016, sec. 3.4).

    With targets 1 - α of real and β of generated samples, D* = ((1 - α) p + β q)/(p + q). One-sided, β = 0, D* stays
    below 1 - α on the data. Where q makes samples without data, the logit still falls with p/q, so G learns where to
    go. Two-sided, q is in the numerator, and the logit is flat there, log β/(1 - β): these samples stay where they are.

    Half of q is such a mistake. D* is found by minimising the library's loss in every bin.

    alpha: smoothing of real targets, one- and two-sided.  beta: smoothing of generated targets, two-sided.
    bins: number of bins of the line from -5 to 5.
    """

    alpha: float = Field(default=0.1, ge=0, lt=0.5)
    beta: float = Field(default=0.1, gt=0, lt=0.5)
    bins: int = Field(default=200, ge=3)

    def run(self) -> Numbers:
        width = 10 / self.bins
        x = -5 + width * (torch.arange(self.bins, dtype=torch.float64) + 0.5)
        p = mixture((1.0,), (-MISTAKE,), (0.8,)).log_prob(x).exp()
        q = mixture((0.5, 0.5), (MISTAKE, -MISTAKE), (0.5, 0.5)).log_prob(x).exp()
        losses: dict[str, tuple[DLoss, float, float]] = {
            "none": (NonSaturating().d, 0.0, 0.0),
            "one-sided": (NonSaturating(smoothing=self.alpha).d, self.alpha, 0.0),
            "two-sided": (two_sided(self.alpha, self.beta), self.alpha, self.beta),
        }
        at_mistake = int((x - MISTAKE).abs().argmin())
        results = {}
        for name, (d, alpha, beta) in losses.items():
            logits = best_logits(d, p, q)
            t = logits.clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(NonSaturating().g(t).sum(), t)
            push = -slope * torch.gradient(logits, spacing=width)[0]  # G moves a sample against the slope of its loss
            results[name] = {
                "logits": logits,
                "output": logits.sigmoid(),
                "theory": ((1 - alpha) * p + beta * q) / (p + q),
                "push": push,
                "largest": logits.sigmoid().max().item(),
                "at_mistake": push[at_mistake].item(),
            }
        return {"x": x, "p": p, "q": q, "smoothing": results}

    def table(self, numbers: Numbers) -> Table:
        rows = [
            [name, f"{(f['output'] - f['theory']).abs().max():.1e}", f"{f['largest']:.3f}", f"{f['at_mistake']:.3f}"]
            for name, f in numbers["smoothing"].items()
        ]
        return Table(
            ["smoothing", "largest |s(D) - theory|", "largest s(D)", f"push on G's sample at {MISTAKE:g}"], rows
        )

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        fig, (densities, outputs, logits, pushes) = figure(1, 4, width=3.3)
        x = numbers["x"]
        for name, label, color in (("p", "data p", COLORS[0]), ("q", "generated q", COLORS[1])):
            densities.fill_between(x, numbers[name], color=color, alpha=0.3, lw=0, label=label)
        densities.set(title="half of q is a mistake", ylim=(0, None))
        styles = ((COLORS[6], 4), (COLORS[2], 2), (COLORS[3], 2))  # without and one-sided agree over much of the line
        for (color, lw), (name, found) in zip(styles, numbers["smoothing"].items(), strict=True):
            outputs.plot(x, found["output"], color=color, lw=lw, label=name)
            outputs.plot(x, found["theory"], "k--", lw=0.8)
            logits.plot(x, found["logits"], color=color, lw=lw, label=name)
            pushes.plot(x, found["push"], color=color, lw=lw, label=name)
        outputs.set(title="best s(D), theory dashed", ylim=(-0.02, 1.02))
        logits.set(title="best D", ylim=(-21, 12))
        pushes.set(title="push on a sample of G", ylim=(-2, 12))
        pushes.axhline(0, color=COLORS[6], lw=0.8)
        for ax in (densities, outputs, logits, pushes):
            ax.axvspan(MISTAKE - 1, MISTAKE + 1, color=COLORS[1], alpha=0.08, lw=0)
            ax.set(xlabel="x")
            ax.legend(frameon=False, fontsize="small")
        return {"smoothing": fig}
