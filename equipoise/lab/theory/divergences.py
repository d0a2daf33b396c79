"""A model too simple for the data: KL covers the modes, reverse KL seeks one mode, JSD and MMD are between."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Normal

from equipoise.core.plots import COLORS, Axes, Figure, Picture, figure
from equipoise.core.types import component
from equipoise.losses import NonSaturating

from ..base import Experiment, Numbers, Table
from .optimal_discriminator import expected_d_loss, kl, mixture

__all__ = ["Divergences"]

STARTS = 7
"""Descents of each divergence, from means between the ends of the modes: some divergences have several minima."""
REACH = 12.0
"""The integrals go from -REACH to REACH."""


@component
class Divergences(Experiment):
    """A Gaussian q fitted to a mixture p of two by KL(p‖q), KL(q‖p), JSD and MMD (Goodfellow 2016, sec. 3.2.5).

    KL(p‖q) is infinite if q misses data, so its q covers both modes and the gap between them. KL(q‖p) is infinite if q
    makes samples without data, so its q seeks one mode. JSD is what the best D leaves to G: log 2 minus half of D's
    smallest loss. MMD has the kernel exp(-(x - x')² / 2h²).

    Gradient descent on the mean and the logarithm of the standard deviation of q, on integrals in float64.

    weight: weight of the left mode.  distance: between the modes.  std: std of each mode.  bandwidth: h.
    steps, lr: of the descent, by Adam with lr falling to 0.
    """

    weight: float = Field(default=0.7, gt=0, lt=1)
    distance: float = Field(default=4.0, ge=0, le=8)
    std: float = Field(default=0.7, ge=0.1, le=1.5)
    bandwidth: float = Field(default=1.0, ge=0.1)
    steps: int = Field(default=200, ge=1)
    lr: float = Field(default=0.05, gt=0)

    def run(self) -> Numbers:
        x = torch.linspace(-REACH, REACH, 481, dtype=torch.float64)
        dx = 2 * REACH / 480
        mode = self.distance / 2
        log_p = mixture((self.weight, 1 - self.weight), (-mode, mode), (self.std, self.std)).log_prob(x)
        p = log_p.exp()
        means = torch.linspace(-1.5 * mode - 1, 1.5 * mode + 1, 41, dtype=torch.float64)
        stds = torch.logspace(math.log10(0.3), math.log10(5), 31, dtype=torch.float64)
        fits = {}
        for name, divergence in self.divergences(x, log_p, dx).items():
            path, values = self.descend(divergence, x)
            best = int(values.argmin())
            mean, std = path[-1, best].tolist()
            log_q = Normal(mean, std).log_prob(x)
            fits[name] = {
                "mean": mean,
                "std": std,
                "value": values[best].item(),
                "covered": (p * ((x - mean).abs() < 2 * std)).sum().item() * dx,
                "invented": (log_q.exp() * (p < p.max() / 20)).sum().item() * dx,
                "q": log_q.exp(),
                "paths": path,
                "best": best,
                "surface": divergence(gaussians(means[None, :, None], stds[:, None, None], x)),
            }
        return {"x": x, "p": p, "fits": fits, "means": means, "stds": stds}

    def divergences(self, x: Tensor, log_p: Tensor, dx: float) -> dict[str, Callable[[Tensor], Tensor]]:
        """Divergences by name: log q (..., P) -> its divergence from p, (...)."""
        kernel = (-((x[:, None] - x) ** 2) / (2 * self.bandwidth**2)).exp() * dx**2

        def from_best_d(log_q: Tensor) -> Tensor:
            loss = expected_d_loss(NonSaturating(), log_p - log_q, log_p.exp() * dx, log_q.exp() * dx)
            return math.log(2) - loss / 2

        def mmd(log_q: Tensor) -> Tensor:
            difference = log_p.exp() - log_q.exp()
            return (difference @ kernel * difference).sum(-1).clamp_min(1e-30).sqrt()

        return {
            "KL(p‖q)": lambda log_q: kl(log_p, log_q, dx),
            "KL(q‖p)": lambda log_q: kl(log_q, log_p, dx),
            "JSD": from_best_d,
            "MMD": mmd,
        }

    def descend(self, divergence: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std of all descents, before each step and after the last, (steps + 1, S, 2), and values reached."""
        reach = self.distance / 2 + self.std
        mean = torch.linspace(-reach, reach, STARTS, dtype=torch.float64).requires_grad_(True)
        log_std = torch.zeros(STARTS, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([mean, log_std], lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        path = [torch.stack([mean, log_std.exp()], dim=1).detach()]
        for _ in range(self.steps):
            optimizer.zero_grad()
            divergence(gaussians(mean[:, None], log_std.exp()[:, None], x)).sum().backward()
            optimizer.step()
            schedule.step()
            path.append(torch.stack([mean, log_std.exp()], dim=1).detach())
        with torch.no_grad():
            return torch.stack(path), divergence(gaussians(mean[:, None], log_std.exp()[:, None], x))

    def table(self, numbers: Numbers) -> Table:
        rows = [
            [
                name,
                *(f"{fit[key]:.3f}" for key in ("mean", "std", "value")),
                f"{fit['covered']:.0%}",
                f"{fit['invented']:.0%}",
            ]
            for name, fit in numbers["fits"].items()
        ]
        return Table(["q fitted by", "mean", "std", "reached", "data within 2 std", "q where p is small"], rows)

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        fig, axes = figure(2, 4, width=3.4, height=2.8)
        for i, (name, fit) in enumerate(numbers["fits"].items()):
            top, bottom = axes[i], axes[4 + i]
            show_data(top, numbers)
            top.plot(numbers["x"], fit["q"], color=COLORS[1], lw=2)
            top.set(title=f"least {name}")
            bottom.contour(
                numbers["means"], numbers["stds"], fit["surface"].log(), levels=14, cmap="Greys_r", linewidths=0.8
            )
            paths = fit["paths"]  # (steps + 1, S, 2)
            bottom.plot(paths[..., 0], paths[..., 1], color=COLORS[0], lw=1)
            bottom.plot(paths[0, :, 0], paths[0, :, 1], ".", color=COLORS[0])
            bottom.plot(fit["mean"], fit["std"], "*", color=COLORS[1], ms=12)
            bottom.set(xlabel="mean of q", yscale="log", yticks=(0.5, 1, 2, 4), yticklabels=("0.5", "1", "2", "4"))
            bottom.minorticks_off()
        axes[4].set(title="where each descent goes", ylabel="std of q")
        return {"divergences": fig, "divergences_descent": self.frames(numbers)}

    def frames(self, numbers: Numbers) -> list[Figure]:
        """Frames of the four q on their way, dense at first, when they move fast."""
        made = []
        for k in torch.linspace(0, 1, 32).square().mul(self.steps).round().int().unique().tolist():
            fig, (ax,) = figure(width=6, height=3.4)
            show_data(ax, numbers)
            for color, (name, fit) in zip(COLORS[1:], numbers["fits"].items(), strict=False):
                mean, std = fit["paths"][k, fit["best"]]
                ax.plot(numbers["x"], Normal(mean, std).log_prob(numbers["x"]).exp(), color=color, lw=2, label=name)
            ax.set(title=f"descent to the least divergence, step {k}")
            ax.legend(frameon=False, loc="upper left")
            made.append(fig)
        return made


def gaussians(mean: Tensor, std: Tensor, x: Tensor) -> Tensor:
    """Log densities of Gaussians with means and stds (..., 1) at `x` (P,) -> (..., P)."""
    log_q: Tensor = Normal(mean, std).log_prob(x)
    return log_q


def show_data(ax: Axes, numbers: Numbers) -> None:
    x, p = numbers["x"], numbers["p"]
    ax.fill_between(x, p, color=COLORS[0], alpha=0.3, lw=0)
    seen = x[p > p.max() / 1000]
    ax.set(xlim=(seen.min().item() - 1, seen.max().item() + 1), ylim=(0, 1.7 * p.max().item()), yticks=())
