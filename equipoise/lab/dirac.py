"""The smallest GAN, data at 0, G(z) = θ, D(x) = ψx: which settings arrive, which circle (Mescheder et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .. import losses, penalties
from ..augment import Augment, InstanceNoise, NoAugment
from ..heads import LinearHead, SANHead
from ..joint import Consensus, JointPenalty
from ..losses import GANLoss
from ..objective import discriminator_loss, generator_loss
from ..penalties import R1, R2, Dragan, GradientPenalty, Penalty
from ..types import Batch, Logits, component
from .base import Experiment, Numbers, Table
from .plots import COLORS, Axes, Figure, Picture, figure

__all__ = ["DISCRIMINATORS", "Dirac", "Games", "Stabiliser", "jacobian", "kinked", "stabilisers", "undecided"]

# ---- D ---------------------------------------------------------------------------------------------------


class Given(nn.Module):
    """w(y) = the vectors it was given, one for each image."""

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
    equilibrium: phi there. The slope is phi[0] times a constant near it, so the others move along a set of equilibria.
    per_slope: dphi[0] / dslope there.
    san: whether it has a direction, for which a paired loss has no loss.
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
        """(..., K) -> (...)."""
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
    """What is added to a loss."""

    penalties: tuple[Penalty, ...] = ()
    joint: tuple[JointPenalty, ...] = ()
    augment: Augment = QUIET


ZERO_CENTRED = "zero-centred GP"
WGAN_GP = "WGAN-GP"
ONE_SIDED = "one-sided GP"
NOISE = "instance noise"
CONSENSUS = "consensus"


def stabilisers(gamma: float = 0.6, std: float = 1.0) -> dict[str, Stabiliser]:
    """By name. A penalty of the library that is not named here comes with its default settings.

    gamma: of R1, R2 and consensus; strength gamma/2 of the others, which weighs them alike.  std: of instance noise.
    """
    known = {
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
    named = {type(penalty) for stabiliser in known.values() for penalty in stabiliser.penalties}
    others = [kind for kind in components(penalties) if kind not in named]
    return known | {kind.__name__: Stabiliser((kind(),)) for kind in others}


def all_losses() -> dict[str, GANLoss]:
    """Every loss of the library with its default settings, by name."""
    return {kind.__name__: kind() for kind in components(losses)}


def components(module: Any) -> list[type[Any]]:
    """The classes of settings among what a module makes public."""
    public: list[type[Any]] = [getattr(module, name) for name in module.__all__]
    return [kind for kind in public if hasattr(kind, "__dataclass_fields__")]


class Draws(TorchFunctionMode):
    """Within it, torch.randn_like gives `draws`, so that the library's own noise is that of a quadrature."""

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
    """The logit of the best D where data and generated images are alike: the t of least d(t, t), near 0.

    1/2 for least squares, whose targets are 0 and 1. D's bias, if it had one, would learn it.
    """
    t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    for _ in range(50):
        (slope,) = torch.autograd.grad(loss.d(t, t).sum(), t, create_graph=True)
        if abs(slope.item()) < 1e-14 or not slope.requires_grad:
            break
        (curvature,) = torch.autograd.grad(slope.sum(), t)
        if not curvature.item() > 0:
            break
        t = (t - slope / curvature).detach().requires_grad_(True)  # Newton's
    return t.item()


