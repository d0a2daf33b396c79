"""The two sets of an evaluation as metrics ask them: each answer is computed when it is first asked for, and kept.

Several processes compute an answer together. So all of them ask the same questions in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.compute.distributed import from_rank_0
from equipoise.compute.shares import together
from equipoise.data.base import PathLike
from equipoise.features import Activations, FeatureNet, Reference, reference
from equipoise.features.reference import joined
from equipoise.metrics import GaussianStats

from .discriminator import TrainedDiscriminator
from .sources import Drawn, Source

__all__ = ["FakeSamples", "RealSamples"]

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


class Seen(NamedTuple):
    """What one pass over images keeps: of one batch, or of all. None is what no metric asks for, or no image has."""

    activations: Activations | None
    pixels: Pixels | None
    labels: Labels | None


class FakeSamples:
    """The set that is measured. Its images are drawn once, when a metric first asks for features, pixels or labels.

    That pass computes all that the metrics will ask for: features of each batch as it comes. It keeps the pixels only
    if a metric asks for them.

    source: of the images.  share: draws this process's share of the batches.
    asked: attributes that the metrics will ask for, as `metrics.base.needs` names them.
    net: None if no metric asks for what it computes.  discriminator: None if no metric asks it.
    """

    def __init__(
        self,
        source: Source,
        share: Callable[[], Iterator[Drawn]],
        asked: AbstractSet[str],
        net: FeatureNet | None,
        discriminator: TrainedDiscriminator | None,
    ):
        self.source, self.share, self.asked, self.net = source, share, asked, net
        self.num_classes = source.spec.num_classes
        self.of_run = discriminator

    @cached_property
    def seen(self) -> Seen:
        """The one pass."""

        def own() -> Iterator[Seen]:
            for x, y in self.share():
                activations = None if self.net is None else self.net(x)
                yield Seen(activations, x if "pixels" in self.asked else None, y)

        batches = together(own)
        activations = [batch.activations for batch in batches if batch.activations is not None]
        pixels = [batch.pixels for batch in batches if batch.pixels is not None]
        labels = [batch.labels for batch in batches if batch.labels is not None]
        return Seen(
            joined(activations) if activations else None,
            np.concatenate(pixels) if pixels else None,
            np.concatenate(labels) if labels else None,
        )

    @property
    def activations(self) -> Activations:
        assert self.seen.activations is not None  # the evaluation has a network for a metric that asks for these
        return self.seen.activations

    @property
    def features(self) -> Array:
        return self.activations.features

    @cached_property
    def stats(self) -> GaussianStats:
        features = self.features  # of all processes together, and so before rank 0 is alone
        return from_rank_0(lambda: GaussianStats(features))

    @property
    def probabilities(self) -> Array:
        return of_classifier(self.activations.probabilities)

    @property
    def pixels(self) -> Pixels:
        assert self.seen.pixels is not None  # the pass keeps them for a metric that asks for these
        return self.seen.pixels

    @property
    def labels(self) -> Labels | None:
        return self.seen.labels

    @property
    def discriminator(self) -> TrainedDiscriminator:
        assert self.of_run is not None  # the evaluation has it for a metric that asks it
        return self.of_run


class RealSamples:
    """The reference set. Its images are gone through once for pixels, and for features as `features.reference` does.

    source: of the images.  batches: they all, again and again.
    net: None if no metric asks for what it computes.  cache: as in `features.reference`.
    """

    def __init__(self, source: Source, batches: Iterable[Pixels], net: FeatureNet | None, cache: PathLike | None):
        self.source, self.batches, self.net, self.cache = source, batches, net, cache
        self.labels = source.labels
        self.num_classes = 0 if source.labels is None else source.spec.num_classes  # a generator's are not kept

    @cached_property
    def reference(self) -> Reference:
        assert self.net is not None  # the evaluation has one for a metric that asks for features
        return reference(self.net, self.batches, cache=self.cache)

    @property
    def features(self) -> Array:
        return self.reference.features

    @property
    def stats(self) -> GaussianStats:
        return self.reference.stats

    @property
    def probabilities(self) -> Array:
        return of_classifier(self.reference.probabilities)

    @cached_property
    def pixels(self) -> Pixels:
        return np.concatenate(list(self.batches))

    @property
    def discriminator(self) -> TrainedDiscriminator:
        raise LookupError("the reference set is of no run: ask the generated images for the discriminator")


def of_classifier(probabilities: Array | None) -> Array:
    """Raises ValueError if the feature network gives none."""
    if probabilities is None:
        raise ValueError("the feature network gives no class probabilities: take one that classifies")
    return probabilities
