"""Dynamics of a Dirac-GAN game: by its Jacobian at the equilibrium, by gradient descent, and by theory."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .games import Games

__all__ = ["REFUSED", "descend", "in_turn", "jacobian", "kinked", "late_rate", "of_interest", "theory", "verdict"]

# ---- at the equilibrium ------------------------------------------------------------------------------------

STEP = 1e-3
"""Step of finite differences."""


def jacobian(games: Games) -> Tensor:
    """The Jacobian v' of each game's field at its equilibrium, (L, P, 1 + K, 1 + K): row i is the gradient of v_i.

    Autograd computes it for a plain D. A SAN stops gradients, and autograd would leave the stopped paths out of v'. So
    a SAN takes fourth-order differences.
    """
    at = games.equilibrium()
    if games.D.san:
        return differences(games)
    rows: Tensor = torch.autograd.functional.jacobian(lambda state: games.field(state).sum((0, 1, 2)), at)
    return rows[..., 0, :].permute(1, 2, 0, 3)  # (1 + K, L, P, 1, 1 + K): no game depends on another


def differences(games: Games) -> Tensor:
    """The result of `jacobian`, by central differences of fourth order."""
    one, two = (beside(games, step) - beside(games, -step) for step in (STEP, 2 * STEP))
    return (8 * one - two) / (12 * STEP)


def kinked(games: Games) -> Tensor:
    """Whether v lacks a derivative at the equilibrium, (L, P): differences to the two sides, of two steps, disagree."""
    here = games.field(games.equilibrium())[..., 0, :, None]
    ahead, behind = (beside(games, STEP) - here) / STEP, (here - beside(games, -2 * STEP)) / (2 * STEP)
    return (ahead - behind).abs().amax((-1, -2)) > 100 * STEP


def beside(games: Games, step: float) -> Tensor:
    """The field at the equilibrium + step e_j in column j, (L, P, 1 + K, 1 + K)."""
    at = games.equilibrium()
    moves = step * torch.eye(at.shape[-1], dtype=at.dtype)
    return games.field(at + moves).transpose(-1, -2)  # each direction is a start


def of_interest(values: Tensor) -> Tensor:
    """The two eigenvalues of largest size. The others are 0: they belong to moves along the set of equilibria."""
    return values[values.abs().argsort(descending=True)[:2]]


def in_turn(j: Tensor, lr: float) -> Tensor:
    """The linear map of one step of D, then one of G, from v' (1 + K, 1 + K)."""
    one = torch.eye(len(j), dtype=j.dtype)
    of_d, of_g = lr * j, lr * j
    of_d[0], of_g[1:] = 0, 0
    return (one + of_g) @ (one + of_d)


def verdict(rate: float, tolerance: float) -> str:
    """Name the course of a descent. rate: growth of the logarithm of the distance per unit of time."""
    if abs(rate) <= tolerance:
        return "circles"
    return "converges" if rate < 0 else "diverges"


# ---- gradient descent --------------------------------------------------------------------------------------

NEAR, FAR = 1e-4, 1.0
"""Distances from the equilibrium at which descent starts: where v' alone decides, and where more than v' does."""
LEFT = 1e3
"""Distance at which a game is followed no further."""


def descend(games: Games, steps: int, lr: float) -> tuple[Tensor, Tensor]:
    """Gradient descent of every game -> distances from the equilibrium and places (θ, slope), after each step.

    Shapes (steps + 1, L, P, 4) and (steps + 1, L, P, 4, 2). The 4 descents: the first two start NEAR, the last two FAR.
    Within each two, the first moves both players at once; the second moves D, then G.
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
    path = torch.stack(places)
    return path.norm(dim=-1), path


def late_rate(distances: Tensor, lr: float) -> Tensor:
    """Growth of log distance per unit of time, (T + 1, ...) -> (...): from the third quarter to the last.

    A unit of time is 1/lr steps. Each quarter counts with its largest distance, as it holds half a turn. The rate is at
    most 0 for a descent that ends nearer than it began. It is at least 0 for any other: that one has left, wherever it
    settles.
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
"""Losses whose d is curved, or straight, where D is undecided. Instance noise needs a curved d."""


def theory(loss: str, stabiliser: str, discriminator: str) -> str:
    """The course of gradient flow near the equilibrium, if known. Section numbers refer to Mescheder et al. 2018.

    Without a stabiliser (2.2, 2.3) descent circles. So it does with the one-sided penalty, which is 0 there, and with
    drift, which acts on D at the data, where D never changes. Zero-centred penalties (3.3, 4.1) and consensus
    (Mescheder et al. 2017) converge. So does instance noise (3.2), if d'' > 0. With WGAN-GP (3.1) a descent that gives
    D finitely many steps does not converge. DRAGAN is the same penalty here, as the deviation of one point is 0.
    """
    if discriminator != "plain" or loss not in CURVED + STRAIGHT:
        return UNKNOWN
    match stabiliser:
        case "none" | "one-sided GP" | "Drift":
            return "circles"
        case "R1" | "R2" | "zero-centred GP" | "consensus":
            return "converges"
        case "WGAN-GP" | "DRAGAN":
            return "does not converge"
        case "instance noise":
            return "converges" if loss in CURVED else "circles"
    return UNKNOWN