class Games:
    """Every loss with every stabiliser, played at once from S places each, without knowing of one another.

    A state holds (θ, phi) of each: (L, P, S, 1 + K) for L losses and P stabilisers. A batch of images holds one of each
    game, and losses are summed over games, so one gradient is that of every game.
    """

    def __init__(self, D: Discriminator, losses: Iterable[GANLoss], stabilisers: Iterable[Stabiliser]):
        self.D, self.losses, self.stabilisers = D, list(losses), list(stabilisers)
        self.bias = torch.tensor([undecided(loss) for loss in self.losses], dtype=torch.float64)
        noisy = [p for p, s in enumerate(self.stabilisers) if not isinstance(s.augment, NoAugment)]
        quiet = [p for p in range(len(self.stabilisers)) if p not in noisy]
        self.groups = [group for group in (quiet, *([p] for p in noisy)) if group]

    def equilibrium(self) -> Tensor:
        """(L, P, 1, 1 + K)."""
        state = torch.tensor([0.0, *self.D.equilibrium], dtype=torch.float64)
        return state.expand(len(self.losses), len(self.stabilisers), 1, -1).clone()

    def field(self, state: Tensor) -> Tensor:
        """Gradient descent of both players, minus their gradients, with a graph if `state` has one."""
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
        """What D and G minimise, without penalties on D: sums over games. of_d: whether the former is asked for."""
        thetas, phis, total = theta.unbind(1), phi.unbind(1), []
        for group in self.groups:
            some_theta, some_phi = (torch.stack([of[p] for p in group], dim=1) for of in (thetas, phis))
            on_real, on_fake = self.seen(some_theta, some_phi, self.stabilisers[group[0]].augment)
            num = some_theta[0].numel()  # games of a loss: the library's mean over their images becomes their sum
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
        """For each loss, D's logits of real and of generated images. theta (L, P, S), phi (L, P, S, K)."""
        fake = theta[..., None]
        real = torch.zeros_like(fake)
        if not isinstance(augment, NoAugment):
            noise, n = augment.build(), len(NOISE_VALUES)
            with Draws(NOISE_VALUES.repeat_interleave(n)):
                real = noise(real.expand(*theta.shape, n * n))
            with Draws(NOISE_VALUES.repeat(n)):  # independent of that of real images
                fake = noise(fake.expand(*theta.shape, n * n))
        return self.logits(phi, real), self.logits(phi, fake)

    def logits(self, phi: Tensor, x: Tensor) -> list[Logits]:
        """For each loss D(x) + its undecided logit, (P S Q, 1). phi (L, P, S, K), x (L, P, S, Q)."""
        per_image = phi[..., None, :].expand(*x.shape, -1).flatten(0, -2)
        out = self.D.logits(per_image, x.flatten())
        fun = out.fun.view(len(x), -1, 1) + self.bias[:, None, None]
        if out.dir is None:
            return [Logits(values) for values in fun]
        directions = out.dir.view(len(x), -1, 1) + self.bias[:, None, None]
        return [Logits(*values) for values in zip(fun, directions, strict=True)]

    def penalty(self, theta: Tensor, phi: Tensor) -> Tensor:
        """Sum over games of D's penalties. Lazy ones too are applied always: `every` changes no mean."""
        total = [phi.new_zeros(())]
        for p, stabiliser in enumerate(self.stabilisers):
            weights = phi[:, p].flatten(0, 1)  # (L S, K)

            def critic(x: Tensor, _y: Tensor | None, weights: Tensor = weights) -> Tensor:
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


# ---- at the equilibrium ------------------------------------------------------------------------------------

STEP = 1e-3
"""Of differences."""


def jacobian(games: Games) -> Tensor:
    """The Jacobian v' of each game's field at its equilibrium, (L, P, 1 + K, 1 + K): row i is the gradient of v_i.

    By autograd for a plain D. A SAN stops gradients, and autograd would leave out of v' what passes through the stopped
    ones, so there it is fourth-order differences.
    """
    at = games.equilibrium()
    if games.D.san:
        return differences(games)
    rows: Tensor = torch.autograd.functional.jacobian(lambda state: games.field(state).sum((0, 1, 2)), at)
    return rows[..., 0, :].permute(1, 2, 0, 3)  # (1 + K, L, P, 1, 1 + K): no game depends on another


def differences(games: Games) -> Tensor:
    """As `jacobian`, by central differences of fourth order."""
    one, two = (beside(games, step) - beside(games, -step) for step in (STEP, 2 * STEP))
    return (8 * one - two) / (12 * STEP)


