"""The direction that D's last layer learns, and the direction that best separates the features (Takida et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from equipoise.config import TrainConfig
from equipoise.core.plots import COLORS, Axes, Figure, Picture, figure
from equipoise.core.randomness import Purpose, seed_torch
from equipoise.core.types import Logits, RunError, component
from equipoise.losses import R1, GANLoss, Hinge, NonSaturating, Penalty
from equipoise.models import Head, MLPDiscriminator
from equipoise.nn import LinearHead, SANHead

from ..base import Experiment, Numbers, Table
from ..points.gan import PointGAN, plain_gan
from .optimal_discriminator import train_alone

__all__ = ["SANDirection", "angle", "best_direction", "train_last_layer"]

HEADS = {"GAN": False, "SAN": True}
"""Whether the head is a SAN's."""
OF_HEAD = {"GAN": COLORS[4], "SAN": COLORS[2]}
REAL, FAKE = COLORS[:2]
ALONE: Mapping[str, tuple[GANLoss, bool]] = {
    "GAN, hinge": (Hinge(), False),
    "GAN, non-saturating": (NonSaturating(), False),
    "SAN, hinge": (Hinge(), True),
    "SAN, non-saturating": (NonSaturating(), True),
}
"""Last layers that are trained alone, on frozen features."""
ALONE_SAMPLES = 2000
"""Features of real and of generated points that the last layers alone are trained on, each."""
SHOWN = 120
"""Real points, and generated points, in a frame."""
BINS = 60
ARROW = 2.4
"""Length of an arrow, in standard deviations of the features shown."""


# ---- directions of features ------------------------------------------------------------------------------


def angle(a: Tensor, b: Tensor) -> float:
    """The angle between two vectors (F,), in degrees, from 0 to 180; 90 if one of them is 0."""
    a, b = (F.normalize(v.double(), dim=0) for v in (a, b))
    return math.degrees(2 * math.atan2((a - b).norm().item(), (a + b).norm().item()))  # exact near 0, unlike acos


