"""The games of the Dirac-GAN: its discriminators, its stabilisers, and all games played at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from equipoise.augment import Augment, InstanceNoise, NoAugment
from equipoise.core.types import Batch, Logits, Told
from equipoise.losses import (
    R1,
    R2,
    Consensus,
    Dragan,
    GANLoss,
    GradientPenalty,
    JointPenalty,
    Penalty,
    discriminator_loss,
    generator_loss,
    penalties,
)
from equipoise.losses import adversarial as losses
from equipoise.nn import LinearHead, SANHead

__all__ = ["DISCRIMINATORS", "Discriminator", "Games", "Stabiliser", "all_losses", "stabilisers", "undecided"]

# ---- D ---------------------------------------------------------------------------------------------------


class Given(nn.Module):
    """Conditioning with given vectors w(y), one for each image."""

    def __init__(self, w: Tensor):
        super().__init__()
        self.w = w

    def forward(self, _y: Tensor | None) -> Tensor:
        return self.w


def plain(phi: Tensor, x: Tensor) -> Logits:
    logits: Logits = LinearHead(Given(phi))(x[:, None])
    return logits


def san_direction(phi: Tensor, x: Tensor) -> Logits:
    h = torch.stack([x, torch.zeros_like(x)], dim=1)
    logits: Logits = SANHead(Given(phi))(h)
    return logits


def san_features(phi: Tensor, x: Tensor) -> Logits:
    psi = phi[:, 0]
    h = torch.stack([psi * x, torch.zeros_like(x)], dim=1)
    logits: Logits = SANHead(Given(phi[:, 1:]))(h)
    return logits


@dataclass(frozen=True)
class Discriminator:
    """A D whose logit is (slope) · x, and an equilibrium of its game: θ = 0, slope 0.

    logits: phi (N, K), x (N,) -> Logits (N, 1).
    equilibrium: phi at the equilibrium. Near it the slope is phi[0] times a constant, so the other components of phi
        move along a set of equilibria.
    per_slope: dphi[0] / dslope at the equilibrium.
    san: whether D has a direction, which a paired loss cannot train.
    """

    logits: Callable[[Tensor, Tensor], Logits]
    equilibrium: tuple[float, ...]
    per_slope: float = 1.0
    san: bool = False

    def trains(self, loss: GANLoss) -> bool:
        return not (self.san and loss.paired)

    def start(self, theta: Tensor, slope: Tensor) -> Tensor:
        """The state (θ, phi) with this θ and slope, (...) each -> (..., 1 + K)."""
        rest = [torch.full_like(theta, value) for value in self.equilibrium[1:]]
        return torch.stack([theta, self.per_slope * slope, *rest], dim=-1)

    def slope(self, phi: Tensor) -> Tensor:
        """D's slope, phi (..., K) -> (...)."""
        flat = phi.reshape(-1, phi.shape[-1])
        one = flat.new_ones(len(flat))
        return (self.logits(flat, one).fun - self.logits(flat, 0 * one).fun).reshape(phi.shape[:-1])


DISCRIMINATORS: Mapping[str, Discriminator] = {
    "plain": Discriminator(plain, (0.0,)),
    "SAN, direction": Discriminator(san_direction, (0.0, 1.0), san=True),
    "SAN, features": Discriminator(san_features, (0.0, 0.8, 0.6), per_slope=1 / 0.8, san=True),
}


# ---- what stabilises it ------------------------------------------------------------------------------------


QUIET = NoAugment()


@dataclass(frozen=True)
class Stabiliser:
    """Additions to a loss: penalties on D, joint penalties, augmentation."""

    penalties: tuple[Penalty, ...] = ()
    joint: tuple[JointPenalty, ...] = ()
    augment: Augment = QUIET


ZERO_CENTRED = "zero-centred GP"
WGAN_GP = "WGAN-GP"
ONE_SIDED = "one-sided GP"
NOISE = "instance noise"
CONSENSUS = "consensus"


