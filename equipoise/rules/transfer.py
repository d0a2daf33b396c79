"""Transfer: training that starts from the networks of another run, with the first layers of D kept as they are."""

from __future__ import annotations

from pydantic import Field
from torch import nn

from equipoise.core.types import component
from equipoise.data.base import PathLike
from equipoise.nn import Discriminator
from equipoise.weights import weighted_layers

__all__ = ["FreezeD"]


@component
class FreezeD:
    """Start from the networks of another run, and do not train the first `layers` layers of D (Mo, Cho & Shin 2020).

    Only G, D and the average of G are taken: no optimiser, no augmentation strength, no position in the data. The
    average goes on without a ramp-up, which would forget what was taken within a few updates.

    run: directory of a run with networks of the same shape.
    layers: linear, convolutional and embedding layers of D's body, counted from the image in the order in which D
        registers them; everything that comes before the last of them stays too, norms among it. 0 is plain
        fine-tuning. The authors count blocks; their code trains the last three of StyleGAN's, unless told otherwise.

    Frozen means not trained. What is no parameter goes on as ever: the singular vectors of a spectral norm follow a
    weight that rests, and running statistics follow the data. A constraint on D, such as `ClipWeights`, still projects
    all layers; on weights that it has projected before, it changes no more than the last digit.
    """

    run: PathLike
    layers: int = Field(default=2, ge=0)

    def freeze(self, D: nn.Module) -> None:
        """Let what stays of `D` require no gradient. Before its optimiser is built, which leaves such weights out.

        Raises:
            ValueError: as `frozen`.
        """
        for parameter in self.frozen(D):
            parameter.requires_grad_(False)

    def frozen(self, D: nn.Module) -> list[nn.Parameter]:
        """The parameters of `D` that stay.

        Raises:
            ValueError: if `D` has not that many layers, or nothing of it would be left to train.
        """
        if self.layers == 0:
            return []
        body = D.body if isinstance(D, Discriminator) else D
        total = len(list(D.parameters()))
        stay = [some for _, layer in weighted_layers(body) if len(some := upto(body, layer)) < total]
        if self.layers > len(stay):
            raise ValueError(
                f"{self!r} asks for more layers than the {type(D).__name__} can spare: its features have {len(stay)} "
                f"that can stay while something is left to train. Choose layers from 0 to {len(stay)}."
            )
        return stay[self.layers - 1]


def upto(net: nn.Module, last: nn.Module) -> list[nn.Parameter]:
    """The parameters of `net` in its own order, up to and including all of the layer `last`."""
    inside = {id(parameter) for parameter in last.parameters()}
    parameters = list(net.parameters())
    end = max(i for i, parameter in enumerate(parameters) if id(parameter) in inside)
    return parameters[: end + 1]
