"""The terms of a player's loss: one interface for losses, penalties, regularisers and class losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor, nn

from equipoise.core.types import Batch, Critic, Generated, ImageSpec, Logits, Told

__all__ = ["BothLosses", "Memory", "Output", "Place", "Players", "Seen", "Term", "require_whole_batches"]

Output = Logits | Tensor | Sequence["Output"]
"""Output of a discriminator: logits, or a list of outputs."""


Place = Literal["fused", "apart", "whole"]
"""Where the gradient of a term is computed; see `Term`."""

Players = Literal["D", "G", "both"]
"""The player that minimises a term, or both."""


class BothLosses(NamedTuple):
    """Both losses on the same images, (), and the weights that each player trains. Both graphs reach all weights."""

    d_loss: Tensor
    g_loss: Tensor
    d_weights: Sequence[Tensor]
    g_weights: Sequence[Tensor]


class Seen(Protocol):
    """An update, as its terms see it. Each attribute is computed once, when a term first reads it.

    real, fake: images as the game shows them to D, with what D is told. In D's update they carry no graph.
    made: everything that G returned.
    labelled: images whose classes D learns, or None.
    on_real, on_fake, on_labelled: D's output for these images, augmented.
    critic: D as a function of images, which it augments. It can be differentiated twice.
    critic_of_real: `critic` for the real images of the batch alone. An augmentation may count its verdicts.
    net: the network that is updated.  nimg: real images that D has seen.
    z: (N, z_dim), the latents of the generated images.
    y: the labels of the batch, or None. Reading z and y makes no images.
    """

    @property
    def real(self) -> Batch: ...

    @property
    def fake(self) -> Batch: ...

    @property
    def made(self) -> Generated: ...

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
    def critic_of_real(self) -> Critic: ...

    @property
    def net(self) -> nn.Module: ...

    @property
    def nimg(self) -> int: ...

    @property
    def z(self) -> Tensor: ...

    @property
    def y(self) -> Told: ...

    def again(self, y: Told) -> Generated:
        """Call G again, with the same z and another condition: for cycles and identities."""
        ...

    def both_losses(self) -> AbstractContextManager[BothLosses]:
        """The losses of both players, without terms of place "apart" and "whole"."""
        ...


class Memory(nn.Module, ABC):
    """Buffers that a term keeps between updates. Checkpoints hold them."""

    @abstractmethod
    def update(self, net: nn.Module) -> None:
        """Account for a step that `net` has made."""


class Term(ABC):
    """Part of what a player minimises.

    player: the player that minimises the term.
    every: the term is due at every `every`-th update of its player, and counts `every` times then (lazy
        regularisation, Karras et al. 2020).
    place: where the gradient is computed:
        "fused": in the graph of the loss, and in its precision;
        "apart": in a separate backward for each piece of the batch, in float32;
        "whole": in a separate backward, once per update.
    whole_batch: the term reads a mean or spread of the batch, so gradients of pieces do not add up to the batch's.
    of_gradient: the term penalises D's gradient at each image. Batch norm in D would spread it over the batch.
    opposes: the term is the loss of a player against the other player.
    own_step: the gradient goes into an optimiser step of its own, after the player's step; see `LazyStep`.
    replaces_loss: the player minimises the term in place of the adversarial loss.
    memory: buffers kept between updates, or None.
    """

    every: int
    player: Players
    place: ClassVar[Place]
    whole_batch: ClassVar[bool] = False
    of_gradient: ClassVar[bool] = False
    opposes: ClassVar[bool] = False
    own_step: ClassVar[bool] = False
    memory: Memory | None = None

    @property
    def replaces_loss(self) -> bool:
        return False

    @property
    def name(self) -> str | None:
        """Name under which the unweighted value is reported; None: not reported separately."""
        return type(self).__name__

    @abstractmethod
    def weight(self, nimg: int) -> float:
        """Factor after `nimg` images. It is kept out of the value, so that logs compare across weights."""

    @abstractmethod
    def of(self, seen: Seen) -> Tensor:
        """-> (), unweighted."""

    def for_data(self, spec: ImageSpec, batch_size: int) -> Term:  # noqa: ARG002
        """The term for images of `spec` in batches of `batch_size`: itself, unless a setting depends on them."""
        return self

    def at_work(self, net: nn.Module) -> Term:
        """The term as the player of `net` uses it: itself, or a term with memory that starts from `net`."""
        return self

    def check(self, cfg: Any) -> None:
        """Raises ValueError for `compute.micro_batch` with a term that reads a mean or spread of the batch
        (`whole_batch`): gradients of pieces do not add up to its own. Use more processes, or a smaller `batch_size`.
        """
        if self.whole_batch:
            require_whole_batches(cfg, repr(self))


def require_whole_batches(cfg: Any, setting: str) -> None:
    """Raises ValueError if `cfg` computes its updates in pieces, which `setting` does not allow."""
    if cfg.compute.micro_batch is not None:
        raise ValueError(
            f"compute.micro_batch={cfg.compute.micro_batch} and {setting} do not go together: the latter reads a mean "
            "or spread of the whole batch, so the gradients of pieces do not add up to the batch's. Use "
            "compute.micro_batch=none with more processes or a smaller batch_size, or go without the latter."
        )
