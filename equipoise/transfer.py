"""Transfer: training that starts from the networks of another run, with the first layers of D kept as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import Field
from torch import Tensor, nn

from .data.base import PathLike
from .distributed import from_rank_0
from .heads import Discriminator
from .singular import weighted_layers
from .types import component

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

    def load(self, nets: Mapping[str, nn.Module]) -> None:
        """Give `nets` ("G", "D", "ema") the weights and buffers of the run's newest whole checkpoint.

        The run is only read: a damaged checkpoint stays where it is, with a warning on stderr, and the one before is
        used.

        Raises:
            ValueError: if the run has no whole checkpoint, or its networks do not fit; then `nets` are as they were.
        """
        path, weights = from_rank_0(self.read)
        for name, net in nets.items():
            wrong = misfits(weights.get(name, {}), net.state_dict())
            if wrong:
                raise ValueError(
                    f"{name} of {path} does not fit this config's: {first_of(wrong)}. Take generator, "
                    f"discriminator, head and normalisers from {Path(self.run) / 'config.txt'}, and data of the same "
                    "resolution, channels and number of classes."
                )
        for name, net in nets.items():
            net.load_state_dict(weights[name])

    def read(self) -> tuple[Path, dict[str, dict[str, Tensor]]]:
        """The newest whole checkpoint of the run: where it is, and its weights by network."""
        from .checkpoint import finished, newest_whole  # here: checkpoints know configs, which know this module

        folder = Path(self.run).expanduser() / "checkpoints"
        found = newest_whole(folder)
        if found is not None:
            return found[:2]
        damaged = f"every checkpoint in {folder} is damaged"
        state = damaged if finished(folder) else f"there is no checkpoint in {folder}"
        raise ValueError(
            f"cannot start from the run {self.run}: {state}. Give the directory of a run that has saved one, "
            'such as transfer=FreezeD(run="runs/a").'
        )


def upto(net: nn.Module, last: nn.Module) -> list[nn.Parameter]:
    """The parameters of `net` in its own order, up to and including all of the layer `last`."""
    inside = {id(parameter) for parameter in last.parameters()}
    parameters = list(net.parameters())
    end = max(i for i, parameter in enumerate(parameters) if id(parameter) in inside)
    return parameters[: end + 1]


def first_of(phrases: Sequence[str], shown: int = 3) -> str:
    """The first phrases, none longer than 200 characters, and how many more there are."""
    more = f" and {len(phrases) - shown} more" if len(phrases) > shown else ""
    return "; ".join(phrase[:200] for phrase in phrases[:shown]) + more


def misfits(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """How one network's weights differ from another's in names and shapes, a phrase each."""

    def phrases() -> Iterator[str]:
        for name, tensor in expected.items():
            if name not in given:
                yield f"it has no {name}"
            elif given[name].shape != tensor.shape:
                yield f"{name} is {tuple(given[name].shape)} and not {tuple(tensor.shape)}"
        for name in given:
            if name not in expected:
                yield f"it has {name}, too"

    return list(phrases())