def stabilisers(gamma: float = 0.6, std: float = 1.0) -> dict[str, Stabiliser]:
    """Stabilisers by name. A penalty of the library that is not named here comes with its default settings.

    gamma: gamma of R1, R2 and consensus. The other penalties named here get the strength gamma/2, which weighs them
        alike.
    std: std of instance noise.
    """
    named = {
        "none": Stabiliser(),
        "R1": Stabiliser((R1(gamma=gamma, every=1),)),
        "R2": Stabiliser((R2(gamma=gamma, every=1),)),
        ZERO_CENTRED: Stabiliser((GradientPenalty(strength=gamma / 2, target=0.0),)),
        WGAN_GP: Stabiliser((GradientPenalty(strength=gamma / 2),)),
        ONE_SIDED: Stabiliser((GradientPenalty(strength=gamma / 2, one_sided=True),)),
        "DRAGAN": Stabiliser((Dragan(strength=gamma / 2),)),
        NOISE: Stabiliser(augment=InstanceNoise(std=std)),
        CONSENSUS: Stabiliser(joint=(Consensus(gamma=gamma),)),
    }
    kinds = {type(penalty) for stabiliser in named.values() for penalty in stabiliser.penalties}
    others = [kind for kind in components(penalties) if kind not in kinds]
    return named | {kind.__name__: Stabiliser((kind(),)) for kind in others}


def all_losses() -> dict[str, GANLoss]:
    """Every loss of the library with its default settings, by name."""
    return {kind.__name__: kind() for kind in components(losses)}


def components(module: Any) -> list[type[Any]]:
    """The classes of settings among a module's public names."""
    public: list[type[Any]] = [getattr(module, name) for name in module.__all__]
    return [kind for kind in public if hasattr(kind, "__dataclass_fields__")]


class Draws(TorchFunctionMode):
    """A mode in which torch.randn_like gives `draws`, so that the library's own noise takes a quadrature's values."""

    def __init__(self, draws: Tensor):
        super().__init__()
        self.draws = draws

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.randn_like:
            return self.draws.expand_as(args[0])
        return func(*args, **(kwargs or {}))


def equally_likely(num: int) -> Tensor:
    """(num,) values of equal weight for N(0, 1): its quantiles, scaled to its variance. Odd moments are exact too."""
    middle = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    values: Tensor = torch.special.ndtri(middle)
    return values / values.square().mean().sqrt()


NOISE_VALUES = equally_likely(8)


# ---- the games ---------------------------------------------------------------------------------------------


def undecided(loss: GANLoss) -> float:
    """The logit of the best D where data and generated images are alike: the t near 0 with the least d(t, t).

    It is 1/2 for least squares, whose targets are 0 and 1. A bias in D would learn it.
    """
    t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    for _ in range(50):
        (slope,) = torch.autograd.grad(loss.d(t, t).sum(), t, create_graph=True)
        if abs(slope.item()) < 1e-14 or not slope.requires_grad:
            break
        (curvature,) = torch.autograd.grad(slope.sum(), t)
        if not curvature.item() > 0:
            break
        t = (t - slope / curvature).detach().requires_grad_(True)  # Newton's step
    return t.item()


