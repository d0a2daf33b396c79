"""Spectral norm's power iteration against the singular value decomposition, and its product as a Lipschitz bound."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from equipoise.core.plots import COLORS, Picture, figure
from equipoise.core.randomness import Purpose, seed_torch
from equipoise.core.types import Batch, ImageSpec, component
from equipoise.losses import R1, Hinge
from equipoise.models import Head, MLPDiscriminator
from equipoise.weights import NoNormalizer, Normalizer, SpectralNorm, lipschitz_bound, singular_values

from ..base import Experiment, Numbers, Table
from .optimal_discriminator import train_alone

__all__ = ["PowerIteration", "largest_gradient"]

POINTS = 10_000
"""Points where gradients are taken: from both distributions and around them."""


@component
class PowerIteration(Experiment):
    """The error of spectral norm's σ by step, and the product of σ as a Lipschitz bound (Miyato et al. 2018, sec. 2.1).

    A linear layer gets weights with known singular values s_1 > s_2 > ..., and vectors u, v from other weights. Each
    forward in training mode moves u and v once, and in the end multiplies the error of σ by (s_2/s_1)⁴. This is slow if
    s_2 is near s_1. But then the estimate is soon above s_2, and the error below 1 - s_2/s_1.

    Then networks D are trained to tell two Gaussians of the plane apart. The product of the σ of their layers is above
    the true Lipschitz constant, which is estimated by the largest gradient found. The deeper D, the looser the product.

    ratios: of each singular value to the one before. A matrix of Gaussian numbers is added.
    size: size of the square matrices.  steps: number of forwards.
    normalizer: `normalizer.iterations=2` moves u and v twice in each forward.
    depths, width: hidden layers of D and their units.  d_steps: steps of D's training.
    """

    ratios: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.8, 0.95)
    size: int = Field(default=64, ge=2)
    steps: int = Field(default=60, ge=1)
    normalizer: SpectralNorm = SpectralNorm()
    depths: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 4, 6)
    width: int = Field(default=64, ge=1)
    d_steps: int = Field(default=150, ge=1)
    seed: int = Field(default=0, ge=0)

    def run(self) -> Numbers:
        with torch.random.fork_rng(devices=[]):
            seed_torch(self.seed, Purpose.WEIGHTS)
            i = torch.arange(self.size, dtype=torch.float64)
            matrices = {f"{ratio:g}^i": with_spectrum(ratio**i) for ratio in self.ratios}
            matrices["Gaussian"] = torch.randn(self.size, self.size, dtype=torch.float64)
            spectra = {name: self.iterate(matrix) for name, matrix in matrices.items()}
            normalizers: dict[str, Normalizer] = {"plain": NoNormalizer(), "spectral norm": self.normalizer}
            networks = {
                name: [self.network(normalizer, depth) for depth in self.depths]
                for name, normalizer in normalizers.items()
            }
        return {"spectra": spectra, "depths": list(self.depths), "networks": networks}

    def iterate(self, matrix: Tensor) -> dict[str, object]:
        """Relative shortfall of the estimate of σ, before the first forward and after each."""
        layer = nn.Linear(self.size, self.size, bias=False, dtype=torch.float64)
        net = nn.Sequential(layer)
        self.normalizer(net)  # starts u and v from the layer's initial weights
        layer.weight = matrix
        sigma = torch.linalg.svdvals(matrix)
        errors = []
        for _ in range(self.steps + 1):
            estimate = sigma[0] / singular_values(net)["0"][0]  # the layer's weight is matrix / estimate
            errors.append((1 - estimate / sigma[0]).item())  # uᵀWv is at most σ
            net(torch.zeros(1, self.size, dtype=torch.float64))
        return {"sigma": sigma[0].item(), "ratio": (sigma[1] / sigma[0]).item(), "errors": errors}

    def network(self, normalizer: Normalizer, depth: int) -> dict[str, float]:
        """The bound on the Lipschitz constant of a trained D, and its largest gradient."""
        D = Head().build(MLPDiscriminator(self.width, depth).build, ImageSpec(resolution=1, channels=2))
        normalizer(D)
        side = torch.tensor([1.0, 0.0]).view(2, 1, 1)

        def draw(num: int = 128, std: float = 0.5) -> tuple[Tensor, Tensor]:
            return side + std * torch.randn(num, 2, 1, 1), -side + std * torch.randn(num, 2, 1, 1)

        for _ in train_alone(D, Hinge(), draw, steps=self.d_steps, lr=2e-3):
            pass
        D.eval()
        return {
            "bound": lipschitz_bound(D).item(),
            "gradient": largest_gradient(D, torch.cat(draw(POINTS // 2, std=2.0))),
        }

    def table(self, numbers: Numbers) -> Table:
        rows = []
        for name, found in numbers["spectra"].items():
            for k in sorted({1, 10, self.steps} & {*range(self.steps + 1)}):
                error, sigma = found["errors"][k], found["sigma"]
                rows.append([f"σ, {name}, after {k}", f"{sigma:.4f}", f"{sigma * (1 - error):.4f}", f"{-error:.1e}"])
        for name, networks in numbers["networks"].items():
            for depth, D in zip(numbers["depths"], networks, strict=True):
                bound, gradient = D["bound"], D["gradient"]
                rows.append(
                    [f"D, {depth} hidden, {name}", f"{gradient:.4f}", f"{bound:.4f}", f"{bound / gradient - 1:+.1e}"]
                )
        return Table(["σ; Lipschitz constant", "SVD; gradient", "estimate; Π σ", "error"], rows)

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        fig, (errors, bounds) = figure(1, 2, width=5, height=3.6)
        for color, (name, found) in zip(COLORS, numbers["spectra"].items(), strict=False):
            by_step = torch.tensor(found["errors"], dtype=torch.float64).clamp_min(1e-16)
            errors.plot(by_step, color=color, lw=2, label=name)
            steps = torch.arange(len(by_step))[by_step < 1e-3]
            if len(steps):  # the theory's slope from here on
                rate = found["ratio"] ** (4 * self.normalizer.iterations)
                errors.plot(steps, by_step[steps[0]] * rate ** (steps - steps[0]), "k:", lw=1)
        errors.set(
            title="error of σ by power iteration, (s₂/s₁)⁴ dotted", xlabel="forward", yscale="log", ylim=(1e-16, 2)
        )
        for color, (name, networks) in zip(COLORS, numbers["networks"].items(), strict=False):
            bounds.plot(numbers["depths"], [D["bound"] for D in networks], color=color, lw=2, label=f"{name}: Π σ")
            bounds.plot(
                numbers["depths"], [D["gradient"] for D in networks], "o:", color=color, label="largest gradient"
            )
        bounds.set(title="Lipschitz constant of a trained D", xlabel="hidden layers", yscale="log")
        errors.legend(
            title="singular values", frameon=False, fontsize="small", loc="lower right", bbox_to_anchor=(1, 0.1)
        )
        bounds.legend(frameon=False, fontsize="small")
        return {"power_iteration": fig}


def with_spectrum(values: Tensor) -> Tensor:
    """A float64 matrix with these singular values and random singular vectors."""
    left, right = (torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64)).Q for _ in range(2))
    matrix: Tensor = left * values @ right.T
    return matrix


def largest_gradient(D: nn.Module, x: Tensor) -> float:
    """The largest ‖grad D‖ at `x`, (N, C, H, W): at most the Lipschitz constant of D."""
    squares = R1()(lambda x, y: D(x, y).fun, Batch(x), Batch(x))  # (N,)
    return squares.max().sqrt().item()
