"""G's loss and its gradient over D's logit: the saturating loss gives no gradient where D is sure (Goodfellow 2014)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field

from equipoise.core.plots import Picture, figure
from equipoise.core.types import component
from equipoise.losses import GANLoss, Hinge, LeastSquares, NonSaturating, Saturating, SoftLeastSquares, Wasserstein

from ..base import Experiment, Numbers, Table

__all__ = ["Saturation"]

LOSSES: Mapping[str, GANLoss] = {
    "saturating": Saturating(),
    "non-saturating": NonSaturating(),
    "hinge, Wasserstein": Hinge(),
    "least squares": LeastSquares(),
    "soft least squares": SoftLeastSquares(),
}
assert Hinge().g(torch.ones(1)) == Wasserstein().g(torch.ones(1))  # one curve for both


@component
class Saturation(Experiment):
    """G's loss and its gradient over the logit that D gives a generated image.

    A sure D gives generated images logits far below 0. There the gradient -s(t) of the saturating loss vanishes, and
    the gradient -s(-t) of the non-saturating loss is -1 (Goodfellow et al. 2014, sec. 3).

    reach: logits go from -reach to reach.
    """

    reach: float = Field(default=10.0, gt=0)

    def run(self) -> Numbers:
        t = torch.linspace(-self.reach, self.reach, 401, dtype=torch.float64, requires_grad=True)
        curves = {}
        for name, loss in LOSSES.items():
            value = loss.g(t)
            (slope,) = torch.autograd.grad(value.sum(), t)
            curves[name] = {"loss": value.detach().numpy(), "gradient": slope.numpy()}
        return {"logit": t.detach().numpy(), "losses": curves}

    def table(self, numbers: Numbers) -> Table:
        middle = len(numbers["logit"]) // 2
        rows = [
            [name, *(f"{curve['gradient'][i]:.4f}" for i in (0, middle, -1))]
            for name, curve in numbers["losses"].items()
        ]
        at = (f"gradient at {value:g}" for value in (-self.reach, 0, self.reach))
        return Table(["loss", *at], rows)

    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        fig, (left, right) = figure(1, 2, width=5)
        for name, curve in numbers["losses"].items():
            left.plot(numbers["logit"], curve["loss"], label=name)
            right.plot(numbers["logit"], curve["gradient"])
        left.set(title="G's loss", xlabel="logit of a generated image", ylim=(-self.reach, 1.5 * self.reach))
        right.set(title="its gradient", xlabel="logit of a generated image", ylim=(-2.5, 1.5))
        left.legend(frameon=False)
        return {"saturation": fig}
