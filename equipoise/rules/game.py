"""Games: the images that D is shown as real and as generated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from equipoise.core.types import Batch, Generated, component
from equipoise.losses import Term

from .history import History

__all__ = ["Game", "Generation", "Shown"]


class Shown(NamedTuple):
    """The images shown to D.

    real, fake: images, with what D is told of them.
    made: everything that G returned.
    """

    real: Batch
    fake: Batch
    made: Generated


@component
class Game(ABC):
    """The rules of training: how G makes images from a batch, and which images D is shown.

    G and D are one module each, whatever they hold: two translators, or an encoder beside a generator.

    shown: a `History` of generated images, shown in D's update instead of the new images. None: the new images.
    tells_labels: G reads the label (domain) of an image, even if D does not.
    reuse: G's update takes the images of D's last update, with the same z. This saves a forward of G.
    """

    tells_labels: ClassVar[bool] = False

    shown: History | None = None
    reuse: bool = False

    @abstractmethod
    def show(self, G: nn.Module, z: Tensor, batch: Batch) -> Shown:
        """Real and generated images as D sees them; the trainer decides whether they carry G's graph.

        z: (N, z_dim), a row per image of `batch`.
        """

    def terms(self) -> tuple[Term, ...]:
        """Terms that the game itself needs."""
        return ()

    def check(self, cfg: Any) -> None:
        """Raises ValueError for `reuse=true` with `shown=History(...)`: old images carry no graph of G. Use one of the
        two.

        Raises ValueError for `reuse=true` with `g_batches` above 1 or `compute.micro_batch`: G would need more images
        than D was shown, or all pieces at once. Set `reuse=false`.
        """
        if not self.reuse:
            return
        if self.shown is not None:
            raise ValueError(
                f"game.reuse=true and game.shown={self.shown!r} do not go together: D is shown old images, which carry "
                "no graph of G. Use one of the two."
            )
        if cfg.g_batches > 1 or cfg.compute.micro_batch is not None:
            other = (
                f"g_batches={cfg.g_batches}" if cfg.g_batches > 1 else f"compute.micro_batch={cfg.compute.micro_batch}"
            )
            raise ValueError(
                f"game.reuse=true and {other} do not go together: G would need more images than D was shown, "
                "or the images of all pieces at once. Use game.reuse=false, or g_batches=1 compute.micro_batch=none."
            )


@component
class Generation(Game):
    """Images from z: D compares x with G(z, y), and both carry the labels of the batch (Goodfellow et al. 2014)."""

    def show(self, G: nn.Module, z: Tensor, batch: Batch) -> Shown:
        made = Generated.by(G, z, batch.y)
        return Shown(batch, Batch(made.x, batch.y), made)