class Games:
    """Every loss with every stabiliser, played at once and independently, from S places each.

    A state holds (θ, phi) of each game: (L, P, S, 1 + K) for L losses and P stabilisers. A batch holds one image of
    each game, and losses are summed over games. So one gradient holds the gradients of all games.
    """

    def __init__(self, D: Discriminator, losses: Iterable[GANLoss], stabilisers: Iterable[Stabiliser]):
        self.D, self.losses, self.stabilisers = D, list(losses), list(stabilisers)
        self.bias = torch.tensor([undecided(loss) for loss in self.losses], dtype=torch.float64)
        noisy = [p for p, s in enumerate(self.stabilisers) if not isinstance(s.augment, NoAugment)]
        quiet = [p for p in range(len(self.stabilisers)) if p not in noisy]
        self.groups = [group for group in (quiet, *([p] for p in noisy)) if group]

    def equilibrium(self) -> Tensor:
        """The state of every game at its equilibrium, (L, P, 1, 1 + K)."""
        state = torch.tensor([0.0, *self.D.equilibrium], dtype=torch.float64)
        return state.expand(len(self.losses), len(self.stabilisers), 1, -1).clone()

    def field(self, state: Tensor) -> Tensor:
        """The field of gradient descent: minus both players' gradients, with a graph if `state` requires a gradient."""
        with torch.enable_grad():
            theta, phi = players(state)
            d, g = self.objectives(theta, phi)
            d = d + self.penalty(theta, phi)
            create_graph = state.requires_grad
            (for_phi,) = torch.autograd.grad(d, phi, create_graph=create_graph, retain_graph=True)
            (for_theta,) = torch.autograd.grad(g, theta, create_graph=create_graph)
        return -torch.cat([for_theta[..., None], for_phi], dim=-1)

    def field_of_g(self, state: Tensor) -> Tensor:
        """θ's part of the field, (L, P, S)."""
        with torch.enable_grad():
            theta, phi = players(state)
            (for_theta,) = torch.autograd.grad(self.objectives(theta, phi, of_d=False)[1], theta)
        return -for_theta

    def objectives(self, theta: Tensor, phi: Tensor, *, of_d: bool = True) -> tuple[Tensor, Tensor]:
        """Objectives of D and G without D's penalties, summed over games. of_d: whether D's objective is needed."""
        thetas, phis, total = theta.unbind(1), phi.unbind(1), []
        for group in self.groups:
            group_theta, group_phi = (torch.stack([part[p] for p in group], dim=1) for part in (thetas, phis))
            on_real, on_fake = self.seen(group_theta, group_phi, self.stabilisers[group[0]].augment)
            num = group_theta[0].numel()  # games of a loss: the library's mean over their images becomes their sum
            triples = list(zip(self.losses, on_real, on_fake, strict=True))
            joint = [(joint, p) for p in group for joint in self.stabilisers[p].joint]
            d = theta.new_zeros(())
            if of_d or joint:
                d = num * torch.stack([discriminator_loss(loss, r, f) for loss, r, f in triples]).sum()
            g = num * torch.stack([generator_loss(loss, f, r) for loss, r, f in triples]).sum()
            values = [penalty.weight(0) * penalty(d, g, [phis[p]], [thetas[p]]) for penalty, p in joint]
            total.append(torch.stack([d, g]) + sum(values))
        d, g = torch.stack(total).sum(0)
        return d, g

    def seen(self, theta: Tensor, phi: Tensor, augment: Augment) -> tuple[list[Logits], list[Logits]]:
        """D's logits of real and of generated images, for each loss. theta (L, P, S), phi (L, P, S, K)."""
        fake = theta[..., None]
        real = torch.zeros_like(fake)
        if not isinstance(augment, NoAugment):
            noise, n = augment.build(), len(NOISE_VALUES)
            with Draws(NOISE_VALUES.repeat_interleave(n)):
                real = noise(real.expand(*theta.shape, n * n))
            with Draws(NOISE_VALUES.repeat(n)):  # independent of the real images' noise
                fake = noise(fake.expand(*theta.shape, n * n))
        return self.logits(phi, real), self.logits(phi, fake)

    def logits(self, phi: Tensor, x: Tensor) -> list[Logits]:
        """D(x) + the loss's undecided logit, (P S Q, 1), for each loss. phi (L, P, S, K), x (L, P, S, Q)."""
        per_image = phi[..., None, :].expand(*x.shape, -1).flatten(0, -2)
        out = self.D.logits(per_image, x.flatten())
        fun = out.fun.view(len(x), -1, 1) + self.bias[:, None, None]
        if out.dir is None:
            return [Logits(values) for values in fun]
        directions = out.dir.view(len(x), -1, 1) + self.bias[:, None, None]
        return [Logits(*values) for values in zip(fun, directions, strict=True)]

    def penalty(self, theta: Tensor, phi: Tensor) -> Tensor:
        """Sum of D's penalties over games. Lazy penalties are applied in every step: `every` changes no mean."""
        total = [phi.new_zeros(())]
        for p, stabiliser in enumerate(self.stabilisers):
            weights = phi[:, p].flatten(0, 1)  # (L S, K)

            def critic(x: Tensor, _y: Told, weights: Tensor = weights) -> Tensor:
                return self.D.logits(weights, x.flatten()).fun

            fake = Batch(theta[:, p].reshape(-1, 1))
            real = Batch(torch.zeros_like(fake.x))
            total += [penalty.weight(0) * penalty(critic, real, fake).sum() for penalty in stabiliser.penalties]
        return torch.stack(total).sum()


def players(state: Tensor) -> tuple[Tensor, Tensor]:
    """θ (...) and phi (..., K) of a state, with a gradient of their own."""
    if not state.requires_grad:
        state = state.detach().requires_grad_(True)
    return state[..., 0], state[..., 1:]