def best_direction(loss: GANLoss, w: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """E r h(x) - E r h(G(z)), not normalised: SAN's direction loss pulls ω to it, and leaves an ω along it at rest.

    For hinge and Wasserstein r = -g'(<w, h>) is 1, and the result is the difference of the feature means. Its direction
    is the ω with the largest <ω, E h(x) - E h(G(z))>. Other losses weigh each image (Takida et al. 2024).

    w: (F,).  real, fake: features, (N, F).
    """
    pulls = []
    for h in (real, fake):
        t = (h @ w).detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(loss.g(t).sum(), t)
        pulls.append(-(slope[:, None] * h).mean(0))
    return pulls[0] - pulls[1]


def train_last_layer(
    loss: GANLoss, san: bool, real: Tensor, fake: Tensor, *, steps: int, lr: float
) -> Iterator[Tensor]:
    """Train a head on frozen features (N, F). Yields its w (F,), at first and after each step."""
    head = Head(san=san).factory(0)(real.shape[1])
    for _ in train_alone(head, loss, lambda: (real, fake), steps=steps, lr=lr):
        yield last_vector(head)


def last_vector(net: nn.Module) -> Tensor:
    """A copy of w (F,) of a head, or of the head in a D."""
    (head,) = (module for module in net.modules() if isinstance(module, LinearHead | SANHead))
    w: Tensor = head.conditioning(None)
    return w.detach()[0].clone()


# ---- the experiment --------------------------------------------------------------------------------------


@component
class SANDirection(Experiment):
    """The angle between D's last layer and the direction that separates the features best, in a GAN and in a SAN.

    D = <w, h(x)>, and ω = w/‖w‖ separates the feature means by <ω, E h(x) - E h(G(z))>. The separation is largest along
    their difference, and a share cos(angle) of the largest otherwise (Takida et al. 2024, "direction optimality").
    SAN's direction loss of `Hinge` has its optimum there. A hinge or logistic loss alone trains ω to classify. That
    direction is another one, unless the features vary alike in all directions.

    GAN and SAN train on a ring of Gaussians with the same networks, data and seeds. The angle is taken between ω and
    the difference of the means of `samples` fresh points. Then last layers are trained alone, on frozen features of the
    GAN half way.

    loss, penalties: of GAN and SAN.  iterations: length of training.  seeds: number of runs of each.
    moments: number of looks at a run, and of frames.  steps, lr: training of the last layers alone.
    width: units of each of D's three hidden layers, and so the number of features.
    """

    loss: GANLoss = Hinge()
    penalties: tuple[Penalty, ...] = (R1(gamma=0.1, every=1),)
    iterations: int = Field(default=900, ge=2)
    seeds: int = Field(default=3, ge=1)
    moments: int = Field(default=31, ge=2)
    samples: int = Field(default=8000, ge=SHOWN)
    steps: int = Field(default=600, ge=1)
    lr: float = Field(default=0.02, gt=0)
    width: int = Field(default=64, ge=2)

    def __post_init__(self) -> None:
        self.config(san=True, seed=0)  # refuses a loss that cannot train a SAN

    def config(self, *, san: bool, seed: int) -> TrainConfig:
        return replace(
            plain_gan(),
            discriminator=MLPDiscriminator(width=self.width, depth=3),
            head=Head(san=san),
            loss=self.loss,
            terms=self.penalties,
            seed=seed,
        )

    def run(self) -> Numbers:
        moments = torch.linspace(0, self.iterations, self.moments).round().int().unique().tolist()
        middle = moments[len(moments) // 2]
        runs: dict[str, list[dict[str, list[float]]]] = {name: [] for name in HEADS}
        frames: dict[str, list[Tensor]] = {name: [] for name in HEADS}
        histograms, fixed = {}, {}
        for name, san in HEADS.items():
            for seed in range(self.seeds):
                found: dict[str, list[float]] = {"angle": [], "sampling": []}
                for moment, w, real, fake in self.follow(PointGAN(self.config(san=san, seed=seed)), moments):
                    best = real.mean(0) - fake.mean(0)
                    found["angle"].append(angle(w, best))
                    found["sampling"].append(sampling_error(real, fake))
                    if seed == 0:
                        frames[name].append(in_plane(w, best, real[:SHOWN], fake[:SHOWN]))
                        if moment == middle:
                            fixed[name] = real, fake
                            histograms[name] = {
                                "learned": histogram(w, real, fake),
                                "best": histogram(best, real, fake),
                            }
                runs[name].append(found)
        return {
            "iterations": moments,
            "runs": runs,
            "alone": {name: self.alone(*setting, *fixed["GAN"]) for name, setting in ALONE.items()},
            "middle": middle,
            "histograms": histograms,
            "frames": frames,
        }

    def follow(self, gan: PointGAN, moments: list[int]) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Train `gan`. Yields at each moment the iteration, w (F,), and features of fresh real and generated points.

        Raises:
            RunError: if w or features are not finite.
        """
        for iteration in range(self.iterations + 1):
            if iteration in moments:
                real = gan.batch(self.samples, Purpose.SAMPLES)
                fake = gan.gan.generate(real, Purpose.STANDING, gan.nimg)
                look = last_vector(gan.gan.D), features(gan.gan.D(real.x)), features(gan.gan.D(fake.x))
                if not all(part.isfinite().all() for part in look):
                    raise RunError(f"D's features are not finite after {iteration} iterations: see loss and penalties")
                yield iteration, *look
            if iteration < self.iterations:
                gan.iterate()

    def alone(self, loss: GANLoss, san: bool, real: Tensor, fake: Tensor) -> dict[str, list[float]]:
        """Angles to the difference of the means, and to the `best_direction` of this loss."""
        real, fake = real[:ALONE_SAMPLES], fake[:ALONE_SAMPLES]
        difference = real.mean(0) - fake.mean(0)
        angles: dict[str, list[float]] = {"angle": [], "own": []}
        with torch.random.fork_rng(devices=[]):
            seed_torch(0, Purpose.WEIGHTS)
            for w in train_last_layer(loss, san, real, fake, steps=self.steps, lr=self.lr):
                angles["angle"].append(angle(w, difference))
                angles["own"].append(angle(w, best_direction(loss, w, real, fake)))
        return angles

    def table(self, numbers: Numbers) -> Table:
        rows = []
        for name in HEADS:
            angles = torch.tensor([run["angle"] for run in numbers["runs"][name]])  # (seeds, moments)
            late = angles[:, angles.shape[1] // 2 :]
            share = late.deg2rad().cos().mean()
            rows.append([f"{name}, second half of training", f"{late.mean():.1f}", f"{share:.0%}", ""])
        for name, found in numbers["alone"].items():
            last, own = found["angle"][-1], f"{found['own'][-1]:.1f}" if name.startswith("SAN") else ""
            rows.append([f"{name}, features fixed", f"{last:.1f}", f"{math.cos(math.radians(last)):.0%}", own])
        return Table(["last layer", "degrees", "separation", "from its own best"], rows)

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        fig, (live, alone, *sides) = figure(1, 4, width=3.6, height=3.4)
        floor = []
        for name, runs in numbers["runs"].items():
            angles = torch.tensor([run["angle"] for run in runs])  # (seeds, moments)
            floor += [run["sampling"] for run in runs]
            low, high = angles.amin(0), angles.amax(0)
            live.fill_between(numbers["iterations"], low, high, color=OF_HEAD[name], alpha=0.2, lw=0)
            live.plot(numbers["iterations"], angles.mean(0), color=OF_HEAD[name], lw=2, label=name)
        live.plot(numbers["iterations"], torch.tensor(floor).mean(0), ":", color=COLORS[6], label="sampling error")
        live.set(title="G and D trained", xlabel="iteration", ylabel="angle to the best direction, degrees")
        for name, found in numbers["alone"].items():
            style = "-" if "hinge" in name else "--"
            alone.plot(found["angle"], style, color=OF_HEAD[name[:3]], label=name)
        alone.plot(numbers["alone"]["SAN, non-saturating"]["own"], ":", color=OF_HEAD["SAN"], label="… to its own best")
        alone.set(title="last layer alone, features fixed", xlabel="step")
        for ax in (live, alone):
            ax.set(ylim=(0, 100), yticks=(0, 15, 30, 45, 60, 75, 90))
            ax.legend(frameon=False, fontsize="small")
        for ax, (name, found) in zip(sides, numbers["histograms"].items(), strict=True):
            draw_histograms(ax, found)
            ax.set(title=f"{name}'s features, iteration {numbers['middle']}", xlabel="along the direction")
        return {"san_direction": fig, "san_direction_moving": self.moving(numbers)}

    def moving(self, numbers: Numbers) -> list[Figure]:
        """Frames of the features in the plane of the two directions."""
        made = []
        for k, iteration in enumerate(numbers["iterations"]):
            fig, axes = figure(1, 2, width=3.5, height=3.7)
            for ax, name in zip(axes, HEADS, strict=True):
                degrees = numbers["runs"][name][0]["angle"][k]
                draw_plane(ax, numbers["frames"][name][k], degrees, OF_HEAD[name])
                ax.set(title=f"{name}, iteration {iteration}: {degrees:.0f}°")
            made.append(fig)
        return made


# ---- measures and drawings of features -------------------------------------------------------------------


def features(output: Logits) -> Tensor:
    """The features (N, F) that D's output carries."""
    assert output.features is not None
    return output.features.detach()


def sampling_error(real: Tensor, fake: Tensor) -> float:
    """Estimate, in degrees, of the error that sampling makes in the direction of the difference of means.

    The directions from the two halves of the points differ by about twice this error.
    """
    first, second = (real[i::2].mean(0) - fake[i::2].mean(0) for i in (0, 1))
    return angle(first, second) / 2


def in_plane(w: Tensor, best: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Features, (N, F) each -> (2, N, 2), in the plane of w and best, w to the right and best upwards.

    The origin is between the means, and the unit is the standard deviation of all points.
    """
    right = F.normalize(w, dim=0)
    up = F.normalize(best - (best @ right) * right, dim=0)
    points = (torch.stack([real, fake]) @ torch.stack([right, up], dim=1)).double()
    points = points - points.mean((0, 1))
    return (points / points.std().clamp_min(1e-12)).round(decimals=3)


def histogram(direction: Tensor, real: Tensor, fake: Tensor) -> dict[str, Any]:
    """Densities of <direction, h> / ‖direction‖, 0 between the means."""
    values = torch.stack([real, fake]) @ F.normalize(direction, dim=0)  # (2, N)
    values = values - values.mean()
    low, high = values.flatten().quantile(torch.tensor([0.001, 0.999])).tolist()
    edges = torch.linspace(low, high, BINS + 1)
    densities = [torch.histogram(part, edges, density=True).hist for part in values]
    distance = (values[0].mean() - values[1].mean()).item()
    return {"edges": edges, "real": densities[0], "fake": densities[1], "apart": distance}


def draw_histograms(ax: Axes, found: Mapping[str, Any]) -> None:
    """Draw histograms along the learned direction upwards, and along the best direction downwards."""
    for key, sign in (("learned", 1), ("best", -1)):
        edges = torch.as_tensor(found[key]["edges"])
        for of, color in (("real", REAL), ("fake", FAKE)):
            label = {"real": "real", "fake": "generated"}[of] if sign > 0 else None
            ax.stairs(sign * torch.as_tensor(found[key][of]), edges, fill=True, color=color, alpha=0.4, label=label)
        ax.text(
            *(0.03, 0.97 if sign > 0 else 0.03),
            f"{key} direction:\nmeans {found[key]['apart']:.2f} apart",
            transform=ax.transAxes,
            va="top" if sign > 0 else "bottom",
            fontsize="small",
        )
    ax.axhline(0, color="k", lw=0.8)
    highest = max(found[key][of].max().item() for key in found for of in ("real", "fake"))
    ax.set(yticks=(), ylim=(-1.5 * highest, 1.5 * highest))
    ax.legend(frameon=False, fontsize="small", loc="lower right")


def draw_plane(ax: Axes, points: Tensor, degrees: float, color: str) -> None:
    """Draw real and generated points (2, N, 2) with both directions.

    degrees: angle from w, which points to the right, to the best direction.
    """
    for part, shade, label in zip(points, (REAL, FAKE), ("real", "generated"), strict=True):
        ax.plot(*part.T, ".", color=shade, ms=4, alpha=0.6, label=label)
    turn = math.radians(degrees)
    for x, y, shade, label in ((1.0, 0.0, color, "learned"), (math.cos(turn), math.sin(turn), "k", "best")):
        shape = {"color": shade, "width": 1.5, "headwidth": 7, "headlength": 8}
        ax.annotate("", (ARROW * x, ARROW * y), (0, 0), arrowprops=shape)
        ax.plot([], [], color=shade, lw=2, label=label)
    ax.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), xticks=(), yticks=(), aspect="equal")
    ax.legend(frameon=False, fontsize="small", loc="lower center", ncols=4, bbox_to_anchor=(0.5, -0.12), handlelength=1)