def kinked(games: Games) -> Tensor:
    """Where v has no derivative at the equilibrium, (L, P): differences of either side, of two steps, are not alike."""
    here = games.field(games.equilibrium())[..., 0, :, None]
    ahead, behind = (beside(games, STEP) - here) / STEP, (here - beside(games, -2 * STEP)) / (2 * STEP)
    return (ahead - behind).abs().amax((-1, -2)) > 100 * STEP


def beside(games: Games, step: float) -> Tensor:
    """The field at the equilibrium + step e_j in column j, (L, P, 1 + K, 1 + K)."""
    at = games.equilibrium()
    moves = step * torch.eye(at.shape[-1], dtype=at.dtype)
    return games.field(at + moves).transpose(-1, -2)  # each direction is a start


def of_interest(values: Tensor) -> Tensor:
    """The two eigenvalues of largest size: those of the rest are 0, of moves along the set of equilibria."""
    return values[values.abs().argsort(descending=True)[:2]]


def in_turn(j: Tensor, lr: float) -> Tensor:
    """The linear map of one step of D, then one of G, from v' (1 + K, 1 + K)."""
    one = torch.eye(len(j), dtype=j.dtype)
    of_d, of_g = lr * j, lr * j
    of_d[0], of_g[1:] = 0, 0
    return (one + of_g) @ (one + of_d)


def verdict(rate: float, tolerance: float) -> str:
    """rate: growth of the logarithm of the distance per unit of time."""
    if abs(rate) <= tolerance:
        return "circles"
    return "converges" if rate < 0 else "diverges"


# ---- gradient descent --------------------------------------------------------------------------------------

NEAR, FAR = 1e-4, 1.0
"""Distances from the equilibrium at which descent starts: where v' decides, and where more does."""
LEFT = 1e3
"""A game at this distance is not followed further."""


def descend(games: Games, steps: int, lr: float) -> tuple[Tensor, Tensor]:
    """Gradient descent of every game. -> distances from the equilibrium and places (θ, slope), after each step.

    (steps + 1, L, P, 4) and (steps + 1, L, P, 4, 2). Of the 4, the first two start NEAR and the others FAR; the first
    of two moves both players at once and the second D, then G.
    """
    radius = torch.tensor([NEAR, NEAR, FAR, FAR], dtype=torch.float64) / math.sqrt(2)
    state = games.D.start(radius, radius).expand(len(games.losses), len(games.stabilisers), -1, -1).clone()
    places = [torch.stack([state[..., 0], games.D.slope(state[..., 1:])], dim=-1)]
    for _ in range(steps):
        moved = state + lr * games.field(state)
        turn = moved[..., 1::2, :].clone()
        turn[..., 0] = state[..., 1::2, 0]
        turn[..., 0] += lr * games.field_of_g(turn)
        moved[..., 1::2, :] = turn
        state = torch.where(places[-1].norm(dim=-1, keepdim=True) < LEFT, moved, state)
        places.append(torch.stack([state[..., 0], games.D.slope(state[..., 1:])], dim=-1))
    found = torch.stack(places)
    return found.norm(dim=-1), found


def late_rate(distances: Tensor, lr: float) -> Tensor:
    """Growth of log distance per unit of time, (T + 1, ...) -> (...): from the third quarter to the last.

    A unit of time is 1/lr steps. The largest distance of each quarter, which holds half a turn. At most 0 for a descent
    that ends nearer than it began, and at least 0 for one that does not: that one has left, wherever it settles.
    """
    quarter = len(distances) // 4
    third = distances[-2 * quarter : -quarter].amax(0).clamp_min(1e-300)
    last = distances[-quarter:].amax(0).clamp_min(1e-300)
    rate = (last / third).log() / (quarter * lr)
    return torch.where(last < distances[0], rate.clamp_max(0), rate.clamp_min(0))


# ---- what theory says --------------------------------------------------------------------------------------

UNKNOWN = "not known"
REFUSED = "no such game"
CURVED = ("Saturating", "NonSaturating", "LeastSquares", "SoftLeastSquares", "RelativisticPairing")
STRAIGHT = ("Hinge", "Wasserstein")
"""Whether d is curved where D is undecided, which is what instance noise needs."""


