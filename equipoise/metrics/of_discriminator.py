"""Measures that ask a trained discriminator."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from equipoise.core.types import ImageSpec, component

from .measures import (
    Array,
    Asked,
    Better,
    Found,
    Measure,
    Number,
    Reads,
    Samples,
    Weight,
    of_run,
    pixels,
    scaled,
    shuffled,
)
from .probe import linear_svm

__all__ = ["OfDiscriminator"]


class OfDiscriminator(Measure):
    """A metric that asks the discriminator of the run that drew the images."""

    reads: ClassVar[Reads] = "discriminator"

    @abstractmethod
    def check(self, D: Asked, against: ImageSpec) -> None:
        """Raises ValueError, before any work, if it cannot be asked with a reference set of this spec.

        Of one without labels num_classes is 0, whatever it is of.
        """


@component
class Probe(OfDiscriminator):
    """Accuracy of an L2-SVM on the max-pooled maps of D's convolutions, on real images (Radford et al. 2016, sec. 5.1).

    Beside it stands the same of an untrained D of the same settings: convolutions with random weights are no bad
    features, and what is above theirs is what D has learned. No generated image takes part.

    Features have mean 0 and variance 1/F over the images that the SVM is fitted on, so that C means the same for
    every D; those that hardly vary, within float32's rounding, are 0.

    train, validation, test: labelled images of the reference set, drawn at random: the SVM is fitted on the first,
        they choose C, and they are what is measured.
    C: of `metrics.linear_svm`, to choose from; of equally good ones the first.
    """

    better: ClassVar[Mapping[str, Better]] = {"probe": "higher"}
    spread: ClassVar[str | None] = "standard error over test images"
    beside: ClassVar[str] = "an untrained D"

    train: int = Field(default=2000, ge=2)
    validation: int = Field(default=500, ge=1)
    test: int = Field(default=1000, ge=1)
    C: Annotated[tuple[Weight, ...], Field(min_length=1)] = (0.1, 1.0, 10.0)

    @property
    def least(self) -> tuple[int, int]:
        return 1, self.train + self.validation + self.test

    def check(self, D: Asked, against: ImageSpec) -> None:
        if against.num_classes == 0:
            raise ValueError(
                "the probe finds out how much D knows of the classes, and the images to compare with have no labels: "
                "give labelled data, such as Digits or an .npz with y"
            )
        if not any(isinstance(layer, nn.Conv2d) for layer in D.body().modules()):
            raise ValueError(
                f"the probe reads the maps of D's convolutions, and the body of {D.settings} has none: "
                "leave the probe out"
            )

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:
        D = of_run(fake)
        assert real.labels is not None  # see `check`
        rows = shuffled(np.arange(len(real.labels)), seed)[: self.least[1]]
        images, y = pixels(real)[rows], real.labels[rows]
        accuracy, C = self.best(D.features(images), y)
        untrained, C_untrained = self.best(D.features(images, trained=False), y)
        number = Number(accuracy, float(np.sqrt(accuracy * (1 - accuracy) / self.test)), untrained)
        return Found({"probe": number}, {"C": C, "C_untrained": C_untrained, "nimg": D.nimg})

    def best(self, features: Array, y: NDArray[np.int64]) -> tuple[float, float]:
        """Accuracy on the test images, with the C that the validation images choose."""
        cuts = [self.train, self.train + self.validation]
        fit, validation, test = zip(np.split(scaled(features, self.train), cuts), np.split(y, cuts), strict=True)
        fits = [(linear_svm(*fit, C=C), C) for C in self.C]
        svm, C = max(fits, key=lambda pair: pair[0].accuracy(*validation))
        return svm.accuracy(*test), C


@component
class Critic(OfDiscriminator):
    """The critic's estimate of the Wasserstein distance, mean D(x) - mean D(G(z)) (Arjovsky et al. 2017, sec. 3).

    At most K W, apart from chance, W being the earth mover's distance of the images as points of pixels in [-1, 1], and
    K the Lipschitz constant of D, which every run has of its own. Divided by an upper bound of K it is a lower one of
    W; where such a bound is known it is told as `lipschitz_bound`, otherwise that is None.
    """

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

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:  # noqa: ARG002
        D = of_run(fake)
        on_real = D.logits(pixels(real), real.labels, lod=D.lod)
        on_fake = D.logits(pixels(fake), fake.labels)  # G draws them at its level of detail itself
        number = Number(
            float(on_real.mean() - on_fake.mean()),
            float((on_real.var() / len(on_real) + on_fake.var() / len(on_fake)).sqrt()),
        )
        return Found({"wasserstein": number}, {"lipschitz_bound": D.lipschitz, "nimg": D.nimg, "real": len(on_real)})
