"""Transfer: start training from the networks of another run, with or without the first layers of D frozen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from equipoise.core.misfits import first_of, misfits
from equipoise.core.types import component
from equipoise.data.base import PathLike
from equipoise.nn import Discriminator
from equipoise.weights import weighted_layers

__all__ = ["FreezeD", "Start", "Transfer"]


@component
class Start(ABC):
    """Start from the networks of another run.

    Only G, D and the average of G are loaded. Optimisers, augmentation strength and the position in the data start
    afresh. The average continues without a ramp-up, which would forget the loaded weights within a few updates.
    """

    run: PathLike
    layers: int = Field(default=0, ge=0)

    @abstractmethod
    def fitting(
        self, given: Mapping[str, Tensor], expected: Mapping[str, Tensor], classes: tuple[int, int] = (0, 0)
    ) -> dict[str, Tensor]:
        """The weights to load into a network with the weights `expected`, taken or made from those `given`.

        classes: numbers of classes of the other run and of this one.

        Raises:
            ValueError: if the networks do not fit. The message says what does not.
        """

    def freeze(self, D: nn.Module) -> None:
        """Freeze the first `layers` layers of `D`. Call it before the optimiser is built: it skips frozen weights.

        Raises:
            ValueError: as `frozen`.
        """
        for parameter in self.frozen(D):
            parameter.requires_grad_(False)

    def frozen(self, D: nn.Module) -> list[nn.Parameter]:
        """The parameters of `D` to freeze.

        Raises:
            ValueError: if `D` has fewer layers, or nothing of it would be left to train.
        """
        if self.layers == 0:
            return []
        body = D.body if isinstance(D, Discriminator) else D
        total = len(list(D.parameters()))
        choices = [frozen for _, layer in weighted_layers(body) if len(frozen := upto(body, layer)) < total]
        if self.layers > len(choices):
            raise ValueError(
                f"{self!r} freezes more layers than the {type(D).__name__} has to spare: its features have "
                f"{len(choices)} layers that can be frozen while something is left to train. Choose layers from 0 to "
                f"{len(choices)}."
            )
        return choices[self.layers - 1]


@component
class FreezeD(Start):
    """Start from the networks of another run, and freeze the first `layers` layers of D (Mo, Cho & Shin 2020).

    Only G, D and the average of G are loaded. Optimisers, augmentation strength and the position in the data start
    afresh. The average continues without a ramp-up, which would forget the loaded weights within a few updates.

    run: directory of a run with networks of the same shape, or another place of networks, as in `Transfer`.
    layers: number of linear, convolutional and embedding layers of D's body, counted from the image in the order in
        which D registers them. Everything before the last of these layers is frozen too, such as norms. 0 is plain
        fine-tuning. The authors count blocks; their code trains the last three of StyleGAN's by default. StyleGAN2's
        code counts as here: fromrgb, conv0, conv1 and skip of each block; its default is 0.

    Frozen means not trained. Buffers still change: the singular vectors of a spectral norm follow the frozen weight,
    and running statistics follow the data. A constraint on D, such as `ClipWeights`, still projects all layers. On
    weights that it has projected before, it changes no more than the last digit.
    """

    layers: int = Field(default=2, ge=0)

    def fitting(
        self, given: Mapping[str, Tensor], expected: Mapping[str, Tensor], classes: tuple[int, int] = (0, 0)
    ) -> dict[str, Tensor]:
        if wrong := misfits(given, expected):
            raise ValueError(first_of(wrong))
        return {name: given[name] for name in expected}


@component
class Transfer(Start):
    """Start from the networks of another run, with every weight that has the same name and shape here.

    For networks that differ in part: another resolution, other classes, other channels. Weights of another number of
    classes are adapted, see `for_classes`. All others start at their initial values. The run says which were copied,
    which were adapted and which were not. Where the networks are the same, it is ``FreezeD(layers=0)``.

    run: directory of a run, of an import (``equipoise import``) or of an export with both networks (``equipoise export
        --with-discriminator``); or a name on the Hugging Face Hub, you/name, which the extra `hub` downloads.
    layers: number of the first layers of D to freeze, as in `FreezeD`. Each of them must have been copied.
    """

    def fitting(
        self, given: Mapping[str, Tensor], expected: Mapping[str, Tensor], classes: tuple[int, int] = (0, 0)
    ) -> dict[str, Tensor]:
        shared = [name for name in expected if name in given]
        copied = {name: given[name] for name in shared if given[name].shape == expected[name].shape}
        if not copied:
            raise ValueError("no weight has the same name and shape")
        others = {
            name: for_classes(given[name], expected[name].shape, *classes) for name in shared if name not in copied
        }
        return copied | {name: value for name, value in others.items() if value is not None}


def for_classes(weight: Tensor, shape: torch.Size, before: int, now: int) -> Tensor | None:
    """`weight` with the size `shape`, where one dimension differs, by the number of classes alone. Else None.

    A table (classes, F) gets the mean over the classes before in the row of each class now. A layer whose last inputs
    are a one-hot class keeps its other inputs, and has the mean over the classes before for each class now; 0, which
    ignores the class, if there were none.

    before, now: numbers of classes.
    """
    if weight.ndim != len(shape) or weight.ndim < 2:  # vectors of that size are buffers of spectral norms
        return None
    differing = [dim for dim, (a, b) in enumerate(zip(weight.shape, shape, strict=True)) if a != b]
    if len(differing) != 1:
        return None
    dim = differing[0]
    rest = weight.shape[dim] - before
    if rest < 0 or rest != shape[dim] - now:
        return None
    others, of_classes = weight.split([rest, before], dim)
    mean = of_classes.mean(dim, keepdim=True) if before else torch.zeros_like(weight.narrow(dim, 0, 1))
    return torch.cat([others, mean.repeat_interleave(now, dim)], dim)


def upto(net: nn.Module, last: nn.Module) -> list[nn.Parameter]:
    """The parameters of `net` in order of registration, up to and including the layer `last`."""
    inside = {id(parameter) for parameter in last.parameters()}
    parameters = list(net.parameters())
    end = max(i for i, parameter in enumerate(parameters) if id(parameter) in inside)
    return parameters[: end + 1]