def theory(loss: str, stabiliser: str, discriminator: str) -> str:
    """What is known of gradient flow near the equilibrium; sections are those of Mescheder et al. 2018.

    Nothing (2.2, 2.3) and the one-sided penalty, which is 0 there: circles. Zero-centred penalties (3.3, 4.1) and
    consensus (Mescheder et al. 2017) converge. So does instance noise (3.2), if d'' > 0. With WGAN-GP (3.1) no descent
    converges that gives D finitely many steps; here DRAGAN is the same penalty, as data at one point has no deviation.
    """
    if discriminator != "plain" or loss not in CURVED + STRAIGHT:
        return UNKNOWN
    match stabiliser:
        case "none" | "one-sided GP":
            return "circles"
        case "R1" | "R2" | "zero-centred GP" | "consensus":
            return "converges"
        case "WGAN-GP" | "DRAGAN":
            return "does not converge"
        case "instance noise":
            return "converges" if loss in CURVED else "circles"
    return UNKNOWN


# ---- the experiment ----------------------------------------------------------------------------------------

EXACT = 1e-6
"""Real parts of eigenvalues up to this are 0."""
SLOW = 5e-3
"""Rates of trajectories up to this, per unit of time, are 0."""

TELLING = (
    ("plain", "NonSaturating", "none"),
    ("plain", "NonSaturating", "R1"),
    ("plain", "NonSaturating", "instance noise"),
    ("plain", "NonSaturating", "consensus"),
    ("plain", "Wasserstein", "none"),
    ("plain", "Wasserstein", "zero-centred GP"),
    ("plain", "Wasserstein", "WGAN-GP"),
    ("SAN, direction", "NonSaturating", "R1"),
)
"""D, loss and stabiliser of the phase portraits."""
REACH = 1.6
"""They show θ and the slope from -REACH to REACH."""
MOVING = TELLING[:3] + TELLING[4:7]
"""Those of the animation."""
COURSES_OF = ("NonSaturating", "Wasserstein")
COURSES = {
    "none": "none",
    "R1": "R1, as R2 and zero-centred GP",
    "WGAN-GP": "WGAN-GP, as DRAGAN",
    "instance noise": "instance noise",
    "consensus": "consensus",
}
"""Losses and stabilisers whose distances are drawn over time."""


def grid() -> tuple[Tensor, Tensor]:
    """θ and the slope where the arrows are, (289,) each."""
    axis = torch.linspace(-REACH, REACH, 17, dtype=torch.float64)
    theta, slope = torch.cartesian_prod(axis, axis).unbind(1)
    return theta, slope


