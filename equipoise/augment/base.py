"""The interface of an augmentation: a module that every image passes on its way to D."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, NoReturn

from torch import Tensor, nn

from equipoise.core.types import component

__all__ = ["Augment", "Augmentation", "Means", "NoAugment"]


class Means(NamedTuple):
    """Mean logits of D over an iteration's images and all processes, () each. Higher means "more real".

    held_out: over real images that D is never trained on (`Augment.held_out`), or None.
    sign_again: mean sign of the logits of real images that penalties gave to D once more (`Augment.all_passes`), or
        None.
    """

    real: Tensor
    fake: Tensor
    held_out: Tensor | None = None
    sign_again: Tensor | None = None


class Augmentation(nn.Module, ABC):
    """forward(x (N, C, H, W)) -> same shape, differentiable twice; random numbers come from torch's generator.

    Its strength may follow the progress of training (`at`) or D's logits (`adapt`). State that depends on D lives in
    buffers. Values that follow from nimg are not state.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def at(self, nimg: int) -> None:
        """Follow the schedules: D has seen `nimg` real images."""

    @abstractmethod
    def adapt(self, sign_real: Tensor, num_images: int, means: Means | None = None) -> dict[str, Tensor]:
        """Account for an iteration.

        sign_real: (), mean sign of D's logits on its real images, over all processes.
        num_images: number of these images.
        means: D's mean logits, for an augmentation that asks for held-out images or for all passes; else None.

        Returns statistics to log: detached scalars, on the device.
        """


class Augment(ABC):
    """Settings of an augmentation."""

    @property
    def held_out(self) -> float:
        """Share of the data that D is never trained on, because `adapt` needs D's logits there."""
        return 0.0

    @property
    def reads_sign(self) -> bool:
        """Whether `adapt` reads `sign_real`. The sign has a meaning only if a logit of 0 means undecided."""
        return False

    @property
    def all_passes(self) -> bool:
        """Whether `adapt` reads D's verdicts on real images in penalties too."""
        return False

    @abstractmethod
    def build(self) -> Augmentation: ...

    def check(self, cfg: Any) -> None:
        """Raises ValueError for `ADA(heuristic="rt")` with a loss whose logit of 0 does not mean undecided: the sign of
        D's logits says nothing then. Set `heuristic=rv held_out=0.1` or `heuristic=fixed`, or take `Hinge`.
        """
        if self.reads_sign and not cfg.loss.signed:
            raise ValueError(
                f"augment={self!r} goes by the sign of D's logits on real images, which says nothing with "
                f"{cfg.loss!r}, because a logit of 0 does not mean undecided there. Compare with images held out "
                "(augment=ADA(heuristic=rv,held_out=0.1)), keep p (augment=ADA(heuristic=fixed,initial=0.3)), or take "
                "a loss with a verdict (loss=NonSaturating, loss=Hinge)."
            )

    def __call__(self, x: Tensor) -> NoReturn:
        """Raise TypeError: settings cannot be called, only the augmentation that they build."""
        raise TypeError(
            f"{self!r} are settings. Build the augmentation once, augment = {self!r}.build(), call augment(x)"
        )


class Identity(Augmentation):
    """The identity, x -> x."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def at(self, nimg: int) -> None:
        pass

    def adapt(self, sign_real: Tensor, num_images: int, means: Means | None = None) -> dict[str, Tensor]:
        return {}


@component
class NoAugment(Augment):
    """No augmentation: D sees unchanged images."""

    def build(self) -> Augmentation:
        return Identity()
