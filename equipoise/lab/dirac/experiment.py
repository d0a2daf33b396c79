"""The smallest GAN, data at 0, G(z) = θ, D(x) = ψx: which settings converge, which circle (Mescheder et al. 2018)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from equipoise.core.plots import Picture
from equipoise.core.types import component
from equipoise.losses import R1, NonSaturating

from ..base import Experiment, Numbers, Table
from .dynamics import REFUSED, descend, in_turn, jacobian, kinked, late_rate, of_interest, theory, verdict
from .figures import COURSES, COURSES_OF, TELLING, draw_distances, draw_eigenvalues, draw_moving, draw_portraits, grid
from .games import DISCRIMINATORS, Discriminator, Games, Stabiliser, all_losses, stabilisers

__all__ = ["Dirac"]

EXACT = 1e-6
"""Real parts of eigenvalues up to this size count as 0."""
SLOW = 5e-3
"""Rates of trajectories up to this size, per unit of time, count as 0."""


@component
class Dirac(Experiment):
    """The Dirac-GAN (Mescheder et al. 2018, def. 2.1): every loss, every penalty, a plain and a SAN discriminator.

    Data is always 0, G always makes θ, and D(x) = ψx. At θ = ψ = 0 neither player has a reason to move. There the
    Jacobian of gradient descent has the eigenvalues ±i √(d'|g'|), d and g the losses of the players: descent circles.
    With gamma/2 ψ² added to D's loss they are -gamma/2 ± √(gamma²/4 - d'|g'|), and descent converges. D's logit gets a
    constant added, the logit of the loss's undecided D: 1/2 for least squares, 0 for losses that are symmetric in sign.

    SAN: in one dimension the direction is ±1 and has nothing to learn. So h has a second feature, which is always 0:
    D(x) = <w, h(x)>. In "SAN, direction", h(x) = (x, 0): w's direction makes D's slope, and w = (0, 1) at the
    equilibrium. In "SAN, features", h(x) = (ψx, 0): h makes D's slope, and ψ = 0, w = (0.8, 0.6) at the equilibrium.
    Relativistic pairing cannot train a SAN.

    gamma: gamma of R1, R2 and consensus, and twice the strength of other penalties.  std: std of instance noise.
    lr, time: descent takes time/lr steps, with lr small enough to follow gradient flow.
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
            rows, portraits_of_d, courses_of_d = self.play(name, D)
            verdicts += rows
            portraits |= portraits_of_d
            courses |= courses_of_d
        return {
            "verdicts": verdicts,
            "grid": torch.stack(grid(), dim=1),
            "portraits": portraits,
            "distances": courses,
            "gammas": self.locus(),
        }

    def play(self, name: str, D: Discriminator) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Tensor]]:
        """Play every game of this D: verdicts, and portraits and distances of the games that are drawn."""
        stabilising = stabilisers(self.gamma, self.std)
        chosen = {loss: value for loss, value in all_losses().items() if D.trains(value)}
        games = Games(D, chosen.values(), stabilising.values())
        jacobians, kinks = jacobian(games), kinked(games)
        distance, places = descend(games, round(self.time / self.lr), self.lr)
        rates = late_rate(distance, self.lr)
        field = games.field(D.start(*grid()).expand(len(chosen), len(stabilising), -1, -1))
        verdicts: list[dict[str, Any]] = []
        portraits: dict[str, Any] = {}
        courses: dict[str, Tensor] = {}
        for i, loss in enumerate(chosen):
            for j, with_ in enumerate(stabilising):
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
            for with_ in stabilising
        ]
        return verdicts, portraits, courses

    def verdicts(self, j: Tensor | None, rates: Tensor) -> dict[str, Any]:
        """Verdicts on one game, from its Jacobian (None: it does not exist) and the late rates of the four descents."""
        near, afar = verdict(rates[1].item(), SLOW), verdict(rates[3].item(), SLOW)
        descents: dict[str, Any] = {
            "in turn": near,
            "at once": verdict(rates[0].item(), SLOW),
            "in turn, from afar": "comes closer" if (near, afar) == ("circles", "converges") else afar,
            "rates": dict(zip(("at once", "in turn", "at once, from afar", "in turn, from afar"), rates, strict=True)),
        }
        if j is None:
            return {"eigenvalues": None, "flow": "no derivative", **descents}
        values = of_interest(torch.linalg.eigvals(j))
        expected = {"in turn": in_turn(j, self.lr), "at once": torch.eye(len(j), dtype=j.dtype) + self.lr * j}
        growth = {name: self.growth(step) for name, step in expected.items()}
        return {
            "eigenvalues": torch.view_as_real(values),
            "flow": verdict(values.real.max().item(), EXACT),
            "expected rates": growth,
            "expected": {name: verdict(rate, SLOW) for name, rate in growth.items()},
            **descents,
        }

    def growth(self, step: Tensor) -> float:
        """Growth rate of the linear map of a step, per unit of time."""
        one = torch.eye(len(step), dtype=step.dtype)
        values = 1 + of_interest(torch.linalg.eigvals(step - one))
        return values.abs().max().log().item() / self.lr

    def locus(self) -> dict[str, Tensor]:
        """Eigenvalues (num, 2, 2) of the non-saturating game with R1 for gamma from 0 to 2, real and imaginary part."""
        gammas = torch.linspace(0, 2, 41, dtype=torch.float64)
        chosen = [Stabiliser((R1(gamma=gamma, every=1),)) for gamma in gammas.tolist()]
        jacobians = jacobian(Games(DISCRIMINATORS["plain"], [NonSaturating()], chosen))[0]
        return {"gamma": gammas, "eigenvalues": torch.view_as_real(torch.linalg.eigvals(jacobians))}

    def table(self, numbers: Numbers) -> Table:
        """The table of verdicts. Losses with the same verdicts share a row, and then stabilisers do."""
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
        for (D, stabiliser, *cells), losses in losses_of.items():
            key = (D, groups.get(len(losses), ", ".join(losses)), *cells)
            stabilisers_of.setdefault(key, []).append(stabiliser)
        rows = [[D, loss, ", ".join(names), *cells] for (D, loss, *cells), names in stabilisers_of.items()]
        return Table(["D", "loss", "with", "theory", "eigenvalues", "D, then G", "both at once"], rows)

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        return {
            "dirac_portraits": draw_portraits(numbers),
            "dirac_eigenvalues": draw_eigenvalues(numbers),
            "dirac_distances": draw_distances(numbers, self.lr),
            "dirac_moving": draw_moving(numbers),
        }