@component
class Dirac(Experiment):
    """The Dirac-GAN (Mescheder et al. 2018, def. 2.1): every loss, every penalty, a plain and a SAN discriminator.

    Data is always 0, G always makes θ, and D(x) = ψx. At θ = ψ = 0 neither player has a reason to move. There the
    Jacobian of gradient descent has the eigenvalues ±i √(d'|g'|), d and g the losses of the players: descent circles.
    With gamma/2 ψ² added to D's they are -gamma/2 ± √(gamma²/4 - d'|g'|), and it converges. To D's logit a constant is
    added, the logit of the loss's undecided D: 1/2 for least squares, 0 for the losses that are symmetric in sign.

    SAN: in one dimension the direction is ±1 and has nothing to learn, so h has a second feature, which is always 0:
    D(x) = <w, h(x)>. "SAN, direction" has h(x) = (x, 0), and D's slope is a matter of w's direction, at the equilibrium
    w = (0, 1). "SAN, features" has h(x) = (ψx, 0), and at the equilibrium ψ = 0, w = (0.8, 0.6) it is one of h.
    Relativistic pairing has no SAN.

    gamma: of R1, R2 and consensus; twice the strength of other penalties.  std: of instance noise.
    lr, time: descent of time/lr steps, with lr small enough to follow gradient flow.
    """

    gamma: float = Field(default=0.6, gt=0)
    std: float = Field(default=1.0, gt=0)
    lr: float = Field(default=0.2, gt=0, le=0.5)
    time: float = Field(default=32.0, ge=32)

    def run(self) -> Numbers:
        verdicts: list[dict[str, Any]] = []
        portraits: dict[str, Any] = {}
        courses: dict[str, Tensor] = {}
        for name, D in DISCRIMINATORS.items():
            rows, some_portraits, some_courses = self.play(name, D)
            verdicts += rows
            portraits |= some_portraits
            courses |= some_courses
        return {
            "verdicts": verdicts,
            "grid": torch.stack(grid(), dim=1),
            "portraits": portraits,
            "distances": courses,
            "gammas": self.locus(),
        }

    def play(self, name: str, D: Discriminator) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Tensor]]:
        """Every game of this D: verdicts, and portraits and distances of the games that are drawn."""
        known = stabilisers(self.gamma, self.std)
        chosen = {loss: value for loss, value in all_losses().items() if D.trains(value)}
        games = Games(D, chosen.values(), known.values())
        jacobians, kinks = jacobian(games), kinked(games)
        distance, places = descend(games, round(self.time / self.lr), self.lr)
        rates = late_rate(distance, self.lr)
        field = games.field(D.start(*grid()).expand(len(chosen), len(known), -1, -1))
        verdicts: list[dict[str, Any]] = []
        portraits: dict[str, Any] = {}
        courses: dict[str, Tensor] = {}
        for i, loss in enumerate(chosen):
            for j, with_ in enumerate(known):
                told = {"D": name, "loss": loss, "stabiliser": with_, "theory": theory(loss, with_, name)}
                verdicts.append(told | self.verdicts(None if kinks[i, j] else jacobians[i, j], rates[i, j]))
                if (name, loss, with_) in TELLING:
                    velocity = torch.stack([field[i, j, :, 0], field[i, j, :, 1] / D.per_slope], dim=1)
                    portraits[f"{name}, {loss}, {with_}"] = {"field": velocity, "path": places[:, i, j, 2:]}
                if loss in COURSES_OF and with_ in COURSES:
                    courses[f"{name}, {loss}, {with_}"] = distance[:, i, j, :2]
        refused = dict.fromkeys(("theory", "flow", "in turn", "at once"), REFUSED)
        verdicts += [
            {"D": name, "loss": loss, "stabiliser": with_, "eigenvalues": None, **refused}
            for loss in all_losses()
            if loss not in chosen
            for with_ in known
        ]
        return verdicts, portraits, courses

    def verdicts(self, j: Tensor | None, rates: Tensor) -> dict[str, Any]:
        """Of one game: from its Jacobian, None where it has none, and from late rates of the four descents."""
        near, afar = verdict(rates[1].item(), SLOW), verdict(rates[3].item(), SLOW)
        found: dict[str, Any] = {
            "in turn": near,
            "at once": verdict(rates[0].item(), SLOW),
            "in turn, from afar": "comes closer" if (near, afar) == ("circles", "converges") else afar,
            "rates": dict(zip(("at once", "in turn", "at once, from afar", "in turn, from afar"), rates, strict=True)),
        }
        if j is None:
            return {"eigenvalues": None, "flow": "no derivative", **found}
        values = of_interest(torch.linalg.eigvals(j))
        expected = {"in turn": in_turn(j, self.lr), "at once": torch.eye(len(j), dtype=j.dtype) + self.lr * j}
        growth = {name: self.growth(step) for name, step in expected.items()}
        return {
            "eigenvalues": torch.view_as_real(values),
            "flow": verdict(values.real.max().item(), EXACT),
            "expected rates": growth,
            "expected": {name: verdict(rate, SLOW) for name, rate in growth.items()},
            **found,
        }

    def growth(self, step: Tensor) -> float:
        """Rate at which the linear map of a step grows, per unit of time."""
        one = torch.eye(len(step), dtype=step.dtype)
        values = 1 + of_interest(torch.linalg.eigvals(step - one))
        return values.abs().max().log().item() / self.lr

    def locus(self) -> dict[str, Tensor]:
        """Eigenvalues (num, 2, 2) of the non-saturating game with R1 for gamma from 0 to 2, real and imaginary part."""
        gammas = torch.linspace(0, 2, 41, dtype=torch.float64)
        chosen = [Stabiliser((R1(gamma=gamma, every=1),)) for gamma in gammas.tolist()]
        found = jacobian(Games(DISCRIMINATORS["plain"], [losses.NonSaturating()], chosen))[0]
        return {"gamma": gammas, "eigenvalues": torch.view_as_real(torch.linalg.eigvals(found))}

    def table(self, numbers: Numbers) -> Table:
        """Losses with the same verdicts share a row, and then stabilisers."""
        columns = ("theory", "flow", "in turn", "at once")
        losses_of: dict[tuple[str, ...], list[str]] = {}
        for told in numbers["verdicts"]:
            cells = [told[key] for key in columns]
            for scheme, expected in told.get("expected", {}).items():
                if told[scheme] != expected:
                    cells[columns.index(scheme)] += f", but eigenvalues: {expected}"
            losses_of.setdefault((told["D"], told["stabiliser"], *cells), []).append(told["loss"])
        groups = {
            len(all_losses()): "every loss",
            sum(not loss.paired for loss in all_losses().values()): "every unpaired loss",
        }
        stabilisers_of: dict[tuple[str, ...], list[str]] = {}
        for (D, stabiliser, *cells), found in losses_of.items():
            key = (D, groups.get(len(found), ", ".join(found)), *cells)
            stabilisers_of.setdefault(key, []).append(stabiliser)
        rows = [[D, loss, ", ".join(found), *cells] for (D, loss, *cells), found in stabilisers_of.items()]
        return Table(["D", "loss", "with", "theory", "eigenvalues", "D, then G", "both at once"], rows)

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        return {
            "dirac_portraits": portraits(numbers),
            "dirac_eigenvalues": eigenvalues(numbers),
            "dirac_distances": distances(numbers, self.lr),
            "dirac_moving": moving(numbers),
        }


