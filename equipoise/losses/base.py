"""The terms of a player's loss. A loss, a penalty, a regulariser, a loss of classes have one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor, nn

from equipoise.core.types import Batch, Critic, Logits

__all__ = ["Game", "Output", "Place", "Seen", "Term"]

Output = Logits | Tensor | Sequence["Output"]
"""What a discriminator may return."""


Place = Literal["fused", "apart", "whole"]
"""Where the gradient of a term is computed; see `Term`."""


class Game(NamedTuple):
    """Both losses on the same images, (), and the weights that each player trains; graphs reach all of them."""

    d_loss: Tensor
    g_loss: Tensor
    d_weights: Sequence[Tensor]
    g_weights: Sequence[Tensor]


class Seen(Protocol):
    """The view of an update that its terms have. Each thing is computed once, when a term first asks for it.

    real, fake: images and their classes. In D's update the generated ones carry no graph.
    labelled: images whose classes D learns, or None.
    on_real, on_fake, on_labelled: what D returns for them, augmented.
    critic: D as a function of images, augmented, that can be differentiated twice.
    net: the network that is updated.  nimg: real images that D has seen.
    """

    @property
    def real(self) -> Batch: ...

    @property
    def fake(self) -> Batch: ...

    @property
    def labelled(self) -> Batch | None: ...

    @property
    def on_real(self) -> Output: ...

    @property
    def on_fake(self) -> Output: ...

    @property
    def on_labelled(self) -> Output: ...

    @property
    def critic(self) -> Critic: ...

    @property
    def net(self) -> nn.Module: ...

    @property
    def nimg(self) -> int: ...

    def game(self) -> AbstractContextManager[Game]:
        """The losses of both players, without terms of place "apart" and "whole"."""


class Term(ABC):
    """Part of what a player minimises.

    every: it is due at every `every`-th update of its player, and counts `every` times then (lazy regularisation,
        Karras et al. 2020).
    place: "fused" in the graph of the loss, and of its precision; "apart" with a backward of its own for each piece of
        the batch, in float32; "whole" with a backward of its own, once an update.
    """

    every: int
    place: ClassVar[Place]

    @property
    def name(self) -> str | None:
        """Under which its unweighted value is reported; None: not by itself."""
        return type(self).__name__

    @abstractmethod
    def weight(self, nimg: int) -> float:
        """Factor after `nimg` images; kept apart from the value, so that logs compare across weights."""

    @abstractmethod
    def of(self, seen: Seen) -> Tensor:
        """-> (), unweighted."""
