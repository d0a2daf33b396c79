"""A Wasserstein critic's estimate of the distance between two sets (Arjovsky et al. 2017, sec. 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import Tensor

from equipoise.core.types import ImageSpec, component

from .base import Asked, Better, Found, Labels, Number, Pixels, Samples
from .of_discriminator import OfDiscriminator

__all__ = ["critic_distance"]


def critic_distance(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """The difference mean D(x) - mean D(G(z)), and its standard error, (var D(x)/N + var D(G(z))/M)^½, ddof 1.

    real, fake: logits (N,) and (M,), float64.

    Raises:
        ValueError: for fewer than 2 logits of either set.

    >>> critic_distance(torch.tensor([3.0, 5.0]), torch.tensor([1.0, 1.0]))
    (3.0, 1.0)
    """
    if min(len(real), len(fake)) < 2:
        raise ValueError(f"expected the logits of at least 2 images of each set, got {len(real)} and {len(fake)}")
    error = (real.var() / len(real) + fake.var() / len(fake)).sqrt()
    return float(real.mean() - fake.mean()), float(error)


class Labelled(NamedTuple):
    """Images with labels.  pixels: (N, H, W, C).  labels: (N,), or None."""

    pixels: Pixels
    labels: Labels | None


@component
class Critic(OfDiscriminator[Asked, Labelled, Labelled]):
    """mean D(x) - mean D(G(z)), for a run with the Wasserstein loss (Arjovsky et al. 2017).

    Apart from chance it is at most K W. W is the earth mover's distance between the images as points, with pixels in
    [-1, 1]. K is the Lipschitz constant of D, which differs from run to run. Divided by an upper bound on K, the number
    is a lower bound on W. `lipschitz_bound` reports the bound on K; None if no bound is known.
    """

    name: ClassVar[str] = "critic"
    better: ClassVar[Mapping[str, Better]] = {"wasserstein": "lower"}
    spread: ClassVar[str | None] = "standard error over images"
    least: ClassVar[tuple[int, int]] = (2, 2)

    def check(self, D: Asked, against: ImageSpec) -> None:
        if D.estimates != "wasserstein":
            raise ValueError(
                "the difference of D's mean logits estimates a Wasserstein distance where D is trained to make it "
                f"large, and this one is trained with {D.loss}: ask the critic of a run with loss=Wasserstein"
            )
        if D.reads_labels and against.num_classes != D.spec.num_classes:
            raise ValueError(
                f"this critic reads the class of an image, of {D.spec.num_classes} classes, and the images to compare "
                f"with have {against.num_classes}: compare with the data that the run was trained on"
            )

    def ask(self, fake: Samples, real: Samples) -> tuple[Asked, Labelled, Labelled]:
        return fake.discriminator, Labelled(fake.pixels, fake.labels), Labelled(real.pixels, real.labels)

    def find(self, seed: int, D: Asked, fake: Labelled, real: Labelled) -> Found:  # noqa: ARG002
        on_real = D.logits(*real, lod=D.lod)
        on_fake = D.logits(*fake)  # G has drawn them at its own level of detail
        number = Number(*critic_distance(on_real, on_fake))
        return Found({"wasserstein": number}, {"lipschitz_bound": D.lipschitz, "nimg": D.nimg, "real": len(on_real)})