# ---- figures -----------------------------------------------------------------------------------------------


def panel_title(name: str) -> str:
    """Of "D, loss, stabiliser"."""
    *D, loss, stabiliser = name.split(", ")
    what = loss if stabiliser == "none" else f"{loss} + {stabiliser}"
    return what if D == ["plain"] else f"{what}\n{', '.join(D)}"


def portraits(numbers: Numbers) -> Figure:
    """The field and a descent in turn, from FAR."""
    fig, axes = figure(2, 4, width=3.1, height=3.1)
    for ax, (name, shown) in zip(axes, numbers["portraits"].items(), strict=False):
        arrows(ax, numbers["grid"], shown["field"])
        path = shown["path"][:, 1]
        ax.plot(path[:, 0], path[:, 1], color=COLORS[0], linewidth=1.2)
        ax.plot(*path[0], "o", color=COLORS[0], markersize=5)
        ax.plot(0, 0, "+", color=COLORS[1], markersize=10, markeredgewidth=2)
        ax.set_title(panel_title(name), fontsize=10)
    label(axes, 4)
    return fig


def arrows(ax: Axes, grid: Tensor, field: Tensor) -> None:
    """Arrows of one length; the darker, the faster."""
    speed = field.norm(dim=1)
    unit = field / speed.clamp_min(1e-12)[:, None]
    shade = 0.75 - 0.45 * (speed / speed.max()).sqrt()
    ax.quiver(*grid.T, *unit.T, shade, cmap="gray", clim=(0, 1), scale=22, width=0.004, pivot="mid")
    ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")


def label(axes: Sequence[Axes], columns: int) -> None:
    for i, ax in enumerate(axes):
        if i >= len(axes) - columns:
            ax.set_xlabel("θ, where G is")
        if i % columns == 0:
            ax.set_ylabel("slope of D")


STYLES = dict(zip(stabilisers(), zip("osD^vP*Xh", (*COLORS, "#b03a7a", "#222222"), strict=True), strict=False))
"""Marker and colour of a stabiliser. A new one has none of its own."""


def style(stabiliser: str) -> tuple[str, str]:
    return STYLES.get(stabiliser, (".", "#7a7a7a"))


def eigenvalues(numbers: Numbers) -> Figure:
    """Three games with every stabiliser, and the path over gamma."""
    fig, axes = figure(1, 4, width=3.3, height=3.4)
    games = (("plain", "NonSaturating"), ("plain", "Wasserstein"), ("SAN, direction", "NonSaturating"))
    for ax, (D, loss) in zip(axes, games, strict=False):
        for told in numbers["verdicts"]:
            if (told["D"], told["loss"]) == (D, loss) and told["eigenvalues"] is not None:
                marker, color = style(told["stabiliser"])
                real, imaginary = told["eigenvalues"].T
                ax.plot(real, imaginary, marker, color=color, label=told["stabiliser"], fillstyle="none", markersize=8)
        ax.set_title(loss if D == "plain" else f"{loss}\n{D}", fontsize=10)
        ax.set(xlim=(-0.75, 0.25), ylim=(-1.2, 1.2))
    axes[0].legend(frameon=False, fontsize=7, loc="center left")
    locus = numbers["gammas"]
    for branch in locus["eigenvalues"].unbind(1):
        dots = axes[3].scatter(branch[:, 0], branch[:, 1], c=locus["gamma"], cmap="viridis", s=14)
    fig.colorbar(dots, ax=axes[3], label="gamma")
    axes[3].set_title("NonSaturating + R1", fontsize=10)
    for ax in axes:
        ax.axvline(0, color="#7a7a7a", linewidth=0.8)
        ax.set_xlabel("real part")
    axes[0].set_ylabel("imaginary part")
    return fig


def distances(numbers: Numbers, lr: float) -> Figure:
    """Distance over time, from NEAR: rows are losses, columns ways to step."""
    fig, axes = figure(2, 3, width=4.2, height=2.9)
    plans = (("plain", 0, "both at once"), ("plain", 1, "D, then G"), ("SAN, direction", 1, "D, then G"))
    for i, loss in enumerate(COURSES_OF):
        for ax, (D, scheme, how) in zip(axes[3 * i :], plans, strict=False):
            for name, words in COURSES.items():
                course = numbers["distances"][f"{D}, {loss}, {name}"][:, scheme]
                dashes = "--" if name == "instance noise" else "-"
                ax.semilogy(torch.arange(len(course)) * lr, course, dashes, color=style(name)[1], label=words)
            ax.set(ylim=(1e-8, 10), title=f"{loss}, {how}" if D == "plain" else f"{loss}, {how}\n{D}")
    for ax in axes[3:]:
        ax.set_xlabel("steps x learning rate")
    for ax in axes[::3]:
        ax.set_ylabel("distance from equilibrium")
    axes[2].legend(frameon=False, fontsize=8, loc="upper left")
    return fig


def moving(numbers: Numbers) -> list[Figure]:
    """Descents under way from FAR, both at once and in turn."""
    frames = []
    paths = {name: numbers["portraits"][name]["path"] for name in map(", ".join, MOVING)}
    length = len(next(iter(paths.values())))
    for end in range(1, length, 5):
        fig, axes = figure(2, 3, width=1.9, height=1.95)
        for ax, (name, path) in zip(axes, paths.items(), strict=True):
            for scheme, color in ((0, COLORS[1]), (1, COLORS[0])):
                tail = path[max(0, end - 25) : end, scheme]
                ax.plot(tail[:, 0], tail[:, 1], color=color, linewidth=1)
                ax.plot(*tail[-1], "o", color=color, markersize=4)
            ax.plot(0, 0, "+", color="black")
            ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=[], yticks=[], aspect="equal")
            ax.set_title(panel_title(name), fontsize=6)
        fig.suptitle("red: both at once, blue: D, then G", fontsize=8)
        frames.append(fig)
    return frames
